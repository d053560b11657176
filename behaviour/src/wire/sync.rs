//! How two neighbours level their directories.

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use super::Version;

/// Opens an exchange of records, or carries its second half.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum SyncRequest {
    /// "This is the digest of all I hold, and what it holds; here are records that may be new to you."
    #[serde(rename = "offer")]
    Offer {
        /// Over all (peer id, version) pairs, see `sync.rs` of this crate.
        digest: ByteBuf,
        /// What the sender holds: (peer id, version). Absent when the sender hopes that the digests are equal.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        versions: Option<Vec<(ByteBuf, Version)>>,
        /// Signed records, the sender's own at first.
        records: Vec<ByteBuf>,
    },
    /// "Here is what you asked for."
    #[serde(rename = "push")]
    Push {
        /// Signed records.
        records: Vec<ByteBuf>,
    },
    /// "I close this connection to keep their number low; I am well."
    #[serde(rename = "release")]
    Release,
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
    #[serde(default)]
    pub records: Vec<ByteBuf>,
    /// Peer ids whose records the answerer lacks, for a `Push`.
    #[serde(default)]
    pub wanted: Vec<ByteBuf>,
    /// There were more records than one answer holds: offer again.
    #[serde(default)]
    pub more: bool,
}
