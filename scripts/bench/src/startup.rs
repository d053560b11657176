//! From the start of a process to its first answered call, with nothing configured but the swarm's name.

use std::{path::Path, process::Command, time::Instant};

use crate::{
    Error,
    contestant::{Contestant, runtime},
    options::Options,
    ours,
    process::{Process, Server},
    results::{Metric, Results},
};

/// The command (words apart by spaces) that runs another one in the other namespace; `scripts/netns-pair.sh` sets it.
const OTHER_NAMESPACE: &str = "MULTINODES_OTHER_NAMESPACE";

/// A process start takes milliseconds: more of them than rounds, so that the median is steady.
const STARTS_A_ROUND: usize = 5;

/// Is the process whose start is timed.
pub(crate) fn first_call(swarm: &str) -> Result<(), Error> {
    runtime()?.block_on(ours::first_call(swarm))
}

/// Both processes on this host: they share the folder in which nodes leave their addresses.
pub(crate) fn same_host(options: &Options, results: &mut Results) -> Result<(), Error> {
    let folder = tempfile::tempdir()?;
    starts(options, results, Metric::Startup, folder.path(), folder.path(), &[])
}

/// The server in another network namespace and with another folder: only mDNS can find it.
pub(crate) fn over_the_lan(options: &Options, results: &mut Results) -> Result<(), Error> {
    let Ok(other) = std::env::var(OTHER_NAMESPACE) else {
        results.skipped.push((Metric::StartupLan, "needs network namespaces".to_owned()));
        return Ok(());
    };
    let before: Vec<String> = other.split_whitespace().map(str::to_owned).collect();
    let (here, there) = (tempfile::tempdir()?, tempfile::tempdir()?);
    starts(options, results, Metric::StartupLan, here.path(), there.path(), &before)
}

fn starts(
    options: &Options,
    results: &mut Results,
    metric: Metric,
    here: &Path,
    there: &Path,
    before: &[String],
) -> Result<(), Error> {
    if !options.contestants.contains(&Contestant::MultiNodes) {
        return Ok(());
    }
    let swarm = format!("bench-{}", std::process::id());
    let server = Server::start(Contestant::MultiNodes, &swarm, there, before)?;
    for _ in 0..options.rounds * STARTS_A_ROUND {
        let begin = Instant::now();
        let process = Process::start(
            Command::new(std::env::current_exe()?).args(["first-call", &swarm]).env("XDG_RUNTIME_DIR", here),
        )?;
        process.expect("answered")?;
        results.add(metric, Contestant::MultiNodes, begin.elapsed().as_secs_f64() * 1e3);
        process.finish()?;
    }
    server.process.finish()
}
