//! What was asked for on the command line.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use crate::{Error, attacker::Attack, contestant::Contestant, process::TICKS_PER_SECOND, together::How};

const GLANCE: Duration = Duration::from_millis(500);

const USAGE: &str = "usage: multinodes-bench [--only PHASE|CONTESTANT,...] [--rounds N] [--json] [--out FILE]
phases: sequential calls-64 calls-1024 bulk cast startup startup-lan idle map-1 map-2 map-dask map-sleep map-memory attack guarded together code
contestants: raw rr rr-lazy multinodes dask
environment: BENCH_SECONDS length of a phase and contestant (default 2)";

/// What this process is to be.
pub(crate) enum Role {
    /// The other side of the wire.
    Serve { contestant: Contestant, swarm: String },
    /// A process that starts a node, calls once and ends.
    FirstCall { swarm: String },
    /// A worker, for those who spread items.
    Work { swarm: String },
    /// A process that gives workers items without end.
    Submit { swarm: String, address: String },
    /// The other side with a secret and permissions.
    Guard { swarm: String },
    /// The other side of code that travels: it keeps what it gets in a folder.
    Code { swarm: String, folder: PathBuf },
    /// A peer that means harm.
    Attack { attack: Attack, swarm: String, address: String },
    /// Many nodes that start at once.
    Together { how: How, folder: PathBuf },
    /// A process in its place that only takes as much of the machine.
    Spin,
    /// The one that measures.
    Drive(Options),
}

/// What to measure, and how to say it.
pub(crate) struct Options {
    pub(crate) phases: Vec<Phase>,
    pub(crate) contestants: Vec<Contestant>,
    pub(crate) rounds: usize,
    pub(crate) length: Duration,
    pub(crate) json: bool,
    pub(crate) out: Option<PathBuf>,
    /// Cores that others kept busy before anything was measured: above a few tenths, latencies say little.
    pub(crate) busy_before: Option<f64>,
}

/// One thing to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Sequential,
    InFlight(usize),
    Bulk,
    Cast,
    Startup,
    StartupLan,
    Idle,
    /// Items that cost nothing, over so many workers.
    Map(usize),
    MapDask,
    MapSleep,
    MapMemory,
    /// Honest calls while somebody else attacks.
    Attack,
    /// Calls with a secret and permissions, and without.
    Guarded,
    /// Many nodes that start at once.
    Together,
    /// Code that travels, against calls of what is there.
    Code,
}

impl Phase {
    const ALL: [(&'static str, Self); 17] = [
        ("sequential", Self::Sequential),
        ("calls-64", Self::InFlight(64)),
        ("calls-1024", Self::InFlight(1024)),
        ("bulk", Self::Bulk),
        ("cast", Self::Cast),
        ("startup", Self::Startup),
        ("startup-lan", Self::StartupLan),
        ("idle", Self::Idle),
        ("map-1", Self::Map(1)),
        ("map-2", Self::Map(2)),
        ("map-dask", Self::MapDask),
        ("map-sleep", Self::MapSleep),
        ("map-memory", Self::MapMemory),
        ("attack", Self::Attack),
        ("guarded", Self::Guarded),
        ("together", Self::Together),
        ("code", Self::Code),
    ];

    /// Its name on the command line.
    pub(crate) fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, phase)| *phase == self).map_or("calls", |(name, _)| name)
    }
}

impl Options {
    /// Reads the arguments after the program's name.
    pub(crate) fn from_arguments(mut arguments: impl Iterator<Item = String>) -> Result<Role, Error> {
        let mut options = Self {
            phases: Phase::ALL.iter().map(|(_, phase)| *phase).collect(),
            contestants: Contestant::ALL.to_vec(),
            rounds: 3,
            length: seconds()?,
            json: false,
            out: None,
            busy_before: None,
        };
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or_else(|| format!("`{argument}` needs a value\n{USAGE}"));
            match argument.as_str() {
                "serve" => {
                    let contestant = Contestant::parse(&value()?).ok_or(USAGE)?;
                    return Ok(Role::Serve { contestant, swarm: value()? });
                }
                "first-call" => return Ok(Role::FirstCall { swarm: value()? }),
                "work" => return Ok(Role::Work { swarm: value()? }),
                "submit" => return Ok(Role::Submit { swarm: value()?, address: value()? }),
                "spin" => return Ok(Role::Spin),
                "together" => {
                    let how = How::parse(&value()?).ok_or(USAGE)?;
                    return Ok(Role::Together { how, folder: value()?.into() });
                }
                "guard" => return Ok(Role::Guard { swarm: value()? }),
                "code" => return Ok(Role::Code { swarm: value()?, folder: value()?.into() }),
                "attack" => {
                    let attack = Attack::parse(&value()?).ok_or(USAGE)?;
                    return Ok(Role::Attack { attack, swarm: value()?, address: value()? });
                }
                "--only" => options.keep_only(&value()?)?,
                "--rounds" => options.rounds = value()?.parse::<usize>()?.max(1),
                "--json" => options.json = true,
                "--out" => options.out = Some(value()?.into()),
                _ => return Err(USAGE.into()),
            }
        }
        options.busy_before = busy_cores();
        Ok(Role::Drive(options))
    }

    fn keep_only(&mut self, list: &str) -> Result<(), Error> {
        let mut phases = Vec::new();
        let mut contestants = Vec::new();
        for name in list.split(',') {
            if let Some((_, phase)) = Phase::ALL.iter().find(|(known, _)| *known == name) {
                phases.push(*phase);
            } else if let Some(contestant) = Contestant::parse(name) {
                contestants.push(contestant);
            } else {
                return Err(format!("no phase or contestant is named `{name}`\n{USAGE}").into());
            }
        }
        if !phases.is_empty() {
            self.phases = phases;
        }
        if !contestants.is_empty() {
            self.contestants = contestants;
        }
        Ok(())
    }
}

/// Cores that are busy while this process does nothing: [`GLANCE`] of them tells more than the load average, which
/// remembers the build.
fn busy_cores() -> Option<f64> {
    let begin = Instant::now();
    let before = busy_ticks()?;
    std::thread::sleep(GLANCE);
    Some((busy_ticks()? - before) / TICKS_PER_SECOND / begin.elapsed().as_secs_f64())
}

/// The first line of `/proc/stat`: user, nice and system time of all cores, then idle, then waiting, then the rest.
fn busy_ticks() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/stat").ok()?;
    let times: Vec<f64> =
        text.lines().next()?.split_whitespace().skip(1).filter_map(|time| time.parse().ok()).collect();
    Some(times.get(..8)?.iter().sum::<f64>() - times[3] - times[4])
}

fn seconds() -> Result<Duration, Error> {
    let Ok(text) = std::env::var("BENCH_SECONDS") else { return Ok(Duration::from_secs(2)) };
    text.parse()
        .ok()
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .filter(|length| !length.is_zero())
        .ok_or_else(|| format!("`BENCH_SECONDS` is `{text}`, not a number of seconds").into())
}
