//! Tells the source what became of its tuples, many at once.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::timeout};

use super::{
    router::{Report, Router},
    wire::{ACKS, Acks, Failure, TreeId},
};
use crate::{call_error::CallError, payload::Payload, registry::Busy};

/// Trees of which the source was not told yet, at the most. It opens far fewer; one that cannot be reached must not
/// fill the memory here. What is dropped is replayed.
const MAX_TREES: usize = 65_536;
/// Failures of which the source was not told yet, at the most, for the same reason: 1 MiB of texts.
const MAX_FAILURES: usize = 1024;
/// Trees in one message: 32 bytes each at the most, and failures with texts of up to 1 KiB besides.
const BATCH: usize = 4096;
/// Failures in one message.
const BATCH_FAILURES: usize = 64;
/// A part of a run in which nothing has happened for so long is forgotten.
const IDLE: Duration = Duration::from_secs(20);
/// How long one message may take.
const ANSWER: Duration = Duration::from_secs(10);
/// The first and the longest pause before a message that was surely not taken is repeated, and how often it is.
const PAUSES: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));
const REPEATS: u32 = 30;

/// What the source of one run is to be told.
#[derive(Default)]
pub(crate) struct Acker {
    news: Mutex<News>,
    wake: Notify,
}

#[derive(Default)]
struct News {
    sums: HashMap<TreeId, u64>,
    failures: Vec<Failure>,
    /// Until it is told the node does not stop.
    busy: Option<Busy>,
}

impl Acker {
    /// A tuple was processed: `ids` is its id and those of what was emitted, combined by exclusive or.
    pub(crate) fn ack(&self, tree: TreeId, ids: u64) {
        let mut news = self.news();
        if news.sums.len() < MAX_TREES || news.sums.contains_key(&tree) {
            *news.sums.entry(tree).or_default() ^= ids;
        }
        drop(news);
        self.wake.notify_one();
    }

    /// Whether the source knows all.
    pub(crate) fn is_idle(&self) -> bool {
        let news = self.news();
        news.sums.is_empty() && news.failures.is_empty()
    }

    /// Keeps the node from stopping until all is told.
    pub(crate) fn keep(&self, busy: Option<Busy>) {
        let mut news = self.news();
        news.busy = busy.or(news.busy.take());
    }

    /// What fits one message. Parents and children that were both processed here cancel each other out.
    fn take(&self) -> Option<(Acks, Option<Busy>)> {
        let mut news = self.news();
        news.sums.retain(|_, ids| *ids != 0);
        if news.sums.is_empty() && news.failures.is_empty() {
            news.busy = None;
            return None;
        }
        let trees: Vec<_> = news.sums.keys().take(BATCH).copied().collect();
        let sums = trees.into_iter().filter_map(|tree| news.sums.remove_entry(&tree)).collect();
        let count = news.failures.len().min(BATCH_FAILURES);
        let acks = Acks { token: Default::default(), sums, failures: news.failures.drain(..count).collect() };
        Some((acks, news.busy.clone()))
    }

    fn news(&self) -> MutexGuard<'_, News> {
        self.news.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Report for Acker {
    fn fail(&self, mut failure: Failure) {
        failure.shorten();
        let mut news = self.news();
        if news.failures.len() < MAX_FAILURES {
            news.failures.push(failure);
        }
        drop(news);
        self.wake.notify_one();
    }
}

/// Sends what there is, one message after the other, until the run is over or `forget` says that nothing is left of it
/// here.
pub(crate) async fn run(router: Arc<Router>, acker: Arc<Acker>, forget: impl Fn() -> bool) {
    loop {
        if timeout(IDLE, acker.wake.notified()).await.is_err() && router.is_idle() && forget() {
            return;
        }
        while let Some((mut acks, _busy)) = acker.take() {
            acks.token = router.plan.token;
            send(&router, &acks).await;
        }
    }
}

async fn send(router: &Router, acks: &Acks) {
    let Ok(acks) = Payload::arguments(acks) else { return };
    let mut pause = PAUSES.0;
    for _ in 0..REPEATS {
        match router.call(&router.plan.desk, router.source, ACKS, &acks, ANSWER).await {
            Ok(_) => return,
            Err(CallError::Stopped | CallError::NoSuchApplication { .. } | CallError::Forbidden) => {
                return router.end();
            }
            // Told twice would be worse than not told: then the tree is replayed.
            Err(error) if error.may_have_run() => {
                return tracing::debug!(%error, "acknowledgements may be lost");
            }
            Err(error) => {
                tracing::debug!(%error, "the source cannot be reached");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSES.1);
            }
        }
    }
    router.end();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_processed_where_it_was_emitted_is_told_once() {
        let acker = Acker::default();
        let (tree, other) = (TreeId(1, 1), TreeId(1, 2));
        acker.ack(tree, 7 ^ 9);
        acker.ack(tree, 9);
        acker.ack(other, 5);
        acker.ack(other, 5);
        let acks = acker.take().unwrap().0;
        assert_eq!((acks.sums, acks.failures), (vec![(tree, 7)], vec![]));
        assert!(acker.take().is_none());
    }

    #[test]
    fn what_the_source_cannot_be_told_is_bounded() {
        let acker = Acker::default();
        for root in 0..MAX_TREES as u64 + 10 {
            acker.ack(TreeId(root, 1), 1);
            acker.fail(Failure { tree: TreeId(root, 1), reason: "é".repeat(1024), is_final: false });
        }
        let acks = acker.take().unwrap().0;
        assert_eq!((acks.sums.len(), acks.failures.len()), (BATCH, BATCH_FAILURES));
        assert!(acks.failures.iter().all(|failure| failure.reason.len() == 1024));
        assert_eq!(acker.news().sums.len(), MAX_TREES - BATCH);
    }
}
