//! What is promised about delivery: deadlines, cancelling, busy hosts, failing over, draining, large messages.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "common/in_process.rs"]
mod in_process;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use multinodes::{Actions, AppError, CallError, Context, Node};
use tokio::sync::{Notify, mpsc};

use in_process::{hosts, in_process, pair, within};

/// An action that never ends, and what tells that it has begun and that it was stopped.
fn endless() -> (Actions, mpsc::UnboundedReceiver<&'static str>) {
    struct Stopped(mpsc::UnboundedSender<&'static str>);
    impl Drop for Stopped {
        fn drop(&mut self) {
            let _ = self.0.send("stopped");
        }
    }
    let (sender, receiver) = mpsc::unbounded_channel();
    let actions = Actions::new().action("wait", move |()| {
        let stopped = Stopped(sender.clone());
        async move {
            let _ = stopped.0.send("begun");
            std::future::pending::<()>().await;
        }
    });
    (actions, receiver)
}

#[tokio::test]
async fn a_deadline_ends_the_call_and_stops_the_work() {
    let (one, other) = pair("alpha", "beta").await;
    let (actions, mut seen) = endless();
    one.register("endless", actions).unwrap();
    hosts(&other, "endless", 1).await;
    for node in [&one, &other] {
        let begun = Instant::now();
        let target = node.app("endless").timeout(Duration::from_millis(300));
        let error = within(target.call::<()>("wait", ())).await.unwrap_err();
        assert!(matches!(&error, CallError::TimedOut { .. }) && error.may_have_run(), "{error:?}");
        assert_eq!(error.to_string(), "no answer from `endless` on node `alpha` within 300ms");
        assert!(begun.elapsed() >= Duration::from_millis(300));
        assert_eq!(within(seen.recv()).await, Some("begun"));
        assert_eq!(within(seen.recv()).await, Some("stopped"));
    }
}

#[tokio::test]
async fn dropping_the_future_stops_the_work_on_the_other_side() {
    let (one, other) = pair("alpha", "beta").await;
    let (actions, mut seen) = endless();
    one.register("endless", actions).unwrap();
    hosts(&other, "endless", 1).await;
    let call = tokio::spawn(async move { other.call::<()>("endless", "wait", ()).await });
    assert_eq!(within(seen.recv()).await, Some("begun"));
    call.abort();
    assert_eq!(within(seen.recv()).await, Some("stopped"));
}

#[tokio::test]
async fn the_handler_is_told_the_proven_caller_and_the_remaining_time() {
    let (one, other) = pair("alpha", "beta").await;
    let who = Actions::new().action_with("who", |context: multinodes::Context, ()| async move {
        let left = u64::try_from(context.remaining().as_millis()).unwrap();
        (context.caller().to_string(), context.is_local(), left)
    });
    one.register("who", who).unwrap();
    hosts(&other, "who", 1).await;
    let target = other.app("who").timeout(Duration::from_secs(5));
    let (caller, local, left): (String, bool, u64) = within(target.call("who", ())).await.unwrap();
    assert_eq!((caller, local), (other.peer_id().to_string(), false));
    assert!((1..=5000).contains(&left), "{left}");
    let (caller, local, _): (String, bool, u64) = within(one.call("who", "who", ())).await.unwrap();
    assert_eq!((caller, local), (one.peer_id().to_string(), true));
}

/// Calls itself on the nodes that it is given, one after the other, and says what is left of the time at the last one.
fn relay() -> Actions {
    async fn next(node: &Node, mut path: Vec<String>) -> Result<u64, CallError> {
        let first = path.remove(0);
        node.app("relay").on(first).call("left", path).await
    }
    let told = Arc::new(AtomicU64::new(0));
    let heard = told.clone();
    Actions::new()
        .try_action_with("left", |context: Context, path: Vec<String>| async move {
            if path.is_empty() {
                return Ok(u64::try_from(context.remaining().as_millis()).unwrap());
            }
            next(context.node(), path).await.map_err(AppError::of)
        })
        .try_action_with("unbounded", |context: Context, path: Vec<String>| async move {
            next(&context.node().unbounded(), path).await.map_err(AppError::of)
        })
        .try_action_with("tell", |context: Context, path: Vec<String>| async move {
            context.node().app("relay").on(context.node().name()).tell(path).await.map_err(AppError::of)
        })
        .on_tell_with(move |context, path: Vec<String>| {
            let told = told.clone();
            async move { told.store(next(context.node(), path).await.unwrap(), SeqCst) }
        })
        .action("told", move |()| {
            let left = heard.load(SeqCst);
            async move { left }
        })
}

#[tokio::test]
async fn nested_calls_inherit_what_is_left_and_messages_told_do_not() {
    let (one, other) = pair("alpha", "beta").await;
    for node in [&one, &other] {
        node.register("relay", relay()).unwrap();
    }
    hosts(&one, "relay", 2).await;
    hosts(&other, "relay", 2).await;
    let target = other.app("relay").on("alpha").timeout(Duration::from_secs(5));
    for path in [&["beta"][..], &["beta", "alpha"], &["alpha", "alpha", "beta"]] {
        let left: u64 = within(target.call("left", path)).await.unwrap();
        assert!((1..=5_000).contains(&left), "{path:?}: {left}");
    }
    let left: u64 = within(target.call("unbounded", vec!["beta"])).await.unwrap();
    assert!(left > 5_000, "{left}");
    within(target.call::<()>("tell", vec!["beta"])).await.unwrap();
    let told = async {
        loop {
            match one.call("relay", "told", ()).await.unwrap() {
                0_u64 => tokio::task::yield_now().await,
                left => break left,
            }
        }
    };
    let left = within(told).await;
    assert!(left > 5_000, "{left}");
}

#[tokio::test]
async fn without_any_time_left_nothing_is_started() {
    let node = in_process("alone").0.start().await.unwrap();
    let target = node.app("node").timeout(Duration::ZERO);
    let error = within(target.call::<String>("echo", "hi")).await.unwrap_err();
    assert!(matches!(error, CallError::Expired { .. }) && !error.may_have_run(), "{error:?}");
    let target = node.app("node").timeout(Duration::MAX);
    assert_eq!(within(target.call::<String>("echo", "hi")).await.unwrap(), "hi");
}

#[tokio::test]
async fn the_largest_numbers_are_numbers_like_any_other() {
    let node = in_process("alone").0.start().await.unwrap();
    let largest = Actions::new().concurrency(usize::MAX).queue(usize::MAX).slots(u32::MAX);
    node.register("large", largest.action("add", |(one, other): (i64, i64)| async move { one + other })).unwrap();
    assert_eq!(within(node.call::<i64>("large", "add", (1, 2))).await.unwrap(), 3);
}

#[tokio::test]
async fn a_busy_application_says_so_at_once_and_another_host_is_tried() {
    let (middle, address) = in_process("middle");
    let middle = middle.start().await.unwrap();
    let (gate, entered) = (Arc::new(Notify::new()), Arc::new(AtomicUsize::new(0)));
    let worker = |limit: usize| {
        let (gate, entered) = (gate.clone(), entered.clone());
        Actions::new().concurrency(limit).queue(0).action("work", move |()| {
            let (gate, entered) = (gate.clone(), entered.clone());
            async move {
                entered.fetch_add(1, SeqCst);
                gate.notified().await;
            }
        })
    };
    let small = in_process("small").0.join(&address).start().await.unwrap();
    small.register("worker", worker(1)).unwrap();
    hosts(&middle, "worker", 1).await;
    let call = |node: &Node| {
        let node = node.clone();
        tokio::spawn(async move { node.call::<()>("worker", "work", ()).await })
    };
    let first = call(&middle);
    within(async {
        while entered.load(SeqCst) < 1 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let error = within(call(&middle)).await.unwrap().unwrap_err();
    assert!(matches!(&error, CallError::Busy { node, .. } if node == "small") && !error.may_have_run(), "{error:?}");
    let large = in_process("large").0.join(&address).start().await.unwrap();
    large.register("worker", worker(100)).unwrap();
    hosts(&middle, "worker", 2).await;
    let more: Vec<_> = (0..20).map(|_| call(&middle)).collect();
    within(async {
        while entered.load(SeqCst) < 21 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    gate.notify_waiters();
    for call in more.into_iter().chain([first]) {
        within(call).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_host_that_stops_finishes_what_runs_and_the_next_call_goes_elsewhere() {
    let (middle, address) = in_process("middle");
    let middle = middle.start().await.unwrap();
    let gate = Arc::new(Notify::new());
    let (sender, mut entered) = mpsc::unbounded_channel();
    let leaving = in_process("leaving").0.join(&address).start().await.unwrap();
    let worker = {
        let gate = gate.clone();
        Actions::new().action("who", move |()| {
            let (gate, sender) = (gate.clone(), sender.clone());
            async move {
                sender.send(()).unwrap();
                gate.notified().await;
                "leaving"
            }
        })
    };
    leaving.register("worker", worker).unwrap();
    hosts(&middle, "worker", 1).await;
    let caller = middle.clone();
    let running = tokio::spawn(async move { caller.call::<String>("worker", "who", ()).await });
    within(entered.recv()).await.unwrap();
    let stopping = tokio::spawn(async move { leaving.stop().await });
    let staying = in_process("staying").0.join(&address).start().await.unwrap();
    staying.register("worker", Actions::new().action("who", |()| async { "staying" })).unwrap();
    let mut events = middle.events();
    within(async {
        while !middle.hosts("worker").iter().any(|host| host.node == "staying") {
            events.next().await.unwrap();
        }
    })
    .await;
    for _ in 0..10 {
        let who: String = within(middle.call("worker", "who", ())).await.unwrap();
        assert_eq!(who, "staying");
    }
    gate.notify_waiters();
    assert_eq!(within(running).await.unwrap().unwrap(), "leaving");
    within(stopping).await.unwrap();
    hosts(&middle, "worker", 1).await;
}

#[tokio::test]
async fn an_idempotent_call_that_is_lost_with_its_host_is_repeated_on_another() {
    let (middle, address) = in_process("middle");
    let middle = middle.start().await.unwrap();
    let dying = in_process("dying").0.join(&address).start().await.unwrap();
    let (actions, mut seen) = endless();
    dying.register("worker", actions).unwrap();
    hosts(&middle, "worker", 1).await;
    let call = |idempotent: bool| {
        let mut target = middle.app("worker");
        if idempotent {
            target = target.idempotent();
        }
        tokio::spawn(async move { target.call::<()>("wait", ()).await })
    };
    let (careful, careless) = (call(false), call(true));
    assert_eq!(within(seen.recv()).await, Some("begun"));
    assert_eq!(within(seen.recv()).await, Some("begun"));
    let living = in_process("living").0.join(&address).start().await.unwrap();
    living.register("worker", Actions::new().action("wait", |()| async {})).unwrap();
    hosts(&middle, "worker", 2).await;
    // Dropping the last handle stops a node at once, without finishing what runs.
    drop(dying);
    let error = within(careful).await.unwrap().unwrap_err();
    assert!(matches!(&error, CallError::ConnectionLost { .. }) && error.may_have_run(), "{error:?}");
    within(careless).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_messages_do_not_delay_small_ones_and_arrive_whole() {
    let (one, other) = pair("alpha", "beta").await;
    let echo = Actions::new().action("echo", |text: String| async move { text });
    one.register("echo", echo).unwrap();
    hosts(&other, "echo", 1).await;
    let large = "x".repeat(8 * 1024 * 1024);
    let calls: Vec<_> = (0..4)
        .map(|_| {
            let (node, text) = (other.clone(), large.clone());
            tokio::spawn(async move { node.call::<String>("echo", "echo", text).await.unwrap().len() })
        })
        .collect();
    for number in 0..50 {
        let text: String = within(other.call("echo", "echo", number.to_string())).await.unwrap();
        assert_eq!(text, number.to_string());
    }
    for call in calls {
        assert_eq!(within(call).await.unwrap(), large.len());
    }
}

#[tokio::test]
async fn dropping_the_last_handle_stops_the_node() {
    let (one, other) = pair("alpha", "beta").await;
    let mut events = one.events();
    let clone = other.clone();
    drop(other);
    assert_eq!(within(clone.app("node").on("alpha").call::<String>("echo", "hi")).await.unwrap(), "hi");
    drop(clone);
    within(async { while !matches!(events.next().await.unwrap(), multinodes::Event::Left { .. }) {} }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_actions_that_block_in_place_run_at_once() {
    const AT_ONCE: usize = 24;
    let (one, other) = pair("alpha", "beta").await;
    let all = Arc::new((std::sync::Mutex::new(0), std::sync::Condvar::new()));
    let worker = Actions::new().action("meet", move |()| {
        let all = all.clone();
        async move {
            tokio::task::block_in_place(|| {
                let (count, changed) = &*all;
                let mut count = count.lock().unwrap();
                *count += 1;
                changed.notify_all();
                drop(changed.wait_timeout_while(count, Duration::from_secs(20), |count| *count < AT_ONCE).unwrap());
            });
        }
    });
    one.register("worker", worker).unwrap();
    hosts(&other, "worker", 1).await;
    let begun = Instant::now();
    let calls: Vec<_> = (0..AT_ONCE)
        .map(|_| {
            let target = other.app("worker").timeout(Duration::from_secs(25));
            tokio::spawn(async move { target.call::<()>("meet", ()).await })
        })
        .collect();
    for call in calls {
        within(call).await.unwrap().unwrap();
    }
    assert!(begun.elapsed() < Duration::from_secs(20), "they waited for each other in vain");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_action_that_blocks_its_thread_does_not_hold_up_the_others() {
    let (one, other) = pair("alpha", "beta").await;
    let (release, blocked) = std::sync::mpsc::channel::<()>();
    let blocked = std::sync::Mutex::new(blocked);
    let (sender, mut begun) = mpsc::unbounded_channel();
    let worker = Actions::new().action("quick", |number: u64| async move { number }).action("block", move |()| {
        sender.send(()).unwrap();
        blocked.lock().unwrap().recv().unwrap();
        async {}
    });
    one.register("worker", worker).unwrap();
    hosts(&other, "worker", 1).await;
    let caller = other.clone();
    let blocking = tokio::spawn(async move { caller.call::<()>("worker", "block", ()).await });
    within(begun.recv()).await.unwrap();
    for number in 0..200 {
        let answer: u64 = within(other.call("worker", "quick", number)).await.unwrap();
        assert_eq!(answer, number);
    }
    release.send(()).unwrap();
    within(blocking).await.unwrap().unwrap();
}

#[tokio::test]
async fn calls_that_go_round_in_circles_end_and_messages_that_are_told_may_go_on() {
    let (one, two) = pair("one", "two").await;
    let (done, mut count) = tokio::sync::mpsc::unbounded_channel();
    for node in [&one, &two] {
        let done = done.clone();
        let round = Actions::new()
            .try_action_with("round", |context: Context, depth: u32| async move {
                let other = if context.node().name() == "one" { "two" } else { "one" };
                let deeper: Result<u32, CallError> =
                    context.node().app("round").on(other).call("round", depth + 1).await;
                match deeper {
                    Err(CallError::TooDeep { .. }) => Ok(depth),
                    deeper => deeper.map_err(AppError::of),
                }
            })
            .on_tell_with(move |context: Context, left: u32| {
                let done = done.clone();
                async move {
                    let other = if context.node().name() == "one" { "two" } else { "one" };
                    match left {
                        0 => drop(done.send(())),
                        left => context.node().app("round").on(other).tell(left - 1).await.unwrap(),
                    }
                }
            });
        node.register("round", round).unwrap();
    }
    for node in [&one, &two] {
        hosts(node, "round", 2).await;
    }
    let deepest: u32 = within(one.app("round").on("two").call("round", 0_u32)).await.unwrap();
    assert_eq!(deepest, 32);
    within(one.app("round").on("two").tell(100_u32)).await.unwrap();
    within(count.recv()).await.unwrap();
}
