//! All that goes on between two peers.

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{
            AtomicBool, AtomicU64, AtomicUsize,
            Ordering::{Relaxed, SeqCst},
        },
    },
    time::Instant,
};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use futures::{AsyncRead, AsyncWrite, future::BoxFuture};
use tokio::sync::{Semaphore, watch};

use super::{
    HEADER, LARGE_FROM, LARGE_LANES, LaneError, MAX_INBOUND_LANES, WRITE_STALL,
    incoming::{Refusal, Service, reply_frame},
    oddities::{Oddities, Tally},
    pace::Pace,
    reader::PERMIT,
    requests::{Asked, Served},
    run::Lane,
    standstill::Standstill,
    table::Lanes,
    tells::{Heard, Tells},
};
use crate::wire::{Begun, ErrorCode, Frame};

/// A stream that a lane can run on.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Io for T {}

/// Opens streams to the other side.
pub trait Opener: Send + Sync + 'static {
    /// Opens one more stream.
    fn open(&self) -> BoxFuture<'_, Result<Box<dyn Io>, Unopened>>;
}

/// Why no stream was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unopened {
    /// For people.
    pub reason: String,
    /// Nothing was heard of the other side, as far as it is known: it may answer later. Else it, or this side, has refused.
    pub silent: bool,
}

impl<T: Into<String>> From<T> for Unopened {
    fn from(reason: T) -> Self {
        Self { reason: reason.into(), silent: false }
    }
}

impl From<Unopened> for LaneError {
    fn from(Unopened { reason, silent }: Unopened) -> Self {
        if silent { Self::Silent(reason) } else { Self::NotOpened(reason) }
    }
}

/// Bounds of an exchange.
#[derive(Debug, Clone)]
pub struct Limits {
    /// The largest message or result, in bytes.
    pub max_message: usize,
    /// What all large messages that are being received may take together, in KiB: shared by all exchanges of a node.
    pub budget: Arc<Semaphore>,
    /// Notices that this process stood still; nothing is noticed as long as nobody calls its turns. Shared by all exchanges
    /// of a node.
    pub standstill: Arc<Standstill>,
}

impl Limits {
    /// Limits for messages of at most `max_message` bytes, with a budget for sixteen of the largest at once.
    #[must_use]
    pub fn new(max_message: usize) -> Self {
        const AT_ONCE: usize = 16;
        let budget = Self::room_for(AT_ONCE, max_message);
        Self { max_message, budget, standstill: Arc::default() }
    }

    fn room_for(messages: usize, max_message: usize) -> Arc<Semaphore> {
        let permits = longest_frame(max_message).div_ceil(PERMIT).saturating_mul(messages);
        Arc::new(Semaphore::new(permits.min(Semaphore::MAX_PERMITS)))
    }
}

/// All that goes on between this node and one peer.
pub struct Exchange {
    asked: Asked,
    served: Served,
    service: Arc<dyn Service>,
    opener: Arc<dyn Opener>,
    limits: Limits,
    /// This peer's share of the node's budget.
    budget: Arc<Semaphore>,
    /// The lane that most messages take: read on every call, without a lock.
    ordinary: ArcSwapOption<Lane>,
    lanes: Mutex<Lanes>,
    /// Lanes whose task runs.
    running: watch::Sender<usize>,
    replying: AtomicUsize,
    opening: tokio::sync::Mutex<()>,
    /// The other side has said goodbye: nothing is asked of it any more.
    leaving: AtomicBool,
    next_lane: AtomicU64,
    tally: Tally,
    pace: Pace,
    /// The other side's tells, and what it says of ours.
    tells: Option<Arc<Tells>>,
    heard: Mutex<Heard>,
}

impl Exchange {
    /// An exchange without any lane yet.
    #[must_use]
    pub fn new(service: Arc<dyn Service>, opener: Arc<dyn Opener>, limits: Limits) -> Arc<Self> {
        let tells = service.tells();
        Arc::new(Self {
            asked: Asked::default(),
            served: Served::default(),
            service,
            opener,
            budget: Limits::room_for(LARGE_LANES, limits.max_message),
            limits,
            ordinary: ArcSwapOption::empty(),
            lanes: Mutex::default(),
            running: watch::Sender::new(0),
            replying: AtomicUsize::new(0),
            opening: tokio::sync::Mutex::default(),
            leaving: AtomicBool::new(false),
            next_lane: AtomicU64::new(0),
            tally: Tally::default(),
            pace: Pace::new(Instant::now()),
            tells,
            heard: Mutex::default(),
        })
    }

