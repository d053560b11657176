//! A connection that fails after any number of bytes, and what the muxer makes of it.

use std::{
    collections::BTreeSet,
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, FutureExt, StreamExt, future::poll_fn};
use libp2p::{
    Multiaddr, PeerId, Transport,
    core::{
        Endpoint,
        muxing::{StreamMuxerBox, StreamMuxerExt},
        transport::{Boxed, DialOpts, ListenerId, MemoryTransport, PortUse, TransportEvent},
        upgrade::Version,
    },
    identity::Keypair,
    noise,
    pnet::{PnetConfig, PreSharedKey},
    yamux,
};
use tokio::time::timeout;

use super::Config;

const LIMIT: Duration = Duration::from_secs(30);

/// How the connection of one side ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    /// Every read, write and flush fails from then on.
    Error,
    /// There is nothing more to read; what is written goes nowhere, as long as nobody notices.
    Closed,
    /// The other side has stopped reading: only writes and flushes fail.
    Deaf,
}

/// What one side has read and written together, and where that ends.
#[derive(Debug, Clone)]
struct Cut {
    left: usize,
    end: End,
    passed: Arc<AtomicUsize>,
}

impl Cut {
    fn after(left: usize, end: End) -> Self {
        Self { left, end, passed: Arc::default() }
    }
}

struct Cutting<C> {
    io: C,
    cut: Cut,
}

impl<C> Cutting<C> {
    fn pass(&mut self, outcome: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(count)) = &outcome {
            self.cut.left -= count;
            self.cut.passed.fetch_add(*count, Relaxed);
        }
        outcome
    }

    fn broken<T>() -> Poll<io::Result<T>> {
        Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
    }
}

impl<C: AsyncRead + Unpin> AsyncRead for Cutting<C> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        match (self.cut.left, self.cut.end) {
            (0, End::Error) => return Self::broken(),
            (0, End::Closed) => return Poll::Ready(Ok(0)),
            (0, End::Deaf) => return Pin::new(&mut self.io).poll_read(context, buffer),
            _ => {}
        }
        let most = buffer.len().min(self.cut.left);
        let outcome = Pin::new(&mut self.io).poll_read(context, &mut buffer[..most]);
        self.pass(outcome)
    }
}

impl<C: AsyncWrite + Unpin> AsyncWrite for Cutting<C> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        match (self.cut.left, self.cut.end) {
            (0, End::Error | End::Deaf) => return Self::broken(),
            (0, End::Closed) => return Poll::Ready(Ok(buffer.len())),
            _ => {}
        }
        let most = buffer.len().min(self.cut.left);
        let outcome = Pin::new(&mut self.io).poll_write(context, &buffer[..most]);
        self.pass(outcome)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let first = buffers.iter().find(|buffer| !buffer.is_empty()).map_or(&[][..], |buffer| buffer);
        self.poll_write(context, first)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match (self.cut.left, self.cut.end) {
            (0, End::Error | End::Deaf) => Self::broken(),
            (0, End::Closed) => Poll::Ready(Ok(())),
            _ => Pin::new(&mut self.io).poll_flush(context),
        }
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match (self.cut.left, self.cut.end) {
            (0, End::Error | End::Deaf) => Self::broken(),
            _ => Pin::new(&mut self.io).poll_close(context),
        }
    }
}

/// The layers of an open or of a private swarm over memory, cut at the bottom.
fn layers(keypair: &Keypair, private: bool, cut: Cut) -> Boxed<(PeerId, StreamMuxerBox)> {
    let noise = noise::Config::new(keypair).unwrap();
    let memory = MemoryTransport::default().map(move |io, _| Cutting { io, cut });
    let yamux = Config::from(yamux::Config::default());
    if private {
        let guard = PnetConfig::new(PreSharedKey::new([7; 32]));
        let guarded = memory.and_then(move |io, _| guard.handshake(io));
        let layers = guarded.upgrade(Version::V1Lazy).authenticate(noise).multiplex(yamux);
        Transport::boxed(layers.map(|(peer_id, muxer), _| (peer_id, StreamMuxerBox::new(muxer))))
    } else {
        let layers = memory.upgrade(Version::V1Lazy).authenticate(noise).multiplex(yamux);
        Transport::boxed(layers.map(|(peer_id, muxer), _| (peer_id, StreamMuxerBox::new(muxer))))
    }
}

