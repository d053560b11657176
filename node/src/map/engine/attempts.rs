//! Attempts: how an item is sent to a worker, and how the answer comes back.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{
    FutureExt, StreamExt,
    future::{AbortHandle, Abortable},
};
use multinodes_behaviour::lane::{Mark, Pulse, Reply};

use super::{
    super::{
        items::{Held, Running, Work},
        workers::{Report, Taken, WorkerId},
    },
    Engine, TURN,
};
use crate::{
    app_ref::AppRef,
    call_error::CallError,
    description::Host,
    payload::Payload,
    route::{Kind, Route},
    selection::Target,
};

/// What every attempt needs.
pub(super) struct Shared {
    pub(super) target: AppRef,
    pub(super) action: String,
    pub(super) timeout: Duration,
}

/// An attempt that is over.
pub(super) struct Ended {
    /// The item's index, and the attempt's serial number.
    pub(super) mark: Mark,
    /// Absent if it was called off.
    pub(super) outcome: Option<Result<Payload, CallError>>,
}

impl Engine {
    /// Has an item begun by a worker whose place was taken for it.
    pub(super) fn begin(&mut self, index: u64, worker: WorkerId, suspect: bool, now: Instant) {
        let taken = Taken { outstanding: self.workers.outstanding(worker), suspect };
        let place = Held { worker, taken, since: now };
        let Some(item) = self.items.find(index) else { return };
        if self.ledger.begin(index, &item.payload) {
            self.send(index, place, now);
        } else {
            item.held = Some(place);
        }
    }

    /// It is on disk that an item is begun.
    pub(super) fn on_begun(&mut self, index: u64) {
        let now = Instant::now();
        let Some(held) = self.items.find(index).and_then(|item| item.held.take()) else { return };
        self.workers.waited(now - held.since);
        if self.end.is_none() && self.workers.still_takes(held.worker, now) {
            return self.send(index, held, now);
        }
        self.workers.end(held.worker, Report::CalledOff, Duration::ZERO, held.taken, now);
        self.items.return_soon(index);
    }

    fn send(&mut self, index: u64, Held { worker, taken, .. }: Held, now: Instant) {
        let host = self.workers.worker(worker).host.clone();
        let Some(item) = self.items.find(index) else { return };
        self.serial += 1;
        let (serial, mark) = (self.serial, (index, self.serial));
        let pulse = Arc::new(Pulse::new(now));
        let route = self.shared.route(&pulse);
        let called = if host.local {
            None
        } else {
            route.call_now(&host.info, &self.shared.action, &item.payload, &self.respond_to, mark)
        };
        let work = called.map(Work::Called).unwrap_or_else(|| {
            let (abort, registration) = AbortHandle::new_pair();
            let attempt = self.shared.clone().attempt(host, item.payload.clone(), pulse.clone());
            let attempt = Abortable::new(attempt, registration);
            self.attempts.push(async move { Ended { mark, outcome: attempt.await.ok() } }.boxed());
            Work::Attempt(abort)
        });
        item.begun.get_or_insert(now);
        item.attempts += 1;
        // Nearly always it is the only one.
        item.running.reserve_exact(1);
        item.running.push(Running { serial, worker, taken, sent: now, pulse, _work: work });
    }

    // Items on their way back.

    pub(super) fn take_ended(&mut self) {
        for _ in 0..TURN {
            let Ok((mark, reply)) = self.answers.try_recv() else { break };
            self.on_answer(mark, reply);
        }
        for _ in 0..TURN {
            match self.attempts.next().now_or_never() {
                Some(Some(ended)) => self.on_ended(ended),
                _ => return,
            }
        }
    }

    pub(super) fn on_answer(&mut self, mark: Mark, reply: Reply) {
        let Some(running) = self.items.take_running(mark) else { return };
        let info = &self.workers.worker(running.worker).host.info;
        let outcome = self.shared.route(&running.pulse).answered(info, &self.shared.action, reply);
        self.on_outcome(mark.0, running, outcome);
    }

    pub(super) fn on_ended(&mut self, ended: Ended) {
        let Some(outcome) = ended.outcome else { return };
        if let Some(running) = self.items.take_running(ended.mark) {
            self.on_outcome(ended.mark.0, running, outcome);
        }
    }
}

impl Shared {
    fn route<'a>(&'a self, pulse: &'a Arc<Pulse>) -> Route<'a> {
        Route { timeout: self.timeout, pulse: Some(pulse), ..self.target.route() }
    }

    /// One attempt that may have to wait for something, or runs here.
    async fn attempt(
        self: Arc<Self>,
        host: Arc<Host>,
        payload: Payload,
        pulse: Arc<Pulse>,
    ) -> Result<Payload, CallError> {
        let target = if host.local {
            let hosted = self.target.node().core().registry.find(self.target.application());
            Target::Here(hosted.ok_or_else(|| self.target.nobody())?)
        } else {
            Target::There(host.info.clone())
        };
        let route = self.route(&pulse);
        if let Target::There(info) = &target {
            route.reach(info, Kind::Call(&self.action), &payload).await?;
        }
        route.call_at(&target, &self.action, &payload).await
    }
}
