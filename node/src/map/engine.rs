//! The task that spreads the items: takes them from the input as workers have room, and looks after each until it has an
//! outcome.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{
    FutureExt, StreamExt,
    future::{AbortHandle, Abortable, BoxFuture},
    stream::{BoxStream, FuturesUnordered},
};
use multinodes_behaviour::{
    lane::{Answers, Mark, Pulse, Reply},
    wire::Options,
};
use tokio::{
    sync::{mpsc, watch},
    time::{Interval, MissedTickBehavior},
};

use super::{
    items::{Item, Items, Running, Work},
    ledger::Ledger,
    outcome::{Attempt, ItemError, ItemErrorKind, MapError, MapStatus, Outcome},
    plan::Plan,
    reports::Reports,
    stragglers::Stragglers,
    verdict::{Failure, Verdict},
    workers::{Report, Taken, WorkerId, Workers},
};
use crate::{
    app_ref::AppRef,
    call_error::CallError,
    description::Host,
    node::Node,
    payload::{EncodeError, Payload},
    route::Route,
    selection::Target,
};

/// What is done in one turn, before others get theirs.
const TURN: usize = 256;

/// How often leases, waits and stragglers are looked at, unless a lease is short.
const TICK: Duration = Duration::from_millis(50);

/// How often the status is told.
const TELL_STATUS: Duration = Duration::from_millis(100);

/// How long to wait for the record of a node that is known but has not told yet what it hosts.
const RECORD: Duration = Duration::from_secs(1);

/// When all who are there lack the action, somebody who has it may be on the way for so long.
const LACKING: Duration = Duration::from_secs(3);

/// A time that no item takes.
const FOR_EVER: Duration = Duration::from_secs(365 * 86_400);

/// What the reader gets.
pub(super) enum Message {
    Outcomes(Vec<Outcome<Payload>>),
    End(Result<(), MapError>),
}

/// What every attempt needs.
struct Shared {
    target: AppRef,
    action: String,
    timeout: Duration,
}

/// An attempt that is over.
struct Ended {
    /// The item's index, and the attempt's serial number.
    mark: Mark,
    /// Absent if it was called off.
    outcome: Option<Result<Payload, CallError>>,
}

pub(super) struct Engine {
    shared: Arc<Shared>,
    plan: Rules,
    input: Option<BoxStream<'static, Result<Payload, EncodeError>>>,
    /// The index of the item that comes next from the input.
    next: u64,
    workers: Workers,
    /// Some worker was there at some time.
    any_worker: bool,
    items: Items,
    /// What comes of calls that could be sent at once: nearly all. As many as workers have room for.
    answers: mpsc::UnboundedReceiver<(Mark, Reply)>,
    respond_to: Answers,
    /// The others, and what runs here.
    attempts: FuturesUnordered<BoxFuture<'static, Ended>>,
    serial: u64,
    reports: Reports,
    ledger: Ledger,
    stragglers: Stragglers,
    status: watch::Sender<MapStatus>,
    counts: MapStatus,
    told: Instant,
    /// When somebody last worked on something.
    active: Instant,
    /// Since when whoever got an item has not taken it.
    refused: Option<Instant>,
    last_failure: Option<CallError>,
    /// Why it cannot go on.
    end: Option<MapError>,
}

/// What of the plan is looked at again and again.
struct Rules {
    retries: u32,
    retry_errors: u32,
    poison_after: u32,
    lease: Duration,
    patience: Duration,
    at_most_once: bool,
    idempotent: bool,
}

impl Engine {
    /// Spreads all items, and tells `reader` of each outcome and of the end.
    pub(super) async fn run(plan: Plan, reader: mpsc::Sender<Message>, status: watch::Sender<MapStatus>) {
        let ledger = match Ledger::open(&plan).await {
            Ok(ledger) => ledger,
            Err(error) => return drop(reader.send(Message::End(Err(error))).await),
        };
        let mut engine = Self::new(plan, ledger, status);
        let ended = engine.spread(&reader).await;
        engine.tell_status();
        if let Some(result) = ended {
            let _ = reader.send(Message::End(result)).await;
        }
    }

