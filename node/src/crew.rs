//! Runs calls that came from other nodes.
//!
//! A task for each call would cost more than most calls do: memory, two entries in the runtime's lists, a wake-up. So a
//! few long-lived tasks take calls from a queue and poll each once. Most are done then; one that has to wait for
//! something goes on in a task of its own. A call that blocks does not hold up the others for long: whoever queues the
//! next one wakes another of the crew, and so does the lane's sweep if nobody comes. The peers whose calls wait take turns.

pub(crate) mod turns;

use std::{
    num::NonZero,
    panic::AssertUnwindSafe,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread::available_parallelism,
    time::{Duration, Instant},
};

use futures::{FutureExt, future::poll_immediate};
use multinodes_behaviour::lane::{Charge, Refusal, Responder, Unwritten};
use tokio::{
    sync::Semaphore,
    task::{JoinSet, yield_now},
};

use self::turns::Turns;
use crate::{
    application::Origin,
    core::Core,
    node::Node,
    payload::Payload,
    registry::{Admission, Hosted, expired},
};

/// After so many calls in a row the others on the thread get their turn.
const TURN: usize = 32;

/// With more calls than this waiting for each member that is awake, another one is woken. Fewer are done before a thread
/// that sleeps is awake.
const BACKLOG: usize = 64;

/// A member that has been in its turn for so long is probably blocked by a call.
const BLOCKED: Duration = Duration::from_millis(1);

/// Members at the most: as many calls may block their threads (`block_in_place`) before others have to wait for them.
/// As many as tokio has threads for that.
const MEMBERS: usize = 512;

/// A call that was taken in.
pub(crate) struct Job {
    pub(crate) core: Arc<Core>,
    pub(crate) hosted: Arc<Hosted>,
    pub(crate) admission: Admission,
    pub(crate) received: Instant,
    pub(crate) origin: Origin,
    pub(crate) action: String,
    pub(crate) arguments: Payload,
    pub(crate) responder: Responder,
    /// What the arguments hold of the budgets for large messages.
    pub(crate) charge: Option<Charge>,
}

/// The tasks that run calls, and the calls that wait for them. Bounded by what the applications and the exchanges admit.
pub(crate) struct Crew {
    shared: Arc<Shared>,
    members: Mutex<JoinSet<()>>,
    /// For a mere backlog no more than this are woken: there are no more cores.
    cores: usize,
}

struct Shared {
    queue: Mutex<Queue>,
    /// One permit for each member that is to wake up.
    calls: Semaphore,
    /// When a member last began a turn, in microseconds since `begun`; 0 if none of those awake has since.
    turn: AtomicU64,
    begun: Instant,
}

#[derive(Default)]
struct Queue {
    jobs: Turns<Job>,
    /// Members that will look into the queue again by themselves.
    awake: usize,
}

impl Crew {
    pub(crate) fn new() -> Self {
        let cores = available_parallelism().map_or(1, NonZero::get);
        let shared = Shared {
            queue: Mutex::default(),
            calls: Semaphore::new(0),
            turn: AtomicU64::new(0),
            begun: Instant::now(),
        };
        Self { shared: Arc::new(shared), members: Mutex::default(), cores }
    }

    /// Has a call run soon.
    pub(crate) fn run(&self, job: Job) {
        let now = job.received;
        let mut queue = self.shared.queue();
        queue.jobs.push(job.origin.caller, job);
        self.wake_if_needed(queue, now);
    }

    /// Wakes another member if calls wait and those that are awake are blocked.
    pub(crate) fn look(&self, now: Instant) {
        let queue = self.shared.queue();
        if !queue.jobs.is_empty() {
            self.wake_if_needed(queue, now);
        }
    }

    fn wake_if_needed(&self, mut queue: MutexGuard<'_, Queue>, now: Instant) {
        let behind = queue.awake <= self.cores && queue.jobs.len() > queue.awake * BACKLOG;
        let blocked = queue.awake < MEMBERS && self.shared.is_blocked(now);
        if queue.awake > 0 && !behind && !blocked {
            return;
        }
        queue.awake += 1;
        // The new one has not begun yet, and gets the time of a turn to do so.
        self.shared.turn.store(self.shared.micros(now), Relaxed);
        drop(queue);
        self.enlist();
        self.shared.calls.add_permits(1);
    }

