//! The source's side of a run: the table of open trees, and the application to which hosts tell what became of them.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc},
    time::timeout_at,
};

use super::{
    plan::{Plan, StageIndex, Token},
    queue::units,
    router::Report,
    run::{Event, Output},
    trees::{Counters, Limits, Trees},
    wire::{ACKS, Acks, Delivery, Failure, OUTPUTS, Sent, TreeId},
};
use crate::{
    application::{AppError, Application, Context, Profile},
    payload::Payload,
};

/// Outputs that may wait to be read, each of up to 64 KiB; larger ones take more places: 64 MiB. Whoever sends more
/// waits.
const UNREAD: usize = 1024;

/// No sender may let a call wait for room longer than this.
const LONGEST_PATIENCE: Duration = Duration::from_secs(5);

/// An event, and the room that it takes until it is read.
pub(crate) type Told = (Event, Option<OwnedSemaphorePermit>);

/// What the tasks of one run share at its source.
pub(crate) struct Source {
    token: Token,
    /// The applications of the stages.
    stages: Vec<Arc<str>>,
    inner: Mutex<Inner>,
    room: Arc<Semaphore>,
    /// Something may be taken from the source, or is to be replayed.
    pub(crate) work: Notify,
    /// The next time of the trees has changed.
    pub(crate) timer: Notify,
}

struct Inner {
    trees: Trees,
    /// Bounded by what goes into it: the ends of trees, of which a new one is begun only while few are pending or untold,
    /// and outputs, which hold a place in `room` until they are read. Gone when the run is over.
    events: Option<mpsc::UnboundedSender<Told>>,
}

impl Source {
    pub(crate) fn new(plan: &Plan, limits: Limits, events: mpsc::UnboundedSender<Told>) -> Arc<Self> {
        Arc::new(Self {
            token: plan.token,
            stages: plan.stages.iter().map(|stage| stage.application.as_str().into()).collect(),
            inner: Mutex::new(Inner { trees: Trees::new(limits), events: Some(events) }),
            room: Arc::new(Semaphore::new(UNREAD)),
            work: Notify::new(),
            timer: Notify::new(),
        })
    }

    pub(crate) fn counters(&self) -> Counters {
        self.inner().trees.counters()
    }

    /// Changes the trees, and tells of those that end by that.
    pub(crate) fn change<R>(&self, change: impl FnOnce(&mut Trees) -> R) -> R {
        let mut inner = self.inner();
        let Inner { trees, events } = &mut *inner;
        let result = change(trees);
        let mut has_ended = false;
        while let Some(ended) = trees.ended() {
            has_ended = true;
            if let Some(events) = events {
                // Whoever does not read any more is about to drop the run.
                let _ = events.send((Event::of(ended), None));
            }
        }
        drop(inner);
        if has_ended {
            self.work.notify_one();
        }
        result
    }

    /// The end of a tree was read, with an item of so many bytes, so there is room for another one.
    pub(crate) fn on_read(&self, bytes: usize) {
        self.inner().trees.read(bytes);
        self.work.notify_one();
    }

    /// Something of the source has panicked: no more items come, and the user is told so once.
    pub(crate) fn on_panic(&self, reason: &str) {
        let mut inner = self.inner();
        if !std::mem::replace(&mut inner.trees.counters.broken, true) {
            tracing::error!(panic = reason, "the source of a flow has panicked");
            if let Some(events) = &inner.events {
                let _ = events.send((Event::Broken { reason: reason.to_owned() }, None));
            }
        }
    }

    /// No more events come.
    pub(crate) fn close(&self) {
        self.inner().events = None;
    }

    fn on_acks(&self, acks: Acks) -> Result<(), AppError> {
        self.check(acks.token)?;
        self.change(|trees| {
            for (tree, ids) in acks.sums {
                trees.ack(tree, ids);
            }
        });
        for mut failure in acks.failures {
            // It is kept with the item, whoever has said it.
            failure.shorten();
            self.fail(failure);
        }
        Ok(())
    }

    /// Hands outputs to the user, and says how many of them found room in time.
    async fn on_outputs(&self, delivery: Delivery) -> Result<usize, AppError> {
        self.check(delivery.token)?;
        let patience = Duration::from_millis(delivery.patience.into()).min(LONGEST_PATIENCE);
        let until = Instant::now() + patience;
        let stage = self.stages.get(usize::from(delivery.stage)).ok_or_else(|| unknown_stage(delivery.stage))?;
        let mut taken = 0;
        for Sent(id, tree, _, value) in delivery.tuples {
            let places = units(value.len()).min(UNREAD as u32);
            let Ok(Ok(room)) = timeout_at(until.into(), self.room.clone().acquire_many_owned(places)).await else {
                break;
            };
            self.on_output(stage, id, tree, Payload::from_bytes(value.into_vec()), room);
            taken += 1;
        }
        Ok(taken)
    }

    fn on_output(&self, stage: &Arc<str>, id: u64, tree: TreeId, value: Payload, room: OwnedSemaphorePermit) {
        let mut inner = self.inner();
        let Inner { trees, events } = &mut *inner;
        if trees.is_open(tree) {
            trees.counters.outputs += 1;
            let (root, attempt) = (tree.root(), tree.attempt());
            let output = Output { stage: stage.clone(), root, attempt, value };
            if let Some(events) = events {
                let _ = events.send((Event::Output(output), Some(room)));
            }
        }
        drop(inner);
        // It is told of before the tree can be complete.
        self.change(|trees| trees.ack(tree, id));
    }

    fn check(&self, token: Token) -> Result<(), AppError> {
        if token == self.token {
            return Ok(());
        }
        self.inner().trees.counters.refused += 1;
        Err(AppError::forbidden())
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Report for Source {
    fn fail(&self, failure: Failure) {
        let Failure { tree, reason, is_final } = failure;
        tracing::debug!(root = tree.root(), attempt = tree.attempt(), %reason, "a tree has failed");
        self.change(|trees| trees.fail(tree, reason, is_final, Instant::now()));
        self.timer.notify_one();
    }
}

/// The application at the source to which the hosts of the stages talk.
pub(crate) struct Desk(pub(crate) Arc<Source>);

impl Application for Desk {
    fn profile(&self) -> Profile {
        let actions = vec![ACKS.to_owned(), OUTPUTS.to_owned()];
        Profile { actions, takes_tells: false, ..Profile::default() }
    }

    async fn call(&self, _: Context, action: &str, arguments: Payload) -> Result<Payload, AppError> {
        match action {
            ACKS => {
                let acks = self.decode(arguments)?;
                self.0.on_acks(acks)?;
                Payload::encode(&()).map_err(AppError::of)
            }
            OUTPUTS => {
                let delivery = self.decode(arguments)?;
                Payload::encode(&self.0.on_outputs(delivery).await?).map_err(AppError::of)
            }
            _ => Err(AppError::no_such_action(action)),
        }
    }
}

impl Desk {
    fn decode<T: serde::de::DeserializeOwned>(&self, arguments: Payload) -> Result<T, AppError> {
        arguments.decode_arguments().map_err(|error| {
            self.0.inner().trees.counters.refused += 1;
            AppError::bad_arguments(error)
        })
    }
}

fn unknown_stage(stage: StageIndex) -> AppError {
    AppError::bad_arguments(format!("the flow has no stage {stage}"))
}
