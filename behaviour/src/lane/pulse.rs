//! What is heard of a call before its answer: that it waits, that it runs, how far it is.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use bytes::Bytes;
use tokio::sync::Notify;

/// The newest of what is heard of one call before it is answered. Whoever calls keeps it and looks at it.
#[derive(Debug)]
pub struct Pulse {
    news: Mutex<News>,
    told: Notify,
}

/// One report of a call. Later ones replace it, whether it was read or not.
#[derive(Debug, Clone)]
pub struct News {
    /// How many came so far; 0 means that nothing was heard yet.
    pub count: u64,
    /// When it was heard; before the first one, when the call was begun.
    pub when: Instant,
    /// The call waits for its turn; else it runs, as far as is known.
    pub waiting: bool,
    /// What the application says of it, CBOR; empty if nothing.
    pub payload: Bytes,
}

impl Pulse {
    /// A call that begins now.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        let news = News { count: 0, when: now, waiting: false, payload: Bytes::new() };
        Self { news: Mutex::new(news), told: Notify::new() }
    }

    /// The newest report.
    #[must_use]
    pub fn news(&self) -> News {
        self.lock().clone()
    }

    /// When something was heard last, and whether the call waits for its turn.
    #[must_use]
    pub fn last(&self) -> (Instant, bool) {
        let news = self.lock();
        (news.when, news.waiting)
    }

    /// Waits for a report that is newer than number `count`. For one task at a time.
    pub async fn next(&self, count: u64) -> News {
        loop {
            let told = self.told.notified();
            let news = self.news();
            if news.count > count {
                return news;
            }
            told.await;
        }
    }

    /// Takes a report.
    pub fn tell(&self, waiting: bool, payload: Bytes) {
        let mut news = self.lock();
        *news = News { count: news.count + 1, when: Instant::now(), waiting, payload };
        drop(news);
        self.told.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, News> {
        self.news.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
