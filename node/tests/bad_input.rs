//! Whatever is wrong gets an error that names it, and nothing else breaks.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "common/in_process.rs"]
mod in_process;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use multinodes::{Actions, CallError, Event, Node, RegisterError, StartError, json};
use tokio::sync::Semaphore;

use in_process::{hosts, in_process, pair, within};

fn strange() -> Actions {
    Actions::new()
        .action("add", |(a, b): (i64, i64)| async move { a + b })
        .action("panic", |()| async {
            if true {
                panic!("on purpose")
            }
        })
        .action("large", |size: usize| async move { "x".repeat(size) })
        .on_tell(|text: String| async move { assert!(text != "panic", "on purpose") })
}

#[tokio::test]
async fn what_is_not_there_is_named() {
    let (one, other) = pair("alpha", "beta").await;
    one.register("strange", strange()).unwrap();
    hosts(&other, "strange", 1).await;
    let error = within(other.call::<i64>("unknown", "add", (1, 2))).await.unwrap_err();
    assert!(matches!(error, CallError::NoSuchApplication { .. }), "{error:?}");
    assert_eq!(error.to_string(), "no application `unknown` is hosted");
    let error = within(other.app("strange").on("gamma").call::<i64>("add", (1, 2))).await.unwrap_err();
    assert_eq!(error.to_string(), "no node `gamma` is known");
    let error = within(other.app("unknown").on("alpha").call::<i64>("add", (1, 2))).await.unwrap_err();
    assert_eq!(error.to_string(), "no application `unknown` is hosted on node `alpha`");
    let error = within(other.call::<i64>("strange", "unknown", (1, 2))).await.unwrap_err();
    assert_eq!(error.to_string(), "`strange` on node `alpha`: it has no action `unknown`");
    let error = within(other.app("node").on("alpha").tell("hello")).await.unwrap_err();
    assert_eq!(error.to_string(), "`node` on node `alpha`: `node` takes no tells");
    assert!(!error.may_have_run());
}

#[tokio::test]
async fn a_node_that_is_alone_says_that_it_has_found_nobody() {
    let node = in_process("alone").0.start().await.unwrap();
    let error = within(node.call::<i64>("unknown", "add", (1, 2))).await.unwrap_err();
    assert!(matches!(error, CallError::NotReady { .. }), "{error:?}");
    assert!(error.is_retryable() && !error.may_have_run());
}

