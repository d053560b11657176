//! How nodes of one user find each other on one host without any network: each leaves a note with its addresses in a
//! folder that only this user can write to.
//!
//! A note is a claim like any other address: who answers there proves its peer id, or is not taken for it.

#[cfg(feature = "cli")]
pub(crate) mod inspection;

use std::{
    ffi::OsStr,
    fs, io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use libp2p::{Multiaddr, PeerId};
use serde::{Deserialize, Serialize};

use crate::files::{self, FolderFault};

/// More notes than that are not read: each of them may cost a dial.
const MAX_NOTES: usize = 512;

/// A note is a few hundred bytes; whatever is far larger is none.
const MAX_NOTE: u64 = 16 * 1024;

/// The most addresses taken from one note.
const MAX_ADDRESSES: usize = 32;

/// A folder in which the nodes of one user and one swarm leave notes.
#[derive(Debug, Clone)]
pub(crate) struct Rendezvous {
    folder: PathBuf,
}

/// What a node leaves in the folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Note {
    /// Who.
    #[serde(with = "text")]
    pub(crate) peer_id: PeerId,
    /// The swarm, or the mark of a private one: a folder that a user names may be shared by several.
    pub(crate) swarm: String,
    /// The process. It means something only within one pid namespace.
    pub(crate) pid: u32,
    /// When the node started, in milliseconds since 1970.
    pub(crate) incarnation: u64,
    /// The token of its host, in hexadecimal.
    #[serde(default)]
    pub(crate) host: Option<String>,
    /// Where it can be dialled, loopback included, without its peer id.
    #[serde(with = "texts")]
    pub(crate) addresses: Vec<Multiaddr>,
}

impl Rendezvous {
    /// Uses `folder`, which is made if it is not there, private to this user.
    pub(crate) fn open(folder: &Path) -> Result<Self, RendezvousError> {
        let at = |source| RendezvousError::Io { folder: folder.to_owned(), source };
        if !folder.exists() {
            if let Some(parent) = folder.parent().filter(|parent| !parent.exists()) {
                make_private(parent).map_err(at)?;
            }
            make_private(folder).map_err(at)?;
        }
        check_private(folder)?;
        if let Some(parent) = folder.parent().filter(|parent| is_shared_default(parent)) {
            check_private(parent)?;
        }
        Ok(Self { folder: folder.to_owned() })
    }

    /// The folder.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Leaves or replaces this node's note. A reader sees the old one or the new one, never a part.
    pub(crate) fn publish(&self, note: &Note) -> io::Result<()> {
        files::replace_fleeting(&self.path(&note.peer_id), &[&serde_json::to_vec(note)?])
    }

    /// Whether this node's note is still there, as it was left.
    pub(crate) fn holds(&self, note: &Note) -> bool {
        read_note(&self.path(&note.peer_id)).is_some_and(|found| found == *note)
    }

    /// The notes in the folder, at most [`MAX_NOTES`] of them, the newest first. What cannot be read is left out.
    pub(crate) fn peers(&self) -> io::Result<Vec<Note>> {
        let mut found: Vec<(SystemTime, PathBuf)> = Vec::new();
        for entry in fs::read_dir(&self.folder)?.take(4 * MAX_NOTES) {
            let entry = entry?;
            let path = entry.path();
            if path.extension() == Some(OsStr::new("json")) {
                let modified = entry.metadata().and_then(|metadata| metadata.modified());
                found.push((modified.unwrap_or(SystemTime::UNIX_EPOCH), path));
            }
        }
        found.sort_by(|one, other| other.cmp(one));
        found.truncate(MAX_NOTES);
        Ok(found.iter().filter_map(|(_, path)| read_note(path)).collect())
    }

    /// Takes away what crashed nodes have left unfinished.
    pub(crate) fn sweep_unfinished(&self, now: SystemTime) {
        files::sweep(&self.folder, now);
    }

    /// Takes this node's note away.
    pub(crate) fn remove(&self, peer_id: &PeerId) {
        let _ = fs::remove_file(self.path(peer_id));
    }

    /// Takes away the note of a node that did not answer on any of its addresses, unless there is a new one by now.
    /// Only notes of `host` are judged: what is refused from here may well answer elsewhere.
    pub(crate) fn sweep(&self, note: &Note, host: Option<&str>) -> bool {
        let ours = host.is_some() && note.host.as_deref() == host;
        if !ours || !self.holds(note) {
            return false;
        }
        self.remove(&note.peer_id);
        true
    }

    fn path(&self, peer_id: &PeerId) -> PathBuf {
        self.folder.join(format!("{peer_id}.json"))
    }
}

/// The folder for the nodes of this user and the swarm with this name or mark: in `$XDG_RUNTIME_DIR`, else, or if that is
/// of no use, in the folder for temporary files.
pub(crate) fn default_folder(swarm: &str) -> PathBuf {
    folder_below(runtime().filter(|runtime| fault(runtime).is_none()), swarm)
}

