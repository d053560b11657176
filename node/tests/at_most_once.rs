//! Maps that run no item twice, over crashes of each party: the submitter, a node that works, its worker's process, and
//! over a disk that is full.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
        mpsc::{Receiver, channel},
    },
    thread,
    time::{Duration, Instant},
};

use common::{LIMIT, Outcome as Ended, Process, Swarm, run, signal};
use futures::TryStreamExt;
use multinodes::{Actions, AppError, ItemErrorKind, Map, MapError, Node, Outcome};
use serde_json::Value;
use tokio::{sync::mpsc, time::timeout};

const MAP: [&str; 8] = ["map", "squares", "square", "--in", "items", "--journal", "journal", "--at-most-once"];

/// Workers that note each run, on nodes of their own.
struct Workers {
    notes: PathBuf,
    nodes: Vec<Process>,
}

impl Workers {
    fn start(swarm: &Swarm, count: usize) -> Self {
        let notes = swarm.path("notes");
        let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/swarm_map/noting.py");
        let command = format!("squares=python3 '{}' '{}'", script.display(), notes.display());
        let start = |number| swarm.start(&format!("worker-{number}"), &["--serve", &command, "--slots", "squares=2"]);
        Self { nodes: (0..count).map(start).collect(), notes }
    }

    /// How often each item was run so far.
    fn runs(&self) -> BTreeMap<u64, u32> {
        let mut runs = BTreeMap::new();
        for line in fs::read_to_string(&self.notes).unwrap_or_default().lines() {
            *runs.entry(line.parse().unwrap()).or_default() += 1;
        }
        runs
    }

    #[track_caller]
    fn assert_none_ran_twice(&self) {
        let twice: Vec<_> = self.runs().into_iter().filter(|(_, count)| *count > 1).collect();
        assert!(twice.is_empty(), "these items ran more than once: {twice:?}");
    }
}

fn write_items(swarm: &Swarm, count: u64) {
    fs::write(swarm.path("items"), (0..count).map(|item| format!("{item}\n")).collect::<String>()).unwrap();
}

/// A submitter that writes its outcomes, and the lines as they come.
struct Submitter {
    child: Child,
    lines: Receiver<String>,
}

impl Submitter {
    fn start(mut command: Command) -> Self {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self { child, lines }
    }

    fn kill(mut self) {
        signal(self.child.id(), "KILL");
        self.child.wait().unwrap();
    }
}

/// The items of an output by whether they have a result; the others may all have run.
#[track_caller]
fn accounts(output: &str) -> (BTreeSet<u64>, BTreeSet<u64>) {
    let (mut done, mut unknown) = (BTreeSet::new(), BTreeSet::new());
    for line in output.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let index = line["index"].as_u64().unwrap();
        if line["result"].is_u64() {
            assert_eq!(line["result"].as_u64(), Some(index * index), "{line}");
            assert!(done.insert(index), "twice: {line}");
        } else {
            assert_eq!(line["error"]["kind"], "may_have_run", "{line}");
            assert!(unknown.insert(index), "twice: {line}");
        }
    }
    assert!(done.is_disjoint(&unknown));
    (done, unknown)
}

/// What is known of an ended map: each of so many items is done, or may have run, and the exit code says which.
#[track_caller]
fn assert_accounted(outcome: &Ended, count: u64, runs: &BTreeMap<u64, u32>) -> BTreeSet<u64> {
    let (done, unknown) = accounts(&outcome.stdout);
    assert_eq!((done.len() + unknown.len()) as u64, count);
    let lost: Vec<_> = runs.keys().filter(|item| !done.contains(item) && !unknown.contains(item)).collect();
    assert!(lost.is_empty() && done.iter().all(|item| runs.contains_key(item)), "{lost:?}");
    assert_eq!(outcome.code, if unknown.is_empty() { 0 } else { 3 }, "{}", outcome.stderr);
    unknown
}

