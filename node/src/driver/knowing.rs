//! What this node says of itself, and what gossip brings of others.

use std::{
    sync::atomic::Ordering::Relaxed,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use libp2p::{
    PeerId,
    gossipsub::{self, MessageAcceptance, MessageId, PublishError},
};
use multinodes_behaviour::{
    RecordError, SignedBeat, SignedRecord, gossip,
    wire::{Beat, Gossip, Record, Version},
};
use serde_bytes::ByteBuf;

use super::{Driver, Due, rations::STRIKE, timers::jittered};
use crate::{
    addresses,
    core::{Core, Counters},
    description::Event,
    directory::{Heard, Merged, changed},
};

/// Changes that follow each other so soon are told at once.
const BURST: Duration = Duration::from_millis(20);

/// How long a stopping node waits for its neighbours to have heard the goodbye.
const GOODBYE_LIMIT: Duration = Duration::from_millis(500);

/// The most addresses in a record.
const MAX_ADDRESSES: usize = multinodes_behaviour::record::MAX_ADDRESSES;

/// What this node knows of its own record.
pub(super) struct Own {
    /// Tells this process from others that use the same key.
    process: [u8; 8],
    pub(super) incarnation: u64,
    revision: u64,
    beat: u64,
    /// How long after the last beat the next one comes, but for chance; set with the first.
    spacing: Duration,
    /// Since when the first beat waits, and for which part of the time between two.
    first_beat: Option<(Instant, f64)>,
    /// The directory was levelled with somebody.
    pub(super) synced: bool,
    /// All peers are lost, some of them by silence.
    pub(super) cut_off: bool,
    /// The record as the directory has it.
    told: Option<Record>,
    /// It has not been told by gossip yet.
    untold: bool,
    announced: Option<Instant>,
    announcement_due: bool,
    too_large: bool,
}

impl Own {
    pub(super) fn new(core: &Core) -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let incarnation = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        core.incarnation.store(incarnation, Relaxed);
        Self {
            process: rand::random(),
            incarnation,
            revision: 0,
            beat: 0,
            spacing: Duration::ZERO,
            first_beat: None,
            synced: false,
            cut_off: false,
            told: None,
            untold: false,
            announced: None,
            announcement_due: false,
            too_large: false,
        }
    }

    /// The network is built anew, so that what was due is not any more.
    pub(super) fn forget(&mut self) {
        self.announced = None;
        self.announcement_due = false;
    }
}

impl Driver {
    /// Tells what is hosted here and where: the first time at once, a burst of changes once.
    pub(super) fn announce(&mut self) {
        let now = Instant::now();
        match self.own.announced {
            _ if self.own.announcement_due || !self.listening.complete => {}
            Some(announced) if now < announced + BURST => {
                self.own.announcement_due = true;
                self.timers.at(announced + BURST, Due::Announce);
            }
            _ => self.announce_now(now),
        }
    }

    pub(super) fn announce_now(&mut self, now: Instant) {
        self.own.announcement_due = false;
        self.own.announced = Some(now);
        if self.core.settings.passive || self.stopping.is_some() {
            return;
        }
        let mut record = self.describe_self();
        if let Some(told) = &self.own.told {
            record.revision = told.revision;
            if record == *told {
                return;
            }
        }
        self.own.revision += 1;
        record.revision = self.own.revision;
        match self.sign(record) {
            Ok(signed) => {
                self.own.too_large = false;
                self.own.told = Some(signed.record.clone());
                self.directory.set_own(signed, self.core.load(), now);
                self.own.untold = true;
                self.repeat_announcement();
            }
            Err(error) => self.on_unsigned(&error),
        }
    }

    fn on_unsigned(&mut self, error: &RecordError) {
        tracing::error!(%error, "this node cannot describe itself to others");
        if !std::mem::replace(&mut self.own.too_large, true) {
            let reason = format!("others do not see the latest change of this node's applications: {error}");
            self.tell(Event::Degraded { reason });
        }
    }

    fn sign(&self, record: Record) -> Result<SignedRecord, RecordError> {
        SignedRecord::sign(&self.core.keypair, &self.core.settings.swarm, record)
    }

    fn describe_self(&self) -> Record {
        let (mut dialable, needs_host) = addresses::advertised(&self.listening.addresses);
        dialable.truncate(MAX_ADDRESSES);
        Record {
            name: self.core.settings.name.clone(),
            incarnation: self.own.incarnation,
            revision: self.own.revision,
            software: env!("CARGO_PKG_VERSION").to_owned(),
            addresses: dialable.iter().map(|address| ByteBuf::from(address.to_vec())).collect(),
            host: self.host.clone().filter(|_| needs_host).map(ByteBuf::from),
            applications: self.core.applications(),
            labels: self.core.settings.labels.clone(),
            left: false,
            process: Some(self.own.process.to_vec().into()),
        }
    }

