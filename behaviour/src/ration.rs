//! Rations: how much of something is let through at once, and how much a second in the long run.
//!
//! What a peer costs is counted by its peer id, by the host that it comes from, and for all together: peer ids cost nothing,
//! addresses little, and what is counted on a connection is forgotten with it. Pure: whoever calls says what time it is.

mod origin;
mod table;

use std::time::{Duration, Instant};

pub use self::{
    origin::Origin,
    table::{Table, Taken, Tiers, Who},
};

/// How much at once, and how much a second in the long run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate {
    /// At once, after a time of rest.
    pub burst: f64,
    /// In the long run.
    pub per_second: f64,
}

impl Rate {
    /// So many times as much.
    #[must_use]
    pub const fn times(self, factor: f64) -> Self {
        Self { burst: self.burst * factor, per_second: self.per_second * factor }
    }
}

/// What is left of a rate.
#[derive(Debug, Clone)]
pub struct Bucket {
    rate: Rate,
    left: f64,
    filled: Instant,
}

impl Bucket {
    /// A full one.
    #[must_use]
    pub fn new(rate: Rate, now: Instant) -> Self {
        Self { rate, left: rate.burst, filled: now }
    }

    /// Whether there is `amount`, which is taken then.
    pub fn take(&mut self, amount: f64, now: Instant) -> bool {
        self.fill(now);
        let enough = self.left >= amount;
        if enough {
            self.left -= amount;
        }
        enough
    }

    /// Takes `amount` whether it is there or not; the debt is never more than what a full one has.
    pub fn charge(&mut self, amount: f64, now: Instant) {
        self.fill(now);
        self.left = (self.left - amount).max(-self.rate.burst);
    }

    /// How many whole ones there are.
    #[must_use]
    pub fn whole(&mut self, now: Instant) -> usize {
        self.fill(now);
        // Truncated on purpose: a part of one is none, and so is a debt.
        self.left.max(0.0) as usize
    }

    /// Takes as many of `count` as there are.
    pub fn take_some(&mut self, count: usize, now: Instant) -> usize {
        let taken = count.min(self.whole(now));
        self.left -= taken as f64;
        taken
    }

    /// When `amount` may pass, and takes its place; nothing if that is later than `limit` from now.
    pub fn reserve(&mut self, amount: f64, now: Instant, limit: Duration) -> Option<Instant> {
        self.fill(now);
        let wait = Duration::from_secs_f64((amount - self.left).max(0.0) / self.rate.per_second);
        (wait <= limit).then(|| {
            self.left -= amount;
            now + wait
        })
    }

    /// Whether it is as good as new, so that nothing is lost when it is forgotten.
    #[must_use]
    pub fn is_full(&mut self, now: Instant) -> bool {
        self.fill(now);
        self.left >= self.rate.burst
    }

    fn fill(&mut self, now: Instant) {
        let grown = now.saturating_duration_since(self.filled).as_secs_f64() * self.rate.per_second;
        self.left = (self.left + grown).min(self.rate.burst);
        self.filled = self.filled.max(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate { burst: 40.0, per_second: 4.0 };

    #[test]
    fn there_is_a_burst_and_then_so_much_a_second() {
        let start = Instant::now();
        let mut bucket = Bucket::new(RATE, start);
        assert_eq!((0..100).filter(|_| bucket.take(1.0, start)).count(), 40);
        assert_eq!(bucket.take_some(100, start + Duration::from_secs(1)), 4);
        assert_eq!(bucket.take_some(100, start + Duration::from_secs(60)), 40);
    }

    #[test]
    fn a_debt_is_paid_back_and_has_a_bound() {
        let start = Instant::now();
        let mut bucket = Bucket::new(RATE, start);
        bucket.charge(1e9, start);
        assert_eq!(bucket.take_some(1, start + Duration::from_secs(10)), 0);
        assert!(bucket.take(4.0, start + Duration::from_secs(11)));
        assert!(!bucket.is_full(start + Duration::from_secs(11)));
        assert!(bucket.is_full(start + Duration::from_secs(60)));
    }

    #[test]
    fn a_clock_that_stands_still_or_runs_back_gives_nothing() {
        let start = Instant::now() + Duration::from_secs(10);
        let mut bucket = Bucket::new(RATE, start);
        assert_eq!(bucket.take_some(100, start), 40);
        assert_eq!(bucket.take_some(100, start.checked_sub(Duration::from_secs(5)).unwrap()), 0);
        assert_eq!(bucket.take_some(100, start), 0);
    }
}
