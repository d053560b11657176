//! The feed of what changes in the swarm.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use futures::{Stream, StreamExt, stream::BoxStream};
use tokio::sync::broadcast::{self, error::RecvError};

use crate::description::Event;

/// Events that are kept for a slow reader; it is told how many it has missed.
pub(crate) const KEPT: usize = 1024;

/// What changes in the swarm from now on: see [`Event`]. Ends when the node has stopped.
#[must_use = "events are only seen by who reads them"]
pub struct Events(BoxStream<'static, Event>);

impl Events {
    pub(crate) fn new(receiver: broadcast::Receiver<Event>) -> Self {
        let events = futures::stream::unfold(receiver, |mut receiver| async {
            match receiver.recv().await {
                Ok(event) => Some((event, receiver)),
                Err(RecvError::Lagged(missed)) => Some((Event::Missed(missed), receiver)),
                Err(RecvError::Closed) => None,
            }
        });
        Self(events.boxed())
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
