//! One lane: the task that reads and writes its stream.

mod holding;
mod reading;

use std::{
    future::poll_fn,
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{
            AtomicBool, AtomicUsize,
            Ordering::{Relaxed, SeqCst},
        },
    },
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::{
    AsyncReadExt,
    future::{Either, select},
    io::WriteHalf,
};
use tokio::time::{Sleep, sleep, timeout};

use super::{
    IDLE, LaneEnd, SWEEP, WRITE_STALL,
    exchange::{Exchange, Io},
    incoming::Refusal,
    oddities::Tally,
    outbox::{Outbox, Rejected},
    writer::Writer,
};
use crate::wire::{ErrorCode, Frame};

/// With more than so many requests open, the writer lets other tasks queue theirs before it flushes.
const GATHER_FROM: usize = 100;

/// A handle on one lane. The lane's task ends when it is closed, or when the stream ends.
#[derive(Clone)]
pub(super) struct Lane {
    shared: Arc<Shared>,
}

struct Shared {
    id: u64,
    outbox: Outbox,
    /// Absent before the lane's task has begun, and when it has ended. The waker is that task's.
    writer: Mutex<Option<(Writer, Waker)>>,
    /// The other side has said goodbye on it.
    retired: AtomicBool,
    /// Requests of this side that are open on it.
    uses: AtomicUsize,
}

impl Lane {
    /// Runs a lane on `io`. `ours` says that this side has opened it, and so closes it when it is idle.
    pub(super) fn spawn(exchange: &Arc<Exchange>, io: Box<dyn Io>, id: u64, ours: bool) -> Self {
        let lane = Self {
            shared: Arc::new(Shared {
                id,
                // Only on lanes of the other side there are tells of it.
                outbox: Outbox::new(exchange.tells().filter(|_| !ours)),
                writer: Mutex::new(None),
                retired: AtomicBool::new(false),
                uses: AtomicUsize::new(0),
            }),
        };
        exchange.on_lane_begun();
        let run = Run { lane: lane.clone(), exchange: exchange.clone(), ours };
        // Owned by its outbox: `Exchange::close` closes it, which ends the task.
        tokio::spawn(run.run(io));
        lane
    }

    pub(super) fn id(&self) -> u64 {
        self.shared.id
    }

    /// Queues a frame if there is room at once.
    pub(super) fn try_send(&self, frame: &Frame<'_>, payload: &Bytes) -> Option<Result<(), Rejected>> {
        self.shared.outbox.try_send(frame, payload)
    }

    /// Queues a frame, waiting for room.
    pub(super) async fn send(&self, frame: &Frame<'_>, payload: &Bytes) -> Result<(), Rejected> {
        self.shared.outbox.send(frame, payload).await
    }

    /// Queues a small frame whether there is room or not.
    pub(super) fn push(&self, frame: &Frame<'_>) -> Result<(), Rejected> {
        self.shared.outbox.push(frame)
    }

    /// Queues a frame without waking the lane's task: [`write_now`](Self::write_now) has to follow.
    pub(super) fn try_send_quietly(&self, frame: &Frame<'_>, payload: &Bytes) -> Option<Result<(), Rejected>> {
        Some(self.shared.outbox.try_send_quietly(frame, payload)?.map(drop))
    }

    /// Writes what waits, on this task; if that cannot be done at once, the lane's own task goes on with it.
    pub(super) fn write_now(&self) {
        if let Ok(mut writer) = self.shared.writer.try_lock()
            && let Some((writer, waker)) = writer.as_mut()
            && let Poll::Ready(Ok(())) = writer.poll_empty(&mut Context::from_waker(waker), &self.shared.outbox)
        {
            return;
        }
        self.shared.outbox.wake();
    }

    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    pub(super) fn close(&self) {
        self.shared.outbox.close();
    }

    pub(super) fn begin_use(&self) {
        self.shared.uses.fetch_add(1, Relaxed);
    }

    pub(super) fn end_use(&self) {
        self.shared.uses.fetch_sub(1, Relaxed);
    }

    pub(super) fn is_closed(&self) -> bool {
        self.shared.outbox.is_closed()
    }

    pub(super) fn takes_requests(&self) -> bool {
        !self.is_closed() && !self.shared.retired.load(SeqCst)
    }

    /// Nothing waits to be written.
    pub(super) fn is_idle(&self) -> bool {
        self.shared.outbox.is_empty()
    }
}

struct Run {
    lane: Lane,
    exchange: Arc<Exchange>,
    ours: bool,
}

/// What the writer does next.
enum Turn {
    Write,
    Look,
    Close,
}

impl Run {
    async fn run(self, io: Box<dyn Io>) {
        let (reader, writer) = io.split();
        let end = {
            let read = std::pin::pin!(self.read(reader));
            let write = std::pin::pin!(self.write(writer));
            match select(read, write).await {
                Either::Left((end, _)) | Either::Right((end, _)) => end,
            }
        };
        let peer = self.exchange.service().peer();
        match &end {
            Err(LaneEnd::Malformed(_) | LaneEnd::FrameTooLong { .. } | LaneEnd::Misplaced) => {
                Tally::add(&self.exchange.tally().malformed);
                tracing::warn!(%peer, reason = %EndText(&end), "lane closed");
            }
            Err(LaneEnd::Stalled) => {
                Tally::add(&self.exchange.tally().stalled);
                tracing::debug!(%peer, reason = %EndText(&end), "lane closed");
            }
            Err(LaneEnd::Unasked) => {
                self.exchange.service().on_flood();
                tracing::warn!(%peer, reason = %EndText(&end), "lane closed");
            }
            _ => tracing::debug!(%peer, reason = %EndText(&end), "lane closed"),
        }
    }

