//! What a flow of large tuples takes when nobody reads what comes of it: bounded in bytes, on both nodes together. By itself
//! in its process: it looks at the memory of all of it.

#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![cfg(target_os = "linux")]

#[path = "common/in_process.rs"]
mod in_process;
#[path = "common/processes.rs"]
mod processes;

use std::time::Duration;

use futures::{StreamExt, stream};
use in_process::{hosts, pair};
use multinodes::topology::{Emitter, Flow, Grouping, MAX_EMITTED_BYTES, MAX_PENDING_BYTES, Stage};
use processes::{MIB, forget_peak, peak};

/// On a busy machine a hundred megabytes take a while to encrypt, without optimisation.
const LIMIT: Duration = Duration::from_secs(120);

/// The size of an item and of what becomes of it, in bytes.
const LARGE: usize = 10_000_000;

/// What waits for a stage and what nobody has read, by the documented defaults: 1,088 and 1,024 places of 64 KiB.
const WAITING: usize = (1_088 + 1_024) * 64 * 1024;

/// Messages under way between the two, several copies of each, and what an allocator keeps.
const UNDER_WAY: usize = 16 * LARGE;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_tuples_that_nobody_reads_take_no_more_than_the_limits_say() {
    let (source, worker) = pair("source", "worker").await;
    let grow = Stage::new(|text: String, out: Emitter| async move { Ok(out.emit(text).await?) });
    worker.register("grow", grow).unwrap();
    hosts(&source, "grow", 1).await;
    let pid = std::process::id();
    forget_peak();
    let before = peak(pid);
    // 2.6 GB, if anybody took them.
    let items = stream::iter(0..260).map(|_| "x".repeat(LARGE));
    let flow = Flow::new("f").stage("grow", Grouping::Shuffle).ack_timeout(Duration::from_secs(2));
    let run = flow.run(&source, items).unwrap();
    // All places are taken, and what waits has timed out and come again.
    let full = async {
        loop {
            let counters = run.counters();
            if counters.outputs > 0 && counters.replayed >= 7 {
                return counters;
            }
            tokio::task::yield_now().await;
        }
    };
    let counters = tokio::time::timeout(LIMIT, full).await.expect("in time");
    let taken = peak(pid) - before;
    let most = (MAX_PENDING_BYTES + WAITING + MAX_EMITTED_BYTES + UNDER_WAY) as u64;
    assert!(taken <= most, "{} MiB, of which {} are allowed: {counters:?}", taken / MIB, most / MIB);
    assert!(counters.emitted < 26, "{counters:?}");
}
