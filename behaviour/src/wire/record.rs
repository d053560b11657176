//! What a node says of itself, and how it travels over gossip.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What one node says of itself. It is the only writer, and signs it: see `record.rs` of this crate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The node's name: a claim, not a proof. The proof is the key that signed.
    pub name: String,
    /// When the node started, in milliseconds since 1970: two lives of one identity never mix.
    pub incarnation: u64,
    /// Grows with each change within an incarnation.
    pub revision: u64,
    /// The version of the software that runs there.
    pub software: String,
    /// Where the node can be dialled: binary multiaddresses without a peer id, the most specific scope first.
    pub addresses: Vec<serde_bytes::ByteBuf>,
    /// A token of the node's host. Loopback addresses mean something only to readers with the same token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<serde_bytes::ByteBuf>,
    /// What it hosts.
    pub applications: Vec<ApplicationRecord>,
    /// Labels given to the node by whoever runs it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// The node has stopped: its last word.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub left: bool,
    /// What the process that writes it has chosen at random when it started: of a node that is started again the former one
    /// never comes back, so one that does shares its key with another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<serde_bytes::ByteBuf>,
}

/// One application that a node hosts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ApplicationRecord {
    /// Its name.
    pub name: String,
    /// Its version, free text (semantic versions are understood).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Whatever its author wants others to know; `null` if nothing.
    #[serde(default)]
    pub description: Value,
    /// The actions that can be called, in order of their names.
    #[serde(default)]
    pub actions: Vec<String>,
    /// How many calls it works on at once, if it says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slots: Option<u32>,
    /// The actions that may run twice without harm, in order of their names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub idempotent: Vec<String>,
    /// What is wrong with it just now, in one line; absent while it is well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

/// A sign of life between changes, signed like a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beat {
    /// The incarnation that is alive.
    pub incarnation: u64,
    /// The revision of its current record: a reader with an older one asks for it.
    pub revision: u64,
    /// Grows with each beat within an incarnation.
    pub beat: u64,
    /// Calls running on the node now.
    pub load: u32,
}

/// What travels over the gossip topic: signed envelopes, each readable and provable on its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Gossip {
    /// A record has changed.
    #[serde(rename = "record")]
    Record(serde_bytes::ByteBuf),
    /// A sign of life.
    #[serde(rename = "beat")]
    Beat(serde_bytes::ByteBuf),
}

/// Which state of a node's record somebody holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Version {
    /// The incarnation of the record.
    pub incarnation: u64,
    /// Its revision within the incarnation.
    pub revision: u64,
}
