//! What a node costs that has nothing to do: `multinodes start` with two neighbours.

use std::{
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use crate::{
    Error,
    contestant::Contestant,
    options::Options,
    process::{Process, TICKS_PER_SECOND},
    results::{Metric, Results},
};

const NODES: usize = 3;

/// Until what happens once at the start is over.
const SETTLING: Duration = Duration::from_secs(10);

/// CPU time is counted in hundredths of a second: over this window and three nodes that is 0.02 % of a core.
const WINDOW: Duration = Duration::from_secs(15);

/// Starts a few nodes, waits, and reads what the kernel has counted for them.
pub(crate) fn measure(options: &Options, results: &mut Results) -> Result<(), Error> {
    if !options.contestants.contains(&Contestant::MultiNodes) {
        return Ok(());
    }
    if !cfg!(target_os = "linux") {
        let reason = "needs /proc".to_owned();
        results.skipped.extend([(Metric::IdleMemory, reason.clone()), (Metric::IdleCpu, reason)]);
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let swarm = format!("bench-{}", std::process::id());
    let mut nodes = Vec::new();
    for number in 1..=NODES {
        let mut command = Command::new(program()?);
        command.args(["start", "--json", "--swarm", &swarm, "--name", &format!("idle-{number}")]);
        nodes.push(Process::start(command.env("XDG_RUNTIME_DIR", folder.path()))?);
    }
    for node in &nodes {
        for _ in 1..NODES {
            node.expect(r#"{"event":"joined""#)?;
        }
    }
    eprint!("\r\x1b[2Kidle: {NODES} nodes, {} s", (SETTLING + WINDOW).as_secs());
    std::thread::sleep(SETTLING);
    let (begin, before) = (Instant::now(), ticks(&nodes)?);
    std::thread::sleep(WINDOW);
    let (after, elapsed) = (ticks(&nodes)?, begin.elapsed());
    eprint!("\r\x1b[2K");
    for ((node, before), after) in nodes.iter().zip(before).zip(after) {
        results.add(Metric::IdleMemory, Contestant::MultiNodes, resident_mib(node.id())?);
        let seconds = (after - before) / TICKS_PER_SECOND;
        results.add(Metric::IdleCpu, Contestant::MultiNodes, seconds / elapsed.as_secs_f64() * 100.0);
    }
    Ok(())
}

fn program() -> Result<PathBuf, Error> {
    Ok(match std::env::var_os("MULTINODES_BIN") {
        Some(program) => program.into(),
        None => std::env::current_exe()?.with_file_name("multinodes"),
    })
}

fn ticks(nodes: &[Process]) -> Result<Vec<f64>, Error> {
    nodes.iter().map(|node| ticks_of(node.id())).collect()
}

/// User and system time: fields 14 and 15, counted after the name, which may hold spaces and parentheses.
pub(crate) fn ticks_of(id: u32) -> Result<f64, Error> {
    let text = std::fs::read_to_string(format!("/proc/{id}/stat"))?;
    let fields: Vec<&str> = text.rsplit_once(')').ok_or("no name in `stat`")?.1.split_whitespace().collect();
    let field = |index: usize| fields.get(index - 3).and_then(|text| text.parse::<f64>().ok());
    Ok(field(14).zip(field(15)).map(|(user, system)| user + system).ok_or("no times in `stat`")?)
}

pub(crate) fn resident_mib(id: u32) -> Result<f64, Error> {
    let text = std::fs::read_to_string(format!("/proc/{id}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no `VmRSS` in `status`")?;
    let kib: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib / 1024.0)
}
