//! What was measured: the values of all rounds, and their medians.

use std::collections::BTreeMap;

use crate::{attack::Outcome, code::Figure, contestant::Contestant, together::How};

/// One figure, and its unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Metric {
    SequentialP50,
    SequentialP99,
    Calls(usize),
    Bulk,
    Cast,
    CastSent,
    Startup,
    StartupLan,
    IdleMemory,
    IdleCpu,
    /// Items that do nothing, over so many workers.
    Items(usize, Way),
    /// What each costs all processes together.
    ItemCpu(usize, Way),
    Batches,
    Pause,
    OfPossible,
    OfIdeal,
    MemoryEarly,
    MemoryLate,
    /// Calls with so many in flight, with a secret and permissions or without.
    Guarded(usize, bool),
    /// Until all of many nodes know all, and what went wrong.
    Together(How),
    TogetherFaults(How),
    /// Of code that travels.
    Code(Figure),
}

/// How items get to workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Way {
    /// Plain calls, so many at once.
    Calls(usize),
    Map,
    Journal,
    /// With a journal that has each item as begun before it is sent.
    AtMostOnce,
}

impl Way {
    pub(crate) const ALL: [Self; 5] = [Self::Calls(64), Self::Calls(1024), Self::Map, Self::Journal, Self::AtMostOnce];

    pub(crate) fn name(self) -> String {
        match self {
            Self::Calls(tasks) => format!("{tasks} calls"),
            Self::Map => "map".into(),
            Self::Journal => "map, journal".into(),
            Self::AtMostOnce => "map, journal, at most once".into(),
        }
    }

    fn key(self) -> String {
        match self {
            Self::Calls(tasks) => format!("calls_{tasks}"),
            Self::Map => "map".into(),
            Self::Journal => "map_journal".into(),
            Self::AtMostOnce => "map_at_most_once".into(),
        }
    }
}

impl Metric {
    pub(crate) fn title(self) -> String {
        match self {
            Self::SequentialP50 => "sequential call, p50".into(),
            Self::SequentialP99 => "sequential call, p99".into(),
            Self::Calls(1) => "calls/s, one after another".into(),
            Self::Calls(tasks) => format!("calls/s, {tasks} in flight"),
            Self::Bulk => "1 MiB uploads, 8 in flight".into(),
            Self::Cast => "casts/s, counted on arrival".into(),
            Self::CastSent => "casts/s, sent".into(),
            Self::Startup => "start to first answer, same host".into(),
            Self::StartupLan => "start to first answer, by mDNS".into(),
            Self::IdleMemory => "idle node, resident memory".into(),
            Self::IdleCpu => "idle node, CPU".into(),
            Self::Items(workers, way) => format!("items/s, {workers} worker{}: {}", plural(workers), way.name()),
            Self::ItemCpu(workers, way) => format!("CPU an item, {workers} worker{}: {}", plural(workers), way.name()),
            Self::Batches => "items/s in batches, 2 workers".into(),
            Self::Pause => "tasks of 10 ms, as they took".into(),
            Self::OfPossible => "their ideal time as they took / real".into(),
            Self::OfIdeal => "ideal time of 10 ms tasks / real".into(),
            Self::MemoryEarly => "endless map, memory after 5 s".into(),
            Self::MemoryLate => "endless map, memory after 20 s".into(),
            Self::Guarded(tasks, false) => format!("calls/s, {tasks} in flight, open"),
            Self::Guarded(tasks, true) => format!("calls/s, {tasks} in flight, secret, rules"),
            Self::Together(how) => format!("{} nodes at once ({}), all know all", how.nodes(), how.name()),
            Self::TogetherFaults(how) => format!("{} nodes at once ({}), faults", how.nodes(), how.name()),
            Self::Code(figure) => figure.title(),
        }
    }

    /// Its key in the JSON, with the unit.
    pub(crate) fn key(self) -> String {
        match self {
            Self::SequentialP50 => "sequential_p50_us".into(),
            Self::SequentialP99 => "sequential_p99_us".into(),
            Self::Calls(tasks) => format!("calls_per_second_{tasks}"),
            Self::Bulk => "bulk_mb_per_second".into(),
            Self::Cast => "casts_per_second".into(),
            Self::CastSent => "casts_sent_per_second".into(),
            Self::Startup => "startup_ms".into(),
            Self::StartupLan => "startup_lan_ms".into(),
            Self::IdleMemory => "idle_memory_mib".into(),
            Self::IdleCpu => "idle_cpu_percent".into(),
            Self::Items(workers, way) => format!("items_per_second_{workers}_{}", way.key()),
            Self::ItemCpu(workers, way) => format!("item_cpu_us_{workers}_{}", way.key()),
            Self::Batches => "items_per_second_batches".into(),
            Self::Pause => "pause_ms".into(),
            Self::OfPossible => "of_possible".into(),
            Self::OfIdeal => "of_ideal".into(),
            Self::MemoryEarly => "map_memory_5_s_mib".into(),
            Self::MemoryLate => "map_memory_20_s_mib".into(),
            Self::Guarded(tasks, false) => format!("calls_per_second_{tasks}_open"),
            Self::Guarded(tasks, true) => format!("calls_per_second_{tasks}_guarded"),
            Self::Together(how) => format!("together_{}_s", how.name()),
            Self::TogetherFaults(how) => format!("together_{}_faults", how.name()),
            Self::Code(figure) => figure.key(),
        }
    }

    pub(crate) fn show(self, value: f64) -> String {
        match self {
            Self::SequentialP50 | Self::SequentialP99 | Self::ItemCpu(..) => format!("{value:.1} µs"),
            Self::Calls(_) | Self::Guarded(..) | Self::Cast | Self::CastSent | Self::Items(..) | Self::Batches => {
                thousands(value)
            }
            Self::Bulk => format!("{value:.0} MB/s"),
            Self::Startup | Self::StartupLan | Self::Pause => format!("{value:.1} ms"),
            Self::IdleMemory | Self::MemoryEarly | Self::MemoryLate => format!("{value:.1} MiB"),
            Self::OfPossible | Self::OfIdeal => format!("{value:.2}x"),
            Self::IdleCpu => format!("{value:.2} %"),
            Self::Together(_) => format!("{value:.1} s"),
            Self::TogetherFaults(_) => format!("{value:.0}"),
            Self::Code(figure) => figure.show(value),
        }
    }
}

/// The values of every metric and contestant, one a round.
#[derive(Debug, Default)]
pub(crate) struct Results {
    pub(crate) values: BTreeMap<(Metric, Contestant), Vec<f64>>,
    /// What came of each attack.
    pub(crate) attacks: Vec<Outcome>,
    /// What could not be measured here, and why.
    pub(crate) skipped: Vec<(Metric, String)>,
}

impl Results {
    pub(crate) fn add(&mut self, metric: Metric, contestant: Contestant, value: f64) {
        self.values.entry((metric, contestant)).or_default().push(value);
    }

    pub(crate) fn median(&self, metric: Metric, contestant: Contestant) -> Option<f64> {
        self.values.get(&(metric, contestant)).map(|values| median(values))
    }
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 }
}

pub(crate) fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}
