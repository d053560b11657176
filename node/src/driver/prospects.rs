//! Peers that multicast has named: one dial may come too early, or be lost, and multicast names nobody twice who keeps
//! answering. So a dial that led nowhere is repeated, ever more rarely, as long as the peer is heard.

use std::time::Duration;

use libp2p::PeerId;

use super::{Driver, Due, TICK, timers::jittered};

/// As many as multicast remembers.
const MAX_PROSPECTS: usize = 512;

/// The pause doubles up to this: most of those that cannot be reached again and again belong to another swarm.
const LONGEST_PAUSE: Duration = Duration::from_secs(5 * 60);

/// A peer that was heard and may be of this swarm.
#[derive(Debug, Default)]
pub(super) struct Prospect {
    /// Dials in a row that led nowhere.
    failures: u32,
    /// The next dial is noted already.
    waits: bool,
}

impl Driver {
    pub(super) fn note_prospect(&mut self, peer_id: PeerId) {
        if self.prospects.len() < MAX_PROSPECTS {
            self.prospects.entry(peer_id).or_default();
        }
    }

    pub(super) fn is_prospect(&self, peer_id: &PeerId) -> bool {
        self.prospects.contains_key(peer_id)
    }

    pub(super) fn forget_prospects(&mut self, silent: &[PeerId]) {
        for peer_id in silent {
            self.prospects.remove(peer_id);
        }
    }

    /// It has levelled with this node.
    pub(super) fn on_prospect_met(&mut self, peer_id: &PeerId) {
        if let Some(prospect) = self.prospects.get_mut(peer_id) {
            prospect.failures = 0;
        }
    }

    /// A dial, or a connection on which nothing was levelled, has come to nothing.
    pub(super) fn on_prospect_missed(&mut self, peer_id: PeerId) {
        let Some(prospect) = self.prospects.get_mut(&peer_id).filter(|prospect| !prospect.waits) else { return };
        prospect.waits = true;
        let pause = (TICK * 2_u32.saturating_pow(prospect.failures.min(16))).min(LONGEST_PAUSE);
        prospect.failures = prospect.failures.saturating_add(1);
        self.timers.after(jittered(pause), Due::Prospect(peer_id));
    }

    /// Dials it again, unless it has come by itself or another part of the driver sees to it.
    pub(super) fn try_prospect(&mut self, peer_id: PeerId) {
        let Some(prospect) = self.prospects.get_mut(&peer_id) else { return };
        prospect.waits = false;
        if !self.lost.contains_key(&peer_id) && !self.directory.is_live(&peer_id) {
            self.discover(peer_id);
        }
    }
}
