//! Which trees of tuples are open at the source. Decides only: no clock, no network.
//!
//! Every tuple has a random id. A tree holds the exclusive or of the ids of all its tuples, each combined once when it
//! is emitted and once when it has been processed; so it is zero when, and but for a chance of one in 2^64 only when,
//! everything that was emitted has been processed. The idea is that of Storm's acker: the tree takes the same few bytes
//! whatever its size.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    time::{Duration, Instant},
};

use bytes::Bytes;
use serde::Serialize;

use super::wire::TreeId;
use crate::{later::later, length::length};

/// Bytes of items that are under way in one run at the most, those that were given up and not read yet included: they are
/// kept for replays. One item may always be.
pub const MAX_PENDING_BYTES: usize = 64 * 1024 * 1024;

/// How long a failed tree waits before its first replay; the time doubles with each.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// It never waits longer than that.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// The limits of a flow.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) ack_timeout: Duration,
    pub(crate) max_pending: usize,
    pub(crate) max_replays: u32,
}

/// What a run has done so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[non_exhaustive]
pub struct Counters {
    /// Items taken from the source.
    pub emitted: u64,
    /// Items whose trees are complete.
    pub acked: u64,
    /// Trees that were begun anew, because something failed or took too long.
    pub replayed: u64,
    /// Items that were given up.
    pub failed: u64,
    /// Items that are neither complete nor given up, or whose end was not read yet. Never more than
    /// [`max_pending`](super::Flow::max_pending).
    pub pending: usize,
    /// Tuples of the last stages that came back.
    pub outputs: u64,
    /// Acknowledgements and outputs of trees that are not open: those of an earlier attempt that was too slow, or
    /// made up.
    pub ignored: u64,
    /// Messages to the source of somebody who takes no part in the run.
    pub refused: u64,
    /// The source's stream has panicked: there may be items that were never taken. See
    /// [`Event::Broken`](super::Event::Broken).
    pub broken: bool,
}

/// How the tree of an item ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) tree: TreeId,
    /// Why it was given up, and the item.
    pub(crate) failure: Option<(String, Bytes)>,
}

/// The open trees of one run.
pub(crate) struct Trees {
    limits: Limits,
    trees: HashMap<u64, Tree>,
    /// The time of every tree that has one.
    timers: BTreeSet<(Instant, u64)>,
    /// Trees to be replayed now.
    replays: VecDeque<u64>,
    /// What was not told yet; it counts as pending.
    ended: VecDeque<Ended>,
    /// What was told, but not read yet.
    pub(crate) told: usize,
    /// Of the items that pending ones came from.
    bytes: usize,
    pub(crate) counters: Counters,
}

struct Tree {
    attempt: u32,
    state: State,
    input: Bytes,
    reason: String,
}

enum State {
    /// Its first tuples are being made, or it is in the queue for that.
    Begun,
    /// Tuples are on their way.
    Open { sum: u64, until: Instant },
    /// It has failed, and will be replayed.
    Paused,
}

