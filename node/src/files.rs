//! The one place that opens, makes and replaces files: nothing planted in their place is followed, nothing endless is read,
//! and what is written is there whole or not at all.
//!
//! - What somebody has *named* (a key, a rule file, code) may be a link, but is a regular file in the end, or a pipe that this
//!   process was given; it is read up to a limit: `read`, `read_text`.
//! - What is in a *folder of our own* is no link: `open_own`, `read_own`; the folder belongs to this user, and nobody else
//!   writes to it: `check_folder`, `own_folder`.
//! - What is *new* is made under a name that nobody can guess, for its owner alone, and gets its own name when it is whole and
//!   on disk: `Unfinished`, `create`, `replace`. What a killed process has left of that is swept: `sweep`.

// The paths are for the benchmark of journals, which takes this module in.
#[path = "files/folder.rs"]
mod folder;
#[path = "files/locked.rs"]
mod locked;
#[path = "files/open.rs"]
mod open;
#[cfg(feature = "cli")]
#[path = "files/output.rs"]
mod output;
#[path = "files/unfinished.rs"]
mod unfinished;

#[cfg(unix)]
pub(crate) use folder::own_user_id;
#[cfg(feature = "journal")]
pub(crate) use folder::sync_folder_of;
pub(crate) use folder::{FolderFault, check_folder};
#[cfg(feature = "wasm")]
pub(crate) use folder::{own_folder, sync_folder};
pub(crate) use locked::Locked;
#[cfg(any(feature = "journal", feature = "wasm"))]
pub(crate) use open::open_own;
#[cfg(feature = "wasm")]
pub(crate) use open::open_own_or_new;
pub(crate) use open::{bounded, open_named, open_regular, read_own};
pub use open::{read, read_text};
#[cfg(feature = "cli")]
pub use output::{open_output, write_output};
#[cfg(feature = "wasm")]
pub(crate) use unfinished::replace;
pub(crate) use unfinished::{Unfinished, create, replace_fleeting, sweep};
