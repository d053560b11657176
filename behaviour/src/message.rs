//! A message of a topic, signed with the key of its sender: anyone may pass it on, nobody can forge or change it. Its
//! envelope is like that of a record.
//!
//! All topics of the users travel on one gossip topic, which every node relays. With a gossip topic for each, only
//! subscribers would relay: two that are not neighbours, in a swarm where each node has some tens of connections, would
//! hear nothing of each other, and nobody would say so. Each further mesh also costs control traffic, and anybody could
//! make every node keep a state for endless topics. The price is that a node relays what it does not read: that is what
//! the limits of size and rate are for.

use bytes::Bytes;
use libp2p::{PeerId, identity::Keypair};

use crate::{
    RecordError, SwarmName, names,
    record::{Kind, length},
    wire::TopicMessage,
};

/// The longest name of a topic, in bytes.
pub const MAX_TOPIC: usize = 256;

/// The largest value, in bytes.
pub const MAX_VALUE: usize = 48 * 1024;

/// The largest signed message, in bytes: the largest value, the longest topic, and an envelope with an RSA key.
pub const MAX_MESSAGE: usize = 50 * 1024;

const MESSAGE: Kind = Kind { name: "message", limit: MAX_MESSAGE };

/// A message with the proof of who sent it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedMessage {
    /// Whose key has signed: the sender.
    pub peer_id: PeerId,
    /// What it has published.
    pub message: TopicMessage,
    envelope: Bytes,
}

impl SignedMessage {
    /// Signs a message.
    ///
    /// # Errors
    ///
    /// The topic breaks the rule for names, the value is over its limit, or the key cannot sign.
    pub fn sign(keypair: &Keypair, swarm: &SwarmName, message: TopicMessage) -> Result<Self, RecordError> {
        check(&message.topic, message.value.len())?;
        let envelope = MESSAGE.seal(keypair, swarm, &message)?;
        Ok(Self { peer_id: keypair.public().to_peer_id(), message, envelope })
    }

    /// Opens an envelope, which may come from anyone.
    ///
    /// # Errors
    ///
    /// It is too large, not an envelope, not signed for this swarm, the topic breaks the rule for names, or the value is
    /// over its limit.
    pub fn open(swarm: &SwarmName, envelope: &[u8]) -> Result<Self, RecordError> {
        let (peer_id, message) = MESSAGE.open::<TopicMessage>(swarm, envelope)?;
        check(&message.topic, message.value.len())?;
        Ok(Self { peer_id, message, envelope: Bytes::copy_from_slice(envelope) })
    }

    /// The bytes to pass on.
    #[must_use]
    pub fn envelope(&self) -> &Bytes {
        &self.envelope
    }
}

/// Checks a topic and the size of a value, in bytes.
///
/// # Errors
///
/// The topic breaks the rule for [names], or the value is over its limit.
pub fn check(topic: &str, value: usize) -> Result<(), RecordError> {
    names::check("a topic", topic, MAX_TOPIC)?;
    length("value", value, MAX_VALUE)
}

#[cfg(test)]
mod tests {
    use serde_bytes::ByteBuf;

    use super::*;
    use crate::SignedBeat;

    fn message(topic: usize, value: usize) -> TopicMessage {
        let value = ByteBuf::from(vec![7; value]);
        TopicMessage { topic: "t".repeat(topic), incarnation: u64::MAX, sequence: u64::MAX, value }
    }

    #[test]
    fn the_largest_message_can_be_signed_and_opened_and_no_larger_one() {
        let (keypair, swarm) = (Keypair::generate_ed25519(), SwarmName::default());
        let signed = SignedMessage::sign(&keypair, &swarm, message(MAX_TOPIC, MAX_VALUE)).unwrap();
        assert!(signed.envelope().len() < MAX_MESSAGE - 900, "an RSA key has room: {}", signed.envelope().len());
        assert_eq!(SignedMessage::open(&swarm, signed.envelope()).unwrap(), signed);
        let error = SignedMessage::sign(&keypair, &swarm, message(1, MAX_VALUE + 1)).unwrap_err();
        assert_eq!(error.to_string(), "the `value` has 49153 bytes, the limit is 49152");
        let error = SignedMessage::sign(&keypair, &swarm, message(MAX_TOPIC + 1, 1)).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("`{}` cannot name a topic: it has 257 bytes, the limit is 256", "t".repeat(80))
        );
        assert!(SignedMessage::sign(&keypair, &swarm, message(0, 1)).is_err());
        // What is signed although it is over a limit is refused by whoever opens it.
        let sealed = MESSAGE.seal(&keypair, &swarm, &message(MAX_TOPIC + 1, 1)).unwrap();
        assert!(SignedMessage::open(&swarm, &sealed).is_err());
    }

    #[test]
    fn a_message_that_was_changed_or_is_of_another_swarm_or_use_is_refused() {
        let (keypair, swarm) = (Keypair::generate_ed25519(), SwarmName::default());
        let signed = SignedMessage::sign(&keypair, &swarm, message(3, 100)).unwrap();
        for at in 0..signed.envelope().len() {
            let mut bytes = signed.envelope().to_vec();
            bytes[at] ^= 1;
            assert!(SignedMessage::open(&swarm, &bytes).is_err(), "byte {at}");
        }
        assert!(SignedMessage::open(&"other".parse().unwrap(), signed.envelope()).is_err());
        assert!(SignedBeat::open(&swarm, signed.envelope()).is_err());
    }
}
