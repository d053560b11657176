//! The node's key: made anew for each run, or kept in a file that one process at a time may use.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use libp2p::identity::Keypair;
use zeroize::Zeroizing;

use crate::private_file::is_exposed;

/// No identity file is anywhere near so long.
const MAX_FILE: u64 = 4096;

/// A key, and the lock on the file that it came from.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) keypair: Keypair,
    /// Locked as long as it is open.
    _file: Option<File>,
}

/// Why an identity file cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// Another process uses it now.
    #[error("the identity file `{}` is in use by another node: stop that one, or use another file", .path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// There is none.
    #[error("there is no identity file `{0}`: `multinodes start --identity {0}` makes one", .path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// It cannot be read or written.
    #[error("the identity file `{}` cannot be used: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It holds something else.
    #[error("`{}` is not an identity file of this program", .path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// Others than its owner may read it.
    #[error("the identity file `{0}` may be read by others than its owner: chmod 600 {0}", .path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
    },
}

impl Identity {
    /// A key that nobody has seen before and nobody will see again.
    pub(crate) fn ephemeral() -> Self {
        Self { keypair: Keypair::generate_ed25519(), _file: None }
    }

    /// A key that the user keeps.
    pub(crate) fn given(keypair: Keypair) -> Self {
        Self { keypair, _file: None }
    }

    /// Reads the key from a file, which is made if there is none, and locks the file.
    pub(crate) fn from_file(path: &Path) -> Result<Self, IdentityError> {
        let failed = |source| IdentityError::Io { path: path.to_owned(), source };
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(IdentityError::InUse { path: path.to_owned() }),
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        let size = file.metadata().map_err(failed)?.len();
        if size == 0 {
            let keypair = Keypair::generate_ed25519();
            let bytes = keypair.to_protobuf_encoding().map_err(|error| failed(io::Error::other(error)))?;
            file.write_all(&bytes).and_then(|()| file.sync_all()).map_err(failed)?;
            return Ok(Self { keypair, _file: Some(file) });
        }
        if is_exposed(&file).map_err(failed)? {
            return Err(IdentityError::Exposed { path: path.to_owned() });
        }
        let keypair = read_key(&mut file, path)?;
        Ok(Self { keypair, _file: Some(file) })
    }
}

/// Reads the key of an identity file, which a node may be using: to sign tickets with it.
///
/// # Errors
///
/// The file is not there, cannot be read, may be read by others than its owner, or holds something else.
pub fn read_identity(path: impl AsRef<Path>) -> Result<Keypair, IdentityError> {
    let path = path.as_ref();
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => IdentityError::Missing { path: path.to_owned() },
        _ => IdentityError::Io { path: path.to_owned(), source },
    };
    let mut file = File::open(path).map_err(failed)?;
    if is_exposed(&file).map_err(failed)? {
        return Err(IdentityError::Exposed { path: path.to_owned() });
    }
    read_key(&mut file, path)
}

fn read_key(file: &mut File, path: &Path) -> Result<Keypair, IdentityError> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_FILE as usize + 1));
    file.take(MAX_FILE + 1)
        .read_to_end(&mut bytes)
        .map_err(|source| IdentityError::Io { path: path.to_owned(), source })?;
    let foreign = || IdentityError::Foreign { path: path.to_owned() };
    if bytes.len() as u64 > MAX_FILE {
        return Err(foreign());
    }
    Keypair::from_protobuf_encoding(&bytes).map_err(|_| foreign())
}

/// Whose key is in a file, whether it is locked or not.
#[cfg(feature = "cli")]
pub(crate) fn peek(path: &Path) -> Option<libp2p::PeerId> {
    let keypair = read_key(&mut File::open(path).ok()?, path).ok()?;
    Some(keypair.public().to_peer_id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_gives_the_same_key_again_and_belongs_to_one_user_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("identity");
        let first = Identity::from_file(&path).unwrap();
        let error = Identity::from_file(&path).unwrap_err();
        assert!(matches!(error, IdentityError::InUse { .. }) && error.to_string().contains("identity"), "{error}");
        let public = first.keypair.public();
        drop(first);
        assert_eq!(Identity::from_file(&path).unwrap().keypair.public(), public);
    }

    #[test]
    fn a_foreign_or_missing_or_unreadable_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notes.txt");
        std::fs::write(&path, "not a key").unwrap();
        assert!(Identity::from_file(&path).is_err());
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let error = Identity::from_file(&path).unwrap_err();
            assert!(error.to_string().ends_with(&format!("chmod 600 {}", path.display())), "{error}");
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
            let made = folder.path().join("made");
            drop(Identity::from_file(&made).unwrap());
            assert_eq!(std::fs::metadata(&made).unwrap().permissions().mode() & 0o777, 0o600);
        }
        let error = Identity::from_file(&path).unwrap_err();
        assert_eq!(error.to_string(), format!("`{}` is not an identity file of this program", path.display()));
        let error = read_identity(folder.path().join("none")).unwrap_err();
        assert!(matches!(error, IdentityError::Missing { .. }), "{error:?}");
        let error = Identity::from_file(folder.path()).unwrap_err();
        assert!(matches!(error, IdentityError::Io { .. }), "{error:?}");
    }
}
