//! What hosts of a flow say to each other: arguments of ordinary calls.
//!
//! | to | action | argument | result |
//! |---|---|---|---|
//! | a stage's application | [`TUPLES`] | [`Delivery`] | how many of the tuples, from the first on, were taken |
//! | a stage's application | [`END`] | run, token | nothing |
//! | the source's desk | [`ACKS`] | [`Acks`] | nothing |
//! | the source's desk | [`OUTPUTS`] | [`Delivery`] without a plan | as above |

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use super::{
    budget::Held,
    plan::{StageIndex, Token},
};
use crate::registry::Busy;

/// The action by which a stage takes tuples. Whoever has it among its actions is a stage.
pub(crate) const TUPLES: &str = "topology.tuples";
/// The action by which a stage learns that a run is over.
pub(crate) const END: &str = "topology.end";
/// The action by which the source learns what became of its tuples.
pub(crate) const ACKS: &str = "acks";
/// The action by which the source gets what the last stages emit.
pub(crate) const OUTPUTS: &str = "outputs";

/// Tuples that travel together at the most.
pub(crate) const BATCH: usize = 256;
/// A batch is closed when it has so many bytes, so that it does not travel as a large message.
pub(crate) const BATCH_BYTES: usize = 128 * 1024;
/// Room that the rest of a message takes beside a tuple, for the largest tuple: a plan of 64 stages fits.
pub(crate) const OVERHEAD: usize = 64 * 1024;
/// No tuple is wanted for longer, whatever its sender says.
const LONGEST: Duration = Duration::from_secs(86_400);

/// A tuple's place: the item of the source that it came from, and which attempt at that it belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct TreeId(pub(crate) u64, pub(crate) u32);

impl TreeId {
    pub(crate) fn root(self) -> u64 {
        self.0
    }

    pub(crate) fn attempt(self) -> u32 {
        self.1
    }
}

/// A tuple on its way.
#[derive(Debug, Clone)]
pub(crate) struct Tuple {
    pub(crate) id: u64,
    pub(crate) tree: TreeId,
    /// Nobody wants it after that: its tree is replayed then.
    pub(crate) deadline: Instant,
    /// The hash of its key, where it goes by key.
    pub(crate) key: u64,
    pub(crate) payload: Bytes,
    /// Its part of what a stage may have emitted on this node; nothing for those of the source, which are counted there.
    pub(crate) _held: Option<Arc<Held>>,
    /// On a node that has taken it, or made it of one that it has taken: until it is handed on the node does not stop.
    pub(crate) busy: Option<Busy>,
}

/// Tuples for one stage of one run. `B` is bytes: borrowed by who sends, owned by who receives.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Delivery<B = ByteBuf> {
    pub(crate) run: u64,
    pub(crate) token: Token,
    /// The stage that is to process them; for outputs the one that has emitted them.
    pub(crate) stage: StageIndex,
    /// How long they may wait for room, in milliseconds.
    pub(crate) patience: u32,
    /// The plan, signed by the source.
    pub(crate) plan: B,
    pub(crate) tuples: Vec<Sent<B>>,
}

/// A tuple in a delivery: its id, its tree, how many milliseconds are left, and its value.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Sent<B = ByteBuf>(pub(crate) u64, pub(crate) TreeId, pub(crate) u32, pub(crate) B);

impl Tuple {
    pub(crate) fn to_sent(&self, now: Instant) -> Sent<&serde_bytes::Bytes> {
        let left = self.deadline.saturating_duration_since(now).as_millis();
        Sent(self.id, self.tree, u32::try_from(left).unwrap_or(u32::MAX), serde_bytes::Bytes::new(&self.payload))
    }
}

impl Sent {
    pub(crate) fn received(self, now: Instant, busy: Busy) -> Tuple {
        let Self(id, tree, left, payload) = self;
        let deadline = now + Duration::from_millis(left.into()).min(LONGEST);
        Tuple { id, tree, deadline, key: 0, payload: payload.into_vec().into(), _held: None, busy: Some(busy) }
    }
}

/// What became of tuples of one run.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Acks {
    pub(crate) token: Token,
    /// For each tree: the ids of what was processed and of what was emitted by that, all combined by exclusive or.
    pub(crate) sums: Vec<(TreeId, u64)>,
    pub(crate) failures: Vec<Failure>,
}

/// The longest reason that travels, or is kept, in bytes.
const MAX_REASON: usize = 1024;

/// A tuple could not be processed: its tree cannot be completed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Failure {
    pub(crate) tree: TreeId,
    /// The stage's application, and what it says.
    pub(crate) reason: String,
    /// Another attempt would end in the same way.
    pub(crate) is_final: bool,
}

impl Failure {
    /// Cuts a reason that is too long.
    pub(crate) fn shorten(&mut self) {
        self.reason.truncate(self.reason.floor_char_boundary(MAX_REASON));
    }
}
