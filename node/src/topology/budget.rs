//! How many bytes of tuples may wait at once, of all senders and of each.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::future::join_all;
use tokio::sync::Notify;

/// What a tuple takes beside its value: its place in queues, its ids.
const TUPLE: usize = 256;

/// Bytes that are in use, and a limit from which on nobody may begin to make more.
///
/// The size of a value is known only when it is encoded, so what was begun below the limit may end above it: by one
/// value for each thread.
pub(crate) struct Budget {
    limit: usize,
    used: Mutex<usize>,
    freed: Notify,
    /// What this is a part of. What goes beyond the limit of the part does not count there: it would be the others' loss.
    whole: Option<Arc<Budget>>,
}

/// Bytes in use; given back when the last owner drops it.
pub(crate) struct Held {
    budgets: Vec<Arc<Budget>>,
    bytes: usize,
}

impl Budget {
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Self::within(limit, None)
    }

    /// A part of it, for one of many.
    pub(crate) fn share(self: &Arc<Self>, limit: usize) -> Arc<Self> {
        Self::within(limit, Some(self.clone()))
    }

    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    fn within(limit: usize, whole: Option<Arc<Self>>) -> Arc<Self> {
        Arc::new(Self { limit, used: Mutex::new(0), freed: Notify::new(), whole })
    }

    /// Waits until less than the limit is in use, here and of the whole.
    async fn wait(&self) {
        let budgets = [Some(self), self.whole.as_deref()];
        for budget in budgets.into_iter().flatten() {
            while budget.is_used_up() {
                let freed = budget.freed.notified();
                // It may have been given back before anybody listened.
                if budget.is_used_up() {
                    freed.await;
                }
            }
        }
    }

    fn is_free(&self) -> bool {
        !self.is_used_up() && self.whole.as_ref().is_none_or(|whole| !whole.is_used_up())
    }

    fn is_used_up(&self) -> bool {
        *self.used() >= self.limit
    }

    fn take(&self, bytes: usize) {
        let mut used = self.used();
        let before = *used;
        *used = before.saturating_add(bytes);
        if let Some(whole) = &self.whole {
            whole.take((*used).min(self.limit) - before.min(self.limit));
        }
    }

    fn give_back(&self, bytes: usize) {
        let mut used = self.used();
        let before = *used;
        *used = before.saturating_sub(bytes);
        if let Some(whole) = &self.whole {
            whole.give_back(before.min(self.limit) - (*used).min(self.limit));
        }
        if before >= self.limit && *used < self.limit {
            self.freed.notify_waiters();
        }
    }

    fn used(&self) -> MutexGuard<'_, usize> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits until each of them may be used.
pub(crate) async fn wait(budgets: &[Arc<Budget>]) {
    while !budgets.iter().all(|budget| budget.is_free()) {
        join_all(budgets.iter().map(|budget| budget.wait())).await;
    }
}

/// Takes what a value of this size needs of each.
pub(crate) fn hold(budgets: &[Arc<Budget>], size: usize) -> Arc<Held> {
    let bytes = size.saturating_add(TUPLE);
    for budget in budgets {
        budget.take(bytes);
    }
    Arc::new(Held { budgets: budgets.to_vec(), bytes })
}

impl Drop for Held {
    fn drop(&mut self) {
        for budget in &self.budgets {
            budget.give_back(self.bytes);
        }
    }
}

impl std::fmt::Debug for Held {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Held").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use futures::future::poll_immediate;

    use super::*;

    #[tokio::test]
    async fn whoever_finds_it_used_up_waits_until_it_is_not() {
        let budget = [Budget::new(1000)];
        let (first, second) = (hold(&budget, 500), hold(&budget, 500));
        let mut waiting = Box::pin(wait(&budget));
        assert!(poll_immediate(&mut waiting).await.is_none());
        let shared = first.clone();
        drop(first);
        assert!(poll_immediate(&mut waiting).await.is_none(), "a copy of the value still waits");
        drop(shared);
        waiting.await;
        drop(second);
        assert_eq!(*budget[0].used(), 0);
    }

    #[tokio::test]
    async fn what_one_of_many_takes_beyond_its_part_is_nobody_elses_loss() {
        let whole = Budget::new(1000);
        let [one, two, three] = [(); 3].map(|()| [whole.share(500)]);
        let much = hold(&one, 10_000);
        assert!(poll_immediate(wait(&one)).await.is_none());
        assert!(poll_immediate(wait(&two)).await.is_some());
        let more = hold(&two, 10_000);
        let mut waiting = Box::pin(wait(&three));
        assert!(poll_immediate(&mut waiting).await.is_none(), "that is all");
        drop(much);
        waiting.await;
        drop(more);
        assert_eq!((*whole.used(), *one[0].used()), (0, 0));
    }
}
