//! Choosing hosts and nodes by predicates, in one process.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "common/in_process.rs"]
mod in_process;

use std::collections::BTreeSet;

use in_process::{hosts, in_process, pair, within};
use multinodes::{Actions, CallError, MAX_LABELS, Node, PredicateFault, StartError, json};
use serde_json::Value;

/// An application that says where it is.
fn place(name: &str, description: Value) -> Actions {
    let name = name.to_owned();
    Actions::new().description(description).action("where", move |()| std::future::ready(name.clone()))
}

/// A node of each of these regions around the one that is given, which hosts nothing.
async fn regions(regions: &[(&str, Value)]) -> (Node, Vec<Node>) {
    let (builder, address) = in_process("caller");
    let caller = builder.start().await.unwrap();
    let mut nodes = Vec::new();
    for (index, (region, description)) in regions.iter().enumerate() {
        let name = format!("n{index}");
        let node = in_process(&name).0.label("region", *region).join(&address).start().await.unwrap();
        node.register("place", place(&name, description.clone())).unwrap();
        nodes.push(node);
    }
    hosts(&caller, "place", regions.len()).await;
    (caller, nodes)
}

async fn answers(node: &Node, predicate: &str) -> BTreeSet<String> {
    let target = node.app("place").matching(predicate).unwrap();
    let mut answers = BTreeSet::new();
    for _ in 0..40 {
        answers.insert(within(target.call::<String>("where", ())).await.unwrap());
    }
    let listed: BTreeSet<String> = target.hosts().iter().map(|host| host.node.clone()).collect();
    assert_eq!(answers, listed, "what is called is what is listed");
    answers
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(ToString::to_string).collect()
}

#[tokio::test]
async fn a_call_goes_only_to_hosts_that_match() {
    let (caller, _nodes) = regions(&[
        ("eu", json!({"gpu": 1})),
        ("us", json!({"gpu": 2})),
        ("eu", json!({"gpu": 4})),
        ("eu", json!({"gpu": "many"})),
        ("eu", Value::Null),
    ])
    .await;
    assert_eq!(answers(&caller, "description.gpu >= 1 && node.labels.region == 'eu'").await, set(&["n0", "n2"]));
    assert_eq!(answers(&caller, "description.gpu >= 2").await, set(&["n1", "n2"]));
    assert_eq!(answers(&caller, "description == null || node.name == 'n3'").await, set(&["n3", "n4"]));
    assert_eq!(answers(&caller, "app.name == 'place' && 'where' in app.actions && node.load < 1000").await.len(), 5);

    let nobody = caller.app("place").matching("description.gpu > 9").unwrap();
    let error = within(nobody.call::<String>("where", ())).await.unwrap_err();
    assert!(matches!(error, CallError::NoMatch { hosts: 5, .. }), "{error}");

    let both = caller.app("place").matching("description.gpu >= 1").unwrap();
    let both = both.matching("node.labels.region == 'us'").unwrap().filter(|host| host.node != "n0");
    assert_eq!(within(both.call::<String>("where", ())).await.unwrap(), "n1");
    assert_eq!(both.hosts().len(), 1);
}

#[tokio::test]
async fn a_node_that_is_named_must_match_too() {
    let (caller, _nodes) = regions(&[("eu", json!({"gpu": 1})), ("us", json!({"gpu": 2}))]).await;
    let on = |node: &str| caller.app("place").on(node).matching("node.labels.region == 'eu'").unwrap();
    assert_eq!(within(on("n0").call::<String>("where", ())).await.unwrap(), "n0");
    let error = within(on("n1").call::<String>("where", ())).await.unwrap_err();
    assert!(matches!(error, CallError::NoMatch { hosts: 1, .. }), "{error}");
    let error = within(on("caller").call::<String>("where", ())).await.unwrap_err();
    assert!(matches!(error, CallError::NoSuchApplication { node: Some(_), .. }), "{error}");
}

