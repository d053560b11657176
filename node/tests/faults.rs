//! What a caller is told, and how soon, when hosts are frozen, killed, or break under its calls: with real processes and
//! sockets.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;
#[path = "common/in_process.rs"]
mod in_process;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use common::{Process, Swarm};
use futures::{StreamExt, stream::FuturesUnordered};
use in_process::{hosts, within};
use multinodes::{Actions, AppError, CallError, Event, Events, Node, QuorumError, Strategy};
use tokio::sync::Semaphore;

/// A host of `work`, whose action `run` gives its arguments back and notes that it was begun.
fn host(swarm: &Swarm, name: &str) -> Process {
    let begun = swarm.path("begun");
    let command = format!("sh -c 'echo >>{}; cat'", begun.display());
    swarm.start(name, &["--exec", &format!("work={command}"), "--slots", "work=4"])
}

async fn caller(swarm: &Swarm) -> Node {
    swarm.builder().name("caller").start().await.unwrap()
}

/// A host of `work` and who calls it, which knows it, and hears from now on what happens in the swarm.
async fn one_host(name: &str) -> (Swarm, Process, Node, Events) {
    let swarm = Swarm::new();
    let process = host(&swarm, name);
    let caller = caller(&swarm).await;
    hosts(&caller, "work", 1).await;
    let events = caller.events();
    (swarm, process, caller, events)
}

/// Waits until a node is told to be lost.
async fn loses(node: &Node, events: &mut Events, name: &str) {
    within(async {
        loop {
            match events.next().await.unwrap() {
                Event::Left { node, .. } if node.name == name => break,
                _ => {}
            }
        }
    })
    .await;
    assert!(node.nodes().iter().all(|node| node.name != name));
}