fn with(flags: &[&'static str]) -> Vec<&'static str> {
    [&MAP[..], flags].concat()
}

#[test]
fn a_submitter_that_is_killed_at_twenty_moments_runs_no_item_twice_and_accounts_for_all() {
    const ITEMS: u64 = 4_000;
    const KILLS: usize = 20;
    let swarm = Swarm::new();
    write_items(&swarm, ITEMS);
    let workers = Workers::start(&swarm, 3);
    for kill in 0..KILLS {
        let submitter = Submitter::start(swarm.command(&MAP));
        if kill % 2 == 0 {
            // So many outcomes of this very run: those that are recorded come first.
            let mut wanted = rand::random_range(1..120);
            while wanted > 0 {
                let line = submitter.lines.recv_timeout(LIMIT).unwrap();
                wanted -= usize::from(!line.contains("\"recorded\":true"));
            }
        } else {
            // Wherever it is by then: while it looks for workers, opens its journal, or is at work.
            let end = Instant::now() + Duration::from_millis(rand::random_range(0..400));
            while submitter.lines.recv_timeout(end.saturating_duration_since(Instant::now())).is_ok() {}
        }
        submitter.kill();
        workers.assert_none_ran_twice();
    }
    let outcome = run(swarm.command(&MAP), "");
    workers.assert_none_ran_twice();
    let unknown = assert_accounted(&outcome, ITEMS, &workers.runs());
    assert!(!unknown.is_empty(), "twenty kills have hit something");
    assert!(outcome.stderr.contains(&format!("{} of them may have run", unknown.len())), "{}", outcome.stderr);

    let before = workers.runs();
    let failed = run(swarm.command(&with(&["--retry-failed"])), "");
    assert_eq!(assert_accounted(&failed, ITEMS, &before), unknown, "--retry-failed is not enough");
    assert_eq!(workers.runs(), before, "nothing was run again");

    run(swarm.command(&with(&["--retry-unknown"])), "").expect(0);
    for (item, count) in workers.runs() {
        let expected = before.get(&item).copied().unwrap_or_default() + u32::from(unknown.contains(&item));
        assert_eq!(count, expected, "item {item}, unknown: {}", unknown.contains(&item));
    }
    let last = run(swarm.command(&MAP), "").expect(0);
    assert!(last.stdout.lines().all(|line| line.contains("\"recorded\":true")), "{last:?}");
}

#[test]
fn when_nodes_and_worker_processes_are_killed_no_item_runs_twice() {
    const ITEMS: u64 = 6_000;
    let swarm = Swarm::new();
    write_items(&swarm, ITEMS);
    let workers = Workers::start(&swarm, 4);
    let submitter = Submitter::start(swarm.command(&with(&["--patience", "5s"])));
    let mut output = String::new();
    for count in 0..ITEMS {
        match count {
            1000 => workers.nodes[0].signal("KILL"),
            2000 | 3000 => kill_worker_of(&workers.nodes[1]),
            4000 => workers.nodes[2].signal("KILL"),
            _ => {}
        }
        output += &submitter.lines.recv_timeout(LIMIT).unwrap();
        output.push('\n');
    }
    let mut child = submitter.child;
    let code = child.wait().unwrap().code();
    workers.assert_none_ran_twice();
    let (done, unknown) = accounts(&output);
    assert_eq!((done.len() + unknown.len()) as u64, ITEMS);
    assert_eq!(code, Some(if unknown.is_empty() { 0 } else { 3 }));
    let runs = workers.runs();
    assert!(runs.keys().all(|item| done.contains(item) || unknown.contains(item)));
    // Of the workers that were killed, what they had is known to be unknown, and is so in the next run, too.
    let again = run(swarm.command(&with(&["--retry-failed"])), "");
    assert_eq!(assert_accounted(&again, ITEMS, &runs), unknown);
}

/// Kills one of the processes that a node has started.
fn kill_worker_of(node: &Process) {
    let threads = fs::read_dir(format!("/proc/{}/task", node.id())).unwrap();
    let children =
        threads.map(|thread| fs::read_to_string(thread.unwrap().path().join("children")).unwrap_or_default());
    let children = children.collect::<String>();
    signal(children.split_whitespace().next().unwrap().parse().unwrap(), "KILL");
}

#[test]
fn a_disk_that_is_full_ends_the_map_and_nothing_runs_twice_when_there_is_room() {
    const ITEMS: u64 = 6_000;
    let swarm = Swarm::new();
    write_items(&swarm, ITEMS);
    let workers = Workers::start(&swarm, 2);
    // In units of 512 bytes. A process that ignores the signal gets the error.
    let map = swarm.command(&MAP);
    let mut command = Command::new("sh");
    command
        .args(["-c", "trap '' XFSZ; ulimit -f 2000; exec \"$0\" \"$@\""])
        .arg(map.get_program())
        .args(map.get_args());
    command.current_dir(map.get_current_dir().unwrap());
    for (name, value) in map.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let outcome = run(command, "").expect(2);
    let last = outcome.stderr.lines().last().unwrap_or_default();
    assert!(last.contains("`journal`") && last.contains("File too large"), "{last}");
    workers.assert_none_ran_twice();
    let before = workers.runs().len() as u64;
    assert!(before > 0 && before < ITEMS, "it ends in the middle: {before}");
    let outcome = run(swarm.command(&MAP), "");
    workers.assert_none_ran_twice();
    assert_accounted(&outcome, ITEMS, &workers.runs());
}

#[test]
fn promises_that_contradict_each_other_are_refused() {
    let swarm = Swarm::new();
    write_items(&swarm, 10);
    for (flags, words) in [
        (&["--at-most-once", "--retry-errors", "2"][..], &["--at-most-once", "--retry-errors"][..]),
        (&["--at-most-once", "--idempotent"], &["--at-most-once", "--idempotent"]),
        (&["--retry-unknown", "--journal", "other"], &["--at-most-once"]),
        (&["--retry-unknown", "--at-most-once"], &["--journal"]),
        (&["--retry-failed"], &["--journal"]),
    ] {
        let outcome = swarm.run(&[&["map", "squares", "square", "--in", "items"], flags].concat()).expect(2);
        assert!(words.iter().all(|word| outcome.stderr.contains(word)), "{flags:?}: {outcome:?}");
    }
    assert!(!swarm.path("other").exists());
}

#[test]
fn a_journal_keeps_the_promise_with_which_it_was_begun() {
    let swarm = Swarm::new();
    write_items(&swarm, 10);
    let workers = Workers::start(&swarm, 1);
    let plain = ["map", "squares", "square", "--in", "items", "--journal", "plain"];
    run(swarm.command(&plain), "").expect(0);
    let outcome = run(swarm.command(&[&plain[..], &["--at-most-once"]].concat()), "").expect(2);
    assert!(outcome.stderr.contains("`plain` was begun without at-most-once"), "{outcome:?}");
    run(swarm.command(&MAP), "").expect(0);
    let outcome = run(swarm.command(&MAP[..7]), "").expect(2);
    assert!(outcome.stderr.contains("`journal` was begun with at-most-once"), "{outcome:?}");
    assert!(workers.runs().values().all(|count| *count == 2), "each map ran each item once");
}

#[tokio::test]
async fn the_library_refuses_the_same() {
    let swarm = Swarm::new();
    let node = swarm.builder().name("alone").start().await.unwrap();
    let mut map = node.app("nobody").map_iter::<u64>("run", [1_u64]).at_most_once().retry_errors(1);
    let error = map.try_next().await.unwrap_err();
    assert!(matches!(error, MapError::Contradiction { one: "at_most_once", other: "retry_errors" }), "{error}");
    assert!(map.try_next().await.unwrap().is_none(), "nothing comes after it");
    assert_eq!(ItemErrorKind::MayHaveRun.code(), "may_have_run");
    node.stop().await;
}

/// A node that hosts `work`, whose action `run` fails as it is told by `fails`, and counts its runs.
async fn host(
    swarm: &Swarm,
    fails: impl Fn(u64) -> Option<AppError> + Send + Sync + 'static,
) -> (Node, Arc<AtomicU64>) {
    let node = swarm.builder().name("alone").start().await.unwrap();
    let (runs, fails) = (Arc::new(AtomicU64::new(0)), Arc::new(fails));
    let counted = runs.clone();
    let actions = Actions::new().try_action("run", move |item: u64| {
        let failure = fails(item);
        counted.fetch_add(1, SeqCst);
        async move { failure.map_or(Ok(item), Err) }
    });
    node.register("work", actions).unwrap();
    (node, runs)
}

fn journalled(swarm: &Swarm, node: &Node) -> Map<u64> {
    node.app("work").map_iter::<u64>("run", 0..20_u64).at_most_once().journal(swarm.path("journal"))
}

async fn all(map: Map<u64>) -> Vec<Outcome<u64>> {
    timeout(LIMIT, map.try_collect()).await.unwrap().unwrap()
}

#[tokio::test]
async fn what_nobody_takes_was_not_begun_and_runs_later_without_being_asked_for_again() {
    let swarm = Swarm::new();
    let (busy, _) = host(&swarm, |_| Some(AppError::busy("always"))).await;
    let map = journalled(&swarm, &busy).patience(Duration::from_millis(300));
    let error = timeout(LIMIT, map.try_collect::<Vec<_>>()).await.unwrap().unwrap_err();
    assert!(matches!(error, MapError::NoWorker(_)), "{error}");
    busy.stop().await;
    let (node, runs) = host(&swarm, |_| None).await;
    let outcomes = all(journalled(&swarm, &node)).await;
    assert!(outcomes.iter().all(|outcome| outcome.result.is_ok() && !outcome.recorded), "{outcomes:?}");
    assert_eq!((outcomes.len(), runs.load(SeqCst)), (20, 20));
    node.stop().await;
}

#[tokio::test]
async fn what_failed_by_the_word_of_the_application_is_run_once_more_if_that_is_asked_for() {
    let swarm = Swarm::new();
    let (node, runs) = host(&swarm, |item| (item == 7).then(|| AppError::new("unlucky", "it is 7"))).await;
    for (map, expected) in [
        (journalled(&swarm, &node), 20),
        (journalled(&swarm, &node).retry_unknown(), 20),
        (journalled(&swarm, &node).retry_failed(), 21),
    ] {
        let outcomes = all(map).await;
        let failed: Vec<_> = outcomes.iter().filter(|outcome| outcome.result.is_err()).collect();
        assert_eq!((failed.len(), failed[0].index), (1, 7), "{failed:?}");
        assert_eq!(failed[0].result.as_ref().unwrap_err().kind, ItemErrorKind::Failed);
        assert_eq!((outcomes.len(), runs.load(SeqCst)), (20, expected));
    }
    node.stop().await;
}

#[tokio::test]
async fn dropping_a_map_leaves_what_ran_unknown_and_nothing_else() {
    let swarm = Swarm::new();
    let node = swarm.builder().name("alone").start().await.unwrap();
    let (begun, mut running) = mpsc::unbounded_channel();
    let actions = Actions::new().slots(2).action("run", move |item: u64| {
        let _ = begun.send(item);
        async move {
            if item > 4 {
                std::future::pending::<()>().await;
            }
            item
        }
    });
    node.register("work", actions).unwrap();
    let mut map = journalled(&swarm, &node).prefetch(1);
    for _ in 0..5 {
        timeout(LIMIT, map.try_next()).await.unwrap().unwrap().unwrap().result.unwrap();
    }
    let mut ran = BTreeSet::new();
    while ran.len() < 7 {
        ran.insert(timeout(LIMIT, running.recv()).await.unwrap().unwrap());
    }
    drop(map);
    node.stop().await;
    let (node, runs) = host(&swarm, |_| None).await;
    let outcomes = all(journalled(&swarm, &node)).await;
    let unknown: BTreeSet<_> =
        outcomes.iter().filter(|outcome| outcome.result.is_err()).map(|outcome| outcome.index).collect();
    assert!((5..7).all(|index| unknown.contains(&index)), "{unknown:?}");
    assert!(unknown.len() <= 3, "two ran, and one lay ready: {unknown:?} of {ran:?}");
    assert_eq!((outcomes.len() - unknown.len()) as u64, 5 + runs.load(SeqCst));
    node.stop().await;
}
