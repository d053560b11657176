//! Who still waits for what: guards that keep the counts of an exchange true whatever is dropped.

use std::{ops::Deref, sync::atomic::Ordering::Relaxed};

use super::{LaneError, Reply, exchange::Exchange, run::Lane};
use crate::wire::Frame;

/// Counts an answer that is on its way into a queue, as long as it lives.
pub(super) struct Replying<E: Deref<Target = Exchange>>(E);

impl<E: Deref<Target = Exchange>> Replying<E> {
    pub(super) fn begin(exchange: E) -> Self {
        exchange.replying().fetch_add(1, Relaxed);
        Self(exchange)
    }
}

impl<E: Deref<Target = Exchange>> Drop for Replying<E> {
    fn drop(&mut self) {
        self.0.replying().fetch_sub(1, Relaxed);
    }
}

/// As long as it lives somebody waits for the answer; dropped before, the other side is told.
pub(super) struct Interest<'a> {
    exchange: &'a Exchange,
    lane: &'a Lane,
    id: u64,
    pub(super) state: State,
}

#[derive(PartialEq, Eq)]
pub(super) enum State {
    Unsent,
    Sent,
    Answered,
}

impl<'a> Interest<'a> {
    pub(super) fn new(exchange: &'a Exchange, lane: &'a Lane, id: u64) -> Self {
        lane.begin_use();
        Self { exchange, lane, id, state: State::Unsent }
    }

    /// The caller may have seen the deadline before the lane did.
    pub(super) fn answered_by(&mut self, outcome: &Reply) {
        if !matches!(outcome, Err(LaneError::TimedOut)) {
            self.state = State::Answered;
        }
    }
}

impl Drop for Interest<'_> {
    fn drop(&mut self) {
        self.lane.end_use();
        if self.state != State::Answered && self.exchange.asked().forget(self.id) && self.state == State::Sent {
            // A lane that is gone has cancelled everything by itself.
            let _ = self.lane.push(&Frame::Cancel { id: self.id });
        }
    }
}
