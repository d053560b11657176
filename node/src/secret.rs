//! The secret of a private swarm: who has it belongs to the swarm, and nobody else sees anything of it.

use std::{fmt, path::Path};

use data_encoding::BASE64URL_NOPAD;
use multinodes_behaviour::{NameError, Privacy, SwarmName, privacy};
use zeroize::{Zeroize, Zeroizing};

use crate::private_file::{self, PrivateFileError};

/// What the text of a secret begins with, before its version.
const PREFIX: &str = "multinodes-secret-";

/// The only version so far.
const VERSION: &str = "1";

/// A file with one secret is far shorter.
const MAX_FILE: u64 = 1024;

/// The secret of a private swarm: 32 random bytes.
///
/// Nodes with one secret and one swarm name find each other as any nodes do; for whoever has not both they are closed
/// doors. It is never printed, and wiped from memory when the last copy is dropped.
///
/// ```
/// use multinodes::{Node, Secret};
///
/// let secret = Secret::generate();
/// let builder = Node::builder().swarm("garden").secret(secret);
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<[u8; privacy::SECRET]>);

impl Secret {
    /// Makes a new one.
    #[must_use]
    pub fn generate() -> Self {
        Self(Zeroizing::new(rand::random()))
    }

    /// Reads it from a file of one line, as [`create`](Self::create) makes it.
    ///
    /// # Errors
    ///
    /// The file cannot be read, may be read by others than its owner, or holds something else.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, SecretError> {
        let path = path.as_ref();
        let text = private_file::read(path, MAX_FILE)?;
        Self::parse(&text)
            .map_err(|error| SecretError::Content { path: path.display().to_string(), error: error.into() })
    }

    /// Reads its text: `multinodes-secret-1:` and 43 characters of base64url.
    ///
    /// # Errors
    ///
    /// The text is something else, or of a later version. It is not repeated in the error.
    pub fn parse(text: &str) -> Result<Self, SecretError> {
        let versioned = private_file::content(text).strip_prefix(PREFIX).ok_or(SecretError::Foreign)?;
        let (version, encoded) = versioned.split_once(':').ok_or(SecretError::Foreign)?;
        if version != VERSION {
            return Err(SecretError::Version);
        }
        let mut decoded = BASE64URL_NOPAD.decode(encoded.as_bytes()).map_err(|_| SecretError::Malformed)?;
        let secret = Self::from_bytes(&decoded).ok_or(SecretError::Malformed);
        decoded.zeroize();
        secret
    }

    /// Writes it into a new file that only its owner may read.
    ///
    /// # Errors
    ///
    /// The file is there already, or cannot be written.
    pub fn create(&self, path: impl AsRef<Path>) -> Result<(), SecretError> {
        Ok(private_file::create(path.as_ref(), &self.reveal())?)
    }

    /// Its text. Whoever sees it can join the swarm.
    #[must_use]
    pub fn reveal(&self) -> Zeroizing<String> {
        let encoded = Zeroizing::new(BASE64URL_NOPAD.encode(&*self.0));
        Zeroizing::new(format!("{PREFIX}{VERSION}:{}", *encoded))
    }

    /// What the private swarm of that name is called where strangers can look, such as in the names of folders: `+` and
    /// 32 hexadecimal digits. Neither the name nor the secret follows from it, and no open swarm can be called so.
    ///
    /// # Errors
    ///
    /// The name cannot be a swarm's.
    pub fn mark(&self, swarm: &str) -> Result<String, NameError> {
        Ok(self.privacy(&swarm.parse()?).mark().to_owned())
    }

    pub(crate) fn privacy(&self, swarm: &SwarmName) -> Privacy {
        Privacy::new(&self.0, swarm)
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &*self.0
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; privacy::SECRET] = bytes.try_into().ok()?;
        Some(Self(Zeroizing::new(*bytes)))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret(..)")
    }
}

/// Why there is no secret.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SecretError {
    /// The file is not used.
    #[error(transparent)]
    File(#[from] PrivateFileError),
    /// What is in the file is none.
    #[error("the file `{path}` holds no secret: {error}")]
    Content {
        /// The file.
        path: String,
        /// What is wrong with it.
        error: Box<SecretError>,
    },
    /// The text is something else.
    #[error("a secret begins with `{PREFIX}{VERSION}:`; the verb `secret new` of the command makes one")]
    Foreign,
    /// It is of a later version.
    #[error("this version of the software knows only secrets that begin with `{PREFIX}{VERSION}:`")]
    Version,
    /// It was cut or altered.
    #[error("the secret is cut or altered: 43 characters of base64url are expected after `{PREFIX}{VERSION}:`")]
    Malformed,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_the_same_after_it_was_written_and_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        let secret = Secret::generate();
        assert_ne!(secret, Secret::generate());
        secret.create(&path).unwrap();
        assert_eq!(Secret::from_file(&path).unwrap(), secret);
        assert_eq!(Secret::parse(&secret.reveal()).unwrap(), secret);
        assert_eq!(secret.reveal().len(), PREFIX.len() + 2 + 43);
    }

    #[test]
    fn what_is_no_secret_is_refused_and_not_repeated() {
        let text = Secret::generate().reveal();
        let wrong = [
            (&text[..text.len() - 1], "cut or altered"),
            (&*format!("{}A", *text), "cut or altered"),
            (&*text.replace(':', ":!"), "cut or altered"),
            (&*text.replace("-1:", "-2:"), "knows only"),
            ("hunter2", "begins with"),
            ("", "begins with"),
        ];
        for (wrong, reason) in wrong {
            let error = Secret::parse(wrong).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
            assert!(
                !error.contains(&text[PREFIX.len() + 2..PREFIX.len() + 10]) && !error.contains("hunter2"),
                "{error}"
            );
        }
    }

    #[test]
    fn a_secret_is_not_printed() {
        assert_eq!(format!("{:?}", Some(Secret::generate())), "Some(Secret(..))");
    }
}
