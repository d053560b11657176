//! Ten thousand items over real processes that are killed, stopped, drained and joined: nothing is lost, and nothing
//! that was recorded is run again.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead, BufReader, Lines, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Stdio},
    time::Duration,
};

use common::{LIMIT, Process, Swarm, signal};
use futures::TryStreamExt;
use multinodes::{ItemErrorKind, Node, Outcome};
use serde_json::Value;
use tokio::time::timeout;

const ITEMS: u64 = 10_000;

/// What happens to the workers, by the number of outcomes after which it happens.
struct Fate<'a> {
    swarm: &'a Swarm,
    workers: Vec<Process>,
}

impl Fate<'_> {
    fn on_outcome(&mut self, count: u64) {
        match count {
            1500 => self.workers[0].signal("KILL"),
            2500 => self.workers[1].signal("STOP"),
            3500 => self.workers[2].signal("TERM"),
            4000 => {
                for name in ["worker-6", "worker-7"] {
                    self.workers.push(worker(self.swarm, name));
                }
            }
            5000 => self.workers[3].signal("KILL"),
            _ => {}
        }
    }
}

fn worker(swarm: &Swarm, name: &str) -> Process {
    swarm.launch(name, &["--demo-applications", "worker"])
}

async fn hosts(node: &Node, application: &str, count: usize) {
    let mut events = node.events();
    timeout(LIMIT, async {
        while node.hosts(application).len() < count {
            events.next().await.unwrap();
        }
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_item_has_exactly_one_outcome_whatever_happens_to_the_workers() {
    let swarm = Swarm::new();
    let workers = (0..6).map(|number| worker(&swarm, &format!("worker-{number}"))).collect();
    let mut fate = Fate { swarm: &swarm, workers };
    let node = swarm.builder().name("submitter").start().await.unwrap();
    hosts(&node, "worker", 6).await;
    let items = (0..ITEMS).map(|index| (index, 4_u64));
    let mut map = node.app("worker").map_iter::<u64>("square_slowly", items).lease(Duration::from_secs(2)).retries(10);
    let status = map.status();
    let mut outcomes: BTreeMap<u64, Outcome<u64>> = BTreeMap::new();
    while let Some(outcome) = timeout(LIMIT, map.try_next()).await.unwrap().unwrap() {
        let index = outcome.index;
        assert!(outcomes.insert(index, outcome).is_none(), "item {index} has two outcomes");
        fate.on_outcome(outcomes.len() as u64);
    }
    assert_eq!(outcomes.len() as u64, ITEMS);
    assert!(outcomes.iter().all(|(index, outcome)| *outcome.result.as_ref().unwrap() == index * index));
    let failed_on: BTreeSet<&str> =
        outcomes.values().flat_map(|outcome| &outcome.failures).map(|attempt| attempt.node.as_str()).collect();
    // Who was killed may just have had nothing to do.
    let lost = BTreeSet::from(["worker-0", "worker-1", "worker-3"]);
    assert!(failed_on.is_subset(&lost), "who drains finishes what it runs, and all others are well: {failed_on:?}");
    let done: BTreeMap<String, u64> =
        status.borrow().workers.iter().map(|worker| (worker.node.clone(), worker.done)).collect();
    assert_eq!(done.values().sum::<u64>(), ITEMS, "{done:?}");
    assert!(done["worker-6"] > 0 && done["worker-7"] > 0, "who joins in the middle gets work: {done:?}");
    assert_eq!(fate.workers[2].end(), 0, "it was drained in good order");
    node.stop().await;
}

/// A submitter's process, and the lines of its output.
struct Submitter {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Submitter {
    fn start(swarm: &Swarm, items: &Path, journal: &Path) -> Self {
        let arguments = ["map", "squares", "square", "--in", items.to_str().unwrap()];
        let mut command = swarm.command(&arguments);
        command.arg("--journal").arg(journal).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    fn next(&mut self) -> Option<Value> {
        let line = self.lines.next()?.unwrap();
        // Who is killed may leave half a line behind, which says nothing.
        serde_json::from_str(&line).ok()
    }
}

impl Drop for Submitter {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn noting_workers(swarm: &Swarm, count: usize, notes: &Path) -> Vec<Process> {
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/swarm_map/noting.py");
    let command = format!("squares=python3 '{}' '{}'", script.display(), notes.display());
    let start = |number| swarm.start(&format!("worker-{number}"), &["--serve", &command, "--slots", "squares=2"]);
    (0..count).map(start).collect()
}

/// How often each number was run.
fn runs(notes: &Path) -> BTreeMap<i64, u32> {
    let mut runs = BTreeMap::new();
    for line in std::fs::read_to_string(notes).unwrap().lines() {
        *runs.entry(line.parse().unwrap()).or_default() += 1;
    }
    runs
}

#[test]
fn a_submitter_that_is_killed_twice_goes_on_where_it_stopped() {
    let swarm = Swarm::new();
    let (notes, items, journal) = (swarm.path("notes"), swarm.path("items"), swarm.path("journal"));
    let mut file = std::io::BufWriter::new(std::fs::File::create(&items).unwrap());
    (0..ITEMS).for_each(|item| writeln!(file, "{item}").unwrap());
    drop(file);
    let _workers = noting_workers(&swarm, 3, &notes);
    let mut reported = BTreeSet::new();
    for lines in [2000, 6000] {
        let mut submitter = Submitter::start(&swarm, &items, &journal);
        for _ in 0..lines {
            reported.insert(submitter.next().unwrap()["index"].as_i64().unwrap());
        }
        signal(submitter.child.id(), "KILL");
        submitter.child.wait().unwrap();
        reported.extend(std::iter::from_fn(|| submitter.next()).map(|line| line["index"].as_i64().unwrap()));
    }
    // What was reported had been recorded: it was run as often as it ever will be.
    let before = runs(&notes);
    let mut submitter = Submitter::start(&swarm, &items, &journal);
    let mut results = BTreeMap::new();
    while let Some(line) = submitter.next() {
        let index = line["index"].as_i64().unwrap();
        assert!(results.insert(index, line["result"].as_i64().unwrap()).is_none(), "{line}");
    }
    assert!(submitter.child.wait().unwrap().success());
    assert_eq!(results.len() as u64, ITEMS);
    assert!(results.iter().all(|(index, result)| index * index == *result));
    let after = runs(&notes);
    assert_eq!(after.len() as u64, ITEMS);
    assert!(reported.len() >= 6000, "{}", reported.len());
    for item in &reported {
        assert_eq!(after[item], before[item], "item {item} was recorded, and was run again");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_item_that_kills_its_node_is_set_aside_after_three_and_the_others_complete() {
    let swarm = Swarm::new();
    let notes = swarm.path("notes");
    let mut workers = noting_workers(&swarm, 5, &notes);
    let node = swarm.builder().name("submitter").start().await.unwrap();
    hosts(&node, "squares", 5).await;
    let items = (0..500_i64).map(|item| if item == 100 { -1 } else { item });
    let map = node.app("squares").map_iter::<i64>("square", items);
    let outcomes: Vec<_> = timeout(LIMIT, map.try_collect()).await.unwrap().unwrap();
    assert_eq!(outcomes.len(), 500);
    for outcome in &outcomes {
        if outcome.index != 100 {
            assert_eq!(*outcome.result.as_ref().unwrap(), (outcome.index * outcome.index) as i64);
            continue;
        }
        let error = outcome.result.as_ref().unwrap_err();
        assert_eq!(error.kind, ItemErrorKind::Poisoned, "{error:?}");
        let nodes: BTreeSet<_> = outcome.failures.iter().map(|attempt| attempt.node.as_str()).collect();
        // One more if the first node was gone before it was heard that the item's turn had come.
        assert!((3..=4).contains(&nodes.len()), "{outcome:?}");
        assert_eq!(nodes.len(), runs(&notes)[&-1] as usize, "it was never run where it had been before");
    }
    let gone = workers.iter_mut().filter_map(|worker| worker.has_ended()).count();
    assert!((3..=4).contains(&gone), "{gone} nodes are gone");
    node.stop().await;
}
