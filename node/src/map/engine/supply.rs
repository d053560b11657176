//! Items on their way to workers: from the input as there is room, and to whoever has some.

use std::time::Instant;

use futures::{FutureExt, StreamExt, stream::BoxStream};

use super::{
    super::{
        items::Item,
        outcome::{ItemError, ItemErrorKind},
    },
    Engine, TURN,
};
use crate::payload::{EncodeError, Payload};

impl Engine {
    /// Takes items as workers have room, and says whether one is wanted that the input does not have yet.
    pub(super) async fn take_input(&mut self) -> bool {
        for _ in 0..TURN {
            if !self.wants_input() {
                return false;
            }
            let Some(input) = &mut self.input else { return false };
            match input.next().now_or_never() {
                Some(item) => self.on_input(item).await,
                None => return true,
            }
        }
        // The next turn goes on with it.
        self.wants_input()
    }

    fn wants_input(&mut self) -> bool {
        if self.input.is_none() || self.end.is_some() || !self.reports.has_room(self.next) || !self.ledger.has_room() {
            return false;
        }
        if self.ledger.has(self.next) && self.items.pending() + self.items.suspects() < TURN {
            // Usually it is recorded and needs nobody. Of those that are not, or are run again, only a few may wait.
            return true;
        }
        if self.workers.any_present() {
            !self.items.any_is_due() && self.workers.has_room(Instant::now())
        } else {
            // With one item at hand it is worth looking for somebody, and time to lose patience.
            self.items.is_empty()
        }
    }

    pub(super) async fn on_input(&mut self, item: Option<Result<Payload, EncodeError>>) {
        let Some(item) = item else {
            self.input = None;
            self.counts.input_ended = true;
            self.end = self.end.take().or(self.ledger.check_end(self.next).err());
            return;
        };
        let index = self.next;
        self.next += 1;
        self.counts.taken += 1;
        let payload = match item {
            Ok(payload) => payload,
            Err(error) => {
                let error = ItemError::new(ItemErrorKind::Unsendable, "unsendable", error);
                return self.conclude(index, Item::new(Payload::default()), Err(error), None);
            }
        };
        match self.ledger.find(index, &payload).await {
            Ok(Some(outcome)) => self.report(outcome),
            Ok(None) => {
                self.items.insert(index, Item::new(payload));
                self.items.return_soon(index);
                self.give_pending();
            }
            Err(error) => self.end = Some(error),
        }
    }

    /// Gives workers what waits for one.
    pub(super) fn give_pending(&mut self) {
        let now = Instant::now();
        for _ in 0..self.items.suspects() {
            let Some(index) = self.items.next_suspect() else { break };
            let Some(tried) = self.items.find(index).map(|item| item.tried()) else { continue };
            match self.workers.take_for_suspect(&tried, now) {
                Some(worker) => self.begin(index, worker, true, now),
                None => self.items.return_soon(index),
            }
        }
        for _ in 0..self.items.pending() {
            let Some(index) = self.items.next_pending() else { break };
            if self.items.find(index).is_none() {
                continue;
            }
            match self.workers.take(now) {
                Some(worker) => self.begin(index, worker, false, now),
                None => return self.items.return_soon(index),
            }
        }
    }
}

/// The next item, if there is an input.
pub(super) async fn next(
    input: &mut Option<BoxStream<'static, Result<Payload, EncodeError>>>,
) -> Option<Result<Payload, EncodeError>> {
    match input {
        Some(input) => input.next().await,
        None => None,
    }
}
