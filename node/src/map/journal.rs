//! What a map has done so far, in a file that survives its process.
//!
//! An outcome is recorded durably before anybody is told of it: after a crash, a reboot or `kill -9` the same map goes
//! on where it stopped. Where no item may run twice, that it is begun is recorded durably before it is sent, in its place.
//!
//! ```text
//!  engine ── (index, entry, done) ──▶ queue ──▶ writer thread ── one transaction, one sync ──▶ file
//!     ▲                               bounded   takes all that has gathered                      │
//!     └───────────────────────────── done, in order, when durable ◀──────────────────────────────┘
//! ```
//!
//! # Why redb
//!
//! The file is a [redb](https://www.redb.org) database: pure Rust with no dependency but `libc`, maintained, with a
//! stable file format. A commit is atomic and one sync; every page has a checksum, a torn commit is not there; a lock
//! keeps a second process out; an index can be looked up and overwritten. Not taken: *sled* (never left its beta, its
//! format is not stable), *fjall* (a folder of many files and threads of its own; made for much more), *SQLite* (a C
//! compiler for each target, several times the size), *an append-only file of our own* (quick to write, but looking up,
//! overwriting, checksums, torn tails and locks would all be ours to get right).
//!
//! # What holds
//!
//! - What `done` was handed back for is in the file, whatever happens to the process or the power after that, as far as
//!   the disk keeps what it has synced.
//! - After a failed commit nothing is recorded any more: what was durable before still is.
//! - The whole file is verified when it is opened, for it is only opened to be trusted. That costs one reading of it.
//! - Deliberately absent: reading while another process writes, and compaction.

use std::{
    fmt, io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
};

use redb::{Database, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition};

// With their paths: the benchmark mounts this file as a module of its own.
#[path = "journal/ahead.rs"]
mod ahead;
#[path = "journal/error.rs"]
mod error;
#[path = "journal/file.rs"]
mod file;
#[cfg(test)]
#[path = "journal/tests.rs"]
mod tests;
#[path = "journal/writer.rs"]
mod writer;

use self::ahead::Ahead;
pub use self::error::JournalError;
pub(crate) use self::writer::{Recorded, Recorder, Refused};

/// Every outcome under the index of its item: a byte of flags, the hash of the input, the outcome.
const OUTCOMES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("outcomes");

/// The flag of an item that has failed.
const FAILED: u8 = 1;

/// The flag of an item that may have run. Without an outcome it was begun, and that is all that is known of it.
const UNKNOWN: u8 = 2;

/// Bytes of a value in front of the outcome.
const PREFIX: usize = 1 + size_of::<Hash>();

/// The first 16 bytes of the SHA-256 of an item's encoded payload.
pub(crate) type Hash = [u8; 16];

/// What a journal is about: it is refused when it belongs to something else.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Job<'a> {
    pub(crate) application: &'a str,
    pub(crate) action: &'a str,
    /// Whether that an item is begun is recorded before it is sent: in all runs of a map or in none, for what one of them
    /// has not recorded no other one can know.
    pub(crate) at_most_once: bool,
}

/// What is recorded of one item: what is stored under its index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// What the item was: an input is the same one if all of these are.
    pub(crate) input: Hash,
    /// The engine's own record, of no concern here. 3 GiB at the most. Empty if the item was begun and has no outcome.
    pub(crate) outcome: Vec<u8>,
    pub(crate) state: State,
}

/// What has become of an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Done,
    /// It is worth another try when failed ones are.
    Failed,
    /// It may have run.
    Unknown,
}

/// An open journal. Nobody else can open it until this, its clones, and every [`Recorder`] made of it, are dropped.
#[derive(Clone)]
pub(crate) struct Journal {
    store: Arc<Store>,
}

/// The database, and what is known of it without looking. Closed by whoever drops it last.
struct Store {
    path: PathBuf,
    /// There until it is dropped.
    database: Option<Database>,
    known: Mutex<Known>,
}

struct Known {
    recorded: u64,
    highest: Option<u64>,
    /// The hash of the first item, if any map has begun with this journal.
    first: Option<Hash>,
    ahead: Ahead,
}

