//! The muxer of a connection under a roof.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use futures::FutureExt;
use libp2p::core::muxing::{StreamMuxer, StreamMuxerBox, StreamMuxerEvent, SubstreamBox};
use tokio::time::{Sleep, sleep};

use super::{Panics, panicked};

/// What is still to be written to a peer that does not read is given up after so long. Until then the connection counts
/// as one, since libp2p says that it is closed only when its muxer is.
const CLOSING: Duration = Duration::from_secs(3);

/// Puts a muxer under a roof: from its first panic on it has failed, and to close it takes 3 s at the most.
#[must_use]
pub fn muxer(inner: StreamMuxerBox, panics: Panics) -> StreamMuxerBox {
    StreamMuxerBox::new(Sheltered { inner: Some(inner), panics, closing: None })
}

/// A muxer whose panics are errors.
struct Sheltered {
    inner: Option<StreamMuxerBox>,
    panics: Panics,
    /// When closing it has taken too long.
    closing: Option<Pin<Box<Sleep>>>,
}

impl Sheltered {
    fn ask<T>(&mut self, ask: impl FnOnce(Pin<&mut StreamMuxerBox>) -> Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        let Some(inner) = &mut self.inner else { return Poll::Ready(Err(panicked())) };
        if let Some(outcome) = self.panics.shelter("the muxer", || ask(Pin::new(inner))) {
            return outcome;
        }
        self.panics.discard(self.inner.take());
        Poll::Ready(Err(panicked()))
    }
}

impl StreamMuxer for Sheltered {
    type Substream = SubstreamBox;
    type Error = io::Error;

    fn poll_inbound(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<SubstreamBox>> {
        self.ask(|inner| inner.poll_inbound(context))
    }

    fn poll_outbound(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<SubstreamBox>> {
        self.ask(|inner| inner.poll_outbound(context))
    }

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<StreamMuxerEvent>> {
        self.ask(|inner| inner.poll(context))
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let closed = self.ask(|inner| inner.poll_close(context));
        let closing = self.closing.get_or_insert_with(|| Box::pin(sleep(CLOSING)));
        if closed.is_pending() && closing.poll_unpin(context).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        closed
    }
}
