//! `map` with a journal that has failures: what is said of them, and of the rate.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{Outcome, Swarm, run};
use serde_json::Value;

fn roots(swarm: &Swarm, more: &[&str]) -> Outcome {
    let arguments = [&["map", "worker", "root", "--journal", "journal"], more].concat();
    run(swarm.command(&arguments), "4\n3\n9\n")
}

/// The summary, which is the line of JSON on stderr.
fn summary(outcome: &Outcome) -> Value {
    let line = outcome.stderr.lines().find(|line| line.starts_with('{')).unwrap();
    serde_json::from_str(line).unwrap()
}

#[test]
fn failures_that_are_recorded_are_run_again_by_a_flag_that_is_named() {
    let swarm = Swarm::new();
    let _alpha = swarm.start("alpha", &["--demo-applications", "worker"]);
    for _ in 0..2 {
        let outcome = roots(&swarm, &[]).expect(1);
        assert!(outcome.stderr.contains("1 failed: ") && outcome.stderr.contains("--retry-failed"), "{outcome:?}");
    }
    let again = roots(&swarm, &["--retry-failed"]).expect(1);
    assert!(!again.stderr.contains("--retry-failed"), "{again:?}");
    let without = run(swarm.command(&["map", "worker", "root"]), "3\n").expect(1);
    assert!(!without.stderr.contains("--retry-failed"), "there is nothing to go on from: {without:?}");
}

#[test]
fn what_was_recorded_before_does_not_count_for_the_rate() {
    let swarm = Swarm::new();
    let _alpha = swarm.start("alpha", &["--demo-applications", "worker"]);
    let first = summary(&roots(&swarm, &["--json"]).expect(1));
    assert!(first["per_second"].as_f64().unwrap() > 0.0, "{first}");
    let second = summary(&roots(&swarm, &["--json"]).expect(1));
    assert_eq!((&second["recorded"], &second["items"]), (&3.into(), &3.into()));
    assert_eq!(second["per_second"], 0.0, "nothing was run: {second}");
}
