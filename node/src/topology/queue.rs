//! A queue between tasks that is bounded by number and by size.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A tuple takes one unit of room, and one more for each so many bytes: a thousand small ones, or 64 MiB, fit a queue
/// of 1024.
const UNIT: usize = 64 * 1024;

/// Many push, many pop. Whoever pushes waits for room.
pub(crate) struct Queue<T> {
    items: Mutex<VecDeque<(T, OwnedSemaphorePermit)>>,
    capacity: u32,
    room: Arc<Semaphore>,
    /// One permit for each item.
    ready: Semaphore,
}

/// Room for one item. Given back when it is dropped unused.
pub(crate) struct Room<T> {
    queue: Arc<Queue<T>>,
    permit: OwnedSemaphorePermit,
}

/// How much room so many bytes take.
pub(crate) fn units(bytes: usize) -> u32 {
    u32::try_from(1 + bytes / UNIT).unwrap_or(u32::MAX)
}

impl<T> Queue<T> {
    pub(crate) fn new(capacity: u32) -> Arc<Self> {
        let capacity = capacity.max(1);
        let room = Semaphore::new(usize::try_from(capacity).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS));
        Arc::new(Self { items: Mutex::default(), capacity, room: Arc::new(room), ready: Semaphore::new(0) })
    }

    /// Waits for room; `None` if the queue is closed. What is too large for it takes all of it.
    pub(crate) async fn reserve(self: &Arc<Self>, units: u32) -> Option<Room<T>> {
        let permit = self.room.clone().acquire_many_owned(units.min(self.capacity)).await.ok()?;
        Some(Room { queue: self.clone(), permit })
    }

    /// Room if there is some now.
    pub(crate) fn try_reserve(self: &Arc<Self>, units: u32) -> Option<Room<T>> {
        let permit = self.room.clone().try_acquire_many_owned(units.min(self.capacity)).ok()?;
        Some(Room { queue: self.clone(), permit })
    }

    /// The next item; `None` when the queue is closed and empty.
    pub(crate) async fn pop(&self) -> Option<T> {
        if let Ok(ready) = self.ready.acquire().await {
            ready.forget();
        }
        self.take()
    }

    /// The next item if there is one now.
    pub(crate) fn try_pop(&self) -> Option<T> {
        self.ready.try_acquire().ok()?.forget();
        self.take()
    }

    /// Takes nothing more. What is in it can still be popped.
    pub(crate) fn close(&self) {
        self.room.close();
        self.ready.close();
    }

    /// Room that is in use.
    pub(crate) fn used(&self) -> usize {
        usize::try_from(self.capacity).unwrap_or(usize::MAX).saturating_sub(self.room.available_permits())
    }

    pub(crate) fn has_room(&self) -> bool {
        self.room.available_permits() > 0
    }

    fn take(&self) -> Option<T> {
        self.items().pop_front().map(|(item, _)| item)
    }

    fn items(&self) -> MutexGuard<'_, VecDeque<(T, OwnedSemaphorePermit)>> {
        self.items.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Room<T> {
    /// Puts the item into the queue.
    pub(crate) fn put(self, item: T) {
        let Self { queue, permit } = self;
        queue.items().push_back((item, permit));
        queue.ready.add_permits(1);
    }
}

#[cfg(test)]
mod tests {
    use futures::future::poll_immediate;

    use super::*;

    #[tokio::test]
    async fn what_does_not_fit_waits_and_what_is_too_large_takes_all() {
        let queue = Queue::new(3);
        queue.reserve(2).await.unwrap().put('a');
        assert!(queue.try_reserve(2).is_none());
        queue.try_reserve(1).unwrap().put('b');
        assert!(!queue.has_room() && queue.used() == 3);
        let mut waiting = Box::pin(queue.reserve(100));
        assert!(poll_immediate(&mut waiting).await.is_none());
        assert_eq!(queue.pop().await, Some('a'));
        assert!(poll_immediate(&mut waiting).await.is_none());
        assert_eq!(queue.try_pop(), Some('b'));
        let room = poll_immediate(&mut waiting).await.unwrap().unwrap();
        assert_eq!((queue.used(), queue.try_pop()), (3, None));
        drop(room);
        assert_eq!(queue.used(), 0);
    }

    #[tokio::test]
    async fn a_closed_queue_gives_what_it_has() {
        let queue = Queue::new(3);
        queue.reserve(1).await.unwrap().put(1);
        queue.close();
        assert!(queue.reserve(1).await.is_none());
        assert_eq!((queue.pop().await, queue.pop().await), (Some(1), None));
    }
}
