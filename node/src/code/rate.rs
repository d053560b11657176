//! So much time in each period, saved up for one period at the most.

use std::{
    fmt,
    str::FromStr,
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use super::guest_error::GuestError;
use crate::length::length;

/// Whoever has used all of it up waits until he has this part of it again: begun with less, little would come of it.
const LEAST: u32 = 10;

/// So much time in each period: `1s/min`. What is not used is saved up, for one period at the most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rate {
    /// The time; above zero. It may be longer than the period: there is more than one core.
    pub time: Duration,
    /// The period; above zero.
    pub per: Duration,
}

impl Rate {
    /// So much time in each period.
    #[must_use]
    pub const fn new(time: Duration, per: Duration) -> Self {
        Self { time, per }
    }

    /// How long it takes until what was used is there again.
    fn pays_back(&self, used: Duration) -> u64 {
        let (time, per) = (self.time.as_nanos().max(1), self.per.as_nanos());
        u64::try_from(used.as_nanos().saturating_mul(per) / time).unwrap_or(u64::MAX)
    }
}

/// What is no rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a rate is wanted, such as 1s/min, 500ms/s or 5m/h")]
pub struct RateError;

impl FromStr for Rate {
    type Err = RateError;

    fn from_str(text: &str) -> Result<Self, RateError> {
        let (used, per) = text.split_once('/').ok_or(RateError)?;
        let per =
            if per.starts_with(|first: char| first.is_ascii_digit()) { per.to_owned() } else { format!("1{per}") };
        let rate = time(used).zip(time(&per)).map(|(time, per)| Self { time, per });
        rate.ok_or(RateError)
    }
}

/// Reads a time above zero, with its unit: `500ms`, `10s`, `2m` or `2min`, `1h`.
pub(crate) fn time(text: &str) -> Option<Duration> {
    let unit = text.find(|character: char| !character.is_ascii_digit())?;
    let (digits, unit) = text.split_at(unit);
    let number: u64 = digits.parse().ok()?;
    let milliseconds = match unit {
        "ms" => Some(number),
        "s" => number.checked_mul(1_000),
        "m" | "min" => number.checked_mul(60_000),
        "h" => number.checked_mul(3_600_000),
        _ => None,
    };
    milliseconds.filter(|milliseconds| *milliseconds > 0).map(Duration::from_millis)
}

impl fmt::Display for Rate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} in each {}", length(self.time), length(self.per))
    }
}

/// What was used of a rate. Used by many threads at once, without waiting.
#[derive(Debug)]
pub(crate) struct Meter {
    rate: Option<Rate>,
    /// When all of it will be there again, in nanoseconds since [`BEGINNING`]; later the more was used.
    whole: AtomicU64,
}

/// What nanoseconds are counted from.
static BEGINNING: LazyLock<Instant> = LazyLock::new(Instant::now);

impl Meter {
    /// Nothing was used yet. Without a rate it only looks as if it counted.
    pub(crate) fn new(rate: Option<Rate>) -> Self {
        Self { rate, whole: AtomicU64::new(0) }
    }

    pub(crate) fn rate(&self) -> Option<Rate> {
        self.rate
    }

    /// Takes note of what was used.
    pub(crate) fn charge(&self, used: Duration, now: Instant) {
        let Some(rate) = self.rate else { return };
        let (now, used) = (since_beginning(now), rate.pays_back(used));
        // Nothing depends on the order.
        _ = self.whole.fetch_update(Relaxed, Relaxed, |whole| Some(whole.max(now).saturating_add(used)));
    }

    /// Whether all of it is used up: what runs has to stop.
    pub(crate) fn is_used_up(&self, now: Instant) -> bool {
        self.rate.is_some_and(|rate| !self.until(now, rate.pays_back(rate.time)).is_zero())
    }

