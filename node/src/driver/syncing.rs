//! Levels the directory with neighbours: at once on a new connection, now and then with anybody, and whenever a sign of
//! life shows that something is missing here.

use std::time::{Duration, Instant};

use bytes::Bytes;
use libp2p::{
    PeerId,
    request_response::{Message, OutboundFailure, OutboundRequestId},
};
use multinodes_behaviour::{
    SignedRecord, sync,
    wire::{SyncRequest, SyncResponse, Version},
};
use rand::seq::IteratorRandom;
use serde_bytes::ByteBuf;

use super::{Driver, Due, timers::jittered};
use crate::{core::Counters, directory::Merged};

/// How often a node levels with a random neighbour, whatever gossip has brought.
const PERIOD: Duration = Duration::from_secs(30);

/// A first exchange that failed is repeated so soon.
const RETRY: Duration = Duration::from_secs(1);

/// Up to so many versions go with the first offer: cheaper than asking for them.
const SMALL: usize = 128;

/// One exchange of offers ends after so many rounds, each of which carries megabytes.
const MAX_ROUNDS: u32 = 32;

/// A neighbour is asked for what its gossip spoke of not more often than this.
const ASK_PAUSE: Duration = Duration::from_secs(1);

/// A neighbour may ask so often at once, and so often a second in the long run.
const BURST: f64 = 40.0;
const PER_SECOND: f64 = 4.0;

/// So many records of a neighbour's exchanges are looked at at once: a whole directory, with some to spare. Each costs the
/// driver a signature to verify.
const RECORDS: Rate = Rate { burst: 16_384.0, per_second: 512.0 };

/// So many records and beats of its gossip: what there is to tell when a swarm of thousands starts at once, and in the long
/// run ten times all beats together.
const GOSSIP: Rate = Rate { burst: 4_096.0, per_second: 256.0 };

/// So much of what others say is passed on: half of what neighbours take, so that a flood ends one step from where it
/// began, and nobody is taken for its source who only passes it on. Exchanges bring the rest.
const RELAYED: Rate = Rate { burst: 2_048.0, per_second: 128.0 };

/// What a neighbour may ask.
const REQUESTS: Rate = Rate { burst: BURST, per_second: PER_SECOND };

/// One exchange that this node has begun.
pub(super) struct Exchange {
    peer_id: PeerId,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Offer { round: u32 },
    Push,
    Release,
    Goodbye,
}

/// How much at once, and how much a second in the long run.
#[derive(Clone, Copy)]
struct Rate {
    burst: f64,
    per_second: f64,
}

/// Limits how often a neighbour may ask, and how much it may tell.
pub(super) struct Bucket {
    requests: Level,
    records: Level,
    gossip: Level,
}

/// What is left of a rate.
pub(super) struct Level {
    rate: Rate,
    left: f64,
    filled: Instant,
}

impl Bucket {
    pub(super) fn new(now: Instant) -> Self {
        let full = |rate: Rate| Level { rate, left: rate.burst, filled: now };
        Self { requests: full(REQUESTS), records: full(RECORDS), gossip: full(GOSSIP) }
    }

    pub(super) fn take(&mut self, now: Instant) -> bool {
        self.requests.take(1, now) == 1
    }
}

impl Level {
    /// How much may be passed on.
    pub(super) fn relayed(now: Instant) -> Self {
        Self { rate: RELAYED, left: RELAYED.burst, filled: now }
    }

    /// Takes as much of `count` as there is.
    pub(super) fn take(&mut self, count: usize, now: Instant) -> usize {
        let grown = now.saturating_duration_since(self.filled).as_secs_f64() * self.rate.per_second;
        self.left = (self.left + grown).min(self.rate.burst);
        self.filled = self.filled.max(now);
        // Truncated on purpose: a part of a record is none.
        let taken = count.min(self.left as usize);
        self.left -= taken as f64;
        taken
    }
}

impl Driver {
    /// Begins to level with a connected peer.
    pub(super) fn offer(&mut self, peer_id: PeerId, with_versions: bool) {
        self.offer_round(peer_id, with_versions, 0);
    }

