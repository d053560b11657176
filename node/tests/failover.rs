//! What happens to a call when its host is slow, or lost.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test fails by panicking, and prints what it has measured"
)]

mod common;
#[path = "common/in_process.rs"]
mod in_process;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use common::Swarm;
use in_process::{hosts, in_process, within};
use multinodes::{Actions, AppError, AppRef, CallError, Node, Strategy};
use tokio::sync::{Semaphore, watch};

/// Always the host of that name, while it may be taken.
fn first(name: &'static str) -> Strategy {
    Strategy::custom(move |candidates| {
        let named = candidates.iter().find(|candidate| candidate.host.node == name);
        named.or_else(|| candidates.iter().next())
    })
}

/// Tells that a call has ended, however it did.
struct Ends(Arc<Semaphore>);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.add_permits(1);
    }
}

/// `quick` answers at once on all but the slow host, where it waits for ever.
fn application(is_slow: bool, begun: &Arc<Semaphore>, ended: &Arc<Semaphore>) -> Actions {
    let action = |begun: &Arc<Semaphore>, ended: &Arc<Semaphore>| {
        let (begun, ended) = (begun.clone(), ended.clone());
        move |()| {
            begun.add_permits(1);
            let ends = Ends(ended.clone());
            async move {
                let _ends = ends;
                if is_slow {
                    std::future::pending::<()>().await;
                }
                is_slow
            }
        }
    };
    Actions::new().action("once", action(begun, ended)).idempotent_action("often", action(begun, ended))
}

/// A caller, and the two hosts of `test` that it knows: one that is slow, and one that is not.
async fn slow_and_quick(begun: &Arc<Semaphore>, ended: &Arc<Semaphore>) -> (Node, Vec<Node>) {
    let (caller, address) = in_process("caller");
    let caller = caller.start().await.unwrap();
    let mut nodes = Vec::new();
    for name in ["slow", "quick"] {
        let node = in_process(name).0.join(&address).start().await.unwrap();
        node.register("test", application(name == "slow", begun, ended)).unwrap();
        nodes.push(node);
    }
    hosts(&caller, "test", 2).await;
    (caller, nodes)
}

#[tokio::test]
async fn the_loser_of_a_hedged_call_is_cancelled() {
    let (begun, ended) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let (caller, _hosts) = slow_and_quick(&begun, &ended).await;
    let target = caller.app("test").strategy(first("slow")).hedge(Duration::from_millis(20));
    for (target, action) in [(target.clone().idempotent(), "once"), (target.clone(), "often")] {
        assert!(!within(target.call::<bool>(action, ())).await.unwrap());
        // Both were begun, and both have ended: one with its answer, the other because it was cancelled.
        within(begun.acquire_many(2)).await.unwrap().forget();
        within(ended.acquire_many(2)).await.unwrap().forget();
    }
    // Without leave to run it twice there is one attempt.
    let error = within(target.timeout(Duration::from_millis(300)).call::<bool>("once", ())).await.unwrap_err();
    assert!(matches!(&error, CallError::TimedOut { node, .. } if node == "slow"), "{error:?}");
    within(ended.acquire()).await.unwrap().forget();
    assert_eq!(begun.available_permits(), 1);
}

#[test]
fn what_the_application_calls_idempotent_is_repeated_when_its_host_is_lost() {
    let runtime = || tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (here, there) = (runtime(), runtime());
    let (begun, ended) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    here.block_on(async {
        let (caller, address) = in_process("caller");
        let caller = caller.start().await.unwrap();
        let slow = in_process("slow").0.join(&address);
        let slow = there.spawn(async { slow.start().await.unwrap() }).await.unwrap();
        slow.register("test", application(true, &begun, &ended)).unwrap();
        let quick = in_process("quick").0.join(&address).start().await.unwrap();
        quick.register("test", application(false, &begun, &ended)).unwrap();
        hosts(&caller, "test", 2).await;
        let target = caller.app("test").strategy(first("slow"));
        let call = |action: &'static str| {
            let target = target.clone();
            tokio::spawn(async move { target.call::<bool>(action, ()).await })
        };
        let (once, often) = (call("once"), call("often"));
        within(begun.acquire_many(2)).await.unwrap().forget();
        // All that the node runs is gone at once, without a word.
        there.shutdown_background();
        assert!(!within(often).await.unwrap().unwrap());
        let error = within(once).await.unwrap().unwrap_err();
        assert!(matches!(error, CallError::ConnectionLost { .. }) && error.may_have_run(), "{error:?}");
        std::mem::forget(slow);
    });
}

