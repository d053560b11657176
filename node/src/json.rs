//! JSON, exactly: what is made of a JSON text, and the JSON text that is made of it again, say the same, or it is refused
//! and the error names what cannot be kept. Nothing is turned into values on the way, so that a text of a few bytes does
//! not become a hundred times as much in memory.
//!
//! ```text
//!  JSON text ── read.rs ──▶ to_cbor.rs ──▶ Payload ── cbor.rs ──▶ Json ──▶ JSON text, or a serde_json::Value
//!               number.rs, keys.rs: what is exact                 from_cbor.rs
//! ```
//!
//! Integers of 64 bits (and negative ones down to -2^64) stay integers, `1.0` stays a float, `-0` stays `-0`. Refused are
//! larger integers, numbers that a 64-bit float cannot give back, lone surrogates, keys that stand twice in one object,
//! nesting deeper than [`MAX_DEPTH`], and of CBOR: NaN and the infinities, keys that are no text, and numbers of more than
//! 64 bits (tags 2 to 5). What only CBOR has besides is written as JSON has it: byte strings as lists of numbers,
//! `undefined` as `null`, and of what has any other tag the content.

mod cbor;
mod error;
mod from_cbor;
mod keys;
mod number;
mod read;
mod to_cbor;

pub use multinodes_behaviour::codec::MAX_DEPTH;

pub(crate) use self::to_cbor::{append, append_argument};
pub use self::{
    error::{JsonError, JsonProblem},
    from_cbor::{Exact, Json},
    read::members,
};

#[cfg(test)]
mod tests;
