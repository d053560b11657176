//! What was refused, and why.

use std::collections::{HashMap, VecDeque};

use crate::code::{cid::Cid, code_error::CodeError, vetting::Budget};

/// Refusals that are remembered. A few hundred bytes each.
const MOST: usize = 1024;

type Key = (Cid, Budget);

#[derive(Debug, Default)]
pub(super) struct Refusals {
    errors: HashMap<Key, CodeError>,
    order: VecDeque<Key>,
}

impl Refusals {
    pub(super) fn find(&self, key: &Key) -> Option<CodeError> {
        self.errors.get(key).cloned()
    }

    pub(super) fn insert(&mut self, key: Key, error: CodeError) {
        if self.errors.insert(key, error).is_none() {
            self.order.push_back(key);
        }
        if self.order.len() > MOST
            && let Some(oldest) = self.order.pop_front()
        {
            self.errors.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_so_many_refusals_are_remembered() {
        let mut refusals = Refusals::default();
        let key = |number: usize| (Cid::of(&number.to_be_bytes()), Budget::unlimited());
        for number in 0..=MOST {
            refusals.insert(key(number), CodeError::BadSignature);
        }
        assert_eq!(refusals.errors.len(), MOST);
        assert_eq!(refusals.order.len(), MOST);
        assert_eq!(refusals.find(&key(0)), None);
        assert_eq!(refusals.find(&key(MOST)), Some(CodeError::BadSignature));
    }
}
