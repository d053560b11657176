//! Tells argument lists from single values, by looking at what a value serialises as.

use std::fmt;

use multinodes_behaviour::codec::{self, Budget, EncodeError, Meter, Metered};
use serde::{
    Deserializer, Serialize, Serializer,
    de::{DeserializeOwned, IgnoredAny, Visitor},
    ser::Impossible,
};

use super::ArgumentsError;

/// A CBOR array of one element begins with this byte.
const LIST_OF_ONE: u8 = 0x81;
const EMPTY_LIST: u8 = 0x80;

/// The heads of longer lists, by how many bytes their length has; and of those that say it by their end.
const LIST_OF_8_BITS: u8 = 0x98;
const LIST_OF_64_BITS: u8 = 0x9b;
const ENDLESS_LIST: u8 = 0x9f;

pub(super) fn encode<T: Serialize>(arguments: &T) -> Result<Vec<u8>, EncodeError> {
    match arguments.serialize(Probe) {
        Err(Shape::List) => codec::encode(arguments),
        Err(Shape::Unit) => Ok(vec![EMPTY_LIST]),
        Ok(()) | Err(Shape::Single) => {
            let mut bytes = vec![LIST_OF_ONE];
            codec::append(arguments, &mut bytes)?;
            Ok(bytes)
        }
    }
}

/// The head of a list of so many arguments.
pub(super) fn list_of(count: usize) -> Vec<u8> {
    match u8::try_from(count) {
        Ok(count @ 0..=23) => vec![EMPTY_LIST + count],
        Ok(count) => vec![LIST_OF_8_BITS, count],
        Err(_) => [&[LIST_OF_64_BITS][..], &(count as u64).to_be_bytes()].concat(),
    }
}

/// The arguments, and what they take in memory.
pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8], budget: Budget) -> Result<(T, usize), ArgumentsError> {
    let meter = Meter::new(budget);
    let list = List::of(bytes, &meter)?;
    T::deserialize(list).map(|arguments| (arguments, meter.spent())).map_err(|error| match (meter.overspent(), error) {
        (Some(overspent), _) => overspent.into(),
        (None, ListError::Count(expected)) => ArgumentsError::Count { expected, given: list.count },
        (None, ListError::Type(error)) => ArgumentsError::Type(error),
    })
}

/// The bytes of the only argument.
pub(super) fn single(bytes: &[u8]) -> Result<&[u8], ArgumentsError> {
    // Nothing of it is decoded.
    let meter = Meter::new(Budget { values: 0, bytes: 0 });
    let list = List::of(bytes, &meter)?;
    list.single().map_err(|_| ArgumentsError::Count { expected: 1, given: list.count })
}

#[derive(Clone, Copy)]
struct List<'a, 'm> {
    bytes: &'a [u8],
    /// The elements alone.
    elements: &'a [u8],
    count: usize,
    meter: &'m Meter,
}

impl<'a, 'm> List<'a, 'm> {
    fn of(bytes: &'a [u8], meter: &'m Meter) -> Result<Self, serde_cbor::Error> {
        let (elements, count) = match bytes {
            [head @ 0x80..=0x97, elements @ ..] => (elements, usize::from(head - EMPTY_LIST)),
            [head @ LIST_OF_8_BITS..=LIST_OF_64_BITS, rest @ ..] => {
                let length = 1 << (head - LIST_OF_8_BITS);
                let (length, elements) = rest.split_at_checked(length).unwrap_or_default();
                let count = length.iter().fold(0, |count, byte| count << 8 | u64::from(*byte));
                (elements, usize::try_from(count).unwrap_or(usize::MAX))
            }
            // They are passed over one by one; nothing is kept of them.
            [ENDLESS_LIST, elements @ .., _] => (elements, serde_cbor::from_slice::<Vec<IgnoredAny>>(bytes)?.len()),
            other => return Err(serde_cbor::from_slice::<Vec<IgnoredAny>>(other).err().unwrap_or_else(no_list)),
        };
        // Each has a byte at the least.
        if count > elements.len() {
            return Err(serde_cbor::from_slice::<Vec<IgnoredAny>>(bytes).err().unwrap_or_else(no_list));
        }
        Ok(Self { bytes, elements, count, meter })
    }

    fn single(&self) -> Result<&'a [u8], ListError> {
        if self.count == 1 { Ok(self.elements) } else { Err(ListError::Count(1)) }
    }

    fn read<T>(
        &self,
        bytes: &'a [u8],
        read: impl FnOnce(
            Metered<'m, &mut serde_cbor::Deserializer<serde_cbor::de::SliceRead<'a>>>,
        ) -> serde_cbor::Result<T>,
    ) -> Result<T, ListError> {
        let mut cbor = serde_cbor::Deserializer::from_slice(bytes);
        let value = read(self.meter.watch(&mut cbor))?;
        cbor.end()?;
        Ok(value)
    }
}

