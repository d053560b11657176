//! What a flow may take of a node's memory, what a panic in it does, and who gives way to whom.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

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
    // Small tuples become large ones, for a stage that nobody hosts.
    let blow_up = Stage::new(move |_: u64, out: Emitter| {
        let (count, notify, wait) = (count.clone(), notify.clone(), wait.clone());
        async move {
            if wait.fetch_add(1, SeqCst) == 39 {
                notify.notify_one();
            }
            out.emit(Counted("x".repeat(LARGE), count)).await?;
            Ok(())
        }
    });
    worker.register("blow-up", blow_up).unwrap();
    hosts(&source, "blow-up", 1).await;
    let flow = Flow::new("f").stage("blow-up", Grouping::Shuffle).stage("nobody", Grouping::Shuffle);
    let run = flow.run(&source, stream::iter(0..40_u64)).unwrap();
    within(full.notified()).await;
    let most = MAX_EMITTED_BYTES / LARGE + 1 + std::thread::available_parallelism().unwrap().get();
    assert!(made.load(SeqCst) <= most, "{made:?} were encoded, of which {most} have room");
    assert_eq!(run.counters().failed, 0);
}

/// Counts how often it is encoded.
struct Counted(String, Arc<AtomicUsize>);

impl serde::Serialize for Counted {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.1.fetch_add(1, SeqCst);
        serializer.serialize_str(&self.0)
    }
}

#[derive(serde::Serialize)]
struct Delivery {
    run: u64,
    token: (u64, u64),
    stage: u16,
    patience: u32,
    plan: ByteBuf,
    tuples: Vec<(u64, (u64, u32), u32, ByteBuf)>,
}

/// A node, and a made-up run of it that leads to the stage `work` and to nobody from there.
async fn brings(sender: &Node, keypair: &Keypair, run: u64) -> usize {
    let next = json!({"application": "nobody", "edges": [], "outputs": false});
    let work = json!({"application": "work", "edges": [{"to": 1, "grouping": "Shuffle"}], "outputs": false});
    let first = json!([{"to": 0, "grouping": "Shuffle"}]);
    let plan = json!({"run": run, "token": [run, 1], "desk": "flow:f", "first": first, "stages": [work, next]});
    let plan = plan::sign(keypair, &SwarmName::default(), &plan).unwrap();
    let tuple = (1, (0, 1), 60_000, ByteBuf::from(serde_cbor::to_vec(&"word").unwrap()));
    let plan = ByteBuf::from(plan.to_vec());
    let delivery = Delivery { run, token: (run, 1), stage: 0, patience: 0, plan, tuples: vec![tuple] };
    within(sender.app("work").on("worker").call("topology.tuples", delivery)).await.unwrap()
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
        assert_eq!(brings(&attacker, &keypair, run).await, 1);
    }
    assert_eq!(brings(&attacker, &keypair, 256).await, 0, "it waits for its own to end");
    let flow = Flow::new("f").stage("work", Grouping::Shuffle).ack_timeout(Duration::from_secs(20));
    let mut run = flow.run(&honest, stream::iter(["other"])).unwrap();
    assert_eq!(within(run.next()).await, Some(Event::Completed { root: 0, attempt: 1 }));
    // Plans of nodes that nobody knows are not begun at all.
    assert_eq!(brings(&honest, &Keypair::generate_ed25519(), 1).await, 0);
}
