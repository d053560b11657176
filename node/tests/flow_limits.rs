//! What a flow may take of a node's memory, what a panic in it does, and who gives way to whom.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "common/deliveries.rs"]
mod deliveries;
#[path = "common/in_process.rs"]
mod in_process;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use futures::{StreamExt, stream};
use multinodes::{
    Builder, Keypair, Node,
    topology::{Emitter, Event, Flow, Grouping, MAX_EMITTED_BYTES, MAX_PENDING_BYTES, Stage},
};
use multinodes_behaviour::{SwarmName, plan};
use serde_bytes::ByteBuf;
use serde_json::json;
use tokio::sync::{Notify, Semaphore};

use deliveries::Delivery;
use in_process::{hosts, in_process, pair, within};

/// The size of a tuple that is not small, in bytes.
const LARGE: usize = 8 * 1024 * 1024;

fn large(count: usize) -> impl futures::Stream<Item = String> + Send + 'static {
    stream::iter(0..count).map(|_| "x".repeat(LARGE))
}

#[tokio::test]
async fn a_source_that_panics_ends_the_run_aloud_and_what_is_pending_goes_on() {
    let (source, worker) = pair("source", "worker").await;
    let (gate, begun) = (Arc::new(Semaphore::new(0)), Arc::new(Notify::new()));
    let (wait, notify) = (gate.clone(), begun.clone());
    let work = Stage::new(move |number: u64, _: Emitter| {
        let (wait, notify) = (wait.clone(), notify.clone());
        async move {
            notify.notify_one();
            wait.acquire().await.unwrap().forget();
            if number == 7 { Err(multinodes::AppError::bad_arguments("seven")) } else { Ok(()) }
        }
    });
    worker.register("work", work).unwrap();
    hosts(&source, "work", 1).await;
    let items = stream::iter(0..100_u64).map(|number| if number == 50 { panic!("no more of it") } else { number });
    let mut run = Flow::new("f").stage("work", Grouping::Shuffle).run(&source, items).unwrap();
    within(begun.notified()).await;
    assert_eq!(within(run.next()).await, Some(Event::Broken { reason: "no more of it".to_owned() }));
    gate.add_permits(50);
    let (mut completed, mut failed) = (0, 0);
    while let Some(event) = within(run.next()).await {
        match event {
            Event::Completed { .. } => completed += 1,
            Event::Failed(_) => failed += 1,
            other => panic!("{other:?}"),
        }
    }
    let counters = run.counters();
    assert_eq!((completed, failed), (49, 1));
    assert_eq!((counters.emitted, counters.acked, counters.failed, counters.pending), (50, 49, 1, 0));
    assert!(counters.broken);
}

#[tokio::test]
async fn a_stage_that_panics_costs_that_tuple_and_what_is_processed_beside_it_is_finished() {
    let (source, worker) = pair("source", "worker").await;
    let (begun, gate) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let (notify, wait) = (begun.clone(), gate.clone());
    let work = Stage::new(move |number: u64, out: Emitter| {
        let (notify, wait) = (notify.clone(), wait.clone());
        async move {
            match number {
                0 => panic!("at once"),
                1 => {
                    tokio::task::yield_now().await;
                    panic!("in a task of its own")
                }
                _ => {
                    notify.add_permits(1);
                    wait.acquire().await.unwrap().forget();
                    Ok(out.emit(number).await?)
                }
            }
        }
    });
    worker.register("work", work).unwrap();
    worker.register("calm", multinodes::Actions::new().action("ask", |()| async { "answer" })).unwrap();
    hosts(&source, "work", 1).await;
    hosts(&source, "calm", 1).await;
    let flow = || Flow::new("f").stage("work", Grouping::Shuffle).max_replays(0);
    // Another flow goes through the same stage.
    let mut beside = flow().run(&source, stream::iter(10..20_u64)).unwrap();
    within(begun.acquire_many(10)).await.unwrap().forget();
    let mut run = flow().run(&source, stream::iter(0..4_u64)).unwrap();
    let mut failed = Vec::new();
    while failed.len() < 2 {
        match within(run.next()).await.unwrap() {
            Event::Failed(failure) => failed.push((failure.root, failure.reason)),
            other => panic!("{other:?}"),
        }
    }
    failed.sort();
    for ((root, reason), (expected, text)) in failed.iter().zip([(0, "at once"), (1, "in a task of its own")]) {
        assert!(*root == expected && reason.contains("panicked") && reason.contains(text), "{root}: {reason}");
    }
    let answer: String = within(source.call("calm", "ask", ())).await.unwrap();
    assert_eq!(answer, "answer");
    gate.add_permits(12);
    for (run, completed) in [(&mut run, 2), (&mut beside, 10)] {
        while let Some(event) = within(run.next()).await {
            assert!(matches!(event, Event::Output(_) | Event::Completed { .. }), "{event:?}");
        }
        let counters = run.counters();
        assert_eq!((counters.acked, counters.outputs, counters.pending), (completed, completed, 0));
    }
}

