//! Outcomes on their way to whoever reads them, in order if that was asked for.

use std::collections::{BTreeMap, VecDeque};

use super::outcome::Outcome;
use crate::payload::Payload;

/// Outcomes that may lie ready before no more items are taken.
const READY: usize = 1024;

/// Bytes of them.
const READY_BYTES: usize = 32 * 1024 * 1024;

/// In order, no item is taken that is so far ahead of the first one without an outcome.
const WINDOW: u64 = 16 * 1024;

/// Outcomes that are handed over at once.
const BATCH: usize = 256;

/// Outcomes that were not read yet.
pub(super) struct Reports {
    ready: VecDeque<Outcome<Payload>>,
    /// Those that came before others which have to be read first; `None` if order does not matter.
    early: Option<BTreeMap<u64, Outcome<Payload>>>,
    /// The next one in order.
    next: u64,
    bytes: usize,
}

impl Reports {
    pub(super) fn new(ordered: bool) -> Self {
        Self { ready: VecDeque::new(), early: ordered.then(BTreeMap::new), next: 0, bytes: 0 }
    }

    pub(super) fn push(&mut self, outcome: Outcome<Payload>) {
        self.bytes += weight(&outcome);
        let Some(early) = &mut self.early else { return self.ready.push_back(outcome) };
        early.insert(outcome.index, outcome);
        while let Some(outcome) = early.remove(&self.next) {
            self.ready.push_back(outcome);
            self.next += 1;
        }
    }

    /// Whether item `index` may be taken.
    pub(super) fn has_room(&self, index: u64) -> bool {
        let in_window = self.early.is_none() || index.saturating_sub(self.next) < WINDOW;
        in_window && self.ready.len() < READY && self.bytes < READY_BYTES
    }

    /// What can be read now.
    pub(super) fn take(&mut self) -> Vec<Outcome<Payload>> {
        let count = self.ready.len().min(BATCH);
        let batch: Vec<_> = self.ready.drain(..count).collect();
        self.bytes -= batch.iter().map(weight).sum::<usize>();
        batch
    }

    pub(super) fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }
}

/// Bytes of an outcome that are worth counting.
pub(super) fn weight(outcome: &Outcome<Payload>) -> usize {
    let result = match &outcome.result {
        Ok(result) => result.as_bytes().len(),
        Err(error) => error.message.len() + error.data.as_ref().map_or(0, |data| data.as_bytes().len()),
    };
    result + outcome.input.as_bytes().len()
}