    /// Members are hired one by one, when they are needed for the first time.
    fn enlist(&self) {
        let mut members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        if members.len() < self.shared.queue().awake {
            members.spawn(self.shared.clone().work());
        }
    }
}

impl Shared {
    async fn work(self: Arc<Self>) {
        // It is never closed: the task ends with the crew.
        while let Ok(called) = self.calls.acquire().await {
            called.forget();
            self.begin_turn();
            let mut turn = 0;
            let mut unwritten = Unwritten::default();
            while let Some(job) = self.next() {
                let waited = self.is_blocked_since(job.received);
                // Panics of an action are its own errors; whatever else breaks must not cost a member.
                if AssertUnwindSafe(job.start(waited, &mut unwritten)).catch_unwind().await.is_err() {
                    tracing::error!("a call broke outside its action");
                }
                turn += 1;
                if turn % TURN == 0 {
                    unwritten.write();
                    yield_now().await;
                    self.begin_turn();
                }
            }
        }
    }

    fn next(&self) -> Option<Job> {
        let mut queue = self.queue();
        let job = queue.jobs.pop();
        if job.is_none() {
            queue.awake -= 1;
            // Nothing is known of those who are still awake until they begin a turn: they may be blocked.
            self.turn.store(0, Relaxed);
        }
        job
    }

    fn begin_turn(&self) {
        self.turn.store(self.micros(Instant::now()), Relaxed);
    }

    /// Whether a call that was received then has waited for a turn, by the clock of the turn itself.
    fn is_blocked_since(&self, received: Instant) -> bool {
        self.turn.load(Relaxed).saturating_sub(self.micros(received)) > BLOCKED.as_micros() as u64
    }

    fn is_blocked(&self, now: Instant) -> bool {
        Duration::from_micros(self.micros(now).saturating_sub(self.turn.load(Relaxed))) > BLOCKED
    }

    fn micros(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.begun).as_micros()).unwrap_or(u64::MAX)
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Job {
    /// Polls the call once. One that has `waited` may not be wanted any more. If it is not done then, it goes on in a task of its own.
    async fn start(self, waited: bool, unwritten: &mut Unwritten) {
        let Self { core, hosted, admission, received: _, origin, action, arguments, responder, charge } = self;
        if waited {
            if !responder.is_wanted() {
                return;
            }
            if origin.deadline <= Instant::now() {
                return responder.refuse(expired());
            }
        }
        let deadline = origin.deadline;
        let context = origin.context(Node::inner(core), hosted.name.clone());
        let Some(slot) = hosted.slot() else {
            let assignment = responder.assignment();
            // Its turn comes when another call of the application is done.
            context.watcher.tell(true, Payload::default());
            let task = tokio::spawn(async move {
                let outcome = match hosted.wait_for_slot().await {
                    // Its time may be over without anybody having looked: this process may have stood still.
                    Ok(_) if deadline <= Instant::now() => Err(expired()),
                    Ok(slot) => {
                        context.watcher.tell(false, Payload::default());
                        let outcome = hosted.call(context, action, arguments).await;
                        drop(slot);
                        outcome
                    }
                    Err(refusal) => Err(refusal),
                };
                drop((admission, charge));
                answer(responder, outcome).await;
            });
            return assignment.task(task.abort_handle());
        };
        let mut call = hosted.call(context, action, arguments);
        match poll_immediate(&mut call).await {
            Some(outcome) => {
                drop((slot, admission, charge));
                if let Some(rest) = responder.respond(outcome.map(Payload::into_bytes), unwritten) {
                    // It waits for room; the next call does not.
                    tokio::spawn(rest);
                }
            }
            None => {
                let assignment = responder.assignment();
                let task = tokio::spawn(async move {
                    let outcome = call.await;
                    drop((slot, admission, charge));
                    answer(responder, outcome).await;
                });
                assignment.task(task.abort_handle());
            }
        }
    }
}

async fn answer(responder: Responder, outcome: Result<Payload, Refusal>) {
    let rest = responder.respond(outcome.map(Payload::into_bytes), &mut Unwritten::default());
    if let Some(rest) = rest {
        rest.await;
    }
}
