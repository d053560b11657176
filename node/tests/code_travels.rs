//! Code that travels to other nodes, in this process.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "common/in_process.rs"]
mod in_process;

use in_process::{in_process, within};
use multinodes::{Actions, CallError, Code, CodeRule, Node, Rule};

const ECHO: &str = include_str!("guests/echo.wat");
const COUNTER: &str = include_str!("guests/counter.wat");

async fn two(rules: impl IntoIterator<Item = CodeRule>) -> (Node, Node) {
    let (builder, address) = in_process("alpha");
    let builder = rules.into_iter().fold(builder, multinodes::Builder::allow_code);
    let alpha = builder.start().await.unwrap();
    let beta = in_process("beta").0.join(&address).start().await.unwrap();
    within(beta.wait_for_node("alpha")).await.unwrap();
    (alpha, beta)
}

#[tokio::test]
async fn a_task_runs_on_another_node_if_that_allows_it() {
    let echo = Code::from_bytes(ECHO).unwrap();
    let (closed, beta) = two([]).await;
    let error = within(beta.run(&echo).on("alpha").call::<Vec<i64>>((1, 2))).await.unwrap_err();
    assert!(matches!(error, CallError::Forbidden), "{error:?}");
    assert_eq!(closed.counters().forbidden_messages, 1);
    let (_alpha, beta) = two([CodeRule::of(Rule::any())]).await;
    for _ in 0..2 {
        let back: Vec<i64> = within(beta.run(&echo).on("alpha").call((1, 2))).await.unwrap();
        assert_eq!(back, [1, 2]);
    }
    let back: Vec<i64> = within(beta.run(&echo).call((3,))).await.unwrap();
    assert_eq!(back, [3], "on any node that takes code");
    let back: Vec<i64> = within(beta.run(&echo).on("beta").call((4,))).await.unwrap();
    assert_eq!(back, [4], "a node may run its own code");
}

#[tokio::test]
async fn code_that_is_installed_is_an_application_like_any_other() {
    let counter = Code::from_bytes(COUNTER).unwrap();
    let (alpha, beta) = two([CodeRule::of(Rule::any())]).await;
    within(beta.install("counter", &counter).on("alpha")).await.unwrap();
    within(beta.wait_for("counter")).await.unwrap();
    let hosts = beta.hosts("counter");
    assert_eq!(hosts[0].description["code"], counter.cid().to_string());
    alpha.register("plain", Actions::new().action("one", |()| async { 1 })).unwrap();
    within(beta.uninstall("counter", "alpha")).await.unwrap();
    let error = within(beta.uninstall("counter", "alpha")).await.unwrap_err();
    assert!(matches!(&error, CallError::Failed { code, .. } if code == "not_installed"), "{error:?}");
}