    fn new(plan: Plan, ledger: Ledger, status: watch::Sender<MapStatus>) -> Self {
        let now = Instant::now();
        let idempotent = plan.target.options().contains(Options::IDEMPOTENT) && !plan.at_most_once;
        let timeout = plan.item_timeout.unwrap_or(FOR_EVER);
        let (respond_to, answers) = mpsc::unbounded_channel();
        Self {
            plan: Rules {
                retries: plan.retries,
                retry_errors: plan.retry_errors,
                poison_after: plan.poison_after.max(1),
                lease: plan.lease,
                patience: plan.patience,
                at_most_once: plan.at_most_once,
                idempotent,
            },
            shared: Arc::new(Shared { target: plan.target, action: plan.action, timeout }),
            input: Some(plan.input),
            next: 0,
            workers: Workers::new(plan.prefetch),
            any_worker: false,
            items: Items::default(),
            answers,
            respond_to,
            attempts: FuturesUnordered::new(),
            serial: 0,
            reports: Reports::new(plan.ordered),
            ledger,
            stragglers: Stragglers::default(),
            status,
            counts: MapStatus::default(),
            told: now,
            active: now,
            refused: None,
            last_failure: None,
            end: None,
        }
    }

    fn node(&self) -> &Node {
        self.shared.target.node()
    }

    /// `None` when nobody reads any more.
    async fn spread(&mut self, reader: &mpsc::Sender<Message>) -> Option<Result<(), MapError>> {
        let mut changed = self.node().core().changed.subscribe();
        let mut ticks = ticks(self.plan.lease);
        self.refresh();
        loop {
            let mut wants_input = false;
            if self.end.is_none() {
                self.take_ended();
                self.give_pending();
                wants_input = self.take_input().await;
                self.find_first_worker().await;
            }
            if !self.hand_over(reader) {
                return None;
            }
            if let Some(result) = self.result() {
                return Some(result);
            }
            tokio::task::consume_budget().await;
            tokio::select! {
                biased;
                recorded = self.ledger.next(), if self.ledger.is_behind() => self.on_recorded(recorded),
                item = next(&mut self.input), if wants_input => self.on_input(item).await,
                permit = reader.reserve(), if self.reports.is_ready() => match permit {
                    Ok(permit) => permit.send(Message::Outcomes(self.reports.take())),
                    Err(_) => return None,
                },
                () = reader.closed() => return None,
                outcome = changed.changed() => match outcome {
                    Ok(()) => self.refresh(),
                    Err(_) => self.end = Some(MapError::Stopped),
                },
                _ = ticks.tick() => self.on_tick(),
                // Last: the next turn takes them anyway, and however many come, nothing above may starve.
                Some((mark, reply)) = self.answers.recv() => self.on_answer(mark, reply),
                Some(ended) = self.attempts.next(), if !self.attempts.is_empty() => self.on_ended(ended),
            }
        }
    }

    /// What came of the whole, once everything that was found out is read.
    fn result(&mut self) -> Option<Result<(), MapError>> {
        if self.reports.is_ready() {
            return None;
        }
        if let Some(error) = self.end.take() {
            return Some(Err(error));
        }
        let is_done = self.input.is_none() && self.items.is_empty() && !self.ledger.is_behind();
        is_done.then_some(Ok(()))
    }

    /// Hands over what can be read without waiting; `false` if nobody reads any more.
    fn hand_over(&mut self, reader: &mpsc::Sender<Message>) -> bool {
        while self.reports.is_ready() {
            match reader.try_reserve() {
                Ok(permit) => permit.send(Message::Outcomes(self.reports.take())),
                Err(mpsc::error::TrySendError::Full(())) => return true,
                Err(mpsc::error::TrySendError::Closed(())) => return false,
            }
        }
        true
    }

    // Workers.

    fn refresh(&mut self) {
        self.workers.refresh(&self.shared.target.hosts(), Instant::now());
        self.any_worker |= self.workers.any_present();
    }

    /// When the first item is there and nobody works, finds out whether that may change.
    async fn find_first_worker(&mut self) {
        if self.any_worker || self.items.is_empty() {
            return;
        }
        let target = self.shared.target.clone();
        let found = Route { timeout: self.plan.patience, ..target.route() }.first_host().await;
        let mut changed = self.node().core().changed.subscribe();
        self.refresh();
        if found.is_ok() && !self.any_worker {
            let _ = tokio::time::timeout(RECORD.min(self.plan.patience), changed.changed()).await;
            self.refresh();
        }
        if !self.any_worker {
            self.end = Some(match found {
                Err(CallError::Stopped) => MapError::Stopped,
                Err(error) => MapError::NoWorker(error),
                Ok(()) => MapError::NoWorker(target.nobody()),
            });
        }
    }

