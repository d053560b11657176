//! What looks the same is one name, however whoever sends it writes it; what can be nobody's name is refused at once.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "common/in_process.rs"]
mod in_process;

use std::time::{Duration, Instant};

use futures::{StreamExt, stream};
use multinodes::{
    Actions, Announcement, AppError, Application, CallError, Context, Guard, MapError, Node, Payload, PeerId,
    RegisterError, Strategy,
    topology::{Emitter, Event, Flow, FlowError, Grouping, Stage},
};

use self::in_process::{hosts, in_process, pair, within};

/// `é` as one character and as two.
const COMPOSED: &str = "caf\u{e9}";
const DECOMPOSED: &str = "cafe\u{301}";

fn greeter() -> Actions {
    Actions::new().action(COMPOSED, |()| async { "hello" }).idempotent(COMPOSED).on_tell(|_: String| async {})
}

/// An action of it is for one peer alone.
struct Guarded(PeerId);

impl Application for Guarded {
    fn guard(&self) -> Guard {
        Guard::new().action(DECOMPOSED, self.0)
    }

    async fn call(&self, _: Context, _: &str, arguments: Payload) -> Result<Payload, AppError> {
        Ok(arguments)
    }
}

/// One that hosts something of that name, and one that knows of it.
async fn served() -> (Node, Node) {
    let (host, caller) = pair("hôte", "caller").await;
    host.register(COMPOSED, greeter()).unwrap();
    hosts(&caller, COMPOSED, 1).await;
    (host, caller)
}

#[tokio::test]
async fn both_forms_of_a_name_reach_the_same_application_and_action() {
    let (_host, caller) = served().await;
    let hello = "hello".to_owned();
    for (application, action) in [(COMPOSED, COMPOSED), (DECOMPOSED, COMPOSED), (COMPOSED, DECOMPOSED)] {
        assert_eq!(within(caller.call::<String>(application, action, ())).await.unwrap(), hello);
    }
    within(caller.tell(DECOMPOSED, "text")).await.unwrap();
    within(caller.cast(DECOMPOSED, "text")).await.unwrap();
    let app = caller.app(DECOMPOSED).on("ho\u{302}te");
    assert_eq!(within(app.call::<String>(DECOMPOSED, ())).await.unwrap(), hello);
    within(app.call_raw(DECOMPOSED, Payload::arguments(&()).unwrap())).await.unwrap();
    let mut all = within(app.all().call::<String>(DECOMPOSED, ())).await.unwrap();
    assert_eq!(within(all.next()).await.unwrap().result.unwrap(), hello);
    let mut map = app.map::<String>(DECOMPOSED, stream::iter([()]));
    assert_eq!(within(map.next()).await.unwrap().unwrap().result.unwrap(), hello);
}

#[tokio::test]
async fn both_forms_are_waited_for_described_and_taken_away() {
    let (host, caller) = served().await;
    assert_eq!(caller.hosts(DECOMPOSED).len(), 1);
    within(caller.wait_for(DECOMPOSED)).await.unwrap();
    within(caller.wait_for_hosts(DECOMPOSED, 1)).await.unwrap();
    within(caller.wait_for_node("ho\u{302}te")).await.unwrap();
    caller.prefer(DECOMPOSED, Strategy::Random);
    host.describe(DECOMPOSED, serde_json::json!({"new": true})).unwrap();
    host.announce(DECOMPOSED, Announcement::new().actions([DECOMPOSED.to_owned()])).unwrap();
    assert_eq!(host.hosts(COMPOSED)[0].actions, [COMPOSED]);
    assert!(matches!(host.register(DECOMPOSED, greeter()), Err(RegisterError::Taken { .. })));
    host.unregister(DECOMPOSED).unwrap();
    hosts(&caller, COMPOSED, 0).await;
}

#[tokio::test]
async fn labels_and_predicates_and_rules_are_in_one_form() {
    let node = in_process("node").0.label(DECOMPOSED, DECOMPOSED).start().await.unwrap();
    assert_eq!(node.nodes()[0].labels[COMPOSED], COMPOSED);
    for form in [COMPOSED, DECOMPOSED] {
        let found = node.nodes_matching(&format!("node.labels['{form}'] == '{form}'")).unwrap();
        assert_eq!(found.len(), 1, "{form:?}");
    }
    // Nobody but the node itself may, whichever way the rule is written.
    let (host, caller) = pair("host", "caller").await;
    host.register("guarded", Guarded(host.peer_id())).unwrap();
    hosts(&caller, "guarded", 1).await;
    let error = within(caller.call::<String>("guarded", COMPOSED, ())).await.unwrap_err();
    assert!(matches!(error, CallError::Forbidden), "{error}");
}

#[tokio::test]
async fn the_stages_of_a_flow_are_found_in_either_form() {
    let (host, source) = pair("host", "source").await;
    let stage = Stage::new(|number: u64, out: Emitter| async move { Ok(out.emit(number + 1).await?) });
    host.register(COMPOSED, stage).unwrap();
    hosts(&source, COMPOSED, 1).await;
    let flow = Flow::new(DECOMPOSED).stage(DECOMPOSED, Grouping::Shuffle);
    let mut run = flow.run(&source, stream::iter([1_u64])).unwrap();
    within(async {
        while let Some(event) = run.next().await {
            if let Event::Output(output) = event {
                assert_eq!(output.value.decode::<u64>().unwrap(), 2);
                return;
            }
        }
        panic!("nothing comes out");
    })
    .await;
    let twice = Flow::new("f").stage("a", Grouping::Shuffle).stage("no\u{200b}de", Grouping::Shuffle);
    let error = twice.run(&source, stream::iter([1_u64])).unwrap_err();
    assert!(matches!(error, FlowError::Stage(_)) && error.to_string().contains("U+200B"), "{error}");
}

#[tokio::test]
async fn what_can_be_nobodys_name_is_refused_before_anybody_is_looked_for() {
    let node = in_process("node").0.start().await.unwrap();
    let begun = Instant::now();
    let refused = |error: CallError, what: &str| {
        let CallError::Unsendable { reason } = &error else { panic!("{error}") };
        assert!(reason.contains("U+200B") && reason.contains(what), "{reason}");
    };
    let bad = "no\u{200b}de";
    refused(node.call::<()>(bad, "run", ()).await.unwrap_err(), "an application");
    refused(node.call::<()>("app", bad, ()).await.unwrap_err(), "an action");
    refused(node.tell(bad, ()).await.unwrap_err(), "an application");
    refused(node.cast(bad, ()).await.unwrap_err(), "an application");
    refused(node.app("app").on(bad).call::<()>("run", ()).await.unwrap_err(), "a node");
    refused(node.app("app").all().call::<()>(bad, ()).await.err().unwrap(), "an action");
    refused(node.app(bad).all().tell(()).await.err().unwrap(), "an application");
    let mut map = node.app("app").map::<()>(bad, stream::iter([()]));
    match within(map.next()).await {
        Some(Err(MapError::NoWorker(error))) => refused(error, "an action"),
        other => panic!("{other:?}"),
    }
    let error = node.wait_for(bad).await.unwrap_err().to_string();
    assert!(error.contains("U+200B") && error.contains("an application"), "{error}");
    assert!(node.wait_for_hosts(bad, 2).await.is_err());
    assert!(node.wait_for_node("two words").await.unwrap_err().to_string().contains("a node"));
    // Otherwise each of them would have taken seconds.
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
}
