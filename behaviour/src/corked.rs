//! Writes what many streams have to say as one record instead of one for each frame.
//!
//! Yamux flushes after every frame of 16 KiB at the most, and every flush makes one noise record and one system call.
//! Here a flush by yamux only counts as a wish; the muxer flushes for good when yamux has nothing more to say at the
//! moment, or has said as much as one record holds.
//!
//! Invariants: whenever a poll of [`CorkedMuxer`] returns, all that was written is flushed, or the flush is pending and
//! has registered the task's waker. After the first error, of yamux or of the connection, the connection is dropped and
//! never asked again: what is negotiated lazily does not bear that, it panics. Everybody is given that first error.

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
        Box::pin(async move { Ok(CorkedMuxer::new(self.0.upgrade_inbound(io, info).await?, uncork)) })
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
        Box::pin(async move { Ok(CorkedMuxer::new(self.0.upgrade_outbound(io, info).await?, uncork)) })
    }
}

/// Yamux that flushes once a turn.
#[derive(Debug)]
pub struct CorkedMuxer<C> {
    yamux: yamux::Muxer<Corked<C>>,
    io: Corked<C>,
    failure: Option<Failure>,
}

impl<C: AsyncRead + AsyncWrite + Unpin + 'static> CorkedMuxer<C> {
    fn new(yamux: yamux::Muxer<Corked<C>>, io: Corked<C>) -> Self {
        Self { yamux, io, failure: None }
    }

    /// Lets yamux have its turn, and flushes what it has said. Its error is the cause of whatever comes after it, so
    /// nothing is flushed then.
    fn turn<T>(
        &mut self,
        context: &mut Context<'_>,
        turn: impl FnOnce(Pin<&mut yamux::Muxer<Corked<C>>>, &mut Context<'_>) -> Poll<Result<T, yamux::Error>>,
    ) -> Poll<io::Result<T>> {
        if let Some(failure) = &self.failure {
            return Poll::Ready(Err(failure.error()));
        }
        let outcome = match turn(Pin::new(&mut self.yamux), context) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error.into())),
            Poll::Ready(Ok(done)) => Poll::Ready(self.io.uncork(context).map(|()| done)),
            Poll::Pending => self.io.uncork(context).map_or_else(|error| Poll::Ready(Err(error)), |()| Poll::Pending),
        };
        if let Poll::Ready(Err(error)) = &outcome {
            self.failure = Some(self.io.fail(error));
        }
        outcome
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin + 'static> StreamMuxer for CorkedMuxer<C> {
    type Substream = yamux::Stream;
    type Error = io::Error;

    fn poll_inbound(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<yamux::Stream>> {
        self.turn(context, StreamMuxer::poll_inbound)
    }

    fn poll_outbound(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<yamux::Stream>> {
        self.turn(context, StreamMuxer::poll_outbound)
    }

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<StreamMuxerEvent>> {
        self.turn(context, StreamMuxer::poll)
    }

    /// Yamux ends by closing the connection below, and that flushes: a cork does not hold it back.
    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.turn(context, StreamMuxer::poll_close)
    }
}

/// The first error of a connection, to be told again and again.
#[derive(Debug, Clone)]
struct Failure {
    kind: io::ErrorKind,
    code: Option<i32>,
    text: Arc<str>,
}

impl Failure {
    fn of(error: &io::Error) -> Self {
        Self { kind: error.kind(), code: error.raw_os_error(), text: error.to_string().into() }
    }

    fn error(&self) -> io::Error {
        self.code.map_or_else(|| io::Error::new(self.kind, &*self.text), io::Error::from_raw_os_error)
    }
}

/// A connection that yamux cannot flush.
///
/// Yamux keeps its connection to itself, so the muxer around it shares it; both live in one task, and nobody ever waits
/// for the lock.
#[derive(Debug)]
struct Corked<C>(Arc<Mutex<State<C>>>);

#[derive(Debug)]
enum State<C> {
    Open(Open<C>),
    /// The connection is gone.
    Failed(Failure),
}

#[derive(Debug)]
struct Open<C> {
    io: C,
    /// Bytes written since the last complete flush.
    unflushed: usize,
}

impl<C> Corked<C> {
    fn new(io: C) -> Self {
        Self(Arc::new(Mutex::new(State::Open(Open { io, unflushed: 0 }))))
    }

    fn state(&self) -> MutexGuard<'_, State<C>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the connection because of `error`, or because of the one that came before. Gives which it was.
    fn fail(&self, error: &io::Error) -> Failure {
        self.state().fail(error)
    }

    /// Uses the connection, for the last time if that fails.
    fn with<T>(&self, operation: impl FnOnce(&mut Open<C>) -> Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        let mut state = self.state();
        let outcome = match &mut *state {
            State::Open(open) => operation(open),
            State::Failed(failure) => return Poll::Ready(Err(failure.error())),
        };
        if let Poll::Ready(Err(error)) = &outcome {
            state.fail(error);
        }
        outcome
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
        match self.with(|open| open.flush(context)) {
            Poll::Ready(outcome) => outcome,
            Poll::Pending => Ok(()),
        }
    }
}

impl<C> State<C> {
    fn fail(&mut self, error: &io::Error) -> Failure {
        if let Self::Failed(failure) = self {
            return failure.clone();
        }
        let failure = Failure::of(error);
        *self = Self::Failed(failure.clone());
        failure
    }
}

impl<C: AsyncWrite + Unpin> Open<C> {
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
        self.with(|open| Pin::new(&mut open.io).poll_read(context, buffer))
    }

    fn poll_read_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
    ) -> Poll<io::Result<usize>> {
        self.with(|open| Pin::new(&mut open.io).poll_read_vectored(context, buffers))
    }
}

impl<C: AsyncWrite + Unpin> AsyncWrite for Corked<C> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        self.with(|open| {
            let outcome = Pin::new(&mut open.io).poll_write(context, buffer);
            open.written(outcome)
        })
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.with(|open| {
            let outcome = Pin::new(&mut open.io).poll_write_vectored(context, buffers);
            open.written(outcome)
        })
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(|open| if open.unflushed >= RECORD { open.flush(context) } else { Poll::Ready(Ok(())) })
    }

    fn poll_close(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(|open| {
            ready!(Pin::new(&mut open.io).poll_close(context))?;
            open.unflushed = 0;
            Poll::Ready(Ok(()))
        })
    }
}

#[cfg(test)]
mod cut;
#[cfg(test)]
mod tests;
