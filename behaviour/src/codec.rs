//! The one place that turns values into CBOR and back. What is decoded has a budget, which is checked while it is decoded:
//! three bytes of a map with one key become more than 600 bytes of a dynamic value.

mod budget;
mod metered;

use serde::{Serialize, de::DeserializeOwned};

pub use self::{
    budget::{Budget, List, Map, Meter, Overspent},
    metered::Metered,
};

/// How deep lists and maps may be nested, in what is decoded and in what is made of JSON.
pub const MAX_DEPTH: usize = 127;

/// Encodes `value` as CBOR.
///
/// # Errors
///
/// When the value's own `Serialize` fails, for example a map whose keys cannot be CBOR.
pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, EncodeError> {
    serde_cbor::to_vec(value).map_err(EncodeError)
}

/// Appends `value` as CBOR to `bytes`.
///
/// # Errors
///
/// As [`encode`]; what was appended by then is of no use.
pub fn append<T: Serialize>(value: &T, bytes: &mut Vec<u8>) -> Result<(), EncodeError> {
    serde_cbor::to_writer(bytes, value).map_err(EncodeError)
}

/// Decodes exactly one CBOR value of at most `limit` bytes, within [`Budget::of_message`].
///
/// # Errors
///
/// More than `limit` bytes, nesting deeper than [`MAX_DEPTH`], bytes after the value, a value of another type, or one that
/// would take more memory than the budget has.
pub fn decode<T: DeserializeOwned>(bytes: &[u8], limit: usize) -> Result<T, DecodeError> {
    if bytes.len() > limit {
        return Err(DecodeError::TooLarge { size: bytes.len(), limit });
    }
    decode_within(bytes, Budget::of_message(bytes.len()))
}

/// Decodes exactly one CBOR value within a budget.
///
/// # Errors
///
/// As [`decode`], but for the number of bytes.
pub fn decode_within<T: DeserializeOwned>(bytes: &[u8], budget: Budget) -> Result<T, DecodeError> {
    let meter = Meter::new(budget);
    let mut cbor = serde_cbor::Deserializer::from_slice(bytes);
    let value = T::deserialize(meter.watch(&mut cbor));
    value.and_then(|value| cbor.end().map(|()| value)).map_err(|error| match meter.overspent() {
        Some(overspent) => overspent.into(),
        None => error.into(),
    })
}

/// A value that cannot be written as CBOR.
#[derive(Debug, thiserror::Error)]
#[error("cannot be encoded as CBOR: {0}")]
pub struct EncodeError(#[source] serde_cbor::Error);

/// Bytes that are not the CBOR that was expected.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// Refused by its size alone.
    #[error("{size} bytes are more than the limit of {limit}")]
    TooLarge {
        /// What came, in bytes.
        size: usize,
        /// What is taken at the most, in bytes.
        limit: usize,
    },
    /// It would take too much memory.
    #[error(transparent)]
    OverBudget(#[from] Overspent),
    /// Not CBOR, or CBOR of another shape.
    #[error("not the expected CBOR: {0}")]
    Malformed(#[from] serde_cbor::Error),
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;
    use serde_json::{Value, json};

    use super::*;

    /// A list of so many times the same item.
    fn list(item: &[u8], count: u32) -> Vec<u8> {
        let mut bytes = [&[0x9a][..], &count.to_be_bytes()].concat();
        bytes.extend(item.repeat(count as usize));
        bytes
    }

    const SMALL: Budget = Budget { values: 1000, bytes: 64 * 1024 };

    fn overspent<T: DeserializeOwned>(bytes: &[u8]) -> Option<&'static str> {
        match decode_within::<T>(bytes, SMALL) {
            Err(DecodeError::OverBudget(overspent)) => Some(overspent.what),
            _ => None,
        }
    }

    #[test]
    fn values_and_bytes_of_dynamic_values_are_counted_while_they_are_decoded() {
        assert_eq!(overspent::<Value>(&list(b"\xf6", 999)), None);
        assert_eq!(overspent::<Value>(&list(b"\xf6", 1000)), Some("values"));
        let keys = |count: u16| {
            let entries = (0..count).flat_map(|key| [0x62, b'a' + (key / 26) as u8, b'a' + (key % 26) as u8, 0xf6]);
            [&[0xb9][..], &count.to_be_bytes()].concat().into_iter().chain(entries).collect::<Vec<u8>>()
        };
        let wide = Budget { bytes: 1 << 20, ..SMALL };
        assert!(decode_within::<Value>(&keys(499), wide).is_ok(), "a map, its keys and what they stand for");
        let error = decode_within::<Value>(&keys(500), wide).unwrap_err().to_string();
        assert!(error.ends_with("budget of 1000 values"), "{error}");
        assert_eq!(overspent::<BTreeMap<String, ()>>(&keys(500)), None, "what has a type is counted in bytes alone");
        assert_eq!(overspent::<Value>(&list(b"\xa1\x60\xf6", 50)), None);
        assert_eq!(overspent::<Value>(&list(b"\xa1\x60\xf6", 200)), Some("bytes"));
        let text = decode_within::<Value>(&list(b"\xa1\x60\xf6", 200), SMALL).unwrap_err().to_string();
        assert!(text.contains("budget of 65536 bytes"), "{text}");
    }

    #[test]
    fn a_budget_is_spent_before_the_rest_is_looked_at() {
        let mut bytes = list(b"\xa1\x60\xf6", 1000);
        bytes.truncate(900);
        assert_eq!(overspent::<Value>(&bytes), Some("bytes"), "what is cut off later does not matter");
    }

    #[test]
    fn types_of_ones_own_are_charged_what_they_take() {
        #[derive(Deserialize)]
        struct Wide {
            #[serde(default)]
            _all: [u64; 32],
        }
        assert_eq!(overspent::<Vec<u8>>(&list(b"\x01", 30_000)), None, "a byte each");
        assert_eq!(overspent::<Vec<u64>>(&list(b"\x01", 30_000)), Some("bytes"), "eight bytes each");
        assert_eq!(overspent::<Vec<Wide>>(&list(b"\xa0", 1000)), Some("bytes"), "256 bytes each");
        assert_eq!(overspent::<Vec<()>>(&list(b"\xf6", 50_000)), None, "nothing at all");
        assert_eq!(overspent::<Vec<BTreeMap<String, ()>>>(&list(b"\xa1\x60\xf6", 400)), Some("bytes"));
        assert_eq!(overspent::<Vec<serde::de::IgnoredAny>>(&list(b"\xa1\x60\xf6", 50_000)), None);
    }

    #[test]
    fn what_is_within_the_budget_is_decoded_as_ever() {
        #[derive(Debug, PartialEq, serde::Serialize, Deserialize)]
        enum Shape {
            Dot,
            Circle(f64),
            Box { width: u32, height: Option<u32> },
        }
        let shapes = vec![Shape::Dot, Shape::Circle(1.5), Shape::Box { width: 1, height: None }];
        let bytes = encode(&shapes).unwrap();
        assert_eq!(decode_within::<Vec<Shape>>(&bytes, SMALL).unwrap(), shapes);
        let value = json!({"a": [1, -2, 2.5, null, true, {"b": "ä"}], "z": []});
        assert_eq!(decode_within::<Value>(&encode(&value).unwrap(), SMALL).unwrap(), value);
        let nested = |depth: usize| [vec![0x81; depth], vec![0x80]].concat();
        assert!(decode_within::<Value>(&nested(MAX_DEPTH - 1), SMALL).is_ok());
        assert!(decode_within::<Value>(&nested(MAX_DEPTH), SMALL).is_err());
    }
}