impl Journal {
    /// Opens a journal, or makes a new one where no file, or an empty one, is. Blocks: it reads the whole file, and
    /// waits up to a second for a previous owner that is just closing it.
    ///
    /// # Errors
    ///
    /// The file belongs to another job, is in use, cannot be read and written, is damaged, was written by a newer
    /// version, or is something else.
    pub(crate) fn open(path: &Path, job: &Job<'_>) -> Result<Self, JournalError> {
        let (database, first) = file::open(path, job)?;
        Self::over(path, database, first)
    }

    fn over(path: &Path, database: Database, first: Option<Hash>) -> Result<Self, JournalError> {
        let mut store = Store {
            path: path.to_owned(),
            database: Some(database),
            known: Mutex::new(Known { recorded: 0, highest: None, first, ahead: Ahead::default() }),
        };
        let (recorded, highest) = store.attempt(|database| {
            let outcomes = database.begin_read()?.open_table(OUTCOMES)?;
            let highest = outcomes.last()?.map(|(index, _)| index.value());
            Ok((outcomes.len()?, highest))
        })?;
        let known = store.known.get_mut().unwrap_or_else(PoisonError::into_inner);
        (known.recorded, known.highest) = (recorded, highest);
        Ok(Self { store: Arc::new(store) })
    }

    /// Of how many items something is recorded.
    pub(crate) fn recorded(&self) -> u64 {
        self.store.known().recorded
    }

    /// The highest index that is recorded, or was since this was opened: an input that ends before it is another input.
    pub(crate) fn highest(&self) -> Option<u64> {
        self.store.known().highest
    }

    /// What is recorded for an item. Who asks in the order of the indexes is answered from memory nearly always, for
    /// outcomes are read ahead; any other answer is one look into the file.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or is damaged.
    pub(crate) fn find(&self, index: u64) -> Result<Option<Entry>, JournalError> {
        let mut known = self.store.known();
        if known.highest.is_none_or(|highest| highest < index) {
            return Ok(None);
        }
        if let Some(answer) = known.ahead.take(index) {
            return Ok(answer);
        }
        let count = known.ahead.worthwhile(index);
        // Within the lock: whoever overwrites one of these outcomes waits, and corrects them then.
        known.ahead = self.store.attempt(|database| {
            let outcomes = database.begin_read()?.open_table(OUTCOMES)?;
            Ahead::read(index, count, outcomes.range(index..)?)
        })?;
        Ok(known.ahead.take(index).flatten())
    }

    /// Says what the first item is, before any is run. The first to say so determines the journal's input, durably.
    /// Blocks for a sync then.
    ///
    /// # Errors
    ///
    /// The journal is about an input that begins with another item, or cannot be written.
    pub(crate) fn begin(&self, first: Hash) -> Result<(), JournalError> {
        match self.store.known().first {
            Some(known) if known == first => return Ok(()),
            Some(_) => return Err(self.other_input(0)),
            None => {}
        }
        self.store.attempt(|database| file::set_first(database, first))?;
        self.store.known().first = Some(first);
        Ok(())
    }

    /// The error for an outcome that cannot be read.
    pub(crate) fn damaged(&self) -> JournalError {
        JournalError::Damaged { path: self.store.path.clone(), reason: "an outcome in it cannot be read".to_owned() }
    }

    /// The error for an item that is not the one whose outcome is recorded, or for an input that ended there.
    pub(crate) fn other_input(&self, index: u64) -> JournalError {
        JournalError::OtherInput { path: self.store.path.clone(), index }
    }

    /// Starts a thread that records outcomes: all that have gathered in one transaction. When they are durable, the
    /// `T` that came with each is handed back, in order.
    ///
    /// Dropping every recorder has the rest recorded and ends the thread, and then the receiver. Nobody has to receive:
    /// outcomes are recorded as well if the receiver is dropped. A receiver that is kept must be read, though, or
    /// recording stalls.
    ///
    /// # Errors
    ///
    /// The system does not give it a thread.
    pub(crate) fn writer<T: Send + 'static>(&self) -> Result<(Recorder<T>, Recorded<T>), JournalError> {
        writer::start(self.store.clone())
    }
}

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Journal").field("path", &self.store.path).finish_non_exhaustive()
    }
}