/// That `$XDG_RUNTIME_DIR` is of no use, and what is used instead: nodes that are started without it, or with another one,
/// look elsewhere.
pub(crate) fn unusable_runtime() -> Option<String> {
    let runtime = runtime()?;
    let fault = fault(&runtime)?;
    let instead = shared_folder();
    let (runtime, instead) = (runtime.display(), instead.display());
    Some(format!("`{instead}` is used, as XDG_RUNTIME_DIR, `{runtime}`, {fault}"))
}

fn runtime() -> Option<PathBuf> {
    // Empty is as not set, by the specification.
    std::env::var_os("XDG_RUNTIME_DIR").filter(|runtime| !runtime.is_empty()).map(PathBuf::from)
}

/// Why a folder is none for this user's running programs.
fn fault(runtime: &Path) -> Option<&'static str> {
    if !runtime.is_absolute() {
        return Some("is not absolute");
    }
    if !runtime.is_dir() {
        return Some("is no folder");
    }
    #[cfg(unix)]
    if rustix::fs::access(runtime, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK).is_err() {
        return Some("cannot be written to");
    }
    None
}

fn folder_below(runtime: Option<PathBuf>, swarm: &str) -> PathBuf {
    match runtime {
        Some(runtime) => folder_in(&runtime, swarm),
        None => shared_folder().join(leaf(swarm)),
    }
}

fn shared_folder() -> PathBuf {
    std::env::temp_dir().join(format!("{SHARED_PREFIX}{}", user()))
}

/// The same below a folder that the user has named.
pub(crate) fn folder_in(runtime: &Path, swarm: &str) -> PathBuf {
    runtime.join("multinodes").join(leaf(swarm))
}

/// `.` and `..` are fine names for a swarm, but not for a folder.
fn leaf(swarm: &str) -> String {
    if swarm.starts_with('.') { format!("_{swarm}") } else { swarm.to_owned() }
}

const SHARED_PREFIX: &str = "multinodes-";

fn is_shared_default(folder: &Path) -> bool {
    folder.file_name().and_then(OsStr::to_str).is_some_and(|name| name.starts_with(SHARED_PREFIX))
}

#[cfg(unix)]
fn user() -> String {
    files::own_user_id().to_string()
}

#[cfg(not(unix))]
fn user() -> String {
    let name = std::env::var("USERNAME").unwrap_or_default();
    name.chars().filter(|letter| letter.is_alphanumeric()).collect()
}

fn check_private(folder: &Path) -> Result<(), RendezvousError> {
    match files::check_folder(folder) {
        Ok(_) => Ok(()),
        Err(FolderFault::NoFolder { path }) => Err(RendezvousError::NoFolder { folder: path }),
        Err(FolderFault::Foreign { path, .. } | FolderFault::Writable { path, .. }) => {
            Err(RendezvousError::Foreign { folder: path })
        }
        Err(FolderFault::Io { path, source }) => Err(RendezvousError::Io { folder: path, source }),
    }
}

#[cfg(unix)]
fn make_private(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

#[cfg(not(unix))]
fn make_private(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)
}

fn read_note(path: &Path) -> Option<Note> {
    let mut note: Note = serde_json::from_slice(&files::read_own(path, MAX_NOTE).ok()?).ok()?;
    note.addresses.truncate(MAX_ADDRESSES);
    let named = path.file_stem()?.to_str()? == note.peer_id.to_string();
    named.then_some(note)
}

/// Why the folder is not used. It is never fatal: other ways of finding remain.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum RendezvousError {
    /// It belongs to another user, or others can write to it.
    #[error("the rendezvous folder `{}` belongs to another user or can be written by others: remove it, or name another one", folder.display())]
    Foreign { folder: PathBuf },
    /// There is something else of that name.
    #[error("`{}` is no folder, so it cannot be the rendezvous", folder.display())]
    NoFolder { folder: PathBuf },
    /// The system refused.
    #[error("the rendezvous folder `{}` cannot be used: {source}", folder.display())]
    Io { folder: PathBuf, source: io::Error },
}