    /// Tells the own record by gossip, if that could not be done before.
    pub(super) fn repeat_announcement(&mut self) {
        if !self.own.untold || self.peers.is_empty() {
            return;
        }
        let own = self.directory.envelope(&self.core.peer_id).map(|own| own.to_vec());
        if let Some(own) = own {
            self.own.untold = !self.publish(&Gossip::Record(ByteBuf::from(own)));
        }
    }

    /// Somebody holds a later record of this node: its clock was set back since. A new life goes beyond it.
    pub(super) fn step_over(&mut self, version: Version) {
        if version.incarnation >= self.own.incarnation {
            tracing::warn!(incarnation = version.incarnation, "others know a later life of this node; going beyond it");
            self.own.incarnation = version.incarnation.saturating_add(1);
            self.core.incarnation.store(self.own.incarnation, Relaxed);
            self.own.beat = 0;
            self.leave_note();
            self.announce();
            // A neighbour that is connected to another process with this key, too, takes no gossip from this one.
            self.timers.after(BURST * 2, Due::Sync);
        }
    }

    /// Passes a record on that was learnt by an exchange, and that other neighbours may not have.
    pub(super) fn pass_on(&mut self, envelope: &[u8]) {
        if self.rations.relayed.take(1.0, Instant::now()) {
            self.publish(&Gossip::Record(ByteBuf::from(envelope.to_vec())));
        }
    }

    /// True if the message is on its way, or was already.
    fn publish(&mut self, message: &Gossip) -> bool {
        let Ok(bytes) = gossip::encode(message) else { return true };
        match self.swarm.behaviour_mut().gossip.publish(self.topic.clone(), bytes) {
            Ok(_) | Err(PublishError::Duplicate) => true,
            Err(PublishError::NoPeersSubscribedToTopic | PublishError::AllQueuesFull(_)) => false,
            Err(error) => {
                tracing::warn!(%error, "gossip cannot be sent");
                true
            }
        }
    }

    pub(super) fn begin_beats(&mut self) {
        self.begin_syncs();
        if !self.core.settings.passive {
            // Nodes that start together spread their beats.
            let place = rand::random_range(0.5..1.0);
            self.own.first_beat = Some((Instant::now(), place));
            self.timers.after(self.directory.first_spacing().mul_f64(place), Due::Beat);
        }
    }

    /// How long the first beat has to wait still: by now more nodes may be known. Its rhythm begins there.
    fn first_beat_waits(&mut self) -> Option<Duration> {
        let (since, place) = self.own.first_beat?;
        self.own.spacing = self.directory.first_spacing();
        let left = self.own.spacing.mul_f64(place).saturating_sub(since.elapsed());
        if left.is_zero() {
            self.own.first_beat = None;
        }
        Some(left).filter(|left| !left.is_zero())
    }

    pub(super) fn beat(&mut self) {
        if let Some(left) = self.first_beat_waits() {
            return self.timers.after(left, Due::Beat);
        }
        self.own.spacing = changed(self.own.spacing, self.directory.spacing());
        self.timers.after(jittered(self.own.spacing), Due::Beat);
        if self.stopping.is_some() || self.peers.is_empty() {
            return;
        }
        let Some(version) = self.directory.version(&self.core.peer_id) else { return };
        self.own.beat += 1;
        let Version { incarnation, revision } = version;
        let beat = Beat { incarnation, revision, beat: self.own.beat, load: self.core.load() };
        match SignedBeat::sign(&self.core.keypair, &self.core.settings.swarm, beat) {
            Ok(signed) => {
                self.publish(&Gossip::Beat(ByteBuf::from(signed.envelope().to_vec())));
            }
            Err(error) => tracing::error!(%error, "a sign of life cannot be signed"),
        }
    }

    pub(super) fn on_gossip(&mut self, event: gossip::Event) {
        match event {
            gossipsub::Event::Message { propagation_source, message_id, message } if self.topics.is(&message.topic) => {
                self.on_topic_message(propagation_source, &message_id, &message.data);
            }
            gossipsub::Event::Message { propagation_source, message_id, message } => {
                self.on_message(propagation_source, &message_id, &message.data);
            }
            gossipsub::Event::Subscribed { topic, .. } if self.topics.is(&topic) => self.release_held(),
            gossipsub::Event::Subscribed { .. } => self.repeat_announcement(),
            gossipsub::Event::GossipsubNotSupported { peer_id } => {
                tracing::debug!(%peer_id, "a neighbour does not speak gossip");
            }
            _ => {}
        }
    }

