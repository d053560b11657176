//! What is read on a lane, and what is done with each frame.

use std::{
    future::poll_fn,
    pin::pin,
    sync::atomic::Ordering::{Relaxed, SeqCst},
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::io::ReadHalf;
use tokio::time::sleep_until;

use super::{
    super::{
        LaneEnd, LaneError, UNASKED, duplicate_id,
        exchange::Io,
        incoming::{Delivery, Incoming, Refusal, Responder},
        oddities::Tally,
        reader::{FrameReader, RawFrame},
        requests::NotBegun,
    },
    Run,
    holding::{Admitted, Held},
};
use crate::wire::{Call, ErrorCode, Frame, Options, Tell, share};

/// After so many frames in a row, none of which had to be waited for, the others on the thread get their turn: a peer that
/// sends without end always has another one ready, and what it has woken would wait behind it. Far more than what is under way
/// at once as a rule: a pause in the middle of that costs a third of all calls.
const TURN: usize = 256;

/// The longest deadline that is taken from a peer: later than any sensible call.
const LONGEST: Duration = Duration::from_secs(7 * 24 * 3600);

impl Run {
    pub(super) async fn read(&self, mut io: ReadHalf<Box<dyn Io>>) -> Result<(), LaneEnd> {
        let limits = self.exchange.limits();
        let mut frames = FrameReader::new(self.exchange.max_frame(), self.exchange.budget(), limits);
        let mut held = Held::default();
        let (mut in_a_row, mut refused) = (0, 0);
        loop {
            self.keep_pace(&mut refused).await;
            in_a_row += 1;
            let next = frames.next(&mut io);
            let frame = match held.is_empty() {
                true => noticing(next, || in_a_row = 0).await?,
                false => self.next_while_holding(next, &mut held).await??,
            };
            let Some(frame) = frame else { return Ok(()) };
            if in_a_row >= TURN {
                in_a_row = 0;
                tokio::task::yield_now().await;
            }
            // Answers that nobody reads are not piled up: no more work is taken until there is room for them. A lane of
            // ours carries answers only, and they are always read: else both sides could wait for each other.
            if !self.ours && self.lane.shared.outbox.is_full() {
                self.lane.shared.outbox.has_room().await;
            }
            if frame.lag.is_zero() && held.is_empty() {
                self.on_frame(frame).await?;
                continue;
            }
            match held.admit(frame)? {
                Admitted::Now(frame) => {
                    self.begin_held(&mut held).await?;
                    self.on_frame(frame).await?;
                }
                Admitted::Past(frame) => self.on_frame(frame).await?,
                Admitted::Kept => {}
                Admitted::Full => self.begin_held(&mut held).await?,
            }
        }
    }

    /// Waits while the peer is to be read slowly, if another of its requests than `seen` was refused. A lane of ours carries
    /// answers only.
    async fn keep_pace(&self, seen: &mut u64) {
        let refused = self.exchange.tally().refused_calls.load(Relaxed);
        if refused == *seen || self.ours {
            return;
        }
        *seen = refused;
        if let Some(until) = self.exchange.pace().pause(refused, Instant::now()) {
            sleep_until(until.into()).await;
        }
    }

    /// The next frame. What is held is begun when its time is over.
    async fn next_while_holding<T>(&self, next: impl Future<Output = T>, held: &mut Held) -> Result<T, LaneEnd> {
        let mut next = pin!(next);
        while let Some(until) = held.until() {
            match tokio::time::timeout_at(until.into(), next.as_mut()).await {
                Ok(frame) => return Ok(frame),
                Err(_) => self.begin_held(held).await?,
            }
        }
        Ok(next.await)
    }

    async fn begin_held(&self, held: &mut Held) -> Result<(), LaneEnd> {
        while let Some(frame) = held.next() {
            self.on_frame(frame).await?;
        }
        Ok(())
    }

    async fn on_frame(&self, raw: RawFrame) -> Result<(), LaneEnd> {
        let RawFrame { bytes, charge, read, lag } = raw;
        let (frame, begun) = Frame::decode_with_begun(&bytes)?;
        if let Some(begun) = begun.filter(|_| self.ours) {
            let is_last_word = matches!(frame, Frame::Goodbye) && self.lane.shared.retired.load(SeqCst);
            self.exchange.on_begun(begun, is_last_word);
        }
        match frame {
            Frame::Call(_) | Frame::Tell(_) if self.ours => return Err(LaneEnd::Misplaced),
            Frame::Call(Call { id, payload, .. }) | Frame::Tell(Tell { id, payload, .. })
                if payload.len() > self.exchange.limits().max_message =>
            {
                let limit = self.exchange.limits().max_message;
                let text = format!("the message has {} bytes, the limit there is {limit}", payload.len());
                self.refuse(id, Refusal::new(ErrorCode::BadArguments, text));
            }
            Frame::Call(call) => {
                let deadline = deadline(read, call.deadline_ms, lag);
                let incoming = Incoming {
                    application: call.application,
                    action: call.action,
                    deadline,
                    options: call.options,
                    trace: call.trace,
                    received: read,
                    payload: share(&bytes, call.payload),
                    charge,
                };
                self.on_call(call.id, incoming);
            }
            Frame::Tell(tell) => {
                let incoming = Incoming {
                    application: tell.application,
                    action: "",
                    deadline: deadline(read, tell.deadline_ms, lag),
                    options: tell.options,
                    trace: tell.trace,
                    received: read,
                    payload: share(&bytes, tell.payload),
                    charge,
                };
                self.on_tell(tell.id, tell.options, incoming).await;
            }
            Frame::Reply { id, payload } => self.on_answer(id, Ok(share(&bytes, payload)))?,
            Frame::Accepted { id } => self.on_answer(id, Ok(Bytes::new()))?,
            Frame::Error(error) => {
                let refusal = Refusal {
                    code: error.code,
                    name: error.name.to_owned(),
                    message: error.message.to_owned(),
                    data: share(&bytes, error.data),
                };
                self.on_answer(error.id, Err(LaneError::Refused(refusal)))?;
            }
            Frame::Cancel { id } => self.exchange.served().cancel(id),
            Frame::Goodbye => self.on_goodbye(),
            Frame::Progress { id, waiting, payload } => {
                // Usually the answer has come first, or the caller has just given up.
                if let Some(pulse) = self.exchange.asked().pulse(id) {
                    // Copied: the buffer that it was read into is much larger.
                    pulse.tell(waiting, Bytes::copy_from_slice(payload));
                }
            }
            Frame::Unknown { kind } => tracing::debug!(kind, "a frame of a later version was read over"),
        }
        Ok(())
    }

    fn on_call(&self, id: u64, call: Incoming<'_>) {
        let slept = self.exchange.limits().standstill.slept();
        match self.exchange.served().begin(id, self.lane.id(), call.deadline, slept) {
            Ok(token) => {
                let responder = Responder::new(self.exchange.clone(), self.lane.clone(), id, token);
                self.exchange.service().on_call(call, responder);
            }
            Err(NotBegun::Duplicate) => self.refuse(id, duplicate_id()),
            Err(NotBegun::TooMany) => {
                self.refuse(id, Refusal::new(ErrorCode::Busy, "too many calls of this peer are running"));
            }
        }
    }

    async fn on_tell(&self, id: u64, options: Options, tell: Incoming<'_>) {
        let delivery = self.exchange.service().on_tell(tell);
        let outcome = match delivery {
            Delivery::Accepted => Ok(()),
            Delivery::Refused(refusal) => Err(refusal),
            Delivery::Later(later) => later.await,
        };
        if options.contains(Options::CAST) {
            return;
        }
        match outcome {
            // A lane that is gone has nobody who waits.
            Ok(()) => drop(self.lane.push(&Frame::Accepted { id })),
            Err(refusal) => self.refuse(id, refusal),
        }
    }

    fn on_goodbye(&self) {
        let is_first = !self.lane.shared.retired.swap(true, SeqCst);
        // Once: who says it again and again, and reads nothing, must not pile up answers here.
        if self.ours && is_first {
            self.exchange.on_goodbye();
            // Behind the last request, so that the other side knows that nothing more comes.
            let _ = self.lane.push(&Frame::Goodbye);
        }
    }

    fn on_answer(&self, id: u64, answer: Result<Bytes, LaneError>) -> Result<(), LaneEnd> {
        if self.exchange.asked().answer(id, answer) {
            return Ok(());
        }
        // Usually the caller has just given up.
        let unasked = &self.exchange.tally().unasked;
        Tally::add(unasked);
        let too_many = unasked.load(Relaxed) > UNASKED + self.exchange.asked().opened();
        if too_many { Err(LaneEnd::Unasked) } else { Ok(()) }
    }

    pub(super) fn refuse(&self, id: u64, refusal: Refusal) {
        self.exchange.refuse(&self.lane, id, refusal);
    }
}

/// Does the work, and tells each time that it has to wait for something.
async fn noticing<T>(work: impl Future<Output = T>, mut waits: impl FnMut()) -> T {
    let mut work = pin!(work);
    poll_fn(|context| {
        let result = work.as_mut().poll(context);
        if result.is_pending() {
            waits();
        }
        result
    })
    .await
}

/// When the sender stops waiting, by this node's clock: at once if the request lay here for longer than it had time.
fn deadline(read: Instant, left_ms: u64, lag: Duration) -> Instant {
    read + Duration::from_millis(left_ms).min(LONGEST).saturating_sub(lag)
}
