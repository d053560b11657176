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

/// What an attack has to leave of the honest calls beside a process that only spins, and which attacks have to.
pub(crate) const GOAL: f64 = 0.85;
const GOALS: [&str; 7] = ["sockets", "connections", "lanes", "calls", "answers", "records", "gossip"];

/// What came of one attack.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) name: &'static str,
    /// Honest calls a second, with nobody else there.
    pub(crate) before: f64,
    pub(crate) after: f64,
    /// Round by round: beside a process in the attacker's place that only spins, and during the attack.
    pub(crate) beside: Vec<f64>,
    pub(crate) during: Vec<f64>,
    /// The node's resident memory, in MiB.
    pub(crate) memory_before: f64,
    pub(crate) memory_most: f64,
    /// CPU time while it went on, in hundredths of a core.
    pub(crate) attacker: f64,
    pub(crate) node: f64,
    /// The longest turn of the task that owns the node's network, in milliseconds.
    pub(crate) longest_turn: f64,
    /// Under which name the node has counted how much of it.
    pub(crate) counted: String,
}

impl Outcome {
    /// What the attack leaves of the honest calls that a process leaves which takes as much of the machine, but does not
    /// attack: the median of the rounds.
    pub(crate) fn ratio(&self) -> f64 {
        median(self.during.iter().zip(&self.beside).map(|(during, beside)| during / beside).collect())
    }

    /// Whether that is enough; none of attacks without a goal.
    pub(crate) fn is_met(&self) -> Option<bool> {
        GOALS.contains(&self.name).then(|| self.ratio() >= GOAL)
    }
}

/// The middle one.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Is what an attack is compared with: takes a core as an attacker does, and harms nobody, until it is killed.
pub(crate) fn spin() -> Result<(), Error> {
    let ended = Arc::new(AtomicBool::new(false));
    let end = ended.clone();
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        end.store(true, Relaxed);
    });
    println!("spinning");
    while !ended.load(Relaxed) {
        std::hint::spin_loop();
    }
    Ok(())
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
    let only = std::env::var("BENCH_ATTACK").ok();
    for (name, attack) in Attack::ALL.into_iter().filter(|(name, _)| only.as_deref().is_none_or(|only| only == *name)) {
        eprint!("\r\x1b[2Kattack: {name}");
        let outcome = one(name, attack, options);
        eprint!("\r\x1b[2K");
        results.attacks.push(outcome.map_err(|error| format!("{name}: {error}"))?);
    }
    Ok(())
}

fn one(name: &'static str, attack: Attack, options: &Options) -> Result<Outcome, Error> {
    let folder = tempfile::tempdir()?;
    let swarm = format!("bench-{}", std::process::id());
    let server = Server::start(Contestant::MultiNodes, &swarm, folder.path(), &[])?;
    let id = server.process.id();
    let runtime = runtime()?;
    let client = runtime.block_on(MultiNodes::connect(&server.address, &swarm))?;
    let payload = Bytes::from_static(PAYLOAD);
    let rate = || runtime.block_on(load::in_flight(client.clone(), CALLERS, payload.clone(), options.length));
    let counter = attack.counted_as();
    let counters = || runtime.block_on(client.counters());
    let stand_in = |role: &[&str], says: &str| {
        let process = Process::start(Command::new(std::env::current_exe()?).args(role))?;
        process.expect(says)?;
        Ok::<_, Error>(process)
    };

    let before = rate()?;
    let memory_before = resident_mib(id)?;
    let counted_before = count(&counters()?, counter);
    let address = client.address_of(&server.address)?;
    let watch = Watch::begin(id);
    let (mut beside, mut during) = (Vec::new(), Vec::new());
    let (mut cpu, mut elapsed) = ([0.0; 2], 0.0);
    for round in 1..=options.rounds {
        let spinning = stand_in(&["spin"], "spinning")?;
        beside.push(rate()?);
        drop(spinning);
        let attacker = stand_in(&["attack", name, &swarm, &address], "attacking")?;
        let ticks = || Ok::<_, Error>([ticks_of(attacker.id())?, ticks_of(id)?]);
        let (begin, ticks_before) = (Instant::now(), ticks()?);
        during.push(rate()?);
        elapsed += begin.elapsed().as_secs_f64();
        for (sum, (now, then)) in cpu.iter_mut().zip(ticks()?.into_iter().zip(ticks_before)) {
            *sum += now - then;
        }
        while round == options.rounds && count(&counters()?, counter) == counted_before && begin.elapsed() < PATIENCE {
            std::thread::sleep(LOOK);
        }
    }
    let counters = counters()?;
    let counted = format!("{} {counter}", count(&counters, counter) - counted_before);
    let longest_turn = count(&counters, "longest_turn_us") as f64 / 1e3;
    let memory_most = watch.end();
    let after = rate()?;
    drop(client);
    runtime.shutdown_background();
    server.process.finish()?;
    let [attacker, node] = cpu.map(|ticks| ticks / TICKS_PER_SECOND / elapsed * 100.0);
    Ok(Outcome {
        name,
        before,
        after,
        beside,
        during,
        memory_before,
        memory_most,
        attacker,
        node,
        longest_turn,
        counted,
    })
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
