//! Reads CBOR item by item, and refuses what JSON cannot say.

use std::{borrow::Cow, cell::Cell};

use super::{
    error::{JsonError, JsonProblem},
    to_cbor::MINUS_ZERO,
};

/// One item. The elements of a list or a map follow it.
#[derive(Debug, PartialEq)]
pub(super) enum Item<'a> {
    Null,
    Bool(bool),
    Unsigned(u64),
    /// -1 minus this.
    Negative(u64),
    MinusZero,
    Float(f64),
    Text(Cow<'a, str>),
    Bytes(Cow<'a, [u8]>),
    List(Left),
    Map(Left),
}

/// How many elements a list or a map still has: as many as it said, or until it says that it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Left(Option<u64>);

impl Left {
    /// As it was announced.
    pub(super) fn announced(self) -> Option<usize> {
        self.0.and_then(|left| usize::try_from(left).ok())
    }
}

/// Where in the bytes it is.
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: Cell<usize>,
}

const BREAK: u8 = 0xff;

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: Cell::new(0) }
    }

    pub(super) fn offset(&self) -> usize {
        self.at.get()
    }

    /// Whether nothing follows.
    pub(super) fn end(&self) -> Result<(), JsonError> {
        if self.at.get() == self.bytes.len() { Ok(()) } else { Err(self.wrong("bytes after the value")) }
    }

    /// Whether a list or a map has one more element or entry.
    pub(super) fn has_next(&self, left: &mut Left) -> Result<bool, JsonError> {
        match &mut left.0 {
            Some(0) => Ok(false),
            Some(left) => {
                *left -= 1;
                Ok(true)
            }
            None if self.bytes.get(self.at.get()) == Some(&BREAK) => {
                self.at.set(self.at.get() + 1);
                Ok(false)
            }
            None => Ok(true),
        }
    }

    /// The next item, which has to be a text.
    pub(super) fn key(&self) -> Result<Cow<'a, str>, JsonError> {
        let at = self.at.get();
        let what = match self.item()? {
            Item::Text(key) => return Ok(key),
            Item::Unsigned(_) | Item::Negative(_) => "an integer",
            Item::Bytes(_) => "a byte string",
            Item::List(_) | Item::Map(_) => "a list or a map",
            Item::Null | Item::Bool(_) | Item::Float(_) | Item::MinusZero => "no text",
        };
        Err(JsonError::new(JsonProblem::KeyNoText(what), at))
    }

    /// The next item.
    pub(super) fn item(&self) -> Result<Item<'a>, JsonError> {
        loop {
            let start = self.at.get();
            let head = self.byte()?;
            let (major, low) = (head >> 5, head & 0x1f);
            if major == 7 {
                return self.simple(low, start);
            }
            let length = self.length(low)?;
            return Ok(match (major, length) {
                (0, Some(value)) => Item::Unsigned(value),
                (1, Some(value)) => Item::Negative(value),
                (2, Some(length)) => Item::Bytes(self.take(length)?.into()),
                (2, None) => Item::Bytes(self.chunks(2)?.into()),
                (3, Some(length)) => Item::Text(self.text(length)?.into()),
                (3, None) => {
                    let text = String::from_utf8(self.chunks(3)?);
                    Item::Text(text.map_err(|_| JsonError::new(JsonProblem::NotUtf8, start))?.into())
                }
                (4, length) => Item::List(Left(length)),
                (5, length) => Item::Map(Left(length)),
                (6, Some(tag @ 2..=5)) => return Err(JsonError::new(JsonProblem::TaggedNumber(tag), start)),
                (6, Some(_)) => continue,
                _ => return Err(JsonError::new(JsonProblem::Cbor("an integer without a length"), start)),
            });
        }
    }

    fn simple(&self, low: u8, start: usize) -> Result<Item<'a>, JsonError> {
        let float = match low {
            20 | 21 => return Ok(Item::Bool(low == 21)),
            22 | 23 => return Ok(Item::Null),
            25 => half(u16::from_be_bytes(self.array()?)),
            26 => {
                let bytes: [u8; 4] = self.array()?;
                if bytes == MINUS_ZERO[1..] {
                    return Ok(Item::MinusZero);
                }
                f64::from(f32::from_be_bytes(bytes))
            }
            27 => f64::from_be_bytes(self.array()?),
            31 => return Err(JsonError::new(JsonProblem::Cbor("an end without a beginning"), start)),
            _ => return Err(JsonError::new(JsonProblem::Cbor("a simple value without a meaning"), start)),
        };
        let not_finite = |name| Err(JsonError::new(JsonProblem::NotFinite(name), start));
        match float {
            float if float.is_nan() => not_finite("NaN"),
            f64::INFINITY => not_finite("Infinity"),
            f64::NEG_INFINITY => not_finite("-Infinity"),
            float => Ok(Item::Float(float)),
        }
    }

    /// The number in the head of an item; `None` if it says that it has none.
    fn length(&self, low: u8) -> Result<Option<u64>, JsonError> {
        Ok(Some(match low {
            0..=23 => u64::from(low),
            24 => u64::from(self.byte()?),
            25 => u64::from(u16::from_be_bytes(self.array()?)),
            26 => u64::from(u32::from_be_bytes(self.array()?)),
            27 => u64::from_be_bytes(self.array()?),
            31 => return Ok(None),
            _ => return Err(self.wrong("a reserved length")),
        }))
    }

    /// The parts of a text or a byte string that came in parts.
    fn chunks(&self, major: u8) -> Result<Vec<u8>, JsonError> {
        let mut all = Vec::new();
        loop {
            let head = self.byte()?;
            if head == BREAK {
                return Ok(all);
            }
            let length = if head >> 5 == major { self.length(head & 0x1f)? } else { None };
            let length = length.ok_or_else(|| self.wrong("a part of another kind"))?;
            let part = if major == 3 { self.text(length)?.as_bytes() } else { self.take(length)? };
            all.extend_from_slice(part);
        }
    }

    fn text(&self, length: u64) -> Result<&'a str, JsonError> {
        let start = self.at.get();
        std::str::from_utf8(self.take(length)?).map_err(|_| JsonError::new(JsonProblem::NotUtf8, start))
    }

    fn take(&self, length: u64) -> Result<&'a [u8], JsonError> {
        let rest = &self.bytes[self.at.get()..];
        let length = usize::try_from(length).ok().filter(|length| *length <= rest.len());
        let length = length.ok_or_else(|| self.wrong("it ends too early"))?;
        self.at.set(self.at.get() + length);
        Ok(&rest[..length])
    }

    fn array<const N: usize>(&self) -> Result<[u8; N], JsonError> {
        let bytes = self.take(N as u64)?;
        bytes.try_into().map_err(|_| self.wrong("it ends too early"))
    }

    fn byte(&self) -> Result<u8, JsonError> {
        self.array().map(|[byte]: [u8; 1]| byte)
    }

    fn wrong(&self, what: &'static str) -> JsonError {
        JsonError::new(JsonProblem::Cbor(what), self.at.get())
    }
}

/// A float of 16 bits.
fn half(bits: u16) -> f64 {
    let (exponent, fraction) = ((bits >> 10) & 0x1f, f64::from(bits & 0x3ff));
    let size = match exponent {
        0 => fraction * 2_f64.powi(-24),
        31 if fraction == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        exponent => (fraction + 1024.0) * 2_f64.powi(i32::from(exponent) - 25),
    };
    if bits >> 15 == 1 { -size } else { size }
}