impl Store {
    /// Records all of these in one transaction, or that there is nothing: durably, or not at all. Of several for one index
    /// the last one counts.
    fn record<'a>(&self, entries: impl Iterator<Item = (u64, Option<&'a Entry>)>) -> Result<(), JournalError> {
        let mut entries: Vec<_> = entries.collect();
        // Neighbours share pages. Stable, so that the last one for an index stays the last.
        entries.sort_by_key(|(index, _)| *index);
        let (Some((lowest, _)), Some((highest, _))) = (entries.first(), entries.last()) else { return Ok(()) };
        let recorded = self.attempt(|database| {
            let transaction = database.begin_write()?;
            let mut outcomes = transaction.open_table(OUTCOMES)?;
            let mut value = Vec::new();
            for (index, entry) in &entries {
                let Some(entry) = entry else {
                    outcomes.remove(index)?;
                    continue;
                };
                entry.encode(&mut value);
                outcomes.insert(index, value.as_slice())?;
            }
            let recorded = outcomes.len()?;
            drop(outcomes);
            transaction.commit()?;
            Ok(recorded)
        })?;
        let mut known = self.known();
        known.recorded = recorded;
        known.highest = known.highest.max(Some(*highest));
        known.ahead.forget(*lowest..=*highest);
        Ok(())
    }

    fn attempt<R>(&self, attempt: impl FnOnce(&Database) -> Result<R, redb::Error>) -> Result<R, JournalError> {
        let database = self.database.as_ref().ok_or(redb::Error::DatabaseClosed);
        guard(&self.path, || attempt(database?))
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        let (Some(database), path) = (self.database.take(), self.path.clone()) else { return };
        let close = move || {
            // Everything is durable already: what fails here costs a repair when it is opened next.
            if let Err(error) = guard(&path, || Ok(database.close()?)) {
                tracing::debug!(%error, "journal not closed cleanly");
            }
        };
        // It syncs, and whoever drops a map may be on a runtime's thread. Without a thread it is closed here.
        _ = thread::Builder::new().name("journal-close".to_owned()).spawn(close);
    }
}

impl Entry {
    /// What is recorded of an item before it is sent.
    pub(crate) fn begun(input: Hash) -> Self {
        Self { input, outcome: Vec::new(), state: State::Unknown }
    }

    /// Whether the item was begun, and nothing more is known.
    pub(crate) fn has_only_begun(&self) -> bool {
        self.state == State::Unknown && self.outcome.is_empty()
    }

    fn encode(&self, value: &mut Vec<u8>) {
        value.clear();
        value.push(match self.state {
            State::Done => 0,
            State::Failed => FAILED,
            State::Unknown => UNKNOWN,
        });
        value.extend_from_slice(&self.input);
        value.extend_from_slice(&self.outcome);
    }

    fn decode(value: &[u8]) -> Result<Self, redb::Error> {
        let too_short = || redb::Error::Corrupted(format!("an outcome has {} bytes", value.len()));
        let (prefix, outcome) = value.split_first_chunk::<PREFIX>().ok_or_else(too_short)?;
        let [flags, input @ ..] = *prefix;
        let state = match flags {
            _ if flags & UNKNOWN != 0 => State::Unknown,
            _ if flags & FAILED != 0 => State::Failed,
            _ => State::Done,
        };
        Ok(Self { input, outcome: outcome.to_vec(), state })
    }
}

/// redb promises not to panic on a file that it has verified; one that changes under it is beyond that.
fn guard<R>(path: &Path, attempt: impl FnOnce() -> Result<R, redb::Error>) -> Result<R, JournalError> {
    match catch_unwind(AssertUnwindSafe(attempt)) {
        Ok(result) => result.map_err(|error| JournalError::new(path, error)),
        Err(_) => Err(JournalError::Damaged { path: path.to_owned(), reason: "it makes the store panic".to_owned() }),
    }
}

fn io_error(path: &Path, source: io::Error) -> JournalError {
    JournalError::Io { path: path.to_owned(), source }
}