mod text {
    use libp2p::PeerId;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(peer_id: &PeerId, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(peer_id)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PeerId, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

mod texts {
    use libp2p::Multiaddr;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(addresses: &[Multiaddr], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(addresses.iter().map(ToString::to_string))
    }

    /// Addresses of a later version that are not understood here are left out.
    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Multiaddr>, D::Error> {
        let texts = Vec::<String>::deserialize(deserializer)?;
        Ok(texts.iter().filter_map(|text| text.parse().ok()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(incarnation: u64) -> Note {
        Note {
            peer_id: PeerId::random(),
            swarm: "default".to_owned(),
            pid: std::process::id(),
            incarnation,
            host: Some("ab".to_owned()),
            addresses: vec!["/ip4/127.0.0.1/tcp/4001".parse().unwrap()],
        }
    }

    #[test]
    fn a_note_is_found_until_it_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let rendezvous = Rendezvous::open(&folder.path().join("user").join("swarm")).unwrap();
        let note = note(1);
        assert_eq!(rendezvous.peers().unwrap(), []);
        rendezvous.publish(&note).unwrap();
        assert!(rendezvous.holds(&note));
        assert_eq!(rendezvous.peers().unwrap(), std::slice::from_ref(&note));
        let newer = Note { incarnation: 2, ..note.clone() };
        rendezvous.publish(&newer).unwrap();
        assert!(!rendezvous.holds(&note));
        assert_eq!(rendezvous.peers().unwrap(), std::slice::from_ref(&newer));
        rendezvous.remove(&note.peer_id);
        assert_eq!(rendezvous.peers().unwrap(), []);
        assert_eq!(fs::read_dir(rendezvous.folder()).unwrap().count(), 0);
    }

    #[test]
    fn whatever_is_no_note_is_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let rendezvous = Rendezvous::open(&folder.path().join("swarm")).unwrap();
        let valid = note(1);
        rendezvous.publish(&valid).unwrap();
        let at = |name: &str| rendezvous.folder().join(name);
        fs::write(at("garbage.json"), b"\xff{").unwrap();
        fs::write(at("other.txt"), b"text").unwrap();
        fs::write(at("huge.json"), vec![b' '; 100_000]).unwrap();
        fs::create_dir(at("folder.json")).unwrap();
        #[cfg(unix)]
        std::os::unix::fs::symlink("/dev/zero", at("endless.json")).unwrap();
        fs::write(at(&format!("{}.json", PeerId::random())), serde_json::to_vec(&valid).unwrap()).unwrap();
        assert_eq!(rendezvous.peers().unwrap(), [valid]);
    }

    #[test]
    fn only_the_same_stale_note_of_this_host_is_swept() {
        let folder = tempfile::tempdir().unwrap();
        let rendezvous = Rendezvous::open(&folder.path().join("swarm")).unwrap();
        let stale = note(1);
        rendezvous.publish(&stale).unwrap();
        assert!(!rendezvous.sweep(&stale, Some("cd")), "a note of another host");
        assert!(!rendezvous.sweep(&stale, None), "a host without token");
        rendezvous.publish(&Note { incarnation: 2, ..stale.clone() }).unwrap();
        assert!(!rendezvous.sweep(&stale, Some("ab")), "a new life");
        rendezvous.publish(&stale).unwrap();
        assert!(rendezvous.sweep(&stale, Some("ab")));
        assert_eq!(rendezvous.peers().unwrap(), []);
    }

    #[test]
    fn what_a_crash_has_left_unfinished_is_swept_after_a_minute() {
        let folder = tempfile::tempdir().unwrap();
        let rendezvous = Rendezvous::open(&folder.path().join("swarm")).unwrap();
        let finished = note(1);
        rendezvous.publish(&finished).unwrap();
        std::mem::forget(files::Unfinished::within(rendezvous.folder()).unwrap());
        fs::write(rendezvous.folder().join(".hidden.1"), b"").unwrap();
        let names = || fs::read_dir(rendezvous.folder()).unwrap().count();
        rendezvous.sweep_unfinished(SystemTime::now());
        assert_eq!(names(), 3, "it may be under way");
        rendezvous.sweep_unfinished(SystemTime::now() + std::time::Duration::from_secs(120));
        assert_eq!(names(), 2);
        assert!(rendezvous.holds(&finished));
    }

    #[test]
    fn many_notes_are_not_all_read() {
        let folder = tempfile::tempdir().unwrap();
        let rendezvous = Rendezvous::open(&folder.path().join("swarm")).unwrap();
        for incarnation in 0..MAX_NOTES as u64 + 10 {
            rendezvous.publish(&note(incarnation)).unwrap();
        }
        assert_eq!(rendezvous.peers().unwrap().len(), MAX_NOTES);
    }

    #[cfg(unix)]
    #[test]
    fn a_folder_that_others_can_write_to_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let open = folder.path().join("open");
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(Rendezvous::open(&open), Err(RendezvousError::Foreign { .. })));
        let file = folder.path().join("file");
        fs::write(&file, b"").unwrap();
        assert!(matches!(Rendezvous::open(&file), Err(RendezvousError::NoFolder { .. })));
        assert!(matches!(Rendezvous::open(&file.join("below")), Err(RendezvousError::Io { .. })));
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&open, &link).unwrap();
        assert!(Rendezvous::open(&link).is_err());
    }

    #[cfg(unix)]
    #[test]
    fn notes_and_folders_are_private_to_the_user() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let rendezvous = Rendezvous::open(&folder.path().join("swarm")).unwrap();
        let note = note(1);
        rendezvous.publish(&note).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(rendezvous.folder()), 0o700);
        assert_eq!(mode(&rendezvous.path(&note.peer_id)), 0o600);
    }

    #[test]
    fn a_swarms_name_never_leads_out_of_the_folder() {
        let runtime = Some(PathBuf::from("/run/user/1"));
        let folder = |name: &str| folder_below(runtime.clone(), name);
        assert_eq!(folder("default"), Path::new("/run/user/1/multinodes/default"));
        assert_eq!(folder(".."), Path::new("/run/user/1/multinodes/_.."));
        let temporary = folder_below(None, "default");
        assert!(is_shared_default(temporary.parent().unwrap()));
    }
}
