//! What is held of one node.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use libp2p::PeerId;
use multinodes_behaviour::wire::Version;

use super::{
    liveness::{LEAST_SPACING, LONGEST_SPACING},
    lives::Lives,
};
use crate::description::NodeInfo;

/// What is held of one node. The record itself is in `info`, once: readers and events share it.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    /// The signed record, to pass on.
    pub(super) envelope: Bytes,
    pub(super) version: Version,
    /// All that it takes, in bytes.
    pub(super) weight: usize,
    pub(super) state: State,
    /// It was lost because nothing was heard of it any more: it may live, and this node be cut off from it. Who was refused
    /// where it should be is gone.
    pub(super) silent: bool,
    /// The last sign of life; of a node that is gone, when it went.
    pub(super) heard: Instant,
    pub(super) beat: u64,
    pub(super) rhythm: Rhythm,
    /// The neighbour that has brought the first record of it.
    pub(super) introducer: Option<PeerId>,
    /// This node was connected to it: it does not exist only by what is said.
    pub(super) verified: bool,
    /// The processes that have spoken for it.
    pub(super) lives: Lives,
    pub(super) info: Arc<NodeInfo>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Live,
    Lost,
    Stopped,
}

/// How often a node gives signs of life, as it was heard here.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Rhythm {
    last: Option<Instant>,
    gap: Option<Duration>,
}

/// Beats that come in quicker succession were held up on their way, and show no rhythm.
const LEAST_GAP: Duration = LEAST_SPACING.checked_div(2).expect("two is not zero");

impl Rhythm {
    /// A beat was heard, whose number is by `count` greater than that of the last one.
    pub(super) fn on_beat(&mut self, count: u64, now: Instant) {
        let since = self.last.map(|last| now.saturating_duration_since(last));
        if since.is_some_and(|since| since < LEAST_GAP) {
            return;
        }
        self.last = Some(now);
        let Some(since) = since else { return };
        let gap = since / u32::try_from(count).unwrap_or(u32::MAX).max(1);
        // Quick to become patient, slow to become impatient.
        self.gap = Some(match self.gap {
            Some(before) if gap < before => (before * 3 + gap) / 4,
            _ => gap.min(LONGEST_SPACING),
        });
    }

    /// The time between two of its beats, when as many were heard.
    pub(super) fn gap(&self) -> Option<Duration> {
        self.gap
    }
}
