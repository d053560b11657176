//! The files beside the code in which a node writes down what is to be known after its next start: CBOR, each replaced as a
//! whole.

use std::{io, path::Path};

use multinodes_behaviour::codec;
use serde::{Serialize, de::DeserializeOwned};

use crate::files;

/// As many guests as may be, with the largest configuration, or all versions that are remembered; and some.
pub(super) const MAX_FILE: usize = 8 * 1024 * 1024;

/// Reads one; nothing is in it if it is not there.
///
/// # Errors
///
/// It is damaged, or cannot be read.
pub(super) fn read<T: DeserializeOwned + Default>(folder: &Path, name: &str) -> io::Result<T> {
    let path = folder.join(name);
    let bytes = match files::read_own(&path, MAX_FILE as u64) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(T::default()),
        Err(error) => return Err(error),
    };
    let damaged = |error| io::Error::new(io::ErrorKind::InvalidData, format!("`{}`: {error}", path.display()));
    codec::decode(&bytes, MAX_FILE).map_err(damaged)
}

/// The same; one that is damaged is put aside, for people, so that the next one does not take its place.
///
/// # Errors
///
/// It cannot be read now, and may be as good as ever: whoever went on without it would write another one in its place.
pub(super) fn read_or_set_aside<T: DeserializeOwned + Default>(folder: &Path, name: &str) -> io::Result<T> {
    or_set_aside(read(folder, name), || {
        std::fs::rename(folder.join(name), folder.join(format!("{name}.unreadable")))?;
        files::sync_folder(folder)
    })
}

fn or_set_aside<T: Default>(read: io::Result<T>, set_aside: impl FnOnce() -> io::Result<()>) -> io::Result<T> {
    use io::ErrorKind::{FileTooLarge, InvalidData, InvalidInput};
    match read {
        Err(error) if matches!(error.kind(), InvalidData | InvalidInput | FileTooLarge) => {
            set_aside()?;
            tracing::error!(%error, "what was written down of installed code cannot be read, and was put aside");
            Ok(T::default())
        }
        read => read,
    }
}

/// Writes one, unless it is as it is to be.
pub(super) fn write<T: Serialize>(folder: &Path, name: &str, value: &T) -> io::Result<()> {
    let path = folder.join(name);
    let bytes = codec::encode(value).map_err(io::Error::other)?;
    if files::read_own(&path, MAX_FILE as u64).is_ok_and(|written| written == bytes) {
        return Ok(());
    }
    files::replace(&path, &[&bytes])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_damaged_is_put_aside_and_what_cannot_be_read_for_a_while_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let (file, aside) = (folder.path().join("list"), folder.path().join("list.unreadable"));
        let read = || read_or_set_aside::<Vec<u8>>(folder.path(), "list");
        assert!(read().unwrap().is_empty());
        write(folder.path(), "list", &vec![1, 2]).unwrap();
        assert_eq!(read().unwrap(), [1, 2]);
        std::fs::write(&file, "damaged").unwrap();
        assert!(read().unwrap().is_empty());
        assert!(!file.exists());
        assert_eq!(std::fs::read(&aside).unwrap(), b"damaged");
        for kind in [io::ErrorKind::PermissionDenied, io::ErrorKind::Other] {
            let read = or_set_aside::<Vec<u8>>(Err(kind.into()), || panic!("it may be as good as ever"));
            assert_eq!(read.unwrap_err().kind(), kind);
        }
        let failed = or_set_aside::<Vec<u8>>(Err(io::ErrorKind::InvalidData.into()), || {
            Err(io::ErrorKind::ReadOnlyFilesystem.into())
        });
        assert_eq!(failed.unwrap_err().kind(), io::ErrorKind::ReadOnlyFilesystem, "it would be written over");
    }
}
