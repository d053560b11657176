//! Guests that stay: hosted, called and told like any other application.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod code;
#[path = "common/in_process.rs"]
mod in_process;

use std::{sync::Arc, time::Duration};

use code::{Engine, guest, limits, within};
use futures::{FutureExt, future::BoxFuture};
use in_process::{in_process, pair};
use multinodes::{
    CallError, GuestError, GuestLimits, Node, Profile,
    code::{Allowance, Alone, GuestApplication, Surroundings},
};

const NOTHING: &[u8] = &[0xf6];

/// More than one byte: the guest does not start with it.
const REFUSED: &[u8] = &[0x18, 0x20];

async fn counter(engine: &Engine, limits: GuestLimits) -> GuestApplication {
    let compiled = engine.compile(&guest("counter")).await.unwrap();
    let (allowance, profile) = (Allowance::new(limits), Profile::default());
    let started =
        GuestApplication::start(engine.runtime.clone(), compiled, NOTHING.to_vec(), allowance, profile, |_| {
            Arc::new(Alone)
        });
    within(started).await.unwrap()
}

/// A node that hosts it, with the default limits but for what changes.
async fn hosting(engine: &Engine, limits: GuestLimits) -> (Node, GuestApplication) {
    let application = counter(engine, limits).await;
    let node = in_process("alpha").0.start().await.unwrap();
    node.register("counter", application.clone()).unwrap();
    (node, application)
}

async fn count(node: &Node) -> Result<u8, CallError> {
    within(node.call("counter", "count", ())).await
}

/// Calls until it no longer rests.
async fn count_after_rest(node: &Node) -> u8 {
    within(async {
        loop {
            match node.call("counter", "count", ()).await {
                Ok(count) => return count,
                Err(CallError::Busy { .. }) => tokio::task::yield_now().await,
                Err(error) => panic!("{error:?}"),
            }
        }
    })
    .await
}

#[tokio::test]
async fn a_guest_is_called_and_told_like_any_other_application_and_keeps_its_state() {
    let engine = Engine::new();
    let (alpha, beta) = pair("alpha", "beta").await;
    alpha.register("counter", counter(&engine, GuestLimits::default()).await).unwrap();
    within(beta.wait_for("counter")).await.unwrap();
    assert_eq!(count(&beta).await.unwrap(), 1);
    assert_eq!(count(&alpha).await.unwrap(), 2);
    within(beta.tell("counter", "something")).await.unwrap();
    // Calls and tells go different ways; it is processed sooner or later.
    within(async { while count(&beta).await.unwrap() < 13 {} }).await;
    let error = within(beta.call::<u8>("counter", "fail", ())).await.unwrap_err();
    assert!(matches!(&error, CallError::Failed { message, .. } if message == "no such luck"), "{error:?}");
    // That was no reason to start anew.
    assert!(count(&beta).await.unwrap() > 13);
}

