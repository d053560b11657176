//! What is promised about flows: nothing is lost, groupings hold, buffers are bounded, strangers are ignored.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "common/deliveries.rs"]
mod deliveries;
#[path = "common/in_process.rs"]
mod in_process;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use futures::{StreamExt, stream};
use multinodes::{
    Actions, AppError, CallError, Node,
    topology::{Counters, Emitter, Event, Flow, FlowError, Grouping, Run, Stage},
};
use tokio::sync::{Notify, Semaphore};

use deliveries::Delivery;
use in_process::{hosts, in_process, within};

/// A source and so many workers, all in this process; nothing is registered.
async fn swarm(workers: usize) -> (Node, Vec<Node>) {
    let (source, address) = in_process("source");
    let source = source.start().await.unwrap();
    let mut nodes = Vec::new();
    for number in 0..workers {
        let node = in_process(&format!("worker-{number}")).0.join(&address).start().await.unwrap();
        within(source.wait_for_node(node.name())).await.unwrap();
        nodes.push(node);
    }
    for node in &nodes {
        for other in &nodes {
            within(node.wait_for_node(other.name())).await.unwrap();
        }
    }
    (source, nodes)
}

/// Waits until all know all hosts of an application.
async fn known(source: &Node, workers: &[Node], application: &str, count: usize) {
    hosts(source, application, count).await;
    for worker in workers {
        hosts(worker, application, count).await;
    }
}

fn split() -> Stage {
    Stage::new(|line: String, out: Emitter| async move {
        for word in line.split_whitespace() {
            out.emit(word).await?;
        }
        Ok(())
    })
}

/// Emits what it gets along with the name of its node.
fn witness() -> Stage {
    Stage::new(|word: String, out: Emitter| async move { Ok(out.emit((word, out.node().name())).await?) })
}

fn lines(count: usize) -> Vec<String> {
    (0..count).map(|line| format!("the quick brown fox {} jumps over the lazy dog {}", line % 17, line % 5)).collect()
}

fn plain_count(lines: &[String]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for word in lines.iter().flat_map(|line| line.split_whitespace()) {
        *counts.entry(word.to_owned()).or_default() += 1;
    }
    counts
}

/// The outputs of completed items, each exactly once, and what was given up.
async fn collect<T: serde::de::DeserializeOwned>(run: &mut Run) -> (Vec<T>, Vec<multinodes::topology::Failed>) {
    let mut open = HashMap::<(u64, u32), Vec<T>>::new();
    let (mut done, mut failed) = (Vec::new(), Vec::new());
    while let Some(event) = within(run.next()).await {
        match event {
            Event::Output(output) => {
                open.entry((output.root, output.attempt)).or_default().push(output.value.decode().unwrap());
            }
            Event::Completed { root, attempt } => done.extend(open.remove(&(root, attempt)).into_iter().flatten()),
            Event::Failed(failure) => failed.push(failure),
            _ => {}
        }
    }
    (done, failed)
}

