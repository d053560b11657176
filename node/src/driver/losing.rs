//! Nodes whose connection was lost: a dial shows at once whether the node is lost as well, and later whether it is back.

use std::{
    collections::hash_map::Entry,
    time::{Duration, Instant},
};

use libp2p::PeerId;

use super::{Driver, Due, TICK, timers::jittered};

/// A node whose connection was lost has so long to be reached again: one repeated SYN, and some.
const REDIAL_LIMIT: Duration = Duration::from_millis(2_500);

/// The same after it had been silent for seconds already: the answer to a repeated SYN still counts.
const REDIAL_LIMIT_AFTER_SILENCE: Duration = Duration::from_millis(1_200);

/// Of two nodes that lose their connection, the one with the larger peer id waits so long for the other's dial.
const YIELD: Duration = Duration::from_millis(100);

/// A node that restarts its network is back after a moment: only the second refusal counts.
pub(super) const SECOND_CHANCE: Duration = Duration::from_millis(200);

/// Lost nodes that are looked for; the others come back by gossip, or by themselves.
const MAX_LOST: usize = 64;

/// The pause between two looks for a lost node doubles up to this. A network that was cut is whole again soon after.
const LONGEST_REVISIT: Duration = Duration::from_secs(10);

pub(super) struct Redial {
    pub(super) attempts: u32,
    /// At the last one somebody hung up: it may have no room for one more handshake.
    pub(super) busy: bool,
    /// One of them was refused: the node is not there, and not silent.
    pub(super) refused: bool,
    until: Instant,
}

impl Driver {
    /// A connection to a live node was lost: a dial shows whether the node is.
    pub(super) fn begin_redial(&mut self, peer_id: PeerId, silent: bool, now: Instant) {
        let limit = if silent { REDIAL_LIMIT_AFTER_SILENCE } else { REDIAL_LIMIT } + self.lag.allowance(now);
        self.redials.insert(peer_id, Redial { attempts: 0, busy: false, refused: false, until: now + limit });
        self.timers.at(now + limit, Due::Lose(peer_id));
        if self.core.peer_id < peer_id {
            self.dial(peer_id);
        } else {
            self.timers.at(now + YIELD, Due::Redial(peer_id));
        }
    }

    pub(super) fn redial(&mut self, peer_id: PeerId) {
        let wanted = self.redials.contains_key(&peer_id) || self.doubts.contains_key(&peer_id);
        if wanted && self.stopping.is_none() && !self.peers.contains_key(&peer_id) && !self.dials.contains_key(&peer_id)
        {
            self.dial(peer_id);
        }
    }

    pub(super) fn lose(&mut self, peer_id: &PeerId, now: Instant) {
        let Some(redial) = self.redials.get(peer_id) else { return };
        if redial.until > now {
            // The limit of an earlier loss.
            self.timers.at(redial.until, Due::Lose(*peer_id));
        } else if !self.peers.contains_key(peer_id) {
            if redial.busy {
                // Somebody is there: whether it is this node, its signs of life show.
                self.redials.remove(peer_id);
                self.look_for(*peer_id, now);
            } else {
                let silent = !redial.refused;
                self.on_lost(*peer_id, silent, now);
            }
            // Ends a dial too; the error comes as an event.
            let _ = self.swarm.disconnect_peer_id(*peer_id);
        }
    }

    /// A node is lost: it was refused where it should be, or nothing is heard of it.
    pub(super) fn on_lost(&mut self, peer_id: PeerId, silent: bool, now: Instant) {
        self.redials.remove(&peer_id);
        self.directory.on_unreachable(&peer_id, silent, now);
        self.look_for(peer_id, now);
    }

    /// Dials a node now and then that is not to be had at the moment.
    pub(super) fn look_for(&mut self, peer_id: PeerId, now: Instant) {
        // One that is being looked for has its next look before it already: a second series would never end, either.
        if self.lost.len() < MAX_LOST
            && let Entry::Vacant(looks) = self.lost.entry(peer_id)
        {
            looks.insert(0);
            self.timers.at(now + revisit_pause(0), Due::Revisit(peer_id));
        }
    }

    /// Dials a lost node again, until it is back or forgotten.
    pub(super) fn revisit(&mut self, peer_id: PeerId) {
        let forgotten = !self.directory.knows(&peer_id) || self.directory.has_stopped(&peer_id);
        if forgotten || self.stopping.is_some() || self.peers.get(&peer_id).is_some_and(|peer| peer.synced) {
            self.lost.remove(&peer_id);
            return;
        }
        let Some(times) = self.lost.get_mut(&peer_id) else { return };
        *times = times.saturating_add(1);
        let pause = revisit_pause(*times);
        self.timers.after(jittered(pause), Due::Revisit(peer_id));
        if self.peers.contains_key(&peer_id) {
            return;
        }
        if !self.dials.contains_key(&peer_id) && self.has_address(&peer_id) {
            self.dial(peer_id);
        }
    }
}

/// How long a node is left alone that was looked for so often already.
fn revisit_pause(times: u32) -> Duration {
    (TICK * 2_u32.saturating_pow(times.min(16))).min(LONGEST_REVISIT)
}