    fn on_message(&mut self, source: PeerId, id: &MessageId, bytes: &[u8]) {
        let now = Instant::now();
        if !self.admits_gossip(source, now) {
            tracing::debug!(%source, "gossip beyond what a neighbour may pass on");
            let gossip = &mut self.swarm.behaviour_mut().gossip;
            gossip.report_message_validation_result(id, &source, MessageAcceptance::Ignore);
            return;
        }
        let acceptance = match gossip::decode(bytes) {
            Ok(Gossip::Record(envelope)) => self.on_record(source, &envelope),
            Ok(Gossip::Beat(envelope)) => self.on_beat(source, &envelope),
            Err(error) => Err(error.to_string()),
        };
        let acceptance = match acceptance {
            Ok(MessageAcceptance::Accept) if !self.rations.relayed.take(1.0, now) => Ok(MessageAcceptance::Ignore),
            acceptance => acceptance,
        };
        let acceptance = acceptance.unwrap_or_else(|error| {
            tracing::debug!(%source, %error, "bad gossip");
            Counters::add(&self.core.counters.bad_records);
            self.strike(source, STRIKE, now);
            MessageAcceptance::Reject
        });
        self.swarm.behaviour_mut().gossip.report_message_validation_result(id, &source, acceptance);
    }

    fn on_record(&mut self, source: PeerId, envelope: &[u8]) -> Result<MessageAcceptance, String> {
        let signed = SignedRecord::open(&self.core.settings.swarm, envelope).map_err(|error| error.to_string())?;
        Ok(match self.directory.on_record(signed, source, Instant::now()) {
            Merged::News => MessageAcceptance::Accept,
            Merged::Old => MessageAcceptance::Ignore,
            Merged::Refused => {
                Counters::add(&self.core.counters.refused_records);
                MessageAcceptance::Ignore
            }
            Merged::Overtaken(version) => {
                self.step_over(version);
                MessageAcceptance::Ignore
            }
        })
    }

    fn on_beat(&mut self, source: PeerId, envelope: &[u8]) -> Result<MessageAcceptance, String> {
        let signed = SignedBeat::open(&self.core.settings.swarm, envelope).map_err(|error| error.to_string())?;
        Ok(match self.directory.on_beat(&signed, &source, Instant::now()) {
            Heard::News => MessageAcceptance::Accept,
            Heard::Wanted => {
                self.ask(source);
                MessageAcceptance::Accept
            }
            Heard::Old => MessageAcceptance::Ignore,
            Heard::Overtaken(version) => {
                self.step_over(version);
                MessageAcceptance::Ignore
            }
        })
    }

    /// Tells all that this node stops. The driver ends when the neighbours have heard it.
    pub(super) fn say_goodbye(&mut self) {
        self.timers.after(GOODBYE_LIMIT, Due::Leave);
        let told = self.directory.knows(&self.core.peer_id) && !self.core.settings.passive;
        if !told || self.peers.is_empty() {
            self.leave();
            return;
        }
        self.own.revision += 1;
        let last = Record {
            revision: self.own.revision,
            addresses: Vec::new(),
            applications: Vec::new(),
            left: true,
            ..self.describe_self()
        };
        let Ok(signed) = self.sign(last) else {
            self.leave();
            return;
        };
        self.publish(&Gossip::Record(ByteBuf::from(signed.envelope().to_vec())));
        let neighbours: Vec<PeerId> = self.peers.keys().copied().collect();
        for peer_id in neighbours {
            self.push_goodbye(peer_id, signed.envelope());
        }
        self.on_goodbye_heard();
    }

    pub(super) fn on_goodbye_heard(&mut self) {
        if self.stopping.is_some() && self.goodbye_is_heard() {
            self.leave();
        }
    }

    /// Closes all connections in order, which sends what is still on its way, and ends the driver when that is done.
    pub(super) fn leave(&mut self) {
        let written = self.topics.written().filter(|written| *written > Instant::now() && !self.peers.is_empty());
        if let Some(written) = written {
            return self.timers.at(written, Due::Written);
        }
        let neighbours: Vec<PeerId> = self.peers.keys().copied().collect();
        for peer_id in neighbours {
            let _ = self.swarm.disconnect_peer_id(peer_id);
        }
        self.ended = self.peers.is_empty();
    }
}
