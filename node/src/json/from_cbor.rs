//! CBOR to JSON, as it is written.

use std::{cell::RefCell, fmt, io};

use multinodes_behaviour::codec::{self, Budget, Meter, Overspent};
use serde::{
    Serialize, Serializer,
    ser::{Error, SerializeMap, SerializeSeq},
};
use serde_json::{
    Value,
    ser::{CompactFormatter, Formatter},
};

use super::{
    MAX_DEPTH,
    cbor::{Item, Reader},
    error::{JsonError, JsonProblem, shown},
    keys::Keys,
};

/// A payload that JSON can say. It is written, as JSON or as whatever `serde` can write, without making values of it; its
/// keys keep their order.
#[derive(Clone, Copy)]
pub struct Json<'a>(&'a [u8]);

impl<'a> Json<'a> {
    /// Looks at all of it.
    pub(crate) fn of(bytes: &'a [u8]) -> Result<Self, JsonError> {
        check(bytes, None).map(|()| Self(bytes))
    }

    /// Appends it as JSON text, with the room that it takes and a little for what follows.
    ///
    /// # Panics
    ///
    /// Never: it was looked at before.
    pub fn append_to(self, text: &mut Vec<u8>) {
        if self.0.len() > SMALL {
            let mut length = Length(0);
            self.write_to(&mut length).expect("what was checked can be written");
            text.reserve_exact(length.0 + FOLLOWING);
        }
        self.write_to(text).expect("what was checked can be written to memory");
    }

    /// It as JSON text, on one line.
    #[must_use]
    pub fn to_text(self) -> Vec<u8> {
        let mut text = Vec::new();
        self.append_to(&mut text);
        text
    }

    /// Writes it as JSON text, on one line, piece by piece: give it a writer with a buffer.
    ///
    /// # Errors
    ///
    /// Those of the writer.
    pub fn write_to(self, writer: impl io::Write) -> io::Result<()> {
        let mut serializer = serde_json::Serializer::with_formatter(writer, Exact(CompactFormatter));
        Ok(self.serialize(&mut serializer)?)
    }

    /// The only element of a list; itself if it is none.
    #[must_use]
    pub fn only_element(self) -> Self {
        match self.0 {
            [LIST_OF_ONE, element @ ..] => Self(element),
            _ => self,
        }
    }

    /// It as values, if these are within a budget.
    pub(crate) fn value(bytes: &'a [u8], budget: Budget) -> Result<Value, JsonError> {
        let meter = Meter::new(budget);
        check(bytes, Some(&meter))?;
        // The only thing that is left is an integer below -2^63.
        serde_json::to_value(Self(bytes))
            .map_err(|_| JsonError::new(JsonProblem::LargeInteger("below -9223372036854775808".to_owned()), 0))
    }
}

/// How such a list begins, as it is written here.
const LIST_OF_ONE: u8 = 0x81;

/// Room for what is written behind it: an array that is full would be doubled.
const FOLLOWING: usize = 256;

/// Texts that are shorter, as CBOR, may grow while they are written.
const SMALL: usize = 64 * 1024;

/// Only counts what is written.
struct Length(usize);

impl io::Write for Length {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Debug for Json<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl fmt::Display for Json<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&String::from_utf8_lossy(&self.to_text()))
    }
}

impl Serialize for Json<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Next(&Reader::new(self.0)).serialize(serializer)
    }
}

/// The next item of a reader.
struct Next<'r, 'a>(&'r Reader<'a>);

impl Serialize for Next<'_, '_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.item().map_err(Error::custom)? {
            Item::Null => serializer.serialize_unit(),
            Item::Bool(value) => serializer.serialize_bool(value),
            Item::Unsigned(value) => serializer.serialize_u64(value),
            Item::Negative(value) => match i64::try_from(value) {
                Ok(value) => serializer.serialize_i64(-1 - value),
                Err(_) => serializer.serialize_i128(-1 - i128::from(value)),
            },
            // See `Exact`.
            Item::MinusZero => serializer.serialize_f32(-0.0),
            Item::Float(value) => serializer.serialize_f64(value),
            Item::Text(text) => serializer.serialize_str(&text),
            Item::Bytes(bytes) => serializer.collect_seq(bytes.iter()),
            Item::List(mut left) => {
                let mut list = serializer.serialize_seq(left.announced())?;
                while self.0.has_next(&mut left).map_err(Error::custom)? {
                    list.serialize_element(self)?;
                }
                list.end()
            }
            Item::Map(mut left) => {
                let mut map = serializer.serialize_map(left.announced())?;
                while self.0.has_next(&mut left).map_err(Error::custom)? {
                    map.serialize_key(&*self.0.key().map_err(Error::custom)?)?;
                    map.serialize_value(self)?;
                }
                map.end()
            }
        }
    }
}