#[tokio::test]
async fn requests_wait_for_each_other() {
    let engine = Engine::new();
    let (node, _) = hosting(&engine, GuestLimits::default()).await;
    let mut counts = within(futures::future::join_all((0..50).map(|_| count(&node)))).await;
    counts.sort_by_key(|count| *count.as_ref().unwrap());
    let counts: Vec<_> = counts.into_iter().map(Result::unwrap).collect();
    assert_eq!(counts, (1..=50).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_guest_that_traps_is_an_error_of_that_call_rests_and_starts_anew() {
    let engine = Engine::new();
    let (node, _) = hosting(&engine, GuestLimits::default()).await;
    assert_eq!(count(&node).await.unwrap(), 1);
    let error = within(node.call::<u8>("counter", "trap", ())).await.unwrap_err();
    assert!(matches!(error, CallError::Panicked { .. }), "{error:?}");
    assert!(error.to_string().contains("unreachable"), "{error}");
    let error =
        within(node.app("counter").timeout(Duration::from_millis(20)).call::<u8>("count", ())).await.unwrap_err();
    assert!(matches!(&error, CallError::Busy { reason, .. } if reason.contains("rests")), "{error:?}");
    // What it is told meanwhile waits, and is not lost.
    within(node.tell("counter", "something")).await.unwrap();
    within(async { while count_after_rest(&node).await < 11 {} }).await;
}

#[tokio::test]
async fn what_waits_behind_a_guest_that_traps_is_answered_and_other_guests_go_on() {
    let engine = Engine::new();
    let (node, _) = hosting(&engine, GuestLimits::default()).await;
    node.register("calm", counter(&engine, GuestLimits::default()).await).unwrap();
    // All of them are in flight at once.
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..50 {
        let (node, other) = (node.clone(), node.clone());
        let action = if number == 25 { "trap" } else { "count" };
        calls.spawn(async move { ("counter", action, node.call::<u8>("counter", action, ()).await) });
        calls.spawn(async move { ("calm", "count", other.call::<u8>("calm", "count", ()).await) });
    }
    let mut broken = 0;
    while let Some(call) = within(calls.join_next()).await {
        match call.unwrap() {
            (_, "count", Ok(_)) => {}
            ("counter", "trap", Err(CallError::Panicked { .. })) => broken += 1,
            // It surely did not run, and may be called again: the guest rests.
            ("counter", "count", Err(error @ CallError::Busy { .. })) => assert!(!error.may_have_run()),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(broken, 1);
    count_after_rest(&node).await;
}

/// A node that panics when a guest asks it for something: at once, and not where its answer is waited for.
struct Panicking;

impl Surroundings for Panicking {
    fn call(&self, _: String, _: String, _: Vec<u8>) -> BoxFuture<'static, Result<Vec<u8>, String>> {
        panic!("on purpose")
    }

    fn tell(&self, _: String, _: Vec<u8>) -> BoxFuture<'static, Result<(), String>> {
        panic!("on purpose")
    }

    fn describe_node(&self) -> Vec<u8> {
        panic!("on purpose")
    }

    fn log(&self, _: String) {
        panic!("on purpose")
    }

    fn this_name(&self) -> String {
        panic!("on purpose")
    }

    fn this_call(&self, _: String, _: Vec<u8>) -> BoxFuture<'static, Result<Vec<u8>, String>> {
        panic!("on purpose")
    }

    fn this_tell(&self, _: Vec<u8>) -> BoxFuture<'static, Result<(), String>> {
        panic!("on purpose")
    }
}

#[tokio::test]
async fn a_panic_in_what_a_guest_asks_for_is_an_error_of_that_request_alone() {
    let engine = Engine::new();
    let compiled = engine.compile(&guest("counter")).await.unwrap();
    let (allowance, profile) = (Allowance::default(), Profile::default());
    let runtime = engine.runtime.clone();
    let started =
        GuestApplication::start(runtime, compiled, NOTHING.to_vec(), allowance, profile, |_| Arc::new(Panicking));
    let (node, application) = (in_process("alpha").0.start().await.unwrap(), within(started).await.unwrap());
    node.register("counter", application).unwrap();
    for _ in 0..3 {
        let (before, asked, after) =
            within(async { tokio::join!(count(&node), node.call::<u8>("counter", "self", ()), count(&node)) }).await;
        assert!(before.is_ok() && after.is_ok(), "{before:?} {after:?}");
        let asked = asked.unwrap_err();
        assert!(matches!(&asked, CallError::Panicked { .. }) && asked.to_string().contains("on purpose"), "{asked:?}");
    }
    // Tasks and their threads, too.
    for _ in 0..3 {
        let error =
            engine.run_among("nagging", NOTHING, GuestLimits::default(), Arc::new(Panicking)).await.unwrap_err();
        assert_eq!(error, GuestError::Panicked { reason: "on purpose".to_owned() });
        engine.run("echo", NOTHING, GuestLimits::default()).await.unwrap();
    }
}

#[tokio::test]
async fn a_guest_that_loops_ends_at_its_limit_and_others_go_on() {
    let engine = Engine::new();
    let (node, _) = hosting(&engine, limits(|limits| limits.cpu = Duration::from_millis(50))).await;
    let error = within(node.call::<u8>("counter", "loop", ())).await.unwrap_err();
    assert!(matches!(error, CallError::Panicked { .. }), "{error:?}");
    assert!(error.to_string().contains("computed for longer than its limit of 50ms"), "{error}");
    assert_eq!(count_after_rest(&node).await, 1);
}

#[tokio::test]
async fn an_instance_whose_call_was_dropped_is_thrown_away() {
    let engine = Engine::new();
    let (node, _) = hosting(&engine, limits(|limits| limits.cpu = Duration::from_secs(3600))).await;
    assert_eq!(count(&node).await.unwrap(), 1);
    let short = node.app("counter").timeout(Duration::from_millis(50));
    let error = within(short.call::<u8>("loop", ())).await.unwrap_err();
    assert!(matches!(error, CallError::TimedOut { .. }), "{error:?}");
    // The caller's hurry is not the guest's fault: it does not rest.
    assert_eq!(count(&node).await.unwrap(), 1);
}

