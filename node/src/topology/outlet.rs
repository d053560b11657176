//! The way to one host: tuples wait here, and travel together.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use libp2p::PeerId;
use tokio::time::timeout;

use super::{
    parts::NOT_FOR,
    queue::Queue,
    router::{Router, Way},
    wire::{BATCH, BATCH_BYTES, Delivery, Failure, OUTPUTS, TUPLES, Tuple},
};
use crate::{call_error::CallError, payload::Payload};

/// Room on the way to one host, in [units](super::queue::units). A batch under way and another one that gathers
/// meanwhile keep a host busy.
const ROOM: u32 = 256;
/// An outlet that nobody has used for so long is given up.
const IDLE: Duration = Duration::from_secs(15);
/// How long a host may let tuples wait for room before it says how many it has taken.
const PATIENCE: Duration = Duration::from_millis(500);
/// How long a host may take beyond that until it counts as lost.
const ANSWER: Duration = Duration::from_secs(10);
/// A host that could not be reached gets nothing new for so long, if there are others.
const SHUN: Duration = Duration::from_secs(1);
/// The first and the longest pause before a host that took nothing is tried again.
const PAUSES: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(500));

/// Where a host that is shunned, or has no room, stands among the others.
const FULL: usize = 1 << 20;
const SHUNNED: usize = 1 << 30;

pub(crate) struct Outlet {
    pub(crate) way: Way,
    pub(crate) peer_id: PeerId,
    pub(crate) queue: Arc<Queue<Tuple>>,
    in_flight: AtomicUsize,
    /// It has said that this is not for whoever has begun the flow, or not for this node.
    refused: AtomicBool,
    shunned_until: Mutex<Option<Instant>>,
}

impl Outlet {
    pub(crate) fn new(way: Way, peer_id: PeerId) -> Self {
        let (in_flight, refused, shunned_until) = (AtomicUsize::new(0), AtomicBool::new(false), Mutex::default());
        Self { way, peer_id, queue: Queue::new(ROOM), in_flight, refused, shunned_until }
    }

    /// How much there is to do for this host.
    pub(crate) fn load(&self) -> usize {
        let waiting = self.queue.used() + self.in_flight.load(Relaxed);
        let full = if self.queue.has_room() { 0 } else { FULL };
        let shunned = if self.is_shunned() { SHUNNED } else { 0 };
        waiting + full + shunned
    }

    /// Whether it may get another tuple now.
    pub(crate) fn is_free(&self) -> bool {
        self.queue.has_room() && !self.is_shunned()
    }

    /// Whether the host has said that nothing of this is for it.
    pub(crate) fn is_refused(&self) -> bool {
        self.refused.load(Relaxed)
    }

    fn is_shunned(&self) -> bool {
        let mut until = self.shunned_until.lock().unwrap_or_else(PoisonError::into_inner);
        if until.is_some_and(|until| until <= Instant::now()) {
            *until = None;
        }
        until.is_some()
    }

    fn shun(&self) {
        *self.shunned_until.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + SHUN);
    }
}

/// Sends what comes, in batches, one after the other: while one is under way the next one gathers.
pub(crate) async fn run(router: Arc<Router>, outlet: Arc<Outlet>) {
    loop {
        match timeout(IDLE, outlet.queue.pop()).await {
            Ok(Some(tuple)) => {
                let mut batch = vec![tuple];
                gather(&outlet.queue, &mut batch);
                deliver(&router, &outlet, batch).await;
            }
            Ok(None) => return,
            Err(_) if router.retire(&outlet) => return,
            Err(_) => {}
        }
    }
}

fn gather(queue: &Queue<Tuple>, batch: &mut Vec<Tuple>) {
    let mut bytes = batch.iter().map(|tuple| tuple.payload.len()).sum::<usize>();
    while batch.len() < BATCH && bytes < BATCH_BYTES {
        let Some(tuple) = queue.try_pop() else { return };
        bytes += tuple.payload.len();
        batch.push(tuple);
    }
}

/// Tries until each of them was taken here or elsewhere, is known to have failed, or is not wanted any more.
async fn deliver(router: &Arc<Router>, outlet: &Outlet, mut batch: Vec<Tuple>) {
    let mut pause = PAUSES.0;
    loop {
        let now = Instant::now();
        // The source replays their trees by itself.
        batch.retain(|tuple| tuple.deadline > now);
        outlet.in_flight.store(batch.len(), Relaxed);
        if batch.is_empty() {
            return;
        }
        match send(router, outlet, &batch, now).await {
            Ok(taken) => {
                outlet.refused.store(false, Relaxed);
                batch.drain(..taken.min(batch.len()));
                if taken > 0 {
                    pause = PAUSES.0;
                } else {
                    // It has waited by itself, unless it takes no part in yet another run.
                    pause = rest(pause).await;
                }
            }
            Err(CallError::Stopped) => return router.end(),
            // The source's node has nothing of the run any more.
            Err(CallError::NoSuchApplication { .. } | CallError::Forbidden) if router.edge(outlet.way).is_none() => {
                return router.end();
            }
            Err(error) if is_refusal(&error) => {
                outlet.refused.store(true, Relaxed);
                outlet.shun();
                if !router.has_choice(outlet) {
                    return fail(router, outlet, &batch, &error);
                }
                pause = rest(pause).await;
            }
            Err(error) if has_failed(&error) => {
                outlet.shun();
                return fail(router, outlet, &batch, &error);
            }
            Err(error) => {
                tracing::debug!(peer_id = %outlet.peer_id, %error, "tuples were not taken");
                outlet.shun();
                pause = rest(pause).await;
            }
        }
        move_on(router, outlet, &mut batch);
    }
}

