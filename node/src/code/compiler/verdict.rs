//! What the process that compiles says of the code, before the machine code: short, and bounded on both sides.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::code::{
    code_error::{CodeError, counted, shorten},
    vetting::Vetted,
};

/// The length comes first, in so many bytes, little-endian.
pub(super) const LENGTH: usize = 4;

/// The longest verdict, in bytes: the texts in it are cut before.
pub(super) const MOST: usize = 16 * 1024;

/// Why code is refused: those errors that a look at it, or the compiler, can give.
#[derive(Debug, Serialize, Deserialize)]
enum Refusal {
    NotWasm { reason: String },
    WrongWorld { reason: String },
    UnknownImport { import: String },
    TooLarge { size: u64, limit: u64 },
    TooComplex { what: String, cost: u64, limit: u64 },
    TooManyParts { what: String, count: u64, limit: u64 },
    TooHeavy { bytes: u64, limit: u64 },
    Compile { reason: String },
}

/// What was found out, and how long that took.
type Found = (Vetted, Duration);

/// Writes it, with its length.
pub(super) fn write(verdict: Result<Found, &CodeError>) -> Vec<u8> {
    let verdict = verdict.map_err(Refusal::of);
    let text = serde_json::to_vec(&verdict).unwrap_or_default();
    let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
    [&length.to_le_bytes()[..], &text].concat()
}

/// Reads it, and gives what follows.
pub(super) fn read(mut bytes: Vec<u8>) -> Option<(Result<Found, CodeError>, Vec<u8>)> {
    let (length, rest) = bytes.split_first_chunk::<LENGTH>()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok().filter(|length| *length <= MOST)?;
    let verdict: Result<Found, Refusal> = serde_json::from_slice(rest.get(..length)?).ok()?;
    bytes.drain(..LENGTH + length);
    Some((verdict.map_err(Refusal::error), bytes))
}

impl Refusal {
    fn of(error: &CodeError) -> Self {
        match error.clone() {
            CodeError::NotWasm { reason } => Self::NotWasm { reason },
            CodeError::WrongWorld { reason } => Self::WrongWorld { reason },
            CodeError::UnknownImport { import } => Self::UnknownImport { import },
            CodeError::TooLarge { size, limit } => Self::TooLarge { size, limit },
            CodeError::TooComplex { what, cost, limit } => Self::TooComplex { what: what.to_owned(), cost, limit },
            CodeError::TooManyParts { what, count, limit } => {
                Self::TooManyParts { what: what.to_owned(), count, limit }
            }
            CodeError::TooHeavy { bytes, limit } => Self::TooHeavy { bytes, limit },
            CodeError::Compile { reason } => Self::Compile { reason },
            error => Self::Compile { reason: shorten(error) },
        }
    }

    fn error(self) -> CodeError {
        match self {
            Self::NotWasm { reason } => CodeError::NotWasm { reason },
            Self::WrongWorld { reason } => CodeError::WrongWorld { reason },
            Self::UnknownImport { import } => CodeError::UnknownImport { import },
            Self::TooLarge { size, limit } => CodeError::TooLarge { size, limit },
            Self::TooComplex { what, cost, limit } => CodeError::TooComplex { what: named(&what), cost, limit },
            Self::TooManyParts { what, count, limit } => CodeError::TooManyParts { what: named(&what), count, limit },
            Self::TooHeavy { bytes, limit } => CodeError::TooHeavy { bytes, limit },
            Self::Compile { reason } => CodeError::Compile { reason },
        }
    }
}

/// What is read names nothing else.
fn named(what: &str) -> &'static str {
    counted::EACH.into_iter().find(|named| *named == what).unwrap_or("parts")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::code::vetting::{Budget, vet};

    #[test]
    fn what_was_found_comes_back_as_it_was_said_and_what_follows_is_left() {
        let vetted = Vetted { world: crate::World::Task, size: 1, cost: 2, largest: 3, instance: 4, items: 5 };
        let found = (vetted, Duration::from_micros(7));
        let bytes = [write(Ok(found)), b"native".to_vec()].concat();
        assert_eq!(read(bytes), Some((Ok(found), b"native".to_vec())));
        for what in counted::EACH {
            let error = CodeError::TooComplex { what, cost: 2, limit: 1 };
            assert_eq!(read(write(Err(&error))), Some((Err(error), Vec::new())));
        }
        let error = vet(b"\0asm", &Budget::default()).unwrap_err();
        assert_eq!(read(write(Err(&error))), Some((Err(error), Vec::new())));
        let whole = write(Ok(found));
        for end in 0..whole.len() {
            assert_eq!(read(whole[..end].to_vec()), None);
        }
        assert_eq!(read(vec![0xff; 100]), None);
    }
}
