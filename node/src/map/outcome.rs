//! What comes of each item, of the workers, and of the whole.

use std::{fmt, time::Duration};

use libp2p::PeerId;
use serde::{Deserialize, Serialize};

use crate::{call_error::CallError, payload::Payload};

/// What came of one item: each item has exactly one outcome.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Outcome<R> {
    /// The item's place in the input, from 0.
    pub index: u64,
    /// The item, as it was sent: the action's arguments.
    pub input: Payload,
    /// What the action gave, or why there is nothing.
    pub result: Result<R, ItemError>,
    /// The node that gave the result, or that was tried last.
    pub node: Option<String>,
    /// That node's peer id.
    pub peer_id: Option<PeerId>,
    /// How often it was begun somewhere, as far as is known.
    pub attempts: u32,
    /// The time from its first dispatch to its outcome.
    pub duration: Duration,
    /// The attempts that failed, the last [`MAX_FAILURES`].
    pub failures: Vec<Attempt>,
    /// It was not run now: a journal had it.
    pub recorded: bool,
}

/// So many failed attempts of one item are kept.
pub const MAX_FAILURES: usize = 16;

/// One attempt at an item that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Attempt {
    /// Where.
    pub node: String,
    /// That node's peer id.
    #[serde(with = "as_text")]
    pub peer_id: PeerId,
    /// The error's code, such as `connection_lost`, `lease_expired`, or [`CallError::code`].
    pub code: String,
    /// What happened, for people.
    pub message: String,
    /// How long it took.
    pub duration: Duration,
}

/// Why an item has no result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
#[non_exhaustive]
pub struct ItemError {
    /// What kind of failure.
    pub kind: ItemErrorKind,
    /// A code for programs: the application's own one if it failed, else that of the last attempt.
    pub code: String,
    /// What happened, for people.
    pub message: String,
    /// The application's own data, if it sent any.
    #[serde(with = "as_bytes")]
    pub data: Option<Payload>,
    /// Whether it may have run on any of the workers that had it. `false` is a promise, whatever the last attempt was.
    #[serde(default = "unknown")]
    pub may_have_run: bool,
}

/// What a journal says of items that failed before it kept that.
fn unknown() -> bool {
    true
}

/// Kinds of failure of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ItemErrorKind {
    /// The application ran and says that it failed, or it does not take the item.
    Failed,
    /// Workers were lost or too slow again and again, and the retries are used up. It may have run.
    Exhausted,
    /// [At most once](crate::Map::at_most_once) was asked for, and it may have run: its worker was lost or too slow, or the
    /// map that ran it ended before it had an outcome, as its [journal](crate::Map::journal) says.
    MayHaveRun,
    /// Each worker that ran it broke: it is set aside, so that it breaks no more. It may have run.
    Poisoned,
    /// It cannot be sent: it cannot be encoded, or is too large.
    Unsendable,
}

impl ItemErrorKind {
    /// A short name, for programs.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Exhausted => "exhausted",
            Self::MayHaveRun => "may_have_run",
            Self::Poisoned => "poisoned",
            Self::Unsendable => "unsendable",
        }
    }
}

impl ItemError {
    /// What a final answer of the other side comes to.
    pub(crate) fn of(kind: ItemErrorKind, error: &CallError) -> Self {
        let (code, data) = match error {
            CallError::Failed { code, data, .. } => (code.clone(), data.clone()),
            error => (error.code().to_owned(), None),
        };
        let message = match error {
            CallError::Failed { message, .. } => message.clone(),
            error => error.to_string(),
        };
        Self { kind, code, message, data, may_have_run: error.may_have_run() }
    }

    /// An error of an item that surely did not run.
    pub(crate) fn new(kind: ItemErrorKind, code: &str, message: impl fmt::Display) -> Self {
        Self { kind, code: code.to_owned(), message: message.to_string(), data: None, may_have_run: false }
    }
}

/// How far the whole is, some times a second.
#[derive(Debug, Clone, Default, Serialize)]
#[non_exhaustive]
pub struct MapStatus {
    /// Items that were taken from the input.
    pub taken: u64,
    /// Items that have an outcome, failed or not.
    pub done: u64,
    /// Of these, the failed ones.
    pub failed: u64,
    /// Of the failed ones, those that [may have run](ItemErrorKind::MayHaveRun).
    pub may_have_run: u64,
    /// Of those done, the ones that a journal had.
    pub recorded: u64,
    /// Items that are with a worker now.
    pub running: usize,
    /// Nothing more comes from the input.
    pub input_ended: bool,
    /// All workers so far, those that are gone as well.
    pub workers: Vec<WorkerStatus>,
}

/// What one worker does and has done.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct WorkerStatus {
    /// The node's name.
    pub node: String,
    /// Its peer id.
    #[serde(serialize_with = "as_text::serialize")]
    pub peer_id: PeerId,
    /// How many calls it works on at once.
    pub slots: u32,
    /// Items that are with it now, those that wait there included.
    pub running: usize,
    /// Results it has given.
    pub done: u64,
    /// Items that failed on it by the application's own word.
    pub failed: u64,
    /// Items that were lost with it: its connection broke, it crashed, or it was too slow.
    pub lost: u64,
    /// The time its items took, added up.
    pub busy: Duration,
    /// It is there and takes items.
    pub present: bool,
}

/// Why the whole cannot go on. What was reported until then holds.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MapError {
    /// What was asked for contradicts itself; nothing was run.
    #[error("`{one}` and `{other}` contradict each other: an item runs once, or again after an error")]
    Contradiction {
        /// A method of the map.
        one: &'static str,
        /// Another one.
        other: &'static str,
    },
    /// Nobody takes items: nobody hosts the application, or nobody answered for as long as was to be waited.
    #[error("no worker takes items: {0}")]
    NoWorker(CallError),
    /// This node has been stopped, or the call within which the items were spread has ended.
    #[error("the node or the call that spreads the items has ended")]
    Stopped,
    /// The stream of items panicked.
    #[error("the input panicked: {0}")]
    Input(String),
    /// The journal cannot be used.
    #[cfg(feature = "journal")]
    #[error(transparent)]
    Journal(#[from] super::journal::JournalError),
}

/// Payloads as the bytes that they are.
mod as_bytes {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use serde_bytes::{ByteBuf, Bytes};

    use crate::payload::Payload;

    pub(super) fn serialize<S: Serializer>(payload: &Option<Payload>, serializer: S) -> Result<S::Ok, S::Error> {
        payload.as_ref().map(|payload| Bytes::new(payload.as_bytes())).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Payload>, D::Error> {
        let bytes = Option::<ByteBuf>::deserialize(deserializer)?;
        Ok(bytes.map(|bytes| Payload::from_bytes(bytes.into_vec())))
    }
}

/// Peer ids as people read them.
mod as_text {
    use libp2p::PeerId;
    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(peer_id: &PeerId, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(peer_id)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PeerId, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}
