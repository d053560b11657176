//! What a stage gets along with a tuple: the way to emit others.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use bytes::Bytes;
use multinodes_behaviour::names;
use serde::Serialize;
use tokio::time::timeout_at;

use super::{
    acker::Acker,
    budget::{self, Budget, Held},
    parts::Part,
    plan::StageIndex,
    queue::Room,
    router::{Report, Router, Way},
    wire::{Failure, TreeId, Tuple},
};
use crate::{
    application::{AppError, AppErrorKind},
    node::Node,
    payload::{EncodeError, Payload},
    registry::Busy,
};

/// Emits tuples to the stages that come next, as children of the tuple that is being processed.
///
/// Cheap to clone. It works only while the tuple is being processed: what is emitted after the stage's future has ended
/// could not be acknowledged, and is refused.
#[derive(Clone)]
pub struct Emitter(Arc<Emission>);

struct Emission {
    router: Arc<Router>,
    acker: Arc<Acker>,
    stage: StageIndex,
    tree: TreeId,
    deadline: Instant,
    /// What the stage may have emitted on this node for the sender of the tuple.
    budgets: [Arc<Budget>; 2],
    sum: Mutex<Sum>,
}

/// The ids of the tuple and of what was emitted so far.
struct Sum {
    ids: u64,
    is_closed: bool,
    busy: Option<Busy>,
}

impl Emitter {
    /// For one tuple of a stage.
    pub(crate) fn new(part: &Part, budgets: [Arc<Budget>; 2], stage: StageIndex, tuple: &Tuple) -> Self {
        let (router, acker) = (part.router.clone(), part.acker.clone());
        let sum = Mutex::new(Sum { ids: tuple.id, is_closed: false, busy: tuple.busy.clone() });
        Self(Arc::new(Emission { router, acker, stage, tree: tuple.tree, deadline: tuple.deadline, budgets, sum }))
    }

    /// Emits a tuple to every stage that takes the tuples of this one; from a last stage it goes to the source, as an
    /// output.
    ///
    /// `Ok` means that it waits to be sent, and that its tree is not complete before it was processed. Waits when the
    /// next stage is slow: that is how a slow stage slows down the source. When the future is dropped the tuple may
    /// have been emitted to some of the stages and not to others.
    ///
    /// # Errors
    ///
    /// See [`EmitError`]. Hand it on with `?`: then the tree fails, and is replayed if that may help.
    pub async fn emit(&self, value: impl Serialize + Send) -> Result<(), EmitError> {
        let (payload, held) = self.encode(value).await?;
        for way in self.0.router.ways(self.0.stage) {
            self.send(way, &payload, &held).await?;
        }
        Ok(())
    }

    /// Like [`emit`](Self::emit), to one of the next stages only, given by its application.
    ///
    /// # Errors
    ///
    /// See [`EmitError`].
    pub async fn emit_to(&self, application: &str, value: impl Serialize + Send) -> Result<(), EmitError> {
        let application = &*names::normal(application);
        let (payload, held) = self.encode(value).await?;
        let plan = &self.0.router.plan;
        let leads_there = |way: &Way| {
            let edge = self.0.router.edge(*way);
            edge.is_some_and(|edge| plan.stages[usize::from(edge.to)].application == application)
        };
        let way = self.0.router.ways(self.0.stage).find(leads_there);
        let way = way.ok_or_else(|| EmitError::NoStage { application: application.to_owned() })?;
        self.send(way, &payload, &held).await
    }

    /// Which item of the source this comes from: 0 for its first one.
    #[must_use]
    pub fn root(&self) -> u64 {
        self.0.tree.root()
    }

