//! A stage works for whoever has begun the flow, with that node's rights and no others.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "common/deliveries.rs"]
mod deliveries;
#[path = "common/in_process.rs"]
mod in_process;

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use futures::stream;
use multinodes::{
    Actions, AppError, Application, CallError, Context, Node, Payload, PeerId, Profile, Rule,
    topology::{Emitter, Event, Failed, Flow, Grouping, Stage},
};
use serde_json::json;
use tokio::sync::Notify;

use deliveries::Delivery;
use in_process::{hosts, in_process, within};

/// Passes on what it gets.
fn relay() -> Stage {
    Stage::new(|word: String, out: Emitter| async move { Ok(out.emit(word).await?) })
}

/// Counts what it gets.
fn vault(count: &Arc<AtomicUsize>) -> Stage {
    let count = count.clone();
    Stage::new(move |_: String, _: Emitter| {
        count.fetch_add(1, SeqCst);
        async { Ok(()) }
    })
}

fn through(stage: &str) -> Flow {
    Flow::new("f").stage("relay", Grouping::Shuffle).stage(stage, Grouping::Shuffle)
}

/// Runs a flow with one item, and says how that has failed, if it has.
async fn run(flow: &Flow, node: &Node) -> Option<Failed> {
    let mut run = flow.run(node, stream::iter(["word"])).unwrap();
    match within(run.next()).await.unwrap() {
        Event::Completed { .. } => None,
        Event::Failed(failed) => Some(failed),
        other => panic!("{other:?}"),
    }
}

