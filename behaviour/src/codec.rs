//! The one place that turns values into CBOR and back. The size is capped before anything is decoded, because a small
//! message can decode into something far larger (about 56 bytes of a dynamic value for each byte read).

use serde::{Serialize, de::DeserializeOwned};

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

/// Decodes exactly one CBOR value of at most `limit` bytes.
///
/// # Errors
///
/// More than `limit` bytes, nesting deeper than 128, bytes after the value, or a value of another type.
pub fn decode<T: DeserializeOwned>(bytes: &[u8], limit: usize) -> Result<T, DecodeError> {
    if bytes.len() > limit {
        return Err(DecodeError::TooLarge { size: bytes.len(), limit });
    }
    Ok(serde_cbor::from_slice(bytes)?)
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
    /// Not CBOR, or CBOR of another shape.
    #[error("not the expected CBOR: {0}")]
    Malformed(#[from] serde_cbor::Error),
}