/// Calls through a node.
struct Through(Node);

impl Surroundings for Through {
    fn call(&self, application: String, action: String, _: Vec<u8>) -> BoxFuture<'static, Result<Vec<u8>, String>> {
        let node = self.0.clone();
        async move {
            let result = node.call::<u8>(&application, &action, ()).await;
            result.map(|count| vec![0x18, count]).map_err(|error| error.to_string())
        }
        .boxed()
    }

    fn tell(&self, _: String, _: Vec<u8>) -> BoxFuture<'static, Result<(), String>> {
        Alone.tell(String::new(), Vec::new())
    }

    fn describe_node(&self) -> Vec<u8> {
        Alone.describe_node()
    }

    fn log(&self, _: String) {}

    fn this_name(&self) -> String {
        self.0.name().to_owned()
    }

    fn this_call(&self, _: String, _: Vec<u8>) -> BoxFuture<'static, Result<Vec<u8>, String>> {
        Alone.this_call(String::new(), Vec::new())
    }

    fn this_tell(&self, _: Vec<u8>) -> BoxFuture<'static, Result<(), String>> {
        Alone.this_tell(Vec::new())
    }
}

#[tokio::test]
async fn a_guest_that_calls_itself_is_told_so_at_once() {
    let engine = Engine::new();
    let node = in_process("alpha").0.start().await.unwrap();
    let compiled = engine.compile(&guest("counter")).await.unwrap();
    let through = Arc::new(Through(node.clone()));
    let application = GuestApplication::start(
        engine.runtime.clone(),
        compiled,
        NOTHING.to_vec(),
        Allowance::default(),
        Profile::default(),
        move |_| through.clone(),
    );
    node.register("counter", within(application).await.unwrap()).unwrap();
    let error = within(node.call::<u8>("counter", "self", ())).await.unwrap_err();
    assert!(error.to_string().contains("the guest has called itself"), "{error}");
    assert_eq!(count(&node).await.unwrap(), 2);
}

#[tokio::test]
async fn other_code_takes_its_place_without_losing_a_request() {
    let engine = Engine::new();
    // Room for one only, and that is taken.
    let (node, application) = hosting(&engine, limits(|limits| limits.instances = 1)).await;
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/guests/counter.wat")).unwrap();
    let other = multinodes::Code::from_bytes(text.replacen(
        "(i32.add (global.get $count) (i32.const 1))",
        "(i32.add (global.get $count) (i32.const 100))",
        1,
    ));
    let other = engine.compile(&other.unwrap()).await.unwrap();
    let old = engine.compile(&guest("counter")).await.unwrap();
    // One that does not start changes nothing.
    let error = within(application.upgrade(old, REFUSED.to_vec())).await.unwrap_err();
    assert_eq!(error, GuestError::Failed("not with such a configuration".to_owned()));
    assert_eq!(count(&node).await.unwrap(), 1);
    let calls = futures::future::join_all((0..20).map(|_| count(&node)));
    let (upgraded, counts) = within(futures::future::join(application.upgrade(other, NOTHING.to_vec()), calls)).await;
    upgraded.unwrap();
    assert!(counts.iter().all(Result::is_ok), "{counts:?}");
    let error = within(node.call::<u8>("counter", "trap", ())).await.unwrap_err();
    assert!(matches!(error, CallError::Panicked { .. }), "{error:?}");
    assert_eq!(count_after_rest(&node).await, 100);
}

#[tokio::test]
async fn a_guest_that_does_not_start_is_no_application() {
    let engine = Engine::new();
    let start = async |name: &str| {
        let compiled = engine.compile(&guest(name)).await.unwrap();
        let (allowance, profile) = (Allowance::default(), Profile::default());
        let runtime = engine.runtime.clone();
        within(GuestApplication::start(runtime, compiled, REFUSED.to_vec(), allowance, profile, |_| Arc::new(Alone)))
            .await
    };
    let error = start("counter").await.unwrap_err();
    assert_eq!(error, GuestError::Failed("not with such a configuration".to_owned()));
    assert!(matches!(start("echo").await.unwrap_err(), GuestError::WrongWorld { .. }));
}
