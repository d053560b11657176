//! One hosted application: what others are told of it, the calls that it takes, and its queue of tells.

use std::{
    collections::VecDeque,
    panic::AssertUnwindSafe,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use futures::{FutureExt, future::BoxFuture};
use multinodes_behaviour::{
    lane::{Charge, Delivery, Refusal, Tells},
    names,
    wire::{ApplicationRecord, ErrorCode},
};
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, mpsc::error::TrySendError};

use super::refusals::{draining, panic_text, refusal, unknown};
use crate::{
    announcement::Announcement,
    application::{Application, Context, Hostable, Origin, Profile},
    core::Core,
    factories::Maker,
    node::Node,
    payload::Payload,
    permissions::Guards,
};

/// A cast to a full queue holds up its lane for so long at the most; then it is dropped and counted.
const CAST_PATIENCE: Duration = Duration::from_millis(100);

/// One part in so many of the queue for calls is kept for peers with few calls here, so that one that calls without end
/// keeps nobody else out.
const KEPT: usize = 8;

/// A peer may take one part in so many of what is kept: as a rule, 128 calls.
const SHARES: usize = 4;

/// Tells that are taken from a queue at once.
const BATCH: usize = 64;

/// One hosted application.
pub(crate) struct Hosted {
    pub(crate) name: Arc<str>,
    pub(crate) profile: Profile,
    /// What it was installed by; `None` if the node's own program has registered it.
    pub(crate) maker: Maker,
    pub(crate) guards: Guards,
    shown: ArcSwap<Shown>,
    application: Arc<dyn Hostable>,
    slots: Arc<Semaphore>,
    admitted: AtomicUsize,
    tells: mpsc::Sender<Told>,
    /// A cast has waited in vain: until there is room again, others are dropped without waiting.
    clogged: Arc<AtomicBool>,
    tally: Tally,
}

/// What others are told of an application, and may change while it is hosted.
#[derive(Debug, Clone)]
pub(super) struct Shown {
    description: Value,
    version: Option<String>,
    actions: Vec<String>,
    idempotent: Vec<String>,
    trouble: Option<String>,
}

impl Shown {
    fn apply(&mut self, announcement: Announcement) {
        let Announcement { description, version, actions, idempotent, trouble } = announcement;
        self.description = description.unwrap_or_else(|| std::mem::take(&mut self.description));
        self.version = version.or_else(|| self.version.take());
        self.actions = actions.unwrap_or_else(|| std::mem::take(&mut self.actions));
        self.idempotent = idempotent.unwrap_or_else(|| std::mem::take(&mut self.idempotent));
        self.trouble = trouble.unwrap_or_else(|| self.trouble.take());
    }
}

/// A tell in an application's queue.
pub(crate) struct Told {
    pub(crate) origin: Origin,
    pub(crate) message: Payload,
    /// What it holds of the budgets for large messages.
    pub(crate) charge: Option<Charge>,
    /// Its sender is told that it is begun.
    pub(crate) tells: Option<Arc<Tells>>,
}

/// What a node counts of all that it hosts.
#[derive(Clone, Default)]
pub(crate) struct Tally {
    /// Calls that run or wait for their turn, and other work that goes on.
    pub(super) running: Arc<AtomicUsize>,
    pub(crate) failed_tells: Arc<AtomicU64>,
    pub(crate) dropped_casts: Arc<AtomicU64>,
    /// Accepted, and given up when the node stopped.
    pub(crate) unfinished_tells: Arc<AtomicU64>,
}