    fn offer_round(&mut self, peer_id: PeerId, with_versions: bool, round: u32) {
        let held = self.directory.versions();
        let digest = sync::digest(held.iter().copied());
        let versions = (with_versions || held.len() <= SMALL).then(|| sync::versions(held));
        let own = if self.core.settings.passive { None } else { self.directory.envelope(&self.core.peer_id) };
        let records = own.map(|own| ByteBuf::from(own.to_vec())).into_iter().collect();
        self.request(peer_id, SyncRequest::Offer { digest, versions, records }, Kind::Offer { round });
    }

    /// Tells a peer that its connection is closed only to save one.
    pub(super) fn release(&mut self, peer_id: PeerId) {
        self.request(peer_id, SyncRequest::Release, Kind::Release);
    }

    /// Hands the own last word to a neighbour.
    pub(super) fn push_goodbye(&mut self, peer_id: PeerId, envelope: &[u8]) {
        let records = vec![ByteBuf::from(envelope.to_vec())];
        self.request(peer_id, SyncRequest::Push { records }, Kind::Goodbye);
    }

    /// Whether all neighbours have the goodbye.
    pub(super) fn goodbye_is_heard(&self) -> bool {
        !self.exchanges.values().any(|exchange| exchange.kind == Kind::Goodbye)
    }

    fn request(&mut self, peer_id: PeerId, request: SyncRequest, kind: Kind) {
        // The behaviour would dial a peer that is not connected, on its own terms.
        if self.swarm.is_connected(&peer_id) && self.is_admitted(&peer_id) {
            let id = self.swarm.behaviour_mut().sync.send_request(&peer_id, request);
            self.exchanges.insert(id, Exchange { peer_id, kind });
        }
    }

    pub(super) fn begin_syncs(&mut self) {
        self.timers.after(jittered(PERIOD), Due::Sync);
    }

    pub(super) fn sync_with_somebody(&mut self) {
        self.begin_syncs();
        if let Some(peer_id) = self.peers.keys().copied().choose(&mut rand::rng()) {
            self.offer(peer_id, false);
        }
    }

    /// Asks a neighbour, whose gossip shows that it knows more.
    pub(super) fn ask(&mut self, peer_id: PeerId) {
        let now = Instant::now();
        let Some(peer) = self.peers.get_mut(&peer_id) else { return };
        if peer.asked.is_none_or(|asked| now.saturating_duration_since(asked) >= ASK_PAUSE) {
            peer.asked = Some(now);
            self.offer(peer_id, false);
        }
    }

    pub(super) fn on_sync(&mut self, event: sync::Event) {
        match event {
            sync::Event::Message { peer, message: Message::Request { request, channel, .. }, .. } => {
                self.on_request(peer, request, channel);
            }
            sync::Event::Message { message: Message::Response { request_id, response }, .. } => {
                self.on_response(request_id, response);
            }
            sync::Event::OutboundFailure { request_id, error, .. } => self.on_failure(request_id, &error),
            sync::Event::InboundFailure { peer, error, .. } => {
                tracing::debug!(%peer, %error, "a neighbour's exchange has failed");
            }
            sync::Event::ResponseSent { .. } => {}
        }
    }

    fn on_request(&mut self, peer_id: PeerId, request: SyncRequest, channel: sync::ResponseChannel) {
        let now = Instant::now();
        let Some(peer) = self.peers.get_mut(&peer_id) else { return };
        if !peer.bucket.take(now) {
            tracing::debug!(%peer_id, "a neighbour asks too often");
            Counters::add(&self.core.counters.refused_requests);
            return;
        }
        self.welcome(peer_id);
        let response = match request {
            SyncRequest::Offer { digest, versions, records } => self.on_offer(peer_id, &digest, versions, &records),
            SyncRequest::Push { records } => {
                self.merge(peer_id, &records, true);
                self.on_levelled(peer_id);
                SyncResponse::default()
            }
            SyncRequest::Release => {
                if let Some(peer) = self.peers.get_mut(&peer_id) {
                    peer.released = true;
                }
                SyncResponse::default()
            }
        };
        // The asker may be gone by now.
        let _ = self.swarm.behaviour_mut().sync.send_response(channel, response);
    }

