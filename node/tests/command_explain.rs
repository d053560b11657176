//! `multinodes explain`: why a host is taken or passed over.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::Swarm;
use serde_json::Value;

fn of<'a>(answer: &'a Value, node: &str) -> &'a Value {
    answer.as_array().into_iter().flatten().find(|host| host["node"] == node).unwrap()
}

#[test]
fn each_host_has_its_reason() {
    let swarm = Swarm::new();
    let _eu = swarm.start("eu", &["--demo-applications", "worker", "--label", "region=eu"]);
    let _us = swarm.start("us", &["--demo-applications", "worker", "--label", "region=us"]);
    let both = |answer: &Value| answer.as_array().is_some_and(|hosts| hosts.len() == 2);
    let answer = swarm.until(&["explain", "worker", "--where", "node.labels.region == 'us'"], both);
    assert_eq!(of(&answer, "us")["verdict"], "taken", "{answer}");
    let eu = of(&answer, "eu");
    assert_eq!(
        (&eu["verdict"], &eu["reason"]),
        (&"passed_over".into(), &"the predicate is false: `node.labels.region == 'us'`".into())
    );
    let answer = swarm.run(&["explain", "worker", "--node", "eu", "--json"]).expect(0).json();
    assert_eq!(of(&answer, "us")["reason"], "another node is asked for");
    let outcome = swarm.run(&["explain", "worker", "--version-req", "^9"]).expect(1);
    assert!(outcome.stdout.contains("version `1.0.0` does not match `^9`"), "{outcome:?}");
    assert_eq!(swarm.run(&["call", "worker", "square", "4", "--version-req", "^1.0", "--idempotent"]).stdout, "16\n");
    swarm.run(&["call", "worker", "square", "4", "--version-req", "^9"]).expect(1);
    swarm.run(&["explain", "worker", "--version-req", "newest"]).expect(2);
    swarm.run(&["explain", "nothing"]).expect(1);
    let answer = swarm.run(&["explain", "worker", "square", "--node", "us", "--json"]).expect(0).json();
    assert_eq!(of(&answer, "us")["verdict"], "taken", "{answer}");
}
