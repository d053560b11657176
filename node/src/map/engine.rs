//! The task that spreads the items: takes them from the input as workers have room, and looks after each until it has an
//! outcome.
//!
//! `supply.rs` brings items to workers, `attempts.rs` sends them and hears what comes of it, `endings.rs` says what that
//! means for an item, `overdue.rs` looks after what takes too long.

mod attempts;
mod endings;
mod overdue;
mod supply;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{
    StreamExt,
    future::BoxFuture,
    stream::{BoxStream, FuturesUnordered},
};
use multinodes_behaviour::{
    lane::{Answers, Mark, Reply},
    wire::Options,
};
use tokio::{
    sync::{mpsc, watch},
    time::{Interval, MissedTickBehavior},
};

use self::attempts::{Ended, Shared};
use super::{
    items::Items,
    ledger::Ledger,
    outcome::{MapError, MapStatus, Outcome},
    pauses::Pauses,
    plan::Plan,
    reports::Reports,
    stragglers::Stragglers,
    workers::Workers,
};
use crate::{
    call_error::CallError,
    description::Host,
    node::Node,
    payload::{EncodeError, Payload},
    route::Route,
    selection,
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

pub(super) struct Engine {
    shared: Arc<Shared>,
    plan: Rules,
    input: Option<BoxStream<'static, Result<Payload, EncodeError>>>,
    /// The index of the item that comes next from the input.
    next: u64,
    workers: Workers,
    /// All hosts, if some of them have to be verified before they get work.
    unverified: Vec<Arc<Host>>,
    /// Some worker was there at some time.
    any_worker: bool,
    items: Items,
    /// What comes of calls that could be sent at once: nearly all. A call has one answer at the most, and a worker gets
    /// another item only when an answer was read here or its attempt called off: so no more wait than workers have room
    /// for (each 4,096 slots and 1,024 items ahead at the most), and those called off since [`TURN`] of them were read,
    /// which every turn does before it gives out anything. An answer has at most the node's largest message.
    answers: mpsc::UnboundedReceiver<(Mark, Reply)>,
    respond_to: Answers,
    /// The others, and what runs here.
    attempts: FuturesUnordered<BoxFuture<'static, Ended>>,
    serial: u64,
    reports: Reports,
    ledger: Ledger,
    stragglers: Stragglers,
    pauses: Pauses,
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
        let opened = match plan.check() {
            Ok(()) => Ledger::open(&plan).await,
            Err(error) => Err(error),
        };
        let ledger = match opened {
            Ok(ledger) => ledger,
            Err(error) => return drop(reader.send(Message::End(Err(error))).await),
        };
        let mut engine = Self::new(plan, ledger, status);
        let ended = engine.spread(&reader).await;
        if engine.withdraw() {
            engine.settle().await;
        }
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
            unverified: Vec::new(),
            any_worker: false,
            items: Items::default(),
            answers,
            respond_to,
            attempts: FuturesUnordered::new(),
            serial: 0,
            reports: Reports::new(plan.ordered),
            ledger,
            stragglers: Stragglers::default(),
            pauses: Pauses::new(tick(plan.lease), now),
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
            self.look_at_clock();
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
                item = supply::next(&mut self.input), if wants_input => self.on_input(item).await,
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

    /// Says in the journal of items that surely did not run, and will not, that they were not begun. Whether there are any.
    fn withdraw(&mut self) -> bool {
        self.ledger.withdraw(|index| self.items.is_idle(index))
    }

    /// Waits until all is on disk, or nothing more can be.
    async fn settle(&mut self) {
        while self.ledger.is_behind() && self.ledger.next().await.is_ok() {}
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
        let hosts = self.shared.target.hosts();
        let verified = selection::narrow(&hosts);
        self.workers.refresh(verified.as_deref().unwrap_or(&hosts), Instant::now());
        self.unverified = if verified.is_some() { hosts } else { Vec::new() };
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

    /// Time in which nothing was looked at is nobody's fault.
    fn look_at_clock(&mut self) {
        let now = Instant::now();
        if self.pauses.turn(now) {
            self.active = now;
            self.refused = self.refused.map(|_| now);
        }
    }

    fn on_tick(&mut self) {
        self.look_at_clock();
        let now = Instant::now();
        self.workers.wake(now);
        self.items.wake(now);
        selection::verify_one(self.node().core(), &self.unverified);
        self.end_silent(now);
        if self.input.is_none() && self.plan.idempotent && !self.pauses.is_reading(now) {
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
        } else if now.saturating_duration_since(self.active) > self.patience() {
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

    fn tell_status(&mut self) {
        self.counts.running = self.items.iter().filter(|(_, item)| !item.running.is_empty()).count();
        self.counts.workers = self.workers.status();
        self.status.send_replace(self.counts.clone());
    }
}

impl Drop for Engine {
    /// Whoever drops the map ends it at any moment. The journal's own thread goes on with what it was given.
    fn drop(&mut self) {
        self.withdraw();
    }
}

fn ticks(lease: Duration) -> Interval {
    let mut ticks = tokio::time::interval(tick(lease));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

fn tick(lease: Duration) -> Duration {
    (lease / 4).clamp(Duration::from_millis(1), TICK)
}
