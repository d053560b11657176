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
    time::{Duration, Instant},
};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use futures::{AsyncRead, AsyncWrite, future::BoxFuture};
use tokio::sync::{Semaphore, watch};

use super::{
    HEADER, LARGE_FROM, LARGE_LANES, LaneError, MAX_INBOUND_LANES, Pulse, Reply, SWEEP, WRITE_STALL,
    called::millis,
    incoming::{Refusal, Service, reply_frame},
    interest::{Interest, State},
    oddities::{Oddities, Tally},
    outbox::Rejected,
    reader::PERMIT,
    requests::{Asked, Served},
    run::Lane,
    table::Lanes,
};
use crate::wire::{Call, ErrorCode, Frame, Options, Tell};

/// With at most so many requests open, each is written at once; with more, what others queue meanwhile goes along.
pub(super) const FEW: usize = 4;

/// Deadlines nearer than this are kept to the millisecond, the others by the lane's sweep.
pub(super) const EXACT_BELOW: Duration = Duration::from_secs(2);

/// A stream that a lane can run on.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Io for T {}

/// Opens streams to the other side.
pub trait Opener: Send + Sync + 'static {
    /// Opens one more stream. The error says for people why there is none.
    fn open(&self) -> BoxFuture<'_, Result<Box<dyn Io>, String>>;
}

/// Bounds of an exchange.
#[derive(Debug, Clone)]
pub struct Limits {
    /// The largest message or result, in bytes.
    pub max_message: usize,
    /// What all large messages that are being received may take together, in KiB: shared by all exchanges of a node.
    pub budget: Arc<Semaphore>,
}

impl Limits {
    /// Limits for messages of at most `max_message` bytes, with a budget for sixteen of the largest at once.
    #[must_use]
    pub fn new(max_message: usize) -> Self {
        const AT_ONCE: usize = 16;
        Self { max_message, budget: Self::room_for(AT_ONCE, max_message) }
    }

    fn room_for(messages: usize, max_message: usize) -> Arc<Semaphore> {
        let permits = longest_frame(max_message).div_ceil(PERMIT).saturating_mul(messages);
        Arc::new(Semaphore::new(permits.min(Semaphore::MAX_PERMITS)))
    }
}

/// The head of a call or a tell that is to be sent.
#[derive(Debug, Clone, Copy)]
pub struct Outgoing<'a> {
    /// The application's name.
    pub application: &'a str,
    /// The action's name; unused in a tell.
    pub action: &'a str,
    /// When the sender stops waiting.
    pub deadline: Instant,
    /// The sender's options.
    pub options: Options,
    /// The sender's trace context.
    pub trace: Option<&'a str>,
    /// Gets what is heard of a call before its answer; unused in a tell.
    pub pulse: Option<&'a Arc<Pulse>>,
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
}

