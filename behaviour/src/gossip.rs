//! Spreads changes, signs of life and what users publish. Every message carries the signature of the node that it is
//! from, so gossip itself is unsigned: signed gossip would verify every copy of a message, about six, before it knows
//! them for copies.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use libp2p::gossipsub::{
    self, ConfigBuilder, ConfigBuilderError, IdentityTransform, Message, MessageAuthenticity, MessageId, TopicHash,
    TopicSubscriptionFilter, ValidationMode,
};
use sha2::{Digest, Sha256};

use crate::{
    SwarmName, codec,
    ration::Rate,
    wire::{self, Gossip},
};

/// Gossipsub that knows the swarm's own topics only.
pub type Behaviour = gossipsub::Behaviour<IdentityTransform, OwnTopics>;

/// What gossipsub reports.
pub type Event = gossipsub::Event;

/// The default of 5 s would leave a young node without a mesh, and so without news, for as long.
const FIRST_HEARTBEAT: Duration = Duration::from_millis(100);

/// The default. One heartbeat costs an idle node some 20 µs: no reason to heal a mesh any slower.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// The default, named because `MAX_RECORD` is made to fit it.
pub const MAX_MESSAGE: usize = 64 * 1024;

/// The default of 5,000 messages a peer is 320 MB at the worst; sync repairs what a full queue drops.
const QUEUE: usize = 256;

/// The default of 1 s for what is passed on loses much of it where many nodes start at once on few cores, and sync has to bring
/// it. A peer that is silent for half as long is closed.
const QUEUED: Duration = Duration::from_secs(10);

/// The default is 5,000: a mesh of our size has far fewer messages in three heartbeats.
const MAX_MESSAGES_IN_RPC: usize = 512;

/// The default of 60 s would let a node that was cut off come back to a full mesh only after as long.
const PRUNE_BACKOFF: Duration = Duration::from_secs(15);

/// How many neighbours pass each message on to a node. The default lets a mesh grow to 12 when many nodes start at once, and
/// then each message comes as often.
const MESH_LOW: usize = 4;
const MESH: usize = 6;
const MESH_HIGH: usize = 8;

/// So many others are told which messages there were. By default it is a quarter of all neighbours at least, and sync repairs
/// what they miss as well.
const TOLD_OF: usize = 3;

/// Long enough to tell two messages apart, and much shorter than the default of sender and number (72 bytes), which
/// would make the announcements of messages as dear as the messages.
const MESSAGE_ID: usize = 20;

/// What gossip of a peer may take of the swarm's own task, in microseconds: a second at once, and a tenth of it in the long
/// run. Honest gossip takes a fraction of that; a packet can have 16 KiB of announcements and wishes, hundreds of them, each of
/// which is looked for.
const TAKEN: Rate = Rate { burst: 1e6, per_second: 100e3 };

/// The same, and for all peers of a host.
pub(crate) const RATIONS: [Rate; 2] = [TAKEN, TAKEN.times(NEIGHBOURS)];
const NEIGHBOURS: f64 = 2.0;

/// Creates the behaviour, subscribed to the swarm's topics. Counts in `refused` what peers subscribe to beyond these.
///
/// # Errors
///
/// Only if a constant of this file contradicts gossipsub's own rules.
pub fn new(swarm: &SwarmName, refused: Arc<AtomicU64>) -> Result<Behaviour, GossipError> {
    let config = ConfigBuilder::default()
        .protocol_id_prefix(swarm.gossip_protocol_prefix())
        .heartbeat_initial_delay(FIRST_HEARTBEAT)
        .heartbeat_interval(HEARTBEAT)
        .max_transmit_size(MAX_MESSAGE)
        .connection_handler_queue_len(QUEUE)
        .publish_queue_duration(QUEUED)
        .forward_queue_duration(QUEUED)
        .max_publish_messages(MAX_MESSAGES_IN_RPC)
        .prune_backoff(PRUNE_BACKOFF)
        .mesh_n_low(MESH_LOW)
        .mesh_n(MESH)
        .mesh_n_high(MESH_HIGH)
        .gossip_lazy(TOLD_OF)
        .gossip_factor(0.0)
        // Everybody is near and densely connected: flooding would send each message to all instead of to a mesh.
        .flood_publish(false)
        // The driver checks the signature inside before anything is forwarded.
        .validate_messages()
        .validation_mode(ValidationMode::Anonymous)
        .message_id_fn(message_id)
        .build()?;
    let topics = [swarm.gossip_topic(), swarm.message_topic()];
    let filter = OwnTopics { topics: topics.each_ref().map(|topic| topic.hash()), refused };
    let mut behaviour = Behaviour::new_with_subscription_filter(MessageAuthenticity::Anonymous, config, filter)
        .map_err(GossipError::Contradiction)?;
    for topic in &topics {
        behaviour.subscribe(topic)?;
    }
    Ok(behaviour)
}

/// Lets peers subscribe to the swarm's own topics, and counts what else they try: nothing is kept of it.
#[derive(Debug, Clone)]
pub struct OwnTopics {
    topics: [TopicHash; 2],
    refused: Arc<AtomicU64>,
}

impl TopicSubscriptionFilter for OwnTopics {
    fn can_subscribe(&mut self, topic: &TopicHash) -> bool {
        let own = self.topics.contains(topic);
        if !own {
            self.refused.fetch_add(1, Relaxed);
        }
        own
    }
}

/// Encodes a message for the topic of records and beats.
///
/// # Errors
///
/// Never with the types of [`wire`], but the codec may.
pub fn encode(message: &Gossip) -> Result<Vec<u8>, codec::EncodeError> {
    codec::encode(message)
}

/// Decodes a message of the topic of records and beats. The envelope inside is still to be opened.
///
/// # Errors
///
/// The bytes are more than [`MAX_MESSAGE`] or are not a [`wire::Gossip`].
pub fn decode(bytes: &[u8]) -> Result<wire::Gossip, codec::DecodeError> {
    codec::decode(bytes, MAX_MESSAGE)
}

fn message_id(message: &Message) -> MessageId {
    MessageId::from(&Sha256::digest(&message.data)[..MESSAGE_ID])
}

/// Gossip that cannot be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GossipError {
    /// Settings that exclude each other.
    #[error("gossipsub refuses its settings: {0}")]
    Settings(#[from] ConfigBuilderError),
    /// A way of signing and a way of validating that exclude each other.
    #[error("gossipsub refuses its way of validation: {0}")]
    Contradiction(&'static str),
    /// The topic was refused.
    #[error("gossipsub refuses the topic: {0}")]
    Topic(#[from] gossipsub::SubscriptionError),
}

#[cfg(test)]
mod tests {
    use serde_bytes::ByteBuf;

    use super::*;

    #[test]
    fn the_settings_are_accepted() {
        assert!(new(&SwarmName::default(), Arc::default()).is_ok());
    }

    #[test]
    fn a_message_that_is_encoded_is_decoded_to_the_same() {
        let message = Gossip::Beat(ByteBuf::from(vec![1, 2, 3]));
        assert_eq!(decode(&encode(&message).unwrap()).unwrap(), message);
    }

    #[test]
    fn what_is_no_message_is_refused() {
        assert!(decode(b"").is_err());
        assert!(decode(&vec![0; MAX_MESSAGE + 1]).unwrap_err().to_string().contains("limit of 65536"));
    }
}