    /// Runs a lane on a stream that the other side has opened. `false` if it has too many already.
    pub fn accept(self: &Arc<Self>, io: Box<dyn Io>) -> bool {
        let mut lanes = self.lanes();
        lanes.inbound.retain(|lane| !lane.is_closed());
        if lanes.closed {
            return false;
        }
        if lanes.inbound.len() >= MAX_INBOUND_LANES {
            Tally::add(&self.tally.refused_lanes);
            return false;
        }
        let lane = Lane::spawn(self, io, self.next_lane(), false);
        lanes.inbound.push(lane);
        true
    }

    /// Whether a message of so many bytes can go at once: a lane for it is there.
    #[must_use]
    pub fn is_open(&self, size: usize) -> bool {
        if size > LARGE_FROM {
            return self.find(true).is_some();
        }
        self.ordinary.load().as_deref().is_some_and(Lane::takes_requests)
    }

    /// Has a lane opened on which a message of so many bytes can go, unless there is one. Nothing is sent.
    ///
    /// # Errors
    ///
    /// The message is over the limit, the other side is leaving, or no lane could be opened until then: see [`LaneError`].
    pub async fn open(self: &Arc<Self>, size: usize, deadline: Instant) -> Result<(), LaneError> {
        self.lane_to_ask(size, deadline).await.map(drop)
    }

    /// Whether anything is open, in either direction.
    #[must_use]
    pub fn in_use(&self) -> bool {
        self.asked.len() + self.served.len() > 0
    }

