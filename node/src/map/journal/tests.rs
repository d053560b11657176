#![allow(clippy::print_stdout, reason = "children tell their parents, and skipped tests why")]

use std::{
    collections::BTreeMap,
    fs,
    panic::resume_unwind,
    path::{Path, PathBuf},
    sync::mpsc::{RecvTimeoutError, channel},
    thread,
    time::Duration,
};

use proptest::{collection::vec, prelude::*};
use tempfile::TempDir;
use tokio::runtime;

use super::*;

#[path = "tests/damage.rs"]
mod damage;
#[path = "tests/disk.rs"]
mod disk;
#[path = "tests/power.rs"]
mod power;
#[path = "tests/processes.rs"]
mod processes;

const LIMIT: Duration = Duration::from_secs(120);

const ADD: Job<'_> = Job { application: "calculator", action: "add", at_most_once: false };

#[test]
fn what_is_recorded_is_found_again_after_reopening() {
    within_limit(|| {
        let (_folder, path) = place();
        let journal = Journal::open(&path, &ADD).unwrap();
        assert_eq!((journal.recorded(), journal.highest(), journal.find(0).unwrap()), (0, None, None));
        record(&journal, &[(0, entry(b"a")), (2, failed(b"c"))]);
        let mut journal = Some(journal);
        for _ in 0..2 {
            let journal = journal.take().unwrap_or_else(|| reopen(&path));
            assert_eq!((journal.recorded(), journal.highest()), (2, Some(2)));
            assert_eq!(journal.find(0).unwrap(), Some(entry(b"a")));
            assert_eq!(journal.find(1).unwrap(), None);
            assert_eq!(journal.find(2).unwrap(), Some(failed(b"c")));
            assert_eq!(journal.find(u64::MAX).unwrap(), None);
        }
    });
}

#[test]
fn a_retried_item_takes_the_place_of_the_failed_one_even_if_that_was_read_ahead() {
    within_limit(|| {
        let (_folder, path) = place();
        let journal = Journal::open(&path, &ADD).unwrap();
        record(&journal, &[(0, entry(b"a")), (1, failed(b"no")), (2, failed(b"no"))]);
        assert_eq!(journal.find(0).unwrap(), Some(entry(b"a")));
        record(&journal, &[(1, failed(b"still no")), (1, entry(b"b"))]);
        assert_eq!(journal.find(1).unwrap(), Some(entry(b"b")));
        assert_eq!(journal.find(1).unwrap(), Some(entry(b"b")));
        assert_eq!(journal.find(2).unwrap(), Some(failed(b"no")));
        assert_eq!(journal.recorded(), 3);
    });
}

#[test]
fn done_comes_back_in_the_order_of_recording_and_after_all_recorders_are_dropped_the_receiver_ends() {
    within_limit(|| {
        let (_folder, path) = place();
        let journal = Journal::open(&path, &ADD).unwrap();
        let numbers: Vec<u64> = (0..20_480).map(|n| n ^ 0xff).collect();
        let entries: Vec<_> = numbers.iter().map(|n| (*n, entry(&n.to_le_bytes()))).collect();
        assert_eq!(record(&journal, &entries), (0..numbers.len()).collect::<Vec<_>>());
        assert_eq!(journal.recorded(), 20_480);
        for index in 0..20_480_u64 {
            assert_eq!(journal.find(index).unwrap(), Some(entry(&index.to_le_bytes())));
        }
    });
}

#[test]
fn outcomes_are_recorded_although_nobody_receives() {
    within_limit(|| {
        let (_folder, path) = place();
        let journal = Journal::open(&path, &ADD).unwrap();
        let (recorder, recorded) = journal.writer().unwrap();
        drop(recorded);
        block_on(async { recorder.record(0, entry(b"a"), ()).await.unwrap() });
        drop((recorder, journal));
        assert_eq!(reopen(&path).find(0).unwrap(), Some(entry(b"a")));
    });
}

#[test]
fn an_outcome_larger_than_the_queue_is_recorded() {
    within_limit(|| {
        let (_folder, path) = place();
        let journal = Journal::open(&path, &ADD).unwrap();
        let large = entry(&vec![7; 20 * 1024 * 1024]);
        record(&journal, &[(0, large.clone()), (1, entry(b"b")), (2, large.clone())]);
        drop(journal);
        let journal = reopen(&path);
        assert_eq!(journal.find(0).unwrap(), Some(large));
        assert_eq!(journal.find(1).unwrap(), Some(entry(b"b")));
    });
}