    fn on_offer(
        &mut self,
        peer_id: PeerId,
        digest: &[u8],
        versions: Option<Vec<(ByteBuf, Version)>>,
        records: &[ByteBuf],
    ) -> SyncResponse {
        self.merge(peer_id, records, true);
        if *sync::digest(self.directory.versions()) == *digest {
            self.on_levelled(peer_id);
            return SyncResponse { same: true, ..SyncResponse::default() };
        }
        let Some(versions) = versions else {
            return SyncResponse { needs_versions: true, ..SyncResponse::default() };
        };
        let theirs = parse(&versions);
        let missing = self.directory.missing_for(&theirs);
        let (records, more) = sync::fill(&missing);
        let (wanted, more_wanted) = sync::wanted(&self.directory.wanted(&theirs));
        if wanted.is_empty() {
            self.on_levelled(peer_id);
        }
        SyncResponse { records, wanted, more: more || more_wanted, ..SyncResponse::default() }
    }

    fn on_response(&mut self, request_id: OutboundRequestId, response: SyncResponse) {
        let Some(Exchange { peer_id, kind }) = self.exchanges.remove(&request_id) else { return };
        self.welcome(peer_id);
        match kind {
            Kind::Offer { round } => self.on_answer(peer_id, round, response),
            Kind::Release => self.let_go(peer_id),
            Kind::Goodbye => self.on_goodbye_heard(),
            Kind::Push => {}
        }
    }

    fn on_answer(&mut self, peer_id: PeerId, round: u32, response: SyncResponse) {
        // News for this node may be news for its other neighbours, but not for the one that has told them.
        let others = self.peers.iter().any(|(other, peer)| *other != peer_id && peer.synced);
        self.merge(peer_id, &response.records, others);
        if !response.wanted.is_empty() {
            let wanted: Vec<Bytes> = response
                .wanted
                .iter()
                .take(sync::MAX_WANTED)
                .filter_map(|bytes| self.directory.envelope(&PeerId::from_bytes(bytes).ok()?).cloned())
                .collect();
            let (records, _) = sync::fill(&wanted);
            self.request(peer_id, SyncRequest::Push { records }, Kind::Push);
        }
        // Of a neighbour that has brought all it may, another round brings the same again.
        let may_bring = self.directory.takes_more_of(&peer_id);
        if (response.needs_versions || (response.more && may_bring)) && round < MAX_ROUNDS {
            self.offer_round(peer_id, true, round + 1);
        } else {
            self.on_levelled(peer_id);
        }
    }

    fn on_levelled(&mut self, peer_id: PeerId) {
        if let Some(peer) = self.peers.get_mut(&peer_id) {
            peer.synced = true;
            self.own.synced = true;
            self.directory.on_connected(peer_id, Instant::now());
            self.on_prospect_met(&peer_id);
            self.on_join_met(&peer_id);
        }
    }

    fn on_failure(&mut self, request_id: OutboundRequestId, error: &OutboundFailure) {
        let Some(Exchange { peer_id, kind }) = self.exchanges.remove(&request_id) else { return };
        tracing::debug!(%peer_id, %error, "an exchange with a neighbour has failed");
        match kind {
            // It may be waiting for what we show, and will say so; strangers are told by what identify says.
            _ if matches!(error, OutboundFailure::UnsupportedProtocols)
                && self.peers.get(&peer_id).is_some_and(|peer| !peer.serves) => {}
            Kind::Release => self.let_go(peer_id),
            Kind::Offer { .. } if self.peers.get(&peer_id).is_some_and(|peer| !peer.synced) => {
                self.timers.after(RETRY, Due::Offer(peer_id));
            }
            _ => {}
        }
        if kind == Kind::Goodbye {
            self.on_goodbye_heard();
        }
    }