impl Hosted {
    /// One that takes calls, and the work of processing its tells: to be driven until it is unregistered.
    pub(super) fn new(
        core: &Weak<Core>,
        name: Arc<str>,
        application: impl Application,
        maker: Maker,
        guards: Guards,
        tally: Tally,
    ) -> (Self, BoxFuture<'static, ()>) {
        let profile = application.profile();
        let normal = |names: &[String]| names.iter().cloned().map(names::into_normal).collect();
        let (actions, idempotent) = (normal(&profile.actions), normal(&profile.idempotent));
        let application: Arc<dyn Hostable> = Arc::new(application);
        let (tells, queue) = mpsc::channel(profile.queue.clamp(1, Semaphore::MAX_PERMITS));
        let clogged = Arc::new(AtomicBool::new(false));
        let failed = tally.failed_tells.clone();
        let (batch, unfinished) = (VecDeque::new(), tally.unfinished_tells.clone());
        let queue = Queue { name: name.clone(), waiting: queue, batch, busy: false, unfinished };
        let work = process_all(core.clone(), application.clone(), queue, clogged.clone(), failed);
        let hosted = Self {
            name,
            shown: ArcSwap::from_pointee(Shown {
                description: profile.description.clone(),
                version: profile.version.clone(),
                actions,
                idempotent,
                trouble: None,
            }),
            slots: Arc::new(Semaphore::new(profile.concurrency.clamp(1, Semaphore::MAX_PERMITS))),
            profile,
            maker,
            guards,
            application,
            admitted: AtomicUsize::new(0),
            tells,
            clogged,
            tally,
        };
        (hosted, work.boxed())
    }

    /// Changes what others are told of it, and gives what they were told before.
    pub(super) fn announce(&self, announcement: Announcement) -> Arc<Shown> {
        let before = self.shown.load_full();
        let mut shown = Shown::clone(&before);
        shown.apply(announcement);
        self.show(Arc::new(shown));
        before
    }

    pub(super) fn show(&self, shown: Arc<Shown>) {
        self.shown.store(shown);
    }

    /// No call that waits gets its turn any more.
    pub(super) fn close(&self) {
        self.slots.close();
    }

    /// What others are told of it.
    pub(crate) fn record(&self) -> ApplicationRecord {
        let Shown { description, version, actions, idempotent, trouble } = Shown::clone(&self.shown.load());
        ApplicationRecord {
            name: self.name.to_string(),
            version,
            description,
            actions,
            slots: self.profile.slots,
            idempotent,
            trouble,
        }
    }

    /// Whether an action may run twice without harm.
    pub(crate) fn is_idempotent(&self, action: &str) -> bool {
        self.shown.load().idempotent.iter().any(|name| name == action)
    }

    /// Takes a call in, or says that there is too much to do.
    pub(crate) fn admit(self: &Arc<Self>) -> Result<Admission, Refusal> {
        self.tally.running.fetch_add(1, SeqCst);
        let place = self.admitted.fetch_add(1, SeqCst) + 1;
        let admission = Admission(self.clone());
        if place > self.profile.concurrency.saturating_add(self.profile.queue) {
            let text = format!("`{}` has all the calls it takes", self.name);
            return Err(Refusal::new(ErrorCode::Busy, text));
        }
        Ok(admission)
    }

    /// Whether the room that is left is kept for peers with fewer calls here than one that has so many.
    pub(crate) fn is_crowded_for(&self, serving: usize) -> bool {
        let kept = self.profile.queue / KEPT;
        let all = self.profile.concurrency.saturating_add(self.profile.queue);
        kept > 0 && serving > kept / SHARES && self.admitted.load(SeqCst) >= all - kept
    }

    /// A place among the calls that run at once, if one is free.
    pub(crate) fn slot(&self) -> Option<OwnedSemaphorePermit> {
        self.slots.clone().try_acquire_owned().ok()
    }

    /// Waits for a place among the calls that run at once. There is none any more when the node stops: others may take
    /// the call.
    pub(crate) async fn wait_for_slot(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        self.slots.clone().acquire_owned().await.map_err(|_| draining())
    }