#[tokio::test]
async fn a_change_of_a_description_is_heeded() {
    let (caller, nodes) = regions(&[("eu", json!({"free": true})), ("eu", json!({"free": false}))]).await;
    let free = caller.app("place").matching("description.free").unwrap();
    assert_eq!(within(free.call::<String>("where", ())).await.unwrap(), "n0");
    nodes[0].describe("place", json!({"free": false})).unwrap();
    nodes[1].describe("place", json!({"free": true})).unwrap();
    let mut events = caller.events();
    within(async {
        while free.hosts().first().is_none_or(|host| host.node != "n1") || free.hosts().len() != 1 {
            events.next().await.unwrap();
        }
    })
    .await;
    for _ in 0..20 {
        assert_eq!(within(free.call::<String>("where", ())).await.unwrap(), "n1");
    }
}

#[tokio::test]
async fn the_application_here_must_match_as_well_and_at_once() {
    let (one, other) = pair("one", "other").await;
    one.register("place", place("one", json!({"gpu": 0}))).unwrap();
    other.register("place", place("other", json!({"gpu": 1}))).unwrap();
    hosts(&one, "place", 2).await;
    let gpu = one.app("place").matching("description.gpu > 0").unwrap();
    assert_eq!(within(gpu.call::<String>("where", ())).await.unwrap(), "other");
    // Nobody else need have heard of it.
    one.describe("place", json!({"gpu": 3})).unwrap();
    assert_eq!(within(gpu.call::<String>("where", ())).await.unwrap(), "one");
}

#[tokio::test]
async fn nodes_are_chosen_by_their_labels() {
    let (caller, _nodes) = regions(&[("eu", Value::Null), ("us", Value::Null)]).await;
    let nodes = caller.nodes_matching("node.labels.region == 'us'").unwrap();
    assert_eq!(nodes.iter().map(|node| &node.name[..]).collect::<Vec<_>>(), ["n1"]);
    assert_eq!(nodes[0].labels["region"], "us");
    assert_eq!(caller.nodes_matching("node.name.startsWith('n')").unwrap().len(), 2);
    let error = caller.nodes_matching("description.gpu > 1").unwrap_err();
    assert!(matches!(error.fault(), PredicateFault::NoApplication { name } if name == "description"), "{error}");
    let error = caller.app("place").matching("nod.name == 'a'").unwrap_err();
    assert!(matches!(error.fault(), PredicateFault::UnknownVariable { name, .. } if name == "nod"), "{error}");
}

#[tokio::test]
async fn labels_of_this_node_are_known_here() {
    let node = in_process("alone").0.label("gpus", "1").label("gpus", "2").start().await.unwrap();
    node.register("place", place("alone", Value::Null)).unwrap();
    let target = node.app("place").matching("int(node.labels.gpus) == 2").unwrap();
    assert_eq!(within(target.call::<String>("where", ())).await.unwrap(), "alone");
}

#[tokio::test]
async fn labels_have_limits() {
    for (key, value) in
        [("", "a"), ("a b", "c"), ("a=b", "c"), (&"k".repeat(257)[..], "v"), ("k", &"v".repeat(257)[..])]
    {
        let error = in_process("limits").0.label(key, value).start().await.unwrap_err();
        assert!(matches!(error, StartError::Label { .. }), "{error}");
    }
    let many = |count: usize, size: usize| {
        (0..count).fold(in_process("limits").0, |builder, number| builder.label(format!("k{number}"), "v".repeat(size)))
    };
    let error = many(MAX_LABELS + 1, 1).start().await.unwrap_err();
    assert!(matches!(error, StartError::Labels { count: 65, .. }), "{error}");
    let error = many(40, 256).start().await.unwrap_err();
    assert!(matches!(error, StartError::Labels { .. }), "{error}");
    assert!(error.to_string().contains("40 labels"), "{error}");
    let node = many(MAX_LABELS, 100).start().await.unwrap();
    node.register("place", place("limits", Value::Null)).unwrap();
}
