//! Writes what waits in a lane's outbox. Usually the lane's task does; who has just queued the last frame of a batch may
//! do it on the spot, which saves waking that task.

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures::{AsyncWrite, io::WriteHalf};

use super::{
    exchange::Io,
    outbox::{self, Outbox},
};

/// The writing half of a lane's stream, and what was taken from the outbox and is not written yet.
pub(super) struct Writer {
    io: WriteHalf<Box<dyn Io>>,
    chunks: VecDeque<Bytes>,
    buffer: Vec<u8>,
    /// What is written of the first chunk, or of the buffer if there is none.
    written: usize,
    unflushed: bool,
}

impl Writer {
    pub(super) fn new(io: WriteHalf<Box<dyn Io>>) -> Self {
        Self { io, chunks: VecDeque::new(), buffer: Vec::new(), written: 0, unflushed: false }
    }

    /// Writes and flushes until nothing waits any more.
    pub(super) fn poll_empty(&mut self, cx: &mut Context<'_>, outbox: &Outbox) -> Poll<io::Result<()>> {
        loop {
            ready!(self.poll_taken(cx))?;
            if !outbox.is_empty() {
                let spare = outbox::recycle(std::mem::take(&mut self.buffer));
                (self.chunks, self.buffer) = outbox.take(spare);
                self.unflushed = true;
            } else if self.unflushed {
                ready!(Pin::new(&mut self.io).poll_flush(cx))?;
                self.unflushed = false;
            } else {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Closes the stream.
    pub(super) fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_close(cx)
    }

    /// Whether something was taken from the outbox and is not written yet.
    pub(super) fn is_behind(&self) -> bool {
        self.unflushed
    }

    /// Gives back memory that a busier time has left.
    pub(super) fn shrink(&mut self) {
        if !self.unflushed {
            self.buffer = Vec::new();
            self.chunks = VecDeque::new();
        }
    }

    /// Writes what was taken from the outbox.
    fn poll_taken(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let current = self.chunks.front().map_or(&self.buffer[..], |chunk| &chunk[..]);
            if self.written < current.len() {
                match ready!(Pin::new(&mut self.io).poll_write(cx, &current[self.written..]))? {
                    0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    count => self.written += count,
                }
            } else {
                self.written = 0;
                if self.chunks.pop_front().is_none() {
                    self.buffer.clear();
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }
}