impl Exchange {
    /// An exchange without any lane yet.
    #[must_use]
    pub fn new(service: Arc<dyn Service>, opener: Arc<dyn Opener>, limits: Limits) -> Arc<Self> {
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
        })
    }

    /// Calls an action and waits for its result. Dropping the future cancels the work on the other side.
    ///
    /// # Errors
    ///
    /// See [`LaneError`]; [`LaneError::may_have_run`] says whether it is safe to call again.
    pub async fn call(self: &Arc<Self>, head: Outgoing<'_>, payload: &Bytes) -> Reply {
        loop {
            match self.call_once(head, payload).await {
                Err(LaneError::Closing) => {}
                outcome => return outcome,
            }
        }
    }

    async fn call_once(self: &Arc<Self>, head: Outgoing<'_>, payload: &Bytes) -> Reply {
        let lane = self.lane_to_ask(payload.len(), head.deadline).await?;
        let (id, answer) = self.asked.open(lane.id(), head.deadline, head.pulse.cloned())?;
        let mut interest = Interest::new(self, &lane, id);
        self.send(&lane, &call_frame(id, head, left(head.deadline)), payload, head.deadline).await?;
        interest.state = State::Sent;
        let outcome = wait(answer, head.deadline).await;
        interest.answered_by(&outcome);
        outcome
    }

    /// Hands a message over and waits until the other side has it in the application's queue.
    ///
    /// # Errors
    ///
    /// As [`call`](Self::call).
    pub async fn tell(self: &Arc<Self>, head: Outgoing<'_>, payload: &Bytes) -> Result<(), LaneError> {
        loop {
            match self.tell_once(head, payload).await {
                Err(LaneError::Closing) => {}
                outcome => return outcome,
            }
        }
    }

    async fn tell_once(self: &Arc<Self>, head: Outgoing<'_>, payload: &Bytes) -> Result<(), LaneError> {
        let lane = self.lane_to_ask(payload.len(), head.deadline).await?;
        let (id, answer) = self.asked.open(lane.id(), head.deadline, None)?;
        let mut interest = Interest::new(self, &lane, id);
        self.send(&lane, &tell_frame(id, head), payload, head.deadline).await?;
        let outcome = wait(answer, head.deadline).await;
        interest.answered_by(&outcome);
        outcome.map(drop)
    }

    /// Puts a message into the lane's queue and forgets it. A large one is sent as [`tell`](Self::tell), so that it
    /// keeps its place among the sender's other messages.
    ///
    /// # Errors
    ///
    /// When it could not be queued within the deadline; then it surely does not arrive.
    pub async fn cast(self: &Arc<Self>, mut head: Outgoing<'_>, payload: &Bytes) -> Result<(), LaneError> {
        if payload.len() > LARGE_FROM {
            return Box::pin(self.tell(head, payload)).await;
        }
        head.options = head.options | Options::CAST;
        loop {
            let lane = self.lane_to_ask(payload.len(), head.deadline).await?;
            match self.send(&lane, &tell_frame(0, head), payload, head.deadline).await {
                Err(LaneError::Closing) => {}
                outcome => return outcome,
            }
        }
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

    pub(super) fn tally(&self) -> &Tally {
        &self.tally
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

    /// Queues a frame if there is room at once.
    pub(super) fn send_now(&self, lane: &Lane, frame: &Frame<'_>, payload: &Bytes) -> Option<Result<(), Rejected>> {
        // With few open, nobody else will queue more in a moment: it is written here, without waking the lane's task.
        let at_once = !is_cast(frame) && self.asked.len() <= FEW;
        let queued = if at_once { lane.try_send_quietly(frame, payload) } else { lane.try_send(frame, payload) };
        if at_once {
            lane.write_now();
        }
        queued
    }

    async fn send(&self, lane: &Lane, frame: &Frame<'_>, payload: &Bytes, deadline: Instant) -> Result<(), LaneError> {
        let sent = match self.send_now(lane, frame, payload) {
            Some(sent) => sent,
            // Boxed, like all that is seldom needed: it would make every call's future larger.
            None => match Box::pin(tokio::time::timeout_at(deadline.into(), lane.send(frame, payload))).await {
                Ok(sent) => sent,
                Err(_) => return Err(LaneError::NotOpened("the peer did not read within the deadline".into())),
            },
        };
        sent.map_err(|rejected| match rejected {
            Rejected::Closed => LaneError::Closing,
            Rejected::Frame(error) => LaneError::Unsendable(error.to_string()),
        })
    }

    async fn lane_to_ask(self: &Arc<Self>, size: usize, deadline: Instant) -> Result<Lane, LaneError> {
        if self.leaving.load(SeqCst) {
            return Err(LaneError::NotOpened("the node is stopping".into()));
        }
        self.lane_for(size, deadline).await
    }

    async fn lane_for(self: &Arc<Self>, size: usize, deadline: Instant) -> Result<Lane, LaneError> {
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
            Err(_) => Err(LaneError::NotOpened("no lane could be opened within the deadline".into())),
        }
    }

    async fn open_lane(self: &Arc<Self>, large: bool) -> Result<Lane, LaneError> {
        let _one_at_a_time = self.opening.lock().await;
        if let Some(lane) = self.find(large) {
            return Ok(lane);
        }
        let io = self.opener.open().await.map_err(LaneError::NotOpened)?;
        let mut lanes = self.lanes();
        if lanes.closed {
            return Err(LaneError::NotOpened("the peer is being left".into()));
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

async fn wait(answer: tokio::sync::oneshot::Receiver<Reply>, deadline: Instant) -> Reply {
    let answered = if deadline.saturating_duration_since(Instant::now()) > EXACT_BELOW {
        answer.await
    } else {
        // The sweep is a little slower than the clock, so whoever comes first gives the same error.
        match Box::pin(tokio::time::timeout_at((deadline + SWEEP / 50).into(), answer)).await {
            Ok(answered) => answered,
            Err(_) => return Err(LaneError::TimedOut),
        }
    };
    answered.unwrap_or(Err(LaneError::Lost))
}

fn is_cast(frame: &Frame<'_>) -> bool {
    matches!(frame, Frame::Tell(tell) if tell.options.contains(Options::CAST))
}

/// The head of a call that has so many milliseconds left.
pub(super) fn call_frame(id: u64, head: Outgoing<'_>, deadline_ms: u64) -> Frame<'_> {
    let watched = if head.pulse.is_some() { Options::WATCHED } else { Options::default() };
    Frame::Call(Call {
        id,
        application: head.application,
        action: head.action,
        deadline_ms,
        options: head.options | watched,
        trace: head.trace,
        payload: &[],
    })
}

fn tell_frame(id: u64, head: Outgoing<'_>) -> Frame<'_> {
    Frame::Tell(Tell {
        id,
        application: head.application,
        deadline_ms: left(head.deadline),
        options: head.options,
        trace: head.trace,
        payload: &[],
    })
}

/// Frames of ordinary lanes are always read, so that a message which is too large for this side is answered.
fn longest_frame(max_message: usize) -> usize {
    max_message.max(LARGE_FROM) + HEADER
}

fn left(deadline: Instant) -> u64 {
    millis(deadline.saturating_duration_since(Instant::now()))
}
