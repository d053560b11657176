//! The processes of one served application as its callers see them: a queue, and how many of them are there.

use std::{
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{AcqRel, Relaxed},
        },
    },
    time::Duration,
};

use bytes::Bytes;
use multinodes::{AppError, Context, Payload};
use tokio::{
    sync::{Mutex, mpsc, oneshot, watch},
    time::{Instant, timeout_at},
};

use super::said::ReportedError;

/// Calls wait for so long when no process is there; then others may take them.
const PATIENCE: Duration = Duration::from_secs(2);

/// Requests beyond those that processes work on: one message that is told, and some that nobody wants any more.
const SPARE: usize = 16;

/// The processes of one application.
pub(super) struct Pool {
    queue: mpsc::Sender<Request>,
    /// Held by one of the processes that have nothing to do: it takes the next request.
    waiting: Mutex<mpsc::Receiver<Request>>,
    next_id: AtomicU64,
    /// Lines of the processes that could not be understood.
    pub(super) garbage: AtomicU64,
    pub(super) health: watch::Sender<Health>,
}

/// How the processes are.
#[derive(Debug, Clone)]
pub(super) struct Health {
    /// How many there should be.
    pub(super) processes: usize,
    /// How many are there and take requests.
    pub(super) ready: usize,
    /// When the last of them was gone, or the first of them was started.
    deserted: Instant,
    /// Why the last one ended.
    pub(super) reason: String,
}

/// What a process is to work on.
pub(super) struct Request {
    pub(super) id: u64,
    pub(super) context: Context,
    /// The line but for its end.
    pub(super) line: Bytes,
    /// A call has a deadline and somebody who waits for its answer.
    pub(super) is_call: bool,
    claimed: Arc<AtomicBool>,
    pub(super) respond_to: oneshot::Sender<Reply>,
}

/// How a request ended.
#[derive(Debug)]
pub(super) enum Reply {
    /// The process has answered.
    Answered(Result<Payload, ReportedError>),
    /// The process has broken over it.
    Broken(AppError),
    /// The process was gone before it had got a byte of it: another one may take it.
    NotTaken,
}

impl Request {
    /// Takes the request to work on, unless its caller has given it up.
    pub(super) fn claim(&self) -> bool {
        !self.respond_to.is_closed() && !self.claimed.swap(true, AcqRel)
    }
}

impl Pool {
    pub(super) fn new(processes: usize) -> Arc<Self> {
        let (queue, waiting) = mpsc::channel(processes + SPARE);
        let health = Health { processes, ready: 0, deserted: Instant::now(), reason: "it is just starting".to_owned() };
        Arc::new(Self {
            queue,
            waiting: Mutex::new(waiting),
            next_id: AtomicU64::new(1),
            garbage: AtomicU64::new(0),
            health: watch::Sender::new(health),
        })
    }

    /// A number for the next request.
    pub(super) fn next_id(&self) -> u64 {
        self.next_id.fetch_add(1, Relaxed)
    }

    /// Waits for the next request that is still wanted. Cancelling loses none.
    pub(super) async fn next(&self) -> Option<Request> {
        let mut waiting = self.waiting.lock().await;
        loop {
            let request = waiting.recv().await?;
            if request.claim() {
                return Some(request);
            }
        }
    }

    /// A process takes requests from now on.
    pub(super) fn arrived(&self) {
        self.health.send_modify(|health| health.ready += 1);
    }

    /// A process that took requests has ended.
    pub(super) fn left(&self) {
        self.health.send_modify(|health| {
            health.ready -= 1;
            if health.ready == 0 {
                health.deserted = Instant::now();
            }
        });
    }

    /// Remembers why a process has ended.
    pub(super) fn ended(&self, reason: &str) {
        self.health.send_modify(|health| reason.clone_into(&mut health.reason));
    }

    /// Has some process run a call.
    pub(super) async fn call(&self, id: u64, line: Bytes, context: Context) -> Result<Reply, AppError> {
        let claimed = Arc::new(AtomicBool::new(false));
        let running = self.run(id, line, context, true, &claimed);
        tokio::pin!(running);
        tokio::select! {
            biased;
            reply = &mut running => return reply,
            reason = self.deserted() => {
                // From now on nobody takes it; or somebody has at this very moment.
                if !claimed.swap(true, AcqRel) {
                    return Err(AppError::busy(format!("no process of it is there: {reason}")));
                }
            }
        }
        running.await
    }

    /// Has some process take a message, however long it takes until one is there.
    pub(super) async fn tell(&self, id: u64, line: Bytes, context: Context) -> Result<Reply, AppError> {
        self.run(id, line, context, false, &Arc::default()).await
    }

    async fn run(
        &self,
        id: u64,
        line: Bytes,
        context: Context,
        is_call: bool,
        claimed: &Arc<AtomicBool>,
    ) -> Result<Reply, AppError> {
        loop {
            let (respond_to, reply) = oneshot::channel();
            let (line, context, claimed) = (line.clone(), context.clone(), claimed.clone());
            let request = Request { id, context, line, is_call, claimed: claimed.clone(), respond_to };
            let gone = || AppError::busy("it is ending");
            self.queue.send(request).await.map_err(|_| gone())?;
            match reply.await.map_err(|_| gone())? {
                Reply::NotTaken => claimed.store(false, std::sync::atomic::Ordering::Release),
                reply => return Ok(reply),
            }
        }
    }

    /// Waits until no process has been there for too long, and says why.
    async fn deserted(&self) -> String {
        let mut health = self.health.subscribe();
        loop {
            let Health { ready, deserted, .. } = *health.borrow_and_update();
            // The pool itself holds the sender.
            if ready > 0 {
                let _ = health.changed().await;
            } else if timeout_at(deserted + PATIENCE, health.wait_for(|health| health.ready > 0)).await.is_err() {
                return health.borrow().reason.clone();
            }
        }
    }
}
