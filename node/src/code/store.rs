//! The bytes of code, by their hash: on disk, or in memory where a node has no folder.
//!
//! What is read is hashed: nothing that was damaged or changed on disk is ever run. All of it reads and writes files and
//! may block for as long as the disk does.

mod memory;
mod partial;

use std::{
    collections::HashSet,
    io,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use bytes::Bytes;
use tokio::sync::{Notify, futures::Notified};

use super::{
    cid::Cid,
    folder::Folder,
    portable::{Code, MAX_CODE},
};
use crate::files::FolderFault;

use memory::Memory;
pub use partial::Partial;

/// The bytes of code that are kept on disk, unless another limit is set: some dozen interpreters, thousands of others.
const DISK: u64 = 512 * 1024 * 1024;

/// The same in memory.
const MEMORY: u64 = 64 * 1024 * 1024;

/// Keeps code by its hash. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    place: Place,
    /// What is being received just now.
    receiving: Mutex<HashSet<Cid>>,
    /// Something is not being received any more.
    released: Notify,
}

#[derive(Debug)]
enum Place {
    Disk { whole: Folder, partial: Folder },
    Memory(Mutex<Memory>),
}

/// Something that a store keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stored {
    /// Its hash.
    pub cid: Cid,
    /// In bytes.
    pub size: u64,
    /// When it was last stored or read.
    pub used: SystemTime,
}

/// Why code is not stored, or not read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// There is no room for it, on the disk or within the limit. Nothing of it is kept.
    #[error("there is no room for code of {size} bytes in {place}: {source}")]
    Full {
        /// In bytes.
        size: u64,
        /// The folder.
        place: String,
        /// What the system says.
        source: io::Error,
    },
    /// A file cannot be read or written.
    #[error("code cannot be kept in {place}: {source}")]
    Io {
        /// The folder.
        place: String,
        /// What the system says.
        source: io::Error,
    },
    /// The bytes are not those that the name means. Nothing of them is kept.
    #[error("the bytes are `{actual}` and not `{expected}`")]
    WrongHash {
        /// What was asked for.
        expected: Cid,
        /// What came.
        actual: Cid,
    },
    /// More bytes than were said, or some that do not follow those before.
    #[error("{given} bytes at {offset} do not fit: {received} of {size} are there")]
    WrongPlace {
        /// Where they begin.
        offset: u64,
        /// How many they are.
        given: u64,
        /// How many bytes are there.
        received: u64,
        /// How many there will be.
        size: u64,
    },
    /// Somebody else receives it just now.
    #[error("`{cid}` is being received already")]
    InProgress {
        /// What is.
        cid: Cid,
    },
}

impl StoreError {
    /// The same for other nodes, whom the folders of this one do not concern.
    pub(super) fn told(&self) -> String {
        match self {
            Self::Full { size, .. } => format!("there is no room for code of {size} bytes"),
            Self::Io { source, .. } => format!("code cannot be kept: {}", source.kind()),
            error => error.to_string(),
        }
    }
}

impl Store {
    /// Opens the store in a folder, which is made for this user alone if it is not there; without one it is in memory.
    /// `limit` is how many bytes are kept, 512 MiB on disk or 64 MiB in memory without one: what was not used for longest
    /// goes first.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`].
    pub fn open(folder: Option<PathBuf>, limit: Option<u64>) -> Result<Self, StoreError> {
        let place = match folder {
            None => Place::Memory(Mutex::new(Memory::new(limit.unwrap_or(MEMORY)))),
            Some(path) => {
                let limit = limit.unwrap_or(DISK);
                let failed = |fault: FolderFault| StoreError::Io {
                    place: format!("`{}`", path.display()),
                    source: io::Error::other(fault),
                };
                let whole = Folder::open(path.clone(), "wasm", limit, MAX_CODE).map_err(failed)?;
                let partial = Folder::open(path.clone(), "partial", limit, MAX_CODE).map_err(failed)?;
                Place::Disk { whole, partial }
            }
        };
        Ok(Self(Arc::new(Inner { place, receiving: Mutex::default(), released: Notify::new() })))
    }

    /// Looks into the folder of a store that a node may use just now: one that is not there is not made, and what is being
    /// written is left alone.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`]: there is no such folder, or it cannot be read.
    pub fn look(folder: PathBuf) -> Result<Self, StoreError> {
        let failed = |source| StoreError::Io { place: format!("`{}`", folder.display()), source };
        let whole = Folder::existing(folder.clone(), "wasm", DISK, MAX_CODE).map_err(failed)?;
        let partial = Folder::existing(folder.clone(), "partial", DISK, MAX_CODE).map_err(failed)?;
        let place = Place::Disk { whole, partial };
        Ok(Self(Arc::new(Inner { place, receiving: Mutex::default(), released: Notify::new() })))
    }

    /// Keeps some code.
    ///
    /// # Errors
    ///
    /// [`StoreError::Full`], [`StoreError::Io`].
    pub fn put(&self, code: &Code) -> Result<(), StoreError> {
        let (cid, size) = (code.cid(), code.size());
        if self.find(&cid).is_some() {
            return Ok(());
        }
        let kept = match &self.0.place {
            Place::Disk { whole, .. } => whole.write(&cid.to_string(), &[code.bytes()]),
            Place::Memory(memory) => lock(memory).insert(cid, code.bytes().clone()),
        };
        kept.map_err(|source| self.failed(size, source))
    }

