//! What a lane hands over to the node: requests of the other side, and the means to answer them.

use std::{fmt, sync::Arc, time::Instant};

use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use tokio::task::AbortHandle;

use super::{LARGE_FROM, asking::FEW, exchange::Exchange, interest::Replying, reader::Charge, run::Lane, tells::Tells};
#[cfg(doc)]
use crate::wire::MAX_PROGRESS;
use crate::wire::{ErrorCode, ErrorFrame, Frame, Options};

/// The node's side of an exchange. Called on the lane's task: it must neither block nor run user code.
pub trait Service: Send + Sync + 'static {
    /// Begins work on a call. The answer goes through `responder`, from whatever task works on it.
    fn on_call(&self, call: Incoming<'_>, responder: Responder);

    /// Takes a message into an application's queue, or says why not.
    fn on_tell(&self, tell: Incoming<'_>) -> Delivery;

    /// Who the other side is, for the log.
    fn peer(&self) -> String;

    /// Counts the tells of the other side, so that it is told how many are begun.
    fn tells(&self) -> Option<Arc<Tells>> {
        None
    }

    /// Called every now and then while something is open: for what else has to be looked at.
    fn on_sweep(&self) {}

    /// The other side floods a lane with what nobody has asked for; the lane is closed.
    fn on_flood(&self) {}
}

/// A call or a tell that has arrived.
#[derive(Debug)]
pub struct Incoming<'a> {
    /// The application's name.
    pub application: &'a str,
    /// The action's name; empty in a tell.
    pub action: &'a str,
    /// When it was received.
    pub received: Instant,
    /// When the sender stops waiting.
    pub deadline: Instant,
    /// The sender's options.
    pub options: Options,
    /// The sender's trace context.
    pub trace: Option<&'a str>,
    /// The arguments or the message, CBOR.
    pub payload: Bytes,
    /// What the message holds of the budgets for large messages: keep it as long as the payload.
    pub charge: Option<Charge>,
}

/// What came of a tell.
pub enum Delivery {
    /// It is in the application's queue.
    Accepted,
    /// It is not, and will not be.
    Refused(Refusal),
    /// The queue is full. The lane waits for this before it reads on, so it must be short.
    Later(BoxFuture<'static, Result<(), Refusal>>),
}

/// Why a request was refused, or how it failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// What kind of failure.
    pub code: ErrorCode,
    /// The application's own code, for [`ErrorCode::Failed`].
    pub name: String,
    /// What happened, for people.
    pub message: String,
    /// The application's own data about it, CBOR; empty if there is none.
    pub data: Bytes,
}

impl Refusal {
    /// A refusal without data of the application.
    #[must_use]
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, name: String::new(), message: message.into(), data: Bytes::new() }
    }

    pub(super) fn frame(&self, id: u64) -> ErrorFrame<'_> {
        ErrorFrame { id, code: self.code, name: &self.name, message: &self.message, data: &self.data }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

/// Answers one call, once. Dropped without an answer it says so to the caller.
#[must_use = "the caller waits for the answer"]
pub struct Responder {
    exchange: Arc<Exchange>,
    lane: Lane,
    id: u64,
    token: u64,
    answered: bool,
}

impl Responder {
    pub(super) fn new(exchange: Arc<Exchange>, lane: Lane, id: u64, token: u64) -> Self {
        Self { exchange, lane, id, token, answered: false }
    }

    /// Gives the means to name the task that works on the call.
    pub fn assignment(&self) -> Assignment {
        Assignment { exchange: self.exchange.clone(), id: self.id, token: self.token }
    }

    /// Gives the means to say how far the call is, for callers that want to know ([`Options::WATCHED`]).
    #[must_use]
    pub fn reporter(&self) -> Reporter {
        Reporter { exchange: self.exchange.clone(), lane: self.lane.clone(), id: self.id, token: self.token }
    }

    /// How many calls of the same peer run here, this one included.
    #[must_use]
    pub fn serving(&self) -> usize {
        self.exchange.served().len()
    }

