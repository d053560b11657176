//! Raw TCP: frames of a length, a number and the payload; no encryption, nothing negotiated.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc, oneshot},
};

use crate::{
    Error,
    contestant::{Blob, Client},
    process,
};

/// Length (of what follows it) and number.
const HEADER: usize = 4 + 8;

/// More than the largest number of calls in flight, so that no caller waits for room.
const QUEUE: usize = 2048;

/// Answers every frame, as many in one write as came in one read.
pub(crate) async fn serve() -> Result<(), Error> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    process::say_ready(&listener.local_addr()?.to_string());
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(answer(stream));
    }
}

async fn answer(mut stream: TcpStream) -> Result<(), Error> {
    let (mut received, mut answers) = (BytesMut::new(), BytesMut::new());
    loop {
        while let Some((id, payload)) = take_frame(&mut received) {
            put_frame(&mut answers, id, &Blob(payload).answer().0);
        }
        if !answers.is_empty() {
            stream.write_all(&answers).await?;
            answers.clear();
        }
        if stream.read_buf(&mut received).await? == 0 {
            return Ok(());
        }
    }
}

/// One call at a time, in the caller's own task: the ping-pong that all others are compared with.
#[derive(Clone)]
pub(crate) struct PingPong(Arc<tokio::sync::Mutex<(TcpStream, BytesMut)>>);

impl PingPong {
    pub(crate) async fn connect(address: &str) -> Result<Self, Error> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self(Arc::new(tokio::sync::Mutex::new((stream, BytesMut::new())))))
    }
}

impl Client for PingPong {
    async fn call(&self, payload: Bytes) -> Result<usize, Error> {
        let (stream, buffer) = &mut *self.0.lock().await;
        put_frame(buffer, 0, &payload);
        stream.write_all(buffer).await?;
        buffer.clear();
        loop {
            if let Some((_, answer)) = take_frame(buffer) {
                return Ok(answer.len());
            }
            if stream.read_buf(buffer).await? == 0 {
                return Err("the server has closed the connection".into());
            }
        }
    }
}

/// Many calls in flight over one connection: a writing and a reading task, answers by number.
#[derive(Clone)]
pub(crate) struct Framed(Arc<Inner>);

struct Inner {
    next_id: AtomicU64,
    requests: mpsc::Sender<(u64, Bytes)>,
    waiting: Mutex<HashMap<u64, oneshot::Sender<Bytes>>>,
}

impl Framed {
    pub(crate) async fn connect(address: &str) -> Result<Self, Error> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (reader, writer) = stream.into_split();
        let (requests, queue) = mpsc::channel(QUEUE);
        let inner = Arc::new(Inner { next_id: AtomicU64::new(0), requests, waiting: Mutex::default() });
        tokio::spawn(write(writer, queue));
        tokio::spawn(read(reader, inner.clone()));
        Ok(Self(inner))
    }
}

impl Client for Framed {
    async fn call(&self, payload: Bytes) -> Result<usize, Error> {
        let id = self.0.next_id.fetch_add(1, Relaxed);
        let (respond_to, response) = oneshot::channel();
        self.0.waiting.lock().map_err(|_| "the reader has panicked")?.insert(id, respond_to);
        self.0.requests.send((id, payload)).await?;
        Ok(response.await?.len())
    }
}

async fn write(mut stream: OwnedWriteHalf, mut queue: mpsc::Receiver<(u64, Bytes)>) -> Result<(), Error> {
    let (mut batch, mut buffer) = (Vec::new(), BytesMut::new());
    while queue.recv_many(&mut batch, QUEUE).await > 0 {
        for (id, payload) in batch.drain(..) {
            put_frame(&mut buffer, id, &payload);
        }
        stream.write_all(&buffer).await?;
        buffer.clear();
    }
    Ok(())
}

async fn read(mut stream: OwnedReadHalf, inner: Arc<Inner>) -> Result<(), Error> {
    let mut buffer = BytesMut::with_capacity(64 * 1024);
    while stream.read_buf(&mut buffer).await? > 0 {
        let mut waiting = inner.waiting.lock().map_err(|_| "a caller has panicked")?;
        while let Some((id, payload)) = take_frame(&mut buffer) {
            if let Some(respond_to) = waiting.remove(&id) {
                let _ = respond_to.send(payload);
            }
        }
    }
    inner.waiting.lock().map_err(|_| "a caller has panicked")?.clear();
    Ok(())
}

fn put_frame(buffer: &mut BytesMut, id: u64, payload: &[u8]) {
    buffer.reserve(HEADER + payload.len());
    buffer.put_u32((8 + payload.len()) as u32);
    buffer.put_u64(id);
    buffer.put_slice(payload);
}

/// Takes one frame off the front of `buffer`, and makes room for the rest of an incomplete one.
fn take_frame(buffer: &mut BytesMut) -> Option<(u64, Bytes)> {
    let length = buffer.get(..4).map(|mut bytes| bytes.get_u32() as usize)?;
    if buffer.len() < 4 + length {
        buffer.reserve(4 + length - buffer.len());
        return None;
    }
    buffer.advance(4);
    let mut frame = buffer.split_to(length).freeze();
    Some((frame.get_u64(), frame))
}
