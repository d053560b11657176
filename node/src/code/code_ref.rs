//! What is told of code without sending it.

use std::fmt;

use libp2p::{
    PeerId,
    identity::{Keypair, PublicKey},
};
use multinodes_behaviour::names;
use serde::{Deserialize, Serialize};

use super::{cid::Cid, code_error::CodeError};

/// The longest name of code, and the longest version, in bytes.
pub const MAX_CODE_NAME: usize = 64;

/// The longest key or signature that is looked at, in bytes: Ed25519 has 36 and 64.
const MAX_SIGNATURE: usize = 1024;

/// What a signature is about, so that it cannot be taken for one of something else.
const DOMAIN: &str = "multinodes-code-v1";

/// What code is for: the two worlds of `wit/node.wit`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum World {
    /// It runs once and gives a result.
    Task,
    /// It stays on a node under a name, and is called and told like any other application.
    Application,
}

impl fmt::Display for World {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Task => "a task",
            Self::Application => "an application",
        })
    }
}

/// What is told of code: its hash, what it is for, and who published it. It travels instead of the bytes.
///
/// Nothing in it is proven but what the hash proves, and the publisher once [`verify`](Self::verify) has said so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Raw")]
pub struct CodeRef {
    pub(crate) cid: Cid,
    pub(crate) size: u64,
    pub(crate) world: World,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) publisher: Option<serde_bytes::ByteBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) signature: Option<serde_bytes::ByteBuf>,
}

impl CodeRef {
    /// The hash of the bytes.
    #[must_use]
    pub fn cid(&self) -> Cid {
        self.cid
    }

    /// How many bytes it has.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// What it is for.
    #[must_use]
    pub fn world(&self) -> World {
        self.world
    }

    /// What its publisher calls it.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Which version it is, such as `1.2.3`.
    #[must_use]
    pub fn version(&self) -> Option<&str> {
        self.version.as_deref()
    }

    /// Who has published it, if its signature says so; `None` if it has no signature.
    ///
    /// # Errors
    ///
    /// [`CodeError::BadSignature`].
    pub fn verify(&self) -> Result<Option<PeerId>, CodeError> {
        let (publisher, signature) = match (&self.publisher, &self.signature) {
            (None, None) => return Ok(None),
            (Some(publisher), Some(signature)) => (publisher, signature),
            _ => return Err(CodeError::BadSignature),
        };
        let key = PublicKey::try_decode_protobuf(publisher).map_err(|_| CodeError::BadSignature)?;
        let valid = key.verify(&self.signed(), signature);
        if valid { Ok(Some(key.to_peer_id())) } else { Err(CodeError::BadSignature) }
    }

    /// Signs all of it.
    pub(crate) fn sign(&mut self, keypair: &Keypair) -> Result<(), CodeError> {
        let signature = keypair.sign(&self.signed());
        let signature = signature.map_err(|error| CodeError::Unsigned { reason: error.to_string() })?;
        self.publisher = Some(keypair.public().encode_protobuf().into());
        self.signature = Some(signature.into());
        Ok(())
    }

    pub(crate) fn check(&self) -> Result<(), CodeError> {
        if let Some(name) = self.name.as_ref().filter(|name| !is_name(name)) {
            return Err(CodeError::Name { name: name.chars().take(MAX_CODE_NAME).collect() });
        }
        let is_version = |version: &str| version.len() <= MAX_CODE_NAME && semver::Version::parse(version).is_ok();
        if let Some(version) = self.version.as_ref().filter(|version| !is_version(version)) {
            return Err(CodeError::Version { version: version.chars().take(MAX_CODE_NAME).collect() });
        }
        let lengths = [&self.publisher, &self.signature].map(|bytes| bytes.as_ref().map_or(0, |bytes| bytes.len()));
        if lengths.into_iter().any(|length| length > MAX_SIGNATURE) { Err(CodeError::BadSignature) } else { Ok(()) }
    }

    /// What a signature covers, as CBOR.
    fn signed(&self) -> Vec<u8> {
        let Self { cid, size, world, name, version, .. } = self;
        // Plain values into memory: there is nothing in it that could fail.
        serde_cbor::to_vec(&(DOMAIN, cid, size, world, name, version)).unwrap_or_default()
    }
}

fn is_name(name: &str) -> bool {
    names::check("code", name, MAX_CODE_NAME).is_ok()
}

/// As it comes from another node.
#[derive(Deserialize)]
struct Raw {
    cid: Cid,
    size: u64,
    world: World,
    name: Option<String>,
    version: Option<String>,
    publisher: Option<serde_bytes::ByteBuf>,
    signature: Option<serde_bytes::ByteBuf>,
}

impl TryFrom<Raw> for CodeRef {
    type Error = CodeError;

    fn try_from(raw: Raw) -> Result<Self, CodeError> {
        let Raw { cid, size, world, name, version, publisher, signature } = raw;
        let code = Self { cid, size, world, name, version, publisher, signature };
        code.check()?;
        Ok(code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code() -> CodeRef {
        let (name, version) = (Some("collatz".to_owned()), Some("1.2.3".to_owned()));
        let cid = Cid::of(b"code");
        CodeRef { cid, size: 4, world: World::Task, name, version, publisher: None, signature: None }
    }

    #[test]
    fn a_signature_says_who_published_it_and_covers_all_of_it() {
        let keypair = Keypair::generate_ed25519();
        let mut signed = code();
        assert_eq!(signed.verify(), Ok(None));
        signed.sign(&keypair).unwrap();
        let back: CodeRef = serde_cbor::from_slice(&serde_cbor::to_vec(&signed).unwrap()).unwrap();
        assert_eq!(back.verify(), Ok(Some(keypair.public().to_peer_id())));
        let changes: [fn(&mut CodeRef); 7] = [
            |code| code.cid = Cid::of(b"other"),
            |code| code.size = 5,
            |code| code.world = World::Application,
            |code| code.name = None,
            |code| code.version = Some("1.2.4".to_owned()),
            |code| code.publisher = Some(Keypair::generate_ed25519().public().encode_protobuf().into()),
            |code| code.signature = None,
        ];
        for change in changes {
            let mut changed = signed.clone();
            change(&mut changed);
            assert_eq!(changed.verify(), Err(CodeError::BadSignature), "{changed:?}");
        }
    }

    #[test]
    fn what_comes_from_elsewhere_is_checked_as_it_is_read() {
        let read = |code: &CodeRef| serde_cbor::from_slice::<CodeRef>(&serde_cbor::to_vec(code).unwrap());
        assert_eq!(read(&code()).unwrap(), code());
        assert!(read(&CodeRef { name: Some("a\nb".into()), ..code() }).is_err());
        assert!(read(&CodeRef { name: Some("a".repeat(65)), ..code() }).is_err());
        assert!(read(&CodeRef { version: Some("newest".into()), ..code() }).is_err());
        assert!(read(&CodeRef { signature: Some(vec![0; 1025].into()), ..code() }).is_err());
    }
}
