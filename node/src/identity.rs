//! The node's key: made anew for each run, or kept in a file that one process at a time may use.

use std::{
    fs::{File, Metadata, OpenOptions, TryLockError},
    io::{self, Read},
    path::{Path, PathBuf},
    time::SystemTime,
};

use libp2p::identity::Keypair;
use zeroize::Zeroizing;

use crate::{
    files::{self, Locked, Unfinished},
    private_file::{Exposure, exposure},
    quoting::quoted_path,
};

/// No identity file is anywhere near so long.
const MAX_FILE: u64 = 4096;

/// A key, and the lock on the file that it came from.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) keypair: Keypair,
    #[cfg_attr(not(feature = "wasm"), allow(dead_code, reason = "it is kept for its lock"))]
    file: Option<Locked>,
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
    #[error("there is no identity file `{}`: a node that is started with it makes one", .path.display())]
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
    /// It has nothing in it, and is not filled: a key that was lost would be another one without a word.
    #[error(
        "the identity file `{0}` is empty: put its key back from a copy, or remove the file, and a node that is started with it makes a new one with another peer id",
        .path.display()
    )]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// Others than its owner may read it.
    #[error("the identity file `{0}` may be read by others than its owner: chmod 600 {1}", .path.display(), quoted_path(.path))]
    Exposed {
        /// The file.
        path: PathBuf,
    },
    /// It belongs to another user.
    #[error(
        "the identity file `{}` belongs to another user, with the id {owner}, who may use or change its key: name a file of your own",
        .path.display()
    )]
    NotOwned {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
    },
}

impl Identity {
    /// A key that nobody has seen before and nobody will see again.
    pub(crate) fn ephemeral() -> Self {
        Self { keypair: Keypair::generate_ed25519(), file: None }
    }

    /// A key that the user keeps.
    pub(crate) fn given(keypair: Keypair) -> Self {
        Self { keypair, file: None }
    }

    /// Whether it is the same at the next start.
    #[cfg(feature = "wasm")]
    pub(crate) fn is_kept(&self) -> bool {
        self.file.is_some()
    }

    /// Reads the key from a file, which is made if there is none, and locks the file. Nothing is ever written into one that
    /// is there.
    pub(crate) fn from_file(path: &Path) -> Result<Self, IdentityError> {
        match Self::existing(path) {
            Err(IdentityError::Missing { .. }) => {}
            result => return result,
        }
        match Self::create(path) {
            // Somebody was faster.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => match Self::existing(path) {
                Err(IdentityError::Missing { .. }) => {
                    let text = "it is a link that leads nowhere: name the file itself";
                    Err(IdentityError::Io { path: path.to_owned(), source: io::Error::other(text) })
                }
                result => result,
            },
            result => result.map_err(|source| IdentityError::Io { path: path.to_owned(), source }),
        }
    }

    fn existing(path: &Path) -> Result<Self, IdentityError> {
        // Some systems lock only what is open for writing.
        let file = open(path, OpenOptions::new().read(true).write(true))?;
        let file = lock(file, path)?;
        let keypair = read_key(file.file(), path)?;
        Ok(Self { keypair, file: Some(file) })
    }

    /// Makes the file. It is there whole and locked, or not at all.
    fn create(path: &Path) -> io::Result<Self> {
        files::sweep(path.parent().unwrap_or(Path::new("")), SystemTime::now());
        let keypair = Keypair::generate_ed25519();
        let bytes = Zeroizing::new(keypair.to_protobuf_encoding().map_err(io::Error::other)?);
        let mut new = Unfinished::beside(path)?;
        new.file()?.try_lock()?;
        new.write(&[&bytes])?;
        let file = new.finish_new(path)?;
        Ok(Self { keypair, file: file.map(Locked::already) })
    }
}

/// Reads the key of an identity file, which a node may be using: to sign tickets with it.
///
/// # Errors
///
/// The file is not there, cannot be read, may be read by others than its owner, or holds something else.
pub fn read_identity(path: impl AsRef<Path>) -> Result<Keypair, IdentityError> {
    let path = path.as_ref();
    read_key(&open(path, OpenOptions::new().read(true))?, path)
}

