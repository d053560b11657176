//! The table, the targets and the JSON.

use serde_json::{Map, Value, json};

use crate::{
    attack::{GOAL, Outcome, median},
    code::Figure::{CallP50, FirstRun, Guest, IdleP99, Native, RunP50, SpinningP99},
    contestant::Contestant::{self, Dask, MultiNodes, Raw, RequestResponse, RequestResponseLazy},
    options::Options,
    results::{
        Metric::{
            self, Batches, Bulk, Calls, Cast, Code, Guarded, IdleCpu, IdleMemory, Items, MemoryEarly, MemoryLate,
            OfIdeal, SequentialP50, Startup, StartupLan,
        },
        Results, Way,
    },
    together::How,
};

/// One promise about speed or size.
struct Target {
    title: &'static str,
    metric: Metric,
    against: Against,
    goal: Goal,
}

/// What our figure is divided by.
enum Against {
    Nothing,
    RawTcp(Metric),
    /// As anyone gets it, only with limits raised so that nothing fails.
    RequestResponse(Metric),
    /// With whatever setting was faster in this run.
    BestRequestResponse(Metric),
    /// The fastest of these figures of our own.
    Ours(&'static [Metric]),
    Dask(Metric),
}

enum Goal {
    AtMost(f64),
    AtLeast(f64),
}

const TARGETS: [Target; 25] = [
    target("sequential p50 / raw TCP", SequentialP50, Against::RawTcp(SequentialP50), Goal::AtMost(1.5)),
    target("sequential p50 / rr", SequentialP50, Against::RequestResponse(SequentialP50), Goal::AtMost(0.35)),
    target("calls/s, 64 in flight / rr", Calls(64), Against::RequestResponse(Calls(64)), Goal::AtLeast(15.0)),
    target(
        "calls/s, 1024 in flight / best rr",
        Calls(1024),
        Against::BestRequestResponse(Calls(1024)),
        Goal::AtLeast(25.0),
    ),
    target("1 MiB uploads / rr", Bulk, Against::RequestResponse(Bulk), Goal::AtLeast(2.0)),
    target("casts/s / rr calls/s, 64 in flight", Cast, Against::RequestResponse(Calls(64)), Goal::AtLeast(80.0)),
    target("start to first answer, same host", Startup, Against::Nothing, Goal::AtMost(40.0)),
    target("start to first answer, by mDNS", StartupLan, Against::Nothing, Goal::AtMost(60.0)),
    target("idle node, resident memory", IdleMemory, Against::Nothing, Goal::AtMost(20.0)),
    target("idle node, CPU", IdleCpu, Against::Nothing, Goal::AtMost(0.5)),
    target("map, 1 worker / best plain calls", Items(1, Way::Map), Against::Ours(&CALLS_1), Goal::AtLeast(0.5)),
    target("map, 2 workers / best plain calls", Items(2, Way::Map), Against::Ours(&CALLS_2), Goal::AtLeast(0.5)),
    target("1 worker, with journal / without", Items(1, Way::Journal), Against::Ours(&MAP_1), Goal::AtLeast(0.5)),
    target("2 workers, with journal / without", Items(2, Way::Journal), Against::Ours(&MAP_2), Goal::AtLeast(0.5)),
    target("map in batches, 2 workers / Dask", Batches, Against::Dask(Batches), Goal::AtLeast(10.0)),
    target("tasks of 10 ms, 4 slots / ideal", OfIdeal, Against::Nothing, Goal::AtLeast(0.95)),
    target("endless map, memory 20 s / 5 s", MemoryLate, Against::Ours(&[MemoryEarly]), Goal::AtMost(1.05)),
    target("secret and rules, 64 in flight / open", Guarded(64, true), Against::Ours(&OPEN_64), Goal::AtLeast(0.9)),
    target("secret and rules, 1024 / open", Guarded(1024, true), Against::Ours(&OPEN_1024), Goal::AtLeast(0.9)),
    target("run of a known task, p50 / call", Code(RunP50), Against::Ours(&CALL_P50), Goal::AtMost(1.5)),
    target("first run of 28 kB, compiled there", Code(FirstRun), Against::Nothing, Goal::AtMost(100.0)),
    target("installed code, 64 in flight / native", Code(Guest(64)), Against::Ours(&NATIVE_64), Goal::AtLeast(0.6)),
    target("200 nodes at once by one address, s", Metric::Together(How::Join), Against::Nothing, Goal::AtMost(20.0)),
    target("panics, restarts, lost of them", Metric::TogetherFaults(How::Join), Against::Nothing, Goal::AtMost(0.0)),
    target("p99 beside 4 spinning guests / idle", Code(SpinningP99), Against::Ours(&IDLE_P99), Goal::AtMost(3.0)),
];

const CALL_P50: [Metric; 1] = [Code(CallP50)];
const NATIVE_64: [Metric; 1] = [Code(Native(64))];
const IDLE_P99: [Metric; 1] = [Code(IdleP99)];

const OPEN_64: [Metric; 1] = [Guarded(64, false)];
const OPEN_1024: [Metric; 1] = [Guarded(1024, false)];
const CALLS_1: [Metric; 2] = [Items(1, Way::Calls(64)), Items(1, Way::Calls(1024))];
const CALLS_2: [Metric; 2] = [Items(2, Way::Calls(64)), Items(2, Way::Calls(1024))];
const MAP_1: [Metric; 1] = [Items(1, Way::Map)];
const MAP_2: [Metric; 1] = [Items(2, Way::Map)];

const fn target(title: &'static str, metric: Metric, against: Against, goal: Goal) -> Target {
    Target { title, metric, against, goal }
}

impl Target {
    /// The ratio, or the figure itself; none if it was not measured in this run.
    fn value(&self, results: &Results) -> Option<f64> {
        let ours = results.median(self.metric, MultiNodes)?;
        match self.against {
            Against::Nothing => Some(ours),
            Against::RawTcp(metric) => Some(ours / results.median(metric, Raw)?),
            Against::RequestResponse(metric) => Some(ours / results.median(metric, RequestResponse)?),
            Against::BestRequestResponse(metric) => Some(ours / self.best(results, metric)?),
            Against::Ours(metrics) => {
                let others = metrics.iter().filter_map(|metric| results.median(*metric, MultiNodes));
                Some(ours / others.max_by(f64::total_cmp)?)
            }
            Against::Dask(metric) => Some(ours / results.median(metric, Dask)?),
        }
    }

