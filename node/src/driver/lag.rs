//! How late this process is with what is due. On a machine that has too little time for all, what is missing is no fault of
//! others, and to begin more only makes it worse.

use std::time::{Duration, Instant};

/// What a lateness says of the moments after it.
const MEMORY: Duration = Duration::from_secs(3);

/// Timers and other tasks make anybody so late.
const USUAL: Duration = Duration::from_millis(20);

/// The other side is as late, and each step of an exchange waits for its turn on both sides.
const STEPS: u32 = 8;

/// Handshakes, which take a dozen turns of both sides, end too late when each comes so late.
const TOO_LATE: Duration = Duration::from_millis(250);

/// Whoever is that patient notices a loss all the same.
const LONGEST: Duration = Duration::from_secs(5);

/// The greatest lateness of late.
#[derive(Debug, Default)]
pub(super) struct Lag {
    worst: Duration,
    noted: Option<Instant>,
}

impl Lag {
    /// What was due at `due` has its turn.
    pub(super) fn note(&mut self, due: Instant, now: Instant) {
        let late = now.saturating_duration_since(due);
        if late >= self.at(now) {
            self.worst = late;
            self.noted = Some(now);
        }
    }

    /// Whether there is too little time for handshakes that have begun already.
    pub(super) fn is_late(&self, now: Instant) -> bool {
        self.at(now) > TOO_LATE
    }

    /// How much more time than usual others are to be given.
    pub(super) fn allowance(&self, now: Instant) -> Duration {
        (self.at(now).saturating_sub(USUAL) * STEPS).min(LONGEST)
    }

    fn at(&self, now: Instant) -> Duration {
        match self.noted {
            Some(noted) if now.saturating_duration_since(noted) <= MEMORY => self.worst,
            _ => Duration::ZERO,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_are_given_more_time_while_this_process_is_late() {
        let (start, mut lag) = (Instant::now(), Lag::default());
        lag.note(start, start + Duration::from_millis(2));
        assert_eq!((lag.is_late(start), lag.allowance(start)), (false, Duration::ZERO));
        lag.note(start, start + Duration::from_millis(120));
        lag.note(start + Duration::from_millis(130), start + Duration::from_millis(131));
        assert_eq!(lag.allowance(start + Duration::from_secs(1)), Duration::from_millis(800));
        assert_eq!(lag.allowance(start + Duration::from_secs(4)), Duration::ZERO, "that was long ago");
        assert!(!lag.is_late(start + Duration::from_secs(1)));
        lag.note(start, start + Duration::from_secs(60));
        assert_eq!(lag.allowance(start + Duration::from_secs(61)), LONGEST);
        assert!(lag.is_late(start + Duration::from_secs(61)));
    }
}
