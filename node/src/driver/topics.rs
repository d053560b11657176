//! Messages of topics: checks what comes before it is passed on, and sends what this node publishes.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use libp2p::{
    PeerId,
    gossipsub::{MessageAcceptance, MessageId, PublishError as Refusal, TopicHash},
};
use multinodes_behaviour::{SignedMessage, wire};
use serde_bytes::ByteBuf;
use tokio::sync::oneshot;

use super::{Driver, Due, rations::STRIKE};
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

type RespondTo = oneshot::Sender<Result<Published, PublishError>>;

/// What the driver knows of topics.
pub(super) struct Topics {
    hash: TopicHash,
    sequence: u64,
    guard: Guard,
    /// Waits for the first neighbour.
    held: VecDeque<Held>,
    published: Option<Instant>,
}

struct Held {
    envelope: Vec<u8>,
    here: usize,
    respond_to: RespondTo,
}

impl Topics {
    pub(super) fn new(hash: TopicHash, now: Instant) -> Self {
        Self { hash, sequence: 0, guard: Guard::new(now), held: VecDeque::new(), published: None }
    }

    pub(super) fn is(&self, topic: &TopicHash) -> bool {
        self.hash == *topic
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
        let admitted = self.admits_message(source, now);
        let opened = admitted.then(|| SignedMessage::open(&self.core.settings.swarm, bytes));
        let acceptance = match opened {
            None => MessageAcceptance::Ignore,
            Some(Ok(signed)) => self.on_signed_message(signed, now),
            Some(Err(error)) => {
                tracing::debug!(%source, %error, "a bad message of a topic");
                Counters::add(&self.core.counters.bad_messages);
                self.strike(source, STRIKE, now);
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
        if self.rations.relayed_messages.take(1.0, now) { MessageAcceptance::Accept } else { MessageAcceptance::Ignore }
    }

    /// The slow housekeeping.
    pub(super) fn on_topics_tick(&mut self, now: Instant) {
        let directory = &self.directory;
        self.topics.guard.forget(now, |peer_id| directory.knows(peer_id));
    }
}