/// Always the host of that name, while it may be taken.
fn first(name: &'static str) -> Strategy {
    Strategy::custom(move |candidates| {
        let named = candidates.iter().find(|candidate| candidate.host.node == name);
        named.or_else(|| candidates.iter().next())
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn no_call_ends_unreachable_while_another_host_is_well() {
    let swarm = Swarm::new();
    let processes = ["one", "two", "three"].map(|name| swarm.start(name, &[]));
    let caller = caller(&swarm).await;
    hosts(&caller, "node", 4).await;
    processes[0].signal("STOP");
    let target = caller.app("node").remote().timeout(Duration::from_secs(3));
    let call = async || {
        let begun = Instant::now();
        target.call::<String>("echo", "hi").await.map_err(|error| (error, begun.elapsed()))
    };
    let mut calls: FuturesUnordered<_> = (0..15).map(|_| call()).collect();
    let mut failed = Vec::new();
    while let Some(outcome) = within(calls.next()).await {
        failed.extend(outcome.err());
    }
    drop(calls);
    for _ in 0..15 {
        failed.extend(within(call()).await.err());
    }
    assert!(failed.is_empty(), "{} of 30: {failed:?}", failed.len());
    within(caller.stop()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_item_of_a_map_waits_long_for_a_worker_of_which_nothing_is_heard() {
    let swarm = Swarm::new();
    let processes = ["one", "two"].map(|name| host(&swarm, name));
    let caller = caller(&swarm).await;
    hosts(&caller, "work", 2).await;
    processes[0].signal("STOP");
    let begun = Instant::now();
    let mut outcomes = caller.app("work").map_iter::<Vec<u8>>("run", 0..8_u8);
    while let Some(outcome) = within(outcomes.next()).await {
        outcome.unwrap().result.unwrap();
    }
    // There was no lane to it yet. One that is asked for by nobody else is given up after 5 s.
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    processes[0].signal("CONT");
    within(caller.stop()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_only_silent_has_all_the_time_when_there_is_no_other() {
    let (_swarm, frozen, caller, mut events) = one_host("frozen").await;
    frozen.signal("STOP");
    // There is no lane to it yet. Its connection is closed meanwhile, and the node is given up.
    let target = caller.app("work").timeout(Duration::from_secs(25));
    let named = target.clone().on("frozen");
    let calls = [target, named].map(|target| tokio::spawn(async move { target.call::<Vec<u8>>("run", 1).await }));
    loses(&caller, &mut events, "frozen").await;
    frozen.signal("CONT");
    for call in calls {
        assert_eq!(within(call).await.unwrap().unwrap(), [1]);
    }
    within(caller.stop()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_hears_nothing_any_more_says_that_it_may_be_cut_off() {
    let (_swarm, frozen, caller, mut events) = one_host("frozen").await;
    frozen.signal("STOP");
    loses(&caller, &mut events, "frozen").await;
    assert!(caller.status().cut_off && caller.status().connected == 0);
    let time = Duration::from_millis(700);
    // What it has known, and what it has not: it knows nothing of what there is now.
    let (work, other) = (caller.app("work").timeout(time), caller.app("other").timeout(time));
    for target in [work.clone(), work.clone().on("frozen"), other.clone(), other.on("unheard-of")] {
        let begun = Instant::now();
        let error = within(target.call::<Vec<u8>>("run", 1)).await.unwrap_err();
        assert!(matches!(error, CallError::CutOff { .. }) && error.code() == "cut_off", "{error:?}");
        assert!(error.is_retryable() && !error.may_have_run());
        assert!(begun.elapsed() >= time, "it waits: {:?}", begun.elapsed());
        let error = within(target.tell("hi")).await.unwrap_err();
        assert_eq!(error.code(), "cut_off");
    }
    let error = within(work.all().call::<Vec<u8>>("run", 1)).await.err().unwrap();
    assert_eq!(error.code(), "cut_off");
    // It is heard of again: what waits goes on.
    let waiting = tokio::spawn(async move { work.timeout(Duration::from_secs(25)).call::<Vec<u8>>("run", 2).await });
    frozen.signal("CONT");
    assert_eq!(within(waiting).await.unwrap().unwrap(), [2]);
    assert!(!caller.status().cut_off);
    within(caller.stop()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_hosts_that_fell_silent_are_waited_for_while_others_are_there() {
    let swarm = Swarm::new();
    let frozen = host(&swarm, "frozen");
    let _other = swarm.start("other", &[]);
    let caller = caller(&swarm).await;
    hosts(&caller, "work", 1).await;
    hosts(&caller, "node", 3).await;
    let mut events = caller.events();
    frozen.signal("STOP");
    loses(&caller, &mut events, "frozen").await;
    assert!(!caller.status().cut_off);
    let time = Duration::from_millis(700);
    let error = within(caller.app("work").timeout(time).call::<Vec<u8>>("run", 1)).await.unwrap_err();
    assert_eq!(error.code(), "cut_off", "{error:?}");
    let begun = Instant::now();
    let error = within(caller.app("unheard-of").call::<Vec<u8>>("run", 1)).await.unwrap_err();
    assert_eq!(error.code(), "no_such_application", "{error:?}");
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    // It is killed where it stands: whoever asks for it is refused, and it is gone.
    frozen.signal("KILL");
    let gone = async {
        while caller.app("work").timeout(time).call::<Vec<u8>>("run", 1).await.unwrap_err().code() == "cut_off" {}
    };
    within(gone).await;
    within(caller.stop()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_was_killed_is_gone_and_nobody_is_cut_off() {
    let (_swarm, killed, caller, mut events) = one_host("killed").await;
    killed.signal("KILL");
    loses(&caller, &mut events, "killed").await;
    assert!(!caller.status().cut_off);
    let begun = Instant::now();
    let error = within(caller.call::<Vec<u8>>("work", "run", 1)).await.unwrap_err();
    assert_eq!(error.code(), "no_such_application", "{error:?}");
    let error = within(caller.app("work").on("killed").call::<Vec<u8>>("run", 1)).await.unwrap_err();
    assert_eq!(error.code(), "no_such_node", "{error:?}");
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    within(caller.stop()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_always_alone_is_not_ready_and_not_cut_off() {
    let swarm = Swarm::new();
    let caller = caller(&swarm).await;
    let begun = Instant::now();
    let error = within(caller.call::<Vec<u8>>("work", "run", 1)).await.unwrap_err();
    assert_eq!(error.code(), "not_ready", "{error:?}");
    assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
    within(caller.stop()).await;
}

#[test]
fn a_command_that_only_looks_is_not_cut_off() {
    let swarm = Swarm::new();
    let frozen = host(&swarm, "frozen");
    frozen.signal("STOP");
    let outcome = swarm.run(&["call", "work", "run", "1", "--timeout", "20s"]);
    assert!(outcome.code == 1 && !outcome.stderr.contains("cut off"), "{outcome:?}");
    assert!(outcome.took < Duration::from_secs(15), "{outcome:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_lay_in_the_sockets_of_a_host_that_stood_still_is_not_begun_late() {
    let swarm = Swarm::new();
    let frozen = host(&swarm, "frozen");
    let caller = caller(&swarm).await;
    hosts(&caller, "work", 1).await;
    let target = caller.app("work");
    assert_eq!(within(target.call::<Vec<u8>>("run", 1)).await.unwrap(), [1]);
    frozen.signal("STOP");
    let short = target.clone().timeout(Duration::from_millis(800));
    let mut calls: FuturesUnordered<_> = (0..8).map(|_| short.call::<Vec<u8>>("run", 2)).collect();
    // Some with time left, which nobody waits for any more.
    let dropped: Vec<_> = (0..8)
        .map(|_| {
            let target = target.clone();
            tokio::spawn(async move { target.call::<Vec<u8>>("run", 3).await })
        })
        .collect();
    while let Some(outcome) = within(calls.next()).await {
        let error = outcome.unwrap_err();
        assert!(matches!(error, CallError::TimedOut { .. }) && error.may_have_run(), "{error:?}");
    }
    for call in dropped {
        call.abort();
        assert!(within(call).await.unwrap_err().is_cancelled());
    }
    frozen.signal("CONT");
    // Sent behind all of them, and answered after they were looked at.
    assert_eq!(within(target.call::<Vec<u8>>("run", 4)).await.unwrap(), [4]);
    let begun = std::fs::read_to_string(swarm.path("begun")).unwrap().lines().count();
    assert_eq!(begun, 2, "the first and the last");
    within(caller.stop()).await;
}

/// An application that never answers, and tells that it was begun.
fn slow(begun: &Arc<Semaphore>) -> Actions {
    let begun = begun.clone();
    Actions::new().idempotent_action("run", move |()| {
        begun.add_permits(1);
        std::future::pending::<bool>()
    })
}

#[test]
fn what_ran_on_one_host_may_have_run_whatever_another_one_says() {
    let runtime = || tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (here, there) = (runtime(), runtime());
    let swarm = Swarm::new();
    let begun = Arc::new(Semaphore::new(0));
    here.block_on(async {
        let caller = caller(&swarm).await;
        let breaks = swarm.builder().name("breaks");
        let breaks = there.spawn(async { breaks.start().await.unwrap() }).await.unwrap();
        breaks.register("test", slow(&begun)).unwrap();
        let refuses = swarm.builder().name("refuses").start().await.unwrap();
        let busy = Actions::new().try_action("run", |()| async { Err::<bool, _>(AppError::busy("never")) });
        refuses.register("test", busy).unwrap();
        hosts(&caller, "test", 2).await;
        let target = caller.app("test").strategy(first("breaks")).idempotent();
        let hedged = target.clone().hedge(Duration::from_secs(20));
        let calls = [target, hedged].map(|target| tokio::spawn(async move { target.call::<bool>("run", ()).await }));
        within(begun.acquire_many(2)).await.unwrap().forget();
        // All that the node runs is gone at once, without a word.
        there.shutdown_background();
        for call in calls {
            let error = within(call).await.unwrap().unwrap_err();
            assert!(error.may_have_run() && error.is_retryable(), "{error:?}");
            assert_eq!(error.code(), "connection_lost");
            let codes: Vec<_> = error.attempts().iter().map(CallError::code).collect();
            assert_eq!(codes, ["connection_lost", "busy"], "{error}");
            assert!(error.to_string().contains("`breaks`") && error.to_string().contains("`refuses`"), "{error}");
        }
        std::mem::forget(breaks);
    });
}

#[test]
fn an_item_that_ran_on_a_lost_worker_may_have_run_whatever_the_next_one_says() {
    let runtime = || tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (here, there) = (runtime(), runtime());
    let swarm = Swarm::new();
    let begun = Arc::new(Semaphore::new(0));
    here.block_on(async {
        let caller = caller(&swarm).await;
        let breaks = swarm.builder().name("breaks");
        let breaks = there.spawn(async { breaks.start().await.unwrap() }).await.unwrap();
        breaks.register("test", slow(&begun)).unwrap();
        hosts(&caller, "test", 1).await;
        let mut outcomes = caller.app("test").map::<bool>("run", futures::stream::iter([()]));
        let outcome = tokio::spawn(async move { outcomes.next().await });
        within(begun.acquire()).await.unwrap().forget();
        let lacking = swarm.builder().name("lacking").start().await.unwrap();
        let wrong = |()| async { Err::<bool, _>(AppError::bad_arguments("it takes none")) };
        lacking.register("test", Actions::new().try_action("run", wrong)).unwrap();
        hosts(&caller, "test", 2).await;
        there.shutdown_background();
        let outcome = within(outcome).await.unwrap().unwrap().unwrap();
        let error = outcome.result.unwrap_err();
        assert!(error.code == "bad_arguments" && error.may_have_run, "{error:?}");
        assert_eq!(outcome.failures.len(), 2, "{:?}", outcome.failures);
        std::mem::forget(breaks);
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_attempt_that_fails_for_good_does_not_end_a_call_that_still_runs() {
    let swarm = Swarm::new();
    let (begun, release) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let caller = caller(&swarm).await;
    let slow = swarm.builder().name("slow").start().await.unwrap();
    let (begins, waits) = (begun.clone(), release.clone());
    let action = move |()| {
        begins.add_permits(1);
        let waits = waits.clone();
        async move { waits.acquire().await.is_ok() }
    };
    slow.register("test", Actions::new().idempotent_action("run", action)).unwrap();
    let lacking = swarm.builder().name("lacking").start().await.unwrap();
    let asked = Arc::new(Semaphore::new(0));
    let count = asked.clone();
    let lacks = move |()| {
        count.add_permits(1);
        async { Err::<bool, _>(AppError::bad_arguments("it takes none")) }
    };
    lacking.register("test", Actions::new().try_action("run", lacks)).unwrap();
    hosts(&caller, "test", 2).await;
    let target = caller.app("test").strategy(first("slow")).idempotent().hedge(Duration::from_millis(20));
    let call = tokio::spawn(async move { target.call::<bool>("run", ()).await });
    within(begun.acquire()).await.unwrap().forget();
    within(asked.acquire()).await.unwrap().forget();
    release.add_permits(1);
    assert!(within(call).await.unwrap().unwrap());
    for node in [caller, slow, lacking] {
        within(node.stop()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quorum_that_is_missed_may_have_run_where_it_was_asked() {
    let swarm = Swarm::new();
    let caller = caller(&swarm).await;
    let begun = Arc::new(Semaphore::new(0));
    let runs = swarm.builder().name("runs").start().await.unwrap();
    runs.register("test", slow(&begun)).unwrap();
    let refuses = swarm.builder().name("refuses").start().await.unwrap();
    let waits = begun.clone();
    let busy = move |()| {
        let waits = waits.clone();
        async move {
            // Not before the other one has begun.
            let _ = waits.acquire().await;
            Err::<bool, _>(AppError::busy("never"))
        }
    };
    refuses.register("test", Actions::new().try_action("run", busy)).unwrap();
    hosts(&caller, "test", 2).await;
    let error = within(caller.app("test").quorum(2).call::<bool>("run", ())).await.unwrap_err();
    let QuorumError::Missed { failures, .. } = &error else { panic!("{error:?}") };
    assert!(failures.iter().all(|failure| failure.result.as_ref().is_err_and(|error| !error.may_have_run())));
    assert!(error.may_have_run(), "one of them was begun and cancelled");
    let error = within(caller.app("test").quorum(3).call::<bool>("run", ())).await.unwrap_err();
    assert!(!error.may_have_run(), "nobody was asked: {error:?}");
    for node in [caller, runs, refuses] {
        within(node.stop()).await;
    }
}