    fn on_tick(&mut self) {
        let now = Instant::now();
        self.workers.wake(now);
        self.items.wake(now);
        self.end_silent(now);
        if self.input.is_none() && self.plan.idempotent {
            self.double_stragglers(now);
        }
        if now >= self.told + TELL_STATUS {
            self.told = now;
            self.tell_status();
        }
        if self.workers.any_outstanding() || !self.items.any_waits() {
            self.active = now;
        }
        let node_ends = self.node().deadline().is_some_and(|deadline| deadline <= now);
        if node_ends || self.node().core().registry.is_draining() {
            self.end = Some(MapError::Stopped);
        } else if now > self.active + self.patience() {
            self.give_up();
        }
    }

    /// How long nobody may work on anything.
    fn patience(&self) -> Duration {
        let patience = self.plan.patience;
        if self.workers.all_lack() { patience.min(LACKING) } else { patience }
    }

    fn give_up(&mut self) {
        let error = self.last_failure.take().unwrap_or_else(|| self.shared.target.nobody());
        self.end = Some(MapError::NoWorker(error));
    }

    // Items on their way to workers.

    /// Takes items as workers have room, and says whether one is wanted that the input does not have yet.
    async fn take_input(&mut self) -> bool {
        for _ in 0..TURN {
            if !self.wants_input() {
                return false;
            }
            let Some(input) = &mut self.input else { return false };
            match input.next().now_or_never() {
                Some(item) => self.on_input(item).await,
                None => return true,
            }
        }
        // The next turn goes on with it.
        self.wants_input()
    }

    fn wants_input(&mut self) -> bool {
        if self.input.is_none() || self.end.is_some() || !self.reports.has_room(self.next) || !self.ledger.has_room() {
            return false;
        }
        if self.ledger.has(self.next) {
            return true;
        }
        if self.workers.any_present() {
            !self.items.any_is_due() && self.workers.has_room(Instant::now())
        } else {
            // With one item at hand it is worth looking for somebody, and time to lose patience.
            self.items.is_empty()
        }
    }

    async fn on_input(&mut self, item: Option<Result<Payload, EncodeError>>) {
        let Some(item) = item else {
            self.input = None;
            self.counts.input_ended = true;
            self.end = self.end.take().or(self.ledger.check_end(self.next).err());
            return;
        };
        let index = self.next;
        self.next += 1;
        self.counts.taken += 1;
        let payload = match item {
            Ok(payload) => payload,
            Err(error) => {
                let error = ItemError::new(ItemErrorKind::Unsendable, "unsendable", error);
                return self.conclude(index, Item::new(Payload::default()), Err(error), None);
            }
        };
        match self.ledger.find(index, &payload).await {
            Ok(Some(outcome)) => self.report(outcome),
            Ok(None) => {
                self.items.insert(index, Item::new(payload));
                self.items.return_soon(index);
                self.give_pending();
            }
            Err(error) => self.end = Some(error),
        }
    }

    /// Gives workers what waits for one.
    fn give_pending(&mut self) {
        let now = Instant::now();
        for _ in 0..self.items.suspects() {
            let Some(index) = self.items.next_suspect() else { break };
            let Some(tried) = self.items.find(index).map(|item| item.tried()) else { continue };
            match self.workers.take_for_suspect(&tried, now) {
                Some(worker) => self.begin(index, worker, true, now),
                None => self.items.return_soon(index),
            }
        }
        for _ in 0..self.items.pending() {
            let Some(index) = self.items.next_pending() else { break };
            if self.items.find(index).is_none() {
                continue;
            }
            match self.workers.take(now) {
                Some(worker) => self.begin(index, worker, false, now),
                None => return self.items.return_soon(index),
            }
        }
    }