#[tokio::test]
async fn a_source_is_asked_for_no_more_than_fits_its_window_in_bytes() {
    let (source, worker) = pair("source", "worker").await;
    let (begun, taken) = (Arc::new(Notify::new()), Arc::new(AtomicUsize::new(0)));
    let (notify, gate) = (begun.clone(), Arc::new(Semaphore::new(0)));
    let wait = gate.clone();
    let work = Stage::new(move |_: String, _: Emitter| {
        let (notify, wait) = (notify.clone(), wait.clone());
        async move {
            notify.notify_one();
            wait.acquire().await.unwrap().forget();
            Ok(())
        }
    });
    worker.register("work", work).unwrap();
    hosts(&source, "work", 1).await;
    let counting = taken.clone();
    let items = large(40).inspect(move |_| _ = counting.fetch_add(1, SeqCst));
    let mut run = Flow::new("f").stage("work", Grouping::Shuffle).run(&source, items).unwrap();
    within(begun.notified()).await;
    let window = MAX_PENDING_BYTES / LARGE + 1;
    for completed in 1..=40 {
        gate.add_permits(1);
        assert!(matches!(within(run.next()).await, Some(Event::Completed { .. })));
        let taken = taken.load(SeqCst);
        assert!(taken <= completed + window, "{taken} of {completed} and {window}");
    }
}

#[tokio::test]
async fn a_stage_processes_and_emits_no_more_large_tuples_than_it_has_room_for() {
    let (source, worker) = pair("source", "worker").await;
    let (made, waiting) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (full, count) = (Arc::new(Notify::new()), made.clone());
    let (notify, wait) = (full.clone(), waiting.clone());
    // What was begun below the limit may end above it, by one for each thread: twice as many come.
    let most = MAX_EMITTED_BYTES / LARGE + 1 + std::thread::available_parallelism().unwrap().get();
    let (items, text) = (2 * most, Arc::<str>::from("x".repeat(LARGE)));
    // Small tuples become large ones, for a stage that nobody hosts.
    let blow_up = Stage::new(move |_: usize, out: Emitter| {
        let (text, count, notify, wait) = (text.clone(), count.clone(), notify.clone(), wait.clone());
        async move {
            if wait.fetch_add(1, SeqCst) + 1 == items {
                notify.notify_one();
            }
            out.emit(Counted(text, count)).await?;
            Ok(())
        }
    });
    // One sender has seven in eight of its places.
    worker.register("blow-up", blow_up.concurrency(2 * items)).unwrap();
    hosts(&source, "blow-up", 1).await;
    let flow = Flow::new("f").stage("blow-up", Grouping::Shuffle).stage("nobody", Grouping::Shuffle);
    let run = flow.run(&source, stream::iter(0..items)).unwrap();
    within(full.notified()).await;
    assert!(made.load(SeqCst) <= most, "{made:?} were encoded, of which {most} have room");
    assert_eq!(run.counters().failed, 0);
}

/// Counts how often it is encoded.
struct Counted(Arc<str>, Arc<AtomicUsize>);

impl serde::Serialize for Counted {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.1.fetch_add(1, SeqCst);
        serializer.serialize_str(&self.0)
    }
}

