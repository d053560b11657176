//! The power that fails: of what was not synced yet, any part may be on the disk.

use std::{
    io, slice,
    sync::{Arc, Mutex},
};

use rand::{Rng, SeedableRng, rngs::StdRng};
use redb::StorageBackend;

use super::{super::file, *};

/// What a disk writes whole.
const SECTOR: usize = 512;

const FAILURES: usize = 60;

/// Items, recorded again and again in batches of so many.
const ITEMS: u64 = 3_000;
const BATCH: u64 = 100;

#[test]
fn whatever_was_durable_when_the_power_failed_is_found_again() {
    within_limit(|| {
        let (_folder, path) = place();
        let seed = rand::random();
        println!("seed {seed}");
        let disk = Disk(Arc::new(Mutex::new(Contents::new(seed))));
        let database = file::database(disk.clone()).unwrap();
        file::initialize(&database, &ADD).unwrap();
        disk.with(|contents| contents.fails = true);
        let journal = Journal::over(&path, database, None).unwrap();
        let mut from = 0;
        while disk.with(|contents| contents.failures.len()) < FAILURES {
            record(&journal, &(from..from + BATCH).map(|index| (index, truth(index))).collect::<Vec<_>>());
            from = (from + BATCH) % ITEMS;
            disk.with(|contents| contents.promised = contents.promised.max(journal.recorded()));
        }
        let failures = disk.with(|contents| std::mem::take(&mut contents.failures));
        assert!(failures.iter().any(|failure| failure.lost > 0 && failure.promised > ITEMS / 2), "some hit a commit");
        for Failure { promised, image, lost } in failures {
            fs::write(&path, image).unwrap();
            let journal = reopen(&path);
            let left = journal.recorded();
            assert!(left >= promised, "{left} of {promised} are left without {lost} sectors");
            for index in 0..left {
                assert_eq!(journal.find(index).unwrap(), Some(truth(index)));
            }
            drop(journal);
            fs::remove_file(&path).unwrap();
        }
    });
}

/// A disk whose power fails at times: it goes on, but what would have been left is kept.
#[derive(Clone, Debug)]
struct Disk(Arc<Mutex<Contents>>);

#[derive(Debug)]
struct Contents {
    /// What a read sees.
    seen: Vec<u8>,
    /// What survives in any case.
    synced: Vec<u8>,
    /// What was done since the last sync.
    since: Vec<Change>,
    /// So many outcomes were handed out as durable.
    promised: u64,
    fails: bool,
    failures: Vec<Failure>,
    random: StdRng,
}

#[derive(Debug)]
struct Failure {
    promised: u64,
    image: Vec<u8>,
    lost: usize,
}

#[derive(Debug)]
enum Change {
    Length(usize),
    Write(usize, Vec<u8>),
}

impl Disk {
    fn with<R>(&self, act: impl FnOnce(&mut Contents) -> R) -> R {
        act(&mut self.0.lock().unwrap())
    }
}

impl Contents {
    fn new(seed: u64) -> Self {
        let random = StdRng::seed_from_u64(seed);
        let (seen, synced, since, failures) = Default::default();
        Self { seen, synced, since, promised: 0, fails: false, failures, random }
    }

    fn change(&mut self, change: Change) {
        change.apply(&mut self.seen);
        self.since.push(change);
        if self.fails && self.failures.len() < FAILURES && self.random.random_ratio(1, 20) {
            self.fail();
        }
    }

    fn sync(&mut self) {
        for change in self.since.drain(..) {
            change.apply(&mut self.synced);
        }
    }

    /// Of what is not synced any sector may be there, and any may not.
    fn fail(&mut self) {
        let (mut image, mut lost) = (self.synced.clone(), 0);
        for change in &self.since {
            let Change::Write(offset, data) = change else {
                change.apply(&mut image);
                continue;
            };
            for (number, sector) in data.chunks(SECTOR).enumerate() {
                let start = offset + number * SECTOR;
                match self.random.random() {
                    true => image[start..start + sector.len()].copy_from_slice(sector),
                    false => lost += 1,
                }
            }
        }
        self.failures.push(Failure { promised: self.promised, image, lost });
    }
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Length(length) => bytes.resize(*length, 0),
            Self::Write(offset, data) => bytes[*offset..offset + data.len()].copy_from_slice(data),
        }
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().seen.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let contents = self.0.lock().unwrap();
        let start = offset as usize;
        out.copy_from_slice(contents.seen.get(start..start + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.lock().unwrap().change(Change::Length(len as usize));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.lock().unwrap().sync();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.lock().unwrap().change(Change::Write(offset as usize, data.to_vec()));
        Ok(())
    }
}

fn truth(index: u64) -> Entry {
    Entry { input: [index as u8; 16], outcome: slice::from_ref(&(index as u8)).repeat(50), state: State::Done }
}
