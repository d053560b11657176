//! What a swarm of real processes promises: who comes late knows all, who goes is noticed, who comes back is the same.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test fails by panicking, and prints what it has measured"
)]

mod common;

use std::time::{Duration, Instant};

use common::{LIMIT, Swarm, names};
use multinodes::{Actions, Node};
use serde_json::json;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_joiner_sees_applications_registered_before_it_came() {
    let swarm = Swarm::new();
    let mut alpha = swarm.start("alpha", &["--demo-applications", "calculator"]);
    let mut beta = swarm.start("beta", &[]);
    alpha.sees("beta");
    beta.wait_for("alpha's calculator", |line| line.value["name"] == "alpha" && hosts(&line.value, "calculator"));
    let late = swarm.builder().name("late").start().await.unwrap();
    within("the calculator", late.wait_for("calculator")).await.unwrap();
    let sum: i64 = within("the sum", late.call("calculator", "add", (20, 22))).await.unwrap();
    assert_eq!(sum, 42);
    within("the end", late.stop()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_application_registered_after_joining_is_seen_and_its_end_as_well() {
    let swarm = Swarm::new();
    let mut alpha = swarm.start("alpha", &[]);
    let node = swarm.builder().name("here").start().await.unwrap();
    alpha.sees("here");
    node.register("later", Actions::new().action("answer", |(): ()| async { 42 })).unwrap();
    alpha.wait_for("the application", |line| line.is("updated", "here") && hosts(&line.value, "later"));
    let outcome = swarm.run(&["call", "later", "answer"]).expect(0);
    assert_eq!(outcome.stdout, "42\n");
    node.unregister("later").unwrap();
    alpha.wait_until("the application to be gone", |heard| {
        let last = heard.iter().rfind(|line| line.is("updated", "here"))?;
        (!hosts(&last.value, "later")).then_some(())
    });
    swarm.run(&["call", "later", "answer"]).expect(1);
    within("the end", node.stop()).await;
}

#[test]
fn a_killed_process_is_noticed_in_under_5_seconds() {
    let swarm = Swarm::new();
    let mut alpha = swarm.start("alpha", &[]);
    let mut beta = swarm.start("beta", &[]);
    let mut gamma = swarm.start("gamma", &[]);
    for node in [&mut alpha, &mut gamma] {
        node.sees("beta");
    }
    let killed = Instant::now();
    beta.signal("KILL");
    beta.end();
    for node in [&mut alpha, &mut gamma] {
        let left = node.misses("beta");
        assert_eq!(left.value["reason"], "lost");
        let time = left.when.saturating_duration_since(killed);
        eprintln!("`{}` has noticed the kill after {time:?}", node.name);
        assert!(time < Duration::from_secs(5), "{time:?}");
    }
}

#[test]
fn a_graceful_stop_is_noticed_in_under_a_second() {
    let swarm = Swarm::new();
    let mut alpha = swarm.start("alpha", &[]);
    let mut beta = swarm.start("beta", &[]);
    let mut gamma = swarm.start("gamma", &[]);
    for node in [&mut alpha, &mut gamma] {
        node.sees("beta");
    }
    let stopped = Instant::now();
    beta.signal("TERM");
    for node in [&mut alpha, &mut gamma] {
        let left = node.misses("beta");
        assert_eq!(left.value["reason"], "stopped");
        let time = left.when.saturating_duration_since(stopped);
        eprintln!("`{}` has noticed the stop after {time:?}", node.name);
        assert!(time < Duration::from_secs(1), "{time:?}");
    }
    assert_eq!(beta.end(), 0);
}

#[test]
fn a_restart_with_the_same_identity_is_the_same_node_in_a_new_life() {
    let swarm = Swarm::new();
    let mut alpha = swarm.start("alpha", &[]);
    let mut first = swarm.start("beta", &["--identity", "beta.key"]);
    let peer_id = first.peer_id();
    alpha.sees("beta");
    let life = incarnation(&swarm);
    first.signal("KILL");
    first.end();
    let mut second = swarm.start("beta", &["--identity", "beta.key"]);
    assert_eq!(second.peer_id(), peer_id);
    second.sees("alpha");
    swarm.until(&["info", "beta"], |info| {
        info["peer_id"] == *peer_id && info["incarnation"].as_u64().is_some_and(|incarnation| incarnation > life)
    });
    let nodes = swarm.run(&["nodes", "--json"]).expect(0).json();
    assert_eq!(names(&nodes), ["alpha", "beta"], "one node, not two");
}

#[test]
fn a_second_process_with_the_same_identity_refuses_and_names_the_file() {
    let swarm = Swarm::new();
    let mut first = swarm.start("first", &["--identity", "shared.key"]);
    let outcome = swarm.run(&["start", "--name", "second", "--identity", "shared.key"]).expect(2);
    assert!(outcome.stderr.starts_with("error: ") && outcome.stderr.contains("shared.key"), "{outcome:?}");
    first.signal("TERM");
    assert_eq!(first.end(), 0, "the first one is not disturbed");
    let mut third = swarm.start("third", &["--identity", "shared.key"]);
    assert_eq!(third.peer_id(), first.peer_id(), "and the file is free again");
}

#[test]
fn the_identity_file_is_for_its_owner_only() {
    let swarm = Swarm::new();
    let _alpha = swarm.start("alpha", &["--identity", "alpha.key"]);
    let file = swarm.path("alpha.key");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    }
    assert!(file.exists());
}

#[test]
fn twenty_processes_started_together_all_see_all() {
    const COUNT: usize = 20;
    let swarm = Swarm::new();
    let begin = Instant::now();
    let mut nodes: Vec<_> = (0..COUNT)
        .map(|number| swarm.launch(&format!("node-{number:02}"), &["--demo-applications", "calculator"]))
        .collect();
    let mut last = begin;
    for node in &mut nodes {
        node.started();
        let own = node.name.clone();
        let complete = node.wait_until("all others with their calculators", |heard| {
            let mut seen = std::collections::BTreeMap::new();
            heard.iter().find_map(|line| {
                let name = line.value["name"].as_str()?;
                if hosts(&line.value, "calculator") && name != own {
                    seen.entry(name.to_owned()).or_insert(line.when);
                }
                (seen.len() == COUNT - 1).then_some(line.when)
            })
        });
        last = last.max(complete);
    }
    let time = last.saturating_duration_since(begin);
    eprintln!("{COUNT} processes started together: all see all, with applications, after {time:?}");
    assert!(time < Duration::from_secs(30), "{time:?}");
    let apps = swarm.run(&["apps", "--json"]).expect(0).json();
    assert_eq!(apps[0]["name"], "calculator");
    assert_eq!(apps[0]["hosts"].as_array().unwrap().len(), COUNT);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn swarms_of_different_names_never_mix() {
    let (one, other) = (Swarm::new(), Swarm::new());
    let mut alpha = one.start("alpha", &[]);
    let address = alpha.started()["addresses"][0].as_str().unwrap().to_owned();
    let stranger: Node = other.builder().name("stranger").join(address).start().await.unwrap();
    let _beta = one.start("beta", &[]);
    alpha.sees("beta");
    within("the stranger to settle", stranger.settled()).await;
    assert!(stranger.nodes().iter().all(|node| node.name == "stranger"), "{:?}", stranger.nodes());
    assert!(!alpha.heard.iter().any(|line| line.is("joined", "stranger")), "{:?}", alpha.heard);
    within("the end", stranger.stop()).await;
}

#[test]
fn a_passive_verb_leaves_no_trace() {
    let swarm = Swarm::new();
    let mut alpha = swarm.start("alpha", &[]);
    let before = swarm.rendezvous();
    swarm.run(&["nodes"]).expect(0);
    swarm.run(&["call", "node", "echo", "1"]).expect(0);
    assert_eq!(swarm.rendezvous(), before, "no file is left in the rendezvous folder");
    alpha.signal("TERM");
    assert_eq!(alpha.end(), 0);
    assert!(!alpha.heard.iter().any(|line| line.value["event"] == "joined"), "{:?}", alpha.heard);
    assert_eq!(swarm.rendezvous(), Vec::<std::path::PathBuf>::new(), "a node that stops removes its own");
}

fn incarnation(swarm: &Swarm) -> u64 {
    swarm.until(&["info", "beta"], |info| info["incarnation"].is_u64())["incarnation"].as_u64().unwrap()
}

/// Whether the node that a line tells of hosts the application.
fn hosts(line: &serde_json::Value, application: &str) -> bool {
    line["applications"].as_array().is_some_and(|all| all.contains(&json!(application)))
}

async fn within<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, work).await.unwrap_or_else(|_| panic!("waiting in vain for {what}"))
}
