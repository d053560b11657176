//! Lengths of time, as people write them.

use std::time::Duration;

/// Reads a length of time that something is given: nothing comes of it if that is none.
pub(crate) fn some_time(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(Duration::ZERO) => Err("no time at all: it has to be longer than 0".to_owned()),
        Ok(time) => Ok(time),
        Err(error) => Err(error.to_string()),
    }
}

/// Reads a length of time that may be none: not to wait at all makes sense.
pub(crate) fn any_time(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| error.to_string())
}

/// A length of time as JSON and tables have it: in milliseconds, to the microsecond.
pub(crate) fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1_000_000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_time_is_refused_where_nothing_comes_of_it() {
        for text in ["0s", "0ms", "0h 0m"] {
            assert!(some_time(text).unwrap_err().contains("longer than 0"), "{text}");
            assert_eq!(any_time(text), Ok(Duration::ZERO));
        }
        assert_eq!(some_time("1ms"), Ok(Duration::from_millis(1)));
        assert!(some_time("soon").is_err() && any_time("-1s").is_err());
    }
}
