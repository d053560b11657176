//! What outlives an exchange: tells of peers that still wait here, and what hosts have said of those of this node. Pure.

use std::{collections::HashMap, sync::Arc};

use libp2p::PeerId;
use multinodes_behaviour::{
    lane::{Heard, Tells},
    quick_hash::QuickHash,
};

/// Peers that are not connected of which it is kept how many tells they had not begun. Of more it is said at once that
/// these may be lost.
const MAX_UNHEARD: usize = 1_024;

#[derive(Default)]
pub(super) struct Told {
    /// Of peers that are not connected: as many as have tells in the queues here, which are bounded.
    waiting: HashMap<PeerId, Arc<Tells>, QuickHash>,
    /// Of hosts that are not connected, and may have lost nothing: their connection broke, and that is all that is known.
    heard: HashMap<PeerId, Heard, QuickHash>,
}

/// Tells that were accepted and are lost with their host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Lost {
    /// So many at the most.
    pub(super) tells: u64,
    /// Exactly so many: the host has stopped, and said so at its end.
    pub(super) exact: bool,
}

impl Told {
    /// The tells of a peer with which an exchange begins: it is told on where it was before.
    pub(super) fn begin(&mut self, peer_id: &PeerId, incarnation: u64) -> Arc<Tells> {
        self.waiting.remove(peer_id).unwrap_or_else(|| Arc::new(Tells::new(incarnation)))
    }

    /// An exchange has ended. `live`: the incarnation in which the peer lives on, as far as is known.
    pub(super) fn end(&mut self, peer_id: PeerId, tells: Arc<Tells>, heard: Heard, live: Option<u64>) -> Lost {
        self.waiting.retain(|_, tells| tells.waiting() > 0);
        if tells.waiting() > 0 {
            self.waiting.insert(peer_id, tells);
        }
        let before = self.heard.remove(&peer_id).unwrap_or_default();
        self.settle(peer_id, heard.after(before), live)
    }

    /// It has become known that a node lives in this incarnation, or not at all.
    pub(super) fn on_life(&mut self, peer_id: &PeerId, live: Option<u64>) -> Lost {
        match self.heard.remove(peer_id) {
            Some(heard) => self.settle(*peer_id, heard, live),
            None => Lost::default(),
        }
    }

    fn settle(&mut self, peer_id: PeerId, mut heard: Heard, live: Option<u64>) -> Lost {
        let (earlier, waiting) = (heard.take_lost(), heard.waiting());
        let lives = live.is_some_and(|live| live <= heard.incarnation());
        if waiting == 0 || (lives && self.heard.len() < MAX_UNHEARD) {
            if waiting > 0 {
                self.heard.insert(peer_id, heard);
            }
            return Lost { tells: earlier, exact: false };
        }
        Lost { tells: earlier.saturating_add(waiting), exact: earlier == 0 && heard.is_last_word() }
    }
}

#[cfg(test)]
mod tests {
    use multinodes_behaviour::wire::Begun;

    use super::*;

    fn heard(incarnation: u64, accepted: u64, begun: u64) -> Heard {
        Heard::from(Begun { incarnation, accepted, begun })
    }

    fn none() -> Arc<Tells> {
        Arc::new(Tells::new(1))
    }

    fn lost(tells: u64) -> Lost {
        Lost { tells, exact: false }
    }

    #[test]
    fn tells_are_lost_when_their_host_is_known_to_be_gone_and_not_with_its_connection() {
        let (host, mut told) = (PeerId::random(), Told::default());
        assert_eq!(told.end(host, none(), heard(5, 9, 4), Some(5)), lost(0));
        assert_eq!(told.on_life(&host, Some(5)), lost(0), "its record has changed");
        assert_eq!(told.on_life(&host, None), lost(5));
        assert_eq!(told.on_life(&host, None), lost(0), "once");
        assert_eq!(told.end(host, none(), heard(5, 9, 4), Some(5)), lost(0));
        assert_eq!(told.on_life(&host, Some(6)), lost(5), "it was started again");
        assert_eq!(told.end(host, none(), heard(6, 3, 3), None), lost(0), "all were begun");
        assert_eq!(told.end(host, none(), heard(6, 3, 2), None), lost(1), "it was known to be gone");
    }

    #[test]
    fn a_host_that_comes_back_says_what_has_become_of_them() {
        let (host, mut told) = (PeerId::random(), Told::default());
        assert_eq!(told.end(host, none(), heard(5, 9, 4), Some(5)), lost(0));
        assert_eq!(told.end(host, none(), heard(5, 10, 9), Some(5)), lost(0));
        assert_eq!(told.on_life(&host, None), lost(1));
        assert_eq!(told.end(host, none(), heard(5, 9, 4), Some(5)), lost(0));
        assert_eq!(told.end(host, none(), heard(6, 1, 1), Some(6)), lost(5), "it was another life");
    }

    #[test]
    fn who_comes_back_is_told_on_as_long_as_something_waits() {
        let (peer, mut told) = (PeerId::random(), Told::default());
        let tells = told.begin(&peer, 1);
        tells.accept();
        told.end(peer, tells.clone(), Heard::default(), None);
        assert!(Arc::ptr_eq(&tells, &told.begin(&peer, 1)));
        tells.begin();
        told.end(peer, tells.clone(), Heard::default(), None);
        assert!(!Arc::ptr_eq(&tells, &told.begin(&peer, 1)) && told.waiting.is_empty());
    }

    #[test]
    fn of_very_many_peers_it_is_said_at_once() {
        let mut told = Told::default();
        for _ in 0..MAX_UNHEARD {
            assert_eq!(told.end(PeerId::random(), none(), heard(5, 1, 0), Some(5)), lost(0));
        }
        assert_eq!(told.end(PeerId::random(), none(), heard(5, 1, 0), Some(5)), lost(1));
        assert_eq!(told.heard.len(), MAX_UNHEARD);
    }
}
