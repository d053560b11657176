//! The file of a journal: made so that it is there whole or not at all, and recognised.

use std::{
    fs::{self, File, OpenOptions},
    io,
    path::Path,
    thread,
    time::{Duration, Instant, SystemTime},
};

use redb::{Builder, Database, ReadableDatabase, StorageBackend, TableDefinition, backends::FileBackend};

use super::{Hash, Job, JournalError, OUTCOMES, guard, io_error};
use crate::files::{self, Unfinished};

/// The newest format of the outcomes that is known. One that cannot be read by this version gets a higher number.
pub(super) const FORMAT: u32 = 2;

/// The format in which every item that something is recorded of has an outcome: without at-most-once it is still written.
const ONLY_OUTCOMES: u32 = 1;

/// What the journal is about. This table stays the same in every format.
pub(super) const ABOUT: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("multinodes journal");

/// Keys of [`ABOUT`].
pub(super) const FORMAT_KEY: &str = "format";
const APPLICATION_KEY: &str = "application";
const ACTION_KEY: &str = "action";
const FIRST_KEY: &str = "first";
/// There if it is recorded that items are begun.
const AT_MOST_ONCE_KEY: &str = "at most once";

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
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_file() || metadata.is_symlink() => {}
        Ok(_) => return Err(JournalError::NotAJournal { path: path.to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((create(path, job)?, None)),
        Err(error) => return Err(io_error(path, error)),
    }
    let file = files::open_own(path, OpenOptions::new().read(true).write(true));
    let file = file.and_then(fit).map_err(|source| io_error(path, source))?;
    let database = guard(path, || database(FileBackend::new(file)?))?;
    // An empty file that its user has made, by `mktemp` for instance.
    let is_new = guard(path, || Ok(database.begin_read()?.list_tables()?.next().is_none()))?;
    if is_new {
        guard(path, || initialize(&database, job))?;
        files::sync_folder_of(path).map_err(|source| io_error(path, source))?;
    }
    let first = check(path, &database, job)?;
    Ok((database, first))
}

/// Looks whether an empty file may become a journal: nobody else's, and under no other name.
fn fit(file: File) -> io::Result<File> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let metadata = file.metadata()?;
        if metadata.len() == 0 && (metadata.uid() != files::own_user_id() || metadata.nlink() != 1) {
            let text = "it is empty, and belongs to another user or has another name, too: it is left as it is";
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
        }
    }
    Ok(file)
}

/// Makes a journal beside the place where it is to be, and gives it its name when it is whole: whoever is killed meanwhile
/// leaves no half of one behind that would be taken for something else.
fn create(path: &Path, job: &Job<'_>) -> Result<Database, JournalError> {
    files::sweep(path.parent().unwrap_or(Path::new("")), SystemTime::now());
    let made = guard(path, || {
        let mut new = Unfinished::beside(path)?;
        // The store locks it: whoever else was about to make it finds it made, and in use.
        let database = database(FileBackend::new(new.take_file()?)?)?;
        initialize(&database, job)?;
        new.finish_new(path)?;
        Ok(database)
    });
    made.map_err(|error| match error {
        JournalError::Io { path, source } if source.kind() == io::ErrorKind::AlreadyExists => {
            JournalError::InUse { path }
        }
        error => error,
    })
}

pub(super) fn database(backend: impl StorageBackend) -> Result<Database, redb::Error> {
    Ok(Builder::new().set_cache_size(CACHE).set_check_integrity_on_open(true).create_with_backend(backend)?)
}

pub(super) fn initialize(database: &Database, job: &Job<'_>) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    let mut about = transaction.open_table(ABOUT)?;
    let format = if job.at_most_once { FORMAT } else { ONLY_OUTCOMES };
    about.insert(FORMAT_KEY, format.to_le_bytes().as_slice())?;
    if job.at_most_once {
        about.insert(AT_MOST_ONCE_KEY, &b""[..])?;
    }
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
        Some(ONLY_OUTCOMES..=FORMAT) => {}
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
    let at_most_once = value(AT_MOST_ONCE_KEY)?.is_some();
    if at_most_once != job.at_most_once {
        return Err(JournalError::OtherPromise { path: path.to_owned(), at_most_once });
    }
    Ok(value(FIRST_KEY)?.and_then(|bytes| bytes.try_into().ok()))
}
