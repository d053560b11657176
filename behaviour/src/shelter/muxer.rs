//! The muxer of a connection under a roof.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use libp2p::core::muxing::{StreamMuxer, StreamMuxerBox, StreamMuxerEvent, SubstreamBox};

use super::{Panics, panicked};

/// Puts a muxer under a roof: from its first panic on it has failed.
#[must_use]
pub fn muxer(inner: StreamMuxerBox, panics: Panics) -> StreamMuxerBox {
    StreamMuxerBox::new(Sheltered { inner: Some(inner), panics })
}

/// A muxer whose panics are errors.
struct Sheltered {
    inner: Option<StreamMuxerBox>,
    panics: Panics,
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
        self.ask(|inner| inner.poll_close(context))
    }
}
