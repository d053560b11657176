//! What is published on a topic of the users'.

use serde::{Deserialize, Serialize};

/// A message of a topic. Its sender signs it, see `message.rs` of this crate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicMessage {
    /// The topic, a name of the users' choice.
    pub topic: String,
    /// The incarnation of the sender, as in its record.
    pub incarnation: u64,
    /// Grows with each message of an incarnation, whatever its topic: nobody can have a message delivered twice.
    pub sequence: u64,
    /// The value, CBOR.
    pub value: serde_bytes::ByteBuf,
}