async fn meet(nodes: &[&Node]) {
    for node in nodes {
        for other in nodes {
            within(node.wait_for_node(other.name())).await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_stage_is_no_way_around_the_rules_of_the_next_one() {
    let (alpha, address) = in_process("alpha");
    let alpha = alpha.start().await.unwrap();
    let beta = in_process("beta").0.join(&address).allow("vault", alpha.peer_id()).unwrap().start().await.unwrap();
    let stranger = in_process("stranger").0.join(&address).start().await.unwrap();
    meet(&[&alpha, &beta, &stranger]).await;
    let count = Arc::new(AtomicUsize::new(0));
    alpha.register("relay", relay()).unwrap();
    beta.register("vault", vault(&count)).unwrap();
    for node in [&alpha, &stranger] {
        hosts(node, "relay", 1).await;
        hosts(node, "vault", 1).await;
    }
    let failed = run(&through("vault"), &stranger).await.expect("the stranger may not use the vault");
    let reason = format!("`vault` on node `beta` is not for node `{}`, whose flow it is", stranger.peer_id());
    assert_eq!((failed.attempts, failed.reason), (1, reason));
    assert_eq!((count.load(SeqCst), beta.counters().forbidden_messages), (0, 1));
    assert_eq!(run(&through("vault"), &alpha).await, None, "its own flow may");
    assert_eq!(count.load(SeqCst), 1);
}

#[tokio::test]
async fn a_stage_is_no_way_around_the_rules_of_another_one_on_its_own_node() {
    let (alpha, address) = in_process("alpha");
    let alpha = alpha.start().await.unwrap();
    let stranger = in_process("stranger").0.join(&address).start().await.unwrap();
    meet(&[&alpha, &stranger]).await;
    let count = Arc::new(AtomicUsize::new(0));
    alpha.register("relay", relay()).unwrap();
    // Rules of the actions that a stage has besides are rules of the stage.
    let nobody = Actions::new().allow(PeerId::random());
    alpha.register("vault", vault(&count).actions(nobody)).unwrap();
    hosts(&stranger, "vault", 1).await;
    let failed = run(&through("vault"), &stranger).await.expect("the stranger may not use the vault");
    assert!(failed.reason.contains("is not for node"), "{}", failed.reason);
    let direct = Flow::new("f").stage("vault", Grouping::Shuffle);
    let failed = run(&direct, &stranger).await.expect("not by itself either");
    assert_eq!((failed.attempts, count.load(SeqCst)), (1, 0));
    assert_eq!(failed.reason, format!("`vault` on node `{}` is not for node `stranger`", alpha.peer_id()));
    assert_eq!(run(&through("vault"), &alpha).await, None, "a node may do everything with itself");
}

#[tokio::test]
async fn labels_of_a_ticket_go_along_with_the_flow() {
    let (alpha, address) = in_process("alpha");
    let alpha = alpha.start().await.unwrap();
    let by_role = |role: &'static str| Rule::of(move |caller| caller.labels.get("role").is_some_and(|is| is == role));
    let beta = in_process("beta").0.join(&address);
    let beta = beta.allow("vault", alpha.peer_id()).unwrap().allow("vault", by_role("admin")).unwrap();
    let beta = beta.start().await.unwrap();
    let labels = [("role".to_owned(), "admin".to_owned())].into();
    let admin = in_process("admin").0.ticket(beta.ticket_with_labels(None, labels).unwrap()).start().await.unwrap();
    meet(&[&alpha, &beta, &admin]).await;
    let count = Arc::new(AtomicUsize::new(0));
    alpha.register("relay", relay()).unwrap();
    beta.register("vault", vault(&count)).unwrap();
    hosts(&admin, "relay", 1).await;
    hosts(&admin, "vault", 1).await;
    hosts(&alpha, "vault", 1).await;
    assert_eq!(run(&through("vault"), &admin).await, None);
}

/// A stage that keeps what it gets, and takes nothing.
struct Thief(Arc<Mutex<Option<Delivery>>>, Arc<Notify>);

impl Application for Thief {
    fn profile(&self) -> Profile {
        let mut profile = Profile::default();
        profile.actions = vec!["topology.tuples".to_owned()];
        profile
    }

    async fn call(&self, _: Context, _: &str, arguments: Payload) -> Result<Payload, AppError> {
        *self.0.lock().unwrap() = Some(arguments.decode_arguments().map_err(AppError::bad_arguments)?);
        self.1.notify_one();
        Payload::encode(&0).map_err(AppError::of)
    }
}

#[tokio::test]
async fn whoever_has_seen_a_plan_cannot_have_tuples_of_its_own_sent_on_with_it() {
    let (alpha, address) = in_process("alpha");
    let alpha = alpha.start().await.unwrap();
    let beta = in_process("beta").0.join(&address).allow("vault", alpha.peer_id()).unwrap().start().await.unwrap();
    let thief = in_process("thief").0.join(&address).start().await.unwrap();
    meet(&[&alpha, &beta, &thief]).await;
    let (count, seen, stolen) = (Arc::new(AtomicUsize::new(0)), Arc::default(), Arc::new(Notify::new()));
    beta.register("vault", vault(&count)).unwrap();
    // Anybody may say that it hosts a stage.
    thief.register("relay", Thief(Arc::clone(&seen), stolen.clone())).unwrap();
    hosts(&alpha, "relay", 1).await;
    hosts(&alpha, "vault", 1).await;
    let _run = through("vault").run(&alpha, stream::iter(["word"])).unwrap();
    within(stolen.notified()).await;
    let delivery = seen.lock().unwrap().clone().unwrap();
    alpha.register("relay", relay()).unwrap();
    hosts(&thief, "relay", 2).await;
    assert_eq!(delivery.send(&thief, "relay", &alpha).await.unwrap(), 0, "it is not the source");
    let error = Delivery { stage: 1, ..delivery.clone() }.send(&thief, "vault", &beta).await.unwrap_err();
    assert!(matches!(error, CallError::Forbidden), "{error:?}");
    // Nobody can change a plan.
    let mut altered = delivery.clone();
    let last = altered.plan.len() - 1;
    altered.plan[last] ^= 1;
    let error = altered.send(&thief, "relay", &alpha).await.unwrap_err();
    assert!(matches!(error, CallError::BadArguments { .. }), "{error:?}");
}

#[tokio::test]
async fn what_a_host_says_of_a_failure_is_kept_only_in_part() {
    let (alpha, address) = in_process("alpha");
    let alpha = alpha.start().await.unwrap();
    let thief = in_process("thief").0.join(&address).start().await.unwrap();
    meet(&[&alpha, &thief]).await;
    let (seen, stolen) = (Arc::default(), Arc::new(Notify::new()));
    thief.register("relay", Thief(Arc::clone(&seen), stolen.clone())).unwrap();
    hosts(&alpha, "relay", 1).await;
    let flow = Flow::new("f").stage("relay", Grouping::Shuffle);
    let mut run = flow.run(&alpha, stream::iter(["word"])).unwrap();
    within(stolen.notified()).await;
    let delivery = seen.lock().unwrap().clone().unwrap();
    let (token, tree) = (delivery.token, delivery.tuples[0].1);
    let failure = json!({"tree": tree, "reason": "é".repeat(1 << 20), "is_final": true});
    let acks = json!({"token": token, "sums": [], "failures": [failure]});
    let desk = format!("flow:f:{:016x}", run.id());
    within(thief.app(&desk).on(alpha.peer_id().to_base58()).call::<()>("acks", acks)).await.unwrap();
    let Some(Event::Failed(failed)) = within(run.next()).await else { panic!("it has failed") };
    assert_eq!(failed.reason, "é".repeat(512));
}
