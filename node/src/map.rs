//! Many items, one action, a whole swarm: the results come as they are ready.
//!
//! Whoever has the items spreads them: there is no scheduler to install, to lose or to overload. Each worker has as many
//! items as it has slots and a few more, so whoever is faster gets more.
//!
//! `engine.rs` is the task that does it; who gets what is decided in `workers.rs`, what a failure means in `verdict.rs`.
//! Both know neither clock nor network.

mod durable;
mod engine;
mod items;
#[cfg(feature = "journal")]
pub(crate) mod journal;
#[cfg(feature = "journal")]
mod ledger;
#[cfg(not(feature = "journal"))]
#[path = "map/no_ledger.rs"]
mod ledger;
mod outcome;
mod pauses;
mod plan;
mod reports;
mod stragglers;
mod verdict;
mod workers;

#[cfg(feature = "journal")]
use std::path::Path;
use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
    vec,
};

use futures::{FutureExt, Stream, StreamExt};
use serde::de::DeserializeOwned;
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
};

#[cfg(feature = "journal")]
pub use self::journal::JournalError;
pub use self::{
    outcome::{Attempt, ItemError, ItemErrorKind, MAX_FAILURES, MapError, MapStatus, Outcome, WorkerStatus},
    plan::{DEFAULT_LEASE, DEFAULT_PATIENCE, DEFAULT_POISON_AFTER, DEFAULT_RETRIES},
    workers::DEFAULT_SLOTS,
};

use self::{
    engine::{Engine, Message},
    plan::Plan,
};
use crate::{
    app_ref::AppRef,
    payload::{EncodeError, Payload},
};

/// Batches of outcomes that were handed over and not read yet.
const BATCHES: usize = 4;

/// Runs an action on each item of an input, spread over all hosts of an application: a stream of [`Outcome`]s.
///
/// It begins when it is first polled; until then its methods say how it is done. Dropping it cancels what runs. An error
/// in place of an outcome is the end: what was reported before holds.
///
/// # What is promised
///
/// Each item has exactly one outcome. A worker that is lost while it runs an item has not said whether it is done, so
/// the item is run again elsewhere: **at least once**, unless [`at_most_once`](Self::at_most_once) is said. What an
/// application says, result or error, is final, unless [`retry_errors`](Self::retry_errors) is said.
///
/// | what fails | usually | `at_most_once` |
/// |---|---|---|
/// | a worker's process, its node, the link to it | run again elsewhere, as often as [`retries`](Self::retries), [`poison_after`](Self::poison_after) say | a failure: may have run |
/// | a worker that is silent for a [`lease`](Self::lease), or takes longer than [`item_timeout`](Self::item_timeout) | the same; what it was given before may still run there | a failure: may have run |
/// | a worker that is busy or stopping, or had no time left to begin | another one gets it: it surely did not run | the same |
/// | this process, with a [`journal`](Self::journal) | the next run goes on: what has an outcome is not run again, what was under way is | what was under way may have run, and is not |
/// | this process, without one | nothing is known of what was run | the same |
/// | the disk with the journal | an error of the map; as after the end of the process | the same |
///
/// `at_most_once` holds with [`retry_failed`](Self::retry_failed) and [`retry_unknown`](Self::retry_unknown), too, but for
/// the items of which they say that they are to be run once more.
///
/// Memory is bounded, however long the input is: an item is taken when a worker has room for it, and none while outcomes
/// are not read.
#[must_use = "nothing is run before it is polled"]
pub struct Map<R> {
    plan: Option<Box<Plan>>,
    running: Option<Running>,
    current: vec::IntoIter<Outcome<Payload>>,
    status: watch::Sender<MapStatus>,
    /// Reads a result as what was asked for.
    read: fn(Outcome<Payload>) -> Outcome<R>,
}

struct Running {
    messages: mpsc::Receiver<Message>,
    engine: JoinHandle<()>,
}

