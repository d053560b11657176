//! How many connections are kept, and which.

use std::time::{Duration, Instant};

use libp2p::PeerId;
use rand::seq::IteratorRandom;

use super::{
    Driver, Due, TICK,
    connections::{Connection, Peer},
    finding::EAGER_PASSIVE,
};

/// A connection younger than this is not closed to save one; where there is a crowd, and others may be turned away, one that
/// has had the time to level both sides.
const YOUNG: Duration = Duration::from_secs(10);
const YOUNG_IN_A_CROWD: Duration = Duration::from_secs(1);

/// A peer that is told of the closing has so long to note it.
const RELEASE_LIMIT: Duration = Duration::from_secs(1);

/// Connections opened, or closed, per tick to come between the marks: no haste, no storms.
const OPENED_AT_ONCE: usize = 2;
const CLOSED_AT_ONCE: usize = 4;

/// The same in a crowd, a quarter above the high mark: of many nodes that start together and come in through one, those that
/// it has no place for are waiting.
const CLOSED_IN_A_CROWD: usize = 32;

/// So many dials may be under way when another node is to be verified, and so many connections more than the high mark
/// may come of it for a while.
const VERIFIED_AT_ONCE: usize = 16;

/// With so many neighbours a node hears all that there is to hear. What is missing up to the low mark is dialled on one tick out
/// of four: when hundreds start together on few cores, their handshakes would starve all else.
const ENOUGH: usize = 8;
const PATIENTLY: f64 = 0.25;

/// A tick that comes so late says that there is too little time for what is there already: handshakes would take it from that, end
/// too late themselves, and be begun again.
const LATE: Duration = Duration::from_millis(50);

/// With fewer neighbours than that a node does not wait for the dials of those with smaller peer ids.
const FEW: usize = 4;

impl Driver {
    /// Of several connections to one peer, both sides keep the one that the smaller peer id has dialled.
    pub(super) fn close_duplicates(&mut self) {
        let mut surplus = Vec::new();
        for (peer_id, peer) in self.peers.iter().filter(|(_, peer)| peer.connections.len() > 1) {
            let right = |connection: &&Connection| connection.outbound == (self.core.peer_id < *peer_id);
            let kept = peer.connections.iter().find(right).or(peer.connections.first()).map(|kept| kept.id);
            let others = peer.connections.iter().filter(|other| Some(other.id) != kept);
            // Of two that one side has dialled only that side knows which it keeps.
            surplus.extend(others.filter(|other| other.outbound || !right(other)).map(|other| (*peer_id, other.id)));
        }
        for (peer_id, connection) in surplus {
            if self.swarm.behaviour().lanes.streams_on(&peer_id, connection) == 0 {
                self.swarm.close_connection(connection);
            }
        }
    }

    /// Keeps the number of connections between the marks.
    pub(super) fn balance(&mut self, now: Instant) {
        if self.stopping.is_some() {
            return;
        }
        let (low, high) = (self.neighbours_at_least(), self.core.settings.high_mark);
        let count = self.peers.len();
        if count < low {
            self.add_neighbours(low - count, now);
        } else if count > high {
            self.release_idlest(count - high, now);
        }
    }

    fn neighbours_at_least(&self) -> usize {
        let low = self.core.settings.low_mark;
        if self.core.settings.passive { low.min(EAGER_PASSIVE) } else { low }
    }

    fn add_neighbours(&mut self, missing: usize, now: Instant) {
        let (own, few) = (self.core.peer_id, self.peers.len() < FEW);
        // A few neighbours are wanted at once, the others when there is time.
        if self.has_no_time(now) {
            return;
        }
        let candidates = self.directory.live().filter(|peer_id| {
            **peer_id != own
                && (few || own < **peer_id)
                && !self.peers.contains_key(*peer_id)
                && !self.dials.contains_key(*peer_id)
                && !self.lost.contains_key(*peer_id)
                && !self.core.permissions.shuns(peer_id)
                && !self.keeps_away(peer_id)
        });
        let chosen: Vec<PeerId> = candidates.copied().choose_multiple(&mut rand::rng(), missing.min(OPENED_AT_ONCE));
        for peer_id in chosen {
            if self.has_address(&peer_id) {
                self.dial_unasked(peer_id);
            }
        }
    }

    /// Dials a node that is only said to be there. If it is, the connection shows that, and is closed as others are when
    /// there are too many.
    pub(super) fn verify(&mut self, peer_id: PeerId) {
        let room =
            self.dials.len() < VERIFIED_AT_ONCE && self.peers.len() < self.core.settings.high_mark + VERIFIED_AT_ONCE;
        let wanted = self.stopping.is_none()
            && self.directory.is_live(&peer_id)
            && !self.peers.contains_key(&peer_id)
            && !self.dials.contains_key(&peer_id)
            && !self.lost.contains_key(&peer_id)
            && !self.core.permissions.shuns(&peer_id)
            && !self.keeps_away(&peer_id);
        if room && wanted && self.has_address(&peer_id) {
            self.dial_unasked(peer_id);
        }
    }

    /// Dials one of those that have become quiet, before it is taken for lost: those that pass on its signs of life may be cut off
    /// from it, as a few are that have only each other for neighbours.
    pub(super) fn ask_quiet(&mut self, now: Instant) {
        if self.has_no_time(now) {
            return;
        }
        let quiet = self.directory.quiet(now, self.lag.allowance(now)).copied().choose(&mut rand::rng());
        if let Some(peer_id) = quiet {
            self.verify(peer_id);
        }
    }

    /// With neighbours enough a node dials others on few ticks, and on none that comes late.
    fn has_no_time(&self, now: Instant) -> bool {
        let late = now.saturating_duration_since(self.ticked) > TICK + LATE;
        self.peers.len() >= ENOUGH && (late || !rand::random_bool(PATIENTLY))
    }

    fn release_idlest(&mut self, surplus: usize, now: Instant) {
        let crowded = surplus > self.core.settings.high_mark / 4;
        let at_once = if crowded { CLOSED_IN_A_CROWD } else { CLOSED_AT_ONCE };
        let young = |peer: &Peer| if crowded && peer.synced { YOUNG_IN_A_CROWD } else { YOUNG };
        let behaviour = self.swarm.behaviour();
        let mesh: Vec<PeerId> = behaviour.gossip.mesh_peers(&self.topic).copied().collect();
        let mut idle: Vec<(Instant, PeerId)> = self
            .peers
            .iter()
            .filter(|(peer_id, peer)| {
                !peer.releasing
                    && now.saturating_duration_since(peer.since) > young(peer)
                    && !mesh.contains(peer_id)
                    && !self.core.in_use(peer_id)
                    && behaviour.lanes.streams_to(peer_id) == 0
                    && !self.is_joined(peer_id)
            })
            .map(|(peer_id, peer)| (peer.active, *peer_id))
            .collect();
        idle.sort_unstable();
        for (_, peer_id) in idle.into_iter().take(surplus.min(at_once)) {
            if let Some(peer) = self.peers.get_mut(&peer_id) {
                peer.releasing = true;
            }
            self.release(peer_id);
            self.timers.at(now + RELEASE_LIMIT, Due::Release(peer_id));
        }
    }

    /// Closes the connections to a peer that knows why.
    pub(super) fn let_go(&mut self, peer_id: PeerId) {
        if let Some(peer) = self.peers.get_mut(&peer_id).filter(|peer| peer.releasing) {
            peer.released = true;
            let _ = self.swarm.disconnect_peer_id(peer_id);
        }
    }
}
