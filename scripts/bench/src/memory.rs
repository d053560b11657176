//! What a map without end holds in memory, when its worker is much slower than its input.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use bytes::Bytes;

use crate::{
    Error,
    contestant::{Blob, Contestant},
    idle,
    options::Options,
    process::{Process, Server},
    results::{Metric, Results},
    work,
};

/// Large enough that a second of an input which is not held back would be seen: it has gigabytes in that time.
const ITEM: usize = 4096;

/// When the memory is looked at.
const EARLY: Duration = Duration::from_secs(5);
const LATE: Duration = Duration::from_secs(20);

/// Gives workers items without end, and reads what comes of them.
pub(crate) async fn submit(swarm: String, address: String) -> Result<(), Error> {
    let node = work::submitter(&swarm, &[address]).await?;
    let items = std::iter::repeat_with(|| Blob(Bytes::from_static(&[7; ITEM])));
    let map = node.app(work::SLEEPING).map_iter::<f64>(work::RUN, items);
    let mut first = Some("running");
    work::read(map, |_| {
        if let Some(line) = first.take() {
            println!("{line}");
        }
    })
    .await
}

/// Reads what the kernel says of the submitter's resident memory after a while, and much later.
pub(crate) fn measure(options: &Options, results: &mut Results) -> Result<(), Error> {
    if !options.contestants.contains(&Contestant::MultiNodes) {
        return Ok(());
    }
    if !cfg!(target_os = "linux") {
        results.skipped.push((Metric::MemoryLate, "needs /proc".to_owned()));
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let swarm = format!("bench-{}", std::process::id());
    let worker = Server::worker(&swarm, folder.path())?;
    let submitter = Process::start(Command::new(std::env::current_exe()?).args(["submit", &swarm, &worker.address]))?;
    submitter.expect("running")?;
    eprint!("\r\x1b[2Kmap-memory: {} s", LATE.as_secs());
    let begin = Instant::now();
    for (metric, when) in [(Metric::MemoryEarly, EARLY), (Metric::MemoryLate, LATE)] {
        std::thread::sleep(when.saturating_sub(begin.elapsed()));
        results.add(metric, Contestant::MultiNodes, idle::resident_mib(submitter.id())?);
    }
    eprint!("\r\x1b[2K");
    submitter.finish()?;
    worker.process.finish()
}
