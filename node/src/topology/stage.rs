//! A stage of flows: an application that takes tuples and emits others.

use std::{
    collections::HashMap,
    fmt,
    future::Future,
    num::NonZero,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    thread::available_parallelism,
    time::{Duration, Instant},
};

use futures::{
    FutureExt,
    future::{BoxFuture, poll_immediate},
};
use serde::de::DeserializeOwned;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::timeout_at,
};

use super::{
    acker::{self, Acker},
    emitter::Emitter,
    plan::{Plan, StageIndex, Token},
    queue::{Queue, units},
    router::Router,
    wire::{Delivery, END, TUPLES, Tuple},
};
use crate::{
    actions::Actions,
    application::{AppError, Application, Context, DEFAULT_CONCURRENCY, Profile},
    payload::Payload,
    registry::panic_text,
};

/// Tuples that a stage processes at once on one node unless it says otherwise.
pub const DEFAULT_STAGE_CONCURRENCY: usize = 64;

/// Tuples that may wait behind those unless it says otherwise.
pub const DEFAULT_STAGE_QUEUE: u32 = 1024;

/// Runs of flows in which a stage takes part at once on one node: each has some tables of its own.
const MAX_RUNS: usize = 256;

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
    inbox: Arc<Queue<Work>>,
    slots: Arc<Semaphore>,
    parts: Mutex<HashMap<u64, Arc<Part>>>,
}

/// A node's part in one run.
struct Part {
    router: Arc<Router>,
    acker: Arc<Acker>,
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
    /// example.
    pub fn actions(mut self, actions: Actions) -> Self {
        self.actions = actions;
        self
    }

    /// How many tuples it processes at once on one node, 64 by default and at least 1. With 1 they are processed one
    /// after the other, in the order in which they came.
    pub fn concurrency(mut self, tuples: usize) -> Self {
        self.concurrency = tuples.clamp(1, Semaphore::MAX_PERMITS);
        self
    }

    /// How many tuples may wait on one node, 1024 by default and at least 1; a tuple takes one more place for each
    /// 64 KiB. When there is no room those who emit have to wait.
    pub fn queue(mut self, tuples: u32) -> Self {
        self.queue = tuples.max(1);
        self
    }

