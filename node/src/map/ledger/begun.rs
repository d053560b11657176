//! At most once: which items are begun as far as the file has it, and what it had of them before. Pure.

use std::collections::HashMap;

use multinodes_behaviour::quick_hash::QuickHash;

use super::super::{durable::Durable, journal::Entry};

/// The items without an outcome of which the file has, or is about to have, that they are begun; and those that are to be
/// run again.
#[derive(Default)]
pub(super) struct Begun(HashMap<u64, Item, QuickHash>);

#[derive(Default)]
struct Item {
    /// What is recorded of it by an earlier run. It is put back if the item is not sent after all: else it would be
    /// forgotten that it has run.
    before: Option<Entry>,
    step: Step,
}

#[derive(Default, PartialEq, Eq)]
enum Step {
    #[default]
    Idle,
    Asked,
    Durable,
}

impl Begun {
    /// An item is to be run again, of which this is recorded.
    pub(super) fn keep(&mut self, index: u64, before: Entry) {
        self.0.insert(index, Item { before: Some(before), step: Step::Idle });
    }

    /// It is about to be recorded that an item is begun.
    pub(super) fn ask(&mut self, index: u64) {
        self.0.entry(index).or_default().step = Step::Asked;
    }

    pub(super) fn on_durable(&mut self, durable: &Durable) {
        if let Durable::Begun(index) = durable
            && let Some(item) = self.0.get_mut(index)
        {
            item.step = Step::Durable;
        }
    }

    pub(super) fn is_durable(&self, index: u64) -> bool {
        self.0.get(&index).is_some_and(|item| item.step == Step::Durable)
    }

    /// The item has its outcome.
    pub(super) fn end(&mut self, index: u64) {
        self.0.remove(&index);
    }

    /// Forgets that these were begun, and gives what is to be recorded of them instead.
    pub(super) fn withdraw(&mut self, which: impl Fn(u64) -> bool) -> Vec<(u64, Option<Entry>)> {
        let withdrawn = self.0.extract_if(|index, item| item.step != Step::Idle && which(*index));
        withdrawn.map(|(index, item)| (index, item.before)).collect()
    }
}
