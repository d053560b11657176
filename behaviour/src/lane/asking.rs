//! What this side asks of the other: calls, tells and casts, each until it is answered or nobody waits any more.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::{
    LARGE_FROM, LaneError, Pulse, Reply, SWEEP,
    called::millis,
    exchange::Exchange,
    interest::{Interest, State},
    outbox::Rejected,
    run::Lane,
};
use crate::wire::{Call, Frame, Options, Tell};

/// With at most so many requests open, each is written at once; with more, what others queue meanwhile goes along.
pub(super) const FEW: usize = 4;

/// Deadlines nearer than this are kept to the millisecond, the others by the lane's sweep.
pub(super) const EXACT_BELOW: Duration = Duration::from_secs(2);

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

impl Exchange {
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
        let (id, answer) = self.asked().open(lane.id(), head.deadline, head.pulse.cloned())?;
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
        let (id, answer) = self.asked().open(lane.id(), head.deadline, None)?;
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

    /// The same, if nothing has to be waited for; nothing is done otherwise.
    ///
    /// # Errors
    ///
    /// The message cannot be sent, whatever the lane.
    pub fn cast_now(&self, mut head: Outgoing<'_>, payload: &Bytes) -> Option<Result<(), LaneError>> {
        if payload.len() > LARGE_FROM || self.is_leaving() {
            return None;
        }
        head.options = head.options | Options::CAST;
        let lane = self.find(false)?;
        match self.send_now(&lane, &tell_frame(0, head), payload)?.map_err(of_rejected) {
            Err(LaneError::Closing) => None,
            outcome => Some(outcome),
        }
    }

    /// Queues a frame if there is room at once.
    pub(super) fn send_now(&self, lane: &Lane, frame: &Frame<'_>, payload: &Bytes) -> Option<Result<(), Rejected>> {
        // With few open, nobody else will queue more in a moment: it is written here, without waking the lane's task.
        let at_once = !is_cast(frame) && self.asked().len() <= FEW;
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
        sent.map_err(of_rejected)
    }

    pub(super) async fn lane_to_ask(self: &Arc<Self>, size: usize, deadline: Instant) -> Result<Lane, LaneError> {
        if self.is_leaving() {
            return Err(LaneError::NotOpened("the node is stopping".into()));
        }
        self.lane_for(size, deadline).await
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

fn of_rejected(rejected: Rejected) -> LaneError {
    match rejected {
        Rejected::Closed => LaneError::Closing,
        Rejected::Frame(error) => LaneError::Unsendable(error.to_string()),
    }
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

fn left(deadline: Instant) -> u64 {
    millis(deadline.saturating_duration_since(Instant::now()))
}
