//! Why a journal cannot be used.

use std::{
    io,
    path::{Path, PathBuf},
};

/// Why a journal cannot be used. What it holds is untouched by any of these.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// It records another action.
    #[error(
        "the journal `{}` is about `{action}` of `{application}`, not about `{wanted_action}` of `{wanted_application}`: use another file",
        .path.display()
    )]
    OtherJob {
        /// The file.
        path: PathBuf,
        /// The application that it is about.
        application: String,
        /// The action that it is about.
        action: String,
        /// The application that was to be called.
        wanted_application: String,
        /// The action that was to be called.
        wanted_action: String,
    },
    /// It was begun with another promise: with at-most-once or without it.
    #[error("the journal `{}` {}", .path.display(), promise(*.at_most_once))]
    OtherPromise {
        /// The file.
        path: PathBuf,
        /// Whether it was begun with at-most-once.
        at_most_once: bool,
    },
    /// It records another input: this item is not the one whose outcome it holds, or the input ended here.
    #[error("the journal `{}` belongs to another input: item `{index}` differs; use another file", .path.display())]
    OtherInput {
        /// The file.
        path: PathBuf,
        /// The item, counted from 0.
        index: u64,
    },
    /// Somebody has it open.
    #[error("the journal `{}` is in use: stop the map that uses it, or use another file", .path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// It is something else.
    #[error("`{}` is not a journal of this program", .path.display())]
    NotAJournal {
        /// The file.
        path: PathBuf,
    },
    /// It was written by a version that is newer than this one.
    #[error("the journal `{}` has format `{format}`, this version knows `{known}`: use a newer version", .path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        format: u32,
        /// The newest format that is known.
        known: u32,
    },
    /// It cannot be read or written: no permission, a full disk, a file system that is read-only.
    #[error("the journal `{}` cannot be used: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Its contents are not what was written.
    #[error("the journal `{}` is damaged: {reason}", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

fn promise(at_most_once: bool) -> &'static str {
    if at_most_once {
        "was begun with at-most-once: say so again, or use another file"
    } else {
        "was begun without at-most-once, so items may have run of which it knows nothing: leave at-most-once out, or use another file"
    }
}

impl JournalError {
    pub(super) fn new(path: &Path, error: redb::Error) -> Self {
        use redb::Error::*;
        let path = path.to_owned();
        match error {
            DatabaseAlreadyOpen | LockProtocolMismatch => Self::InUse { path },
            // The store says so of a file without its mark.
            Io(source) if source.kind() == io::ErrorKind::InvalidData => Self::NotAJournal { path },
            Io(source) if source.kind() == io::ErrorKind::UnexpectedEof => {
                Self::Damaged { path, reason: "a part of it is missing".to_owned() }
            }
            Io(source) => Self::Io { path, source },
            PreviousIo => Self::Io { path, source: io::Error::other("it could not be written before") },
            Corrupted(reason) => Self::Damaged { path, reason },
            RepairAborted => Self::Damaged { path, reason: "it cannot be repaired".to_owned() },
            // A database of somebody else: no version of this program has ever written such a one.
            UpgradeRequired(_) | TableTypeMismatch { .. } | TypeDefinitionChanged { .. } => Self::NotAJournal { path },
            TableIsMultimap(_) | TableIsNotMultimap(_) | TableDoesNotExist(_) => Self::NotAJournal { path },
            other => Self::Io { path, source: io::Error::other(other) },
        }
    }
}
