//! Times in which this very process did not run: it was stopped, or its machine was paused or asleep. What was sent to it
//! meanwhile lay in its sockets, and is older than it looks when it is read.
//!
//! How long each message lay there cannot be known. It counts as if it had come when the process stopped: a request that may
//! still have some time left is rather tried elsewhere than begun when nobody waits any more.
//!
//! A process that has too much to do is late as well, and has not stood still: the time in which it computed does not count.

use std::{
    fmt,
    sync::{
        Mutex, PoisonError,
        atomic::{
            AtomicU64,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
    time::{Duration, Instant},
};

/// Whoever keeps a [`Standstill`] calls its [`turn`](Standstill::turn) so often.
pub const TURN: Duration = Duration::from_millis(100);

/// Turns that come later than this show that the process stood still. On a machine that is merely busy they come sooner.
const LONGEST: Duration = Duration::from_millis(500);

/// What lay in the sockets is read in this time.
pub(super) const READING: Duration = Duration::from_millis(200);

/// Notices that the process stood still, by the time between two turns of a loop.
pub struct Standstill {
    /// A clock that goes on while the machine sleeps, if there is one.
    clock: Box<dyn Fn() -> Duration + Send + Sync>,
    /// What it showed at the beginning.
    zero: Duration,
    /// How long the process has computed so far, on all cores together.
    computed: Box<dyn Fn() -> Duration + Send + Sync>,
    begun: Instant,
    /// The last turn, in microseconds of the clock; 0 before the first one: then nothing is noticed.
    turn: AtomicU64,
    /// How long the process had computed at that turn, in microseconds.
    computed_then: AtomicU64,
    /// What is read before this lay in a socket while the process stood still.
    until: AtomicU64,
    /// How long that was, in microseconds.
    gap: AtomicU64,
    /// By so many microseconds the clock was ahead of the monotonic one at the last turn.
    slept: AtomicU64,
    noticing: Mutex<()>,
}

impl Standstill {
    /// By a clock that goes on while the machine sleeps: the time since any moment. `computed` gives the time that the
    /// process has had of all cores.
    pub fn new(
        clock: impl Fn() -> Duration + Send + Sync + 'static,
        computed: impl Fn() -> Duration + Send + Sync + 'static,
    ) -> Self {
        Self {
            zero: clock(),
            clock: Box::new(clock),
            computed: Box::new(computed),
            begun: Instant::now(),
            turn: AtomicU64::new(0),
            computed_then: AtomicU64::new(0),
            until: AtomicU64::new(0),
            gap: AtomicU64::new(0),
            slept: AtomicU64::new(0),
            noticing: Mutex::default(),
        }
    }

    /// Another turn of the loop has come. Once it is called, it has to be called again every [`TURN`].
    pub fn turn(&self) {
        let now = self.now();
        if !self.notice(now) {
            self.begin_turn(now, micros((self.computed)()));
        }
        let monotonic = micros(self.begun.elapsed());
        self.slept.fetch_max(now.saturating_sub(monotonic), Relaxed);
    }

    /// By how much older than it looks is what was just read.
    pub(super) fn lag(&self) -> Duration {
        if self.turn.load(Relaxed) == 0 {
            return Duration::ZERO;
        }
        let now = self.now();
        self.notice(now);
        if now < self.until.load(Relaxed) { Duration::from_micros(self.gap.load(Relaxed)) } else { Duration::ZERO }
    }

    /// How much of the time the monotonic clock has missed until the last turn: what happens at some time on that clock comes
    /// sooner by as much as this has grown.
    pub(super) fn slept(&self) -> Duration {
        Duration::from_micros(self.slept.load(Relaxed))
    }

    /// Whether the process stood still just now.
    fn notice(&self, now: u64) -> bool {
        if !self.is_late(now) {
            return false;
        }
        let _noticing = self.noticing.lock().unwrap_or_else(PoisonError::into_inner);
        // Whoever came first has noted it.
        if !self.is_late(now) {
            return false;
        }
        let computed = micros((self.computed)());
        let busy = computed.saturating_sub(self.computed_then.load(Relaxed));
        let mut gap = (now - self.turn.load(Relaxed)).saturating_sub(busy);
        self.begin_turn(now, computed);
        if gap <= micros(LONGEST) {
            return false;
        }
        if now < self.until.load(Relaxed) {
            // What lay there before may still be unread.
            gap += self.gap.load(Relaxed);
        }
        self.gap.store(gap, Relaxed);
        self.until.store(now + micros(READING), Relaxed);
        tracing::debug!(gap = ?Duration::from_micros(gap), "this process stood still");
        true
    }

    fn begin_turn(&self, now: u64, computed: u64) {
        self.computed_then.store(computed, Relaxed);
        self.turn.store(now, Release);
    }

    fn is_late(&self, now: u64) -> bool {
        let turn = self.turn.load(Acquire);
        turn > 0 && now.saturating_sub(turn) > micros(LONGEST)
    }

    fn now(&self) -> u64 {
        micros((self.clock)().saturating_sub(self.zero)).max(1)
    }
}

impl Default for Standstill {
    /// By the monotonic clock: sleep of the machine is not noticed where that clock stops in it, and whoever is late has stood
    /// still.
    fn default() -> Self {
        let begun = Instant::now();
        Self::new(move || begun.elapsed(), Duration::default)
    }
}

impl fmt::Debug for Standstill {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Standstill").field("turn", &self.turn).field("gap", &self.gap).finish_non_exhaustive()
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn clocked() -> (Standstill, impl Fn(Duration)) {
        let (standstill, pass, _) = computing();
        (standstill, pass)
    }

    /// The last one has the process compute, which takes no time by itself.
    fn computing() -> (Standstill, impl Fn(Duration), impl Fn(Duration)) {
        let (clock, computed) = (Arc::new(AtomicU64::new(1_000_000)), Arc::new(AtomicU64::new(0)));
        let shown = |clock: &Arc<AtomicU64>| {
            let clock = clock.clone();
            move || Duration::from_micros(clock.load(Relaxed))
        };
        let standstill = Standstill::new(shown(&clock), shown(&computed));
        let adding = |clock: Arc<AtomicU64>| {
            move |time| {
                clock.fetch_add(micros(time), Relaxed);
            }
        };
        (standstill, adding(clock), adding(computed))
    }

    #[test]
    fn who_has_too_much_to_do_is_late_and_has_not_stood_still() {
        let (standstill, pass, compute) = computing();
        standstill.turn();
        for _ in 0..3 {
            pass(Duration::from_secs(2));
            compute(Duration::from_secs(2));
            assert_eq!(standstill.lag(), Duration::ZERO);
            standstill.turn();
        }
        pass(Duration::from_secs(5));
        compute(Duration::from_secs(1));
        assert_eq!(standstill.lag(), Duration::from_secs(4));
    }

    #[test]
    fn what_is_read_after_a_gap_is_older_by_the_gap_and_only_for_a_moment() {
        let (standstill, pass) = clocked();
        pass(Duration::from_secs(60));
        assert_eq!(standstill.lag(), Duration::ZERO, "nobody keeps it");
        standstill.turn();
        for _ in 0..50 {
            pass(LONGEST);
            assert_eq!(standstill.lag(), Duration::ZERO, "a busy machine has not stood still");
            standstill.turn();
        }
        let gap = Duration::from_millis(2_500);
        pass(gap);
        // Whoever comes first notices it, and all others see the same.
        assert_eq!((standstill.lag(), standstill.lag()), (gap, gap));
        standstill.turn();
        pass(READING / 2);
        assert_eq!(standstill.lag(), gap);
        pass(READING / 2);
        assert_eq!(standstill.lag(), Duration::ZERO);
        standstill.turn();
        pass(gap);
        standstill.turn();
        assert_eq!(standstill.lag(), gap, "the loop may notice it first");
    }

    #[test]
    fn of_two_gaps_in_a_row_both_count() {
        let (standstill, pass) = clocked();
        pass(Duration::from_secs(1));
        standstill.turn();
        pass(Duration::from_secs(2));
        assert_eq!(standstill.lag(), Duration::from_secs(2));
        // Stopped again before anything else was read.
        standstill.until.fetch_add(micros(Duration::from_secs(3)), Relaxed);
        pass(Duration::from_secs(3));
        assert_eq!(standstill.lag(), Duration::from_secs(5));
    }

    #[test]
    fn sleep_of_the_machine_is_what_the_monotonic_clock_has_missed() {
        let (standstill, pass) = clocked();
        standstill.turn();
        let before = standstill.slept();
        assert!(before < Duration::from_secs(5), "{before:?}");
        pass(Duration::from_secs(100));
        standstill.turn();
        let slept = standstill.slept() - before;
        assert!(slept > Duration::from_secs(95) && slept <= Duration::from_secs(100), "{slept:?}");
    }
}
