//! Finds keys that stand twice in one object.

use std::{
    collections::HashSet,
    hash::{BuildHasher, RandomState},
};

/// The keys of the objects that are open. It keeps 64 bits of each, under a key of its own that nobody else knows: that
/// two different ones are taken for the same is less likely than a broken machine.
#[derive(Default)]
pub(super) struct Keys {
    hasher: RandomState,
    hashes: Vec<u64>,
    open: Vec<Open>,
}

struct Open {
    start: usize,
    /// Once there are more than a few.
    many: HashSet<u64>,
}

/// So many keys are faster compared one by one.
const FEW: usize = 16;

impl Keys {
    pub(super) fn open(&mut self) {
        self.open.push(Open { start: self.hashes.len(), many: HashSet::new() });
    }

    pub(super) fn close(&mut self) {
        if let Some(open) = self.open.pop() {
            self.hashes.truncate(open.start);
        }
    }

    /// Adds a key to the innermost object; `false` if it has it already.
    pub(super) fn insert(&mut self, key: &str) -> bool {
        let hash = self.hasher.hash_one(key);
        let Some(open) = self.open.last_mut() else { return true };
        if !open.many.is_empty() {
            return open.many.insert(hash);
        }
        let few = &self.hashes[open.start..];
        if few.contains(&hash) {
            return false;
        }
        if few.len() == FEW {
            open.many.extend(self.hashes.drain(open.start..));
            open.many.insert(hash);
        } else {
            self.hashes.push(hash);
        }
        true
    }
}
