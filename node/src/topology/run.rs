//! A flow that runs: what comes of it, and how to stop it.

use std::{
    fmt,
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::{FutureExt, Stream, StreamExt, stream};
use tokio::{
    runtime::Handle,
    sync::mpsc::UnboundedReceiver,
    task::JoinSet,
    time::{sleep_until, timeout},
};

use super::{
    emitter::{EmitError, new_id},
    router::{Report, Router, Way},
    source::{Source, Told},
    trees::{Counters, Ended},
    wire::{END, Failure, TreeId, Tuple},
};
use crate::{
    node::Node,
    payload::{EncodeError, Payload},
    registry::panic_text,
};

/// How long the hosts of the stages have to take the news that a run is over, and how many are told at once. Who does
/// not hear of it finds out when it has something to tell the source.
const FAREWELL: (Duration, usize) = (Duration::from_secs(2), 16);

/// What happens to the items of the source.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// A last stage has emitted a tuple.
    ///
    /// It comes before the end of its item. If the item is replayed its outputs come again, with a higher
    /// [`attempt`](Output::attempt); those of the attempt that [completes](Self::Completed) come exactly once each and
    /// are all there by then. So whoever keeps the outputs of an item until then, and takes those of that attempt
    /// alone, has every output exactly once.
    Output(Output),
    /// Everything that came of an item was processed.
    Completed {
        /// Which item of the source: 0 for its first one.
        root: u64,
        /// Which attempt was it: 1 if nothing was replayed.
        attempt: u32,
    },
    /// An item was given up. Some of what came of it may have been processed.
    Failed(Failed),
    /// The source's stream has panicked: it is asked for nothing more, so there may be items that were never taken. Comes
    /// once; what is pending goes on, and has its events.
    Broken {
        /// What the panic said.
        reason: String,
    },
}

/// A tuple of a last stage.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Output {
    /// The application of the stage that has emitted it.
    pub stage: Arc<str>,
    /// Which item of the source it comes from: 0 for the first one.
    pub root: u64,
    /// In which attempt at that item it was emitted: 1 for the first.
    pub attempt: u32,
    /// What was emitted.
    pub value: Payload,
}

/// An item that was given up.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Failed {
    /// Which item of the source: 0 for its first one.
    pub root: u64,
    /// How many attempts were made.
    pub attempts: u32,
    /// Why the last one has failed.
    pub reason: String,
    /// The item. Empty if it could not be encoded.
    pub input: Payload,
}

impl Event {
    pub(crate) fn of(ended: Ended) -> Self {
        let (root, attempt) = (ended.tree.root(), ended.tree.attempt());
        match ended.failure {
            None => Self::Completed { root, attempt },
            Some((reason, input)) => {
                Self::Failed(Failed { root, attempts: attempt, reason, input: Payload::from_bytes(input) })
            }
        }
    }
}

/// A running flow, and the stream of what becomes of its items. It ends when the source has ended, or
/// [broken](Event::Broken), and nothing is pending; when the node is stopped, what was pending is given up.
///
/// The events must be read: when nobody does, no more items are taken from the source, and outputs wait on the other
/// nodes, where they time out in the end. [`finish`](Self::finish) reads them all.
///
/// Dropping it stops the flow: nothing more is taken from the source, and the hosts of the stages let go what they still
/// have of it. As long as it lives it keeps the node.
#[must_use = "dropping it stops the flow"]
pub struct Run {
    node: Node,
    source: Arc<Source>,
    router: Arc<Router>,
    events: UnboundedReceiver<Told>,
    _tasks: JoinSet<()>,
}

impl Run {
    /// The desk is registered by then.
    pub(crate) fn start(
        node: Node,
        source: Arc<Source>,
        router: Arc<Router>,
        events: UnboundedReceiver<Told>,
        items: impl Stream<Item = Result<Payload, EncodeError>> + Send + 'static,
    ) -> Self {
        let mut tasks = JoinSet::new();
        let feeder = Feeder { source: source.clone(), router: router.clone() };
        tasks.spawn(feeder.supervise(items));
        tasks.spawn(watch_time(source.clone()));
        Self { node, source, router, events, _tasks: tasks }
    }

    /// What was done so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.source.counters()
    }

    /// The run's number, as the stages see it.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.router.plan.run
    }

    /// The next event; `None` when all is done.
    pub async fn next(&mut self) -> Option<Event> {
        StreamExt::next(self).await
    }

    /// Reads all events to the end, and gives what was done. Outputs are dropped. Look at [`Counters::failed`] and
    /// [`Counters::broken`]: only without either was every item of the source processed.
    pub async fn finish(mut self) -> Counters {
        while self.next().await.is_some() {}
        self.counters()
    }
}

impl Stream for Run {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Event>> {
        let told = std::task::ready!(self.events.poll_recv(context));
        match &told {
            Some((Event::Completed { .. }, _)) => self.source.on_read(0),
            Some((Event::Failed(failed), _)) => self.source.on_read(failed.input.as_bytes().len()),
            _ => {}
        }
        Poll::Ready(told.map(|(event, _room)| event))
    }
}

