//! Honest calls while somebody else attacks the node that answers them, and what the attack costs that node.

use std::{
    collections::BTreeMap,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;

use crate::{
    Error,
    attacker::{Attack, Target, alone},
    contestant::{Contestant, runtime},
    idle::{resident_mib, ticks_of},
    load,
    options::Options,
    ours::MultiNodes,
    process::{Process, Server, TICKS_PER_SECOND},
    results::{Metric, Results},
};

/// Honest callers: enough to keep a core busy.
const CALLERS: usize = 64;

/// Whatever the honest payload is, it is small.
const PAYLOAD: &[u8] = &[7; 64];

/// How often the memory of the node is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// Who sends half a frame or reads nothing is counted when it is cut off, after 30 s.
const PATIENCE: Duration = Duration::from_secs(35);

/// What came of one attack.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) name: &'static str,
    /// Honest calls a second.
    pub(crate) before: f64,
    pub(crate) during: f64,
    pub(crate) after: f64,
    /// The node's resident memory, in MiB.
    pub(crate) memory_before: f64,
    pub(crate) memory_most: f64,
    /// CPU time while it went on, in hundredths of a core.
    pub(crate) attacker: f64,
    pub(crate) node: f64,
    /// Under which name the node has counted how much of it.
    pub(crate) counted: String,
}

impl Outcome {
    /// What is left of the honest calls.
    pub(crate) fn ratio(&self) -> f64 {
        self.during / self.before
    }
}

/// Is the attacker, on one thread, until it is killed.
pub(crate) fn run(attack: Attack, swarm: &str, address: &str) -> Result<(), Error> {
    // Whoever drives is gone when standard input ends.
    std::thread::spawn(|| {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        std::process::exit(0);
    });
    let target = Target::new(swarm, address);
    println!("attacking");
    alone(attack.run(target, Arc::<AtomicU64>::default()));
    Ok(())
}

/// Goes through all attacks, each against a node of its own.
pub(crate) fn measure(options: &Options, results: &mut Results) -> Result<(), Error> {
    if !options.contestants.contains(&Contestant::MultiNodes) {
        return Ok(());
    }
    if !cfg!(target_os = "linux") {
        results.skipped.push((Metric::Calls(CALLERS), "attacks need /proc".to_owned()));
        return Ok(());
    }
    for (name, attack) in Attack::ALL {
        eprint!("\r\x1b[2Kattack: {name}");
        let outcome = one(name, attack, options.length);
        eprint!("\r\x1b[2K");
        results.attacks.push(outcome.map_err(|error| format!("{name}: {error}"))?);
    }
    Ok(())
}

fn one(name: &'static str, attack: Attack, length: Duration) -> Result<Outcome, Error> {
    let folder = tempfile::tempdir()?;
    let swarm = format!("bench-{}", std::process::id());
    let server = Server::start(Contestant::MultiNodes, &swarm, folder.path(), &[])?;
    let id = server.process.id();
    let runtime = runtime()?;
    let client = runtime.block_on(MultiNodes::connect(&server.address, &swarm))?;
    let rate = || runtime.block_on(load::in_flight(client.clone(), CALLERS, Bytes::from_static(PAYLOAD), length));
    let counter = attack.counted_as();
    let counters = || runtime.block_on(client.counters());

    let before = rate()?;
    let memory_before = resident_mib(id)?;
    let counted_before = count(&counters()?, counter);
    let address = client.address_of(&server.address)?;
    let mut command = Command::new(std::env::current_exe()?);
    let attacker = Process::start(command.args(["attack", name, &swarm, &address]))?;
    attacker.expect("attacking")?;
    let watch = Watch::begin(id);
    let (begin, ticks) = (Instant::now(), (ticks_of(attacker.id())?, ticks_of(id)?));
    let during = rate()?;
    let share = |now: f64, then: f64| (now - then) / TICKS_PER_SECOND / begin.elapsed().as_secs_f64() * 100.0;
    let (attacking, node) = (share(ticks_of(attacker.id())?, ticks.0), share(ticks_of(id)?, ticks.1));
    while count(&counters()?, counter) == counted_before && begin.elapsed() < PATIENCE {
        std::thread::sleep(LOOK);
    }
    let counted = format!("{} {counter}", count(&counters()?, counter) - counted_before);
    let memory_most = watch.end();
    drop(attacker);
    let after = rate()?;
    drop(client);
    runtime.shutdown_background();
    server.process.finish()?;
    Ok(Outcome { name, before, during, after, memory_before, memory_most, attacker: attacking, node, counted })
}

fn count(counters: &BTreeMap<String, u64>, name: &str) -> u64 {
    counters.get(name).copied().unwrap_or_default()
}

/// Looks at the memory of a process every now and then.
struct Watch {
    over: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<f64>,
}

impl Watch {
    fn begin(id: u32) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let ends = over.clone();
        let thread = std::thread::spawn(move || {
            let mut most = 0.0_f64;
            while !ends.load(Relaxed) {
                most = most.max(resident_mib(id).unwrap_or_default());
                std::thread::sleep(LOOK);
            }
            most
        });
        Self { over, thread }
    }

    /// The most that there was.
    fn end(self) -> f64 {
        self.over.store(true, Relaxed);
        self.thread.join().unwrap_or(f64::NAN)
    }
}