impl<R> Map<R> {
    pub(crate) fn new(
        target: AppRef,
        action: String,
        input: impl Stream<Item = Result<Payload, EncodeError>> + Send + 'static,
        read: fn(Outcome<Payload>) -> Outcome<R>,
    ) -> Self {
        Self {
            plan: Some(Box::new(Plan::new(target, action, input.boxed()))),
            running: None,
            current: Vec::new().into_iter(),
            status: watch::Sender::default(),
            read,
        }
    }

    /// Gives the outcomes in the order of the items, instead of as they are ready. No item is taken that is more than
    /// 16,384 ahead of the first one without an outcome.
    pub fn ordered(self) -> Self {
        self.with(|plan| plan.ordered = true)
    }

    /// How often an item is run again after its worker was lost, broke, or took too long; 5 by default. At first at
    /// once, then with growing pauses. What surely did not run is given to another worker at no cost.
    pub fn retries(self, retries: u32) -> Self {
        self.with(|plan| plan.retries = retries)
    }

    /// How often an item is run again after the application said that it failed; 0 by default.
    pub fn retry_errors(self, retries: u32) -> Self {
        self.with(|plan| plan.retry_errors = retries)
    }

    /// After so many workers that broke under an item it is set aside as poisoned; 3 by default, at least 1. It may be one
    /// more: an item that was waiting for its turn, as far as was heard, is not blamed the first time. An item that is
    /// blamed does not share a worker with another such item, so the innocent are acquitted.
    pub fn poison_after(self, workers: u32) -> Self {
        self.with(|plan| plan.poison_after = workers)
    }

    /// How long a worker may be silent about an item before it is given to another one; 60 s by default, at least 1 ms.
    /// [`Context::progress`](crate::Context::progress) renews it: an action that takes longer should say that it goes on.
    ///
    /// Time in which this process does not run itself, because it is stopped for example, is none of it.
    ///
    /// A worker that was silent, or that broke, rests for 250 ms at first and 10 s at the most, with all its slots.
    pub fn lease(self, lease: Duration) -> Self {
        self.with(|plan| plan.lease = lease.max(Duration::from_millis(1)))
    }

    /// How long one attempt may take in all, whatever it says, at least 1 ms. No limit by default. A worker that takes longer rests as
    /// one that is [silent](Self::lease).
    pub fn item_timeout(self, timeout: Duration) -> Self {
        self.with(|plan| plan.item_timeout = Some(timeout.max(Duration::from_millis(1))))
    }

    /// How many items lie ready with each worker beside those in its slots, 1024 at the most. By default so many that it
    /// has work for 5 ms.
    pub fn prefetch(self, items: usize) -> Self {
        self.with(|plan| plan.prefetch = Some(items))
    }

    /// How long to wait while nobody takes anything, before the whole is given up; 60 s by default. If nobody has ever
    /// hosted the application, or all who host it lack the action, that is found out much sooner.
    pub fn patience(self, patience: Duration) -> Self {
        self.with(|plan| plan.patience = patience)
    }

    /// Never runs an item a second time that may have run: it fails instead ([`ItemErrorKind::MayHaveRun`]) if its worker is
    /// lost. [`retry_errors`](Self::retry_errors) with it is an [error](MapError::Contradiction), and what the target says
    /// of idempotence does not count.
    ///
    /// With a [`journal`](Self::journal) it holds over all runs of the map, whatever ended them: that an item is about to be
    /// sent is on disk before it is sent, with one sync for all that wait. Of those that were begun and have no outcome, the
    /// next run says that they may have run, and only [`retry_unknown`](Self::retry_unknown) has them run again. So a journal
    /// is begun with this or without it, and stays so.
    pub fn at_most_once(self) -> Self {
        self.with(|plan| plan.at_most_once = true)
    }

    /// Records each outcome in this file before it is reported, and runs nothing again that the file has: so the same
    /// map goes on where it stopped, whatever had happened to it. The recorded outcomes are reported again, when their
    /// items come from the input.
    #[cfg(feature = "journal")]
    pub fn journal(self, file: impl AsRef<Path>) -> Self {
        let file = file.as_ref().to_owned();
        self.with(|plan| plan.journal = Some(file))
    }