#[test]
fn a_journal_of_another_job_is_refused_with_both_names() {
    within_limit(|| {
        let (_folder, path) = place();
        drop(Journal::open(&path, &ADD).unwrap());
        for job in [Job { action: "div", ..ADD }, Job { application: "abacus", ..ADD }] {
            let error = Journal::open(&path, &job).unwrap_err();
            assert!(matches!(error, JournalError::OtherJob { .. }), "{error}");
            let (path, application, action) = (path.display(), job.application, job.action);
            let expected = format!(
                "the journal `{path}` is about `add` of `calculator`, not about `{action}` of `{application}`: use another file"
            );
            assert_eq!(error.to_string(), expected);
        }
    });
}

#[test]
fn an_input_that_begins_otherwise_is_refused_at_once() {
    within_limit(|| {
        let (_folder, path) = place();
        let journal = Journal::open(&path, &ADD).unwrap();
        journal.begin([1; 16]).unwrap();
        let mut journal = Some(journal);
        for _ in 0..2 {
            let journal = journal.take().unwrap_or_else(|| reopen(&path));
            journal.begin([1; 16]).unwrap();
            let error = journal.begin([2; 16]).unwrap_err();
            assert!(matches!(error, JournalError::OtherInput { index: 0, .. }), "{error}");
            assert!(error.to_string().contains("item `0` differs"), "{error}");
        }
    });
}

#[test]
fn a_journal_that_is_open_is_refused_until_it_is_dropped() {
    within_limit(|| {
        let (_folder, path) = place();
        let journal = Journal::open(&path, &ADD).unwrap();
        let (recorder, _recorded) = journal.writer::<()>().unwrap();
        let in_use = || matches!(Journal::open(&path, &ADD), Err(JournalError::InUse { .. }));
        assert!(in_use());
        drop(journal);
        assert!(in_use(), "somebody may still record");
        drop(recorder);
        reopen(&path);
    });
}

#[test]
fn several_that_make_the_same_journal_at_once_end_up_with_one_that_is_whole() {
    within_limit(|| {
        let (_folder, path) = place();
        let open = |action: &'static str| {
            let path = path.clone();
            thread::spawn(move || Journal::open(&path, &Job { action, ..ADD }).map(drop).map_err(|e| e.to_string()))
        };
        let results: Vec<_> = ["add", "div", "sub"].map(open).into_iter().map(|t| t.join().unwrap()).collect();
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1, "{results:?}");
        let others: Vec<_> = results.into_iter().filter_map(Result::err).collect();
        assert!(others.iter().all(|error| error.contains("is about")), "{others:?}");
    });
}

#[test]
fn what_a_killed_creator_left_behind_does_not_matter() {
    within_limit(|| {
        let (folder, path) = place();
        let left = folder.path().join(".0123456789abcdef.multinodes-new");
        fs::write(&left, [0; 5000]).unwrap();
        let old = std::time::SystemTime::now() - Duration::from_secs(120);
        fs::File::options().write(true).open(&left).unwrap().set_modified(old).unwrap();
        drop(Journal::open(&path, &ADD).unwrap());
        let names: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["map.journal"]);
    });
}

#[cfg(unix)]
#[test]
fn a_planted_link_is_never_written_through() {
    use std::os::unix::fs::symlink;
    within_limit(|| {
        let (folder, path) = place();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("victim"), "precious").unwrap();
        fs::write(at("emptied"), "").unwrap();
        symlink(at("victim"), at(".map.journal.multinodes-new")).unwrap();
        drop(Journal::open(&path, &ADD).unwrap());
        symlink(at("emptied"), at("to-empty")).unwrap();
        symlink(at("nowhere"), at("dangling")).unwrap();
        fs::hard_link(at("emptied"), at("second-name")).unwrap();
        for name in ["to-empty", "dangling", "second-name"] {
            let error = Journal::open(&at(name), &ADD).unwrap_err();
            assert!(matches!(error, JournalError::Io { .. }), "{name}: {error}");
        }
        assert_eq!(fs::read(at("victim")).unwrap(), b"precious");
        assert_eq!(fs::read(at("emptied")).unwrap(), b"");
        assert!(!at("nowhere").exists());
    });
}