    fn crew(&self) -> &Crew {
        self.crew.get_or_init(|| {
            let shared = Arc::new(Shared {
                process: self.process.clone(),
                inbox: Queue::new(self.queue),
                slots: Arc::new(Semaphore::new(self.concurrency)),
                parts: Mutex::default(),
            });
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
        let Some(part) = Shared::part(shared, context, run, token, &plan)? else { return Ok(0) };
        let application = part.router.plan.stages.get(usize::from(stage)).map(|stage| &*stage.application);
        if application != Some(context.application()) {
            return Err(AppError::bad_arguments(format!("`{}` is not stage {stage}", context.application())));
        }
        let now = Instant::now();
        let until = now + Duration::from_millis(patience.into()).min(LONGEST_PATIENCE);
        let (mut taken, busy) = (0, context.node().core().registry.busy());
        for tuple in tuples {
            let units = units(tuple.3.len());
            let room = match shared.inbox.try_reserve(units) {
                Some(room) => room,
                None => match timeout_at(until.into(), shared.inbox.reserve(units)).await {
                    Ok(Some(room)) => room,
                    Ok(None) | Err(_) => break,
                },
            };
            room.put(Work { part: part.clone(), stage, tuple: tuple.received(now, busy.clone()) });
            taken += 1;
        }
        Ok(taken)
    }

    fn end(&self, (run, token): (u64, Token)) -> Result<(), AppError> {
        let mut parts = self.crew().shared.parts();
        let Some(part) = parts.get(&run) else { return Ok(()) };
        if part.router.plan.token != token {
            return Err(AppError::forbidden());
        }
        part.router.end();
        parts.remove(&run);
        Ok(())
    }
}

impl Application for Stage {
    fn profile(&self) -> Profile {
        let mut profile = Application::profile(&self.actions);
        profile.actions.extend([TUPLES.to_owned(), END.to_owned()]);
        profile.concurrency = profile.concurrency.saturating_add(DEFAULT_CONCURRENCY);
        profile
    }

    async fn call(&self, context: Context, action: &str, arguments: Payload) -> Result<Payload, AppError> {
        match action {
            TUPLES => {
                let delivery = arguments.decode_arguments().map_err(AppError::bad_arguments)?;
                Payload::encode(&self.take(&context, delivery).await?).map_err(AppError::of)
            }
            END => {
                self.end(arguments.decode_arguments().map_err(AppError::bad_arguments)?)?;
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

impl Shared {
    /// This node's part in a run, which begins with its first tuples. `None` if it takes part in too many.
    fn part(
        shared: &Arc<Self>,
        context: &Context,
        run: u64,
        token: Token,
        plan: &[u8],
    ) -> Result<Option<Arc<Part>>, AppError> {
        let mut parts = shared.parts();
        parts.retain(|_, part| !part.router.has_ended());
        if let Some(part) = parts.get(&run) {
            return if part.router.plan.token == token { Ok(Some(part.clone())) } else { Err(AppError::forbidden()) };
        }
        if parts.len() >= MAX_RUNS {
            return Ok(None);
        }
        let bytes = plan.to_vec().into();
        let plan: Plan = Payload::from_bytes(plan.to_vec()).decode().map_err(AppError::bad_arguments)?;
        if !plan.is_sound() || plan.run != run || plan.token != token {
            return Err(AppError::bad_arguments("the plan leads nowhere"));
        }
        let acker = Arc::new(Acker::default());
        let router = Router::new(context.node().unbounded(), plan, bytes, acker.clone(), true);
        let router = router.ok_or_else(|| AppError::bad_arguments("the plan has no source"))?;
        let part = Arc::new(Part { router: router.clone(), acker: acker.clone() });
        parts.insert(run, part.clone());
        let weak = Arc::downgrade(shared);
        router.spawn(acker::run(router.clone(), acker, move || weak.upgrade().is_none_or(|shared| shared.forget(run))));
        Ok(Some(part))
    }

    /// Forgets a run unless some of its tuples are still here.
    fn forget(&self, run: u64) -> bool {
        let mut parts = self.parts();
        let is_unused = parts.get(&run).is_none_or(|part| Arc::strong_count(part) == 1);
        if is_unused {
            parts.remove(&run);
        }
        is_unused
    }

    fn parts(&self) -> MutexGuard<'_, HashMap<u64, Arc<Part>>> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes tuples from the queue and polls each once: most are done then. One that has to wait goes on in a task of its
/// own.
async fn work(shared: Arc<Shared>) {
    while let Ok(slot) = shared.slots.clone().acquire_owned().await {
        let Some(work) = shared.inbox.pop().await else { return };
        work.start(&shared.process, slot).await;
    }
}

impl Work {
    async fn start(self, process: &Handler, slot: OwnedSemaphorePermit) {
        let Self { part, stage, tuple } = self;
        // The source replays what comes too late by itself.
        if tuple.deadline <= Instant::now() || part.router.has_ended() {
            return;
        }
        let emitter = Emitter::new(part.router.clone(), part.acker.clone(), stage, &tuple);
        let (process, given) = (process.clone(), emitter.clone());
        let processing = async move { process(Payload::from_bytes(tuple.payload), given).await };
        // A panic may leave the stage's own state broken, never ours.
        let mut processing = AssertUnwindSafe(processing).catch_unwind().map(outcome).boxed();
        if let Some(outcome) = poll_immediate(&mut processing).await {
            return emitter.finish(outcome);
        }
        let router = part.router.clone();
        router.spawn(async move {
            // The slot and the part are kept until it is done.
            let _kept = (slot, part);
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
