//! Cuts a byte stream into frames, within bounds.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{Buf, Bytes, BytesMut};
use futures::{AsyncRead, future::poll_fn};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{HEADER, LARGE_FROM, LaneEnd, Limits, Standstill};

/// Small frames share buffers of this size.
const BLOCK: usize = 32 * 1024;

/// Less free space than this at the end of a block is not worth a read.
const LEAST_READ: usize = 4 * 1024;

/// Frames above this size get a buffer of their own.
const OWN_BUFFER_FROM: usize = 64 * 1024;

/// Frames above this size are charged to the node's budget. Those of ordinary lanes are smaller, so that small messages
/// never wait for large ones.
const CHARGED_FROM: usize = LARGE_FROM + HEADER;

/// One permit of the budget stands for so many bytes.
pub(super) const PERMIT: usize = 1024;

/// Who sends half a frame and then nothing for so long is cut off.
const STALL: Duration = Duration::from_secs(30);

/// Who sends a large frame slower than this, in bytes a second, is cut off as well: it holds a part of the budget.
const SLOWEST: u64 = 32 * 1024;

/// The length prefix.
const PREFIX: usize = 4;

/// A frame without its length prefix, and what it holds of the node's budget for large frames.
pub(super) struct RawFrame {
    pub(super) bytes: Bytes,
    pub(super) charge: Option<Charge>,
    /// When the last of it was read: one look at the clock for all frames that came together.
    pub(super) read: Instant,
    /// So long it lay unread while this process stood still.
    pub(super) lag: Duration,
}

/// What a large message holds of the budgets for large messages, as long as it lives.
#[derive(Debug)]
pub struct Charge {
    _peer: OwnedSemaphorePermit,
    _node: OwnedSemaphorePermit,
}

/// Reads frames from one stream.
pub(super) struct FrameReader {
    /// Initialised from end to end; the first `filled` bytes are read and not yet cut.
    block: BytesMut,
    filled: usize,
    read: Instant,
    lag: Duration,
    limit: usize,
    peer_budget: Arc<Semaphore>,
    budget: Arc<Semaphore>,
    standstill: Arc<Standstill>,
}

impl FrameReader {
    pub(super) fn new(limit: usize, peer_budget: Arc<Semaphore>, limits: &Limits) -> Self {
        let (budget, standstill) = (limits.budget.clone(), limits.standstill.clone());
        let (block, read, lag) = (BytesMut::new(), Instant::now(), Duration::ZERO);
        Self { block, filled: 0, read, lag, limit, peer_budget, budget, standstill }
    }

    /// Whether a whole small frame can be had without reading.
    fn ready_length(&self) -> Option<usize> {
        let length = self.length()?;
        (self.filled >= PREFIX + length).then_some(length)
    }

    /// Gives the next frame, or `None` at an end between frames.
    pub(super) async fn next(&mut self, io: &mut (impl AsyncRead + Unpin)) -> Result<Option<RawFrame>, LaneEnd> {
        loop {
            if let Some(length) = self.ready_length() {
                self.check(length)?;
                self.pass_prefix();
                return Ok(Some(RawFrame { bytes: self.cut(length), charge: None, read: self.read, lag: self.lag }));
            }
            match self.length() {
                Some(length) if length > OWN_BUFFER_FROM => {
                    self.check(length)?;
                    return self.large(io, length).await.map(Some);
                }
                Some(length) => self.check(length)?,
                None => {}
            }
            if self.fill(io).await? == 0 {
                return if self.filled == 0 { Ok(None) } else { Err(LaneEnd::CutOff) };
            }
        }
    }

    fn check(&self, length: usize) -> Result<(), LaneEnd> {
        if length > self.limit { Err(LaneEnd::FrameTooLong { length, limit: self.limit }) } else { Ok(()) }
    }

    fn length(&self) -> Option<usize> {
        let prefix = self.block.get(..self.filled)?.first_chunk::<PREFIX>()?;
        usize::try_from(u32::from_be_bytes(*prefix)).ok()
    }

    fn pass_prefix(&mut self) {
        self.filled -= PREFIX;
        self.block.advance(PREFIX);
    }

    fn cut(&mut self, length: usize) -> Bytes {
        self.filled -= length;
        self.block.split_to(length).freeze()
    }

    /// Reads once into the block; 0 is the end.
    async fn fill(&mut self, io: &mut (impl AsyncRead + Unpin)) -> Result<usize, LaneEnd> {
        if self.block.len() - self.filled < LEAST_READ {
            let whole = self.length().map_or(0, |length| PREFIX + length);
            let mut fresh = BytesMut::zeroed(BLOCK.max(whole).max(self.filled + LEAST_READ));
            fresh[..self.filled].copy_from_slice(&self.block[..self.filled]);
            self.block = fresh;
        }
        let free = &mut self.block[self.filled..];
        let read = poll_fn(|cx| Pin::new(&mut *io).poll_read(cx, free));
        let count = if self.filled == 0 { read.await? } else { stalled(read).await? };
        self.filled += count;
        self.read = Instant::now();
        self.lag = self.standstill.lag();
        Ok(count)
    }

    /// Reads the rest of a frame that is too large for a block.
    async fn large(&mut self, io: &mut (impl AsyncRead + Unpin), length: usize) -> Result<RawFrame, LaneEnd> {
        let charge = if length > CHARGED_FROM { Some(self.charge(length).await?) } else { None };
        let slowest = Instant::now() + STALL + Duration::from_secs(length as u64 / SLOWEST);
        self.pass_prefix();
        let begun = self.cut(self.filled.min(length));
        // Zeroed memory of this size comes from the system untouched: who only announces a large frame occupies none.
        let mut frame = BytesMut::zeroed(length);
        frame[..begun.len()].copy_from_slice(&begun);
        let mut filled = begun.len();
        while filled < length {
            let free = &mut frame[filled..];
            match stalled(poll_fn(|cx| Pin::new(&mut *io).poll_read(cx, free))).await? {
                0 => return Err(LaneEnd::CutOff),
                _ if Instant::now() > slowest => return Err(LaneEnd::Stalled),
                count => filled += count,
            }
        }
        Ok(RawFrame { bytes: frame.freeze(), charge, read: Instant::now(), lag: self.standstill.lag() })
    }

    /// Takes its part of the peer's budget and of the node's: first the peer's, so that one peer cannot take it all.
    async fn charge(&self, length: usize) -> Result<Charge, LaneEnd> {
        let permits = u32::try_from(length.div_ceil(PERMIT)).unwrap_or(u32::MAX);
        let acquire = |budget: &Arc<Semaphore>| budget.clone().acquire_many_owned(permits);
        let peer = acquire(&self.peer_budget).await.map_err(|_| LaneEnd::Closed)?;
        let node = acquire(&self.budget).await.map_err(|_| LaneEnd::Closed)?;
        Ok(Charge { _peer: peer, _node: node })
    }
}

async fn stalled(read: impl Future<Output = io::Result<usize>>) -> Result<usize, LaneEnd> {
    match tokio::time::timeout(STALL, read).await {
        Ok(count) => Ok(count?),
        Err(_) => Err(LaneEnd::Stalled),
    }
}

#[cfg(test)]
mod tests;