    /// How long one has to wait before something may be begun; `None` if it may be now.
    pub(crate) fn wait(&self, now: Instant) -> Option<Duration> {
        let rate = self.rate?;
        let wait = self.until(now, rate.pays_back(rate.time - rate.time / LEAST));
        (!wait.is_zero()).then_some(wait)
    }

    /// Whether nothing of it is used.
    fn is_whole(&self, now: Instant) -> bool {
        self.until(now, 0).is_zero()
    }

    /// Until no more than this is missing.
    fn until(&self, now: Instant, missing: u64) -> Duration {
        let whole = self.whole.load(Relaxed);
        Duration::from_nanos(whole.saturating_sub(since_beginning(now).saturating_add(missing)))
    }
}

fn since_beginning(now: Instant) -> u64 {
    u64::try_from(now.saturating_duration_since(*BEGINNING).as_nanos()).unwrap_or(u64::MAX)
}

/// What one sender has used, by one rule.
#[derive(Debug)]
pub(crate) struct Account {
    /// Of what guests compute.
    pub(crate) computing: Meter,
    /// Of the time of the compiler.
    pub(crate) compiling: Meter,
}

impl Account {
    pub(crate) fn new(computing: Option<Rate>, compiling: Option<Rate>) -> Self {
        Self { computing: Meter::new(computing), compiling: Meter::new(compiling) }
    }

    /// Whether a guest may begin to compute.
    pub(crate) fn may_compute(&self) -> Result<(), GuestError> {
        let Some(rate) = self.computing.rate() else { return Ok(()) };
        match self.computing.wait(Instant::now()) {
            Some(wait) => Err(GuestError::RateLimit { rate, wait, begun: false }),
            None => Ok(()),
        }
    }

    pub(crate) fn is_whole(&self, now: Instant) -> bool {
        self.computing.is_whole(now) && self.compiling.is_whole(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_rate_is_read_with_its_units_and_nothing_else_is() {
        for (text, time, per) in [
            ("1s/min", 1_000, 60_000),
            ("1s/m", 1_000, 60_000),
            ("500ms/s", 500, 1_000),
            ("2m/10min", 120_000, 600_000),
            ("5min/h", 300_000, 3_600_000),
        ] {
            let rate = Rate::new(Duration::from_millis(time), Duration::from_millis(per));
            assert_eq!(text.parse(), Ok(rate), "{text}");
        }
        for text in
            ["", "1s", "/", "1/min", "1s/", "s/min", "0s/min", "1s/0s", "-1s/min", "1s/day", "99999999999999999999s/s"]
        {
            assert_eq!(text.parse::<Rate>(), Err(RateError), "{text}");
        }
    }

    #[test]
    fn what_is_used_up_is_there_again_after_its_time_and_no_more_than_one_period_is_saved() {
        let begun = Instant::now() + 1_000 * SECOND;
        let meter = Meter::new(Some(Rate::new(2 * SECOND, 10 * SECOND)));
        assert_eq!((meter.wait(begun), meter.is_used_up(begun)), (None, false));
        meter.charge(2 * SECOND, begun);
        assert!(!meter.is_used_up(begun), "all of it, and nothing more");
        meter.charge(SECOND, begun);
        assert!(meter.is_used_up(begun));
        // One second more than there was takes five to come back, and one more for the part that is needed to begin.
        assert_eq!(meter.wait(begun), Some(6 * SECOND));
        assert_eq!((meter.wait(begun + 6 * SECOND), meter.is_used_up(begun + 6 * SECOND)), (None, false));
        let later = begun + 1_000 * SECOND;
        assert!(meter.is_whole(later));
        meter.charge(3 * SECOND, later);
        assert_eq!(meter.wait(later), Some(6 * SECOND), "what is not used is not saved for ever");
        let without = Meter::new(None);
        without.charge(Duration::MAX, begun);
        assert_eq!((without.wait(begun), without.is_used_up(begun)), (None, false));
        meter.charge(Duration::MAX, later);
        assert!(meter.is_used_up(later));
    }
}
