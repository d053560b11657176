//! The times in which this very process did not run: stopped by Ctrl-Z or a debugger, or starved. Whoever was not
//! listening cannot call others silent. Pure.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// Pauses that are remembered. More of them in one lease are a machine that is overloaded; then the oldest count as time.
const KEPT: usize = 64;

/// What has come meanwhile is read in this time after a pause; it belongs to the pause.
const READING: Duration = Duration::from_millis(500);

/// When turns were missed.
#[derive(Debug)]
pub(super) struct Pauses {
    /// A turn that comes later than this after the last one comes after a pause.
    longest: Duration,
    last: Instant,
    pauses: VecDeque<(Instant, Instant)>,
}

impl Pauses {
    /// Turns come every `tick`.
    pub(super) fn new(tick: Duration, now: Instant) -> Self {
        Self { longest: tick * 4, last: now, pauses: VecDeque::new() }
    }

    /// A turn begins. Whether it comes after a pause.
    pub(super) fn turn(&mut self, now: Instant) -> bool {
        let last = std::mem::replace(&mut self.last, now);
        let has_paused = now.saturating_duration_since(last) > self.longest;
        if has_paused {
            if self.pauses.len() == KEPT {
                self.pauses.pop_front();
            }
            // The one before may still be read, and no time counts twice.
            let begin = self.pauses.back().map_or(last, |(_, end)| last.max(*end)).min(now);
            self.pauses.push_back((begin, now + READING.min(now - last)));
        }
        has_paused
    }

    /// How long it is since then, without the pauses.
    pub(super) fn since(&self, then: Instant, now: Instant) -> Duration {
        let missed = |(begin, end): &(Instant, Instant)| (*end).min(now).saturating_duration_since((*begin).max(then));
        let missed = self.pauses.iter().map(missed).sum();
        now.saturating_duration_since(then).saturating_sub(missed)
    }

    /// Whether something may lie unread because of a pause.
    pub(super) fn is_reading(&self, now: Instant) -> bool {
        self.pauses.back().is_some_and(|(_, end)| now < *end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_millis(50);
    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn time_in_which_no_turn_came_does_not_count() {
        let begin = Instant::now();
        let mut pauses = Pauses::new(TICK, begin);
        let mut now = begin;
        for _ in 0..20 {
            now += TICK;
            assert!(!pauses.turn(now), "turns that come in time are none");
        }
        assert_eq!(pauses.since(begin, now), SECOND);
        now += 70 * SECOND;
        assert!(pauses.turn(now));
        assert_eq!(pauses.since(begin, now), SECOND);
        assert!(pauses.is_reading(now));
        assert_eq!(pauses.since(begin, now + READING), SECOND, "what has come meanwhile is read first");
        let later = now + SECOND;
        assert!(!pauses.is_reading(later));
        assert_eq!(pauses.since(begin, later), 2 * SECOND - READING);
        assert_eq!(pauses.since(later, later + SECOND), SECOND, "what began later has not missed it");
    }

    #[test]
    fn one_pause_after_the_other_counts_once_and_few_are_remembered() {
        let begin = Instant::now();
        let mut pauses = Pauses::new(TICK, begin);
        let mut now = begin;
        for _ in 0..KEPT * 2 {
            now += 2 * TICK * 4;
            assert!(pauses.turn(now));
        }
        assert_eq!(pauses.pauses.len(), KEPT);
        let half = now - (now - begin) / 4;
        assert_eq!(pauses.since(half, now), Duration::ZERO);
        assert!(pauses.since(begin, now) >= (now - begin) / 3, "what is forgotten counts");
    }
}
