//! Which items take so much longer than others that a second attempt is worth it. Pure.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::{items::Items, workers::WorkerId};

/// So many of the newest times say what is usual.
const SAMPLES: usize = 64;

/// Fewer say nothing.
const LEAST_SAMPLES: usize = 3;

/// What takes so many times as long as nine in ten of the others is a straggler.
const FACTOR: u32 = 2;

/// What has not taken so long is none, whatever the others take.
const LEAST: Duration = Duration::from_millis(100);

/// The times of the newest results.
#[derive(Default)]
pub(super) struct Stragglers {
    took: VecDeque<Duration>,
}

impl Stragglers {
    pub(super) fn note(&mut self, took: Duration) {
        if self.took.len() == SAMPLES {
            self.took.pop_front();
        }
        self.took.push_back(took);
    }

    /// Items with one attempt under way that has taken much too long, the longest first, and who works on them.
    pub(super) fn find(&self, items: &Items, now: Instant) -> Vec<(u64, WorkerId)> {
        let Some(limit) = self.limit() else { return Vec::new() };
        let mut found: Vec<_> = items
            .iter()
            .filter_map(|(index, item)| match &item.running[..] {
                [only] if !item.is_suspect() => Some((now.saturating_duration_since(only.sent), index, only.worker)),
                _ => None,
            })
            .filter(|(took, ..)| *took > limit)
            .collect();
        found.sort_unstable_by(|one, other| other.cmp(one));
        found.into_iter().map(|(_, index, worker)| (index, worker)).collect()
    }

    fn limit(&self) -> Option<Duration> {
        if self.took.len() < LEAST_SAMPLES {
            return None;
        }
        let mut took: Vec<_> = self.took.iter().copied().collect();
        took.sort_unstable();
        Some((took[took.len() * 9 / 10] * FACTOR).max(LEAST))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_usual_is_said_by_the_newest_and_not_by_the_slowest() {
        let mut stragglers = Stragglers::default();
        assert_eq!(stragglers.limit(), None);
        for milliseconds in 1..=100 {
            stragglers.note(Duration::from_millis(milliseconds * 10));
        }
        // Of 370 to 1000 ms, nine in ten take at most 940.
        assert_eq!(stragglers.limit(), Some(Duration::from_millis(1880)));
    }
}
