//! A folder of the node's own: nobody else gets in, what is in it is whole or not there, and it has a bound.

use std::{
    collections::HashSet,
    ffi::OsStr,
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use crate::files::{self, FolderFault, Unfinished};

/// The most files of one kind: all of them are listed to make room for another one.
const MOST: usize = 4096;

/// A folder with files of one kind.
#[derive(Debug, Clone)]
pub(crate) struct Folder {
    path: PathBuf,
    extension: &'static str,
    /// The most bytes that its files may have together.
    limit: u64,
    /// The most that one of them may have.
    largest: u64,
    /// Files that do not go for others.
    pinned: Arc<Mutex<HashSet<String>>>,
}

/// One of its files.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// Without the extension.
    pub(crate) name: String,
    pub(crate) size: u64,
    pub(crate) used: SystemTime,
}

impl Folder {
    /// Makes it if it is not there, for nobody else. `largest` is the most bytes that one of its files may have.
    ///
    /// # Errors
    ///
    /// It is somebody else's, or others can write to it: whatever is in it would be theirs.
    pub(crate) fn open(path: PathBuf, extension: &'static str, limit: u64, largest: u64) -> Result<Self, FolderFault> {
        files::own_folder(&path)?;
        // What a process has left that was killed.
        files::sweep(&path, SystemTime::now());
        Ok(Self { path, extension, limit, largest, pinned: Arc::default() })
    }

    /// One that is there, perhaps in use by a node that runs: nothing is made or tidied up.
    pub(crate) fn existing(path: PathBuf, extension: &'static str, limit: u64, largest: u64) -> io::Result<Self> {
        let folder = Self { path, extension, limit, largest, pinned: Arc::default() };
        fs::read_dir(&folder.path).map(|_| folder)
    }

    pub(crate) fn path_of(&self, name: &str) -> PathBuf {
        self.path.join(format!("{name}.{}", self.extension))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Reads a file, if it is there: a regular one, of at most what one may have.
    pub(crate) fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        there(files::read_own(&self.path_of(name), self.largest))
    }

    /// Reads a part of a file, if it is there.
    pub(crate) fn read_part(&self, name: &str, offset: u64, length: u64) -> io::Result<Option<Vec<u8>>> {
        let Some(mut file) = there(files::open_own(&self.path_of(name), OpenOptions::new().read(true)))? else {
            return Ok(None);
        };
        let mut part = Vec::new();
        file.seek(SeekFrom::Start(offset))?;
        file.take(length).read_to_end(&mut part)?;
        Ok(Some(part))
    }

    /// How many bytes a file has, if it is there.
    pub(crate) fn size(&self, name: &str) -> Option<u64> {
        let metadata = fs::symlink_metadata(self.path_of(name));
        metadata.ok().filter(fs::Metadata::is_file).map(|metadata| metadata.len())
    }

    /// Opens a file, which is made if it is not there.
    pub(crate) fn open_file(&self, name: &str, options: &mut OpenOptions) -> io::Result<File> {
        files::open_own_or_new(&self.path_of(name), options)
    }

    /// Writes a file, whole or not at all, and lets the oldest go where they are too many.
    pub(crate) fn write(&self, name: &str, parts: &[&[u8]]) -> io::Result<()> {
        self.make_room(parts.iter().map(|part| part.len() as u64).sum())?;
        let mut new = Unfinished::within(&self.path)?;
        new.write(parts)?;
        new.finish(&self.path_of(name))
    }

    /// Takes a finished file over.
    pub(crate) fn adopt(&self, finished: &Path, name: &str) -> io::Result<()> {
        self.make_room(fs::symlink_metadata(finished)?.len())?;
        fs::rename(finished, self.path_of(name))?;
        files::sync_folder(&self.path)
    }

    /// Its files.
    pub(crate) fn entries(&self) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for file in fs::read_dir(&self.path)? {
            let path = file?.path();
            let name = path.file_stem().and_then(OsStr::to_str);
            let (Some(name), true) = (name, path.extension() == Some(OsStr::new(self.extension))) else { continue };
            // It may be gone by now.
            let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
            let used = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            entries.push(Entry { name: name.to_owned(), size: metadata.len(), used });
        }
        Ok(entries)
    }

    /// Removes a file; false if there was none.
    pub(crate) fn remove(&self, name: &str) -> io::Result<bool> {
        match fs::remove_file(self.path_of(name)) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Notes that a file is of use, so that others go first.
    pub(crate) fn touch(&self, name: &str) {
        // Only an order of going; a file system without times loses nothing else.
        let file = files::open_own(&self.path_of(name), OpenOptions::new().append(true));
        _ = file.and_then(|file| file.set_modified(SystemTime::now()));
    }

    /// From now on these do not go to make room, and no others stay for that reason.
    pub(crate) fn pin(&self, names: HashSet<String>) {
        *self.pinned.lock().unwrap_or_else(PoisonError::into_inner) = names;
    }

    /// Lets the files go that were not used for longest, until there is room for one more, of so many bytes.
    pub(crate) fn make_room(&self, size: u64) -> io::Result<()> {
        let mut entries = self.entries()?;
        let mut total: u64 = entries.iter().map(|entry| entry.size).sum();
        entries.sort_by_key(|entry| entry.used);
        let mut count = entries.len();
        let pinned = self.pinned.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let stay: u64 = entries.iter().filter(|entry| pinned.contains(&entry.name)).map(|entry| entry.size).sum();
        if size.saturating_add(stay) > self.limit {
            let reason = format!("{size} bytes are more than the folder's limit of {} lets in", self.limit);
            return Err(io::Error::new(io::ErrorKind::QuotaExceeded, reason));
        }
        for entry in entries.into_iter().filter(|entry| !pinned.contains(&entry.name)) {
            if total + size <= self.limit && count < MOST {
                break;
            }
            if self.remove(&entry.name)? {
                tracing::debug!(folder = %self.path.display(), name = entry.name, size = entry.size, "let go for room");
            }
            total -= entry.size;
            count -= 1;
        }
        Ok(())
    }
}

fn there<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