    /// Whether the caller still waits: not after a cancel, the deadline, or the end of the lane.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        self.exchange.served().is_open(self.id, self.token)
    }

    /// Sends the encoded result, or says why there is none. Usually it is queued when this returns, and is written with
    /// all others of a batch when `unwritten` is dropped; if there is no room for it, or it is large, it is queued when
    /// the future that is given has ended.
    #[must_use = "the rest has to be driven to its end"]
    pub fn respond(
        mut self,
        outcome: Result<Bytes, Refusal>,
        unwritten: &mut Unwritten,
    ) -> Option<BoxFuture<'static, ()>> {
        let limit = self.exchange.limits().max_message;
        let payload = match outcome {
            Ok(payload) if payload.len() <= limit => payload,
            Ok(payload) => {
                let text = format!("the result has {} bytes, the limit is {limit}", payload.len());
                self.refuse(Refusal::new(ErrorCode::TooLarge, text));
                return None;
            }
            Err(refusal) => {
                self.refuse(refusal);
                return None;
            }
        };
        self.answered = true;
        let replying = self.queue(&payload, unwritten)?;
        Some(
            async move {
                let _replying = replying;
                self.exchange.send_reply(&self.lane, self.id, payload).await;
            }
            .boxed(),
        )
    }

    /// Queues an answer if it is small and there is room; else gives what counts it until it is queued.
    fn queue(&self, payload: &Bytes, unwritten: &mut Unwritten) -> Option<Replying<Arc<Exchange>>> {
        let exchange = &self.exchange;
        // From the end of the work to the queue it counts as being answered, so that a node which stops waits for it.
        let _replying = Replying::begin(&**exchange);
        if !exchange.served().end(self.id, self.token) {
            return None;
        }
        if payload.len() <= LARGE_FROM {
            // With few open the answer is written by whoever is here; with more, the lane's task does it meanwhile.
            let few = exchange.served().len() <= FEW && (unwritten.has(&self.lane) || self.lane.is_idle());
            if few && self.lane.try_send_quietly(&reply_frame(self.id), payload).is_some() {
                unwritten.add(&self.lane);
                return None;
            }
            if !few && self.lane.try_send(&reply_frame(self.id), payload).is_some() {
                return None;
            }
        }
        Some(Replying::begin(exchange.clone()))
    }

    /// Says why there is no result.
    pub fn refuse(mut self, refusal: Refusal) {
        self.answered = true;
        self.send_refusal(refusal);
    }

    fn send_refusal(&self, refusal: Refusal) {
        if self.exchange.served().end(self.id, self.token) {
            self.exchange.refuse(&self.lane, self.id, refusal);
        }
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        if !self.answered {
            self.send_refusal(Refusal::new(ErrorCode::Panicked, "the application ended without an answer"));
        }
    }
}

/// Lanes on which answers are queued and not written yet. They are written when this is dropped.
#[derive(Default)]
pub struct Unwritten(Vec<Lane>);

impl Unwritten {
    /// Writes what was queued so far.
    pub fn write(&mut self) {
        for lane in self.0.drain(..) {
            lane.write_now();
        }
    }

    fn has(&self, lane: &Lane) -> bool {
        self.0.iter().any(|other| other.is(lane))
    }

    fn add(&mut self, lane: &Lane) {
        if !self.has(lane) {
            self.0.push(lane.clone());
        }
    }
}

impl Drop for Unwritten {
    fn drop(&mut self) {
        self.write();
    }
}

pub(super) fn reply_frame(id: u64) -> Frame<'static> {
    Frame::Reply { id, payload: &[] }
}

/// Names the task that works on a call, so that it is stopped when the caller loses interest.
pub struct Assignment {
    exchange: Arc<Exchange>,
    id: u64,
    token: u64,
}

impl Assignment {
    /// The task that works on the call.
    pub fn task(self, task: AbortHandle) {
        self.exchange.served().assign(self.id, self.token, task);
    }
}

/// Says how far one call is.
#[derive(Clone)]
pub struct Reporter {
    exchange: Arc<Exchange>,
    lane: Lane,
    id: u64,
    token: u64,
}

impl Reporter {
    /// Reports that the call waits for its turn, or that it runs, with at most [`MAX_PROGRESS`] bytes of CBOR about it.
    ///
    /// Dropped if the call is answered, if the lane has no room now, or if it is too long: a report is worth no wait.
    pub fn report(&self, waiting: bool, payload: &[u8]) {
        if self.exchange.served().is_open(self.id, self.token) {
            let _ = self.lane.try_send(&Frame::Progress { id: self.id, waiting, payload }, &Bytes::new());
        }
    }
}

impl fmt::Debug for Reporter {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Reporter").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Refusal {
    /// Cuts texts to what a frame takes.
    pub(super) fn shorten(&mut self) {
        const TEXT: usize = 32 * 1024;
        const DATA: usize = 128 * 1024;
        cut(&mut self.message, TEXT);
        cut(&mut self.name, crate::wire::MAX_NAME);
        if self.data.len() > DATA {
            self.data = Bytes::new();
        }
    }
}

fn cut(text: &mut String, limit: usize) {
    if text.len() > limit {
        text.truncate(text.floor_char_boundary(limit));
    }
}
