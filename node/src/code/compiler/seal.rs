//! The seal on compiled code: who cannot read the node's key cannot make one, and one fits a single piece of code.

use std::{fmt, io, path::Path};

use hmac::{Hmac, KeyInit, Mac};
use libp2p::identity::Keypair;
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::{
    code::cid::Cid,
    files,
    private_file::{self, PrivateFileError},
};

/// The length of a seal, and of a key, in bytes.
pub(super) const LENGTH: usize = 32;

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
    pub(super) fn seal(&self, sealed: &Sealed<'_>) -> [u8; LENGTH] {
        self.mac(sealed).finalize().into_bytes().into()
    }

    /// Whether it is the seal of that, in a time that says nothing of where it differs.
    pub(super) fn fits(&self, seal: &[u8], sealed: &Sealed<'_>) -> bool {
        self.mac(sealed).verify_slice(seal).is_ok()
    }

    fn mac(&self, sealed: &Sealed<'_>) -> Hmac<Sha256> {
        let Sealed { engine, cid, known, native } = *sealed;
        let mut mac: Hmac<Sha256> = Hmac::new_from_slice(&*self.0).expect("a key of any length will do");
        for part in [FORM, engine.as_bytes(), &cid.to_bytes(), known, native] {
            // Each with its length: nothing can move from one into the next.
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part);
        }
        mac
    }
}

/// What a seal is on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sealed<'a> {
    pub(super) engine: &'a str,
    pub(super) cid: &'a Cid,
    pub(super) known: &'a [u8],
    pub(super) native: &'a [u8],
}

impl fmt::Debug for SealKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("SealKey")
    }
}

fn read(path: &Path) -> Result<SealKey, PrivateFileError> {
    let bytes = private_file::read_own(path, LENGTH as u64)?;
    let key = bytes.as_slice().try_into().map_err(|_| PrivateFileError::Io {
        path: path.to_owned(),
        source: io::Error::new(io::ErrorKind::InvalidData, "it is damaged"),
    })?;
    Ok(SealKey(Zeroizing::new(key)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seal_is_the_same_as_that_of_another_implementation() {
        let key = SealKey(Zeroizing::new([7; LENGTH]));
        let cid = Cid::of(b"code");
        let seal = key.seal(&Sealed { engine: "engine", cid: &cid, known: b"known", native: b"native" });
        let text: String = seal.map(|byte| format!("{byte:02x}")).concat();
        assert_eq!(text, "24e7c398f74ef2913229944b881244f88ba043631a6feb0f4855d85f0674bc46");
    }

    #[test]
    fn a_seal_fits_one_key_one_engine_and_one_piece_of_code() {
        let [key, other] = [(); 2].map(|()| SealKey::of_identity(&Keypair::generate_ed25519()).unwrap());
        let (cid, another) = (Cid::of(b"code"), Cid::of(b"edoc"));
        let sealed = Sealed { engine: "engine", cid: &cid, known: b"known", native: b"native" };
        let seal = key.seal(&sealed);
        assert!(key.fits(&seal, &sealed));
        assert!(!other.fits(&seal, &sealed) && !key.fits(&seal[1..], &sealed) && !key.fits(&[], &sealed));
        for changed in [
            Sealed { engine: "engines", ..sealed },
            Sealed { cid: &another, ..sealed },
            Sealed { known: b"knownn", native: b"ative", ..sealed },
        ] {
            assert!(!key.fits(&seal, &changed));
        }
    }

    #[test]
    fn a_key_beside_the_code_stays_unless_others_could_read_it() {
        let folder = tempfile::tempdir().unwrap();
        let cid = Cid::of(b"");
        let sealed = Sealed { engine: "", cid: &cid, known: b"", native: b"" };
        let seal = || SealKey::in_folder(folder.path()).unwrap().seal(&sealed);
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
