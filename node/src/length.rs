//! Lengths of time for people, as they would write them.

use std::time::Duration;

/// `1.5s`, `90s`, `15m`, `2h`: to the millisecond, unless it is shorter than one.
pub(crate) fn length(time: Duration) -> String {
    let whole = Duration::from_millis(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
    let time = if whole.is_zero() { time } else { whole };
    match time.as_secs() {
        hours if time.subsec_nanos() == 0 && hours >= 7200 && hours % 3600 == 0 => format!("{}h", hours / 3600),
        minutes if time.subsec_nanos() == 0 && minutes >= 120 && minutes % 60 == 0 => format!("{}m", minutes / 60),
        _ => format!("{time:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_shown_as_people_write_it() {
        for (time, text) in [
            (Duration::from_secs(90), "90s"),
            (Duration::from_secs(900), "15m"),
            (Duration::from_secs(7200), "2h"),
            (Duration::from_secs(7201), "7201s"),
            (Duration::from_millis(1500), "1.5s"),
            (Duration::from_micros(998_254), "998ms"),
            (Duration::from_micros(20), "20µs"),
            (Duration::ZERO, "0ns"),
        ] {
            assert_eq!(length(time), text);
        }
        assert!(length(Duration::MAX).ends_with('s'));
    }
}
