use std::time::Duration;

use futures::{AsyncReadExt, AsyncWriteExt, StreamExt, future::poll_fn, stream::FuturesUnordered};
use libp2p::core::muxing::{StreamMuxerBox, StreamMuxerExt};
use tokio::{net::TcpListener, time::timeout};
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt};

use super::*;

const LIMIT: Duration = Duration::from_secs(30);

type Tcp = Compat<tokio::net::TcpStream>;

/// Two ends of a TCP connection with buffering below the muxer, so that what is not flushed does not arrive.
async fn pair() -> (CorkedMuxer<Buffered>, CorkedMuxer<Buffered>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (client, server) = tokio::join!(tokio::net::TcpStream::connect(address), listener.accept());
    let buffered = |stream: tokio::net::TcpStream| Buffered { io: stream.compat(), pending: Vec::new(), flushes: 0 };
    let config = Config::from(yamux::Config::default());
    let client = config.clone().upgrade_outbound(buffered(client.unwrap()), "/yamux/1.0.0");
    let server = config.upgrade_inbound(buffered(server.unwrap().0), "/yamux/1.0.0");
    tokio::try_join!(client, server).unwrap()
}

/// Keeps everything until it is flushed, as noise does.
#[derive(Debug)]
struct Buffered {
    io: Tcp,
    pending: Vec<u8>,
    flushes: usize,
}

impl AsyncRead for Buffered {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_read(context, buffer)
    }
}

impl AsyncWrite for Buffered {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        while self.pending.len() > 128 * 1024 {
            ready!(self.as_mut().poll_some(context))?;
        }
        self.pending.extend_from_slice(buffer);
        Poll::Ready(Ok(buffer.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.pending.is_empty() {
            ready!(self.as_mut().poll_some(context))?;
        }
        self.flushes += 1;
        Poll::Ready(Ok(()))
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.as_mut().poll_flush(context))?;
        Pin::new(&mut self.io).poll_close(context)
    }
}

impl Buffered {
    fn poll_some(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let written = ready!(Pin::new(&mut this.io).poll_write(context, &this.pending))?;
        this.pending.drain(..written);
        Poll::Ready(Ok(()))
    }
}

/// Runs a muxer as a connection does; streams that come in are echoed.
fn run(mut muxer: StreamMuxerBox) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        let mut echoes = tokio::task::JoinSet::new();
        poll_fn(|context| {
            loop {
                if let Poll::Ready(outcome) = muxer.poll_unpin(context) {
                    assert!(outcome.is_err(), "TCP does not change its address");
                    return Poll::Ready(());
                }
                match muxer.poll_inbound_unpin(context) {
                    Poll::Ready(Ok(stream)) => {
                        echoes.spawn(echo(stream));
                    }
                    Poll::Ready(Err(_)) => return Poll::Ready(()),
                    Poll::Pending => return Poll::Pending,
                }
            }
        })
        .await;
    })
}

async fn echo(stream: impl AsyncRead + AsyncWrite) {
    let (reader, mut writer) = stream.split();
    let _ = futures::io::copy(reader, &mut writer).await;
    let _ = writer.close().await;
}

async fn round_trip(mut stream: impl AsyncRead + AsyncWrite + Unpin, sent: Vec<u8>) {
    let (mut reader, mut writer) = (&mut stream).split();
    let mut received = Vec::new();
    let write = async {
        writer.write_all(&sent).await?;
        writer.close().await
    };
    futures::try_join!(write, reader.read_to_end(&mut received)).unwrap();
    assert!(received == sent, "{} of {} bytes came back", received.len(), sent.len());
}

async fn with_streams(count: usize, size: usize) {
    let (mut client, server) = pair().await;
    let server = run(StreamMuxerBox::new(server));
    let mut streams = Vec::new();
    for _ in 0..count {
        streams.push(poll_fn(|context| client.poll_outbound_unpin(context)).await.unwrap());
    }
    let client = run(StreamMuxerBox::new(client));
    let trips: FuturesUnordered<_> = streams
        .into_iter()
        .enumerate()
        .map(|(index, stream)| round_trip(stream, (0..size).map(|at| (at * 31 + index) as u8).collect()))
        .collect();
    timeout(LIMIT, trips.collect::<Vec<()>>()).await.unwrap();
    client.abort();
    server.abort();
}

#[tokio::test]
async fn one_byte_is_not_held_back() {
    with_streams(1, 1).await;
}

#[tokio::test]
async fn many_streams_get_their_own_bytes_back() {
    with_streams(100, 10_000).await;
}

#[tokio::test]
async fn big_writes_pass_although_the_socket_is_full_at_times() {
    with_streams(4, 8 * 1024 * 1024).await;
}

#[tokio::test]
async fn closing_sends_what_was_written_before() {
    let (mut client, mut server) = pair().await;
    let mut stream = poll_fn(|context| client.poll_outbound_unpin(context)).await.unwrap();
    stream.write_all(b"last words").await.unwrap();
    stream.close().await.unwrap();
    let close = poll_fn(|context| client.poll_close_unpin(context));
    let read = async {
        let mut stream = poll_fn(|context| server.poll_inbound_unpin(context)).await.unwrap();
        let server = run(StreamMuxerBox::new(server));
        let mut received = Vec::new();
        stream.read_to_end(&mut received).await.unwrap();
        server.abort();
        received
    };
    let (closed, received) = timeout(LIMIT, futures::future::join(close, read)).await.unwrap();
    closed.unwrap();
    assert_eq!(received, b"last words");
}

#[tokio::test]
async fn frames_of_one_turn_share_a_flush() {
    let (mut client, server) = pair().await;
    let server = run(StreamMuxerBox::new(server));
    let io = client.io.clone();
    let mut streams = Vec::new();
    for _ in 0..50 {
        let mut stream = poll_fn(|context| client.poll_outbound_unpin(context)).await.unwrap();
        stream.write_all(b"hello").await.unwrap();
        streams.push(stream);
    }
    let flushed = poll_fn(|context| {
        let outcome = client.poll_unpin(context);
        assert!(outcome.is_pending());
        let State::Open(open) = &*io.state() else { panic!("it is open") };
        Poll::Ready(open.io.flushes)
    });
    assert_eq!(timeout(LIMIT, flushed).await.unwrap(), 1);
    server.abort();
}