/// An application that breaks, on the hosts that are named, and counts how often it was begun.
fn breaking(breaks: bool, begun: &Arc<AtomicUsize>) -> Actions {
    let action = || {
        let begun = begun.clone();
        move |()| {
            begun.fetch_add(1, SeqCst);
            async move {
                assert!(!breaks, "it breaks");
                true
            }
        }
    };
    Actions::new().action("once", action()).idempotent_action("often", action())
}

#[tokio::test]
async fn a_call_that_breaks_its_host_is_given_to_one_other_host_if_it_may_run_twice() {
    let (caller, address) = in_process("caller");
    let caller = caller.start().await.unwrap();
    let begun = Arc::new(AtomicUsize::new(0));
    let mut nodes = Vec::new();
    for name in ["one", "two", "three", "well"] {
        let node = in_process(name).0.join(&address).start().await.unwrap();
        node.register("poisoned", breaking(true, &begun)).unwrap();
        node.register("broken", breaking(name == "one", &begun)).unwrap();
        nodes.push(node);
    }
    hosts(&caller, "poisoned", 4).await;
    hosts(&caller, "broken", 4).await;
    let attempts = async |target: AppRef, action: &str| {
        begun.store(0, SeqCst);
        let outcome = within(target.call::<bool>(action, ())).await;
        (outcome, begun.load(SeqCst))
    };
    let target = |application: &str| caller.app(application).strategy(first("one"));
    let later = Duration::from_secs(10);
    for (target, action) in [
        (target("poisoned"), "often"),
        (target("poisoned").idempotent(), "once"),
        (target("poisoned").hedge(later), "often"),
    ] {
        let (outcome, attempts) = attempts(target, action).await;
        let error = outcome.unwrap_err();
        let panicked = matches!(error.strongest(), CallError::Panicked { .. });
        assert!(panicked && error.attempts().len() == 2 && attempts == 2, "{error:?} after {attempts}");
    }
    for target in [target("broken"), target("broken").hedge(later)] {
        let (outcome, attempts) = attempts(target, "often").await;
        assert!(outcome.unwrap() && attempts == 2, "{attempts}");
    }
    for target in [target("broken"), target("broken").on("one").idempotent()] {
        let (outcome, attempts) = attempts(target, "once").await;
        assert!(matches!(outcome, Err(CallError::Panicked { .. })) && attempts == 1, "{outcome:?} after {attempts}");
    }
}

#[tokio::test]
async fn a_host_that_lets_calls_time_out_is_set_aside_after_the_second_one() {
    let (begun, ended) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let (caller, _hosts) = slow_and_quick(&begun, &ended).await;
    let target = caller.app("test").strategy(first("slow")).timeout(Duration::from_millis(100));
    for _ in 0..2 {
        let error = within(target.call::<bool>("often", ())).await.unwrap_err();
        assert!(matches!(&error, CallError::TimedOut { node, .. } if node == "slow"), "{error:?}");
    }
    // On a busy machine the moment may be over before the next call: then it is longer after that one.
    within(async { while target.call::<bool>("often", ()).await.is_err() {} }).await;
}

#[tokio::test]
async fn a_hedged_call_does_not_go_back_to_a_host_that_has_refused_it() {
    let (caller, address) = in_process("caller");
    let caller = caller.start().await.unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let refusing = Actions::new().try_action("run", move |()| {
        count.fetch_add(1, SeqCst);
        async { Err::<bool, _>(AppError::busy("it never has time")) }
    });
    let slow = Actions::new().idempotent_action("run", |()| std::future::pending::<bool>());
    let mut nodes = Vec::new();
    for (name, application) in [("refusing", refusing), ("slow", slow)] {
        let node = in_process(name).0.join(&address).start().await.unwrap();
        node.register("test", application).unwrap();
        nodes.push(node);
    }
    hosts(&caller, "test", 2).await;
    // By the time of the second attempt the first host is not set aside any more.
    let target = caller.app("test").strategy(first("refusing")).hedge(Duration::from_millis(400));
    let error = within(target.timeout(Duration::from_secs(1)).call::<bool>("run", ())).await.unwrap_err();
    assert!(matches!(error.strongest(), CallError::TimedOut { node, .. } if node == "slow"), "{error:?}");
    assert_eq!(asked.load(SeqCst), 1);
}

