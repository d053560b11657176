//! How two neighbours level their directories.

use std::{fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error, SeqAccess, Visitor},
};
use serde_bytes::ByteBuf;

use super::Version;

/// The most records taken from one message. Empty ones of one byte each would become 24 bytes each in memory.
pub const MAX_RECORDS: usize = 16 * 1024;

/// The most versions taken from one message: with them and all the records that fit, an offer is within its limit.
pub const MAX_VERSIONS: usize = 24 * 1024;

/// The most wishes taken from one message.
pub const MAX_WANTED: usize = 1024;

/// Opens an exchange of records, or carries its second half.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum SyncRequest {
    /// "This is the digest of all I hold, and what it holds; here are records that may be new to you."
    #[serde(rename = "offer")]
    Offer {
        /// Over all (peer id, version) pairs, see `sync.rs` of this crate.
        digest: ByteBuf,
        /// What the sender holds: (peer id, version). Absent when the sender hopes that the digests are equal.
        #[serde(
            default,
            skip_serializing_if = "Option::is_none",
            deserialize_with = "at_most_if_any::<_, _, MAX_VERSIONS>"
        )]
        versions: Option<Vec<(ByteBuf, Version)>>,
        /// Signed records, the sender's own at first.
        #[serde(deserialize_with = "at_most::<_, _, MAX_RECORDS>")]
        records: Vec<ByteBuf>,
    },
    /// "Here is what you asked for."
    #[serde(rename = "push")]
    Push {
        /// Signed records.
        #[serde(deserialize_with = "at_most::<_, _, MAX_RECORDS>")]
        records: Vec<ByteBuf>,
    },
    /// "I close this connection to keep their number low; I am well."
    #[serde(rename = "release")]
    Release,
    /// What has come is none of these, for the reason that is given. It is never sent.
    #[serde(skip)]
    Malformed(String),
}

/// Answers a [`SyncRequest`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncResponse {
    /// The digests are equal: there is nothing to do.
    pub same: bool,
    /// The digests differ, and the offer had no versions: offer again with them.
    #[serde(default)]
    pub needs_versions: bool,
    /// Signed records that the offer's sender lacks.
    #[serde(default, deserialize_with = "at_most::<_, _, MAX_RECORDS>")]
    pub records: Vec<ByteBuf>,
    /// Peer ids whose records the answerer lacks, for a `Push`.
    #[serde(default, deserialize_with = "at_most::<_, _, MAX_WANTED>")]
    pub wanted: Vec<ByteBuf>,
    /// There were more records than one answer holds: offer again.
    #[serde(default)]
    pub more: bool,
}

fn at_most<'de, D, T, const LIMIT: usize>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    AtMost::<T, LIMIT>::deserialize(deserializer).map(|list| list.0)
}

fn at_most_if_any<'de, D, T, const LIMIT: usize>(deserializer: D) -> Result<Option<Vec<T>>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    Ok(Option::<AtMost<T, LIMIT>>::deserialize(deserializer)?.map(|list| list.0))
}

/// A list that is refused as soon as it is too long.
struct AtMost<T, const LIMIT: usize>(Vec<T>);

impl<'de, T: Deserialize<'de>, const LIMIT: usize> Deserialize<'de> for AtMost<T, LIMIT> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(AtMostVisitor::<T, LIMIT>(PhantomData)).map(Self)
    }
}

struct AtMostVisitor<T, const LIMIT: usize>(PhantomData<T>);

impl<'de, T: Deserialize<'de>, const LIMIT: usize> Visitor<'de> for AtMostVisitor<T, LIMIT> {
    type Value = Vec<T>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "a list of at most {LIMIT}")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Vec<T>, A::Error> {
        let mut list = Vec::new();
        while let Some(element) = sequence.next_element()? {
            if list.len() == LIMIT {
                return Err(A::Error::custom(format_args!("a list of more than {LIMIT}")));
            }
            list.push(element);
        }
        Ok(list)
    }
}
