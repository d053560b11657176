//! How many outcomes a second a journal records durably.
//!
//! ```text
//! cargo bench --bench journal -- [FOLDER]
//! ```
//!
//! The file is made in FOLDER, by default the system's temporary one: what is measured is that disk's sync.

#![allow(clippy::print_stdout, reason = "it is a program")]

use std::{
    path::Path,
    time::{Duration, Instant},
};

#[path = "../src/files.rs"]
#[allow(
    dead_code,
    unused_imports,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "a module of the library and its tests"
)]
mod files;

#[path = "../src/quoting.rs"]
#[allow(
    dead_code,
    unused_imports,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "a module of the library and its tests"
)]
mod quoting;

#[path = "../src/map/journal.rs"]
#[allow(
    dead_code,
    unused_imports,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "a module of the library and its tests"
)]
mod journal;

use journal::{Entry, Job, Journal, JournalError, State};

/// What a small outcome takes.
const OUTCOME: usize = 40;

const ENTRIES: u64 = 1_000_000;

const JOB: Job<'_> = Job { application: "calculator", action: "add", at_most_once: false };

fn main() -> Result<(), JournalError> {
    let folder = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let folder = folder.map_or_else(std::env::temp_dir, Into::into).join(format!("journal-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("the folder can be made");
    let result = measure(&folder);
    std::fs::remove_dir_all(&folder).expect("the folder can be removed");
    result
}

fn measure(folder: &Path) -> Result<(), JournalError> {
    for (in_flight, entries) in [(1, 500), (64, 20_000), (1024, 200_000), (4096, ENTRIES), (16_384, ENTRIES)] {
        let path = folder.join(format!("{in_flight}.journal"));
        let journal = Journal::open(&path, &JOB)?;
        journal.begin([0; 16])?;
        let (elapsed, commits, longest) = record(&journal, in_flight, entries)?;
        let seconds = elapsed.as_secs_f64();
        println!(
            "{in_flight:>6} in flight: {:>8.0} entries/s, {:>5.0} commits/s, {:>6.0} entries a commit, longest {longest:?}",
            entries as f64 / seconds,
            commits as f64 / seconds,
            entries as f64 / commits as f64,
        );
    }
    let path = folder.join("4096.journal");
    println!("{ENTRIES} entries of {OUTCOME} bytes take {} MiB", std::fs::metadata(&path).map_or(0, |m| m.len()) >> 20);
    let begun = Instant::now();
    let journal = Journal::open(&path, &JOB)?;
    println!("opened and verified in {:?}", begun.elapsed());
    let begun = Instant::now();
    for index in 0..ENTRIES {
        assert!(journal.find(index)?.is_some(), "{index} is recorded");
    }
    println!("found one after the other: {:.0} entries/s", ENTRIES as f64 / begun.elapsed().as_secs_f64());
    let begun = Instant::now();
    for turn in 0..ENTRIES / 10 {
        assert!(journal.find(turn.wrapping_mul(7_919) % ENTRIES)?.is_some(), "every one is recorded");
    }
    println!("found here and there: {:.0} entries/s", (ENTRIES / 10) as f64 / begun.elapsed().as_secs_f64());
    Ok(())
}

/// Keeps so many outcomes on their way, handed in by one task and waited for by another, as a map does.
fn record(journal: &Journal, in_flight: usize, entries: u64) -> Result<(Duration, u64, Duration), JournalError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime is there");
    let (recorder, mut recorded) = journal.writer::<Instant>()?;
    runtime.block_on(async {
        let room = std::sync::Arc::new(tokio::sync::Semaphore::new(in_flight));
        let begun = Instant::now();
        let gate = room.clone();
        tokio::spawn(async move {
            for index in 0..entries {
                let Ok(place) = gate.acquire().await else { return };
                place.forget();
                // Outcomes come a little out of order.
                let entry = Entry { input: [0; 16], outcome: vec![index as u8; OUTCOME], state: State::Done };
                if recorder.record(index ^ 3, entry, Instant::now()).await.is_err() {
                    return;
                }
            }
        });
        let (mut durable, mut commits, mut longest) = (0, 0, Duration::ZERO);
        while let Some(batch) = recorded.recv().await {
            let batch = batch?;
            commits += 1;
            durable += batch.len() as u64;
            longest = batch.iter().map(Instant::elapsed).max().max(Some(longest)).unwrap_or_default();
            room.add_permits(batch.len());
        }
        assert_eq!(durable, entries, "all are durable");
        Ok((begun.elapsed(), commits, longest))
    })
}