    async fn write(&self, io: WriteHalf<Box<dyn Io>>) -> Result<(), LaneEnd> {
        let shared = &self.lane.shared;
        let waker = poll_fn(|cx| Poll::Ready(cx.waker().clone())).await;
        *shared.writer() = Some((Writer::new(io), waker));
        let mut timer = std::pin::pin!(sleep(IDLE / 2));
        let mut used = Instant::now();
        loop {
            match self.turn(timer.as_mut()).await {
                Turn::Write => {
                    if self.is_busy() {
                        tokio::task::yield_now().await;
                    }
                    self.timed(self.write_all()).await?;
                    used = Instant::now();
                }
                Turn::Look => {
                    let now = Instant::now();
                    self.sweep(now);
                    let in_use = shared.uses.load(Relaxed) > 0;
                    if in_use {
                        used = now;
                    }
                    if self.ours && now.duration_since(used) >= IDLE {
                        shared.outbox.close();
                    }
                    if now.duration_since(used) > SWEEP {
                        self.shrink();
                    }
                    let next = if self.exchange.in_use() { SWEEP } else { IDLE / 2 };
                    timer.as_mut().reset((now + next).into());
                }
                Turn::Close => {
                    self.timed(self.write_all()).await?;
                    let close = poll_fn(|cx| self.poll_writer(|writer| writer.poll_close(cx)));
                    timeout(WRITE_STALL, close).await.map_err(|_| LaneEnd::Stalled)??;
                    return Err(LaneEnd::Closed);
                }
            }
        }
    }

    async fn turn(&self, mut timer: std::pin::Pin<&mut Sleep>) -> Turn {
        let shared = &self.lane.shared;
        poll_fn(|cx| {
            shared.outbox.register(cx.waker());
            if shared.outbox.is_closed() {
                return Poll::Ready(Turn::Close);
            }
            if !shared.outbox.is_empty() || shared.writer().as_ref().is_some_and(|(writer, _)| writer.is_behind()) {
                return Poll::Ready(Turn::Write);
            }
            // Something was opened while the timer was set for an idle lane.
            let soon = tokio::time::Instant::now() + 2 * SWEEP;
            if timer.deadline() > soon && self.exchange.in_use() {
                timer.as_mut().reset(soon);
            }
            timer.as_mut().poll(cx).map(|()| Turn::Look)
        })
        .await
    }

    async fn write_all(&self) -> io::Result<()> {
        poll_fn(|cx| self.poll_writer(|writer| writer.poll_empty(cx, &self.lane.shared.outbox))).await
    }

    fn poll_writer(&self, poll: impl FnOnce(&mut Writer) -> Poll<io::Result<()>>) -> Poll<io::Result<()>> {
        match self.lane.shared.writer().as_mut() {
            Some((writer, _)) => poll(writer),
            None => Poll::Ready(Ok(())),
        }
    }

    fn shrink(&self) {
        self.lane.shared.outbox.shrink();
        if let Some((writer, _)) = self.lane.shared.writer().as_mut() {
            writer.shrink();
        }
    }

    /// Deadlines are kept while the other side does not read, and it is cut off if that lasts.
    async fn timed(&self, write: impl Future<Output = io::Result<()>>) -> Result<(), LaneEnd> {
        let mut write = std::pin::pin!(write);
        let mut waited = Duration::ZERO;
        loop {
            match timeout(SWEEP, write.as_mut()).await {
                Ok(written) => return Ok(written?),
                Err(_) if waited >= WRITE_STALL => return Err(LaneEnd::Stalled),
                Err(_) => {
                    waited += SWEEP;
                    self.sweep(Instant::now());
                }
            }
        }
    }

    /// Ends what is past its deadline, on both sides of the lane.
    fn sweep(&self, now: Instant) {
        for id in self.exchange.asked().expire(self.lane.id(), now) {
            // A lane that is gone has cancelled everything by itself.
            let _ = self.lane.push(&Frame::Cancel { id });
        }
        self.exchange.service().on_sweep();
        let slept = self.exchange.limits().standstill.slept();
        for id in self.exchange.served().expire(self.lane.id(), now, slept) {
            self.refuse(id, Refusal::new(ErrorCode::TimedOut, "stopped at the caller's deadline"));
        }
    }

    fn is_busy(&self) -> bool {
        self.exchange.asked().len() + self.exchange.served().len() > GATHER_FROM
    }
}

impl Shared {
    fn writer(&self) -> MutexGuard<'_, Option<(Writer, Waker)>> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.lane.close();
        *self.lane.shared.writer() = None;
        self.exchange.asked().fail_lane(self.lane.id());
        self.exchange.served().cancel_lane(self.lane.id());
        self.exchange.on_lane_ended();
    }
}

struct EndText<'a>(&'a Result<(), LaneEnd>);

impl std::fmt::Display for EndText<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Ok(()) => formatter.write_str("the peer closed it"),
            Err(end) => end.fmt(formatter),
        }
    }
}