    /// The bytes that the name means, if they are here. Damaged ones are removed.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`].
    pub fn get(&self, cid: &Cid) -> Result<Option<Bytes>, StoreError> {
        let name = cid.to_string();
        let whole = match &self.0.place {
            Place::Memory(memory) => return Ok(lock(memory).find(cid)),
            Place::Disk { whole, .. } => whole,
        };
        let bytes = match whole.read(&name) {
            Ok(None) => return Ok(None),
            Ok(Some(bytes)) => Some(bytes),
            // A link, a pipe, or far too long: nothing that was ever stored.
            Err(error) if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::FileTooLarge) => None,
            Err(source) => return Err(self.failed(0, source)),
        };
        let Some(bytes) = bytes.filter(|bytes| Cid::of(bytes) == *cid) else {
            tracing::warn!(%cid, "stored code is damaged and was removed");
            whole.remove(&name).map_err(|source| self.failed(0, source))?;
            return Ok(None);
        };
        whole.touch(&name);
        Ok(Some(bytes.into()))
    }

    /// A part of the bytes that the name means, if they are here: of `length` bytes, less at the end. They are not looked
    /// at: whoever gets all of them does that.
    pub(crate) fn piece(&self, cid: &Cid, offset: u64, length: u64) -> Result<Option<Bytes>, StoreError> {
        match &self.0.place {
            Place::Disk { whole, .. } => {
                let piece = whole.read_part(&cid.to_string(), offset, length);
                piece.map(|piece| piece.map(Bytes::from)).map_err(|source| self.failed(0, source))
            }
            Place::Memory(memory) => Ok(lock(memory).find(cid).map(|bytes| part(&bytes, offset, length))),
        }
    }

    /// How many bytes the code has, if it is here. They are not looked at.
    #[must_use]
    pub fn find(&self, cid: &Cid) -> Option<u64> {
        match &self.0.place {
            Place::Disk { whole, .. } => whole.size(&cid.to_string()),
            Place::Memory(memory) => lock(memory).find(cid).map(|bytes| bytes.len() as u64),
        }
    }

    /// What is kept, the newest first.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`].
    pub fn ls(&self) -> Result<Vec<Stored>, StoreError> {
        let mut stored = match &self.0.place {
            Place::Memory(memory) => lock(memory).ls(),
            Place::Disk { whole, .. } => {
                let entries = whole.entries().map_err(|source| self.failed(0, source))?;
                let stored = entries.into_iter().filter_map(|entry| {
                    // Other files are not ours.
                    let cid = entry.name.parse().ok()?;
                    Some(Stored { cid, size: entry.size, used: entry.used })
                });
                stored.collect()
            }
        };
        stored.sort_by_key(|stored| std::cmp::Reverse(stored.used));
        Ok(stored)
    }

    /// Forgets some code; false if it was not here.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`].
    pub fn rm(&self, cid: &Cid) -> Result<bool, StoreError> {
        match &self.0.place {
            Place::Memory(memory) => Ok(lock(memory).remove(cid)),
            Place::Disk { whole, .. } => whole.remove(&cid.to_string()).map_err(|source| self.failed(0, source)),
        }
    }

    /// Lets none of these go to make room for others, but may let go what was kept so before. What is in memory only has no
    /// such rights.
    pub fn pin(&self, cids: impl IntoIterator<Item = Cid>) {
        if let Place::Disk { whole, .. } = &self.0.place {
            whole.pin(cids.into_iter().map(|cid| cid.to_string()).collect());
        }
    }

    /// Begins to receive code of so many bytes, or goes on where it was broken off. Check `size` against the limits first.
    ///
    /// # Errors
    ///
    /// [`StoreError::InProgress`], [`StoreError::Full`], [`StoreError::Io`].
    pub fn begin(&self, cid: Cid, size: u64) -> Result<Partial, StoreError> {
        Partial::begin(self.clone(), cid, size)
    }

    /// Ends when something is not being received any more, from the moment on that this is called.
    pub(super) fn released(&self) -> Notified<'_> {
        self.0.released.notified()
    }

    pub(super) fn is_on_disk(&self) -> bool {
        matches!(self.0.place, Place::Disk { .. })
    }

    fn failed(&self, size: u64, source: io::Error) -> StoreError {
        use io::ErrorKind::{QuotaExceeded, StorageFull};
        let place = match &self.0.place {
            Place::Disk { whole, .. } => format!("`{}`", whole.path().display()),
            Place::Memory(_) => "memory".to_owned(),
        };
        match source.kind() {
            StorageFull | QuotaExceeded => StoreError::Full { size, place, source },
            _ => StoreError::Io { place, source },
        }
    }
}

/// Of `length` bytes, less at the end.
pub(super) fn part(bytes: &Bytes, offset: u64, length: u64) -> Bytes {
    let place = |place: u64| usize::try_from(place).unwrap_or(usize::MAX).min(bytes.len());
    bytes.slice(place(offset)..place(offset.saturating_add(length)))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
