//! Journals of other processes, which are killed.

use std::{
    env,
    io::{BufRead, BufReader, Write, stdout},
    process::{Child, Command, Stdio},
    time::Instant,
};

use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio::sync::Semaphore;

use super::*;

/// Where the children find the path of their journal.
pub(super) const PATH: &str = "MULTINODES_TEST_JOURNAL";

const KILLS: u64 = 12;

/// So many outcomes are on their way to the file: enough for a kill to hit some.
const IN_FLIGHT: usize = 256;

#[test]
fn whatever_was_durable_when_its_process_was_killed_is_found_again() {
    within_limit(|| {
        let (_folder, path) = place();
        let mut random = StdRng::seed_from_u64(rand::random());
        let (mut durable, mut last) = (0, 0);
        for turn in 0..KILLS {
            // At first while the journal is made, then while it is verified or written.
            let life = Duration::from_micros(random.random_range(0..25_000 * (turn + 1)));
            let said = run_and_kill(&path, life);
            durable = said.unwrap_or(durable).max(durable);
            let journal = reopen(&path);
            assert!(journal.recorded() >= durable, "{} of {durable} are left", journal.recorded());
            assert!(journal.recorded() >= last, "what was found once is found again");
            last = journal.recorded();
            for index in 0..last {
                assert_eq!(journal.find(index).unwrap(), Some(truth(index)));
            }
        }
        assert!(durable > 0, "some child lived long enough");
        println!("{durable} durable, {last} recorded after {KILLS} kills");
    });
}

#[test]
fn a_journal_in_use_by_another_process_is_refused_until_that_is_killed() {
    within_limit(|| {
        let (_folder, path) = place();
        let mut child = start(&path);
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().starts_with("durable")), "it has the journal open");
        // It is read on, or the child would wait for that.
        let reading = thread::spawn(move || lines.count());
        let error = Journal::open(&path, &ADD).unwrap_err();
        assert!(matches!(error, JournalError::InUse { .. }), "{error}");
        child.kill().unwrap();
        child.wait().unwrap();
        reading.join().unwrap();
        assert!(reopen(&path).recorded() > 0);
    });
}

#[test]
#[ignore = "it is the child of other tests"]
fn child_that_records_until_it_is_killed() {
    let Some(path) = env::var_os(PATH) else { return };
    let journal = Journal::open(Path::new(&path), &ADD).unwrap();
    let (recorder, mut recorded) = journal.writer().unwrap();
    let room = Semaphore::new(IN_FLIGHT);
    let recording = async {
        // It is killed long before the end.
        for index in journal.recorded().. {
            room.acquire().await.unwrap().forget();
            recorder.record(index, truth(index), index).await.unwrap();
        }
    };
    let telling = async {
        // The harness has left its own line open.
        writeln!(stdout()).unwrap();
        while let Some(batch) = recorded.recv().await {
            let batch = batch.unwrap();
            room.add_permits(batch.len());
            writeln!(stdout(), "durable {}", batch.last().unwrap() + 1).unwrap();
        }
    };
    block_on(async { futures::join!(recording, telling) });
}

/// Runs a child for so long. Returns how many outcomes it has said to be durable.
fn run_and_kill(path: &Path, life: Duration) -> Option<u64> {
    let begun = Instant::now();
    let mut child = start(path);
    let output = child.stdout.take().unwrap();
    let (tell, told) = channel();
    let reading = thread::spawn(move || {
        for line in BufReader::new(output).lines() {
            let line = line.unwrap();
            if let Some(count) = line.strip_prefix("durable ") {
                // The last line may be cut off, but then it is smaller than it was.
                tell.send(count.parse::<u64>().unwrap_or(0)).unwrap();
            }
        }
    });
    let mut durable = None;
    while let Ok(count) = told.recv_timeout(life.saturating_sub(begun.elapsed())) {
        durable = Some(count);
    }
    child.kill().unwrap();
    child.wait().unwrap();
    reading.join().unwrap();
    durable.max(told.try_iter().max())
}

fn start(path: &Path) -> Child {
    child("processes::child_that_records_until_it_is_killed", Command::new(env::current_exe().unwrap()))
        .env(PATH, path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// This same program, as another process that runs one test, for which it is the command or the end of it.
pub(super) fn child(test: &str, mut command: Command) -> Command {
    let module = module_path!().rsplit_once("::").unwrap().0;
    // Without the name of the crate.
    let module = module.split_once("::").unwrap().1;
    command.args(["--exact", &format!("{module}::{test}"), "--ignored", "--nocapture", "--test-threads=1"]);
    command.stdin(Stdio::null());
    command
}

fn truth(index: u64) -> Entry {
    Entry { input: [index as u8; 16], outcome: index.to_le_bytes().repeat(1 + index as usize % 9), state: State::Done }
}