    /// Calls and tells of this side that are not answered yet.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.asked.len()
    }

    /// Calls of the other side that run here, or whose answer is not queued yet.
    #[must_use]
    pub fn serving(&self) -> usize {
        self.served.len() + self.replying.load(Relaxed)
    }

    /// Tells the other side on every lane that nothing new is taken here. It answers with a goodbye behind its last
    /// request, see [`has_parted`](Self::has_parted).
    pub fn say_goodbye(&self) {
        for lane in self.all_lanes(&self.lanes()) {
            // A lane that is closed needs no goodbye.
            let _ = lane.push(&Frame::Goodbye);
        }
    }

    /// Says for the last time how many of the other side's tells are begun, if there were any: nothing more will be.
    pub fn say_last_word(&self) {
        if !self.tells.as_ref().is_some_and(|tells| tells.any()) {
            return;
        }
        if let Some(lane) = self.lanes().inbound.iter().find(|lane| !lane.is_closed()) {
            // One that is closed meanwhile has nobody who listens.
            let _ = lane.push(&Frame::Goodbye);
        }
    }

    /// What the other side has said of the tells that it has accepted.
    #[must_use]
    pub fn heard(&self) -> Heard {
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether all lanes that the other side has opened are closed, or have brought its goodbye: then it asks for nothing
    /// more on them.
    #[must_use]
    pub fn has_parted(&self) -> bool {
        !self.lanes().inbound.iter().any(Lane::takes_requests)
    }

    /// Closes all lanes once what is queued on them is written; whoever waits for an answer is told. Final.
    pub fn close(&self) {
        let mut lanes = self.lanes();
        lanes.closed = true;
        for lane in self.all_lanes(&lanes) {
            lane.close();
        }
    }

    /// Waits until all lanes have ended: after [`close`](Self::close), until what was queued on them is written.
    pub async fn ended(&self) {
        // It cannot fail: the sender is our own.
        let _ = self.running.subscribe().wait_for(|running| *running == 0).await;
    }

    /// What the other side has done so far that it should not have.
    #[must_use]
    pub fn oddities(&self) -> Oddities {
        self.tally.read()
    }

    /// The other side says on a frame how many of this side's tells are begun.
    pub(super) fn on_begun(&self, begun: Begun, is_last_word: bool) {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).take(begun, is_last_word);
    }

    pub(super) fn tells(&self) -> Option<Arc<Tells>> {
        self.tells.clone()
    }

    pub(super) fn asked(&self) -> &Asked {
        &self.asked
    }

    pub(super) fn served(&self) -> &Served {
        &self.served
    }

    pub(super) fn service(&self) -> &dyn Service {
        &*self.service
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The longest frame that is read.
    pub(super) fn max_frame(&self) -> usize {
        longest_frame(self.limits.max_message)
    }

    pub(super) fn budget(&self) -> Arc<Semaphore> {
        self.budget.clone()
    }

    pub(super) fn replying(&self) -> &AtomicUsize {
        &self.replying
    }

    pub(super) fn on_lane_begun(&self) {
        self.running.send_modify(|running| *running += 1);
    }

    pub(super) fn on_lane_ended(&self) {
        self.running.send_modify(|running| *running -= 1);
    }

    pub(super) fn on_goodbye(&self) {
        self.leaving.store(true, SeqCst);
    }

    /// Whether nothing is asked of the other side any more.
    pub(super) fn is_leaving(&self) -> bool {
        self.leaving.load(SeqCst)
    }

    pub(super) fn tally(&self) -> &Tally {
        &self.tally
    }

    pub(super) fn pace(&self) -> &Pace {
        &self.pace
    }

    /// Says why a request of the other side has no result, or was not taken.
    pub(super) fn refuse(&self, lane: &Lane, id: u64, mut refusal: Refusal) {
        if refusal.code == ErrorCode::Busy {
            Tally::add(&self.tally.refused_calls);
        }
        refusal.shorten();
        // A lane that is gone has nobody who waits.
        let _ = lane.push(&Frame::Error(refusal.frame(id)));
    }

    /// Sends a result back, a large one on a lane of its own.
    pub(super) async fn send_reply(self: &Arc<Self>, lane: &Lane, id: u64, payload: Bytes) {
        let frame = reply_frame(id);
        if payload.len() > LARGE_FROM
            && let Ok(large) = self.lane_for(payload.len(), Instant::now() + WRITE_STALL).await
            && large.send(&frame, &payload).await.is_ok()
        {
            return;
        }
        // Without a lane of its own it delays others, but it arrives. A lane that is gone has no caller any more.
        let _ = lane.send(&frame, &payload).await;
    }

    pub(super) async fn lane_for(self: &Arc<Self>, size: usize, deadline: Instant) -> Result<Lane, LaneError> {
        let limit = self.limits.max_message;
        if size > limit {
            return Err(LaneError::TooLarge { size, limit });
        }
        let large = size > LARGE_FROM;
        if let Some(lane) = self.find(large) {
            return Ok(lane);
        }
        match Box::pin(tokio::time::timeout_at(deadline.into(), self.open_lane(large))).await {
            Ok(lane) => lane,
            Err(_) => Err(LaneError::Silent("no lane could be opened within the deadline".into())),
        }
    }

    async fn open_lane(self: &Arc<Self>, large: bool) -> Result<Lane, LaneError> {
        let _one_at_a_time = self.opening.lock().await;
        if let Some(lane) = self.find(large) {
            return Ok(lane);
        }
        let io = self.opener.open().await?;
        let mut lanes = self.lanes();
        if lanes.closed {
            // Its last connection has closed meanwhile; the next one has an exchange of its own.
            return Err(LaneError::Silent("the connection was closed".into()));
        }
        let lane = Lane::spawn(self, io, self.next_lane(), true);
        lanes.retire();
        if large {
            lanes.large.push(lane.clone());
        } else {
            let before = self.ordinary.swap(Some(Arc::new(lane.clone())));
            lanes.retired.extend(before.map(|lane| Lane::clone(&lane)).filter(|lane| !lane.is_closed()));
        }
        Ok(lane)
    }

    pub(super) fn find(&self, large: bool) -> Option<Lane> {
        if large {
            return self.lanes().find_large();
        }
        self.ordinary.load().as_deref().filter(|lane| lane.takes_requests()).cloned()
    }

    fn all_lanes(&self, lanes: &Lanes) -> Vec<Lane> {
        let ordinary = self.ordinary.load_full().map(|lane| Lane::clone(&lane));
        ordinary.into_iter().chain(lanes.all().cloned()).collect()
    }

    fn next_lane(&self) -> u64 {
        self.next_lane.fetch_add(1, Relaxed)
    }

    fn lanes(&self) -> MutexGuard<'_, Lanes> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Exchange {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Exchange")
            .field("asked", &self.asked.len())
            .field("served", &self.served.len())
            .finish_non_exhaustive()
    }
}

/// Frames of ordinary lanes are always read, so that a message which is too large for this side is answered.
fn longest_frame(max_message: usize) -> usize {
    max_message.max(LARGE_FROM) + HEADER
}
