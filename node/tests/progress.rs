//! How far a call is, how many calls run at once, and what happens to those that wait when the node stops.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "common/in_process.rs"]
mod in_process;

use std::sync::Arc;

use multinodes::{Actions, AppError, CallError, Context};
use tokio::sync::{Semaphore, mpsc};

use in_process::{hosts, pair, within};

#[tokio::test]
async fn who_watches_a_call_hears_what_the_application_says_of_it() {
    let (one, other) = pair("alpha", "beta").await;
    let go_on = Arc::new(Semaphore::new(0));
    let gate = go_on.clone();
    let slow = Actions::new().action_with("count", move |context: Context, (): ()| {
        let gate = gate.clone();
        async move {
            for step in 1..=3 {
                context.progress(&step);
                gate.acquire().await.unwrap().forget();
            }
            context.progress(&"x".repeat(20_000));
            gate.acquire().await.unwrap().forget();
            "done"
        }
    });
    one.register("slow", slow).unwrap();
    hosts(&other, "slow", 1).await;
    for node in [&one, &other] {
        let mut heard = Vec::new();
        let slow = node.app("slow");
        let result = slow.call_with_progress::<String>("count", (), |value| {
            heard.push(value.decode::<u32>().ok());
            go_on.add_permits(1);
        });
        assert_eq!(within(result).await.unwrap(), "done");
        assert_eq!(heard, [Some(1), Some(2), Some(3), None], "what is too long is left out, but the sign of life goes");
        let plain = within(node.call::<String>("slow", "count", ()));
        go_on.add_permits(4);
        assert_eq!(plain.await.unwrap(), "done", "nobody has to watch");
    }
}

#[tokio::test]
async fn slots_bound_what_runs_at_once_and_a_node_that_stops_gives_back_what_waits() {
    let (one, other) = pair("alpha", "beta").await;
    let (begun, mut begins) = mpsc::unbounded_channel();
    let gate = Arc::new(Semaphore::new(0));
    let go_on = gate.clone();
    let work = Actions::new().slots(2).action("run", move |item: u32| {
        let (begun, gate) = (begun.clone(), gate.clone());
        async move {
            begun.send(item).unwrap();
            gate.acquire().await.unwrap().forget();
            item
        }
    });
    one.register("work", work).unwrap();
    hosts(&other, "work", 1).await;
    assert_eq!(other.hosts("work")[0].slots, Some(2));
    let call = |item: u32| {
        let node = other.clone();
        tokio::spawn(async move { node.call::<u32>("work", "run", item).await })
    };
    let mut running = Vec::new();
    for item in 0..2 {
        running.push(call(item));
        assert_eq!(within(begins.recv()).await, Some(item));
    }
    let waiting = call(2);
    // It is sent in its first turn, and what is sent after it arrives after it.
    tokio::task::yield_now().await;
    within(other.call::<u64>("node", "ping", ())).await.unwrap();
    let stopping = tokio::spawn({
        let one = one.clone();
        async move { one.stop().await }
    });
    let error = within(waiting).await.unwrap().unwrap_err();
    assert!(!error.may_have_run(), "{error:?}");
    hosts(&other, "work", 0).await;
    go_on.add_permits(2);
    for (item, run) in running.into_iter().enumerate() {
        assert_eq!(within(run).await.unwrap().unwrap(), item as u32, "what runs is finished");
    }
    within(stopping).await.unwrap();
    assert!(begins.try_recv().is_err(), "what waited was not begun");
}

#[tokio::test]
async fn an_application_that_breaks_in_a_process_of_its_own_is_told_from_one_that_fails() {
    let (one, other) = pair("alpha", "beta").await;
    let fragile = Actions::new()
        .try_action("run", |(): ()| async move { Err::<(), _>(AppError::crashed("ended with exit status 3")) });
    one.register("fragile", fragile).unwrap();
    hosts(&other, "fragile", 1).await;
    for node in [&one, &other] {
        let error = within(node.call::<()>("fragile", "run", ())).await.unwrap_err();
        assert!(matches!(error, CallError::Panicked { .. }) && error.may_have_run(), "{error:?}");
        assert_eq!(error.to_string(), "`fragile` on node `alpha` ended with exit status 3");
    }
}
