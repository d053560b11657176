//! The seal on compiled code: who cannot read the node's key cannot make one, and one fits a single piece of code.

use std::{fmt, io, path::Path};

use libp2p::identity::Keypair;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::{
    code::cid::Cid,
    files,
    private_file::{self, PrivateFileError},
};

/// The length of a seal, and of a key, in bytes.
pub(super) const LENGTH: usize = 32;

/// The block of SHA-256, in bytes.
const BLOCK: usize = 64;

/// Part of the seal, so that a file of another form has none.
const FORM: &[u8] = b"multinodes-compiled-4";

/// What a key is derived for, so that it is of no use for anything else.
const DOMAIN: &[u8] = b"multinodes-compiled-code";

/// Where the key is that no identity gives, beside what it seals.
const FILE: &str = "seal.key";

/// By which a node knows what it has compiled.
#[derive(Clone)]
pub(crate) struct SealKey(Zeroizing<[u8; LENGTH]>);

impl SealKey {
    /// The key of a node whose identity is kept. Not all kinds of keys have one.
    pub(crate) fn of_identity(keypair: &Keypair) -> Option<Self> {
        keypair.derive_secret(DOMAIN).map(|key| Self(Zeroizing::new(key)))
    }

    /// The key that lies in a folder, which is this user's own; made if there is none. One that others could read or have
    /// put there, or that is damaged, is replaced: what was sealed with it is compiled anew.
    pub(super) fn in_folder(folder: &Path) -> io::Result<Self> {
        let path = folder.join(FILE);
        match read(&path) {
            Ok(key) => return Ok(key),
            Err(PrivateFileError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(%error, "the key of compiled code is replaced, and code is compiled anew"),
        }
        let key = Self(Zeroizing::new(rand::random()));
        files::replace(&path, &[&*key.0])?;
        // Somebody may have been faster.
        read(&path).map_err(io::Error::other)
    }

    /// The seal of machine code, and of what is known of the code that it was made of: HMAC-SHA256.
    pub(super) fn seal(&self, engine: &str, cid: &Cid, known: &[u8], native: &[u8]) -> [u8; LENGTH] {
        let cid = cid.to_bytes();
        let parts = [FORM, engine.as_bytes(), &cid, known, native];
        // Each with its length: nothing can move from one into the next.
        let lengths = parts.map(|part| (part.len() as u64).to_be_bytes());
        let all = lengths.iter().zip(parts).flat_map(|(length, part)| [&length[..], part]);
        hmac(&self.0, all)
    }
}

impl fmt::Debug for SealKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("SealKey")
    }
}

/// Whether two seals are the same, in a time that says nothing of where they differ.
pub(super) fn is_same(one: &[u8], other: &[u8; LENGTH]) -> bool {
    one.len() == LENGTH && one.iter().zip(other).fold(0, |differ, (one, other)| differ | (one ^ other)) == 0
}

fn read(path: &Path) -> Result<SealKey, PrivateFileError> {
    let bytes = private_file::read_own(path, LENGTH as u64)?;
    let key = bytes.as_slice().try_into().map_err(|_| PrivateFileError::Io {
        path: path.to_owned(),
        source: io::Error::new(io::ErrorKind::InvalidData, "it is damaged"),
    })?;
    Ok(SealKey(Zeroizing::new(key)))
}

/// RFC 2104 with a key that is shorter than a block.
fn hmac<'a>(key: &[u8; LENGTH], parts: impl Iterator<Item = &'a [u8]>) -> [u8; LENGTH] {
    let padded = |pad: u8| {
        let mut block = Zeroizing::new([pad; BLOCK]);
        block.iter_mut().zip(key).for_each(|(byte, key)| *byte ^= key);
        Sha256::new().chain_update(block.as_slice())
    };
    let inner = parts.fold(padded(0x36), |hash, part| hash.chain_update(part)).finalize();
    padded(0x5c).chain_update(inner).finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keyed_hash_is_the_one_of_rfc_4231() {
        // Test case 1: 20 bytes of 0x0b, which are padded with zeros as any key is.
        let mut key = [0; LENGTH];
        key[..20].fill(0x0b);
        let text: String = hmac(&key, [&b"Hi "[..], b"There"].into_iter()).map(|byte| format!("{byte:02x}")).concat();
        assert_eq!(text, "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7");
    }

    #[test]
    fn a_seal_fits_one_key_one_engine_and_one_piece_of_code() {
        let [key, other] = [(); 2].map(|()| SealKey::of_identity(&Keypair::generate_ed25519()).unwrap());
        let seal = key.seal("engine", &Cid::of(b"code"), b"known", b"native");
        assert!(is_same(&seal, &key.seal("engine", &Cid::of(b"code"), b"known", b"native")));
        for changed in [
            other.seal("engine", &Cid::of(b"code"), b"known", b"native"),
            key.seal("engines", &Cid::of(b"code"), b"known", b"native"),
            key.seal("engine", &Cid::of(b"edoc"), b"known", b"native"),
            key.seal("engine", &Cid::of(b"code"), b"knownn", b"ative"),
        ] {
            assert!(!is_same(&seal, &changed));
        }
        assert!(!is_same(&seal[1..], &seal));
    }

    #[test]
    fn a_key_beside_the_code_stays_unless_others_could_read_it() {
        let folder = tempfile::tempdir().unwrap();
        let seal = || SealKey::in_folder(folder.path()).unwrap().seal("", &Cid::of(b""), b"", b"");
        let first = seal();
        assert_eq!(first, seal());
        let file = folder.path().join(FILE);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
            std::fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).unwrap();
            assert_ne!(first, seal());
        }
        let second = seal();
        std::fs::write(&file, "short").unwrap();
        assert_ne!(second, seal());
    }
}
