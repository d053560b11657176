//! JSON values that keep the order of their keys, and items made of them.

use std::fmt;

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{MapAccess, SeqAccess, Visitor},
    ser::{SerializeMap, SerializeTuple},
};

/// A JSON value. Unlike `serde_json`'s own it is written with its keys in the order in which they were read, so that
/// people find again what they have sent. Byte strings, which only CBOR has, become lists of numbers.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) enum Json {
    #[default]
    Null,
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Text(String),
    List(Vec<Json>),
    Object(Vec<(String, Json)>),
}

/// One item of the input: the arguments of a call.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Item {
    /// One argument.
    One(Json),
    /// All arguments.
    All(Vec<Json>),
}

impl Serialize for Item {
    /// As a tuple, so that it is a list of arguments whatever the values are.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let arguments = match self {
            Self::One(argument) => std::slice::from_ref(argument),
            Self::All(arguments) => arguments,
        };
        let mut list = serializer.serialize_tuple(arguments.len())?;
        arguments.iter().try_for_each(|argument| list.serialize_element(argument))?;
        list.end()
    }
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Unsigned(value) => serializer.serialize_u64(*value),
            Self::Signed(value) => serializer.serialize_i64(*value),
            Self::Float(value) => serializer.serialize_f64(*value),
            Self::Text(value) => serializer.serialize_str(value),
            Self::List(values) => values.serialize(serializer),
            Self::Object(entries) => {
                let mut object = serializer.serialize_map(Some(entries.len()))?;
                entries.iter().try_for_each(|(key, value)| object.serialize_entry(key, value))?;
                object.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Json;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a value that JSON has")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_none<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Json, D::Error> {
        Json::deserialize(deserializer)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Json, D::Error> {
        Json::deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(Json::Unsigned(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(Json::Signed(value))
    }

    /// CBOR has negative integers below those of 64 bits; most readers of JSON make such a number a float.
    fn visit_i128<E>(self, value: i128) -> Result<Json, E> {
        Ok(Json::Float(value as f64))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Json, E> {
        Ok(Json::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Json, E> {
        Ok(Json::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Json, E> {
        Ok(Json::Text(value))
    }

    fn visit_bytes<E>(self, value: &[u8]) -> Result<Json, E> {
        Ok(Json::List(value.iter().map(|byte| Json::Unsigned(u64::from(*byte))).collect()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Json, A::Error> {
        let mut values = Vec::with_capacity(list.size_hint().unwrap_or(0).min(BELIEVED));
        while let Some(value) = list.next_element()? {
            values.push(value);
        }
        Ok(Json::List(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Json, A::Error> {
        let mut entries = Vec::with_capacity(object.size_hint().unwrap_or(0).min(BELIEVED));
        while let Some(entry) = object.next_entry()? {
            entries.push(entry);
        }
        Ok(Json::Object(entries))
    }
}

/// So many elements are made room for because their number was announced.
const BELIEVED: usize = 64;

#[cfg(test)]
mod tests {
    use multinodes::Payload;

    use super::*;

    fn read(text: &str) -> Json {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn a_value_comes_back_as_it_was_with_its_keys_in_order() {
        for text in [
            "null",
            "true",
            "18446744073709551615",
            "-9223372036854775808",
            "0.10000000149011612",
            "1.5",
            "\"Grüße\\n\"",
            "[1,[],{}]",
            "{\"z\":1,\"a\":{\"y\":[null],\"b\":2.25}}",
        ] {
            let payload = Payload::encode(&read(text)).unwrap();
            let back: Json = payload.decode().unwrap();
            assert_eq!(serde_json::to_string(&back).unwrap(), text);
        }
    }

    #[test]
    fn an_item_is_a_list_of_arguments_whatever_it_holds() {
        let arguments = |item: &Item| Payload::arguments(item).unwrap().to_json().unwrap().to_string();
        assert_eq!(arguments(&Item::One(Json::Null)), "[null]");
        assert_eq!(arguments(&Item::One(read("[1,2]"))), "[[1,2]]");
        assert_eq!(arguments(&Item::All(vec![read("1"), read("[2]")])), "[1,[2]]");
        assert_eq!(arguments(&Item::All(Vec::new())), "[]");
    }

    #[test]
    fn what_only_cbor_has_becomes_what_json_has() {
        let bytes = Payload::from_bytes(vec![0x42, 0x01, 0xff]);
        assert_eq!(bytes.decode::<Json>().unwrap(), read("[1,255]"));
        let not_a_number = Payload::encode(&f64::NAN).unwrap().decode::<Json>().unwrap();
        assert_eq!(serde_json::to_string(&not_a_number).unwrap(), "null");
    }
}
