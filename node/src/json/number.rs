//! Numbers as JSON writes them.

use super::error::{JsonProblem, shown};

/// A number that CBOR can hold.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Number {
    Unsigned(u64),
    /// -1 minus this.
    Negative(u64),
    /// The integer `-0`, which is none, and not the float `-0.0` either: some languages tell them apart.
    MinusZero,
    Float(f64),
}

/// So many digits come back from a 64-bit float, whatever they are.
const ALWAYS_EXACT: usize = 15;

/// No float has more digits than this, written out.
const MOST_DIGITS: usize = 768;

/// Reads a number of JSON's grammar. `rounded` allows that digits are lost.
pub(super) fn read(text: &str, rounded: bool) -> Result<Number, JsonProblem> {
    if text.bytes().any(|byte| matches!(byte, b'.' | b'e' | b'E')) {
        return float(text, rounded).map(Number::Float);
    }
    let large = || JsonProblem::LargeInteger(shown(text));
    match text.strip_prefix('-') {
        None => text.parse().map(Number::Unsigned).map_err(|_| large()),
        Some("0") => Ok(Number::MinusZero),
        Some(digits) => {
            let size: u128 = digits.parse().map_err(|_| large())?;
            u64::try_from(size - 1).map(Number::Negative).map_err(|_| large())
        }
    }
}

fn float(text: &str, rounded: bool) -> Result<f64, JsonProblem> {
    let value: f64 = text.parse().map_err(|_| JsonProblem::Syntax("a number"))?;
    let beyond = || Err(JsonProblem::FloatRange(shown(text)));
    if value.is_infinite() {
        return beyond();
    }
    let significand = text.split(['e', 'E']).next().unwrap_or(text);
    let digits = || significand.bytes().filter(u8::is_ascii_digit).skip_while(|digit| *digit == b'0');
    let last = digits().enumerate().filter(|(_, digit)| *digit != b'0').last();
    let Some(count) = last.map(|(index, _)| index + 1) else { return Ok(value) };
    if value == 0.0 {
        return beyond();
    }
    if rounded || (count <= ALWAYS_EXACT && value.is_normal()) {
        return Ok(value);
    }
    // Whatever some float is written as comes back: the shortest way to write it, or the first so many of its digits.
    let is = |written: &str| {
        let written = written.split('e').next().unwrap_or(written);
        let written = written.trim_end_matches('0');
        written.bytes().filter(u8::is_ascii_digit).eq(digits().take(count))
    };
    if is(&format!("{value:e}")) || (count <= MOST_DIGITS && is(&format!("{value:.*e}", count - 1))) {
        return Ok(value);
    }
    Err(JsonProblem::Rounded {
        text: shown(text),
        rounded: serde_json::Number::from_f64(value).map_or_else(String::new, |value| value.to_string()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_exact_or_refused() {
        for (text, number) in [
            ("0", Number::Unsigned(0)),
            ("18446744073709551615", Number::Unsigned(u64::MAX)),
            ("-1", Number::Negative(0)),
            ("-18446744073709551616", Number::Negative(u64::MAX)),
            ("-0", Number::MinusZero),
        ] {
            assert_eq!(read(text, false), Ok(number), "{text}");
        }
        for text in ["18446744073709551616", "-18446744073709551617", &"9".repeat(100)] {
            assert!(matches!(read(text, false), Err(JsonProblem::LargeInteger(_))), "{text}");
        }
    }

    #[test]
    fn decimals_that_some_float_is_written_as_are_taken() {
        for text in [
            "0.1",
            "-0.0",
            "0e99",
            "1.0",
            "1e2",
            "0.30000000000000004",
            "1e23",
            "5e-324",
            "1.7976931348623157e308",
            "0.10000000000000000555",
            "123456789012345.0",
            "2.2250738585072014e-308",
            "0.1000000000000000055511151231257827021181583404541015625",
            "100.000000000000000000000",
        ] {
            assert!(matches!(read(text, false), Ok(Number::Float(_))), "{text}: {:?}", read(text, false));
        }
    }

    #[test]
    fn decimals_that_would_be_rounded_are_refused() {
        for text in
            ["3.14159265358979323846264338327950288", "18446744073709551617.0", "0.1000000000000000058", "1.23456e-320"]
        {
            assert!(matches!(read(text, false), Err(JsonProblem::Rounded { .. })), "{text}: {:?}", read(text, false));
            assert!(read(text, true).is_ok());
        }
        for text in ["1e400", "-1e309", "1e-400"] {
            assert!(matches!(read(text, false), Err(JsonProblem::FloatRange(_))), "{text}");
        }
        let long = format!("0.{}", "1234567890".repeat(100_000));
        assert!(read(&long, false).is_err(), "and soon");
    }
}