/// Opens a file that is there, and looks whose it is before anything else. A link may lead to it.
fn open(path: &Path, options: &mut OpenOptions) -> Result<File, IdentityError> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => IdentityError::Missing { path: path.to_owned() },
        _ => IdentityError::Io { path: path.to_owned(), source },
    };
    let file = files::open_regular(path, options).map_err(failed)?;
    check(path, &file.metadata().map_err(failed)?)?;
    Ok(file)
}

fn check(path: &Path, metadata: &Metadata) -> Result<(), IdentityError> {
    match exposure(metadata) {
        Some(Exposure::Foreign(owner)) => Err(IdentityError::NotOwned { path: path.to_owned(), owner }),
        // Nothing in it is exposed, and its mode is not what has to be seen to.
        _ if metadata.len() == 0 => Err(IdentityError::Empty { path: path.to_owned() }),
        Some(Exposure::Open) => Err(IdentityError::Exposed { path: path.to_owned() }),
        None => Ok(()),
    }
}

fn lock(file: File, path: &Path) -> Result<Locked, IdentityError> {
    Locked::new(file).map_err(|error| match error {
        TryLockError::WouldBlock => IdentityError::InUse { path: path.to_owned() },
        TryLockError::Error(source) => IdentityError::Io { path: path.to_owned(), source },
    })
}

fn read_key(file: &File, path: &Path) -> Result<Keypair, IdentityError> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_FILE as usize + 1));
    let mut file = file;
    Read::take(&mut file, MAX_FILE + 1)
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
    Some(read_identity(path).ok()?.public().to_peer_id())
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

    #[cfg(unix)]
    #[test]
    fn no_key_is_written_into_anything_that_is_there() {
        use std::os::unix::fs::{PermissionsExt, chown, symlink};
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for (name, mode) in [("emptied", 0o600), ("open", 0o666)] {
            std::fs::write(at(name), []).unwrap();
            std::fs::set_permissions(at(name), PermissionsExt::from_mode(mode)).unwrap();
        }
        std::fs::write(at("theirs"), []).unwrap();
        symlink(at("emptied"), at("link")).unwrap();
        symlink(at("nowhere"), at("dangling")).unwrap();
        std::fs::hard_link(at("emptied"), at("second-name")).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(at("pipe")).status().unwrap().success());
        let error = Identity::from_file(&at("emptied")).unwrap_err().to_string();
        assert!(error.contains("is empty") && error.contains("remove the file"), "{error}");
        for name in ["open", "link", "second-name"] {
            assert!(matches!(Identity::from_file(&at(name)), Err(IdentityError::Empty { .. })));
        }
        assert!(matches!(Identity::from_file(&at("dangling")), Err(IdentityError::Io { .. })));
        assert!(matches!(Identity::from_file(&at("pipe")), Err(IdentityError::Io { .. })));
        if files::own_user_id() == 0 {
            chown(at("theirs"), Some(1000), None).unwrap();
            assert!(matches!(Identity::from_file(&at("theirs")), Err(IdentityError::NotOwned { owner: 1000, .. })));
        }
        for name in ["emptied", "open", "theirs"] {
            assert_eq!(at(name).metadata().unwrap().len(), 0, "{name}");
        }
        assert!(!at("nowhere").exists());
    }

    #[test]
    fn of_two_that_make_one_file_at_once_one_has_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("identity");
        let made: Vec<_> = std::thread::scope(|scope| {
            let all = [(); 8].map(|()| scope.spawn(|| Identity::from_file(&path)));
            all.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let (one, others): (Vec<_>, Vec<_>) = made.into_iter().partition(Result::is_ok);
        assert_eq!(one.len(), 1);
        assert!(others.iter().all(|other| matches!(other, Err(IdentityError::InUse { .. }))), "{others:?}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
