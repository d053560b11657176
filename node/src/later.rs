//! Times to come, from durations that users choose: `Instant + Duration` panics where the sum is beyond what it can hold.

use std::time::{Duration, Instant};

/// What is further away than this never comes: a year.
const LONGEST: Duration = Duration::from_secs(365 * 86_400);

/// The time that is `wait` after `now`, at most a year from it.
pub(crate) fn later(now: Instant, wait: Duration) -> Instant {
    now + wait.min(LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_wait_is_a_time_like_any_other() {
        let now = Instant::now();
        assert_eq!(later(now, Duration::MAX), now + LONGEST);
        assert_eq!(later(now, Duration::from_secs(1)), now + Duration::from_secs(1));
    }
}