#[tokio::test]
async fn a_passive_node_that_has_looked_everywhere_says_so_at_once() {
    let node = Node::builder().passive(true).mdns(false).rendezvous(false).start().await.unwrap();
    let begun = Instant::now();
    let error = within(node.call::<i64>("unknown", "add", (1, 2))).await.unwrap_err();
    assert!(matches!(error, CallError::NotReady { .. }), "{error:?}");
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn arguments_that_do_not_fit_are_refused_before_anything_runs() {
    let (one, other) = pair("alpha", "beta").await;
    one.register("strange", strange()).unwrap();
    hosts(&other, "strange", 1).await;
    let error = within(other.call::<i64>("strange", "add", (1, 2, 3))).await.unwrap_err();
    assert_eq!(error.to_string(), "`strange` on node `alpha`: wrong arguments for `add`: takes 2 arguments, 3 given");
    let error = within(other.call::<i64>("strange", "add", ("one", "two"))).await.unwrap_err();
    assert!(matches!(&error, CallError::BadArguments { .. }) && !error.may_have_run(), "{error:?}");
    let error = within(other.call::<String>("strange", "add", (1, 2))).await.unwrap_err();
    assert!(matches!(&error, CallError::UnexpectedResult { .. }) && error.may_have_run(), "{error:?}");
    let sum: i64 = within(other.call("strange", "add", (1, 2))).await.unwrap();
    assert_eq!(sum, 3);
}

#[tokio::test]
async fn a_panic_in_an_application_is_an_error_of_that_message_alone() {
    let (one, other) = pair("alpha", "beta").await;
    one.register("strange", strange()).unwrap();
    hosts(&other, "strange", 1).await;
    for node in [&one, &other] {
        let error = within(node.call::<()>("strange", "panic", ())).await.unwrap_err();
        assert_eq!(error.to_string(), "`strange` on node `alpha` panicked: on purpose");
        assert!(error.may_have_run());
        within(node.tell("strange", "panic")).await.unwrap();
        let sum: i64 = within(node.call("strange", "add", (1, 2))).await.unwrap();
        assert_eq!(sum, 3);
    }
    one.stop().await;
    assert_eq!(one.counters().failed_tells, 2);
}

#[tokio::test]
async fn what_is_in_flight_beside_a_panic_is_finished() {
    let (one, other) = pair("alpha", "beta").await;
    let (begun, gate) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let waiting = || {
        let (begun, gate) = (begun.clone(), gate.clone());
        move |number: usize| {
            let (begun, gate) = (begun.clone(), gate.clone());
            async move {
                begun.add_permits(1);
                gate.acquire().await.unwrap().forget();
                number
            }
        }
    };
    let later = |()| async {
        tokio::task::yield_now().await;
        if true {
            panic!("in a task of its own")
        }
    };
    one.register("strange", strange().action("wait", waiting()).action("panic later", later)).unwrap();
    one.register("calm", Actions::new().action("wait", waiting())).unwrap();
    hosts(&other, "strange", 1).await;
    hosts(&other, "calm", 1).await;
    for node in [&one, &other] {
        // All of them on one lane.
        let mut calls = tokio::task::JoinSet::new();
        for number in 0..50 {
            for application in ["strange", "calm"] {
                let node = node.clone();
                calls.spawn(async move { (number, node.call::<usize>(application, "wait", (number,)).await) });
            }
        }
        within(begun.acquire_many(100)).await.unwrap().forget();
        for action in ["panic", "panic later"] {
            let error = within(node.call::<()>("strange", action, ())).await.unwrap_err();
            assert!(matches!(error, CallError::Panicked { .. }), "{error:?}");
        }
        gate.add_permits(100);
        while let Some(call) = within(calls.join_next()).await {
            let (number, outcome) = call.unwrap();
            assert_eq!(outcome.unwrap(), number);
        }
    }
}

#[tokio::test]
async fn a_message_over_the_limit_names_size_and_limit_and_a_large_result_too() {
    let (first, address) = in_process("alpha");
    let one = first.max_message(100_000).start().await.unwrap();
    let other = in_process("beta").0.max_message(200_000).join(&address).start().await.unwrap();
    one.register("strange", strange()).unwrap();
    hosts(&other, "strange", 1).await;
    let error = within(other.tell("strange", "x".repeat(200_000))).await.unwrap_err();
    assert_eq!(error.to_string(), "the message has 200005 bytes, the limit is 200000");
    let error = within(other.call::<String>("strange", "large", 100_000)).await.unwrap_err();
    assert!(error.to_string().ends_with("the result has 100005 bytes, the limit is 100000"), "{error}");
    // What only the other side finds too large is refused there.
    let error = within(other.tell("strange", "x".repeat(150_000))).await.unwrap_err();
    assert!(error.to_string().ends_with("the message has 150005 bytes, the limit there is 100000"), "{error}");
    assert!(!error.may_have_run());
    let fitting: String = within(other.call("strange", "large", 99_000)).await.unwrap();
    assert_eq!(fitting.len(), 99_000);
}

#[tokio::test]
async fn a_name_held_twice_is_a_conflict_and_messages_to_it_are_refused() {
    let (first, address) = in_process("same");
    let first = first.start().await.unwrap();
    let second = in_process("same").0.join(&address).start().await.unwrap();
    let third = in_process("third").0.join(&address).start().await.unwrap();
    let mut events = third.events();
    within(async {
        while third.nodes().iter().filter(|node| node.conflict).count() < 2 {
            events.next().await.unwrap();
        }
    })
    .await;
    let error = within(third.app("node").on("same").call::<String>("echo", "hi")).await.unwrap_err();
    assert!(matches!(error, CallError::AmbiguousName { .. }), "{error:?}");
    for peer_id in [first.peer_id(), second.peer_id()] {
        assert!(error.to_string().contains(&peer_id.to_string()), "{error}");
        let echo: String = within(third.app("node").on(peer_id.to_string()).call("echo", "hi")).await.unwrap();
        assert_eq!(echo, "hi");
    }
    second.stop().await;
    within(async {
        while third.nodes().iter().any(|node| node.conflict) {
            events.next().await.unwrap();
        }
    })
    .await;
    within(third.app("node").on("same").call::<String>("echo", "hi")).await.unwrap();
}

#[tokio::test]
async fn what_cannot_start_says_why() {
    let text = |error: StartError| error.to_string();
    let start = |builder: multinodes::Builder| async { text(within(builder.start()).await.unwrap_err()) };
    let local = || Node::builder().mdns(false).rendezvous(false);
    assert!(start(local().name("two words")).await.starts_with("`two words` cannot name a node"));
    assert!(start(local().swarm("a/b")).await.starts_with("`a/b` cannot name a swarm"));
    assert!(start(local().listen("nonsense")).await.starts_with("`nonsense` is no multiaddress to listen on"));
    let error = start(local().join("not an address")).await;
    assert!(error.contains("not an address"), "{error}");
    assert!(start(local().connections(5, 5)).await.starts_with("5 and 5 cannot be"));
    assert!(start(local().max_message(0)).await.starts_with("0 bytes cannot be the largest message"));
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("/ip4/127.0.0.1/tcp/{}", port.local_addr().unwrap().port());
    let error = start(local().listen(&address)).await;
    assert!(error.contains(&address) && error.contains("in use"), "{error}");
}

#[tokio::test]
async fn what_did_not_work_while_the_node_started_is_told_to_every_reader() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let builder = Node::builder().mdns(false).listen("/ip4/127.0.0.1/tcp/0").rendezvous_folder(file.path());
    let node = builder.start().await.unwrap();
    for _ in 0..2 {
        let event = within(node.events().next()).await.unwrap();
        let folder = file.path().display().to_string();
        assert!(matches!(&event, Event::Degraded { reason } if reason.contains(&folder)), "{event:?}");
    }
}

