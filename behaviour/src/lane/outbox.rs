//! What waits to be written on one lane: frames of many tasks, coalesced so that one flush carries all of them.

use std::{
    collections::VecDeque,
    mem,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};

use bytes::Bytes;
use futures::task::AtomicWaker;
use tokio::sync::Notify;

use super::tells::Tells;
use crate::wire::{Begun, Frame, FrameError};

/// Above so many bytes waiting, senders wait: about the bandwidth-delay product of a fast LAN, and no more memory.
const ROOM: usize = 256 * 1024;

/// A payload of at least this size is queued as it is instead of being copied behind its head.
const SHARE_FROM: usize = 16 * 1024;

/// An emptied buffer keeps its memory for the next round up to this size: growing one anew each time is dear.
const KEEP: usize = 2 * ROOM;

/// The frames that wait for the lane's writer.
#[derive(Default)]
pub(super) struct Outbox {
    queue: Mutex<Queue>,
    writer: AtomicWaker,
    room: Notify,
    closed: AtomicBool,
    /// The other side's tells: frames say how many of them are begun.
    tells: Option<Arc<Tells>>,
}

#[derive(Default)]
struct Queue {
    /// Small frames, back to back, behind everything in `chunks`.
    buffer: Vec<u8>,
    chunks: VecDeque<Bytes>,
    bytes: usize,
}

/// The outbox takes nothing any more.
#[derive(Debug)]
pub(super) enum Rejected {
    /// The lane is closed.
    Closed,
    /// The frame cannot be encoded.
    Frame(FrameError),
}

impl Outbox {
    pub(super) fn new(tells: Option<Arc<Tells>>) -> Self {
        Self { tells, ..Self::default() }
    }

    /// Queues a frame; waits while too much is waiting already.
    pub(super) async fn send(&self, frame: &Frame<'_>, payload: &Bytes) -> Result<(), Rejected> {
        loop {
            let room = self.room.notified();
            match self.try_send(frame, payload) {
                Some(outcome) => return outcome,
                None => room.await,
            }
        }
    }

    /// Queues a frame if there is room; `None` if there is not.
    pub(super) fn try_send(&self, frame: &Frame<'_>, payload: &Bytes) -> Option<Result<(), Rejected>> {
        let sent = self.try_send_quietly(frame, payload)?;
        if let Ok(true) = sent {
            self.writer.wake();
        }
        Some(sent.map(drop))
    }

    /// The same without waking the writer: whoever does this sees to it that what waits is written. `true` if nothing
    /// had waited before.
    pub(super) fn try_send_quietly(&self, frame: &Frame<'_>, payload: &Bytes) -> Option<Result<bool, Rejected>> {
        self.push_within(frame, payload, ROOM)
    }

    /// Wakes the writer.
    pub(super) fn wake(&self) {
        self.writer.wake();
    }

    /// Queues a frame at once, however much is waiting. For answers whose number is bounded elsewhere.
    pub(super) fn push(&self, frame: &Frame<'_>) -> Result<(), Rejected> {
        match self.push_within(frame, &Bytes::new(), usize::MAX) {
            Some(Ok(true)) => self.writer.wake(),
            Some(Err(rejected)) => return Err(rejected),
            _ => {}
        }
        Ok(())
    }

    /// Whether more than usual is waiting: then whoever causes answers should pause.
    pub(super) fn is_full(&self) -> bool {
        self.lock().bytes >= ROOM
    }

    /// Waits until the outbox is not full, or closed.
    pub(super) async fn has_room(&self) {
        loop {
            let room = self.room.notified();
            if self.is_closed() || !self.is_full() {
                return;
            }
            room.await;
        }
    }

    /// Takes all that waits, to be written by the caller; `spare` becomes the next buffer.
    pub(super) fn take(&self, spare: Vec<u8>) -> (VecDeque<Bytes>, Vec<u8>) {
        let mut queue = self.lock();
        let chunks = mem::take(&mut queue.chunks);
        let buffer = mem::replace(&mut queue.buffer, spare);
        let was_full = queue.bytes >= ROOM;
        queue.bytes = 0;
        drop(queue);
        if was_full {
            self.room.notify_waiters();
        }
        (chunks, buffer)
    }

    /// Gives back memory that a busier time has left.
    pub(super) fn shrink(&self) {
        let mut queue = self.lock();
        if queue.bytes == 0 {
            queue.buffer = Vec::new();
            queue.chunks = VecDeque::new();
        }
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.lock().bytes == 0
    }

    /// Has the writer's task woken when something is queued.
    pub(super) fn register(&self, waker: &std::task::Waker) {
        self.writer.register(waker);
    }

    /// Takes nothing any more; who waits for room is told.
    pub(super) fn close(&self) {
        self.closed.store(true, SeqCst);
        self.room.notify_waiters();
        self.writer.wake();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(SeqCst)
    }

    fn push_within(&self, frame: &Frame<'_>, payload: &Bytes, room: usize) -> Option<Result<bool, Rejected>> {
        if self.is_closed() {
            return Some(Err(Rejected::Closed));
        }
        let mut queue = self.lock();
        if queue.bytes >= room {
            return None;
        }
        let was_empty = queue.bytes == 0;
        // With the lock held: the counts on a lane only grow.
        let begun = self.tells.as_ref().and_then(|tells| tells.news(frame));
        let outcome = queue.push(frame, payload, begun.as_ref());
        drop(queue);
        Some(outcome.map(|()| was_empty).map_err(Rejected::Frame))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Queue> {
        // A panic while the lock was held cannot leave half a frame: encoding truncates on failure.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    fn push(&mut self, frame: &Frame<'_>, payload: &Bytes, begun: Option<&Begun>) -> Result<(), FrameError> {
        let before = self.buffer.len();
        frame.encode_before(&mut self.buffer, payload.len(), begun)?;
        if payload.len() >= SHARE_FROM {
            self.chunks.push_back(mem::take(&mut self.buffer).into());
            self.chunks.push_back(payload.clone());
            self.bytes += payload.len();
        } else {
            self.buffer.extend_from_slice(payload);
            self.bytes += self.buffer.len() - before;
        }
        if let Some(begun) = begun {
            begun.append(&mut self.buffer);
            self.bytes += begun.size();
        }
        Ok(())
    }
}

/// Gives an emptied buffer back for the next round, unless it has grown out of proportion.
pub(super) fn recycle(mut buffer: Vec<u8>) -> Vec<u8> {
    if buffer.capacity() > KEEP {
        return Vec::new();
    }
    buffer.clear();
    buffer
}
