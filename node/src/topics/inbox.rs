//! The messages that a subscription has not read yet.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

use super::{Heard, TopicMessage};

/// The most messages that wait in a subscription.
const MAX_MESSAGES: usize = 1024;

/// The most that they have together, in bytes.
pub(super) const MAX_BYTES: usize = 4 * 1024 * 1024;

/// The messages that a subscription has not read yet. It has one reader.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    messages: VecDeque<TopicMessage>,
    bytes: usize,
    /// Lost since the reader was told.
    missed: u64,
    closed: bool,
}

impl Inbox {
    /// Adds a message, and gives how many of the oldest ones were lost for it.
    pub(super) fn push(&self, message: TopicMessage) -> u64 {
        let mut state = self.state();
        let size = size(&message);
        let mut lost = 0;
        while state.messages.len() >= MAX_MESSAGES || state.bytes + size > MAX_BYTES {
            let Some(oldest) = state.messages.pop_front() else { break };
            state.bytes -= self::size(&oldest);
            lost += 1;
        }
        state.missed += lost;
        state.bytes += size;
        state.messages.push_back(message);
        drop(state);
        self.changed.notify_one();
        lost
    }

    pub(super) fn close(&self) {
        self.state().closed = true;
        self.changed.notify_one();
    }

    /// What comes next; `None` after it was closed and all was read.
    pub(super) async fn next(&self) -> Option<Heard> {
        loop {
            if let Some(next) = self.take() {
                return next;
            }
            self.changed.notified().await;
        }
    }

    /// What comes next, if something does.
    fn take(&self) -> Option<Option<Heard>> {
        let mut state = self.state();
        if state.missed > 0 {
            return Some(Some(Heard::Missed(std::mem::take(&mut state.missed))));
        }
        match state.messages.pop_front() {
            Some(message) => {
                state.bytes -= size(&message);
                Some(Some(Heard::Message(message)))
            }
            None => state.closed.then_some(None),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn size(message: &TopicMessage) -> usize {
    message.value.as_bytes().len()
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use libp2p::PeerId;

    use super::*;
    use crate::payload::Payload;

    fn message(number: usize, size: usize) -> TopicMessage {
        let value = Payload::encode(&(number, "x".repeat(size))).unwrap();
        TopicMessage { from: PeerId::from_multihash(Default::default()).unwrap(), node: None, value }
    }

    fn read(inbox: &Inbox) -> Vec<Result<usize, u64>> {
        std::iter::from_fn(|| inbox.next().now_or_never().flatten())
            .map(|heard| match heard {
                Heard::Message(message) => Ok(message.value.decode::<(usize, String)>().unwrap().0),
                Heard::Missed(count) => Err(count),
            })
            .collect()
    }

    #[test]
    fn a_slow_reader_loses_the_oldest_and_is_told_how_many() {
        let inbox = Inbox::default();
        let lost: u64 = (0..MAX_MESSAGES + 3).map(|number| inbox.push(message(number, 1))).sum();
        assert_eq!(lost, 3);
        let heard = read(&inbox);
        assert_eq!(heard[..2], [Err(3), Ok(3)]);
        assert_eq!((heard.len(), heard.last()), (MAX_MESSAGES + 1, Some(&Ok(MAX_MESSAGES + 2))));
        assert_eq!(inbox.state().bytes, 0);
    }

    #[test]
    fn large_messages_are_bounded_by_their_bytes() {
        let inbox = Inbox::default();
        let lost: u64 = (0..100).map(|number| inbox.push(message(number, MAX_BYTES / 10))).sum();
        assert!(inbox.state().bytes <= MAX_BYTES);
        assert_eq!(lost, 91);
        assert_eq!(read(&inbox)[..2], [Err(91), Ok(91)]);
    }

    #[test]
    fn what_was_there_is_read_before_the_end() {
        let inbox = Inbox::default();
        inbox.push(message(1, 1));
        inbox.close();
        assert_eq!(read(&inbox), [Ok(1)]);
        assert_eq!(inbox.next().now_or_never(), Some(None));
    }
}
