//! How many bytes of tuples may wait at once.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use tokio::sync::Notify;

/// What a tuple takes beside its value: its place in queues, its ids.
const TUPLE: usize = 256;

/// Bytes that are in use, and a limit from which on nobody may begin to make more.
///
/// The size of a value is known only when it is encoded, so what was begun below the limit may end above it: by one
/// value for each thread.
pub(crate) struct Budget {
    limit: usize,
    used: AtomicUsize,
    freed: Notify,
}

/// Bytes in use; given back when the last owner drops it.
pub(crate) struct Held {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Budget {
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, used: AtomicUsize::new(0), freed: Notify::new() })
    }

    /// Waits until less than the limit is in use.
    pub(crate) async fn wait(&self) {
        while self.is_used_up() {
            let freed = self.freed.notified();
            // It may have been given back before anybody listened.
            if !self.is_used_up() {
                return;
            }
            freed.await;
        }
    }

    /// Takes what a value of this size needs.
    pub(crate) fn hold(self: &Arc<Self>, size: usize) -> Arc<Held> {
        let bytes = size.saturating_add(TUPLE);
        self.used.fetch_add(bytes, SeqCst);
        Arc::new(Held { budget: self.clone(), bytes })
    }

    fn is_used_up(&self) -> bool {
        self.used.load(SeqCst) >= self.limit
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let Self { budget, bytes } = self;
        let before = budget.used.fetch_sub(*bytes, SeqCst);
        if before >= budget.limit && before - *bytes < budget.limit {
            budget.freed.notify_waiters();
        }
    }
}

impl std::fmt::Debug for Held {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Held").field("bytes", &self.bytes).finish()
    }
}

#[cfg(test)]
mod tests {
    use futures::future::poll_immediate;

    use super::*;

    #[tokio::test]
    async fn whoever_finds_it_used_up_waits_until_it_is_not() {
        let budget = Budget::new(1000);
        let (first, second) = (budget.hold(500), budget.hold(500));
        let mut waiting = Box::pin(budget.wait());
        assert!(poll_immediate(&mut waiting).await.is_none());
        let shared = first.clone();
        drop(first);
        assert!(poll_immediate(&mut waiting).await.is_none(), "a copy of the value still waits");
        drop(shared);
        waiting.await;
        drop(second);
        assert_eq!(budget.used.load(SeqCst), 0);
    }
}