/// Writes JSON as another formatter does, and the integer `-0` as such.
#[derive(Debug, Clone, Default)]
pub struct Exact<F>(pub F);

macro_rules! forward {
    ($($method:ident($($argument:ident: $type:ty),*))*) => {
        $(fn $method<W: ?Sized + io::Write>(&mut self, writer: &mut W, $($argument: $type),*) -> io::Result<()> {
            self.0.$method(writer, $($argument),*)
        })*
    };
}

impl<F: Formatter> Formatter for Exact<F> {
    /// The only floats of 32 bits that [`Json`] has are this.
    fn write_f32<W: ?Sized + io::Write>(&mut self, writer: &mut W, value: f32) -> io::Result<()> {
        if value == 0.0 && value.is_sign_negative() { writer.write_all(b"-0") } else { self.0.write_f32(writer, value) }
    }

    forward! {
        begin_array() end_array() begin_array_value(first: bool) end_array_value()
        begin_object() end_object() begin_object_key(first: bool) end_object_key() begin_object_value()
        end_object_value()
    }
}

/// Looks whether JSON can say it, and what it takes as values.
fn check(bytes: &[u8], meter: Option<&Meter>) -> Result<(), JsonError> {
    let reader = Reader::new(bytes);
    let check = Check { reader: &reader, meter, keys: RefCell::default() };
    check.value(0)?;
    reader.end()
}

struct Check<'r, 'a> {
    reader: &'r Reader<'a>,
    meter: Option<&'r Meter>,
    keys: RefCell<Keys>,
}

impl Check<'_, '_> {
    fn value(&self, depth: usize) -> Result<(), JsonError> {
        self.charge(|meter| meter.value())?;
        let at = self.reader.offset();
        match self.reader.item()? {
            Item::List(_) | Item::Map(_) if depth >= MAX_DEPTH => Err(JsonError::new(JsonProblem::Depth, at)),
            Item::List(mut left) => {
                let mut list = codec::List::default();
                while self.reader.has_next(&mut left)? {
                    self.charge(|meter| list.grow(meter, VALUE))?;
                    self.value(depth + 1)?;
                }
                Ok(())
            }
            Item::Map(left) => {
                self.keys.borrow_mut().open();
                self.entries(left, depth)?;
                self.keys.borrow_mut().close();
                Ok(())
            }
            Item::Text(text) => self.charge(|meter| meter.text(text.len())),
            Item::Bytes(bytes) => self.charge(|meter| {
                let mut list = codec::List::default();
                bytes.iter().try_for_each(|_| meter.value().and_then(|()| list.grow(meter, VALUE)))
            }),
            _ => Ok(()),
        }
    }

    fn entries(&self, mut left: super::cbor::Left, depth: usize) -> Result<(), JsonError> {
        let mut map = codec::Map::default();
        while self.reader.has_next(&mut left)? {
            self.charge(|meter| map.grow(meter, ENTRY))?;
            let at = self.reader.offset();
            let key = self.reader.key()?;
            self.charge(|meter| meter.value().and_then(|()| meter.text(key.len())))?;
            if !self.keys.borrow_mut().insert(&key) {
                return Err(JsonError::new(JsonProblem::SameKey(shown(&key)), at));
            }
            self.value(depth + 1)?;
        }
        Ok(())
    }

    fn charge(&self, charge: impl FnOnce(&Meter) -> Result<(), Overspent>) -> Result<(), JsonError> {
        let Some(meter) = self.meter else { return Ok(()) };
        charge(meter).map_err(|overspent| JsonError::new(overspent.into(), self.reader.offset()))
    }
}

/// What a value takes in a list.
const VALUE: usize = size_of::<Value>();

/// What a key and its value take in a map.
const ENTRY: usize = size_of::<String>() + VALUE;
