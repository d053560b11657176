//! One message to every host: what each says, the first few, and errors that are told apart.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "common/in_process.rs"]
mod in_process;

use std::time::{Duration, Instant};

use futures::StreamExt;
use multinodes::{Actions, AppError, CallError, Node, QuorumError};
use tokio::sync::mpsc;

use in_process::{hosts, in_process, pair, within};

/// Says its name, waits for ever, or fails if the caller names it.
fn named(name: &'static str) -> (Actions, mpsc::UnboundedReceiver<&'static str>) {
    struct Seen(mpsc::UnboundedSender<&'static str>);
    impl Drop for Seen {
        fn drop(&mut self) {
            let _ = self.0.send("stopped");
        }
    }
    let (sender, receiver) = mpsc::unbounded_channel();
    let (waiting, told) = (sender.clone(), sender);
    let actions = Actions::new()
        .action("name", move |()| async move { name.to_owned() })
        .try_action("but", move |who: String| async move {
            if who == name { Err(AppError::new("named", "it is me")) } else { Ok(name.to_owned()) }
        })
        .action("first", move |who: String| {
            let seen = Seen(waiting.clone());
            async move {
                let _ = seen.0.send("begun");
                if who != name {
                    std::future::pending::<()>().await;
                }
                name.to_owned()
            }
        })
        .on_tell(move |_: String| {
            let told = told.clone();
            async move {
                let _ = told.send("told");
            }
        });
    (actions, receiver)
}

/// Three hosts and a node that hosts nothing, linked inside this process, and what is seen on the hosts.
async fn three() -> (Node, Vec<Node>, Vec<mpsc::UnboundedReceiver<&'static str>>) {
    let (hub, address) = in_process("hub");
    let hub = hub.start().await.unwrap();
    let (mut nodes, mut seen) = (Vec::new(), Vec::new());
    for name in ["alpha", "beta", "gamma"] {
        let node = in_process(name).0.join(&address).start().await.unwrap();
        let (actions, receiver) = named(name);
        node.register("named", actions).unwrap();
        nodes.push(node);
        seen.push(receiver);
    }
    assert_eq!(within(hub.wait_for_hosts("named", 3)).await.unwrap().len(), 3);
    (hub, nodes, seen)
}

#[tokio::test]
async fn every_host_answers_for_itself() {
    let (hub, _nodes, _seen) = three().await;
    let outcomes = within(hub.app("named").all().call::<String>("but", "beta")).await.unwrap();
    assert_eq!(outcomes.left(), 3);
    let mut outcomes: Vec<_> = within(outcomes.collect()).await;
    outcomes.sort_by(|one, other| one.node.cmp(&other.node));
    assert_eq!(outcomes.iter().map(|outcome| &*outcome.node).collect::<Vec<_>>(), ["alpha", "beta", "gamma"]);
    for outcome in outcomes {
        assert_eq!(hub.hosts("named").iter().find(|host| host.node == outcome.node).unwrap().peer_id, outcome.peer_id);
        match (&*outcome.node, outcome.result) {
            ("beta", Err(CallError::Failed { code, .. })) => assert_eq!(code, "named"),
            (name, Ok(answer)) => assert_eq!(answer, name),
            (name, result) => panic!("{name}: {result:?}"),
        }
    }
}

#[tokio::test]
async fn a_host_here_is_one_of_all_and_filters_count() {
    let (_hub, nodes, _seen) = three().await;
    within(nodes[0].wait_for_hosts("named", 3)).await.unwrap();
    let ask = async |app: multinodes::AppRef| {
        let outcomes = within(app.all().call::<String>("name", ())).await.unwrap();
        let mut names: Vec<_> = within(outcomes.map(|outcome| outcome.result.unwrap()).collect()).await;
        names.sort();
        names
    };
    assert_eq!(ask(nodes[0].app("named")).await, ["alpha", "beta", "gamma"]);
    assert_eq!(ask(nodes[0].app("named").filter(|host| host.node != "beta")).await, ["alpha", "gamma"]);
    assert_eq!(ask(nodes[0].app("named").on("alpha")).await, ["alpha"]);
}

#[tokio::test]
async fn dropping_the_stream_stops_the_work_on_every_host() {
    let (hub, _nodes, mut seen) = three().await;
    let mut outcomes = within(hub.app("named").all().call::<String>("first", "alpha")).await.unwrap();
    assert_eq!(within(outcomes.next()).await.unwrap().result.unwrap(), "alpha");
    for receiver in &mut seen {
        assert_eq!(within(receiver.recv()).await, Some("begun"));
    }
    drop(outcomes);
    for receiver in &mut seen {
        assert_eq!(within(receiver.recv()).await, Some("stopped"));
    }
}

#[tokio::test]
async fn one_deadline_is_for_all_hosts_together() {
    let (hub, _nodes, _seen) = three().await;
    let begun = Instant::now();
    let all = hub.app("named").timeout(Duration::from_millis(300)).all();
    let outcomes: Vec<_> = within(within(all.call::<String>("first", "nobody")).await.unwrap().collect()).await;
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert_eq!(outcomes.len(), 3);
    for outcome in outcomes {
        assert!(matches!(outcome.result, Err(CallError::TimedOut { .. })), "{outcome:?}");
    }
}

#[tokio::test]
async fn a_quorum_is_the_first_answers_and_cancels_the_rest() {
    let (hub, nodes, mut seen) = three().await;
    let answers = within(hub.app("named").quorum(1).call::<String>("first", "gamma")).await.unwrap();
    let [answer] = &answers[..] else { panic!("{answers:?}") };
    assert_eq!((&*answer.answer, &*answer.node, answer.peer_id), ("gamma", "gamma", nodes[2].peer_id()));
    for receiver in &mut seen {
        assert_eq!(within(receiver.recv()).await, Some("begun"));
        assert_eq!(within(receiver.recv()).await, Some("stopped"));
    }
}

#[tokio::test]
async fn a_quorum_that_cannot_be_reached_says_why_at_once() {
    let (hub, _nodes, _seen) = three().await;
    let error = within(hub.app("named").quorum(3).call::<String>("but", "beta")).await.unwrap_err();
    let text = error.to_string();
    let QuorumError::Missed { wanted: 3, hosts: 3, succeeded, failures } = error else { panic!("{error:?}") };
    assert!(succeeded <= 2 && text.contains("`named` on node `beta` failed: it is me"), "{text}");
    assert_eq!(failures.len(), 1);
    let error = within(hub.app("named").quorum(4).call::<String>("name", ())).await.unwrap_err();
    assert_eq!(error.to_string(), "0 of 3 hosts have answered, 4 were wanted");
    let error = within(hub.app("unknown").quorum(1).call::<String>("name", ())).await.unwrap_err();
    assert!(matches!(error, QuorumError::Call(CallError::NoSuchApplication { .. })), "{error:?}");
}

#[tokio::test]
async fn a_quorum_that_is_not_there_in_time_says_who_has_not_answered() {
    let (hub, _nodes, _seen) = three().await;
    let app = hub.app("named").timeout(Duration::from_millis(500));
    let error = within(app.quorum(2).call::<String>("first", "gamma")).await.unwrap_err();
    let QuorumError::Missed { wanted: 2, hosts: 3, succeeded: 1, failures } = error else { panic!("{error:?}") };
    let mut silent: Vec<_> = failures.iter().map(|failure| &*failure.node).collect();
    silent.sort_unstable();
    assert_eq!(silent, ["alpha", "beta"]);
    assert!(failures.iter().all(|failure| matches!(failure.result, Err(CallError::TimedOut { .. }))), "{failures:?}");
}

#[tokio::test]
async fn who_waits_for_more_hosts_than_there_are_is_told_how_many_there_were() {
    let (hub, _nodes, _seen) = three().await;
    let (some, nobody) = within(async { tokio::join!(hub.wait_for_hosts("named", 4), hub.wait_for("unknown")) }).await;
    let (some, nobody) = (some.unwrap_err(), nobody.unwrap_err());
    assert_eq!(some.to_string(), "`named` was not found on 4 nodes, but on 3, within 10s");
    assert_eq!(nobody.to_string(), "`unknown` was not found within 10s");
    assert_eq!((some.hosts(), nobody.hosts()), (Some(3), None));
}

#[tokio::test]
async fn a_tell_to_all_says_of_each_whether_it_was_accepted() {
    let (hub, nodes, mut seen) = three().await;
    let deaf = Actions::new().action("name", |()| async { "deaf" });
    hub.register("named", deaf).unwrap();
    let outcomes = within(hub.app("named").tell_all("hello")).await.unwrap();
    assert_eq!(outcomes.len(), nodes.len() + 1);
    for outcome in outcomes {
        assert_eq!(outcome.result.is_ok(), outcome.node != "hub", "{outcome:?}");
    }
    for receiver in &mut seen {
        assert_eq!(within(receiver.recv()).await, Some("told"));
    }
}

#[tokio::test]
async fn errors_are_told_apart() {
    let alone = in_process("alone").0.start().await.unwrap();
    let not_ready = within(alone.call::<()>("named", "name", ())).await.unwrap_err();
    let (one, other) = pair("alpha", "beta").await;
    let (actions, mut seen) = named("alpha");
    one.register("named", actions.concurrency(1).queue(1)).unwrap();
    hosts(&other, "named", 1).await;
    let unknown = within(other.call::<()>("unknown", "name", ())).await.unwrap_err();
    let failed = within(other.call::<String>("named", "but", "alpha")).await.unwrap_err();
    let app = other.app("named").timeout(Duration::from_millis(300));
    let timed_out = within(app.call::<String>("first", "nobody")).await.unwrap_err();
    let endless = other.app("named");
    let calls = (0..64).map(|_| endless.call::<String>("first", "nobody"));
    let mut calls: futures::stream::FuturesUnordered<_> = calls.collect();
    let busy = within(calls.next()).await.unwrap().unwrap_err();
    drop(calls);
    let codes = [not_ready, unknown, failed, timed_out, busy].map(|error| error.code());
    assert_eq!(codes, ["not_ready", "no_such_application", "failed", "timed_out", "busy"]);
    // A node that is stopping still finishes what it runs, and takes nothing new.
    let running = within(other.app("named").all().call::<String>("first", "nobody")).await.unwrap();
    let running = tokio::spawn(running.collect::<Vec<_>>());
    while within(seen.recv()).await != Some("begun") {}
    let stopping = one.clone();
    let stopping = tokio::spawn(async move { stopping.stop().await });
    let peer_id = one.peer_id().to_base58();
    let unreachable = within(async {
        loop {
            let app = other.app("named").on(&peer_id).timeout(Duration::from_secs(1));
            match app.call::<String>("name", ()).await.unwrap_err() {
                CallError::Busy { .. } => tokio::task::yield_now().await,
                error => return error,
            }
        }
    })
    .await;
    assert_eq!(unreachable.code(), "unreachable", "{unreachable:?}");
    assert!(!unreachable.may_have_run() && unreachable.is_retryable());
    running.abort();
    within(stopping).await.unwrap();
}