/// Gives the next pause.
async fn rest(pause: Duration) -> Duration {
    tokio::time::sleep(pause).await;
    (pause * 2).min(PAUSES.1)
}

async fn send(router: &Router, outlet: &Outlet, batch: &[Tuple], now: Instant) -> Result<usize, CallError> {
    let plan = &router.plan;
    let (application, action, stage, encoded) = match (outlet.way, router.edge(outlet.way)) {
        (_, Some(edge)) => (&plan.stages[usize::from(edge.to)].application, TUPLES, edge.to, &router.encoded[..]),
        (Way::Output(stage), None) => (&plan.desk, OUTPUTS, stage, &[][..]),
        (_, None) => return Ok(batch.len()),
    };
    let delivery = Delivery {
        run: plan.run,
        token: plan.token,
        stage,
        patience: u32::try_from(PATIENCE.as_millis()).unwrap_or(u32::MAX),
        plan: serde_bytes::Bytes::new(encoded),
        tuples: batch.iter().map(|tuple| tuple.to_sent(now)).collect(),
    };
    let delivery =
        Payload::arguments(&delivery).map_err(|error| CallError::Unsendable { reason: error.to_string() })?;
    let taken = router.call(application, outlet.peer_id, action, &delivery, PATIENCE + ANSWER).await?;
    taken
        .decode()
        .map_err(|error| CallError::UnexpectedResult { application: application.clone(), reason: error.to_string() })
}

/// Whether sending it again would be of no use, or could make the same tuple be processed twice.
fn has_failed(error: &CallError) -> bool {
    // A stage that fails has taken nothing.
    let untaken = matches!(error, CallError::Failed { .. });
    (error.may_have_run() && !untaken) || is_final(error)
}

fn is_final(error: &CallError) -> bool {
    matches!(error, CallError::TooLarge { .. } | CallError::Unsendable { .. }) || is_refusal(error)
}

/// Whether a host takes nothing of this, now or later: it is not for this node, or not for whoever has begun the flow.
fn is_refusal(error: &CallError) -> bool {
    match error {
        CallError::Forbidden => true,
        CallError::Failed { code, .. } => code == NOT_FOR,
        _ => false,
    }
}

/// What whoever has begun the flow is told.
fn reason(router: &Router, outlet: &Outlet, error: &CallError) -> String {
    let stage = router.edge(outlet.way).and_then(|edge| router.plan.stages.get(usize::from(edge.to)));
    match (error, stage) {
        (CallError::Failed { code, message, .. }, _) if code == NOT_FOR => message.clone(),
        (CallError::Forbidden, Some(stage)) => {
            let (application, here) = (&stage.application, router.node.name());
            format!("`{application}` on node `{}` is not for node `{here}`", outlet.peer_id)
        }
        _ => error.to_string(),
    }
}

fn fail(router: &Router, outlet: &Outlet, batch: &[Tuple], error: &CallError) {
    tracing::debug!(peer_id = %outlet.peer_id, %error, tuples = batch.len(), "tuples were lost");
    for tuple in batch {
        let (tree, reason) = (tuple.tree, reason(router, outlet, error));
        router.report.fail(Failure { tree, reason, is_final: is_final(error) });
    }
}

/// Gives tuples that this host has not taken to others that have room.
fn move_on(router: &Arc<Router>, outlet: &Outlet, batch: &mut Vec<Tuple>) {
    let is_gone = !router.is_host(outlet.way, outlet.peer_id);
    batch.retain(|tuple| match router.elsewhere(outlet.way, tuple, outlet.peer_id) {
        Some(room) => {
            room.put(tuple.clone());
            false
        }
        None => true,
    });
    let to_all = router.edge(outlet.way).is_some_and(|edge| edge.grouping == super::Grouping::All);
    if is_gone && to_all {
        let reason = format!("node `{}` has left", outlet.peer_id);
        for tuple in batch.drain(..) {
            router.report.fail(Failure { tree: tuple.tree, reason: reason.clone(), is_final: false });
        }
    }
}