    /// Runs those again that the journal has as failed, but not those that [may have run](ItemErrorKind::MayHaveRun).
    #[cfg(feature = "journal")]
    pub fn retry_failed(self) -> Self {
        self.with(|plan| plan.retry_failed = true)
    }

    /// Runs those again that [may have run](ItemErrorKind::MayHaveRun), as the journal of a map that runs items
    /// [at most once](Self::at_most_once) says. There are none in others.
    #[cfg(feature = "journal")]
    pub fn retry_unknown(self) -> Self {
        self.with(|plan| plan.retry_unknown = true)
    }

    /// How far it is, told ten times a second, and at the end.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<MapStatus> {
        self.status.subscribe()
    }

    fn with(mut self, change: impl FnOnce(&mut Plan)) -> Self {
        if let Some(plan) = &mut self.plan {
            change(plan);
        }
        self
    }

    /// The next outcome as it came; begins the work at first.
    fn poll_outcome(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Outcome<Payload>, MapError>>> {
        loop {
            if let Some(outcome) = self.current.next() {
                return Poll::Ready(Some(Ok(outcome)));
            }
            if let Some(plan) = self.plan.take() {
                let (reader, messages) = mpsc::channel(BATCHES);
                let engine = tokio::spawn(Engine::run(*plan, reader, self.status.clone()));
                self.running = Some(Running { messages, engine });
            }
            let Some(running) = &mut self.running else { return Poll::Ready(None) };
            let end = match ready!(running.messages.poll_recv(cx)) {
                Some(Message::Outcomes(outcomes)) => {
                    self.current = outcomes.into_iter();
                    continue;
                }
                Some(Message::End(result)) => result,
                // Only a panic ends it without a word: the input's, for nothing else of the user's runs in it.
                None => Err(match ready!(running.engine.poll_unpin(cx)) {
                    Err(error) if error.is_panic() => MapError::Input(panic_text(error.into_panic())),
                    _ => MapError::Stopped,
                }),
            };
            self.running = None;
            return Poll::Ready(end.err().map(Err));
        }
    }
}

impl Map<Payload> {
    /// Has a result that JSON cannot say be a failure of its item, which names what it is.
    pub fn only_json(mut self) -> Self {
        self.read = Outcome::only_json;
        self
    }
}

impl<R> Stream for Map<R> {
    type Item = Result<Outcome<R>, MapError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let read = self.read;
        self.poll_outcome(cx).map(|outcome| outcome.map(|outcome| outcome.map(read)))
    }
}

impl<R> Drop for Map<R> {
    fn drop(&mut self) {
        if let Some(running) = &self.running {
            running.engine.abort();
        }
    }
}

impl<R> fmt::Debug for Map<R> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Map").field("running", &self.running.is_some()).finish_non_exhaustive()
    }
}

impl Outcome<Payload> {
    fn only_json(mut self) -> Self {
        if let Err(error) = self.result.as_ref().map_or(Ok(()), |result| result.json().map(drop)) {
            let message = format_args!("the result cannot be written as JSON: {error}");
            self.result = Err(ItemError::new(ItemErrorKind::Failed, "unexpected_result", message));
        }
        self
    }

    /// Reads the result as what was asked for.
    pub(crate) fn decode<R: DeserializeOwned>(self) -> Outcome<R> {
        let result = self.result.and_then(|payload| {
            payload.decode().map_err(|error| {
                let message = format_args!("the result is of another type: {error}");
                ItemError::new(ItemErrorKind::Failed, "unexpected_result", message)
            })
        });
        let Self { index, input, node, peer_id, attempts, duration, failures, recorded, .. } = self;
        Outcome { index, input, result, node, peer_id, attempts, duration, failures, recorded }
    }
}

fn panic_text(panic: Box<dyn std::any::Any + Send>) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "without a message".to_owned())
}
