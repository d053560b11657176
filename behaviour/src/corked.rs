//! Writes what many streams have to say as one record instead of one for each frame.
//!
//! Yamux flushes after every frame of 16 KiB at the most, and every flush makes one noise record and one system call.
//! Here a flush by yamux only counts as a wish; the muxer flushes for good when yamux has nothing more to say at the
//! moment, or has said as much as one record holds.
//!
//! Invariant: whenever a poll of [`CorkedMuxer`] returns, all that was written is flushed, or the flush is pending and
//! has registered the task's waker.

use std::{
    io::{self, IoSlice, IoSliceMut},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};

use futures::{AsyncRead, AsyncWrite, future::BoxFuture};
use libp2p::{
    core::{
        UpgradeInfo,
        muxing::{StreamMuxer, StreamMuxerEvent},
        upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade},
    },
    yamux,
};

/// About one noise record at its largest. More would save little, and the buffers below keep the size they once had.
const RECORD: usize = 64 * 1024;

/// Upgrades an encrypted connection to yamux with a cork in it.
#[derive(Debug, Clone)]
pub struct Config(yamux::Config);

impl From<yamux::Config> for Config {
    fn from(yamux: yamux::Config) -> Self {
        Self(yamux)
    }
}

impl UpgradeInfo for Config {
    type Info = <yamux::Config as UpgradeInfo>::Info;
    type InfoIter = <yamux::Config as UpgradeInfo>::InfoIter;

    fn protocol_info(&self) -> Self::InfoIter {
        self.0.protocol_info()
    }
}

impl<C> InboundConnectionUpgrade<C> for Config
where
    C: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    type Output = CorkedMuxer<C>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<CorkedMuxer<C>>>;

    fn upgrade_inbound(self, io: C, info: Self::Info) -> Self::Future {
        let io = Corked::new(io);
        let uncork = io.clone();
        Box::pin(async move { Ok(CorkedMuxer { yamux: self.0.upgrade_inbound(io, info).await?, io: uncork }) })
    }
}

impl<C> OutboundConnectionUpgrade<C> for Config
where
    C: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    type Output = CorkedMuxer<C>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<CorkedMuxer<C>>>;

    fn upgrade_outbound(self, io: C, info: Self::Info) -> Self::Future {
        let io = Corked::new(io);
        let uncork = io.clone();
        Box::pin(async move { Ok(CorkedMuxer { yamux: self.0.upgrade_outbound(io, info).await?, io: uncork }) })
    }
}

/// Yamux that flushes once a turn.
#[derive(Debug)]
pub struct CorkedMuxer<C> {
    yamux: yamux::Muxer<Corked<C>>,
    io: Corked<C>,
}

impl<C: AsyncRead + AsyncWrite + Unpin + 'static> CorkedMuxer<C> {
    /// Flushes, and lets an error of yamux pass before one of the flush: it is the cause.
    fn uncork<T>(
        &self,
        outcome: Poll<Result<T, yamux::Error>>,
        context: &mut Context<'_>,
    ) -> Poll<Result<T, io::Error>> {
        match (self.io.uncork(context), outcome) {
            (Err(error), Poll::Pending | Poll::Ready(Ok(_))) => Poll::Ready(Err(error)),
            (_, outcome) => outcome.map_err(io::Error::from),
        }
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin + 'static> StreamMuxer for CorkedMuxer<C> {
    type Substream = yamux::Stream;
    type Error = io::Error;

    fn poll_inbound(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<yamux::Stream>> {
        let outcome = Pin::new(&mut self.yamux).poll_inbound(context);
        self.uncork(outcome, context)
    }

    fn poll_outbound(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<yamux::Stream>> {
        let outcome = Pin::new(&mut self.yamux).poll_outbound(context);
        self.uncork(outcome, context)
    }

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<StreamMuxerEvent>> {
        let outcome = Pin::new(&mut self.yamux).poll(context);
        self.uncork(outcome, context)
    }

    /// Yamux ends by closing the connection below, and that flushes: a cork does not hold it back.
    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.yamux).poll_close(context).map_err(io::Error::from)
    }
}

/// A connection that yamux cannot flush.
///
/// Yamux keeps its connection to itself, so the muxer around it shares it; both live in one task, and nobody ever waits
/// for the lock.
#[derive(Debug)]
struct Corked<C>(Arc<Mutex<State<C>>>);

#[derive(Debug)]
struct State<C> {
    io: C,
    /// Bytes written since the last complete flush.
    unflushed: usize,
}

impl<C> Corked<C> {
    fn new(io: C) -> Self {
        Self(Arc::new(Mutex::new(State { io, unflushed: 0 })))
    }

    fn state(&self) -> MutexGuard<'_, State<C>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<C> Clone for Corked<C> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<C: AsyncWrite + Unpin> Corked<C> {
    /// Flushes if something was written. A pending flush wakes the task, and the next poll goes on with it.
    fn uncork(&self, context: &mut Context<'_>) -> io::Result<()> {
        if let Poll::Ready(outcome) = self.state().flush(context) {
            return outcome;
        }
        Ok(())
    }
}

impl<C: AsyncWrite + Unpin> State<C> {
    fn flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.unflushed > 0 {
            ready!(Pin::new(&mut self.io).poll_flush(context))?;
            self.unflushed = 0;
        }
        Poll::Ready(Ok(()))
    }

    fn written(&mut self, outcome: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(written)) = outcome {
            self.unflushed += written;
        }
        outcome
    }
}

impl<C: AsyncRead + Unpin> AsyncRead for Corked<C> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let state = &mut *self.state();
        Pin::new(&mut state.io).poll_read(context, buffer)
    }

    fn poll_read_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
    ) -> Poll<io::Result<usize>> {
        let state = &mut *self.state();
        Pin::new(&mut state.io).poll_read_vectored(context, buffers)
    }
}

impl<C: AsyncWrite + Unpin> AsyncWrite for Corked<C> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        let state = &mut *self.state();
        let outcome = Pin::new(&mut state.io).poll_write(context, buffer);
        state.written(outcome)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let state = &mut *self.state();
        let outcome = Pin::new(&mut state.io).poll_write_vectored(context, buffers);
        state.written(outcome)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let state = &mut *self.state();
        if state.unflushed >= RECORD { state.flush(context) } else { Poll::Ready(Ok(())) }
    }

    fn poll_close(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let state = &mut *self.state();
        ready!(Pin::new(&mut state.io).poll_close(context))?;
        state.unflushed = 0;
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests;