fn no_list() -> serde_cbor::Error {
    serde::de::Error::custom("no list")
}

macro_rules! read_single {
    ($($method:ident)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ListError> {
            self.read(self.single()?, |cbor| cbor.$method(visitor))
        })*
    };
}

impl<'de> Deserializer<'de> for List<'de, '_> {
    type Error = ListError;

    read_single! {
        deserialize_any deserialize_bool deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64
        deserialize_i128 deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128
        deserialize_f32 deserialize_f64 deserialize_char deserialize_str deserialize_string deserialize_bytes
        deserialize_byte_buf deserialize_option deserialize_seq deserialize_map deserialize_identifier
        deserialize_ignored_any
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ListError> {
        if self.count == 0 { visitor.visit_unit() } else { Err(ListError::Count(0)) }
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value, ListError> {
        if self.count != length {
            return Err(ListError::Count(length));
        }
        self.read(self.bytes, |cbor| cbor.deserialize_tuple(length, visitor))
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, ListError> {
        self.read(self.single()?, |cbor| cbor.deserialize_unit_struct(name, visitor))
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, ListError> {
        self.read(self.single()?, |cbor| cbor.deserialize_newtype_struct(name, visitor))
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, ListError> {
        self.read(self.single()?, |cbor| cbor.deserialize_tuple_struct(name, length, visitor))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ListError> {
        self.read(self.single()?, |cbor| cbor.deserialize_struct(name, fields, visitor))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ListError> {
        self.read(self.single()?, |cbor| cbor.deserialize_enum(name, variants, visitor))
    }
}

#[derive(Debug)]
enum ListError {
    Count(usize),
    Type(serde_cbor::Error),
}

impl From<serde_cbor::Error> for ListError {
    fn from(error: serde_cbor::Error) -> Self {
        Self::Type(error)
    }
}

impl fmt::Display for ListError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => write!(formatter, "takes {count} arguments"),
            Self::Type(error) => error.fmt(formatter),
        }
    }
}

impl std::error::Error for ListError {}

impl serde::de::Error for ListError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::Type(serde::de::Error::custom(message))
    }
}

/// What a value serialises as. It is given as the probe's error, because nothing more is to be serialised.
#[derive(Debug, PartialEq, Eq)]
enum Shape {
    List,
    Unit,
    Single,
}

impl fmt::Display for Shape {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, formatter)
    }
}

impl std::error::Error for Shape {}

impl serde::ser::Error for Shape {
    fn custom<T: fmt::Display>(_: T) -> Self {
        // The value's own failure shows again when it is really encoded.
        Self::Single
    }
}

struct Probe;

macro_rules! single {
    ($($method:ident($type:ty))*) => {
        $(fn $method(self, _: $type) -> Result<(), Shape> {
            Err(Shape::Single)
        })*
    };
}

impl Serializer for Probe {
    type Ok = ();
    type Error = Shape;
    type SerializeSeq = Impossible<(), Shape>;
    type SerializeTuple = Impossible<(), Shape>;
    type SerializeTupleStruct = Impossible<(), Shape>;
    type SerializeTupleVariant = Impossible<(), Shape>;
    type SerializeMap = Impossible<(), Shape>;
    type SerializeStruct = Impossible<(), Shape>;
    type SerializeStructVariant = Impossible<(), Shape>;

    single! {
        serialize_bool(bool) serialize_i8(i8) serialize_i16(i16) serialize_i32(i32) serialize_i64(i64)
        serialize_i128(i128) serialize_u8(u8) serialize_u16(u16) serialize_u32(u32) serialize_u64(u64)
        serialize_u128(u128) serialize_f32(f32) serialize_f64(f64) serialize_char(char) serialize_str(&str)
        serialize_bytes(&[u8]) serialize_unit_struct(&'static str)
    }

    fn serialize_unit(self) -> Result<(), Shape> {
        Err(Shape::Unit)
    }

    fn serialize_tuple(self, _: usize) -> Result<Self::SerializeTuple, Shape> {
        Err(Shape::List)
    }

    fn serialize_none(self) -> Result<(), Shape> {
        Err(Shape::Single)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, _: &T) -> Result<(), Shape> {
        Err(Shape::Single)
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, _: &'static str) -> Result<(), Shape> {
        Err(Shape::Single)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, _: &T) -> Result<(), Shape> {
        Err(Shape::Single)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Result<(), Shape> {
        Err(Shape::Single)
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Self::SerializeSeq, Shape> {
        Err(Shape::Single)
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Self::SerializeTupleStruct, Shape> {
        Err(Shape::Single)
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleVariant, Shape> {
        Err(Shape::Single)
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Self::SerializeMap, Shape> {
        Err(Shape::Single)
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Self::SerializeStruct, Shape> {
        Err(Shape::Single)
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeStructVariant, Shape> {
        Err(Shape::Single)
    }
}
