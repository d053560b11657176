//! Messages of topics: checks what comes before it is passed on, and sends what this node publishes.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use libp2p::{
    PeerId,
    gossipsub::{MessageAcceptance, MessageId, PublishError as Refusal, TopicHash},
};
use multinodes_behaviour::{SignedMessage, wire};
use serde_bytes::ByteBuf;
use tokio::sync::oneshot;

use super::{Driver, Due};
use crate::{
    core::Counters,
    payload::Payload,
    topics::{
        PublishError, Published, TopicMessage,
        guard::{Guard, Verdict},
    },
};

/// A node that was just started waits so long for a neighbour that passes messages on.
const FIRST_NEIGHBOUR: Duration = Duration::from_secs(3);

/// The most messages that wait for it.
const MAX_HELD: usize = 64;

/// How often it is looked whether there is none to wait for.
const LOOK: Duration = Duration::from_millis(100);

/// A node that stops leaves the tasks of its connections this time to write what it has published last.
const WRITING: Duration = Duration::from_millis(250);

/// A neighbour may pass on so many bad messages: nobody does who checks them, as everybody has to.
const BAD_MESSAGES: u32 = 16;

/// Then nothing of its gossip is heard for so long. What it was to pass on comes from others.
const SILENCED: Duration = Duration::from_secs(60);

/// The most neighbours that are noted for it: one that is one too many is cut off instead.
const MAX_BAD: usize = 1024;

type RespondTo = oneshot::Sender<Result<Published, PublishError>>;

/// What the driver knows of topics.
pub(super) struct Topics {
    hash: TopicHash,
    sequence: u64,
    guard: Guard,
    /// Waits for the first neighbour.
    held: VecDeque<Held>,
    /// Neighbours that have passed on bad messages: how many, and when it was too much.
    bad: HashMap<PeerId, (u32, Option<Instant>)>,
    published: Option<Instant>,
}

struct Held {
    envelope: Vec<u8>,
    here: usize,
    respond_to: RespondTo,
}

impl Topics {
    pub(super) fn new(hash: TopicHash, now: Instant) -> Self {
        Self { hash, sequence: 0, guard: Guard::new(now), held: VecDeque::new(), bad: HashMap::new(), published: None }
    }

    pub(super) fn is(&self, topic: &TopicHash) -> bool {
        self.hash == *topic
    }

    /// The network is built anew, and has silenced nobody.
    pub(super) fn forget(&mut self) {
        self.bad.clear();
    }

    /// When a node that stops may close its connections.
    pub(super) fn written(&self) -> Option<Instant> {
        self.published.map(|published| published + WRITING)
    }
}

impl Driver {
    /// Signs what this node publishes, hands it to those who listen here and to the neighbours.
    pub(super) fn publish_message(&mut self, topic: String, value: Payload, respond_to: RespondTo) {
        self.topics.sequence += 1;
        let message = wire::TopicMessage {
            topic,
            incarnation: self.own.incarnation,
            sequence: self.topics.sequence,
            value: ByteBuf::from(value.as_bytes().to_vec()),
        };
        let core = &self.core;
        let signed = match SignedMessage::sign(&core.keypair, &core.settings.swarm, message) {
            Ok(signed) => signed,
            Err(error) => return drop(respond_to.send(Err(PublishError::of(error)))),
        };
        let node = (!core.settings.passive).then(|| core.settings.name.clone());
        let own = || TopicMessage { from: core.peer_id, node, value };
        let here = core.topics.deliver(&signed.message.topic, own);
        let held = Held { envelope: signed.envelope().to_vec(), here, respond_to };
        if self.listeners() == 0 && self.may_find_neighbours() && self.topics.held.len() < MAX_HELD {
            if self.topics.held.is_empty() {
                self.timers.after(LOOK, Due::Held);
            }
            self.topics.held.push_back(held);
        } else {
            self.spread(held);
        }
    }

    fn spread(&mut self, held: Held) {
        let Held { envelope, here, respond_to } = held;
        let neighbours = self.listeners();
        let gossip = &mut self.swarm.behaviour_mut().gossip;
        let result = match gossip.publish(self.topics.hash.clone(), envelope) {
            Ok(_) | Err(Refusal::Duplicate) => Ok(Published { here, neighbours }),
            Err(Refusal::NoPeersSubscribedToTopic) => Ok(Published { here, neighbours: 0 }),
            Err(Refusal::AllQueuesFull(_)) => Err(PublishError::Busy),
            Err(error) => Err(PublishError::Unsendable { reason: error.to_string() }),
        };
        self.topics.published = Some(Instant::now());
        // Who does not wait for the answer has published all the same.
        let _ = respond_to.send(result);
    }