fn counted(words: impl IntoIterator<Item = String>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for word in words {
        *counts.entry(word).or_default() += 1;
    }
    counts
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn words_are_counted_over_three_nodes_and_each_word_stays_with_its_owner() {
    let (source, workers) = swarm(3).await;
    for worker in &workers {
        worker.register("split", split()).unwrap();
        worker.register("count", witness()).unwrap();
    }
    known(&source, &workers, "count", 3).await;
    hosts(&source, "split", 3).await;
    let lines = lines(500);
    let flow = Flow::new("words").stage("split", Grouping::Shuffle).stage("count", Grouping::by_key(""));
    let mut run = flow.run(&source, stream::iter(lines.clone())).unwrap();
    let (words, failed) = collect::<(String, String)>(&mut run).await;
    assert!(failed.is_empty());
    assert_eq!(counted(words.iter().map(|(word, _)| word.clone())), plain_count(&lines));
    let owners: BTreeSet<_> = words.into_iter().collect();
    assert_eq!(owners.len(), plain_count(&lines).len(), "a word has one owner: {owners:?}");
    let owning: BTreeSet<_> = owners.iter().map(|(_, owner)| owner).collect();
    assert_eq!(owning.len(), 3, "each node owns some: {owners:?}");
    let counters = run.counters();
    let expected = (500, 500, 0, 0, 0, 0, 0);
    let Counters { emitted, acked, replayed, failed, pending, ignored, refused, .. } = counters;
    assert_eq!((emitted, acked, replayed, failed, pending, ignored, refused), expected);
}

#[tokio::test]
async fn shuffled_tuples_reach_every_host_and_newcomers_at_once() {
    let (source, workers) = swarm(2).await;
    workers[0].register("work", witness()).unwrap();
    hosts(&source, "work", 1).await;
    let gate = Arc::new(Semaphore::new(50));
    let numbers = stream::unfold((0, gate.clone()), |(number, gate)| async move {
        gate.acquire().await.unwrap().forget();
        (number < 1000).then(|| (number.to_string(), (number + 1, gate)))
    });
    let mut run = Flow::new("f").stage("work", Grouping::Shuffle).run(&source, numbers).unwrap();
    let mut seen = BTreeSet::new();
    let mut completed = 0;
    while let Some(event) = within(run.next()).await {
        match event {
            Event::Output(output) => _ = seen.insert(output.value.decode::<(String, String)>().unwrap().1),
            Event::Completed { .. } => completed += 1,
            other => panic!("{other:?}"),
        }
        if completed == 50 && seen.len() == 1 && gate.available_permits() == 0 {
            workers[1].register("work", witness()).unwrap();
            hosts(&source, "work", 2).await;
            gate.add_permits(2000);
        }
    }
    assert_eq!((seen.len(), completed), (2, 1000));
}

#[tokio::test]
async fn to_all_reaches_every_host() {
    let (source, workers) = swarm(3).await;
    for worker in &workers {
        worker.register("work", witness()).unwrap();
    }
    hosts(&source, "work", 3).await;
    let numbers: Vec<_> = (0..20).map(|number| number.to_string()).collect();
    let mut run = Flow::new("f").stage("work", Grouping::All).run(&source, stream::iter(numbers.clone())).unwrap();
    let (outputs, _) = collect::<(String, String)>(&mut run).await;
    let mut expected: Vec<_> = numbers
        .iter()
        .flat_map(|number| workers.iter().map(move |worker| (number.clone(), worker.name().to_owned())))
        .collect();
    expected.sort();
    let mut outputs = outputs;
    outputs.sort();
    assert_eq!(outputs, expected);
}

#[tokio::test]
async fn local_first_stays_on_the_node_that_emits() {
    let (source, workers) = swarm(3).await;
    let first =
        || Stage::new(|word: String, out: Emitter| async move { Ok(out.emit((word, out.node().name())).await?) });
    let second = || {
        Stage::new(
            |(_, node): (String, String), out: Emitter| async move { Ok(out.emit((node, out.node().name())).await?) },
        )
    };
    for worker in &workers {
        worker.register("first", first()).unwrap();
        worker.register("second", second()).unwrap();
    }
    known(&source, &workers, "second", 3).await;
    hosts(&source, "first", 3).await;
    let flow = Flow::new("f").stage("first", Grouping::Shuffle).stage("second", Grouping::LocalFirst).max_pending(32);
    let numbers = stream::iter((0..200).map(|number| number.to_string()));
    let mut run = flow.run(&source, numbers).unwrap();
    let (outputs, _) = collect::<(String, String)>(&mut run).await;
    assert_eq!(outputs.len(), 200);
    assert!(outputs.iter().all(|(first, second)| first == second), "{outputs:?}");
    assert_eq!(outputs.iter().map(|(first, _)| first).collect::<BTreeSet<_>>().len(), 3);
}

#[tokio::test]
async fn a_stage_may_have_several_inputs_and_choose_among_its_outputs() {
    let (source, workers) = swarm(1).await;
    let sort = Stage::new(|number: u64, out: Emitter| async move {
        let stage = if number.is_multiple_of(2) { "even" } else { "join" };
        Ok(out.emit_to(stage, number).await?)
    });
    let even = Stage::new(|number: u64, out: Emitter| async move { Ok(out.emit(number * 100).await?) });
    let join = Stage::new(|number: u64, out: Emitter| async move { Ok(out.emit(number).await?) });
    workers[0].register("sort", sort).unwrap();
    workers[0].register("even", even).unwrap();
    workers[0].register("join", join).unwrap();
    let flow = Flow::new("f")
        .stage("sort", Grouping::Shuffle)
        .stage("even", Grouping::Shuffle)
        .stage_after("even", "join", Grouping::Shuffle)
        .stage_after("sort", "join", Grouping::Shuffle);
    let mut run = flow.run(&source, stream::iter(0..6_u64)).unwrap();
    let (mut outputs, failed) = collect::<u64>(&mut run).await;
    outputs.sort_unstable();
    assert_eq!((outputs, failed), (vec![0, 1, 3, 5, 200, 400], vec![]));
    let wrong = Stage::new(|_: u64, out: Emitter| async move { Ok(out.emit_to("nowhere", 1).await?) });
    workers[0].register("wrong", wrong).unwrap();
    let mut run = Flow::new("f").stage("wrong", Grouping::Shuffle).run(&source, stream::iter([1])).unwrap();
    let failed = collect::<u64>(&mut run).await.1;
    assert_eq!((failed.len(), failed[0].attempts), (1, 1));
    assert!(failed[0].reason.ends_with("no stage `nowhere` takes tuples from here"), "{}", failed[0].reason);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_lost_host_had_is_replayed_and_every_word_is_counted() {
    let (source, mut workers) = swarm(3).await;
    let counts = Arc::new(Mutex::new(BTreeMap::<String, usize>::new()));
    let stuck = Arc::new(Notify::new());
    for (number, worker) in workers.iter().enumerate() {
        worker.register("split", split()).unwrap();
        let (counts, stuck) = (counts.clone(), stuck.clone());
        let count = Stage::new(move |word: String, _: Emitter| {
            let (counts, stuck) = (counts.clone(), stuck.clone());
            async move {
                if number == 0 {
                    // It dies with tuples in its hands.
                    stuck.notify_one();
                    std::future::pending::<()>().await;
                }
                *counts.lock().unwrap().entry(word).or_default() += 1;
                Ok(())
            }
        });
        worker.register("count", count).unwrap();
    }
    known(&source, &workers, "count", 3).await;
    hosts(&source, "split", 3).await;
    let lines = lines(200);
    let flow = Flow::new("words")
        .stage("split", Grouping::Shuffle)
        .stage("count", Grouping::by_key(""))
        .ack_timeout(Duration::from_secs(2))
        .max_pending(50);
    let run = flow.run(&source, stream::iter(lines.clone())).unwrap();
    within(stuck.notified()).await;
    // Dropping the last handle stops a node at once.
    drop(workers.remove(0));
    let counters = within(run.finish()).await;
    assert_eq!((counters.acked, counters.failed, counters.pending), (200, 0, 0));
    assert!(counters.replayed > 0);
    // Whoever chooses a host for a call knows of it, too.
    hosts(&source, "split", 2).await;
    let nodes = workers.iter().chain([&source]);
    let considered = nodes.flat_map(|node| ["split", "count"].map(|stage| node.app(stage).explain())).flatten();
    assert!(considered.into_iter().any(|host| host.verdict == multinodes::Verdict::Gone), "somebody has lost it");
    let (counts, plain) = (counts.lock().unwrap(), plain_count(&lines));
    assert_eq!(counts.keys().collect::<Vec<_>>(), plain.keys().collect::<Vec<_>>());
    assert!(plain.iter().all(|(word, count)| counts[word] >= *count), "{counts:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outputs_are_had_exactly_once_although_trees_are_replayed() {
    let (source, workers) = swarm(2).await;
    let calls = Arc::new(AtomicUsize::new(0));
    for worker in &workers {
        worker.register("split", split()).unwrap();
        let calls = calls.clone();
        let count = Stage::new(move |word: String, out: Emitter| {
            let fails = calls.fetch_add(1, SeqCst) % 40 == 7;
            async move {
                out.emit(word).await?;
                if fails { Err(AppError::of("after it was emitted")) } else { Ok(()) }
            }
        });
        worker.register("count", count).unwrap();
    }
    known(&source, &workers, "count", 2).await;
    hosts(&source, "split", 2).await;
    let lines = lines(300);
    let flow =
        Flow::new("words").stage("split", Grouping::Shuffle).stage("count", Grouping::by_key("")).max_replays(50);
    let mut run = flow.run(&source, stream::iter(lines.clone())).unwrap();
    let (words, failed) = collect::<String>(&mut run).await;
    assert_eq!((counted(words), failed), (plain_count(&lines), vec![]));
    let counters = run.counters();
    assert!(counters.replayed > 0 && counters.outputs > 3000, "{counters:?}");
}

#[tokio::test]
async fn what_always_fails_is_given_up_and_all_else_completes() {
    let (source, workers) = swarm(2).await;
    for worker in &workers {
        let work = Stage::new(|number: u64, out: Emitter| async move {
            match number {
                3 => Err(AppError::of("three is a crowd")),
                5 => panic!("five"),
                7 => Err(AppError::forbidden()),
                _ => Ok(out.emit(number).await?),
            }
        });
        worker.register("work", work).unwrap();
    }
    hosts(&source, "work", 2).await;
    let flow = Flow::new("f").stage("work", Grouping::Shuffle).max_replays(2);
    let items = (0..10_u64).map(|number| if number == 9 { serde_json::json!("nine") } else { number.into() });
    let mut run = flow.run(&source, stream::iter(items.collect::<Vec<_>>())).unwrap();
    let (mut outputs, mut failed) = collect::<u64>(&mut run).await;
    outputs.sort_unstable();
    assert_eq!(outputs, [0, 1, 2, 4, 6, 8]);
    failed.sort_by_key(|failed| failed.root);
    let attempts: Vec<_> = failed.iter().map(|failed| (failed.root, failed.attempts)).collect();
    assert_eq!(attempts, [(3, 3), (5, 3), (7, 1), (9, 1)]);
    assert!(failed[0].reason.ends_with(": three is a crowd"), "{}", failed[0].reason);
    assert!(failed[1].reason.ends_with(": panicked: five"), "{}", failed[1].reason);
    assert_eq!(failed[0].input.decode::<u64>().unwrap(), 3);
    let counters = run.counters();
    assert_eq!((counters.acked, counters.failed, counters.replayed, counters.pending), (6, 4, 4, 0));
}

#[tokio::test]
async fn a_slow_stage_slows_down_a_source_without_end() {
    const PENDING: usize = 40;
    let (source, workers) = swarm(2).await;
    // The slow stage processes one tuple at a time, in the whole swarm.
    let (gate, processed) = (Arc::new(Semaphore::new(1)), Arc::new(AtomicUsize::new(0)));
    for worker in &workers {
        let fan = Stage::new(|number: u64, out: Emitter| async move {
            for _ in 0..20 {
                out.emit(number).await?;
            }
            Ok(())
        });
        worker.register("fan", fan).unwrap();
        let (gate, processed) = (gate.clone(), processed.clone());
        let slow = Stage::new(move |_: u64, _: Emitter| {
            let (gate, processed) = (gate.clone(), processed.clone());
            async move {
                let _turn = gate.acquire().await.unwrap();
                tokio::task::yield_now().await;
                processed.fetch_add(1, SeqCst);
                Ok(())
            }
        });
        worker.register("slow", slow.concurrency(2).queue(4)).unwrap();
    }
    known(&source, &workers, "slow", 2).await;
    hosts(&source, "fan", 2).await;
    let taken = Arc::new(AtomicUsize::new(0));
    let counting = taken.clone();
    let endless = stream::iter(0_u64..).inspect(move |_| _ = counting.fetch_add(1, SeqCst));
    let flow = Flow::new("f").stage("fan", Grouping::Shuffle).stage("slow", Grouping::Shuffle).max_pending(PENDING);
    let mut run = flow.run(&source, endless).unwrap();
    for completed in 0..100 {
        assert!(matches!(within(run.next()).await, Some(Event::Completed { .. })));
        let counters = run.counters();
        assert!(counters.pending <= PENDING, "{counters:?}");
        assert!(taken.load(SeqCst) <= completed + 1 + PENDING, "{completed} of {taken:?}");
        assert_eq!(counters.replayed, 0);
    }
    assert!(processed.load(SeqCst) >= 100 * 20);
    let has_desk = || source.description().applications.iter().any(|app| app.name.starts_with("flow:f:"));
    assert!(has_desk());
    drop(run);
    assert!(!has_desk());
}

#[tokio::test]
async fn dropping_the_run_stops_what_runs_on_other_nodes() {
    struct Stopped(Arc<Notify>);
    impl Drop for Stopped {
        fn drop(&mut self) {
            self.0.notify_one();
        }
    }
    let (source, workers) = swarm(1).await;
    let (begun, stopped) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (sender, receiver) = (begun.clone(), stopped.clone());
    let work = Stage::new(move |_: u64, _: Emitter| {
        let (begun, stopped) = (sender.clone(), Stopped(receiver.clone()));
        async move {
            begun.notify_one();
            std::future::pending::<()>().await;
            drop(stopped);
            Ok(())
        }
    });
    workers[0].register("work", work).unwrap();
    let run = Flow::new("f").stage("work", Grouping::Shuffle).run(&source, stream::iter([1_u64])).unwrap();
    within(begun.notified()).await;
    drop(run);
    within(stopped.notified()).await;
}

#[tokio::test]
async fn a_run_whose_node_is_stopped_gives_up_what_is_pending() {
    let (source, workers) = swarm(1).await;
    let begun = Arc::new(Notify::new());
    let notify = begun.clone();
    let work = Stage::new(move |_: u64, _: Emitter| {
        notify.notify_one();
        std::future::pending()
    });
    workers[0].register("work", work).unwrap();
    let flow = Flow::new("f").stage("work", Grouping::Shuffle).ack_timeout(Duration::from_millis(200));
    let mut run = flow.run(&source, stream::iter([1_u64])).unwrap();
    within(begun.notified()).await;
    within(source.stop()).await;
    let Some(Event::Failed(failed)) = within(run.next()).await else { panic!("it was given up") };
    assert_eq!(failed.reason, "the node of the source was stopped");
    assert_eq!(within(run.next()).await, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_stops_finishes_what_it_has_and_nothing_is_replayed() {
    let (source, workers) = swarm(3).await;
    let enough = Arc::new(Semaphore::new(0));
    for worker in &workers {
        worker.register("split", split()).unwrap();
        let enough = enough.clone();
        let count = Stage::new(move |word: String, out: Emitter| {
            let enough = enough.clone();
            async move {
                enough.add_permits(1);
                tokio::task::yield_now().await;
                Ok(out.emit(word).await?)
            }
        });
        worker.register("count", count.concurrency(2)).unwrap();
    }
    known(&source, &workers, "count", 3).await;
    hosts(&source, "split", 3).await;
    let lines = lines(300);
    let flow =
        Flow::new("words").stage("split", Grouping::Shuffle).stage("count", Grouping::by_key("")).max_pending(50);
    let mut run = flow.run(&source, stream::iter(lines.clone())).unwrap();
    let leaving = workers[0].clone();
    let stopping = tokio::spawn(async move {
        let _enough = enough.acquire_many(200).await.unwrap();
        leaving.stop().await;
    });
    let (words, failed) = collect::<String>(&mut run).await;
    within(stopping).await.unwrap();
    assert_eq!((counted(words), failed), (plain_count(&lines), vec![]));
    assert_eq!(run.counters().replayed, 0, "{:?}", run.counters());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_node_emits_while_it_stops_is_taken_also_by_who_has_got_nothing_of_it_before() {
    let (source, workers) = swarm(2).await;
    let [begun, gate, seen] = [0; 3].map(|_| Arc::new(Semaphore::new(0)));
    let (begin, open) = (begun.clone(), gate.clone());
    let held = Stage::new(move |number: u64, out: Emitter| {
        let (begin, open) = (begin.clone(), open.clone());
        async move {
            begin.add_permits(1);
            let _open = open.acquire().await.unwrap();
            Ok(out.emit(number).await?)
        }
    });
    workers[0].register("first", held).unwrap();
    workers[1]
        .register("first", Stage::new(|number: u64, out: Emitter| async move { Ok(out.emit(number).await?) }))
        .unwrap();
    let see = seen.clone();
    let second = Stage::new(move |number: u64, out: Emitter| {
        see.add_permits(1);
        async move { Ok(out.emit(number).await?) }
    });
    workers[1].register("second", second).unwrap();
    known(&source, &workers, "first", 2).await;
    known(&source, &workers, "second", 1).await;
    let flow = Flow::new("numbers").stage("first", Grouping::Shuffle).stage("second", Grouping::Shuffle);
    let mut run = flow.run(&source, stream::iter(0..40_u64)).unwrap();
    let collecting = tokio::spawn(async move { (collect::<u64>(&mut run).await, run.counters().replayed) });
    let _begun = within(begun.acquire()).await.unwrap();
    let _seen = within(seen.acquire()).await.unwrap();
    let leaving = workers[0].clone();
    let stopping = tokio::spawn(async move { leaving.stop().await });
    hosts(&workers[1], "first", 1).await;
    gate.add_permits(40);
    let ((mut numbers, failed), replayed) = within(collecting).await.unwrap();
    within(stopping).await.unwrap();
    numbers.sort_unstable();
    assert_eq!((numbers, failed.len(), replayed), ((0..40).collect(), 0, 0));
}

#[tokio::test]
async fn messages_of_those_who_take_no_part_are_counted_and_change_nothing() {
    let (source, workers) = swarm(2).await;
    let (begun, gate) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (notify, wait) = (begun.clone(), gate.clone());
    let work = Stage::new(move |number: u64, out: Emitter| {
        let (notify, wait) = (notify.clone(), wait.clone());
        async move {
            notify.notify_one();
            wait.notified().await;
            Ok(out.emit(number).await?)
        }
    });
    workers[0].register("work", work).unwrap();
    hosts(&source, "work", 1).await;
    let mut run = Flow::new("f").stage("work", Grouping::Shuffle).run(&source, stream::iter([1_u64])).unwrap();
    within(begun.notified()).await;
    let desk = format!("flow:f:{:016x}", run.id());
    // Worker 1 hosts no stage, so it never got the secret.
    let forge = |action: &'static str, arguments: serde_json::Value| {
        let target = workers[1].app(&desk).on("source");
        async move { within(target.call::<serde_json::Value>(action, arguments)).await }
    };
    let sums = |token: [u64; 2]| serde_json::json!({"token": token, "sums": [[[0, 1], 1]], "failures": []});
    for token in [[0, 0], [1, u64::MAX]] {
        let error = forge("acks", sums(token)).await.unwrap_err();
        assert!(matches!(error, CallError::Forbidden), "{error:?}");
    }
    let failure = serde_json::json!({"tree": [0, 1], "reason": "because", "is_final": true});
    let failures = serde_json::json!({"token": [0, 0], "sums": [], "failures": [failure]});
    assert!(matches!(forge("acks", failures).await, Err(CallError::Forbidden)));
    assert!(matches!(forge("acks", serde_json::json!("garbage")).await, Err(CallError::BadArguments { .. })));
    assert!(matches!(forge("shut down", serde_json::json!(1)).await, Err(CallError::NoSuchAction { .. })));
    let counters = run.counters();
    assert_eq!((counters.refused, counters.pending, counters.acked, counters.failed), (4, 1, 0, 0));
    gate.notify_one();
    let (outputs, failed) = collect::<u64>(&mut run).await;
    assert_eq!((outputs, failed), (vec![1], vec![]));
}

#[tokio::test]
async fn a_stage_refuses_deliveries_that_make_no_sense() {
    let (source, workers) = swarm(1).await;
    workers[0].register("work", witness().actions(Actions::new().action("ask", |()| async { "answer" }))).unwrap();
    hosts(&source, "work", 1).await;
    let signed = |to: Option<u16>, desk: &str, run: u64| {
        let edges: Vec<_> = to.map(|to| serde_json::json!({"to": to, "grouping": "Shuffle"})).into_iter().collect();
        let stage = serde_json::json!({"application": "work", "edges": edges, "outputs": false});
        let plan = serde_json::json!({"run": run, "token": [2, 3], "desk": desk, "first": [{"to": 0, "grouping": "Shuffle"}], "stages": [stage]});
        let keypair = multinodes::Keypair::generate_ed25519();
        multinodes_behaviour::plan::sign(&keypair, &multinodes_behaviour::SwarmName::default(), &plan).unwrap().to_vec()
    };
    let deliver = async |stage: u16, plan: Vec<u8>| {
        let delivery = Delivery { run: 1, token: (2, 3), stage, patience: 0, plan: plan.into(), tuples: Vec::new() };
        delivery.send(&source, "work", &workers[0]).await
    };
    for (stage, plan) in [
        (0, signed(Some(0), "flow:f", 1)),
        (0, signed(Some(7), "flow:f", 1)),
        // Acknowledgements would be calls of whatever application is named.
        (0, signed(None, "node", 1)),
        (0, signed(None, "flow:f", 2)),
        (0, b"garbage".to_vec()),
        (0, Vec::new()),
    ] {
        let error = deliver(stage, plan).await.unwrap_err();
        assert!(matches!(error, CallError::BadArguments { .. }), "{error:?}");
    }
    let answer: String = within(source.call("work", "ask", ())).await.unwrap();
    assert_eq!(answer, "answer");
}

#[tokio::test]
async fn stages_may_come_after_the_run_has_begun() {
    let (source, workers) = swarm(1).await;
    let mut run =
        Flow::new("f").stage("split", Grouping::Shuffle).run(&source, stream::iter(["a b".to_owned()])).unwrap();
    // An application of that name which is no stage gets nothing.
    source.register("split", Actions::new()).unwrap();
    workers[0].register("split", split()).unwrap();
    let (mut words, _) = collect::<String>(&mut run).await;
    words.sort();
    assert_eq!(words, ["a", "b"]);
}

#[tokio::test]
async fn a_tuple_without_its_key_or_too_large_is_given_up_at_once() {
    let (source, address) = in_process("source");
    let source = source.max_message(200_000).start().await.unwrap();
    drop(address);
    source.register("keyed", witness()).unwrap();
    let items = [serde_json::json!({"word": 1}), serde_json::json!("x".repeat(150_000))];
    let flow = Flow::new("f").stage("keyed", Grouping::by_key("url"));
    let mut run = flow.run(&source, stream::iter(items)).unwrap();
    let (_, failed) = collect::<String>(&mut run).await;
    assert_eq!(failed.iter().map(|failed| failed.attempts).collect::<Vec<_>>(), [1, 1]);
    assert_eq!(failed[0].reason, "the tuple has no key `url`");
    let flow = Flow::new("f").stage("keyed", Grouping::Shuffle);
    let mut run = flow.run(&source, stream::iter(["x".repeat(150_000)])).unwrap();
    let (_, failed) = collect::<String>(&mut run).await;
    assert_eq!(failed[0].reason, "the tuple has 150005 bytes, the limit is 134464");
}

#[tokio::test]
async fn a_passive_node_runs_no_flow() {
    let node = in_process("passive").0.passive(true).start().await.unwrap();
    let error = Flow::new("f").stage("a", Grouping::Shuffle).run(&node, stream::iter([1])).unwrap_err();
    assert!(matches!(error, FlowError::Register(_)), "{error}");
    assert_eq!(Flow::new("f").run(&node, stream::iter([1])).unwrap_err(), FlowError::Empty);
}

#[tokio::test]
async fn what_is_emitted_after_the_end_of_the_stage_is_refused() {
    let (source, workers) = swarm(1).await;
    let kept = Arc::new(Mutex::new(None));
    let keep = kept.clone();
    let work = Stage::new(move |_: u64, out: Emitter| {
        *keep.lock().unwrap() = Some(out);
        async { Ok(()) }
    });
    workers[0].register("work", work).unwrap();
    let mut run = Flow::new("f").stage("work", Grouping::Shuffle).run(&source, stream::iter([1_u64])).unwrap();
    assert_eq!(within(run.next()).await, Some(Event::Completed { root: 0, attempt: 1 }));
    let out = kept.lock().unwrap().take().unwrap();
    let error = within(out.emit(1)).await.unwrap_err();
    assert_eq!(error.to_string(), "the tuple from which it comes was done with, or the run is over");
}

#[tokio::test]
async fn many_runs_at_once_do_not_meet() {
    let (source, workers) = swarm(2).await;
    for worker in &workers {
        worker.register("work", witness()).unwrap();
    }
    hosts(&source, "work", 2).await;
    let runs = (0..10).map(|run| {
        let items = (0..50).map(|item| format!("{run}-{item}")).collect::<BTreeSet<_>>();
        let mut handle =
            Flow::new("f").stage("work", Grouping::Shuffle).run(&source, stream::iter(items.clone())).unwrap();
        async move {
            let (outputs, _) = collect::<(String, String)>(&mut handle).await;
            assert_eq!(outputs.into_iter().map(|(item, _)| item).collect::<BTreeSet<_>>(), items);
        }
    });
    futures::future::join_all(runs).await;
}

/// The memory of all tests of this program is one: run it alone, as the figure below.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "it measures"]
#[allow(clippy::print_stderr, reason = "it is what it is for")]
async fn memory_stays_flat_with_a_source_without_end_and_a_slow_stage() {
    let (source, workers) = swarm(2).await;
    let gate = Arc::new(Semaphore::new(1));
    for worker in &workers {
        worker.register("split", split()).unwrap();
        let gate = gate.clone();
        let slow = Stage::new(move |_: String, _: Emitter| {
            let gate = gate.clone();
            async move {
                let _turn = gate.acquire().await.unwrap();
                tokio::task::yield_now().await;
                Ok(())
            }
        });
        worker.register("slow", slow).unwrap();
    }
    known(&source, &workers, "slow", 2).await;
    hosts(&source, "split", 2).await;
    let flow = Flow::new("f").stage("split", Grouping::Shuffle).stage("slow", Grouping::Shuffle);
    let mut run = flow.run(&source, stream::iter(lines(1000)).cycle()).unwrap();
    let mut sizes = Vec::new();
    for completed in 1..=60_000 {
        assert!(matches!(within(run.next()).await, Some(Event::Completed { .. })));
        if completed % 10_000 == 0 {
            let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
            sizes.push(pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4 / 1024);
        }
    }
    eprintln!("MiB after each 10,000 items: {sizes:?}, {:?}", run.counters());
    assert!(sizes[5] <= sizes[1] + 8, "{sizes:?}");
}

/// Not a promise, a figure: `cargo test --release --test topology -- --ignored --nocapture`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "it measures"]
#[allow(clippy::print_stderr, reason = "it is what it is for")]
async fn tuples_per_second_through_two_stages_over_loopback() {
    const LINES: usize = 100_000;
    let source = Node::builder().name("source").listen("/ip4/127.0.0.1/tcp/0").mdns(false).rendezvous(false);
    let source = source.start().await.unwrap();
    let address = source.addresses()[0].to_string();
    let mut workers = Vec::new();
    for number in 0..2 {
        let node = Node::builder().name(format!("worker-{number}")).listen("/ip4/127.0.0.1/tcp/0").mdns(false);
        let node = node.rendezvous(false).join(&address).start().await.unwrap();
        node.register("split", split()).unwrap();
        node.register("count", Stage::new(|_: String, _: Emitter| async { Ok(()) })).unwrap();
        workers.push(node);
    }
    known(&source, &workers, "count", 2).await;
    hosts(&source, "split", 2).await;
    let flow = Flow::new("words").stage("split", Grouping::Shuffle).stage("count", Grouping::by_key(""));
    let begun = Instant::now();
    let run = flow.run(&source, stream::iter(lines(LINES))).unwrap();
    let counters = run.finish().await;
    let seconds = begun.elapsed().as_secs_f64();
    let tuples = LINES + plain_count(&lines(LINES)).values().sum::<usize>();
    eprintln!("{tuples} tuples in {seconds:.2} s: {:.0} tuples/s, {counters:?}", tuples as f64 / seconds);
}
