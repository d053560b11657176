//! Looks at the rendezvous folder without changing what is in it.

use std::{
    ffi::OsStr,
    fs, io,
    path::{Path, PathBuf},
};

use libp2p::{Multiaddr, PeerId};

use super::{MAX_NOTES, is_shared_default, read_note};
use crate::files::Unfinished;

/// What was found in the place of the folder.
#[derive(Debug)]
pub struct Inspection {
    /// Where.
    pub folder: PathBuf,
    /// Whether it can be used.
    pub state: State,
    /// Notes that can be read, of any swarm.
    pub notes: Vec<FoundNote>,
    /// Notes that cannot be read, or are none.
    pub unreadable: Vec<PathBuf>,
    /// There are more files than were looked at.
    pub is_crowded: bool,
}

/// Whether a folder can be used, and if not why.
#[derive(Debug)]
pub enum State {
    /// It is not there: the first node makes it.
    Absent,
    /// It is no folder of its own, but a file or a link.
    NoFolder,
    /// `folder`, it or its parent, belongs to the user with the id `owner`.
    Foreign {
        /// Which.
        folder: PathBuf,
        /// Whose.
        owner: u32,
    },
    /// Others can write to `folder`, it or its parent: nodes refuse it.
    Writable {
        /// Which.
        folder: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// The system refuses to read it or to write to it.
    Failing(io::Error),
    /// It is used, but others can read who is there.
    Readable {
        /// Its mode.
        mode: u32,
    },
    /// It is as it should be.
    Sound,
}

/// A note that was found.
#[derive(Debug, Clone)]
pub struct FoundNote {
    /// The file.
    pub path: PathBuf,
    /// Whose it is.
    pub peer_id: PeerId,
    /// Its process.
    pub pid: u32,
    /// When that node started, in milliseconds since 1970.
    pub incarnation: u64,
    /// It was left on this host, so loopback addresses in it mean something here.
    pub is_of_this_host: bool,
    /// Whether the process is there, where that can be told.
    pub is_running: Option<bool>,
    /// Where the node can be dialled.
    pub addresses: Vec<Multiaddr>,
}

/// Looks at `folder`. Only notes of the swarm called `mark` are given; `host` is the token of this host.
pub(crate) fn inspect(folder: &Path, mark: &str, host: Option<&str>) -> Inspection {
    let mut inspection = Inspection {
        folder: folder.to_owned(),
        state: state(folder),
        notes: Vec::new(),
        unreadable: Vec::new(),
        is_crowded: false,
    };
    let Ok(entries) = fs::read_dir(folder) else { return inspection };
    for (index, entry) in entries.flatten().enumerate() {
        if index >= MAX_NOTES {
            inspection.is_crowded = true;
            break;
        }
        let path = entry.path();
        if path.extension() != Some(OsStr::new("json")) {
            continue;
        }
        match read_note(&path) {
            Some(note) if note.swarm == mark => inspection.notes.push(FoundNote {
                path,
                peer_id: note.peer_id,
                pid: note.pid,
                incarnation: note.incarnation,
                is_of_this_host: host.is_some() && note.host.as_deref() == host,
                is_running: is_running(note.pid),
                addresses: note.addresses,
            }),
            Some(_) => {}
            // One that went away meanwhile is not worth a word.
            None if path.exists() => inspection.unreadable.push(path),
            None => {}
        }
    }
    inspection.notes.sort_by(|one, other| one.path.cmp(&other.path));
    inspection.unreadable.sort();
    inspection
}

fn state(folder: &Path) -> State {
    match fs::symlink_metadata(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return State::Absent,
        Err(error) => return State::Failing(error),
        Ok(metadata) if !metadata.is_dir() => return State::NoFolder,
        Ok(_) => {}
    }
    let parent = folder.parent().filter(|parent| is_shared_default(parent));
    for folder in [Some(folder), parent].into_iter().flatten() {
        if let Some(state) = permissions(folder) {
            return state;
        }
    }
    if let Err(error) = try_to_write(folder) {
        return State::Failing(error);
    }
    match mode(folder) {
        Some(mode) if mode & 0o077 != 0 => State::Readable { mode },
        _ => State::Sound,
    }
}

/// Leaves a file as a node does, and takes it away; if this process ends in between, nodes sweep it.
fn try_to_write(folder: &Path) -> io::Result<()> {
    Unfinished::within(folder).map(drop)
}

#[cfg(unix)]
fn permissions(folder: &Path) -> Option<State> {
    use std::os::unix::fs::MetadataExt;
    let metadata = match fs::symlink_metadata(folder) {
        Ok(metadata) => metadata,
        Err(error) => return Some(State::Failing(error)),
    };
    let (owner, mode) = (metadata.uid(), metadata.mode() & 0o7777);
    if crate::files::own_user_id() != owner {
        return Some(State::Foreign { folder: folder.to_owned(), owner });
    }
    (mode & 0o022 != 0).then(|| State::Writable { folder: folder.to_owned(), mode })
}

#[cfg(not(unix))]
fn permissions(_: &Path) -> Option<State> {
    None
}

#[cfg(unix)]
fn mode(folder: &Path) -> Option<u32> {
    use std::os::unix::fs::MetadataExt;
    fs::metadata(folder).ok().map(|metadata| metadata.mode() & 0o7777)
}

#[cfg(not(unix))]
fn mode(_: &Path) -> Option<u32> {
    None
}

#[cfg(unix)]
fn is_running(pid: u32) -> Option<bool> {
    use rustix::{io::Errno, process};
    let pid = process::Pid::from_raw(i32::try_from(pid).ok()?)?;
    match process::test_kill_process(pid) {
        // A process of somebody else is one, too.
        Ok(()) | Err(Errno::PERM) => Some(true),
        Err(Errno::SRCH) => Some(false),
        Err(_) => None,
    }
}

#[cfg(not(unix))]
fn is_running(_: u32) -> Option<bool> {
    None
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::{
        super::{Note, Rendezvous},
        *,
    };

    fn note(pid: u32) -> Note {
        Note {
            peer_id: PeerId::random(),
            swarm: "garden".into(),
            pid,
            incarnation: 1,
            host: Some("ab".into()),
            addresses: vec!["/ip4/127.0.0.1/tcp/1".parse().unwrap()],
        }
    }

    #[test]
    fn notes_are_told_from_what_cannot_be_read_and_from_those_of_other_swarms() {
        let folder = tempfile::tempdir().unwrap();
        let rendezvous = Rendezvous::open(&folder.path().join("swarm")).unwrap();
        let (ours, theirs) = (note(std::process::id()), Note { swarm: "gardens".into(), ..note(1) });
        rendezvous.publish(&ours).unwrap();
        rendezvous.publish(&theirs).unwrap();
        let broken = rendezvous.folder().join("broken.json");
        fs::write(&broken, "{").unwrap();
        let inspection = inspect(rendezvous.folder(), "garden", Some("ab"));
        assert!(matches!(inspection.state, State::Sound), "{inspection:?}");
        assert_eq!(inspection.unreadable, [broken]);
        let [found] = &inspection.notes[..] else { panic!("{inspection:?}") };
        assert_eq!((found.peer_id, found.is_running, found.is_of_this_host), (ours.peer_id, Some(true), true));
        assert!(!inspect(rendezvous.folder(), "garden", Some("cd")).notes[0].is_of_this_host);
        assert_eq!(fs::read_dir(rendezvous.folder()).unwrap().count(), 3, "nothing is left behind");
    }

    #[test]
    fn a_process_that_has_ended_is_not_running() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id();
        child.wait().unwrap();
        assert_eq!(is_running(pid), Some(false));
    }

    #[test]
    fn the_state_of_a_folder_says_what_is_wrong_with_it() {
        let below = tempfile::tempdir().unwrap();
        let folder = below.path().join("swarm");
        assert!(matches!(state(&folder), State::Absent));
        fs::create_dir(&folder).unwrap();
        let with_mode = |mode| {
            fs::set_permissions(&folder, fs::Permissions::from_mode(mode)).unwrap();
            state(&folder)
        };
        assert!(matches!(with_mode(0o700), State::Sound));
        assert!(matches!(with_mode(0o755), State::Readable { mode: 0o755 }));
        assert!(matches!(with_mode(0o777), State::Writable { mode: 0o777, .. }));
        let file = below.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(matches!(state(&file), State::NoFolder));
    }
}
