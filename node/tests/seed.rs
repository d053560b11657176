//! Everything that the 2013 library did with nodes, applications and messages, each as one promise.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "common/in_process.rs"]
mod in_process;

use std::time::Duration;

use multinodes::{Actions, CallError, Node, json};
use serde_json::Value;
use tokio::sync::mpsc;

use in_process::{hosts, in_process, pair, within};

fn calculator() -> Actions {
    Actions::new()
        .description(json!({"precision": 64}))
        .action("add", |(a, b): (i64, i64)| async move { a + b })
        .try_action("div", |(a, b): (i64, i64)| async move { a.checked_div(b).ok_or("division by zero") })
}

/// An application that passes on what it is told.
fn listener() -> (Actions, mpsc::UnboundedReceiver<Value>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let actions = Actions::new().on_tell(move |message: Value| {
        sender.send(message).unwrap();
        async {}
    });
    (actions, receiver)
}

#[tokio::test]
async fn a_node_has_the_name_it_was_given_or_a_random_one() {
    let given = in_process("alpha").0.start().await.unwrap();
    assert_eq!(given.name(), "alpha");
    let random = || async { Node::builder().listen("/memory/0").start().await.unwrap().name().to_owned() };
    let (one, other) = (random().await, random().await);
    assert!(!one.is_empty() && one != other, "{one} {other}");
}

#[tokio::test]
async fn a_description_tells_name_and_applications_and_known_nodes() {
    let (one, other) = pair("alpha", "beta").await;
    one.register("calculator", calculator()).unwrap();
    other.register("plain", Actions::new()).unwrap();
    let description = one.description();
    assert_eq!(description.name, "alpha");
    assert_eq!(description.peer_id, one.peer_id());
    assert_eq!(description.nodes, ["beta"]);
    let names: Vec<_> = description.applications.iter().map(|application| &application.name[..]).collect();
    assert_eq!(names, ["calculator", "node"]);
    assert_eq!(description.applications[0].description, json!({"precision": 64}));
}

#[tokio::test]
async fn an_application_may_have_a_description_or_none() {
    let (one, other) = pair("alpha", "beta").await;
    one.register("described", calculator()).unwrap();
    one.register("plain", Actions::new()).unwrap();
    let described = within(other.wait_for("described")).await.unwrap();
    assert_eq!(described[0].description, json!({"precision": 64}));
    assert_eq!(described[0].actions, ["add", "div"]);
    let plain = within(other.wait_for("plain")).await.unwrap();
    assert_eq!(plain[0].description, Value::Null);
}

#[tokio::test]
async fn a_description_that_changes_later_reaches_everyone() {
    let (one, other) = pair("alpha", "beta").await;
    one.register("render", Actions::new().description(json!({"gpu": false}))).unwrap();
    within(other.wait_for("render")).await.unwrap();
    let mut events = other.events();
    one.describe("render", json!({"gpu": true})).unwrap();
    within(async {
        while other.hosts("render")[0].description != json!({"gpu": true}) {
            events.next().await.unwrap();
        }
    })
    .await;
    one.unregister("render").unwrap();
    hosts(&other, "render", 0).await;
}

#[tokio::test]
async fn a_call_to_an_application_here_runs_here() {
    let node = in_process("alpha").0.start().await.unwrap();
    node.register("calculator", calculator()).unwrap();
    let sum: i64 = within(node.call("calculator", "add", (1, 2))).await.unwrap();
    assert_eq!(sum, 3);
    let error = within(node.call::<i64>("calculator", "div", (1, 0))).await.unwrap_err();
    assert_eq!(error.to_string(), "`calculator` on node `alpha` failed: division by zero");
    assert!(error.may_have_run());
}

#[tokio::test]
async fn a_tell_to_an_application_here_arrives_here() {
    let node = in_process("alpha").0.start().await.unwrap();
    let (listener, mut heard) = listener();
    node.register("listener", listener).unwrap();
    // The first library dropped what looked false.
    for message in [json!("hello"), json!(0), json!(""), Value::Null, json!(false)] {
        within(node.tell("listener", &message)).await.unwrap();
        assert_eq!(within(heard.recv()).await, Some(message));
    }
}

