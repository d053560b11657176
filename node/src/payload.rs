//! The one place that turns the user's values into bytes and back.
//!
//! Arguments of a call travel as a CBOR array: a tuple is a list of arguments, `()` is an empty list, and any other
//! value is a list of one. The same rule holds when they are read.

mod arguments;

use bytes::Bytes;
use multinodes_behaviour::codec;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

pub use codec::{Budget, DecodeError, EncodeError, Overspent};

use crate::json::{self, Json, JsonError};

/// An encoded value: the arguments of a call, its result, or a message.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Payload(Bytes);

impl Payload {
    /// Encodes one value: a result or a message.
    ///
    /// # Errors
    ///
    /// When the value's own `Serialize` fails.
    pub fn encode<T: Serialize>(value: &T) -> Result<Self, EncodeError> {
        Ok(Self(codec::encode(value)?.into()))
    }

    /// Encodes the arguments of a call: a tuple is a list of arguments, anything else a list of one.
    ///
    /// # Errors
    ///
    /// When the value's own `Serialize` fails.
    pub fn arguments<T: Serialize>(arguments: &T) -> Result<Self, EncodeError> {
        arguments::encode(arguments).map(|bytes| Self(bytes.into()))
    }

    /// Reads one value, within [`Budget::of_message`], 128 MiB as a rule: a small message can say a value that takes a hundred times its size.
    ///
    /// As `serde_json::Value`, NaN and the infinities become null, and of a key that stands twice the last value counts:
    /// [`to_json`](Self::to_json) refuses both.
    ///
    /// # Errors
    ///
    /// When the bytes are not CBOR, the value is of another type, or it takes more memory than the budget has.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, DecodeError> {
        self.decode_within(Budget::of_message(self.0.len()))
    }

    /// Reads one value within a budget of one's own.
    ///
    /// # Errors
    ///
    /// As [`decode`](Self::decode).
    pub fn decode_within<T: DeserializeOwned>(&self, budget: Budget) -> Result<T, DecodeError> {
        codec::decode_within(&self.0, budget)
    }

    /// Reads the arguments of a call: into a tuple as they are, into anything else if there is exactly one.
    ///
    /// # Errors
    ///
    /// When the number or a type of the arguments is another one.
    pub fn decode_arguments<T: DeserializeOwned>(&self) -> Result<T, ArgumentsError> {
        self.decode_arguments_within(Budget::of_message(self.0.len()))
    }

    pub(crate) fn decode_arguments_within<T: DeserializeOwned>(&self, budget: Budget) -> Result<T, ArgumentsError> {
        arguments::decode(&self.0, budget).map(|(arguments, _)| arguments)
    }

    /// The arguments of a call, and about how many bytes they take in memory beside their own type.
    pub(crate) fn weigh_arguments<T: DeserializeOwned>(&self) -> Result<(T, usize), ArgumentsError> {
        arguments::decode(&self.0, Budget::of_message(self.0.len()))
    }

    /// The only argument as it came, not looked at.
    pub(crate) fn single_argument(&self) -> Result<Self, ArgumentsError> {
        arguments::single(&self.0).map(|argument| Self(self.0.slice_ref(argument)))
    }

    /// Takes bytes that are CBOR already.
    #[must_use]
    pub fn from_bytes(bytes: impl Into<Bytes>) -> Self {
        Self(bytes.into())
    }

    /// The encoded bytes.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        self.0
    }

    pub(crate) fn bytes(&self) -> &Bytes {
        &self.0
    }

    /// The encoded bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Makes what a JSON text says, exactly. See [`json`](mod@crate::json).
    ///
    /// # Errors
    ///
    /// The text is not JSON, or it says something that CBOR cannot give back.
    pub fn from_json(text: &[u8]) -> Result<Self, JsonError> {
        let mut bytes = Vec::new();
        json::append(text, &mut bytes)?;
        Ok(Self(bytes.into()))
    }

    /// Makes the arguments of a call, each of them given as a JSON text.
    ///
    /// # Errors
    ///
    /// As [`from_json`](Self::from_json), with the place of the argument, from 0.
    pub fn arguments_from_json<T: AsRef<[u8]>>(texts: &[T]) -> Result<Self, (usize, JsonError)> {
        let mut bytes = arguments::list_of(texts.len());
        for (place, text) in texts.iter().enumerate() {
            json::append_argument(text.as_ref(), &mut bytes).map_err(|error| (place, error))?;
        }
        Ok(Self(bytes.into()))
    }

    /// Whatever value it is, to be written as JSON without being decoded. See [`json`](mod@crate::json).
    ///
    /// # Errors
    ///
    /// The bytes are not CBOR, or JSON cannot say them.
    pub fn json(&self) -> Result<Json<'_>, JsonError> {
        Json::of(&self.0)
    }

    /// Reads whatever value it is as JSON, within [`Budget::of_message`]. Byte strings become arrays of numbers.
    ///
    /// # Errors
    ///
    /// The bytes are not CBOR, JSON cannot say them, or as values they take more memory than the budget has.
    pub fn to_json(&self) -> Result<Value, JsonError> {
        self.to_json_within(Budget::of_message(self.0.len()))
    }

    /// Like [`to_json`](Self::to_json), within a budget of one's own.
    ///
    /// # Errors
    ///
    /// As [`to_json`](Self::to_json).
    pub fn to_json_within(&self, budget: Budget) -> Result<Value, JsonError> {
        Json::value(&self.0, budget)
    }
}

