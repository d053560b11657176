//! The items that have no outcome yet.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use futures::future::AbortHandle;
use libp2p::PeerId;
use multinodes_behaviour::{
    lane::{Called, Mark, Pulse},
    quick_hash::QuickHash,
};
use rand::Rng;

use super::{
    outcome::{Attempt, MAX_FAILURES},
    workers::{Taken, WorkerId},
};
use crate::payload::Payload;

/// The first wait before an item is tried again, doubled each time up to [`LONGEST_WAIT`]. The very first retry after a
/// lost worker does not wait: it is not the item's fault.
const WAIT: Duration = Duration::from_millis(100);

/// The longest wait before an item is tried again.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// An item without an outcome.
pub(super) struct Item {
    pub(super) payload: Payload,
    pub(super) begun: Option<Instant>,
    /// How often it was begun somewhere.
    pub(super) attempts: u32,
    /// How often the application said that it failed.
    pub(super) errors: u32,
    /// How often it was lost, for whatever reason.
    pub(super) losses: u32,
    /// Of these, how often its worker broke.
    pub(super) crashes: u32,
    pub(super) failures: Vec<Attempt>,
    /// Some attempt may have run it, whatever became of the others.
    pub(super) may_have_run: bool,
    /// The attempts under way: one, or two near the end.
    pub(super) running: Vec<Running>,
    /// It has a worker, and waits until it is on disk that it is begun.
    pub(super) held: Option<Held>,
}

/// A worker's place that is kept for an item.
#[derive(Debug, Clone, Copy)]
pub(super) struct Held {
    pub(super) worker: WorkerId,
    pub(super) taken: Taken,
    pub(super) since: Instant,
}

/// An attempt under way.
pub(super) struct Running {
    pub(super) serial: u64,
    pub(super) worker: WorkerId,
    pub(super) taken: Taken,
    pub(super) sent: Instant,
    pub(super) pulse: Arc<Pulse>,
    /// Kept until it is over: dropping it calls the attempt off.
    pub(super) _work: Work,
}

/// What is under way for an attempt; dropping it ends that.
pub(super) enum Work {
    /// A call whose answer goes into the queue of all of them: nearly always.
    Called(#[allow(dead_code, reason = "kept for its drop")] Called),
    /// A future, for what has to wait for something first, or runs here.
    Attempt(AbortHandle),
}

impl Drop for Work {
    fn drop(&mut self) {
        if let Self::Attempt(abort) = self {
            abort.abort();
        }
    }
}

/// The items without an outcome, and those of them that nobody works on.
#[derive(Default)]
pub(super) struct Items {
    open: HashMap<u64, Item, QuickHash>,
    /// To be given to a worker.
    pending: VecDeque<u64>,
    /// The same, but workers have broken under them.
    suspects: VecDeque<u64>,
    /// To be tried again later.
    delayed: BinaryHeap<Reverse<(Instant, u64)>>,
}

impl Item {
    pub(super) fn new(payload: Payload) -> Self {
        Self {
            payload,
            begun: None,
            attempts: 0,
            errors: 0,
            losses: 0,
            crashes: 0,
            failures: Vec::new(),
            may_have_run: false,
            running: Vec::new(),
            held: None,
        }
    }

    pub(super) fn is_suspect(&self) -> bool {
        self.crashes > 0
    }

    pub(super) fn note(&mut self, attempt: Attempt) {
        if self.failures.len() == MAX_FAILURES {
            self.failures.remove(0);
        }
        self.failures.push(attempt);
    }

    /// Where it was already, in vain.
    pub(super) fn tried(&self) -> Vec<PeerId> {
        self.failures.iter().map(|attempt| attempt.peer_id).collect()
    }
}

impl Items {
    pub(super) fn insert(&mut self, index: u64, item: Item) {
        self.open.insert(index, item);
    }

    pub(super) fn find(&mut self, index: u64) -> Option<&mut Item> {
        self.open.get_mut(&index)
    }

    /// Takes an attempt off its item.
    pub(super) fn take_running(&mut self, (index, serial): Mark) -> Option<Running> {
        let running = &mut self.find(index)?.running;
        let place = running.iter().position(|running| running.serial == serial)?;
        Some(running.swap_remove(place))
    }

    pub(super) fn remove(&mut self, index: u64) -> Option<Item> {
        self.open.remove(&index)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &Item)> {
        self.open.iter().map(|(index, item)| (*index, item))
    }

    /// Whether an item has no outcome, and nobody works on it.
    pub(super) fn is_idle(&self, index: u64) -> bool {
        self.open.get(&index).is_some_and(|item| item.running.is_empty())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Whether some item waits for a worker, now or later.
    pub(super) fn any_waits(&self) -> bool {
        !(self.pending.is_empty() && self.suspects.is_empty() && self.delayed.is_empty())
    }

    /// Whether some item could be given to a worker at once.
    pub(super) fn any_is_due(&self) -> bool {
        !(self.pending.is_empty() && self.suspects.is_empty())
    }

    /// Has an item given to the next worker.
    pub(super) fn return_soon(&mut self, index: u64) {
        match self.open.get(&index) {
            Some(item) if item.is_suspect() => self.suspects.push_back(index),
            Some(_) => self.pending.push_front(index),
            None => {}
        }
    }

    /// Has an item tried again, after a wait that grows with its failures.
    pub(super) fn return_later(&mut self, index: u64, failures: u32, now: Instant) {
        let wait = WAIT.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(LONGEST_WAIT);
        // Those that were lost together are not tried again at the same moment.
        let wait = wait.mul_f64(rand::rng().random_range(0.75..1.25));
        self.delayed.push(Reverse((now + wait, index)));
    }

    /// Has those tried again whose wait is over.
    pub(super) fn wake(&mut self, now: Instant) {
        while let Some(Reverse((due, index))) = self.delayed.peek().copied() {
            if due > now {
                return;
            }
            self.delayed.pop();
            self.return_soon(index);
        }
    }

    pub(super) fn next_pending(&mut self) -> Option<u64> {
        self.pending.pop_front()
    }

    pub(super) fn next_suspect(&mut self) -> Option<u64> {
        self.suspects.pop_front()
    }

    pub(super) fn pending(&self) -> usize {
        self.pending.len()
    }

    pub(super) fn suspects(&self) -> usize {
        self.suspects.len()
    }
}
