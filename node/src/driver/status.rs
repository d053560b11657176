//! How far the node has come, for those who wait for it.

use std::time::{Duration, Instant};

use libp2p::PeerId;

use super::{
    Driver,
    connections::{Peer, Standing},
};
use crate::description::Status;

/// Nodes of a LAN answer a multicast question within a few milliseconds.
pub(super) const LAN_TIME: Duration = Duration::from_millis(300);

/// A first exchange with a neighbour takes a few milliseconds; who does not begin one in this time will not.
const SYNC_TIME: Duration = Duration::from_secs(2);

impl Driver {
    pub(super) fn refresh_status(&mut self) {
        let connected = self.peers.values().filter(|peer| peer.standing == Standing::Ours).count();
        let synced = self.own.synced;
        let before = *self.core.status.borrow();
        self.own.cut_off = connected == 0 && (self.own.cut_off || self.directory.any_silent());
        let cut_off = self.own.cut_off && self.core.knows_neighbours();
        let settled = before.settled || self.is_settled(Instant::now());
        let now = Status { connected, synced, settled, cut_off };
        if before != now {
            self.core.status.send_replace(now);
        }
    }

    /// Another source was added: what was settled is so no longer.
    pub(super) fn unsettle(&mut self) {
        self.core.status.send_modify(|status| status.settled = false);
    }

    fn is_settled(&self, now: Instant) -> bool {
        let mdns_asked = self.lan_answered().is_none_or(|answered| answered <= now);
        let joined = self.joins.iter().all(|join| join.has_outcome());
        // Whoever has levelled with one node of the swarm knows what that node has found. Whom multicast names besides is most
        // often of another swarm, and not waited for.
        let counts = |peer_id: &PeerId| !self.own.synced || !self.is_prospect(peer_id);
        let awaits_sync = |peer_id: &PeerId, peer: &Peer| counts(peer_id) && peer.awaits_sync(now, SYNC_TIME);
        let under_way =
            self.fresh_dials_to(counts) > 0 || self.peers.iter().any(|(peer_id, peer)| awaits_sync(peer_id, peer));
        joined && !under_way && (self.own.synced || (mdns_asked && self.found.is_empty()))
    }
}