    /// The ratio to request-response at its best, where the target itself does not speak of that.
    fn at_best(&self, results: &Results) -> Option<f64> {
        let Against::RequestResponse(metric) = self.against else { return None };
        Some(results.median(self.metric, MultiNodes)? / self.best(results, metric)?)
    }

    fn best(&self, results: &Results, metric: Metric) -> Option<f64> {
        let (plain, lazy) = (results.median(metric, RequestResponse), results.median(metric, RequestResponseLazy));
        let (Some(plain), Some(lazy)) = (plain, lazy) else { return plain.or(lazy) };
        Some(match self.goal {
            Goal::AtMost(_) => plain.min(lazy),
            Goal::AtLeast(_) => plain.max(lazy),
        })
    }

    fn is_met(&self, value: f64) -> bool {
        match self.goal {
            Goal::AtMost(limit) => value <= limit,
            Goal::AtLeast(limit) => value >= limit,
        }
    }

    fn goal(&self) -> String {
        match self.goal {
            Goal::AtMost(limit) => format!("<= {}", self.show(limit)),
            Goal::AtLeast(limit) => format!(">= {}", self.show(limit)),
        }
    }

    fn show(&self, value: f64) -> String {
        match self.against {
            Against::Nothing => self.metric.show(value),
            _ => format!("{value:.2}x"),
        }
    }
}

/// Prints the medians, then each target with what came out; the last line counts them.
pub(crate) fn print(options: &Options, results: &Results) {
    if !results.attacks.is_empty() {
        print_attacks(&results.attacks);
    }
    if results.values.is_empty() {
        return;
    }
    print_medians(results);
    if let Some(cores) = options.busy_before.filter(|cores| *cores > QUIET) {
        println!("\nothers kept {cores:.1} cores busy before the start: latencies and ratios may be off");
    }
    println!("\n{:<36} {:>12} {:>12}  {:<10}", "target", "wanted", "measured", "verdict");
    let (mut met, mut missed) = (0, 0);
    for target in &TARGETS {
        let (measured, verdict) = match target.value(results) {
            Some(value) if target.is_met(value) => {
                met += 1;
                (target.show(value), "met".to_owned())
            }
            Some(value) => {
                missed += 1;
                (target.show(value), "missed".to_owned())
            }
            None => ("-".to_owned(), why_not(results, target.metric)),
        };
        let note = target.at_best(results).map(|value| format!("({} of rr at its best)", target.show(value)));
        let line = format!(
            "{:<36} {:>12} {:>12}  {verdict:<10} {}",
            target.title,
            target.goal(),
            measured,
            note.unwrap_or_default()
        );
        println!("{}", line.trim_end());
    }
    println!("targets: {met} met, {missed} missed");
}

/// Above so many busy cores before the start the figures come with a warning.
const QUIET: f64 = 0.2;

fn print_medians(results: &Results) {
    println!(
        "{:<36} {:>12} {:>12} {:>12} {:>12} {:>12}",
        "medians of all rounds", "raw TCP", "rr", "rr lazy", "MultiNodes", "Dask"
    );
    let mut metrics: Vec<Metric> = results.values.keys().map(|(metric, _)| *metric).collect();
    metrics.dedup();
    for metric in metrics {
        let mut line = format!("{:<36}", metric.title());
        for contestant in Contestant::ALL {
            let cell = results.median(metric, contestant).map_or("-".to_owned(), |value| metric.show(value));
            line += &format!(" {cell:>12}");
        }
        println!("{line}");
    }
    println!("rr: libp2p's request_response::cbor; lazy: without negotiating the protocol of each request first");
}

fn print_attacks(attacks: &[Outcome]) {
    println!(
        "{:<12} {:>9} {:>9} {:>9} {:>9} {:>6} {:>7} {:>11} {:>11} {:>9} {:>8} {:>8}  counted",
        "attack",
        "before",
        "spinning",
        "during",
        "after",
        "ratio",
        "goal",
        "MiB before",
        "MiB at most",
        "attacker",
        "node",
        "turn"
    );
    for outcome in attacks {
        let Outcome { name, before, after, memory_before, memory_most, attacker, node, longest_turn, counted, .. } =
            outcome;
        let (beside, during) = (median(outcome.beside.clone()), median(outcome.during.clone()));
        let goal = outcome.is_met().map_or("", |met| if met { "met" } else { "missed" });
        println!(
            "{name:<12} {before:>9.0} {beside:>9.0} {during:>9.0} {after:>9.0} {:>6.2} {goal:>7} {memory_before:>11.1} {memory_most:>11.1} {attacker:>7.0} % {node:>6.0} % {longest_turn:>5.1} ms  {counted}",
            outcome.ratio()
        );
    }
    println!("honest calls/s: alone before and after, beside a process that only spins, and during the attack");
    println!("ratio: during / spinning, the median of the rounds; the goal is at least {GOAL}");
    println!(
        "attacker and node: their CPU time during the attack, in hundredths of a core; turn: the driver's longest"
    );
}

fn why_not(results: &Results, metric: Metric) -> String {
    let reason = results.skipped.iter().find(|(skipped, _)| *skipped == metric).map(|(_, reason)| reason.as_str());
    reason.map_or("not measured".to_owned(), |reason| format!("not measured: {reason}"))
}

/// Everything that was measured, round by round, and the verdicts.
pub(crate) fn json(options: &Options, results: &Results) -> Value {
    let mut measured: Map<String, Value> = Map::new();
    for ((metric, contestant), rounds) in &results.values {
        let entry = measured.entry(metric.key()).or_insert_with(|| json!({}));
        entry[contestant.name()] = json!({ "median": results.median(*metric, *contestant), "rounds": rounds });
    }
    let verdicts = TARGETS.iter().map(|target| {
        let value = target.value(results);
        json!({
            "target": target.title,
            "wanted": target.goal(),
            "measured": value,
            "met": value.map(|value| target.is_met(value)),
            "at_best": target.at_best(results),
        })
    });
    let attacks = results.attacks.iter().map(|outcome| {
        json!({
            "attack": outcome.name,
            "calls_per_second": {
                "before": outcome.before, "spinning": outcome.beside, "during": outcome.during, "after": outcome.after
            },
            "ratio": outcome.ratio(),
            "met": outcome.is_met(),
            "longest_turn_ms": outcome.longest_turn,
            "memory_mib": { "before": outcome.memory_before, "most": outcome.memory_most },
            "cpu_percent": { "attacker": outcome.attacker, "node": outcome.node },
            "counted": outcome.counted,
        })
    });
    json!({
        "seconds": options.length.as_secs_f64(),
        "rounds": options.rounds,
        "busy_cores_before": options.busy_before,
        "measured": measured,
        "attacks": attacks.collect::<Vec<_>>(),
        "targets": verdicts.collect::<Vec<_>>(),
    })
}
