//! The feed of what changes in the swarm.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    pin::Pin,
    sync::{Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use futures::{Stream, StreamExt, stream, stream::BoxStream};
use tokio::sync::broadcast::{self, error::RecvError};

use crate::description::Event;

/// Events that are kept for a slow reader; it is told how many it has missed.
const KEPT: usize = 1024;

/// What does not work is kept for later readers, the latest of it: there are only a few ways of finding others.
const KEPT_TROUBLES: usize = 16;

/// The same for addresses to join through: more than a node takes.
const KEPT_JOINS: usize = 128;

/// Where events are told, for all readers.
pub(crate) struct Teller {
    events: broadcast::Sender<Event>,
    /// What does not work: most of it shows while the node starts, when nobody can read yet.
    troubles: Mutex<Troubles>,
}

#[derive(Default)]
struct Troubles {
    degraded: VecDeque<String>,
    /// Why an address to join through leads nowhere, by the address. There are only so many of them.
    joins: BTreeMap<String, String>,
}

impl Teller {
    pub(crate) fn new() -> Self {
        Self { events: broadcast::Sender::new(KEPT), troubles: Mutex::default() }
    }

    pub(crate) fn tell(&self, event: Event) {
        let mut troubles = self.troubles();
        match &event {
            Event::Degraded { reason } => {
                let degraded = &mut troubles.degraded;
                degraded.retain(|known| known != reason);
                if degraded.len() >= KEPT_TROUBLES {
                    degraded.pop_front();
                }
                degraded.push_back(reason.clone());
            }
            Event::JoinFailed { address, reason }
                if troubles.joins.len() < KEPT_JOINS || troubles.joins.contains_key(address) =>
            {
                troubles.joins.insert(address.clone(), reason.clone());
            }
            _ => {}
        }
        // Nobody has to listen.
        let _ = self.events.send(event);
    }

    /// An address to join through leads somewhere.
    pub(crate) fn joined(&self, address: &str) {
        self.troubles().joins.remove(address);
    }

    /// What happens from now on, after what was degraded before.
    pub(crate) fn subscribe(&self) -> Events {
        let troubles = self.troubles();
        let degraded = troubles.degraded.iter().map(|reason| Event::Degraded { reason: reason.clone() });
        let failed = |(address, reason): (&String, &String)| Event::JoinFailed {
            address: address.clone(),
            reason: reason.clone(),
        };
        let before: Vec<_> = degraded.chain(troubles.joins.iter().map(failed)).collect();
        Events::new(before, self.events.subscribe())
    }

    fn troubles(&self) -> MutexGuard<'_, Troubles> {
        self.troubles.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What changes in the swarm from now on: see [`Event`]. Begins with what the node has found not to work
/// ([`Event::Degraded`], [`Event::JoinFailed`]), ends when the node has stopped.
#[must_use = "events are only seen by who reads them"]
pub struct Events(BoxStream<'static, Event>);

impl Events {
    fn new(before: Vec<Event>, receiver: broadcast::Receiver<Event>) -> Self {
        let events = stream::unfold(receiver, |mut receiver| async {
            match receiver.recv().await {
                Ok(event) => Some((event, receiver)),
                Err(RecvError::Lagged(missed)) => Some((Event::Missed(missed), receiver)),
                Err(RecvError::Closed) => None,
            }
        });
        Self(stream::iter(before).chain(events).boxed())
    }

    /// The next event, or `None` when the node has stopped.
    pub async fn next(&mut self) -> Option<Event> {
        self.0.next().await
    }
}

impl Stream for Events {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        self.0.poll_next_unpin(cx)
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Events").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn degraded(number: usize) -> Event {
        Event::Degraded { reason: format!("reason {number}") }
    }

    #[test]
    fn a_late_reader_hears_first_what_does_not_work() {
        let teller = Teller::new();
        teller.tell(degraded(0));
        teller.tell(Event::NetworkRestarted { reason: String::new() });
        teller.tell(degraded(1));
        teller.tell(degraded(0));
        let mut events = teller.subscribe();
        teller.tell(degraded(2));
        let heard: Vec<_> = std::iter::from_fn(|| events.next().now_or_never().flatten()).collect();
        assert_eq!(heard, [degraded(1), degraded(0), degraded(2)]);
    }

    #[test]
    fn a_late_reader_hears_of_each_address_that_leads_nowhere_what_came_last() {
        let teller = Teller::new();
        let failed = |address: &str, reason: &str| Event::JoinFailed { address: address.into(), reason: reason.into() };
        for (address, reason) in [("a", "first"), ("b", "first"), ("a", "second"), ("c", "first")] {
            teller.tell(failed(address, reason));
        }
        teller.joined("b");
        let mut events = teller.subscribe();
        let heard: Vec<_> = std::iter::from_fn(|| events.next().now_or_never().flatten()).collect();
        assert_eq!(heard, [failed("a", "second"), failed("c", "first")]);
    }

    #[test]
    fn only_the_latest_troubles_are_kept() {
        let teller = Teller::new();
        for number in 0..2 * KEPT_TROUBLES {
            teller.tell(degraded(number));
        }
        let mut events = teller.subscribe();
        let heard: Vec<_> = std::iter::from_fn(|| events.next().now_or_never().flatten()).collect();
        assert_eq!(heard, (KEPT_TROUBLES..2 * KEPT_TROUBLES).map(degraded).collect::<Vec<_>>());
    }
}