const TIME: Duration = Duration::from_secs(10);

/// What has come of many calls.
#[derive(Default)]
struct Tally {
    answered: AtomicUsize,
    lost: AtomicUsize,
    stop: AtomicBool,
}

/// Calls again and again, until it is told to stop; checks each outcome.
async fn call_on(target: AppRef, idempotent: bool, tally: Arc<Tally>, done: Arc<watch::Sender<usize>>) {
    while !tally.stop.load(SeqCst) {
        let begin = Instant::now();
        let outcome = target.call::<serde_json::Value>("sleep", 40).await;
        let took = begin.elapsed();
        assert!(took < TIME + Duration::from_secs(2), "{took:?}");
        match outcome {
            Ok(_) => tally.answered.fetch_add(1, SeqCst),
            Err(error) => {
                assert!(!idempotent && error.may_have_run(), "idempotent: {idempotent}, after {took:?}: {error:?}");
                tally.lost.fetch_add(1, SeqCst)
            }
        };
        done.send_modify(|done| *done += 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_200_calls_in_flight_hosts_are_killed_until_one_is_left() {
    const TASKS: usize = 200;
    let swarm = Swarm::new();
    let names: Vec<String> = (0..5).map(|number| format!("host{number}")).collect();
    let mut processes: Vec<_> =
        names.iter().map(|name| swarm.launch(name, &["--demo-applications", "clock"])).collect();
    for process in &mut processes {
        process.started();
    }
    let caller: Node = swarm.builder().name("caller").start().await.unwrap();
    hosts(&caller, "clock", 5).await;
    let (tally, done) = (Arc::new(Tally::default()), Arc::new(watch::Sender::new(0)));
    let mut counts = done.subscribe();
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..TASKS {
        let idempotent = number.is_multiple_of(2);
        let target = caller.app("clock").timeout(TIME);
        let target = if idempotent { target.idempotent() } else { target };
        tasks.spawn(call_on(target, idempotent, tally.clone(), done.clone()));
    }
    for process in &processes[..4] {
        let reached = *counts.borrow() + 2 * TASKS;
        within(counts.wait_for(|count| *count >= reached)).await.unwrap();
        process.signal("KILL");
    }
    let reached = *counts.borrow() + 4 * TASKS;
    within(counts.wait_for(|count| *count >= reached)).await.unwrap();
    tally.stop.store(true, SeqCst);
    within(async {
        while let Some(outcome) = tasks.join_next().await {
            outcome.unwrap();
        }
    })
    .await;
    let (answered, lost) = (tally.answered.load(SeqCst), tally.lost.load(SeqCst));
    eprintln!("{answered} answered, {lost} of those that may run only once were lost");
    assert!(lost > 0, "hosts were killed while they worked");
    within(caller.stop()).await;
}

#[test]
fn the_command_hedges_what_the_application_or_the_user_allows_to_run_twice() {
    let swarm = Swarm::new();
    let plain = "[applications.plain]\nexec = 'cat'\nactions = ['often', 'once']\nidempotent = ['often']\n";
    std::fs::write(swarm.path("multinodes.toml"), plain).unwrap();
    let _host = swarm.start("host", &[]);
    let hedged = |action: &'static str| vec!["call", "plain", action, "1", "--hedge", "1s"];
    assert_eq!(swarm.until_code(0, &hedged("often")).stdout, "[1]\n");
    let refused = swarm.run(&hedged("once")).expect(2);
    assert!(refused.stderr.contains("no host of `plain` declares that `once` may run twice"), "{refused:?}");
    assert_eq!(swarm.run(&[hedged("once"), vec!["--idempotent"]].concat()).stdout, "[1]\n");
    swarm.run(&[hedged("often"), vec!["--all"]].concat()).expect(2);
    assert_eq!(swarm.run(&["call", "nobody", "often", "--hedge", "1s"]).expect(1).stdout, "");
}