    /// Neighbours that pass messages on.
    fn listeners(&self) -> usize {
        let peers = self.swarm.behaviour().gossip.all_peers();
        peers.filter(|(_, topics)| topics.contains(&&self.topics.hash)).count()
    }

    fn may_find_neighbours(&self) -> bool {
        let settled = self.core.status.borrow().settled && self.peers.is_empty();
        self.stopping.is_none() && !settled && self.core.started.elapsed() < FIRST_NEIGHBOUR
    }

    /// Sends what has waited for a neighbour, if there is one or none is to be expected.
    pub(super) fn release_held(&mut self) {
        if self.topics.held.is_empty() {
            return;
        }
        if self.listeners() == 0 && self.may_find_neighbours() {
            return self.timers.after(LOOK, Due::Held);
        }
        for held in std::mem::take(&mut self.topics.held) {
            self.spread(held);
        }
    }

    pub(super) fn on_topic_message(&mut self, source: PeerId, id: &MessageId, bytes: &[u8]) {
        let now = Instant::now();
        let acceptance = match SignedMessage::open(&self.core.settings.swarm, bytes) {
            Ok(signed) => self.on_signed_message(signed, now),
            Err(error) => {
                tracing::debug!(%source, %error, "a bad message of a topic");
                Counters::add(&self.core.counters.bad_messages);
                self.on_bad_message(source, now);
                MessageAcceptance::Reject
            }
        };
        self.swarm.behaviour_mut().gossip.report_message_validation_result(id, &source, acceptance);
    }

    fn on_signed_message(&mut self, signed: SignedMessage, now: Instant) -> MessageAcceptance {
        let SignedMessage { peer_id: from, ref message, .. } = signed;
        // Its own messages were delivered when they were published.
        if from == self.core.peer_id {
            return MessageAcceptance::Ignore;
        }
        let known = self.directory.version(&from).map(|known| known.incarnation);
        match self.topics.guard.admit(from, message, signed.envelope().len(), known, now) {
            Verdict::News => {}
            Verdict::Repeated => {
                Counters::add(&self.core.counters.repeated_messages);
                return MessageAcceptance::Ignore;
            }
            Verdict::TooMuch => {
                tracing::debug!(%from, "a message too many");
                Counters::add(&self.core.counters.refused_messages);
                return MessageAcceptance::Ignore;
            }
        }
        self.core.topics.deliver(&message.topic, || TopicMessage {
            from,
            node: self.core.snapshot.load().by_peer.get(&from).map(|info| info.name.clone()),
            value: Payload::from_bytes(message.value.to_vec()),
        });
        MessageAcceptance::Accept
    }

    /// A neighbour that goes on passing on what it should have refused is not listened to for a while: it would have
    /// us check signatures all day. To ignore single messages of it instead would let it suppress good ones, since
    /// gossip takes the copies of others for duplicates.
    pub(super) fn on_bad_message(&mut self, source: PeerId, now: Instant) {
        if self.topics.bad.len() >= MAX_BAD && !self.topics.bad.contains_key(&source) {
            let _ = self.swarm.disconnect_peer_id(source);
            return;
        }
        let (count, silenced) = self.topics.bad.entry(source).or_default();
        *count += 1;
        if *count >= BAD_MESSAGES && silenced.is_none() {
            *silenced = Some(now);
            tracing::warn!(%source, "a neighbour passes on bad messages and is not listened to for a while");
            self.swarm.behaviour_mut().gossip.blacklist_peer(&source);
        }
    }

    /// The slow housekeeping.
    pub(super) fn on_topics_tick(&mut self, now: Instant) {
        let directory = &self.directory;
        self.topics.guard.forget(now, |peer_id| directory.knows(peer_id));
        let (gossip, peers) = (&mut self.swarm.behaviour_mut().gossip, &self.peers);
        self.topics.bad.retain(|peer_id, (count, silenced)| {
            let over = silenced.is_some_and(|since| now.saturating_duration_since(since) >= SILENCED);
            if over {
                gossip.remove_blacklisted_peer(peer_id);
            } else if silenced.is_none() {
                // What comes once in a while is forgiven.
                *count -= 1;
            }
            // Who is silenced stays so while it is away.
            !over && (silenced.is_some() || (*count > 0 && peers.contains_key(peer_id)))
        });
    }
}
