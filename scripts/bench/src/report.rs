//! The table, the targets and the JSON.

use serde_json::{Map, Value, json};

use crate::{
    contestant::Contestant::{self, MultiNodes, Raw, RequestResponse},
    options::Options,
    results::{
        Metric::{self, Bulk, Calls, Cast, IdleCpu, IdleMemory, SequentialP50, Startup, StartupLan},
        Results,
    },
};

/// One line of the table.
struct Target {
    title: &'static str,
    metric: Metric,
    /// The figure that ours is divided by; none if the target is absolute.
    against: Option<(Metric, Contestant)>,
    goal: Goal,
}

enum Goal {
    AtMost(f64),
    AtLeast(f64),
}

const TARGETS: [Target; 10] = [
    target("sequential p50 / raw TCP", SequentialP50, Some((SequentialP50, Raw)), Goal::AtMost(1.5)),
    target(
        "sequential p50 / request-response",
        SequentialP50,
        Some((SequentialP50, RequestResponse)),
        Goal::AtMost(0.35),
    ),
    target(
        "calls/s, 64 in flight / request-response",
        Calls(64),
        Some((Calls(64), RequestResponse)),
        Goal::AtLeast(15.0),
    ),
    target(
        "calls/s, 1024 in flight / request-response",
        Calls(1024),
        Some((Calls(1024), RequestResponse)),
        Goal::AtLeast(25.0),
    ),
    target("1 MiB uploads / request-response", Bulk, Some((Bulk, RequestResponse)), Goal::AtLeast(2.0)),
    target("casts/s / request-response calls/s at 64", Cast, Some((Calls(64), RequestResponse)), Goal::AtLeast(80.0)),
    target("start to first answer, same host", Startup, None, Goal::AtMost(40.0)),
    target("start to first answer, by mDNS", StartupLan, None, Goal::AtMost(60.0)),
    target("idle node, resident memory", IdleMemory, None, Goal::AtMost(20.0)),
    target("idle node, CPU", IdleCpu, None, Goal::AtMost(0.5)),
];

const fn target(title: &'static str, metric: Metric, against: Option<(Metric, Contestant)>, goal: Goal) -> Target {
    Target { title, metric, against, goal }
}

impl Target {
    /// The ratio, or the figure itself; none if it was not measured in this run.
    fn value(&self, results: &Results) -> Option<f64> {
        let ours = results.median(self.metric, MultiNodes)?;
        match self.against {
            Some((metric, contestant)) => Some(ours / results.median(metric, contestant)?),
            None => Some(ours),
        }
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
        if self.against.is_some() { format!("{value:.2}x") } else { self.metric.show(value) }
    }
}

/// Prints the medians, then each target with what came out; the last line counts them.
pub(crate) fn print(results: &Results) {
    println!("{:<42} {:>14} {:>17} {:>14}", "medians of all rounds", "raw TCP", "request-response", "MultiNodes");
    let mut metrics: Vec<Metric> = results.values.keys().map(|(metric, _)| *metric).collect();
    metrics.dedup();
    for metric in metrics {
        let cell = |contestant| results.median(metric, contestant).map_or("-".to_owned(), |value| metric.show(value));
        println!("{:<42} {:>14} {:>17} {:>14}", metric.title(), cell(Raw), cell(RequestResponse), cell(MultiNodes));
    }
    println!("\n{:<42} {:>14} {:>17}", "target", "wanted", "measured");
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
        println!("{:<42} {:>14} {:>17} {:>14}", target.title, target.goal(), measured, verdict);
    }
    println!("targets: {met} met, {missed} missed");
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
        })
    });
    json!({
        "seconds": options.length.as_secs_f64(),
        "rounds": options.rounds,
        "measured": measured,
        "targets": verdicts.collect::<Vec<_>>(),
    })
}
