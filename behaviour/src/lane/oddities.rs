//! What a peer does that it should not, counted.

use std::{
    ops::AddAssign,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

/// What a peer has done on its lanes that it should not have, or that was too much.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Oddities {
    /// Answers to requests that nobody had made, or had given up.
    pub unasked: u64,
    /// Frames that could not be read, or had no business on their lane.
    pub malformed: u64,
    /// Lanes that were closed because the peer sent half a frame and no more, or did not read.
    pub stalled: u64,
    /// Lanes that it opened beyond the limit.
    pub refused_lanes: u64,
    /// Calls and tells of it that were answered with `Busy`.
    pub refused_calls: u64,
}

impl AddAssign for Oddities {
    fn add_assign(&mut self, other: Self) {
        self.unasked += other.unasked;
        self.malformed += other.malformed;
        self.stalled += other.stalled;
        self.refused_lanes += other.refused_lanes;
        self.refused_calls += other.refused_calls;
    }
}

/// The same as it grows.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) unasked: AtomicU64,
    pub(super) malformed: AtomicU64,
    pub(super) stalled: AtomicU64,
    pub(super) refused_lanes: AtomicU64,
    pub(super) refused_calls: AtomicU64,
}

impl Tally {
    pub(super) fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Relaxed);
    }

    pub(super) fn read(&self) -> Oddities {
        Oddities {
            unasked: self.unasked.load(Relaxed),
            malformed: self.malformed.load(Relaxed),
            stalled: self.stalled.load(Relaxed),
            refused_lanes: self.refused_lanes.load(Relaxed),
            refused_calls: self.refused_calls.load(Relaxed),
        }
    }
}
