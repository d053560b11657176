//! How fast a peer's requests are read while it has more under way than is taken of it, and sends on all the same.
//!
//! To refuse a request costs nearly as much as to serve a small one, so a peer that does not heed refusals would take most
//! of the node's time. Who is refused again and again is read ever more slowly, until it lets off: then its own connection
//! holds it up, and the others do not notice.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// So many refusals cost nothing: whoever has begun too much at once learns so, and waits or goes elsewhere.
const FREE: u64 = 64;

/// The pause after the first refusal too many.
const FIRST_PAUSE: Duration = Duration::from_millis(1);

/// It grows so many times with each that follows.
const GROWTH: u32 = 4;

/// So many requests as are taken of one peer at once, and the free refusals, can be had so often in the end.
const LONGEST_PAUSE: Duration = Duration::from_millis(512);

/// Whoever was not held up for so long is treated like a new one.
const FORGIVEN_AFTER: Duration = Duration::from_secs(2);

/// What is kept of a peer's refusals, for all lanes that it has opened.
#[derive(Debug)]
pub(super) struct Pace(Mutex<State>);

#[derive(Debug)]
struct State {
    /// Refusals that were looked at.
    seen: u64,
    /// Of these, since the last pause.
    free: u64,
    pause: Duration,
    until: Instant,
}

impl Pace {
    pub(super) fn new(now: Instant) -> Self {
        Self(Mutex::new(State { seen: 0, free: 0, pause: Duration::ZERO, until: now }))
    }

    /// Until when nothing more is to be read of the peer, of whose requests `refused` were refused so far.
    pub(super) fn pause(&self, refused: u64, now: Instant) -> Option<Instant> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if now.saturating_duration_since(state.until) > FORGIVEN_AFTER {
            state.pause = Duration::ZERO;
            state.free = 0;
        }
        // Two lanes may look at the counter in one order and get here in the other.
        state.free += refused.saturating_sub(state.seen);
        state.seen = state.seen.max(refused);
        if state.free > FREE {
            state.free = 0;
            state.pause = (GROWTH * state.pause).clamp(FIRST_PAUSE, LONGEST_PAUSE);
            state.until = now + state.pause;
        }
        (state.until > now).then_some(state.until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Has so many refused at once, again and again, each time as soon as that may be, for a second. Gives the refusals.
    fn refused_in_a_second(at_once: u64) -> u64 {
        let (begun, mut refused) = (Instant::now(), 0);
        let (pace, mut now) = (Pace::new(begun), begun);
        while now < begun + Duration::from_secs(1) {
            refused += at_once;
            now = pace.pause(refused, now).unwrap_or(now + Duration::from_micros(10));
        }
        refused
    }

    #[test]
    fn who_does_not_heed_refusals_is_read_ever_more_slowly() {
        for at_once in [1, 10, 100] {
            let refused = refused_in_a_second(at_once);
            assert!((FREE..1_000).contains(&refused), "{refused} refusals");
        }
    }

    #[test]
    fn a_few_refusals_cost_nothing_and_are_forgiven() {
        let (begun, pace) = (Instant::now(), Pace::new(Instant::now()));
        for (second, refused) in (3..).step_by(3).zip([FREE, 2 * FREE, 3 * FREE]) {
            assert_eq!(pace.pause(refused, begun + Duration::from_secs(second)), None);
        }
    }

    #[test]
    fn all_lanes_of_a_peer_wait_for_the_same_moment() {
        let (now, pace) = (Instant::now(), Pace::new(Instant::now()));
        let until = pace.pause(FREE + 1, now);
        assert_eq!(until, Some(now + FIRST_PAUSE));
        assert_eq!(pace.pause(FREE + 1, now), until);
        assert_eq!(pace.pause(FREE, now), until, "an older count");
        assert_eq!(pace.pause(FREE + 1, now + FIRST_PAUSE), None);
    }
}