impl fmt::Debug for Run {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Run")
            .field("id", &self.id())
            .field("counters", &self.counters())
            .finish_non_exhaustive()
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.source.close();
        self.router.end();
        // The node may have been stopped; then nothing is registered any more.
        let _ = self.node.unregister(&self.router.plan.desk);
        let (node, router) = (self.node.clone(), self.router.clone());
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(timeout(FAREWELL.0, async move { say_goodbye(&node, &router).await }));
        }
    }
}

async fn say_goodbye(node: &Node, router: &Router) {
    let run = (router.plan.run, router.plan.token);
    stream::iter(router.all_hosts())
        .for_each_concurrent(FAREWELL.1, |(application, peer_id)| async move {
            let target = node.app(application).on(peer_id.to_base58()).timeout(FAREWELL.0);
            if let Err(error) = target.call::<()>(END, run).await {
                tracing::debug!(%peer_id, %error, "a host does not know that a flow is over");
            }
        })
        .await;
}

/// Takes items from the source and sends them on their way, for the first time or again.
struct Feeder {
    source: Arc<Source>,
    router: Arc<Router>,
}

impl Feeder {
    /// A panic of the user's stream is caught where it is asked for an item; this is for what else may break, such as its
    /// `Drop`.
    async fn supervise(self, items: impl Stream<Item = Result<Payload, EncodeError>>) {
        if let Err(panic) = AssertUnwindSafe(self.run(items)).catch_unwind().await {
            self.source.on_panic(panic_text(&*panic));
            self.source.change(|trees| trees.give_up_all("the source has panicked"));
        }
    }

    async fn run(&self, items: impl Stream<Item = Result<Payload, EncodeError>>) {
        // It ends after a panic.
        let mut items = std::pin::pin!(AssertUnwindSafe(items).catch_unwind().fuse());
        while let Some((tree, input)) = self.next(items.as_mut()).await {
            if let Err(error) = self.send(tree, input).await {
                let (reason, is_final) = (error.to_string(), error.is_final());
                self.source.fail(Failure { tree, reason, is_final });
            }
        }
        if self.router.has_ended() {
            self.source.change(|trees| trees.give_up_all("the node of the source was stopped"));
        }
    }

    /// The next item that is to be sent. `None` when the run is over.
    async fn next(
        &self,
        mut items: Pin<&mut stream::Fuse<impl Stream<Item = std::thread::Result<Result<Payload, EncodeError>>>>>,
    ) -> Option<(TreeId, Bytes)> {
        loop {
            if self.router.has_ended() {
                return None;
            }
            let (replay, has_room, is_empty) =
                self.source.change(|trees| (trees.replay(), trees.has_room(), trees.is_empty()));
            if replay.is_some() {
                return replay;
            }
            if items.is_done() && is_empty {
                return None;
            }
            let may_take = has_room && !items.is_done();
            tokio::select! {
                () = self.source.work.notified() => {}
                () = self.router.over() => {}
                item = items.next(), if may_take => match item {
                    Some(Ok(Ok(item))) => {
                        let input = item.into_bytes();
                        return Some((self.source.change(|trees| trees.take(input.clone())), input));
                    }
                    Some(Ok(Err(error))) => self.source.change(|trees| {
                        let tree = trees.take(Bytes::new());
                        trees.fail(tree, format!("the item {error}"), true, Instant::now());
                    }),
                    Some(Err(panic)) => self.source.on_panic(panic_text(&*panic)),
                    None => {}
                },
            }
        }
    }

    /// Its time begins when there is room for all of it.
    async fn send(&self, tree: TreeId, input: Bytes) -> Result<(), EmitError> {
        let mut places = Vec::new();
        for edge in 0..self.router.plan.first.len() {
            let way = Way::First(edge);
            let key = self.router.key(way, &input)?;
            let rooms = self.router.rooms(way, key, &input, None).await?;
            places.extend(rooms.into_iter().map(|room| (room, key, new_id())));
        }
        let sum = places.iter().fold(0, |sum, (_, _, id)| sum ^ id);
        let Some((deadline, is_next)) = self.source.change(|trees| trees.open(tree, sum, Instant::now())) else {
            return Ok(());
        };
        if is_next {
            self.source.timer.notify_one();
        }
        for (room, key, id) in places {
            room.put(Tuple { id, tree, deadline, key, payload: input.clone(), _held: None, busy: None });
        }
        Ok(())
    }
}

impl Drop for Feeder {
    /// Also when the user's stream panics: then no more events come, and the reader is not left waiting.
    fn drop(&mut self) {
        self.source.close();
    }
}

/// Has trees replayed whose time has come.
async fn watch_time(source: Arc<Source>) {
    loop {
        let next = source.change(|trees| {
            trees.expire(Instant::now());
            trees.next_time()
        });
        source.work.notify_one();
        tokio::select! {
            () = source.timer.notified() => {}
            () = async { sleep_until(next.unwrap_or_else(Instant::now).into()).await }, if next.is_some() => {}
        }
    }
}