/// What a connection does: it opens a stream and says something, echoes what it is told, and ends with an error, or when
/// what it has said has come back. Then it is asked once more, which must do no harm.
async fn converse(mut muxer: StreamMuxerBox, speaks: bool) -> io::Result<()> {
    let outcome = conversation(&mut muxer, speaks).await;
    let more = poll_fn(|context| {
        let again = [
            muxer.poll_unpin(context).map_ok(drop),
            muxer.poll_outbound_unpin(context).map_ok(drop),
            muxer.poll_inbound_unpin(context).map_ok(drop),
        ];
        Poll::Ready(again.map(|again| matches!(again, Poll::Ready(Err(_)))))
    })
    .await;
    assert!(outcome.is_ok() || more == [true; 3], "an error is for good");
    let _ = muxer.close().now_or_never();
    outcome
}

async fn conversation(muxer: &mut StreamMuxerBox, speaks: bool) -> io::Result<()> {
    let mut work: futures::stream::FuturesUnordered<futures::future::BoxFuture<'static, io::Result<()>>> =
        Default::default();
    let mut opened = !speaks;
    poll_fn(|context| {
        loop {
            if let Poll::Ready(Err(error)) = muxer.poll_unpin(context) {
                return Poll::Ready(Err(error));
            }
            if !opened && let Poll::Ready(stream) = muxer.poll_outbound_unpin(context) {
                opened = true;
                work.push(speak(stream?).boxed());
                continue;
            }
            match muxer.poll_inbound_unpin(context) {
                Poll::Ready(stream) => work.push(echo(stream?).boxed()),
                Poll::Pending => match work.poll_next_unpin(context) {
                    // The echo waits for the other side to hang up.
                    Poll::Ready(Some(outcome)) if speaks => return Poll::Ready(outcome),
                    Poll::Ready(Some(_)) => {}
                    Poll::Ready(None) | Poll::Pending => return Poll::Pending,
                },
            }
        }
    })
    .await
}

async fn speak(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
    stream.write_all(b"hello").await?;
    stream.flush().await?;
    stream.read_exact(&mut [0; 5]).await
}

async fn echo(stream: impl AsyncRead + AsyncWrite) -> io::Result<()> {
    let (reader, mut writer) = stream.split();
    futures::io::copy(reader, &mut writer).await.map(drop)
}

/// One connection between two sides, each with its own cut. Gives whether what the dialler said came back.
async fn connect(private: bool, dialler: Cut, listener: Cut) -> bool {
    let keypairs = [Keypair::generate_ed25519(), Keypair::generate_ed25519()];
    let mut here = layers(&keypairs[0], private, dialler);
    let mut there = layers(&keypairs[1], private, listener);
    there.listen_on(ListenerId::next(), "/memory/0".parse::<Multiaddr>().unwrap()).unwrap();
    let Some(TransportEvent::NewAddress { listen_addr, .. }) = there.next().await else { panic!("it listens") };
    let options = DialOpts { role: Endpoint::Dialer, port_use: PortUse::New };
    let dial = here.dial(listen_addr, options).unwrap();
    let dialled = tokio::spawn(async move { converse(dial.await?.1, true).await });
    let taken = tokio::spawn(async move {
        loop {
            if let Some(TransportEvent::Incoming { upgrade, .. }) = there.next().await {
                return converse(upgrade.await?.1, false).await;
            }
        }
    });
    let (dialled, taken) = timeout(LIMIT, futures::future::join(dialled, taken)).await.expect("both sides end");
    assert!(taken.expect("the listener does not panic").is_err(), "the dialler hangs up");
    dialled.expect("the dialler does not panic").is_ok()
}

/// Cuts a connection after every byte that one of its sides reads or writes, in all ways.
async fn cut_everywhere(private: bool) {
    let whole = || Cut::after(usize::MAX, End::Error);
    let (dialler, listener) = (whole(), whole());
    assert!(connect(private, dialler.clone(), listener.clone()).await);
    let lengths = [dialler, listener].map(|cut| cut.passed.load(Relaxed));
    assert!(lengths.iter().all(|length| *length > 300), "{lengths:?}");
    let mut failed = BTreeSet::new();
    for end in [End::Error, End::Closed, End::Deaf] {
        for byte in 0..lengths[0] {
            if !connect(private, Cut::after(byte, end), whole()).await {
                failed.insert((end, "dialler", byte));
            }
        }
        for byte in 0..lengths[1] {
            if !connect(private, whole(), Cut::after(byte, end)).await {
                failed.insert((end, "listener", byte));
            }
        }
    }
    assert!(failed.len() > lengths[0], "most of them end early: {}", failed.len());
}

#[tokio::test]
async fn an_open_connection_that_is_cut_at_any_byte_ends_with_an_error() {
    cut_everywhere(false).await;
}

#[tokio::test]
async fn a_private_connection_that_is_cut_at_any_byte_ends_with_an_error() {
    cut_everywhere(true).await;
}
