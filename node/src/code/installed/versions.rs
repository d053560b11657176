//! The highest version of each program that a publisher's signature has brought here: whoever has an older one, which is
//! signed as well, does not bring that back.

use std::{collections::BTreeMap, io, path::Path};

use libp2p::PeerId;
use multinodes_behaviour::codec;
use semver::Version;
use serde::{Deserialize, Serialize};

use crate::{
    code::{code_ref::CodeRef, reach::Behalf},
    core::Core,
    files,
};

/// In the folder with the code.
const FILE: &str = "versions.cbor";

/// As many programs as may be, with the longest names and versions, and some.
const MAX_FILE: usize = 8 * 1024 * 1024;

/// Publishers that are remembered: rules of the node name them.
const MAX_PUBLISHERS: usize = 128;

/// Programs of one publisher that are remembered. Nothing is forgotten to make room, or it could be brought back.
const MAX_NAMED: usize = 256;

/// The same of programs without a name of their own: those who install them choose the names, so that one publisher's
/// strangers must not use up what there is for others.
const MAX_UNNAMED: usize = 64;

/// What is remembered, by publisher.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Versions(BTreeMap<String, Programs>);

/// Of one publisher: the highest version of each.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Programs {
    /// By the name that is signed with the code.
    named: BTreeMap<String, String>,
    /// By that of the application, where the code has none.
    unnamed: BTreeMap<String, String>,
}

/// Why a program is not taken for its publisher's.
#[derive(Debug, PartialEq)]
pub(super) enum Stale {
    /// This version was here.
    Older(Version),
    /// There are so many programs of this publisher, or so many publishers.
    TooMany(usize),
}

impl Versions {
    /// Whether code is as new as what was here of the same publisher and name. `application` is its name here.
    pub(super) fn check(&self, publisher: &PeerId, code: &CodeRef, application: &str) -> Result<(), Stale> {
        let Some(programs) = self.0.get(&publisher.to_base58()) else {
            return if self.0.len() < MAX_PUBLISHERS { Ok(()) } else { Err(Stale::TooMany(MAX_PUBLISHERS)) };
        };
        let (known, name, most) = match code.name() {
            Some(name) => (&programs.named, name, MAX_NAMED),
            None => (&programs.unnamed, application, MAX_UNNAMED),
        };
        match (known.get(name).and_then(|highest| highest.parse().ok()), version(code)) {
            (Some(highest), given) if given.as_ref() < Some(&highest) => Err(Stale::Older(highest)),
            (None, Some(_)) if known.len() >= most => Err(Stale::TooMany(most)),
            _ => Ok(()),
        }
    }

    /// Remembers what is installed on somebody's behalf, if its publisher is one whose code anybody may bring: of others, and
    /// there can be any number, nothing could be brought back.
    pub(super) fn note(&mut self, core: &Core, code: &CodeRef, application: &str, behalf: &Behalf) {
        if let Some(publisher) = behalf.asker.publisher.filter(|by| core.workshop.policy.trusts_publisher(by)) {
            self.raise(&publisher, code, application);
        }
    }

    /// Remembers that it is here.
    pub(super) fn raise(&mut self, publisher: &PeerId, code: &CodeRef, application: &str) {
        let (Some(given), publisher) = (version(code), publisher.to_base58()) else { return };
        if self.0.len() >= MAX_PUBLISHERS && !self.0.contains_key(&publisher) {
            return;
        }
        let programs = self.0.entry(publisher).or_default();
        let (known, name, most) = match code.name() {
            Some(name) => (&mut programs.named, name, MAX_NAMED),
            None => (&mut programs.unnamed, application, MAX_UNNAMED),
        };
        let highest = known.get(name).and_then(|highest| highest.parse::<Version>().ok());
        let is_new = highest.is_none_or(|highest| highest < given);
        if is_new && (known.len() < most || known.contains_key(name)) {
            known.insert(name.to_owned(), given.to_string());
        }
    }
}

fn version(code: &CodeRef) -> Option<Version> {
    code.version().and_then(|version| version.parse().ok())
}

