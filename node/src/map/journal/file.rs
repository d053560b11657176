//! The file of a journal: made so that it is there whole or not at all, and recognised.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use redb::{Builder, Database, ReadableDatabase, StorageBackend, TableDefinition, backends::FileBackend};

use super::{Hash, Job, JournalError, OUTCOMES, guard, io_error};

/// The format of the outcomes. One that cannot be read by this version gets a higher number.
pub(super) const FORMAT: u32 = 1;

/// What the journal is about. This table stays the same in every format.
pub(super) const ABOUT: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("multinodes journal");

/// Keys of [`ABOUT`].
pub(super) const FORMAT_KEY: &str = "format";
const APPLICATION_KEY: &str = "application";
const ACTION_KEY: &str = "action";
const FIRST_KEY: &str = "first";

/// Pages in memory. A map writes at the end and reads in order: more would hardly be asked for twice.
const CACHE: usize = 32 * 1024 * 1024;

/// A previous owner that is closing the file gets so much time.
const PATIENCE: Duration = Duration::from_secs(1);

/// How often it is looked whether it has.
const INTERVAL: Duration = Duration::from_millis(20);

/// Opens or makes the file, and looks what it is about. With it comes the hash of its first item.
pub(super) fn open(path: &Path, job: &Job<'_>) -> Result<(Database, Option<Hash>), JournalError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match open_now(path, job) {
            Err(JournalError::InUse { .. }) if Instant::now() < deadline => thread::sleep(INTERVAL),
            result => return result,
        }
    }
}

/// Records what the first item is.
pub(super) fn set_first(database: &Database, first: Hash) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    transaction.open_table(ABOUT)?.insert(FIRST_KEY, first.as_slice())?;
    Ok(transaction.commit()?)
}

fn open_now(path: &Path, job: &Job<'_>) -> Result<(Database, Option<Hash>), JournalError> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => {}
        Ok(_) => return Err(JournalError::NotAJournal { path: path.to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((create(path, job)?, None)),
        Err(error) => return Err(io_error(path, error)),
    }
    let file = OpenOptions::new().read(true).write(true).open(path).map_err(|source| io_error(path, source))?;
    let database = guard(path, || database(FileBackend::new(file)?))?;
    // An empty file that somebody else has made, `mktemp` for instance.
    let is_new = guard(path, || Ok(database.begin_read()?.list_tables()?.next().is_none()))?;
    if is_new {
        guard(path, || initialize(&database, job))?;
        sync_folder(path).map_err(|source| io_error(path, source))?;
    }
    let first = check(path, &database, job)?;
    Ok((database, first))
}

/// Makes a journal beside the place where it is to be, and moves it there when it is whole: whoever is killed meanwhile
/// leaves no half of one behind that would be taken for something else.
fn create(path: &Path, job: &Job<'_>) -> Result<Database, JournalError> {
    let unfinished = unfinished(path);
    let file = claim(path, &unfinished)?;
    let made = guard(path, || {
        let database = database(FileBackend::new(file)?)?;
        initialize(&database, job)?;
        // Still locked: whoever else was about to make it finds it made.
        fs::rename(&unfinished, path)?;
        sync_folder(path)?;
        Ok(database)
    });
    if made.is_err() {
        _ = fs::remove_file(&unfinished);
    }
    made
}

/// Opens the unfinished file, empty, and locks out others who are making the same journal just now.
fn claim(path: &Path, unfinished: &Path) -> Result<File, JournalError> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(unfinished).map_err(|source| io_error(path, source))?;
    match file.try_lock() {
        // Somebody was faster: what was opened here may have become that journal, or is nobody's.
        Ok(()) if path.exists() => return Err(JournalError::InUse { path: path.to_owned() }),
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(JournalError::InUse { path: path.to_owned() }),
        Err(TryLockError::Error(source)) => return Err(io_error(path, source)),
    }
    // A killed one may have left something behind.
    file.set_len(0).map_err(|source| io_error(path, source))?;
    Ok(file)
}

fn unfinished(path: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".multinodes-new");
    path.with_file_name(name)
}

pub(super) fn database(backend: impl StorageBackend) -> Result<Database, redb::Error> {
    Ok(Builder::new().set_cache_size(CACHE).set_check_integrity_on_open(true).create_with_backend(backend)?)
}

pub(super) fn initialize(database: &Database, job: &Job<'_>) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    let mut about = transaction.open_table(ABOUT)?;
    about.insert(FORMAT_KEY, FORMAT.to_le_bytes().as_slice())?;
    about.insert(APPLICATION_KEY, job.application.as_bytes())?;
    about.insert(ACTION_KEY, job.action.as_bytes())?;
    drop(about);
    transaction.open_table(OUTCOMES)?;
    Ok(transaction.commit()?)
}

fn check(path: &Path, database: &Database, job: &Job<'_>) -> Result<Option<Hash>, JournalError> {
    let value = |key: &str| {
        guard(path, || {
            let about = database.begin_read()?.open_table(ABOUT)?;
            Ok(about.get(key)?.map(|value| value.value().to_vec()))
        })
    };
    let missing = || JournalError::NotAJournal { path: path.to_owned() };
    let format = value(FORMAT_KEY)?.and_then(|bytes| bytes.try_into().ok()).map(u32::from_le_bytes);
    match format {
        Some(FORMAT) => {}
        Some(format) if format > FORMAT => {
            return Err(JournalError::Newer { path: path.to_owned(), format, known: FORMAT });
        }
        _ => return Err(missing()),
    }
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let application = value(APPLICATION_KEY)?.map(text).ok_or_else(missing)?;
    let action = value(ACTION_KEY)?.map(text).ok_or_else(missing)?;
    if (application.as_str(), action.as_str()) != (job.application, job.action) {
        return Err(JournalError::OtherJob {
            path: path.to_owned(),
            application,
            action,
            wanted_application: job.application.to_owned(),
            wanted_action: job.action.to_owned(),
        });
    }
    Ok(value(FIRST_KEY)?.and_then(|bytes| bytes.try_into().ok()))
}

/// A file that was synced may be lost as long as its folder is not.
fn sync_folder(path: &Path) -> io::Result<()> {
    if !cfg!(unix) {
        // A folder cannot be opened there.
        return Ok(());
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}
