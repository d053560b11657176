//! `demo`: all of it happens, on any machine.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test fails by panicking, and prints what it has measured"
)]

mod common;

use common::Swarm;

#[test]
fn the_demo_happens_from_end_to_end() {
    let swarm = Swarm::new();
    let outcome = swarm.run(&["demo"]).expect(0);
    assert!(!outcome.stdout.contains('\u{1b}'), "no colours in a pipe: {outcome:?}");
    for told in [
        "alpha",
        "delta",
        "calculator.add(2, 3)",
        "all 1000 results are there",
        "is gone for all",
        "All of it happened",
    ] {
        assert!(outcome.stdout.contains(told), "`{told}` is missing: {outcome:?}");
    }
}

#[test]
fn the_demo_can_be_summed_up_as_json() {
    let swarm = Swarm::new();
    let summary = swarm.run(&["demo", "--json"]).expect(0).json();
    assert_eq!((&summary["ok"], summary["nodes"].as_array().map(Vec::len)), (&true.into(), Some(4)));
    for time in ["found_ms", "noticed_ms", "stopped_ms", "total_ms"] {
        assert!(summary[time].as_f64().is_some_and(|time| time > 0.0), "{time}: {summary}");
    }
    let map = &summary["map"];
    let workers = map["workers"].as_array().unwrap();
    let sum = |key: &str| workers.iter().map(|worker| worker[key].as_u64().unwrap()).sum::<u64>();
    assert_eq!((map["items"].as_u64(), sum("done"), sum("failed")), (Some(1000), 1000, 0), "{map}");
    let delta = workers.iter().find(|worker| worker["node"] == summary["killed"]).unwrap();
    assert!(delta["done"].as_u64().unwrap() > 0, "it was killed in the middle: {map}");
    assert_eq!((&delta["lost"], sum("lost")), (&map["run_again"], map["run_again"].as_u64().unwrap()), "{map}");
}
