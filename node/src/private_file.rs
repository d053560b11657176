//! Files that hold a secret: they are their owner's alone, or they are refused.

use std::{
    fs::File,
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;

/// Whether others than its owner may read a file. A pipe is nobody's in particular.
#[cfg(unix)]
pub(crate) fn is_exposed(file: &File) -> io::Result<bool> {
    use std::os::unix::fs::PermissionsExt;
    let metadata = file.metadata()?;
    Ok(metadata.is_file() && metadata.permissions().mode() & 0o077 != 0)
}

#[cfg(not(unix))]
pub(crate) fn is_exposed(_: &File) -> io::Result<bool> {
    Ok(false)
}

/// Reads a text of at most `limit` bytes.
pub(crate) fn read(path: &Path, limit: u64) -> Result<Zeroizing<String>, PrivateFileError> {
    let failed = |source| PrivateFileError::Io { path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    if is_exposed(&file).map_err(failed)? {
        return Err(PrivateFileError::Exposed { path: path.to_owned() });
    }
    // Reserved at once: a text that grows leaves copies of itself behind.
    let mut text = Zeroizing::new(String::with_capacity(usize::try_from(limit).unwrap_or_default() + 1));
    match file.take(limit + 1).read_to_string(&mut text) {
        Ok(length) if length as u64 > limit => Err(PrivateFileError::TooLong { path: path.to_owned(), limit }),
        Ok(_) => Ok(text),
        Err(source) => Err(failed(source)),
    }
}

/// Makes a file that only its owner may read; one that is there already is left alone.
pub(crate) fn create(path: &Path, text: &str) -> Result<(), PrivateFileError> {
    let mut options = File::options();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let written = options.open(path).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.write_all(b"\n")?;
        file.sync_all()
    });
    written.map_err(|source| PrivateFileError::Io { path: path.to_owned(), source })
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
    #[error("the file `{0}` holds a secret and may be read by others than its owner: chmod 600 {0}", .path.display())]
    Exposed {
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
        assert!(matches!(create(&path, "other").unwrap_err(), PrivateFileError::Io { .. }));
        assert!(matches!(read(&path, 4).unwrap_err(), PrivateFileError::TooLong { .. }));
        assert!(matches!(read(&folder.path().join("none"), 4).unwrap_err(), PrivateFileError::Io { .. }));
    }
}