    /// Runs an action that has its place. A panic in it is an error of this call alone.
    pub(crate) fn call(
        self: &Arc<Self>,
        context: Context,
        action: String,
        arguments: Payload,
    ) -> BoxFuture<'static, Result<Payload, Refusal>> {
        let hosted = self.clone();
        async move {
            let application = hosted.application.clone();
            // A panic may leave the application's own state broken, never ours.
            let call = AssertUnwindSafe(async move { application.call(context, action, arguments).await });
            match call.catch_unwind().await {
                Ok(outcome) => outcome.map_err(refusal),
                Err(panic) => {
                    tracing::error!(application = %hosted.name, panic = panic_text(&*panic), "an action panicked");
                    Err(Refusal::new(ErrorCode::Panicked, format!("panicked: {}", panic_text(&*panic))))
                }
            }
        }
        .boxed()
    }

    /// Puts a tell into the queue. A cast to a full queue may wait a moment, anything else is refused as busy.
    pub(crate) fn tell(self: &Arc<Self>, told: Told, is_cast: bool) -> Delivery {
        if !self.profile.takes_tells {
            let text = format!("`{}` takes no tells", self.name);
            return Delivery::Refused(Refusal::new(ErrorCode::NoSuchAction, text));
        }
        match self.tells.try_send(told) {
            Ok(()) => Delivery::Accepted,
            Err(TrySendError::Full(told)) if is_cast && !self.clogged.load(SeqCst) => {
                Delivery::Later(self.clone().tell_soon(told))
            }
            Err(TrySendError::Full(_)) => Delivery::Refused(self.full(is_cast)),
            Err(TrySendError::Closed(_)) => Delivery::Refused(unknown(&self.name)),
        }
    }

    fn tell_soon(self: Arc<Self>, told: Told) -> BoxFuture<'static, Result<(), Refusal>> {
        async move {
            match self.tells.send_timeout(told, CAST_PATIENCE).await {
                Ok(()) => Ok(()),
                Err(_) => {
                    self.clogged.store(true, SeqCst);
                    Err(self.full(true))
                }
            }
        }
        .boxed()
    }

    fn full(&self, is_cast: bool) -> Refusal {
        if is_cast && self.tally.dropped_casts.fetch_add(1, SeqCst).is_power_of_two() {
            tracing::warn!(application = %self.name, "casts are dropped: the queue is full");
        }
        Refusal::new(ErrorCode::Busy, format!("the queue of `{}` is full", self.name))
    }
}

/// A call that was taken in; counts as long as it lives.
pub(crate) struct Admission(Arc<Hosted>);

impl Drop for Admission {
    fn drop(&mut self) {
        self.0.admitted.fetch_sub(1, SeqCst);
        self.0.tally.running.fetch_sub(1, SeqCst);
    }
}

/// The tells of an application that nobody has processed yet. Whoever drops it gives them up.
struct Queue {
    name: Arc<str>,
    waiting: mpsc::Receiver<Told>,
    batch: VecDeque<Told>,
    /// One is being processed.
    busy: bool,
    unfinished: Arc<AtomicU64>,
}

impl Queue {
    async fn next(&mut self, clogged: &AtomicBool) -> Option<Told> {
        self.busy = false;
        if self.batch.is_empty() {
            let mut batch = Vec::with_capacity(BATCH);
            self.waiting.recv_many(&mut batch, BATCH).await;
            self.batch = batch.into();
            clogged.store(false, SeqCst);
        }
        let told = self.batch.pop_front()?;
        self.busy = true;
        Some(told)
    }
}

impl Drop for Queue {
    /// They were accepted, so they must not vanish without a word.
    fn drop(&mut self) {
        self.waiting.close();
        let left = self.waiting.len() + self.batch.len() + usize::from(self.busy);
        if left > 0 {
            self.unfinished.fetch_add(left as u64, SeqCst);
            tracing::warn!(application = %self.name, tells = left, "accepted tells are given up: the node stops");
        }
    }
}

/// Processes an application's tells one after the other, until it is unregistered and its queue is empty.
async fn process_all(
    core: Weak<Core>,
    application: Arc<dyn Hostable>,
    mut queue: Queue,
    clogged: Arc<AtomicBool>,
    failed: Arc<AtomicU64>,
) {
    while let Some(Told { origin, message, charge, tells }) = queue.next(&clogged).await {
        // Without its node an application has nothing to work on.
        let Some(core) = core.upgrade() else { return };
        if let Some(tells) = tells {
            tells.begin();
        }
        let context = origin.context(Node::inner(core), queue.name.clone());
        let processing = application.clone().process(context, message);
        let failure = match AssertUnwindSafe(processing).catch_unwind().await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(panic) => Some(format!("panicked: {}", panic_text(&*panic))),
        };
        drop(charge);
        if let Some(reason) = failure {
            failed.fetch_add(1, SeqCst);
            tracing::warn!(application = %queue.name, %reason, "a tell could not be processed");
        }
    }
}