#[test]
fn an_empty_file_becomes_a_journal() {
    within_limit(|| {
        let (_folder, path) = place();
        fs::write(&path, []).unwrap();
        record(&Journal::open(&path, &ADD).unwrap(), &[(0, entry(b"a"))]);
        assert_eq!(reopen(&path).recorded(), 1);
    });
}

#[cfg(unix)]
#[test]
fn only_its_owner_can_read_a_journal() {
    use std::os::unix::fs::PermissionsExt;
    within_limit(|| {
        let (_folder, path) = place();
        let _journal = Journal::open(&path, &ADD).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_recorded_and_reopened_the_last_outcome_of_each_item_is_found(
        runs in vec(vec(vec((0..48_u64, any::<bool>(), vec(any::<u8>(), 0..64)), 0..24), 0..4), 1..5),
    ) {
        let (_folder, path) = place();
        let mut expected = BTreeMap::new();
        for run in runs {
            let journal = Journal::open(&path, &ADD).unwrap();
            for (turn, outcomes) in run.into_iter().enumerate() {
                let entries: Vec<_> = outcomes
                    .into_iter()
                    .map(|(index, failed, outcome)| (index, Entry { input: [index as u8; 16], outcome, state: if failed { State::Failed } else { State::Done } }))
                    .collect();
                // Something is read ahead, and then overwritten.
                let start = turn as u64;
                prop_assert_eq!(journal.find(start).unwrap(), expected.get(&start).cloned());
                record(&journal, &entries);
                expected.extend(entries);
                for index in 0..48 {
                    prop_assert_eq!(journal.find(index).unwrap(), expected.get(&index).cloned());
                }
            }
            prop_assert_eq!(journal.recorded(), expected.len() as u64);
            prop_assert_eq!(journal.highest(), expected.keys().last().copied());
            for index in (0..48).rev() {
                prop_assert_eq!(journal.find(index).unwrap(), expected.get(&index).cloned());
            }
        }
        let journal = Journal::open(&path, &ADD).unwrap();
        for index in 0..48 {
            prop_assert_eq!(journal.find(index).unwrap(), expected.get(&index).cloned());
        }
    }
}

fn place() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("map.journal");
    (folder, path)
}

fn reopen(path: &Path) -> Journal {
    Journal::open(path, &ADD).unwrap()
}

fn entry(outcome: &[u8]) -> Entry {
    Entry { input: [outcome.len() as u8; 16], outcome: outcome.to_vec(), state: State::Done }
}

fn failed(outcome: &[u8]) -> Entry {
    Entry { state: State::Failed, ..entry(outcome) }
}

/// Records all of these durably. Returns what came back, which is the position of each.
fn record(journal: &Journal, entries: &[(u64, Entry)]) -> Vec<usize> {
    let (durable, end) = try_record(journal, entries);
    end.unwrap();
    durable
}

/// Records these until one cannot be recorded. Returns the positions of those that came back as durable.
fn try_record(journal: &Journal, entries: &[(u64, Entry)]) -> (Vec<usize>, Result<(), JournalError>) {
    let (recorder, mut recorded) = journal.writer().unwrap();
    block_on(async {
        let recording = async move {
            for (position, (index, entry)) in entries.iter().enumerate() {
                if recorder.record(*index, entry.clone(), position).await.is_err() {
                    return;
                }
            }
        };
        let receiving = async {
            let mut durable = Vec::new();
            while let Some(batch) = recorded.recv().await {
                match batch {
                    Ok(batch) => durable.extend(batch),
                    Err(error) => {
                        assert!(recorded.recv().await.is_none(), "nothing comes after an error");
                        return (durable, Err(error));
                    }
                }
            }
            (durable, Ok(()))
        };
        futures::join!(recording, receiving).1
    })
}

fn block_on<R>(future: impl Future<Output = R>) -> R {
    runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

fn within_limit(test: impl FnOnce() + Send + 'static) {
    let (ended, end) = channel::<()>();
    let thread = thread::spawn(move || {
        let _ended = ended;
        test();
    });
    assert_ne!(end.recv_timeout(LIMIT), Err(RecvTimeoutError::Timeout), "not done within {LIMIT:?}");
    thread.join().unwrap_or_else(|panic| resume_unwind(panic));
}