pub(super) fn write(folder: &Path, versions: &Versions) -> io::Result<()> {
    let path = folder.join(FILE);
    let bytes = codec::encode(versions).map_err(io::Error::other)?;
    if files::read_own(&path, MAX_FILE as u64).is_ok_and(|written| written == bytes) {
        return Ok(());
    }
    files::replace(&path, &[&bytes])
}

/// Puts a file aside that cannot be read, for people.
pub(super) fn set_aside(folder: &Path) -> io::Result<()> {
    std::fs::rename(folder.join(FILE), folder.join(format!("{FILE}.unreadable")))?;
    files::sync_folder(folder)
}

pub(super) fn read(folder: &Path) -> io::Result<Versions> {
    let path = folder.join(FILE);
    match files::read_own(&path, MAX_FILE as u64) {
        Ok(bytes) => {
            codec::decode(&bytes, MAX_FILE).map_err(|error| io::Error::other(format!("`{}`: {error}", path.display())))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Versions::default()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::code::{cid::Cid, code_ref::World};

    fn code(name: Option<&str>, version: Option<&str>) -> CodeRef {
        CodeRef {
            cid: Cid::of(b"code"),
            size: 4,
            world: World::Application,
            name: name.map(str::to_owned),
            version: version.map(str::to_owned),
            publisher: None,
            signature: None,
        }
    }

    #[test]
    fn what_is_older_than_the_highest_version_of_its_name_is_stale_under_any_application() {
        let (publisher, other) = (PeerId::random(), PeerId::random());
        let mut versions = Versions::default();
        versions.raise(&publisher, &code(Some("counter"), Some("1.10.0")), "one");
        versions.raise(&publisher, &code(Some("counter"), Some("1.9.0")), "one");
        let highest = Stale::Older("1.10.0".parse().unwrap());
        for older in [Some("1.9.0"), Some("1.10.0-rc.1"), None] {
            let older = code(Some("counter"), older);
            assert_eq!(versions.check(&publisher, &older, "two").unwrap_err(), highest);
            versions.check(&other, &older, "two").unwrap();
        }
        for version in ["1.10.0", "2.0.0"] {
            versions.check(&publisher, &code(Some("counter"), Some(version)), "two").unwrap();
        }
        versions.check(&publisher, &code(Some("clock"), Some("0.1.0")), "one").unwrap();
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(read(folder.path()).unwrap(), Versions::default());
        write(folder.path(), &versions).unwrap();
        assert_eq!(read(folder.path()).unwrap(), versions);
    }

    #[test]
    fn names_that_strangers_choose_use_up_nothing_and_push_nothing_out() {
        let publisher = PeerId::random();
        let mut versions = Versions::default();
        versions.raise(&publisher, &code(None, Some("2.0.0")), "first");
        for number in 0..2 * MAX_UNNAMED {
            versions.raise(&publisher, &code(None, Some("1.0.0")), &number.to_string());
        }
        assert!(matches!(versions.check(&publisher, &code(None, Some("1.0.0")), "first"), Err(Stale::Older(_))));
        let full = versions.check(&publisher, &code(None, Some("1.0.0")), "another").unwrap_err();
        assert_eq!(full, Stale::TooMany(MAX_UNNAMED));
        versions.check(&publisher, &code(Some("counter"), Some("1.0.0")), "another").unwrap();
    }

    #[test]
    fn all_that_may_be_remembered_fits_the_file() {
        let mut versions = Versions::default();
        let version = format!("1.2.3-{}", "x".repeat(58));
        for publisher in (0..2 * MAX_PUBLISHERS).map(|_| PeerId::random()) {
            for number in 0..MAX_NAMED {
                versions.raise(&publisher, &code(Some(&format!("{number:064}")), Some(&version)), "any");
            }
            for number in 0..MAX_UNNAMED {
                versions.raise(&publisher, &code(None, Some(&version)), &format!("{number:0128}"));
            }
        }
        assert_eq!(versions.0.len(), MAX_PUBLISHERS);
        assert!(codec::encode(&versions).unwrap().len() <= MAX_FILE);
    }
}