/// Brings tuples of a made-up run, which leads to the stage `work` and to nobody from there; gives how many were taken.
async fn brings(sender: &Node, keypair: &Keypair, run: u64, worker: &Node, tuples: u64) -> usize {
    let next = json!({"application": "nobody", "edges": [], "outputs": false});
    let work = json!({"application": "work", "edges": [{"to": 1, "grouping": "Shuffle"}], "outputs": false});
    let first = json!([{"to": 0, "grouping": "Shuffle"}]);
    let plan = json!({"run": run, "token": [run, 1], "desk": "flow:f", "first": first, "stages": [work, next]});
    let plan = plan::sign(keypair, &SwarmName::default(), &plan).unwrap();
    let word = ByteBuf::from(serde_cbor::to_vec(&"word").unwrap());
    // Nobody would wait for less than a day.
    let tuples = (1..=tuples).map(|tuple| (tuple, (tuple, 1), u32::MAX, word.clone())).collect();
    let plan = ByteBuf::from(plan.to_vec());
    let delivery = Delivery { run, token: (run, 1), stage: 0, patience: 0, plan, tuples };
    delivery.send(sender, "work", worker).await.unwrap()
}

fn with(builder: Builder, keypair: &Keypair, address: &str) -> Builder {
    builder.keypair(keypair.clone()).join(address)
}

#[tokio::test]
async fn made_up_runs_of_one_node_keep_nobody_else_out() {
    let (worker, address) = in_process("worker");
    let worker = worker.start().await.unwrap();
    let keypair = Keypair::generate_ed25519();
    let attacker = with(in_process("attacker").0, &keypair, &address).start().await.unwrap();
    let honest = in_process("honest").0.join(&address).start().await.unwrap();
    // Tuples whose text is `word` stay: nobody hosts what comes next.
    let work = Stage::new(|word: String, out: Emitter| async move {
        if word == "word" { Ok(out.emit(word).await?) } else { Ok(()) }
    });
    worker.register("work", work.concurrency(1000)).unwrap();
    for node in [&attacker, &honest] {
        hosts(node, "work", 1).await;
        within(worker.wait_for_node(node.name())).await.unwrap();
    }
    for run in 0..256 {
        assert_eq!(brings(&attacker, &keypair, run, &worker, 1).await, 1);
    }
    assert_eq!(brings(&attacker, &keypair, 256, &worker, 1).await, 0, "it waits for its own to end");
    let flow = Flow::new("f").stage("work", Grouping::Shuffle).ack_timeout(Duration::from_secs(20));
    let mut run = flow.run(&honest, stream::iter(["other"])).unwrap();
    assert_eq!(within(run.next()).await, Some(Event::Completed { root: 0, attempt: 1 }));
    // Plans of nodes that nobody knows are not begun at all.
    assert_eq!(brings(&honest, &Keypair::generate_ed25519(), 1, &worker, 1).await, 0);
}

#[tokio::test]
async fn tuples_of_one_node_that_never_end_leave_places_and_room_to_others() {
    let (worker, address) = in_process("worker");
    let worker = worker.start().await.unwrap();
    let keypair = Keypair::generate_ed25519();
    let attacker = with(in_process("attacker").0, &keypair, &address).start().await.unwrap();
    let honest = in_process("honest").0.join(&address).start().await.unwrap();
    let begun = Arc::new(AtomicUsize::new(0));
    let count = begun.clone();
    // Tuples whose text is `word` stay: nobody hosts what comes next.
    let work = Stage::new(move |word: String, out: Emitter| {
        count.fetch_add(1, SeqCst);
        async move { if word == "word" { Ok(out.emit(word).await?) } else { Ok(()) } }
    });
    worker.register("work", work.concurrency(16).queue(16)).unwrap();
    for node in [&attacker, &honest] {
        hosts(node, "work", 1).await;
        within(worker.wait_for_node(node.name())).await.unwrap();
    }
    // Of as many runs as it likes.
    let mut taken = 0;
    for run in 0..4 {
        taken += brings(&attacker, &keypair, run, &worker, 16).await;
    }
    assert_eq!(taken, 28, "of 32, for what is processed and what waits");
    within(async {
        while begun.load(SeqCst) < 14 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let flow = Flow::new("f").stage("work", Grouping::Shuffle).ack_timeout(Duration::from_secs(20));
    let run = flow.run(&honest, stream::iter(vec!["other"; 100])).unwrap();
    let counters = within(run.finish()).await;
    assert_eq!((counters.acked, counters.failed, counters.replayed), (100, 0, 0));
    assert_eq!(begun.load(SeqCst), 14 + 100, "and it has no more of them");
}
