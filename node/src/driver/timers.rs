//! What is due when. The driver sleeps until the earliest.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    time::{Duration, Instant},
};

use libp2p::PeerId;

/// Something to do at a later time. What has become needless by then does nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Due {
    /// The slow housekeeping, once a second.
    Tick,
    /// Signs and tells the own record.
    Announce,
    /// Gives a sign of life.
    Beat,
    /// Levels with a random neighbour.
    Sync,
    /// Levels with a peer whose first exchange had failed.
    Offer(PeerId),
    /// Reads the rendezvous folder again.
    Rescan,
    /// Looks whether the first time of finding is over.
    Settle,
    /// Says so if mDNS has found nobody.
    Loneliness,
    /// Dials a peer unless it is connected.
    Dial(PeerId),
    /// Dials a peer again whose connection was lost.
    Redial(PeerId),
    /// Looks for connections that have gone silent.
    Silence,
    /// Looks whether a lost node is back.
    Revisit(PeerId),
    /// Dials a peer again that multicast had named.
    Prospect(PeerId),
    /// Ends a dial that takes too long.
    GiveUp(PeerId),
    /// A connection was lost and nobody came back: the node is lost.
    Lose(PeerId),
    /// Ends the waiting for lanes to a peer.
    LaneLimit(PeerId),
    /// Tries an address to join through.
    Join(usize),
    /// Closes the connections to a peer that has been told so.
    Release(PeerId),
    /// Looks whether what is to be published still waits for a neighbour.
    Held,
    /// What was published last has had the time to be written.
    Written,
    /// Ends the driver even if not everybody has heard the goodbye.
    Leave,
}

/// With more than that waiting no further dials are noted: they come from a flood of discovered peers.
const MAX_WAITING: usize = 16_384;

#[derive(Debug, Default)]
pub(super) struct Timers {
    heap: BinaryHeap<Reverse<(Instant, Due)>>,
}

impl Timers {
    pub(super) fn at(&mut self, when: Instant, due: Due) {
        if self.heap.len() < MAX_WAITING || !matches!(due, Due::Dial(_)) {
            self.heap.push(Reverse((when, due)));
        }
    }

    pub(super) fn after(&mut self, delay: Duration, due: Due) {
        self.at(Instant::now() + delay, due);
    }

    /// When the earliest is due; a day hence if there is none.
    pub(super) fn next(&self) -> Instant {
        self.heap.peek().map_or_else(|| Instant::now() + Duration::from_secs(86_400), |Reverse((when, _))| *when)
    }

    pub(super) fn pop(&mut self, now: Instant) -> Option<Due> {
        let Reverse((when, _)) = self.heap.peek()?;
        if *when > now { None } else { self.heap.pop().map(|Reverse((_, due))| due) }
    }
}

/// `duration` give or take a tenth, so that nodes which started together do not act together.
pub(super) fn jittered(duration: Duration) -> Duration {
    duration.mul_f64(rand::random_range(0.9..1.1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_comes_first_and_none_before_its_time() {
        let start = Instant::now();
        let mut timers = Timers::default();
        timers.at(start + Duration::from_secs(2), Due::Beat);
        timers.at(start + Duration::from_secs(1), Due::Tick);
        assert_eq!(timers.next(), start + Duration::from_secs(1));
        assert_eq!(timers.pop(start), None);
        assert_eq!(timers.pop(start + Duration::from_secs(3)), Some(Due::Tick));
        assert_eq!(timers.pop(start + Duration::from_secs(3)), Some(Due::Beat));
        assert_eq!(timers.pop(start + Duration::from_secs(3)), None);
    }
}
