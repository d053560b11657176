//! What the ledger gives back once it is on disk.

use super::outcome::Outcome;
#[cfg(feature = "journal")]
use super::reports::weight;
use crate::payload::Payload;

/// What is on disk now.
#[cfg_attr(not(feature = "journal"), allow(dead_code, reason = "without a journal nothing is"))]
#[allow(clippy::large_enum_variant, reason = "a box for each outcome would cost more than what the others waste")]
pub(super) enum Durable {
    /// An item's outcome: it can be told.
    Outcome(Outcome<Payload>),
    /// That this item is begun: it can be sent.
    Begun(u64),
    /// That an item was not begun after all.
    Withdrawn,
}

#[cfg(feature = "journal")]
impl Durable {
    /// Bytes of it that are worth counting.
    pub(super) fn weight(&self) -> usize {
        match self {
            Self::Outcome(outcome) => weight(outcome),
            Self::Begun(_) | Self::Withdrawn => 0,
        }
    }
}
