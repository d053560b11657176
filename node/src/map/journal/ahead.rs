//! Outcomes that were read before anybody asked for them.

use std::{collections::VecDeque, ops::RangeInclusive};

use super::Entry;

/// So many outcomes are read at once: a transaction for each would cost more than the reading.
const COUNT: usize = 1024;

/// After so many bytes of outcomes no more are read ahead.
const BYTES: usize = 1024 * 1024;

/// All that is recorded for the indexes `from..end`. An outcome is handed out once: who asks again has it read again.
#[derive(Default)]
pub(super) struct Ahead {
    from: u64,
    end: u64,
    entries: VecDeque<(u64, Entry)>,
}

impl Ahead {
    /// The answer for an index, if it is known; what is before it is forgotten.
    pub(super) fn take(&mut self, index: u64) -> Option<Option<Entry>> {
        if !(self.from..self.end).contains(&index) {
            return None;
        }
        self.from = index + 1;
        let before = self.entries.partition_point(|(recorded, _)| *recorded < index);
        self.entries.drain(..before);
        if self.entries.front().is_none_or(|(recorded, _)| *recorded != index) {
            return Some(None);
        }
        Some(self.entries.pop_front().map(|(_, entry)| entry))
    }

    /// How many outcomes to read from an index on: only who asks for one after the other is going to want more of them.
    pub(super) fn worthwhile(&self, index: u64) -> usize {
        if index == self.from { COUNT } else { 1 }
    }

    /// Reads outcomes from an index on.
    pub(super) fn read(index: u64, count: usize, recorded: redb::Range<'_, u64, &[u8]>) -> Result<Self, redb::Error> {
        let mut ahead = Self { from: index, end: index + 1, entries: VecDeque::new() };
        let mut bytes = 0;
        for outcome in recorded {
            let (key, value) = outcome?;
            if count == 1 && key.value() != index {
                return Ok(ahead);
            }
            let entry = Entry::decode(value.value())?;
            bytes += entry.outcome.len();
            ahead.end = key.value().saturating_add(1);
            ahead.entries.push_back((key.value(), entry));
            if ahead.entries.len() >= count || bytes >= BYTES {
                return Ok(ahead);
            }
        }
        Ok(ahead)
    }

    /// Forgets everything if any of these was overwritten.
    pub(super) fn forget(&mut self, overwritten: RangeInclusive<u64>) {
        if *overwritten.start() < self.end && self.from <= *overwritten.end() {
            *self = Self { from: self.from, end: self.from, entries: VecDeque::new() };
        }
    }
}
