//! What is due when. The driver sleeps until the earliest.

use std::{
    collections::{BTreeSet, HashMap},
    time::{Duration, Instant},
};

use libp2p::PeerId;

/// Something to do at a later time. What has become needless by then does nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
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
    /// Ends the waiting for what the LAN says of a peer.
    Unheard(PeerId),
    /// Tries an address to join through.
    Join(usize),
    /// Says what has come of an address to join through.
    Answers(usize),
    /// Asks for the addresses of a name to join through again.
    Name(usize),
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

/// Each thing that is due is noted once, at the earliest time that was asked for: whoever asks again and again, because
/// a peer makes it, does not make the driver act more often. What has to happen again later, or was due too early, notes
/// itself anew when it is done.
#[derive(Debug, Default)]
pub(super) struct Timers {
    order: BTreeSet<(Instant, Due)>,
    noted: HashMap<Due, Instant>,
}

impl Timers {
    pub(super) fn at(&mut self, when: Instant, due: Due) {
        match self.noted.get(&due).copied() {
            Some(noted) if noted <= when => return,
            Some(noted) => drop(self.order.remove(&(noted, due))),
            None if self.order.len() >= MAX_WAITING && matches!(due, Due::Dial(_)) => return,
            None => {}
        }
        self.noted.insert(due, when);
        self.order.insert((when, due));
    }

    pub(super) fn after(&mut self, delay: Duration, due: Due) {
        self.at(Instant::now() + delay, due);
    }

    /// When the earliest is due; a day hence if there is none.
    pub(super) fn next(&self) -> Instant {
        self.order.first().map_or_else(|| Instant::now() + Duration::from_secs(86_400), |(when, _)| *when)
    }

    pub(super) fn pop(&mut self, now: Instant) -> Option<Due> {
        if self.order.first()?.0 > now {
            return None;
        }
        let (_, due) = self.order.pop_first()?;
        self.noted.remove(&due);
        Some(due)
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

    #[test]
    fn whatever_is_asked_for_again_and_again_is_due_once_and_as_early_as_it_was_ever_wanted() {
        let start = Instant::now();
        let mut timers = Timers::default();
        let peer_id = PeerId::random();
        for due in [Due::Silence, Due::Held, Due::Join(0), Due::Offer(peer_id), Due::GiveUp(peer_id)] {
            for millis in [300, 100, 200].into_iter().cycle().take(3_000) {
                timers.at(start + Duration::from_millis(millis), due);
            }
        }
        assert_eq!(timers.order.len(), 5);
        assert_eq!(timers.pop(start + Duration::from_millis(99)), None);
        let due = std::iter::from_fn(|| timers.pop(start + Duration::from_millis(100))).count();
        assert_eq!((due, timers.order.len(), timers.noted.len()), (5, 0, 0));
    }
}
