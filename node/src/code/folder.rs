//! A folder of the node's own: nobody else gets in, what is in it is whole or not there, and it has a bound.

use std::{
    collections::HashSet,
    ffi::OsStr,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::SystemTime,
};

/// What is not finished yet. Left behind by a process that was killed, it is removed at the next start.
const UNFINISHED: &str = "unfinished";

/// The most files of one kind: all of them are listed to make room for another one.
const MOST: usize = 4096;

/// A folder with files of one kind.
#[derive(Debug, Clone)]
pub(crate) struct Folder {
    path: PathBuf,
    extension: &'static str,
    /// The most bytes that its files may have together.
    limit: u64,
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
    /// Makes it if it is not there, for nobody else.
    pub(crate) fn open(path: PathBuf, extension: &'static str, limit: u64) -> io::Result<Self> {
        let mut builder = DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(&path)?;
        // It may have been there, with other rights.
        #[cfg(unix)]
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
        let folder = Self { path, extension, limit, pinned: Arc::default() };
        for entry in folder.with_extension(UNFINISHED)? {
            _ = fs::remove_file(folder.path.join(format!("{}.{UNFINISHED}", entry.name)));
        }
        Ok(folder)
    }

    /// One that is there, perhaps in use by a node that runs: nothing is made or tidied up.
    pub(crate) fn existing(path: PathBuf, extension: &'static str, limit: u64) -> io::Result<Self> {
        let folder = Self { path, extension, limit, pinned: Arc::default() };
        fs::read_dir(&folder.path).map(|_| folder)
    }

    pub(crate) fn path_of(&self, name: &str) -> PathBuf {
        self.path.join(format!("{name}.{}", self.extension))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Reads a file, if it is there, of at most the folder's limit.
    pub(crate) fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        match fs::read(self.path_of(name)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads a part of a file, if it is there.
    pub(crate) fn read_part(&self, name: &str, offset: u64, length: u64) -> io::Result<Option<Vec<u8>>> {
        let mut file = match File::open(self.path_of(name)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut part = Vec::new();
        file.seek(SeekFrom::Start(offset))?;
        file.take(length).read_to_end(&mut part)?;
        Ok(Some(part))
    }

    /// Writes a file, whole or not at all, and lets the oldest go where they are too many.
    pub(crate) fn write(&self, name: &str, parts: &[&[u8]]) -> io::Result<()> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let size = parts.iter().map(|part| part.len() as u64).sum();
        self.make_room(size)?;
        let number = NEXT.fetch_add(1, Relaxed);
        let unfinished = self.path.join(format!("{name}-{}-{number}.{UNFINISHED}", std::process::id()));
        let written = create_new(&unfinished).and_then(|mut file| {
            parts.iter().try_for_each(|part| file.write_all(part))?;
            file.sync_data()
        });
        let written = written.and_then(|()| fs::rename(&unfinished, self.path_of(name)));
        if written.is_err() {
            _ = fs::remove_file(&unfinished);
        }
        written
    }

    /// Takes a finished file over.
    pub(crate) fn adopt(&self, finished: &Path, name: &str) -> io::Result<()> {
        self.make_room(fs::metadata(finished)?.len())?;
        fs::rename(finished, self.path_of(name))
    }

    /// Its files.
    pub(crate) fn entries(&self) -> io::Result<Vec<Entry>> {
        self.with_extension(self.extension)
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
        _ = File::options().append(true).open(self.path_of(name)).and_then(|file| file.set_modified(SystemTime::now()));
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

    fn with_extension(&self, extension: &str) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for file in fs::read_dir(&self.path)? {
            let path = file?.path();
            let name = path.file_stem().and_then(OsStr::to_str);
            let (Some(name), true) = (name, path.extension() == Some(OsStr::new(extension))) else { continue };
            // It may be gone by now.
            let Ok(metadata) = fs::metadata(&path) else { continue };
            let used = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            entries.push(Entry { name: name.to_owned(), size: metadata.len(), used });
        }
        Ok(entries)
    }
}

/// Makes a file that only its owner may read.
pub(crate) fn create_new(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}