#[tokio::test]
async fn what_cannot_be_registered_says_why() {
    let node = in_process("alpha").0.start().await.unwrap();
    node.register("one", strange()).unwrap();
    let error = node.register("one", strange()).unwrap_err();
    assert_eq!(error, RegisterError::Taken { name: "one".into() });
    assert!(matches!(node.register("", strange()), Err(RegisterError::Name { .. })));
    assert!(matches!(node.register("line\nbreak", strange()), Err(RegisterError::Name { .. })));
    let long = node.register("long", strange().description(json!("x".repeat(100_000)))).unwrap_err();
    assert!(matches!(&long, RegisterError::Unannounceable { .. }), "{long}");
    assert!(matches!(node.describe("one", json!("x".repeat(100_000))), Err(RegisterError::Unannounceable { .. })));
    assert!(matches!(node.unregister("none"), Err(RegisterError::Unknown { .. })));
    assert!(matches!(node.unregister("node"), Err(RegisterError::BuiltIn { .. })));
    let passive = Node::builder().passive(true).mdns(false).rendezvous(false).start().await.unwrap();
    assert_eq!(passive.register("one", strange()), Err(RegisterError::Passive));
}

#[tokio::test]
async fn a_node_that_has_stopped_says_so() {
    let (one, other) = pair("alpha", "beta").await;
    other.stop().await;
    let error = within(other.call::<String>("node", "echo", "hi")).await.unwrap_err();
    assert!(matches!(error, CallError::Stopped), "{error:?}");
    let gone = one.app("node").on("beta").timeout(Duration::from_secs(5));
    let error = within(gone.call::<String>("echo", "hi")).await.unwrap_err();
    assert!(!error.may_have_run(), "{error:?}");
}
