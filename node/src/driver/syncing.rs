//! Levels the directory with neighbours: at once on a new connection, now and then with anybody, and whenever a sign of
//! life shows that something is missing here.

use std::{
    io,
    time::{Duration, Instant},
};

use bytes::Bytes;
use libp2p::{
    PeerId,
    request_response::{InboundRequestId, Message, OutboundFailure, OutboundRequestId},
};
use multinodes_behaviour::{
    sync,
    wire::{SyncRequest, SyncResponse, Version},
};
use rand::seq::IteratorRandom;
use serde_bytes::ByteBuf;

use super::{Driver, Due, rations::STRIKE, timers::jittered, verifying::Then};
use crate::core::Counters;

/// How often a node levels with a random neighbour, whatever gossip has brought.
const PERIOD: Duration = Duration::from_secs(30);

/// The same while no neighbour passes gossip on to it, because they pass it on to enough others.
const PERIOD_WITHOUT_GOSSIP: Duration = Duration::from_secs(3);

/// A first exchange that failed is repeated so soon.
const RETRY: Duration = Duration::from_secs(1);

/// Up to so many versions go with the first offer: cheaper than asking for them.
const SMALL: usize = 128;

/// One exchange of offers ends after so many rounds, each of which carries megabytes.
const MAX_ROUNDS: u32 = 32;

/// Who waits for an answer.
pub(super) struct Asker {
    request_id: InboundRequestId,
    channel: sync::ResponseChannel,
}

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
        let in_a_mesh = self.swarm.behaviour().gossip.mesh_peers(&self.topic).next().is_some();
        self.timers.after(jittered(if in_a_mesh { PERIOD } else { PERIOD_WITHOUT_GOSSIP }), Due::Sync);
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
        if self.rations.asked.of(peer_id, now).take(1.0, now) {
            self.offer(peer_id, false);
        }
    }

    pub(super) fn on_sync(&mut self, event: sync::Event) {
        match event {
            sync::Event::Message { peer, message: Message::Request { request_id, request, channel }, .. } => {
                self.on_request(peer, request, Asker { request_id, channel });
            }
            sync::Event::Message { message: Message::Response { request_id, response }, .. } => {
                self.on_response(request_id, response);
            }
            sync::Event::OutboundFailure { request_id, error, .. } => self.on_failure(request_id, &error),
            sync::Event::InboundFailure { peer, request_id, error, .. } => {
                self.answering.end(request_id);
                tracing::debug!(%peer, %error, "a neighbour's exchange has failed");
            }
            sync::Event::ResponseSent { request_id, .. } => self.answering.end(request_id),
        }
    }

    /// Part of an exchange cannot be read, which no honest neighbour writes.
    fn on_malformed(&mut self, peer_id: PeerId, error: &str) {
        tracing::warn!(%peer_id, %error, "what a neighbour sends of an exchange cannot be read");
        Counters::add(&self.core.counters.malformed_exchanges);
        self.strike(peer_id, STRIKE, Instant::now());
    }

    fn on_request(&mut self, peer_id: PeerId, request: SyncRequest, asker: Asker) {
        let now = Instant::now();
        let who = self.who(peer_id);
        if self.keeps_away(&peer_id) || self.rations.requests.take(who, 1, now).count == 0 {
            tracing::debug!(%peer_id, "a neighbour, or its host, asks too often");
            Counters::add(&self.core.counters.refused_requests);
            return;
        }
        self.welcome(peer_id);
        let taken = match request {
            SyncRequest::Malformed(error) => return self.on_malformed(peer_id, &error),
            SyncRequest::Offer { digest, versions, records } => {
                self.verify_records(peer_id, records, true, Then::Level { asker, digest, versions })
            }
            SyncRequest::Push { records } => self.verify_records(peer_id, records, true, Then::Acknowledge { asker }),
            SyncRequest::Release => {
                if let Some(peer) = self.peers.get_mut(&peer_id) {
                    peer.released = true;
                }
                self.respond(peer_id, asker, SyncResponse::default());
                true
            }
        };
        if !taken {
            tracing::debug!(%peer_id, "too many records wait to be verified");
            Counters::add(&self.core.counters.refused_requests);
        }
    }

    fn respond(&mut self, peer_id: PeerId, asker: Asker, response: SyncResponse) {
        let Asker { request_id, channel } = asker;
        self.answering.begin(request_id, peer_id, &response);
        // The asker may be gone by now.
        if self.swarm.behaviour_mut().sync.send_response(channel, response).is_err() {
            self.answering.end(request_id);
        }
    }

    /// All records of a message are merged: goes on with what it was about.
    pub(super) fn on_merged(&mut self, peer_id: PeerId, then: Then) {
        match then {
            Then::Level { versions: Some(_), .. } if !self.answering.has_room(&peer_id) => {
                tracing::debug!(%peer_id, "too much is being written to a neighbour, or to all");
                Counters::add(&self.core.counters.refused_requests);
            }
            Then::Level { asker, digest, versions } => {
                let response = self.level(peer_id, &digest, versions);
                self.respond(peer_id, asker, response);
            }
            Then::Acknowledge { asker } => {
                self.on_levelled(peer_id);
                self.respond(peer_id, asker, SyncResponse::default());
            }
            Then::GoOn { round, wanted, again, more } => self.go_on(peer_id, round, &wanted, again, more),
        }
    }

    fn level(&mut self, peer_id: PeerId, digest: &[u8], versions: Option<Vec<(ByteBuf, Version)>>) -> SyncResponse {
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
        let (again, more) = (response.needs_versions, response.more);
        let mut wanted = response.wanted;
        wanted.truncate(sync::MAX_WANTED);
        if !self.verify_records(peer_id, response.records, others, Then::GoOn { round, wanted, again, more }) {
            self.timers.after(RETRY, Due::Offer(peer_id));
        }
    }

    fn go_on(&mut self, peer_id: PeerId, round: u32, wanted: &[ByteBuf], again: bool, more: bool) {
        if !wanted.is_empty() {
            let wanted: Vec<Bytes> = wanted
                .iter()
                .filter_map(|bytes| self.directory.envelope(&PeerId::from_bytes(bytes).ok()?).cloned())
                .collect();
            let (records, _) = sync::fill(&wanted);
            self.request(peer_id, SyncRequest::Push { records }, Kind::Push);
        }
        // Of a neighbour that has brought all it may, another round brings the same again.
        let more = more && self.directory.takes_more_of(&peer_id);
        if (again || more) && round < MAX_ROUNDS {
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
            self.on_place_met(&peer_id);
            self.on_join_met(&peer_id);
        }
    }

    fn on_failure(&mut self, request_id: OutboundRequestId, error: &OutboundFailure) {
        let Some(Exchange { peer_id, kind }) = self.exchanges.remove(&request_id) else { return };
        match error {
            OutboundFailure::Io(error) if is_malformed(error) => self.on_malformed(peer_id, &error.to_string()),
            error => tracing::debug!(%peer_id, %error, "an exchange with a neighbour has failed"),
        }
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
        let under_way =
            self.verifying.is_of(&peer_id) || self.exchanges.values().any(|exchange| exchange.peer_id == peer_id);
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
}

/// Whether this is what the codec of exchanges says of bytes that are none.
fn is_malformed(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::InvalidData
}

fn parse(versions: &[(ByteBuf, Version)]) -> Vec<(PeerId, Version)> {
    versions.iter().filter_map(|(bytes, version)| Some((PeerId::from_bytes(bytes).ok()?, *version))).collect()
}
