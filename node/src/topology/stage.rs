//! A stage of flows: an application that takes tuples and emits others.

use std::{
    fmt,
    future::Future,
    num::NonZero,
    panic::AssertUnwindSafe,
    sync::{Arc, OnceLock},
    thread::available_parallelism,
    time::{Duration, Instant},
};

use futures::{
    FutureExt,
    future::{BoxFuture, poll_immediate},
};
use serde::de::DeserializeOwned;
use tokio::{sync::Semaphore, task::JoinSet, time::timeout_at};

use super::{
    emitter::Emitter,
    inbox::{Inbox, Place},
    parts::{Part, Parts},
    plan::StageIndex,
    queue::units,
    wire::{Delivery, END, TUPLES, Tuple},
};
use crate::{
    actions::Actions,
    application::{AppError, Application, Context, DEFAULT_CONCURRENCY, Profile},
    payload::Payload,
    permissions::Guard,
    registry::panic_text,
};

/// Tuples that a stage processes at once on one node unless it says otherwise.
pub const DEFAULT_STAGE_CONCURRENCY: usize = 64;

/// Tuples that may wait behind those unless it says otherwise.
pub const DEFAULT_STAGE_QUEUE: u32 = 1024;

/// Bytes of tuples that a stage has emitted on one node and that the next stages have not taken yet: from there on it
/// waits. What was begun before may be above it by one tuple for each thread. One flow has half of it, and all that one node
/// brings three quarters.
pub const MAX_EMITTED_BYTES: usize = 32 * 1024 * 1024;

/// No sender may let a call wait for room longer than this.
const LONGEST_PATIENCE: Duration = Duration::from_secs(5);

type Handler = Arc<dyn Fn(Payload, Emitter) -> BoxFuture<'static, Result<(), AppError>> + Send + Sync>;

/// A stage of flows, made of a closure: register it as an application on every node that is to take part.
///
/// The same stage serves any number of flows from any number of nodes at once: what comes next is said by the flow, not
/// here.
///
/// ```
/// use multinodes::topology::{Emitter, Stage};
///
/// let split = Stage::new(|line: String, out: Emitter| async move {
///     for word in line.split_whitespace() {
///         out.emit(word).await?;
///     }
///     Ok(())
/// });
/// ```
///
/// When the closure ends with an error, or panics, the whole tree is replayed from the source after a pause. An error
/// made by [`AppError::bad_arguments`] or [`AppError::forbidden`] is final: the item is given up at once. So it is when
/// a tuple is of another type than the closure takes.
///
/// A tuple may be processed again in a later attempt of its tree, even though its first processing went well: what the
/// closure does beside emitting must bear that.
#[must_use = "a stage does nothing until it is registered"]
pub struct Stage {
    process: Handler,
    actions: Actions,
    concurrency: usize,
    queue: u32,
    /// Begins with the first tuples.
    crew: OnceLock<Crew>,
}

/// What runs on a node for one stage.
struct Crew {
    shared: Arc<Shared>,
    workers: JoinSet<()>,
    /// The actions' own limit: deliveries of tuples do not count.
    ordinary: Semaphore,
}

struct Shared {
    process: Handler,
    inbox: Arc<Inbox<Work>>,
    parts: Arc<Parts>,
}

/// A tuple that waits to be processed.
struct Work {
    part: Arc<Part>,
    stage: StageIndex,
    tuple: Tuple,
}

impl Stage {
    /// A stage that does this with each tuple.
    pub fn new<T, F, Fut>(process: F) -> Self
    where
        T: DeserializeOwned,
        F: Fn(T, Emitter) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), AppError>> + Send + 'static,
    {
        let process: Handler = Arc::new(move |payload, emitter| {
            let running = payload.decode().map(|tuple| process(tuple, emitter));
            async move { running.map_err(AppError::bad_arguments)?.await }.boxed()
        });
        let (actions, concurrency, queue) = (Actions::new(), DEFAULT_STAGE_CONCURRENCY, DEFAULT_STAGE_QUEUE);
        Self { process, actions, concurrency, queue, crew: OnceLock::new() }
    }

    /// Gives the application ordinary actions, tells and a description besides: to ask a stage for what it keeps, for
    /// example. Their rules are the stage's: those for the application say whose flows it takes part in.
    pub fn actions(mut self, actions: Actions) -> Self {
        self.actions = actions;
        self
    }

    /// How many tuples it processes at once on one node, 64 by default and at least 1. With 1 they are processed one
    /// after the other, in the order in which they came. One in eight of these places is kept for other flows than that
    /// which has most of them, and so is one in eight of the [queue](Self::queue): a stage with less than 8 has none to spare.
    pub fn concurrency(mut self, tuples: usize) -> Self {
        self.concurrency = tuples.clamp(1, Semaphore::MAX_PERMITS);
        self
    }

    /// How many tuples may wait on one node beside those that are processed, 1024 by default and at least 1; a tuple
    /// takes one more place for each 64 KiB, until it was processed: so those here have 68 MiB together by default. When
    /// there is no room those who emit have to wait.
    pub fn queue(mut self, tuples: u32) -> Self {
        self.queue = tuples.max(1);
        self
    }

    fn crew(&self) -> &Crew {
        self.crew.get_or_init(|| {
            // What is being processed keeps its room: it is in memory all the same.
            let room = self.queue.saturating_add(self.concurrency.try_into().unwrap_or(u32::MAX));
            let inbox = Inbox::new(room, self.concurrency, MAX_EMITTED_BYTES);
            let shared = Arc::new(Shared { process: self.process.clone(), inbox, parts: Arc::default() });
            let cores = available_parallelism().map_or(1, NonZero::get);
            let mut workers = JoinSet::new();
            for _ in 0..cores.min(self.concurrency) {
                workers.spawn(work(shared.clone()));
            }
            let ordinary = Application::profile(&self.actions).concurrency;
            Crew { shared, workers, ordinary: Semaphore::new(ordinary.clamp(1, Semaphore::MAX_PERMITS)) }
        })
    }

    /// Puts tuples into the queue, and says how many of them found room in time.
    async fn take(&self, context: &Context, delivery: Delivery) -> Result<usize, AppError> {
        let Delivery { run, token, stage, patience, plan, tuples } = delivery;
        let shared = &self.crew().shared;
        let Some(part) = shared.parts.find(context, &plan, stage, (run, token))? else { return Ok(0) };
        drop(plan);
        let now = Instant::now();
        let until = now + Duration::from_millis(patience.into()).min(LONGEST_PATIENCE);
        let (mut taken, busy) = (0, context.node().core().registry.busy());
        let sender = shared.inbox.sender(context.caller(), part.router.source);
        for tuple in tuples {
            let Some(room) = shared.inbox.reserve(&sender, units(tuple.3.len()), until).await else { break };
            room.put(Work { part: part.clone(), stage, tuple: tuple.received(now, busy.clone()) });
            taken += 1;
        }
        Ok(taken)
    }
}

