//! Files that are being made: nobody can guess their names, nobody else reads them, and they are gone if they do not get
//! finished.

use std::{
    ffi::OsStr,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use super::folder::{parent, sync_folder_of};

/// What is behind the random part of their names.
const SUFFIX: &str = ".multinodes-new";

/// The random part: 64 bits, in hexadecimal.
const RANDOM: usize = 16;

/// What is that old was left behind by a process that was killed. Making a file takes milliseconds.
const LEFT_BEHIND: Duration = Duration::from_secs(60);

/// The most files that are looked at to find what was left behind: the folder may be anybody's.
const MOST_SWEPT: usize = 4096;

/// A file that has no name of its own yet. Dropped, it is removed.
#[derive(Debug)]
pub(crate) struct Unfinished {
    file: Option<File>,
    path: PathBuf,
}

impl Unfinished {
    /// Begins a file that is to stand at `path`, for its owner alone.
    pub(crate) fn beside(path: &Path) -> io::Result<Self> {
        Self::within(parent(path))
    }

    /// Begins a file in a folder, for its owner alone.
    pub(crate) fn within(folder: &Path) -> io::Result<Self> {
        Self::with_mode(folder, 0o600)
    }

    #[cfg_attr(not(unix), allow(unused_variables, reason = "there are no modes"))]
    pub(super) fn with_mode(folder: &Path, mode: u32) -> io::Result<Self> {
        let path = folder.join(format!(".{:0RANDOM$x}{SUFFIX}", rand::random::<u64>()));
        let mut options = OpenOptions::new();
        // Neither a file nor a link may be there: nothing is followed.
        options.read(true).write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode);
        Ok(Self { file: Some(options.open(&path)?), path })
    }

    pub(crate) fn file(&mut self) -> io::Result<&mut File> {
        self.file.as_mut().ok_or_else(|| io::Error::other("it was taken over"))
    }

    /// Gives the file to somebody else, who writes it; the name stays to be given.
    #[cfg(feature = "journal")]
    pub(crate) fn take_file(&mut self) -> io::Result<File> {
        self.file.take().ok_or_else(|| io::Error::other("it was taken over"))
    }

    pub(crate) fn write(&mut self, parts: &[&[u8]]) -> io::Result<()> {
        let file = self.file()?;
        parts.iter().try_for_each(|part| file.write_all(part))
    }

    /// Gives it its name, unless that is taken: [`io::ErrorKind::AlreadyExists`]. Gives the file back, if it was not taken.
    pub(crate) fn finish_new(mut self, path: &Path) -> io::Result<Option<File>> {
        self.sync()?;
        match fs::hard_link(&self.path, path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(error),
            // Some file systems have no links: there an empty file keeps the place.
            Err(_) => {
                OpenOptions::new().write(true).create_new(true).open(path)?;
                fs::rename(&self.path, path).inspect_err(|_| _ = fs::remove_file(path))?;
            }
        }
        let file = self.file.take();
        drop(self);
        sync_folder_of(path)?;
        Ok(file)
    }

    /// Gives it its name, in the place of whatever has it; a link there is replaced, and not followed.
    #[cfg(any(test, feature = "cli", feature = "wasm"))]
    pub(crate) fn finish(mut self, path: &Path) -> io::Result<()> {
        self.sync()?;
        fs::rename(&self.path, path)?;
        sync_folder_of(path)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.as_ref().map_or(Ok(()), File::sync_all)
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // It may have its name by now.
        _ = fs::remove_file(&self.path);
    }
}

/// Makes a file for its owner alone.
///
/// # Errors
///
/// [`io::ErrorKind::AlreadyExists`]: there is something of that name, which is left alone.
pub(crate) fn create(path: &Path, parts: &[&[u8]]) -> io::Result<()> {
    let mut new = Unfinished::beside(path)?;
    new.write(parts)?;
    new.finish_new(path).map(drop)
}

