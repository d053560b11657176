//! The thread that records: group commit.

use std::{sync::Arc, thread};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, mpsc::error::TrySendError};

use super::{Entry, JournalError, PREFIX, Store, io_error};

/// Outcomes in one transaction at the most, and as many more that wait for the next one. A sync of a slow disk takes
/// 10 ms: even then more could be recorded than a submitter can take in.
const BATCH: usize = 8192;

/// Bytes of outcomes that wait or are being recorded, at the most. A larger one waits until it is the only one.
const BYTES: u32 = 16 * 1024 * 1024;

/// Batches that are durable and wait for the receiver. More than one, so that the next sync does not wait for it.
const BATCHES: usize = 4;

/// Hands outcomes to the thread. Clones hand them to the same one.
pub(crate) struct Recorder<T> {
    queue: mpsc::Sender<Queued<T>>,
    room: Arc<Semaphore>,
}

/// What is durable, in the order in which it was handed in; an error is the last that comes.
pub(crate) type Recorded<T> = mpsc::Receiver<Result<Vec<T>, JournalError>>;

/// Nothing can be recorded any more: the receiver says why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ended;

struct Queued<T> {
    index: u64,
    /// None takes away what the index has.
    entry: Option<Entry>,
    done: T,
    /// Until it is durable.
    _room: OwnedSemaphorePermit,
}

pub(super) fn start<T: Send + 'static>(store: Arc<Store>) -> Result<(Recorder<T>, Recorded<T>), JournalError> {
    let (queue, queued) = mpsc::channel(BATCH);
    let (durable, recorded) = mpsc::channel(BATCHES);
    let path = store.path.clone();
    // It is not joined: it ends with the last recorder, and whoever opens the journal next waits for that.
    thread::Builder::new()
        .name("journal".to_owned())
        .spawn(move || run(store, queued, durable))
        .map_err(|source| io_error(&path, source))?;
    Ok((Recorder { queue, room: Arc::new(Semaphore::new(BYTES as usize)) }, recorded))
}

fn run<T>(
    store: Arc<Store>,
    mut queued: mpsc::Receiver<Queued<T>>,
    durable: mpsc::Sender<Result<Vec<T>, JournalError>>,
) {
    let mut batch = Vec::with_capacity(BATCH);
    while queued.blocking_recv_many(&mut batch, BATCH) > 0 {
        let recorded = store.record(batch.iter().map(|queued| (queued.index, queued.entry.as_ref())));
        if let Err(error) = recorded {
            // Closed first: who is told of the error finds that nothing is taken any more.
            drop(queued);
            _ = durable.blocking_send(Err(error));
            break;
        }
        let done = batch.drain(..).map(|queued| queued.done).collect();
        // Nobody has to listen: what was done is recorded all the same.
        _ = durable.blocking_send(Ok(done));
    }
    // Before the receiver ends: who waits for that and drops the journal has let the file go.
    drop(store);
}

/// Why an outcome is not queued.
pub(crate) enum Refused<T> {
    /// There is no room now: there is some when the next ones are durable.
    Full(u64, Option<Entry>, T),
    /// Nothing can be recorded any more: the receiver says why.
    Ended,
}

impl<T> Recorder<T> {
    /// Like [`record`](Self::record) if there is room at once. Without an entry, takes away what the index has.
    pub(crate) fn try_record(&self, index: u64, entry: Option<Entry>, done: T) -> Result<(), Refused<T>> {
        let size = entry.as_ref().map_or(0, bytes);
        let Ok(room) = self.room.clone().try_acquire_many_owned(size) else {
            return Err(Refused::Full(index, entry, done));
        };
        self.queue.try_send(Queued { index, entry, done, _room: room }).map_err(|refused| match refused {
            TrySendError::Full(Queued { index, entry, done, .. }) => Refused::Full(index, entry, done),
            TrySendError::Closed(_) => Refused::Ended,
        })
    }

    /// Has an outcome recorded, in the place of any that the index has. Waits for room in the queue; when it returns,
    /// the outcome is queued but not durable yet. If dropped before that, nothing is recorded.
    ///
    /// # Errors
    ///
    /// An earlier outcome could not be recorded, so nothing is any more.
    #[allow(dead_code, reason = "the tests and the benchmark wait for room")]
    pub(crate) async fn record(&self, index: u64, entry: Entry, done: T) -> Result<(), Ended> {
        let room = self.room.clone().acquire_many_owned(bytes(&entry)).await.map_err(|_| Ended)?;
        self.queue.send(Queued { index, entry: Some(entry), done, _room: room }).await.map_err(|_| Ended)
    }
}

fn bytes(entry: &Entry) -> u32 {
    u32::try_from(PREFIX + entry.outcome.len()).unwrap_or(BYTES).min(BYTES)
}

impl<T> Clone for Recorder<T> {
    fn clone(&self) -> Self {
        Self { queue: self.queue.clone(), room: self.room.clone() }
    }
}
