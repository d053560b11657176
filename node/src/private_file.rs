//! Files that hold a secret: they are their owner's alone, or they are refused.

use std::{
    fs::{File, Metadata},
    io::{self, Read},
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;

use crate::{files, quoting::quoted_path};

/// What is wrong with a file for a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exposure {
    /// Others than its owner may read or write it.
    Open,
    /// It belongs to this other user, who reads it, and may put another secret into it.
    Foreign(u32),
}

/// Looks at a file that was opened. The system's administrator sees everything anyway, and may give users their secrets; a
/// pipe is nobody's in particular.
#[cfg(unix)]
pub(crate) fn exposure(metadata: &Metadata) -> Option<Exposure> {
    use std::os::unix::fs::MetadataExt;
    let owner = metadata.uid();
    if !metadata.is_file() {
        None
    } else if owner != files::own_user_id() && owner != 0 {
        Some(Exposure::Foreign(owner))
    } else {
        (metadata.mode() & 0o077 != 0).then_some(Exposure::Open)
    }
}

#[cfg(not(unix))]
pub(crate) fn exposure(_: &Metadata) -> Option<Exposure> {
    None
}

fn check(path: &Path, file: &File) -> Result<(), PrivateFileError> {
    let metadata = file.metadata().map_err(|source| PrivateFileError::Io { path: path.to_owned(), source })?;
    match exposure(&metadata) {
        None => Ok(()),
        Some(Exposure::Open) => Err(PrivateFileError::Exposed { path: path.to_owned() }),
        Some(Exposure::Foreign(owner)) => Err(PrivateFileError::Foreign { path: path.to_owned(), owner }),
    }
}

/// Reads a text of at most `limit` bytes: of a regular file, or of a pipe that this process was given.
pub(crate) fn read(path: &Path, limit: u64) -> Result<Zeroizing<String>, PrivateFileError> {
    let failed = |source| PrivateFileError::Io { path: path.to_owned(), source };
    let file = files::open_named(path).map_err(failed)?;
    check(path, &file)?;
    // Reserved at once: a text that grows leaves copies of itself behind.
    let mut text = Zeroizing::new(String::with_capacity(usize::try_from(limit).unwrap_or_default() + 1));
    match file.take(limit + 1).read_to_string(&mut text) {
        Ok(length) if length as u64 > limit => Err(PrivateFileError::TooLong { path: path.to_owned(), limit }),
        Ok(_) => Ok(text),
        Err(source) => Err(failed(source)),
    }
}

/// Reads what is in a folder of our own: no link is followed.
#[cfg(feature = "wasm")]
pub(crate) fn read_own(path: &Path, limit: u64) -> Result<Zeroizing<Vec<u8>>, PrivateFileError> {
    let failed = |source| PrivateFileError::Io { path: path.to_owned(), source };
    let file = files::open_own(path, File::options().read(true)).map_err(failed)?;
    check(path, &file)?;
    files::bounded(&file, limit).map(Zeroizing::new).map_err(failed)
}

/// What is in a text beside the white space around it and the byte order mark that some editors put before it.
pub(crate) fn content(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text).trim()
}

/// Makes a file that only its owner may read; one that is there already is left alone.
pub(crate) fn create(path: &Path, text: &str) -> Result<(), PrivateFileError> {
    let written = files::create(path, &[text.as_bytes(), b"\n"]);
    written.map_err(|source| match source.kind() {
        io::ErrorKind::AlreadyExists => PrivateFileError::Exists { path: path.to_owned() },
        _ => PrivateFileError::Io { path: path.to_owned(), source },
    })
}

/// Why a file with a secret is not used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PrivateFileError {
    /// It cannot be read or written.
    #[error("the file `{}` cannot be used: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Others than its owner may read it.
    #[error("the file `{0}` holds a secret and may be read by others than its owner: chmod 600 {1}", .path.display(), quoted_path(.path))]
    Exposed {
        /// The file.
        path: PathBuf,
    },
    /// It belongs to another user, who may have put anything into it.
    #[error("the file `{}` holds a secret and belongs to another user, with the id {owner}: copy it to a file of your own", .path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
    },
    /// It is there already, and was to be made.
    #[error("there is something called `{}` already: it is not written over, name another file", .path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// It is much longer than what is looked for.
    #[error("the file `{}` has more than {limit} bytes: it holds something else", .path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
        /// In bytes.
        limit: u64,
    },
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_that_others_may_read_is_refused_with_the_remedy() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        create(&path, "text").unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(read(&path, 100).unwrap().as_str(), "text\n");
        if files::own_user_id() == 0 {
            std::os::unix::fs::chown(&path, Some(1000), None).unwrap();
            assert!(matches!(read(&path, 100).unwrap_err(), PrivateFileError::Foreign { owner: 1000, .. }));
            std::os::unix::fs::chown(&path, Some(0), None).unwrap();
        }
        for mode in [0o640, 0o604, 0o660] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let error = read(&path, 100).unwrap_err().to_string();
            assert!(error.ends_with(&format!("chmod 600 {}", path.display())), "{error}");
        }
    }

    #[test]
    fn nothing_is_written_over_and_nothing_long_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        create(&path, "text").unwrap();
        assert!(matches!(create(&path, "other").unwrap_err(), PrivateFileError::Exists { .. }));
        assert_eq!(read(&path, 100).unwrap().as_str(), "text\n");
        assert!(matches!(read(&path, 4).unwrap_err(), PrivateFileError::TooLong { .. }));
        assert!(matches!(read(&folder.path().join("none"), 4).unwrap_err(), PrivateFileError::Io { .. }));
    }
}
