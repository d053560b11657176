//! The folder in which a node keeps code: its own as long as it runs, with one writer at a time.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io,
    path::{Path, PathBuf},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use crate::files::{self, FolderFault, Locked};

/// Locked by the node to which the folder belongs, where folders cannot be.
const LOCK: &str = "lock";

/// The folder of a node.
#[derive(Debug)]
pub(crate) struct DataFolder {
    path: PathBuf,
    state: Mutex<State>,
    turns: AtomicU64,
}

#[derive(Debug)]
enum State {
    /// Nothing was asked of it yet.
    Unclaimed,
    /// It is this node's.
    Claimed {
        _lock: Locked,
        /// The last turn that has written.
        written: u64,
    },
    /// The node has ended, and the folder may be another's.
    Released,
}

impl DataFolder {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, state: Mutex::new(State::Unclaimed), turns: AtomicU64::new(0) }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes it this node's own, until [`release`](Self::release). Reads and writes files.
    pub(crate) fn claim(&self) -> Result<(), DataFolderError> {
        let mut state = self.state();
        match *state {
            State::Claimed { .. } => Ok(()),
            State::Released => Err(DataFolderError::Released),
            State::Unclaimed => {
                files::own_folder(&self.path).map_err(DataFolderError::from)?;
                *state = State::Claimed { _lock: lock(&self.path)?, written: 0 };
                Ok(())
            }
        }
    }

    /// Lets another node have it. What was about to be written is not written any more.
    pub(crate) fn release(&self) {
        *self.state() = State::Released;
    }

    /// The place in the order of what is to be written: take it while what is written cannot change.
    pub(crate) fn turn(&self) -> u64 {
        self.turns.fetch_add(1, Relaxed) + 1
    }

    /// Writes, alone, and nothing if what is newer was written before. Blocks.
    pub(crate) fn write(&self, turn: u64, write: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
        self.claim().map_err(io::Error::other)?;
        let mut state = self.state();
        match &mut *state {
            State::Claimed { written, .. } if *written > turn => Ok(()),
            State::Claimed { written, .. } => {
                write(&self.path)?;
                *written = turn;
                Ok(())
            }
            _ => Err(io::Error::other(DataFolderError::Released)),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn lock(folder: &Path) -> Result<Locked, DataFolderError> {
    let failed = |source| DataFolderError::Io { path: folder.to_owned(), source };
    // The folder itself can be locked on most systems, and then no file lies about.
    if let Some(locked) = File::open(folder).ok().and_then(|opened| try_lock(opened, folder)) {
        return locked;
    }
    let file = files::open_own_or_new(&folder.join(LOCK), OpenOptions::new().read(true).write(true));
    let no_locks = || failed(io::Error::other("the file system has no locks"));
    try_lock(file.map_err(failed)?, folder).unwrap_or_else(|| Err(no_locks()))
}

/// `None` where it cannot be locked at all.
fn try_lock(file: File, folder: &Path) -> Option<Result<Locked, DataFolderError>> {
    match Locked::new(file) {
        Ok(locked) => Some(Ok(locked)),
        Err(TryLockError::WouldBlock) => Some(Err(DataFolderError::InUse { path: folder.to_owned() })),
        Err(TryLockError::Error(_)) => None,
    }
}

/// Why a node cannot have the folder in which it is to keep code.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataFolderError {
    /// Another node has it.
    #[error("the data folder `{}` is in use by another node: stop that one, or give each node a folder of its own (`--data DIR`)", .path.display())]
    InUse {
        /// The folder.
        path: PathBuf,
    },
    /// It belongs to another user, others can write to it, or it is none.
    #[error("no code can be kept: {reason}")]
    Unfit {
        /// What is wrong with it, and what can be done.
        reason: String,
    },
    /// It cannot be read or written.
    #[error("the data folder `{}` cannot be used: {source}", .path.display())]
    Io {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The node has stopped.
    #[error("the node has stopped")]
    Released,
}

impl From<FolderFault> for DataFolderError {
    fn from(fault: FolderFault) -> Self {
        match fault {
            FolderFault::Io { path, source } => Self::Io { path, source },
            fault => Self::Unfit { reason: fault.to_string() },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_one_owner_at_a_time() {
        let below = tempfile::tempdir().unwrap();
        let path = below.path().join("code");
        let [one, other] = [(); 2].map(|()| DataFolder::new(path.clone()));
        one.claim().unwrap();
        one.claim().unwrap();
        let error = other.claim().unwrap_err();
        assert!(matches!(error, DataFolderError::InUse { .. }) && error.to_string().contains("code"), "{error}");
        one.release();
        other.claim().unwrap();
        assert!(one.write(one.turn(), |_| panic!("it is another's")).is_err());
    }

    #[test]
    fn what_is_older_is_not_written_over_what_is_newer() {
        let below = tempfile::tempdir().unwrap();
        let folder = DataFolder::new(below.path().join("code"));
        let (older, newer) = (folder.turn(), folder.turn());
        let put = |turn, text: &'static str| folder.write(turn, |path| std::fs::write(path.join("list"), text));
        put(newer, "newer").unwrap();
        put(older, "older").unwrap();
        assert_eq!(std::fs::read(folder.path().join("list")).unwrap(), b"newer");
    }
}