    /// Levels with a peer, unless that was done or is being done.
    pub(super) fn offer_again(&mut self, peer_id: PeerId) {
        let under_way = self.exchanges.values().any(|exchange| exchange.peer_id == peer_id);
        if !under_way && self.peers.get(&peer_id).is_some_and(|peer| !peer.synced) {
            self.offer(peer_id, false);
        }
    }

    pub(super) fn on_exchanges_ended(&mut self, peer_id: &PeerId) {
        let before = self.exchanges.len();
        self.exchanges.retain(|_, exchange| exchange.peer_id != *peer_id);
        if self.stopping.is_some() && self.exchanges.len() < before {
            self.on_goodbye_heard();
        }
    }

    /// Whether gossip of a neighbour is looked at; it is counted if not.
    pub(super) fn admits_gossip(&mut self, peer_id: PeerId, now: Instant) -> bool {
        // Who is not connected any more has no more to come.
        let admitted = self.peers.get_mut(&peer_id).is_none_or(|peer| peer.bucket.gossip.take(1, now) == 1);
        if !admitted {
            Counters::add(&self.core.counters.refused_records);
        }
        admitted
    }

    /// How many of `count` records of a neighbour are looked at; the others are counted.
    fn admit_records(&mut self, peer_id: PeerId, count: usize, now: Instant) -> usize {
        let admitted = self.peers.get_mut(&peer_id).map_or(count, |peer| peer.bucket.records.take(count, now));
        Counters::add_many(&self.core.counters.refused_records, count - admitted);
        admitted
    }

    /// Takes records from a neighbour. What is news here is told to the others, if they may not have it.
    fn merge(&mut self, peer_id: PeerId, records: &[ByteBuf], tell_others: bool) {
        let now = Instant::now();
        let admitted = self.admit_records(peer_id, records.len(), now);
        for bytes in &records[..admitted] {
            match SignedRecord::open(&self.core.settings.swarm, bytes) {
                Ok(signed) => match self.directory.on_record(signed, peer_id, now) {
                    Merged::News if tell_others => self.pass_on(bytes),
                    Merged::Overtaken(version) => self.step_over(version),
                    Merged::Refused => Counters::add(&self.core.counters.refused_records),
                    Merged::News | Merged::Old => {}
                },
                Err(error) => {
                    tracing::debug!(%peer_id, %error, "a bad record");
                    Counters::add(&self.core.counters.bad_records);
                }
            }
        }
    }
}

fn parse(versions: &[(ByteBuf, Version)]) -> Vec<(PeerId, Version)> {
    versions.iter().filter_map(|(bytes, version)| Some((PeerId::from_bytes(bytes).ok()?, *version))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_neighbour_that_asks_too_often_is_refused_for_a_while() {
        let start = Instant::now();
        let mut bucket = Bucket::new(start);
        assert_eq!((0..100).filter(|_| bucket.take(start)).count(), 40);
        assert!(bucket.take(start + Duration::from_secs(1)));
        assert_eq!((0..100).filter(|_| bucket.take(start + Duration::from_secs(60))).count(), 40);
    }

    #[test]
    fn a_neighbour_that_tells_too_much_is_heard_in_part() {
        let start = Instant::now();
        let mut bucket = Bucket::new(start);
        assert_eq!(bucket.records.take(10_000, start), 10_000);
        assert_eq!(bucket.records.take(10_000, start), 6_384);
        assert_eq!(bucket.records.take(10_000, start), 0);
        assert_eq!(bucket.records.take(10_000, start + Duration::from_secs(2)), 1_024);
        assert_eq!(bucket.records.take(20_000, start + Duration::from_secs(600)), 16_384);
    }

    #[test]
    fn who_only_passes_on_never_sends_more_than_is_taken_of_it() {
        let start = Instant::now();
        let (mut relayed, mut bucket) = (Level::relayed(start), Bucket::new(start));
        for second in 0..600 {
            let now = start + Duration::from_secs(second);
            let passed_on = relayed.take(10_000, now);
            assert_eq!(bucket.gossip.take(passed_on, now), passed_on);
        }
    }
}