#[tokio::test]
async fn a_call_to_an_application_on_a_connected_node_returns_its_result() {
    let (one, other) = pair("alpha", "beta").await;
    one.register("calculator", calculator()).unwrap();
    within(other.wait_for("calculator")).await.unwrap();
    let sum: i64 = within(other.call("calculator", "add", (40, 2))).await.unwrap();
    assert_eq!(sum, 42);
    let error = within(other.call::<i64>("calculator", "div", (1, 0))).await.unwrap_err();
    assert!(
        matches!(&error, CallError::Failed { node, message, .. } if node == "alpha" && message == "division by zero")
    );
}

#[tokio::test]
async fn tells_and_casts_to_a_connected_node_arrive_in_order() {
    let (one, other) = pair("alpha", "beta").await;
    let (listener, mut heard) = listener();
    one.register("listener", listener).unwrap();
    within(other.wait_for("listener")).await.unwrap();
    for number in 0..100 {
        if number % 2 == 0 {
            within(other.tell("listener", number)).await.unwrap();
        } else {
            within(other.cast("listener", number)).await.unwrap();
        }
    }
    for number in 0..100 {
        assert_eq!(within(heard.recv()).await, Some(json!(number)));
    }
}

#[tokio::test]
async fn a_node_reached_through_another_is_known_and_called_and_told() {
    let (middle, address) = in_process("middle");
    let middle = middle.start().await.unwrap();
    let one = in_process("one").0.join(&address).start().await.unwrap();
    let other = in_process("other").0.join(&address).start().await.unwrap();
    let (listener, mut heard) = listener();
    one.register("calculator", calculator()).unwrap();
    one.register("listener", listener).unwrap();
    within(other.wait_for("calculator")).await.unwrap();
    within(other.wait_for("listener")).await.unwrap();
    let sum: i64 = within(other.app("calculator").on("one").call("add", (1, 2))).await.unwrap();
    assert_eq!(sum, 3);
    within(other.tell("listener", "from afar")).await.unwrap();
    assert_eq!(within(heard.recv()).await, Some(json!("from afar")));
    assert_eq!(middle.nodes().len(), 3);
}

#[tokio::test]
async fn the_hosts_of_an_application_can_be_listed_and_filtered() {
    let (one, other) = pair("alpha", "beta").await;
    one.register("render", Actions::new().description(json!({"gpu": true}))).unwrap();
    other.register("render", Actions::new().description(json!({"gpu": false}))).unwrap();
    hosts(&one, "render", 2).await;
    let names: Vec<_> = one.hosts("render").iter().map(|host| host.node.clone()).collect();
    assert_eq!(names, ["alpha", "beta"]);
    let slow = one.app("render").filter(|host| host.description["gpu"] == false).hosts();
    assert_eq!(slow.iter().map(|host| &host.node[..]).collect::<Vec<_>>(), ["beta"]);
    assert!(one.hosts("unknown").is_empty());
}

#[tokio::test]
async fn a_message_goes_here_first_and_else_to_a_host_that_the_filter_takes() {
    let (one, other) = pair("alpha", "beta").await;
    let who = |name: &'static str, gpu: bool| {
        Actions::new().description(json!({"gpu": gpu})).action("who", move |()| async move { name })
    };
    one.register("render", who("alpha", true)).unwrap();
    other.register("render", who("beta", false)).unwrap();
    within(other.wait_for("render")).await.unwrap();
    let here: String = within(other.call("render", "who", ())).await.unwrap();
    assert_eq!(here, "beta");
    hosts(&other, "render", 2).await;
    let gpu = other.app("render").filter(|host| host.description["gpu"] == true);
    let there: String = within(gpu.call("who", ())).await.unwrap();
    assert_eq!(there, "alpha");
    let none = other.app("render").filter(|host| host.description["gpu"] == 7).timeout(Duration::from_millis(500));
    let error = within(none.call::<String>("who", ())).await.unwrap_err();
    assert_eq!(error.to_string(), "none of the 2 hosts of `render` matches");
}

#[tokio::test]
async fn a_node_is_picked_by_name_or_peer_id() {
    let (one, other) = pair("alpha", "beta").await;
    let echo: String = within(other.app("node").on("alpha").call("echo", "hi")).await.unwrap();
    assert_eq!(echo, "hi");
    let by_id = other.app("node").on(one.peer_id().to_string());
    assert_eq!(within(by_id.call::<String>("echo", "ho")).await.unwrap(), "ho");
    let description: Value = within(other.app("node").on("alpha").call("description", ())).await.unwrap();
    assert_eq!(description["name"], "alpha");
}