impl Application for Stage {
    fn profile(&self) -> Profile {
        let mut profile = Application::profile(&self.actions);
        profile.actions.extend([TUPLES.to_owned(), END.to_owned()]);
        profile.concurrency = profile.concurrency.saturating_add(DEFAULT_CONCURRENCY);
        profile
    }

    fn guard(&self) -> Guard {
        Application::guard(&self.actions)
    }

    async fn call(&self, context: Context, action: &str, arguments: Payload) -> Result<Payload, AppError> {
        match action {
            TUPLES => {
                let delivery = arguments.decode_arguments().map_err(AppError::bad_arguments)?;
                // The tuples are copies, and may wait.
                drop(arguments);
                Payload::encode(&self.take(&context, delivery).await?).map_err(AppError::of)
            }
            END => {
                let run = arguments.decode_arguments().map_err(AppError::bad_arguments)?;
                self.crew().shared.parts.end(context.caller(), run)?;
                Payload::encode(&()).map_err(AppError::of)
            }
            _ => {
                // It is never closed; without a place the action runs all the same.
                let _place = self.crew().ordinary.acquire().await.ok();
                Application::call(&self.actions, context, action, arguments).await
            }
        }
    }

    async fn process(&self, context: Context, message: Payload) -> Result<(), AppError> {
        Application::process(&self.actions, context, message).await
    }
}

impl Drop for Stage {
    /// What was taken is finished: its senders rely on that.
    fn drop(&mut self) {
        if let Some(mut crew) = self.crew.take() {
            crew.shared.inbox.close();
            crew.workers.detach_all();
        }
    }
}

/// Takes tuples from the queue and polls each once: most are done then. One that has to wait goes on in a task of its
/// own.
async fn work(shared: Arc<Shared>) {
    while let Some((work, place)) = shared.inbox.next().await {
        // Panics of the stage fail its tuple; whatever else of it breaks, such as a `Drop`, must not cost a worker.
        if AssertUnwindSafe(work.start(&shared, place)).catch_unwind().await.is_err() {
            tracing::error!("a stage broke outside of its processing");
        }
    }
}

impl Work {
    /// `place` is kept until it is processed.
    async fn start(self, shared: &Shared, place: Place<Self>) {
        let Self { part, stage, tuple } = self;
        // The source replays what comes too late by itself.
        if tuple.deadline <= Instant::now() || part.router.has_ended() {
            return;
        }
        let emitter = Emitter::new(&part, place.sender().budgets(), stage, &tuple);
        let (process, given) = (shared.process.clone(), emitter.clone());
        let processing = async move { process(Payload::from_bytes(tuple.payload), given).await };
        // A panic may leave the stage's own state broken, never ours.
        let mut processing = AssertUnwindSafe(processing).catch_unwind().map(outcome).boxed();
        if let Some(outcome) = poll_immediate(&mut processing).await {
            return emitter.finish(outcome);
        }
        let router = part.router.clone();
        router.spawn(async move {
            // The part is kept until it is done, too.
            let _kept = (place, part);
            if let Ok(outcome) = timeout_at(tuple.deadline.into(), processing).await {
                emitter.finish(outcome);
            }
        });
    }
}

fn outcome(outcome: std::thread::Result<Result<(), AppError>>) -> Result<(), AppError> {
    outcome.unwrap_or_else(|panic| Err(AppError::new("panicked", format!("panicked: {}", panic_text(&*panic)))))
}

impl fmt::Debug for Stage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Stage").field("profile", &Application::profile(self)).finish_non_exhaustive()
    }
}