/// Writes a file for its owner alone, in the place of whatever is there. Who reads it meanwhile sees the old or the new one.
#[cfg(any(test, feature = "wasm"))]
pub(crate) fn replace(path: &Path, parts: &[&[u8]]) -> io::Result<()> {
    let mut new = Unfinished::beside(path)?;
    new.write(parts)?;
    new.finish(path)
}

/// The same for what means nothing after the machine was off: nobody waits for the disk.
pub(crate) fn replace_fleeting(path: &Path, parts: &[&[u8]]) -> io::Result<()> {
    let mut new = Unfinished::beside(path)?;
    new.write(parts)?;
    fs::rename(&new.path, path)
}

/// Removes what killed processes have left unfinished in a folder, a minute ago or longer. Failing to is no harm.
pub(crate) fn sweep(folder: &Path, now: SystemTime) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.take(MOST_SWEPT).flatten().filter(|entry| is_unfinished(&entry.file_name())) {
        // Of the name itself: what a link leads to is not ours.
        let modified = entry.metadata().ok().filter(fs::Metadata::is_file).and_then(|file| file.modified().ok());
        let age = modified.and_then(|modified| now.duration_since(modified).ok());
        if age.is_some_and(|age| age > LEFT_BEHIND) && !is_locked(&entry.path()) {
            _ = fs::remove_file(entry.path());
        }
    }
}

/// Whether somebody works on it still: whatever takes long is locked.
fn is_locked(path: &Path) -> bool {
    let file = super::open::open_own(path, OpenOptions::new().read(true));
    file.is_ok_and(|file| file.try_lock().is_err())
}

fn is_unfinished(name: &OsStr) -> bool {
    let random = name.to_str().and_then(|name| name.strip_prefix('.')?.strip_suffix(SUFFIX));
    random.is_some_and(|random| random.len() == RANDOM && random.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    }

    #[test]
    fn a_planted_link_is_replaced_or_refused_and_never_followed() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("victim"), "precious").unwrap();
        for planted in ["replaced", "fleeting", "created"] {
            symlink(at("victim"), at(planted)).unwrap();
        }
        symlink(at("nowhere"), at("dangling")).unwrap();
        replace(&at("replaced"), &[b"n", b"ew"]).unwrap();
        replace_fleeting(&at("fleeting"), &[b"new"]).unwrap();
        for taken in ["created", "dangling", "victim"] {
            assert_eq!(create(&at(taken), &[b"new"]).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        }
        create(&at("fresh"), &[b"new"]).unwrap();
        for new in ["replaced", "fleeting", "fresh"] {
            assert!(at(new).symlink_metadata().unwrap().is_file());
            assert_eq!(fs::read(at(new)).unwrap(), b"new");
            assert_eq!(at(new).metadata().unwrap().permissions().mode() & 0o777, 0o600);
        }
        assert_eq!(fs::read(at("victim")).unwrap(), b"precious");
        assert_eq!(names(folder.path()), ["created", "dangling", "fleeting", "fresh", "replaced", "victim"]);
    }

    #[test]
    fn what_was_left_behind_is_swept_after_a_minute_unless_somebody_works_on_it() {
        let folder = tempfile::tempdir().unwrap();
        let [dead, mut busy] = [(); 2].map(|()| Unfinished::within(folder.path()).unwrap());
        busy.file().unwrap().lock().unwrap();
        // As if its process were killed.
        std::mem::forget(dead);
        fs::write(folder.path().join(".0123.multinodes-new"), "somebody's").unwrap();
        sweep(folder.path(), SystemTime::now());
        assert_eq!(names(folder.path()).len(), 3, "it may be under way");
        sweep(folder.path(), SystemTime::now() + 2 * LEFT_BEHIND);
        assert_eq!(names(folder.path()).len(), 2);
        drop(busy);
        assert_eq!(names(folder.path()), [".0123.multinodes-new"]);
    }
}