    /// Which attempt at that item this is: 1 for the first, more when it is replayed.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.0.tree.attempt()
    }

    /// The run of the flow, a random number: for stages that keep something for each run.
    #[must_use]
    pub fn run(&self) -> u64 {
        self.0.router.plan.run
    }

    /// The node that hosts the stage: to call and tell other applications.
    #[must_use]
    pub fn node(&self) -> &Node {
        &self.0.router.node
    }

    /// When the tree is replayed if it is not complete by then.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.0.deadline
    }

    /// Waits first until less than the limit waits to be sent: what is encoded already would be held while it waits.
    async fn encode(&self, value: impl Serialize + Send) -> Result<(Bytes, Arc<Held>), EmitError> {
        let Emission { budgets, deadline, .. } = &*self.0;
        timeout_at((*deadline).into(), budget::wait(budgets)).await.map_err(|_| EmitError::Late)?;
        let payload = Payload::encode(&value)?.into_bytes();
        let held = budget::hold(budgets, payload.len());
        Ok((payload, held))
    }

    async fn send(&self, way: Way, payload: &Bytes, held: &Arc<Held>) -> Result<(), EmitError> {
        let Emission { router, tree, deadline, .. } = &*self.0;
        let key = router.key(way, payload)?;
        for room in router.rooms(way, key, payload, Some(*deadline)).await? {
            let (id, payload, held) = (new_id(), payload.clone(), Some(held.clone()));
            let tuple = Tuple { id, tree: *tree, deadline: *deadline, key, payload, _held: held, busy: None };
            self.put(room, tuple)?;
        }
        Ok(())
    }

    /// Its id is in the sum exactly if it is sent.
    fn put(&self, room: Room<Tuple>, mut tuple: Tuple) -> Result<(), EmitError> {
        let mut sum = self.sum();
        if sum.is_closed {
            return Err(EmitError::Ended);
        }
        sum.ids ^= tuple.id;
        tuple.busy = sum.busy.clone();
        room.put(tuple);
        Ok(())
    }

    /// The stage is done with the tuple: the source is told.
    pub(crate) fn finish(&self, outcome: Result<(), AppError>) {
        let mut sum = self.sum();
        sum.is_closed = true;
        let (ids, busy) = (sum.ids, sum.busy.take());
        drop(sum);
        let Emission { router, acker, stage, tree, .. } = &*self.0;
        acker.keep(busy);
        match outcome {
            Ok(()) => acker.ack(*tree, ids),
            Err(error) => {
                let application = &router.plan.stages[usize::from(*stage)].application;
                let reason = format!("`{application}` on node `{}`: {}", router.node.name(), error.message());
                acker.fail(Failure { tree: *tree, reason, is_final: is_final(&error) });
            }
        }
    }

    fn sum(&self) -> MutexGuard<'_, Sum> {
        self.0.sum.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a stage would say the same at every attempt.
fn is_final(error: &AppError) -> bool {
    matches!(error.kind, AppErrorKind::BadArguments | AppErrorKind::Forbidden | AppErrorKind::NoSuchAction)
}

/// An id that nobody can guess; zero would not change a sum.
pub(crate) fn new_id() -> u64 {
    rand::random::<u64>().max(1)
}

impl fmt::Debug for Emitter {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Emitter")
            .field("root", &self.root())
            .field("attempt", &self.attempt())
            .finish_non_exhaustive()
    }
}

/// Why a tuple was not emitted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EmitError {
    /// The value cannot be encoded.
    #[error("the tuple {0}")]
    Encode(#[from] EncodeError),
    /// It is over the limit.
    #[error("the tuple has {size} bytes, the limit is {limit}")]
    TooLarge {
        /// Its size, in bytes.
        size: usize,
        /// The largest tuple, in bytes: the largest message of the node, less 64 KiB.
        limit: usize,
    },
    /// The next stage goes by a key that the tuple does not have.
    #[error("the tuple has no key `{path}`")]
    NoKey {
        /// Where the key should be.
        path: String,
    },
    /// No stage of that name comes next.
    #[error("no stage `{application}` takes tuples from here")]
    NoStage {
        /// The application that was named.
        application: String,
    },
    /// Nobody has hosted the next stage for as long as the tree had time.
    #[error("nobody hosts the stage `{application}`")]
    NoHost {
        /// The stage's application.
        application: String,
    },
    /// The next stage had no room for as long as the tree had time.
    #[error("the time for the tree was over before there was room for the tuple")]
    Late,
    /// The tuple from which it comes has been processed already, or the run is over.
    #[error("the tuple from which it comes was done with, or the run is over")]
    Ended,
}

impl EmitError {
    /// Whether another attempt would end in the same way.
    #[must_use]
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Encode(_) | Self::TooLarge { .. } | Self::NoKey { .. } | Self::NoStage { .. })
    }
}

impl From<EmitError> for AppError {
    fn from(error: EmitError) -> Self {
        if error.is_final() { Self::bad_arguments(error) } else { Self::of(error) }
    }
}