/// Arguments that an action does not take.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArgumentsError {
    /// There are more or fewer than the action takes.
    #[error("takes {expected} argument{}, {given} given", if *.expected == 1 { "" } else { "s" })]
    Count {
        /// How many the action takes.
        expected: usize,
        /// How many there are.
        given: usize,
    },
    /// They take too much memory.
    #[error("arguments too large: {0}")]
    OverBudget(#[from] Overspent),
    /// One of them is of another type.
    #[error("arguments of another type: {0}")]
    Type(#[from] serde_cbor::Error),
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn there_and_back<T: Serialize, R: DeserializeOwned>(arguments: &T) -> Result<R, String> {
        Payload::arguments(arguments).unwrap().decode_arguments().map_err(|error| error.to_string())
    }

    #[test]
    fn tuples_are_argument_lists_and_single_values_lists_of_one() {
        assert_eq!(Payload::arguments(&(1, 2)).unwrap().to_json().unwrap(), json!([1, 2]));
        assert_eq!(Payload::arguments(&"one").unwrap().to_json().unwrap(), json!(["one"]));
        assert_eq!(Payload::arguments(&vec![1, 2]).unwrap().to_json().unwrap(), json!([[1, 2]]));
        assert_eq!(Payload::arguments(&json!([1, 2])).unwrap().to_json().unwrap(), json!([[1, 2]]));
        assert_eq!(Payload::arguments(&json!({"a": 1})).unwrap().to_json().unwrap(), json!([{"a": 1}]));
        assert_eq!(Payload::arguments(&()).unwrap().to_json().unwrap(), json!([]));
        assert_eq!(Payload::arguments(&Some(1)).unwrap().to_json().unwrap(), json!([1]));
    }

    #[test]
    fn arguments_are_read_by_the_same_rule() {
        assert_eq!(there_and_back::<_, (i64, i64)>(&(1, 2)), Ok((1, 2)));
        assert_eq!(there_and_back::<_, i64>(&(7,)), Ok(7));
        assert_eq!(there_and_back::<_, (i64,)>(&7), Ok((7,)));
        assert_eq!(there_and_back::<_, Vec<i64>>(&vec![1, 2]), Ok(vec![1, 2]));
        assert_eq!(there_and_back::<_, ()>(&()), Ok(()));
        assert_eq!(there_and_back::<_, Value>(&"x"), Ok(json!("x")));
        assert_eq!(there_and_back::<_, Option<i64>>(&Some(1)), Ok(Some(1)));
        assert_eq!(there_and_back::<_, f64>(&1), Ok(1.0));
        assert_eq!(there_and_back::<_, (String, Vec<u8>)>(&("a", vec![1_u8])), Ok(("a".into(), vec![1])));
    }

    #[test]
    fn a_wrong_number_of_arguments_is_named() {
        assert_eq!(there_and_back::<_, (i64, i64)>(&(1, 2, 3)), Err("takes 2 arguments, 3 given".into()));
        assert_eq!(there_and_back::<_, i64>(&(1, 2)), Err("takes 1 argument, 2 given".into()));
        assert_eq!(there_and_back::<_, ()>(&1), Err("takes 0 arguments, 1 given".into()));
        assert!(there_and_back::<_, (i64, i64)>(&("a", 1)).unwrap_err().starts_with("arguments of another type"));
    }

    #[test]
    fn lists_of_unknown_length_from_other_languages_are_understood() {
        let payload = Payload::from_bytes(vec![0x9f, 0x01, 0x02, 0xff]);
        assert_eq!(payload.decode_arguments::<(i64, i64)>().unwrap(), (1, 2));
        let long = [vec![0x9f], vec![0x01; 1000], vec![0xff]].concat();
        assert!(matches!(
            Payload::from_bytes(long).decode_arguments::<i64>(),
            Err(ArgumentsError::Count { expected: 1, given: 1000 })
        ));
        for one in [&b"\x9f\x82\x01\x02\xff"[..], b"\x81\x82\x01\x02", b"\x98\x01\x82\x01\x02"] {
            let payload = Payload::from_bytes(one);
            assert_eq!(payload.decode_arguments::<Vec<i64>>().unwrap(), [1, 2]);
            assert_eq!(payload.single_argument().unwrap().as_bytes(), b"\x82\x01\x02");
        }
        assert!(Payload::from_bytes(vec![0x01]).decode_arguments::<i64>().is_err());
        assert!(
            Payload::from_bytes(vec![0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]).single_argument().is_err()
        );
        assert!(Payload::from_bytes(vec![]).decode_arguments::<i64>().is_err());
    }
}
