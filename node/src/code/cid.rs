//! The name of code: the hash of its bytes, in the form that IPFS and others use.

use std::{fmt, str::FromStr};

use data_encoding::BASE32_NOPAD;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::{Digest, Sha256};

/// Version 1, codec `raw`, hash `sha2-256` of 32 bytes.
const PREFIX: [u8; 4] = [0x01, 0x55, 0x12, 0x20];

/// The length of the binary form, in bytes.
const LENGTH: usize = PREFIX.len() + 32;

/// The name of some code: a CIDv1 (`raw`, `sha2-256`), printed in base 32 as `bafkrei...`. Whoever has the bytes can check it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cid([u8; 32]);

/// What is no name of code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CidError {
    /// Another version, codec or hash, or no content identifier at all.
    #[error("`{text}` does not name code: a CIDv1 of raw bytes with sha2-256, in base 32, does")]
    Foreign {
        /// What was given, shortened.
        text: String,
    },
}

impl Cid {
    /// The name of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// The name of what was hashed.
    pub(crate) fn of_hash(hash: Sha256) -> Self {
        Self(hash.finalize().into())
    }

    /// Reads the binary form.
    ///
    /// # Errors
    ///
    /// Anything but 36 bytes of a CIDv1 with `raw` and `sha2-256`.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CidError> {
        let digest = bytes.strip_prefix(&PREFIX).and_then(|digest| digest.try_into().ok());
        digest.map(Self).ok_or_else(|| foreign(&data_encoding::HEXLOWER.encode(&bytes[..bytes.len().min(LENGTH)])))
    }

    /// The binary form, 36 bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        [&PREFIX[..], &self.0].concat()
    }
}

impl fmt::Display for Cid {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "b{}", BASE32_NOPAD.encode(&self.to_bytes()).to_ascii_lowercase())
    }
}

impl fmt::Debug for Cid {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl FromStr for Cid {
    type Err = CidError;

    fn from_str(text: &str) -> Result<Self, CidError> {
        let encoded = text.strip_prefix('b').filter(|encoded| encoded.len() < 2 * LENGTH);
        let bytes = encoded.and_then(|encoded| BASE32_NOPAD.decode(encoded.to_ascii_uppercase().as_bytes()).ok());
        bytes.and_then(|bytes| Self::from_bytes(&bytes).ok()).ok_or_else(|| foreign(text))
    }
}

impl Serialize for Cid {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            serializer.serialize_bytes(&self.to_bytes())
        }
    }
}

impl<'de> Deserialize<'de> for Cid {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            return String::deserialize(deserializer)?.parse().map_err(de::Error::custom);
        }
        Self::from_bytes(&serde_bytes::ByteBuf::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

fn foreign(text: &str) -> CidError {
    CidError::Foreign { text: text.chars().take(80).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_what_other_tools_print_and_comes_back_from_text_and_bytes() {
        // `ipfs add --cid-version=1 --raw-leaves` of a file that holds `hello`.
        let cid = Cid::of(b"hello");
        assert_eq!(cid.to_string(), "bafkreibm6jg3ux5qumhcn2b3flc3tyu6dmlb4xa7u5bf44yegnrjhc4yeq");
        assert_eq!(cid.to_string().parse(), Ok(cid));
        assert_eq!(Cid::from_bytes(&cid.to_bytes()), Ok(cid));
        let cbor = serde_cbor::to_vec(&cid).unwrap();
        assert_eq!(cbor.len(), 2 + LENGTH);
        assert_eq!(serde_cbor::from_slice::<Cid>(&cbor).unwrap(), cid);
        assert_eq!(serde_json::from_str::<Cid>(&serde_json::to_string(&cid).unwrap()).unwrap(), cid);
    }

    #[test]
    fn other_kinds_of_names_are_refused() {
        let cid = Cid::of(b"hello").to_string();
        let upper = cid.to_uppercase();
        for text in
            ["", "b", "QmVtU7ths96fMgZ8YSZAbKghyieq7AjxNdcqyVzxTt3qVe", &cid[..cid.len() - 1], &cid[1..], &upper]
        {
            assert!(text.parse::<Cid>().is_err(), "{text}");
        }
        let mut dag = Cid::of(b"hello").to_bytes();
        dag[1] = 0x70;
        assert!(Cid::from_bytes(&dag).is_err());
    }
}