    fn begin(&mut self, index: u64, worker: WorkerId, suspect: bool, now: Instant) {
        let host = self.workers.worker(worker).host.clone();
        let taken = Taken { outstanding: self.workers.outstanding(worker), suspect };
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

    fn take_ended(&mut self) {
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

    fn on_answer(&mut self, mark: Mark, reply: Reply) {
        let Some(running) = self.items.take_running(mark) else { return };
        let info = &self.workers.worker(running.worker).host.info;
        let outcome = self.shared.route(&running.pulse).answered(info, &self.shared.action, reply);
        self.on_outcome(mark.0, running, outcome);
    }

    fn on_ended(&mut self, ended: Ended) {
        let Some(outcome) = ended.outcome else { return };
        if let Some(running) = self.items.take_running(ended.mark) {
            self.on_outcome(ended.mark.0, running, outcome);
        }
    }

    fn on_outcome(&mut self, index: u64, running: Running, outcome: Result<Payload, CallError>) {
        match outcome {
            Ok(payload) => {
                let now = Instant::now();
                let took = now - running.sent;
                (self.active, self.refused) = (now, None);
                self.workers.end(running.worker, Report::Done, took, running.taken, now);
                self.stragglers.note(took);
                self.end_item(index, Ok(payload), running.worker);
            }
            Err(error) => {
                // A worker that breaks at once may not have said any more that an item's turn had come: who is suspected
                // already does not get the benefit of the doubt.
                let suspect = self.items.find(index).is_some_and(|item| item.is_suspect());
                let waiting = running.pulse.last().1 && !suspect;
                self.on_failure(index, &running, Failure::Call(error), waiting);
            }
        }
    }

    fn on_failure(&mut self, index: u64, running: &Running, failure: Failure, waiting: bool) {
        let now = Instant::now();
        let took = now - running.sent;
        let (verdict, report) = failure.verdict(waiting);
        self.workers.end(running.worker, report, took, running.taken, now);
        let Some(item) = self.items.find(index) else { return };
        if let Failure::Call(error) = &failure {
            self.last_failure = Some(error.clone());
        }
        if verdict == Verdict::Return {
            item.attempts = item.attempts.saturating_sub(1);
            // To have an item for a while and refuse it is not to work on it.
            let since = *self.refused.get_or_insert(running.sent);
            if now > since + self.plan.patience && !self.workers.any_outstanding() {
                return self.give_up();
            }
        } else {
            self.refused = None;
            let host = &self.workers.worker(running.worker).host;
            item.note(Attempt {
                node: host.node.clone(),
                peer_id: host.peer_id,
                code: failure.code().to_owned(),
                message: failure.to_string(),
                duration: took,
            });
        }
        // Another attempt is under way: what becomes of the item is for that one to say.
        let goes_on = !item.running.is_empty();
        match verdict {
            Verdict::Stop => self.end = Some(MapError::Stopped),
            Verdict::Final(kind) => self.fail(index, kind, &failure, running.worker),
            Verdict::Error => {
                item.errors += 1;
                let errors = item.errors;
                if errors > self.plan.retry_errors {
                    self.fail(index, ItemErrorKind::Failed, &failure, running.worker);
                } else if !goes_on {
                    self.items.return_later(index, errors, now);
                }
            }
            Verdict::Return if goes_on => {}
            Verdict::Return if self.workers.any_present() || report != Report::Lacking => {
                self.items.return_soon(index);
            }
            Verdict::Return => self.fail(index, ItemErrorKind::Failed, &failure, running.worker),
            Verdict::Crash | Verdict::Retry => {
                item.losses += 1;
                item.crashes += u32::from(verdict == Verdict::Crash);
                let (losses, crashes) = (item.losses, item.crashes);
                if !self.may_retry(index, losses, crashes, &failure, running.worker) || goes_on {
                } else if losses == 1 {
                    self.items.return_soon(index);
                } else {
                    self.items.return_later(index, losses - 1, now);
                }
            }
        }
    }

    /// Whether an item that was lost may be tried again; if not, it has its outcome.
    fn may_retry(&mut self, index: u64, losses: u32, crashes: u32, failure: &Failure, worker: WorkerId) -> bool {
        let plan = &self.plan;
        let (at_most_once, poison_after, retries) = (plan.at_most_once, plan.poison_after, plan.retries);
        if at_most_once {
            self.fail(index, ItemErrorKind::Exhausted, failure, worker);
        } else if crashes >= poison_after {
            let message = format!("set aside as poisoned: {crashes} workers broke under it, at last: {failure}");
            let error = ItemError::new(ItemErrorKind::Poisoned, failure.code(), message);
            self.end_item(index, Err(error), worker);
        } else if losses > retries {
            let message = format!("lost {losses} times, at last: {failure}");
            let error = ItemError::new(ItemErrorKind::Exhausted, failure.code(), message);
            self.end_item(index, Err(error), worker);
        } else {
            return true;
        }
        false
    }

    fn fail(&mut self, index: u64, kind: ItemErrorKind, failure: &Failure, worker: WorkerId) {
        let error = match failure {
            Failure::Call(error) => ItemError::of(kind, error),
            failure => ItemError::new(kind, failure.code(), failure),
        };
        self.end_item(index, Err(error), worker);
    }

    /// The item has its outcome; whoever else works on it may stop.
    fn end_item(&mut self, index: u64, result: Result<Payload, ItemError>, worker: WorkerId) {
        let Some(mut item) = self.items.remove(index) else { return };
        for other in item.running.drain(..) {
            let now = Instant::now();
            self.workers.end(other.worker, Report::CalledOff, now - other.sent, other.taken, now);
        }
        self.conclude(index, item, result, Some(worker));
    }

    fn conclude(&mut self, index: u64, item: Item, result: Result<Payload, ItemError>, worker: Option<WorkerId>) {
        let host = worker.map(|worker| &self.workers.worker(worker).host);
        let outcome = Outcome {
            index,
            result,
            node: host.map(|host| host.node.clone()),
            peer_id: host.map(|host| host.peer_id),
            attempts: item.attempts,
            duration: item.begun.map(|begun| begun.elapsed()).unwrap_or_default(),
            failures: item.failures,
            recorded: false,
            input: item.payload,
        };
        if let Some(outcome) = self.ledger.record(outcome) {
            self.report(outcome);
        }
    }

    fn on_recorded(&mut self, recorded: Result<Vec<Outcome<Payload>>, MapError>) {
        match recorded {
            Ok(outcomes) => outcomes.into_iter().for_each(|outcome| self.report(outcome)),
            Err(error) => self.end = Some(error),
        }
    }

    fn report(&mut self, outcome: Outcome<Payload>) {
        self.counts.done += 1;
        self.counts.failed += u64::from(outcome.result.is_err());
        self.counts.recorded += u64::from(outcome.recorded);
        self.reports.push(outcome);
    }

    // What takes too long.

    /// Calls off what nothing was heard of for a whole lease.
    fn end_silent(&mut self, now: Instant) {
        let lease = self.plan.lease;
        let mut looked = Vec::new();
        for (index, item) in self.items.iter() {
            for running in &item.running {
                let (when, waiting) = running.pulse.last();
                looked.push((index, running.serial, running.worker, when, waiting));
            }
        }
        for &(_, _, worker, when, _) in &looked {
            let worker = self.workers.worker_mut(worker);
            worker.heard = worker.heard.max(when);
        }
        for (index, serial, worker, when, waiting) in looked {
            // What waits for its turn is not to blame as long as its worker goes on with others.
            let heard = if waiting { when.max(self.workers.worker(worker).heard) } else { when };
            if now.saturating_duration_since(heard) > lease {
                self.call_off(index, serial, Failure::Silent(lease), waiting);
            }
        }
    }

    fn call_off(&mut self, index: u64, serial: u64, failure: Failure, waiting: bool) {
        if let Some(running) = self.items.take_running((index, serial)) {
            self.on_failure(index, &running, failure, waiting);
        }
    }

    /// Begins what takes much longer than the others a second time, on workers that have nothing else to do.
    fn double_stragglers(&mut self, now: Instant) {
        if self.items.any_waits() || !self.workers.has_idle_slot(now) {
            return;
        }
        for (index, first) in self.stragglers.find(&self.items, now) {
            let Some(worker) = self.workers.take_beside(first, now) else { return };
            self.begin(index, worker, false, now);
        }
    }

    fn tell_status(&mut self) {
        self.counts.running = self.items.iter().filter(|(_, item)| !item.running.is_empty()).count();
        self.counts.workers = self.workers.status();
        self.status.send_replace(self.counts.clone());
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
        self.route(&pulse).call_at(&target, &self.action, &payload).await
    }
}

/// The next item, if there is an input.
async fn next(
    input: &mut Option<BoxStream<'static, Result<Payload, EncodeError>>>,
) -> Option<Result<Payload, EncodeError>> {
    match input {
        Some(input) => input.next().await,
        None => None,
    }
}

fn ticks(lease: Duration) -> Interval {
    let mut ticks = tokio::time::interval((lease / 4).clamp(Duration::from_millis(1), TICK));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}
