//! Files that are not what a journal should be.

use std::fs;

use rand::{Rng, SeedableRng, rngs::StdRng};
use redb::Database;

use super::{super::file, *};

#[test]
fn what_is_no_journal_is_refused_and_left_as_it_is() {
    within_limit(|| {
        let (folder, path) = place();
        for contents in [&b"1,2,3\n"[..], &[0; 100_000], b"redb", &[0xff; 4096]] {
            fs::write(&path, contents).unwrap();
            assert_refused_as_foreign(&path);
            assert_eq!(fs::read(&path).unwrap(), contents);
        }
        assert_refused_as_foreign(folder.path());
        if cfg!(unix) {
            assert_refused_as_foreign(Path::new("/dev/null"));
        }
    });
}

#[test]
fn a_database_of_another_program_is_refused() {
    within_limit(|| {
        let (_folder, path) = place();
        let other: TableDefinition<'_, &str, u64> = TableDefinition::new("outcomes");
        change(&path, |transaction| _ = transaction.open_table(other).unwrap().insert("a", 1).unwrap());
        assert_refused_as_foreign(&path);
    });
}

#[test]
fn a_journal_of_a_newer_version_is_refused() {
    within_limit(|| {
        let (_folder, path) = place();
        drop(Journal::open(&path, &ADD).unwrap());
        let format = (file::FORMAT + 1).to_le_bytes();
        let mark = |transaction: &redb::WriteTransaction| {
            _ = transaction.open_table(file::ABOUT).unwrap().insert(file::FORMAT_KEY, format.as_slice()).unwrap();
        };
        change(&path, mark);
        let error = Journal::open(&path, &ADD).unwrap_err();
        assert!(matches!(error, JournalError::Newer { format: 3, known: 2, .. }), "{error}");
    });
}

#[test]
fn a_folder_that_does_not_exist_is_an_error_of_the_system() {
    within_limit(|| {
        let (folder, _) = place();
        let error = Journal::open(&folder.path().join("missing/map.journal"), &ADD).unwrap_err();
        assert!(
            matches!(&error, JournalError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound),
            "{error}"
        );
        assert!(error.to_string().contains("missing/map.journal`"), "{error}");
    });
}

#[test]
fn a_journal_that_has_lost_its_end_is_damaged_or_opens_with_what_was_recorded() {
    within_limit(|| {
        for image in images() {
            let length = image.len();
            let cuts = (1..48).map(|part| length * part / 48).chain((1..20).map(|bytes| length - bytes));
            let opened: usize = cuts.map(|cut| usize::from(opens_with_the_truth(&image[..cut]))).sum();
            // An image with room at its end may lose that.
            assert!(opened < 60, "a cut is noticed");
        }
    });
}

#[test]
fn a_journal_with_wrong_bytes_is_damaged_or_opens_with_what_was_recorded() {
    within_limit(|| {
        let mut random = StdRng::seed_from_u64(7);
        for image in images() {
            let mut refused = 0;
            for turn in 0..150_usize {
                let mut image = image.clone();
                // The header is where most can go wrong.
                let area = if turn.is_multiple_of(3) { 320 } else { image.len() };
                let start = random.random_range(0..area);
                let end = (start + [1, 8, 512, 4096][turn % 4]).min(image.len());
                match turn % 5 {
                    0 => image[start..end].fill(0),
                    1 => image[start..end].fill(0xff),
                    2 => image[start] ^= 1 << random.random_range(0..8),
                    _ => random.fill(&mut image[start..end]),
                }
                refused += usize::from(!opens_with_the_truth(&image));
            }
            assert!(refused > 20, "damage is noticed: {refused}");
        }
    });
}

/// A journal that was closed, and one whose process was killed.
fn images() -> [Vec<u8>; 2] {
    let (_folder, path) = place();
    let journal = Journal::open(&path, &ADD).unwrap();
    journal.begin([0; 16]).unwrap();
    for batch in 0..4 {
        let entries: Vec<_> = (batch * 250..(batch + 2) * 250).map(|index| (index, truth(index))).collect();
        record(&journal, &entries);
    }
    let killed = fs::read(&path).unwrap();
    drop(journal);
    drop(reopen(&path));
    // It is closed when it can be opened again.
    let closed = reopen(&path);
    drop(closed);
    let closed = loop {
        match Journal::open(&path, &ADD).map(drop) {
            Ok(()) => break fs::read(&path).unwrap(),
            Err(error) => assert!(matches!(error, JournalError::InUse { .. }), "{error}"),
        }
    };
    [killed, closed]
}

fn truth(index: u64) -> Entry {
    Entry {
        input: [index as u8; 16],
        outcome: index.to_string().repeat(10).into_bytes(),
        state: if index.is_multiple_of(3) { State::Failed } else { State::Done },
    }
}

/// Whether this opens. If it does, everything in it has to be true; if not, the reason has to be said.
fn opens_with_the_truth(image: &[u8]) -> bool {
    let (_folder, path) = place();
    fs::write(&path, image).unwrap();
    let journal = match Journal::open(&path, &ADD) {
        Ok(journal) => journal,
        Err(JournalError::Damaged { .. } | JournalError::NotAJournal { .. }) => return false,
        Err(error) => panic!("another error: {error}"),
    };
    let mut found = 0;
    for index in 0..1250 {
        if let Some(entry) = journal.find(index).unwrap() {
            assert_eq!(entry, truth(index));
            found += 1;
        }
    }
    assert_eq!(journal.recorded(), found);
    true
}

fn assert_refused_as_foreign(path: &Path) {
    let error = Journal::open(path, &ADD).unwrap_err();
    assert!(matches!(error, JournalError::NotAJournal { .. }), "{error}");
    assert_eq!(error.to_string(), format!("`{}` is not a journal of this program", path.display()));
}

/// Changes a database behind the journal's back.
fn change(path: &Path, change: impl FnOnce(&redb::WriteTransaction)) {
    let database = loop {
        match Database::create(path) {
            Ok(database) => break database,
            // It is still being closed.
            Err(error) => assert!(matches!(error, redb::DatabaseError::DatabaseAlreadyOpen), "{error}"),
        }
    };
    let transaction = database.begin_write().unwrap();
    change(&transaction);
    transaction.commit().unwrap();
}