impl Trees {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            trees: HashMap::new(),
            timers: BTreeSet::new(),
            replays: VecDeque::new(),
            ended: VecDeque::new(),
            told: 0,
            bytes: 0,
            counters: Counters::default(),
        }
    }

    pub(crate) fn counters(&self) -> Counters {
        Counters { pending: self.pending(), ..self.counters }
    }

    /// Whether another item may be taken from the source.
    pub(crate) fn has_room(&self) -> bool {
        let pending = self.pending();
        pending < self.limits.max_pending && (pending == 0 || self.bytes < MAX_PENDING_BYTES)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.trees.is_empty() && self.ended.is_empty()
    }

    /// Takes an item from the source.
    pub(crate) fn take(&mut self, input: Bytes) -> TreeId {
        let root = self.counters.emitted;
        self.counters.emitted += 1;
        self.bytes += input.len();
        self.trees.insert(root, Tree { attempt: 1, state: State::Begun, input, reason: String::new() });
        TreeId(root, 1)
    }

    /// Takes a tree whose time for a replay has come.
    pub(crate) fn replay(&mut self) -> Option<(TreeId, Bytes)> {
        loop {
            let root = self.replays.pop_front()?;
            // It may have been given up meanwhile.
            if let Some(tree) = self.trees.get_mut(&root) {
                tree.attempt += 1;
                self.counters.replayed += 1;
                return Some((TreeId(root, tree.attempt), tree.input.clone()));
            }
        }
    }

    /// Its first tuples are made, and `sum` is that of their ids. Gives the time until when it has to be complete, and
    /// whether that is the next time of all; `None` if it is not wanted any more.
    pub(crate) fn open(&mut self, id: TreeId, sum: u64, now: Instant) -> Option<(Instant, bool)> {
        let until = later(now, self.limits.ack_timeout);
        let tree = self.trees.get_mut(&id.root())?;
        tree.state = State::Open { sum, until };
        self.timers.insert((until, id.root()));
        if sum == 0 {
            // It went to nobody, so there is nothing to wait for.
            self.complete(id);
            return None;
        }
        Some((until, self.next_time() == Some(until)))
    }

    /// Something of a tree was processed. Whether the tree ends by that.
    pub(crate) fn ack(&mut self, id: TreeId, ids: u64) -> bool {
        let Some(sum) = self.sum(id) else {
            self.counters.ignored += 1;
            return false;
        };
        *sum ^= ids;
        let is_complete = *sum == 0;
        if is_complete {
            self.complete(id);
        }
        is_complete
    }

    /// Whether tuples of this attempt are still wanted.
    pub(crate) fn is_open(&mut self, id: TreeId) -> bool {
        self.sum(id).is_some()
    }

    /// Something of a tree cannot be processed: it is replayed after a while, or given up.
    pub(crate) fn fail(&mut self, id: TreeId, reason: String, is_final: bool, now: Instant) {
        let Some(tree) = self.trees.get_mut(&id.root()).filter(|tree| tree.attempt == id.attempt()) else {
            self.counters.ignored += 1;
            return;
        };
        match tree.state {
            State::Open { until, .. } => _ = self.timers.remove(&(until, id.root())),
            State::Begun => {}
            // One failure of an attempt is enough.
            State::Paused => return,
        }
        tree.reason = reason;
        if is_final || tree.attempt > self.limits.max_replays {
            return self.give_up(id.root());
        }
        let until = now + pause(tree.attempt);
        tree.state = State::Paused;
        self.timers.insert((until, id.root()));
    }

    /// What takes too long is to be replayed, and so is what has paused long enough.
    pub(crate) fn expire(&mut self, now: Instant) {
        while let Some((until, root)) = self.timers.first().copied().filter(|(until, _)| *until <= now) {
            self.timers.remove(&(until, root));
            let Some(tree) = self.trees.get_mut(&root) else { continue };
            if matches!(tree.state, State::Open { .. }) {
                tree.reason = format!("not complete within {}", length(self.limits.ack_timeout));
                if tree.attempt > self.limits.max_replays {
                    self.give_up(root);
                    continue;
                }
            }
            tree.state = State::Begun;
            self.replays.push_back(root);
        }
    }

    /// When [`expire`](Self::expire) has something to do.
    pub(crate) fn next_time(&self) -> Option<Instant> {
        self.timers.first().map(|(until, _)| *until)
    }

    /// Gives up everything.
    pub(crate) fn give_up_all(&mut self, reason: &str) {
        let mut roots: Vec<_> = self.trees.keys().copied().collect();
        roots.sort_unstable();
        self.timers.clear();
        self.replays.clear();
        for root in roots {
            if let Some(tree) = self.trees.get_mut(&root) {
                reason.clone_into(&mut tree.reason);
            }
            self.give_up(root);
        }
    }

    /// The next tree of whose end nobody was told. It counts as told from now on.
    pub(crate) fn ended(&mut self) -> Option<Ended> {
        let ended = self.ended.pop_front()?;
        self.told += 1;
        Some(ended)
    }

    /// The end of a tree was read, with an item of so many bytes.
    pub(crate) fn read(&mut self, bytes: usize) {
        self.told = self.told.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    fn pending(&self) -> usize {
        self.trees.len() + self.ended.len() + self.told
    }

    fn sum(&mut self, id: TreeId) -> Option<&mut u64> {
        match self.trees.get_mut(&id.root()) {
            Some(Tree { attempt, state: State::Open { sum, .. }, .. }) if *attempt == id.attempt() => Some(sum),
            _ => None,
        }
    }

    fn complete(&mut self, id: TreeId) {
        if let Some(Tree { state: State::Open { until, .. }, input, .. }) = self.trees.remove(&id.root()) {
            self.bytes -= input.len();
            self.timers.remove(&(until, id.root()));
            self.counters.acked += 1;
            self.ended.push_back(Ended { tree: id, failure: None });
        }
    }

    fn give_up(&mut self, root: u64) {
        if let Some(Tree { attempt, input, reason, .. }) = self.trees.remove(&root) {
            self.counters.failed += 1;
            self.ended.push_back(Ended { tree: TreeId(root, attempt), failure: Some((reason, input)) });
        }
    }
}

fn pause(attempt: u32) -> Duration {
    FIRST_PAUSE.saturating_mul(1 << attempt.saturating_sub(1).min(16)).min(LONGEST_PAUSE)
}

#[cfg(test)]
mod tests;
