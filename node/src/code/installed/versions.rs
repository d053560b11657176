//! The highest version of each program that a publisher's signature has brought here: whoever has an older one, which is
//! signed as well, does not bring that back.

use std::{collections::BTreeMap, io, path::Path};

use libp2p::PeerId;
use semver::Version;
use serde::{Deserialize, Serialize};

use super::file;
use crate::{
    code::{code_ref::CodeRef, reach::Behalf},
    core::Core,
};

/// In the folder with the code.
const FILE: &str = "versions.cbor";

/// Publishers that are remembered: rules of the node name them.
const MAX_PUBLISHERS: usize = 128;

/// Programs of one publisher that are remembered. Nothing is forgotten to make room, or it could be brought back.
const MAX_NAMED: usize = 256;

/// What is remembered, by publisher.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Versions(BTreeMap<String, Programs>);

/// Of one publisher: the highest version of each.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Programs {
    /// By the name that is signed with the code.
    named: BTreeMap<String, String>,
    /// Of all code that is signed without a name: nothing else that is signed tells one such program from another, and the
    /// application's name is chosen by whoever installs it. A place for each of those could be used up by anybody, and would
    /// let an older version in under a new one.
    unnamed: Option<String>,
}

impl Programs {
    /// The highest version of the program that the code is of.
    fn highest(&self, code: &CodeRef) -> Option<Version> {
        let highest = code.name().map_or(self.unnamed.as_ref(), |name| self.named.get(name));
        highest.and_then(|highest| highest.parse().ok())
    }

    /// Whether there is a place for what is remembered of the program.
    fn has_room(&self, code: &CodeRef) -> bool {
        code.name().is_none_or(|name| self.named.len() < MAX_NAMED || self.named.contains_key(name))
    }

    fn remember(&mut self, code: &CodeRef, highest: String) {
        match code.name() {
            Some(name) => _ = self.named.insert(name.to_owned(), highest),
            None => self.unnamed = Some(highest),
        }
    }
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
    /// Whether code is as new as what was here of the same publisher and name.
    pub(super) fn check(&self, publisher: &PeerId, code: &CodeRef) -> Result<(), Stale> {
        let Some(programs) = self.0.get(&publisher.to_base58()) else {
            return if self.0.len() < MAX_PUBLISHERS { Ok(()) } else { Err(Stale::TooMany(MAX_PUBLISHERS)) };
        };
        match (programs.highest(code), version(code)) {
            (Some(highest), given) if given.as_ref() < Some(&highest) => Err(Stale::Older(highest)),
            (None, Some(_)) if !programs.has_room(code) => Err(Stale::TooMany(MAX_NAMED)),
            _ => Ok(()),
        }
    }

    /// Remembers what is installed on somebody's behalf, if its publisher is one whose code anybody may bring: of others, and
    /// there can be any number, nothing could be brought back.
    pub(super) fn note(&mut self, core: &Core, code: &CodeRef, behalf: &Behalf) {
        if let Some(publisher) = behalf.asker.publisher.filter(|by| core.workshop.policy.trusts_publisher(by)) {
            self.raise(&publisher, code);
        }
    }

    /// Remembers that it is here.
    pub(super) fn raise(&mut self, publisher: &PeerId, code: &CodeRef) {
        let (Some(given), publisher) = (version(code), publisher.to_base58()) else { return };
        if self.0.len() >= MAX_PUBLISHERS && !self.0.contains_key(&publisher) {
            return;
        }
        let programs = self.0.entry(publisher).or_default();
        let is_new = programs.highest(code).is_none_or(|highest| highest < given);
        if is_new && programs.has_room(code) {
            programs.remember(code, given.to_string());
        }
    }
}

fn version(code: &CodeRef) -> Option<Version> {
    code.version().and_then(|version| version.parse().ok())
}

pub(super) fn write(folder: &Path, versions: &Versions) -> io::Result<()> {
    file::write(folder, FILE, versions)
}

/// What was remembered when the node ran last. A file that is damaged is put aside.
///
/// # Errors
///
/// The file cannot be read now.
pub(super) fn load(folder: &Path) -> io::Result<Versions> {
    file::read_or_set_aside(folder, FILE)
}

#[cfg(test)]
mod tests {
    use multinodes_behaviour::codec;

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
    fn what_is_older_than_the_highest_version_of_its_name_is_stale() {
        let (publisher, other) = (PeerId::random(), PeerId::random());
        let mut versions = Versions::default();
        versions.raise(&publisher, &code(Some("counter"), Some("1.10.0")));
        versions.raise(&publisher, &code(Some("counter"), Some("1.9.0")));
        let highest = Stale::Older("1.10.0".parse().unwrap());
        for older in [Some("1.9.0"), Some("1.10.0-rc.1"), None] {
            let older = code(Some("counter"), older);
            assert_eq!(versions.check(&publisher, &older).unwrap_err(), highest);
            versions.check(&other, &older).unwrap();
        }
        for version in ["1.10.0", "2.0.0"] {
            versions.check(&publisher, &code(Some("counter"), Some(version))).unwrap();
        }
        versions.check(&publisher, &code(Some("clock"), Some("0.1.0"))).unwrap();
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(load(folder.path()).unwrap(), Versions::default());
        write(folder.path(), &versions).unwrap();
        assert_eq!(load(folder.path()).unwrap(), versions);
    }

    #[test]
    fn all_code_of_a_publisher_that_is_signed_without_a_name_is_one_program_and_takes_one_place() {
        let publisher = PeerId::random();
        let mut versions = Versions::default();
        for version in ["1.0.0", "2.0.0", "1.5.0"] {
            versions.raise(&publisher, &code(None, Some(version)));
        }
        let highest = Stale::Older("2.0.0".parse().unwrap());
        for older in [Some("1.0.0"), None] {
            assert_eq!(versions.check(&publisher, &code(None, older)).unwrap_err(), highest);
        }
        versions.check(&publisher, &code(None, Some("2.0.0"))).unwrap();
        // That all places for names are taken, which only the publisher can bring about, is nothing to it.
        for number in 0..2 * MAX_NAMED {
            versions.raise(&publisher, &code(Some(&number.to_string()), Some("1.0.0")));
        }
        let full = versions.check(&publisher, &code(Some("another"), Some("1.0.0"))).unwrap_err();
        assert_eq!(full, Stale::TooMany(MAX_NAMED));
        versions.check(&publisher, &code(None, Some("3.0.0"))).unwrap();
        versions.raise(&publisher, &code(None, Some("3.0.0")));
        assert!(matches!(versions.check(&publisher, &code(None, Some("2.0.0"))), Err(Stale::Older(_))));
    }

    #[test]
    fn all_that_may_be_remembered_fits_the_file() {
        let mut versions = Versions::default();
        let version = format!("1.2.3-{}", "x".repeat(58));
        for publisher in (0..2 * MAX_PUBLISHERS).map(|_| PeerId::random()) {
            for number in 0..MAX_NAMED {
                versions.raise(&publisher, &code(Some(&format!("{number:064}")), Some(&version)));
            }
            versions.raise(&publisher, &code(None, Some(&version)));
        }
        assert_eq!(versions.0.len(), MAX_PUBLISHERS);
        assert!(codec::encode(&versions).unwrap().len() <= file::MAX_FILE);
    }
}
