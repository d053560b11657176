//! JSON to CBOR. A text is read twice: what CBOR writes before the elements of a list, and how long all of it becomes, is
//! known only after the first time. So nothing is moved, and nothing grows.

use multinodes_behaviour::codec;

use super::{
    error::{JsonError, JsonProblem},
    keys::Keys,
    number::Number,
    read::{Care, Kind, Reader, Sink},
};

/// Appends the value that a JSON text says.
pub(crate) fn append(text: &[u8], bytes: &mut Vec<u8>) -> Result<(), JsonError> {
    append_at(text, 0, bytes)
}

/// Appends a value that will be within a list.
pub(crate) fn append_argument(text: &[u8], bytes: &mut Vec<u8>) -> Result<(), JsonError> {
    append_at(text, 1, bytes)
}

fn append_at(text: &[u8], depth: usize, bytes: &mut Vec<u8>) -> Result<(), JsonError> {
    if u32::try_from(text.len()).is_err() {
        return Err(JsonError::new(JsonProblem::TooLong, 0));
    }
    let mut measured = Measure::default();
    Reader::new(text, depth, Care::Exact)?.all(&mut measured)?;
    let Measure { counts, size, .. } = measured;
    bytes.reserve_exact(size);
    Reader::new(text, depth, Care::Rounded)?.all(&mut Write { counts: counts.into_iter(), bytes })
}

/// The first reading: how long each list and object is, and all of it.
#[derive(Default)]
struct Measure {
    /// In the order in which they begin.
    counts: Vec<u32>,
    /// Those that are open.
    open: Vec<usize>,
    size: usize,
    keys: Keys,
    scratch: Vec<u8>,
}

impl Sink for Measure {
    fn null(&mut self) {
        self.size += 1;
    }

    fn bool(&mut self, _: bool) {
        self.size += 1;
    }

    fn number(&mut self, number: Number) {
        self.scratch.clear();
        write_number(number, &mut self.scratch);
        self.size += self.scratch.len();
    }

    fn text(&mut self, text: &str) {
        self.size += head_length(text.len() as u64) + text.len();
    }

    fn key(&mut self, key: &str) -> bool {
        self.text(key);
        self.keys.insert(key)
    }

    fn open(&mut self, kind: Kind) {
        self.open.push(self.counts.len());
        self.counts.push(0);
        if kind == Kind::Object {
            self.keys.open();
        }
    }

    fn close(&mut self, kind: Kind, count: usize) {
        self.size += head_length(count as u64);
        if let Some(index) = self.open.pop() {
            // A text of less than 4 GiB has no more.
            self.counts[index] = u32::try_from(count).unwrap_or(u32::MAX);
        }
        if kind == Kind::Object {
            self.keys.close();
        }
    }
}

/// The second reading.
struct Write<'a> {
    counts: std::vec::IntoIter<u32>,
    bytes: &'a mut Vec<u8>,
}

impl Sink for Write<'_> {
    fn null(&mut self) {
        self.bytes.push(NULL);
    }

    fn bool(&mut self, value: bool) {
        self.bytes.push(if value { TRUE } else { FALSE });
    }

    fn number(&mut self, number: Number) {
        write_number(number, self.bytes);
    }

    fn text(&mut self, text: &str) {
        write_head(TEXT, text.len() as u64, self.bytes);
        self.bytes.extend_from_slice(text.as_bytes());
    }

    fn key(&mut self, key: &str) -> bool {
        self.text(key);
        true
    }

    fn open(&mut self, kind: Kind) {
        let count = u64::from(self.counts.next().unwrap_or_default());
        write_head(if kind == Kind::List { LIST } else { MAP }, count, self.bytes);
    }
}

fn write_number(number: Number, bytes: &mut Vec<u8>) {
    match number {
        Number::Unsigned(value) => write_head(UNSIGNED, value, bytes),
        Number::Negative(value) => write_head(NEGATIVE, value, bytes),
        Number::MinusZero => bytes.extend_from_slice(&MINUS_ZERO),
        Number::Float(value) => {
            // As short as it can be, which is how all payloads are written. A float can always be encoded.
            let _ = codec::append(&value, bytes);
        }
    }
}

fn write_head(major: u8, value: u64, bytes: &mut Vec<u8>) {
    let [.., a, b, c, d] = value.to_be_bytes();
    match value {
        0..=0x17 => bytes.push(major | d),
        0x18..=0xff => bytes.extend_from_slice(&[major | 0x18, d]),
        0x100..=0xffff => bytes.extend_from_slice(&[major | 0x19, c, d]),
        0x1_0000..=0xffff_ffff => bytes.extend_from_slice(&[major | 0x1a, a, b, c, d]),
        _ => {
            bytes.push(major | 0x1b);
            bytes.extend_from_slice(&value.to_be_bytes());
        }
    }
}

fn head_length(value: u64) -> usize {
    match value {
        0..=0x17 => 1,
        0x18..=0xff => 2,
        0x100..=0xffff => 3,
        0x1_0000..=0xffff_ffff => 5,
        _ => 9,
    }
}

/// The major types, in their place.
const UNSIGNED: u8 = 0 << 5;
const NEGATIVE: u8 = 1 << 5;
const TEXT: u8 = 3 << 5;
const LIST: u8 = 4 << 5;
const MAP: u8 = 5 << 5;
const FALSE: u8 = 0xf4;
const TRUE: u8 = 0xf5;
const NULL: u8 = 0xf6;

/// The integer `-0` of JSON: a float of 32 bits, as which no float is written that says the same in 16.
pub(super) const MINUS_ZERO: [u8; 5] = [0xfa, 0x80, 0, 0, 0];
