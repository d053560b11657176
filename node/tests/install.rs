//! What others may have a node host: only what it offers to make, within bounds.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "common/in_process.rs"]
mod in_process;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
        mpsc,
    },
    time::Duration,
};

use futures::future::join_all;
use multinodes::{Actions, AppError, Builder, CallError, FactoryError, Node, Payload, RegisterError, StartError, json};
use serde::Deserialize;
use serde_json::Value;

use in_process::{LIMIT, hosts, in_process, within};

#[derive(Deserialize)]
struct Multiplication {
    factor: i64,
}

/// Offers to make applications that multiply. A factor of 0 is refused, one below 0 is a bug.
fn offering(builder: Builder) -> Builder {
    builder.installable("multiplier", |Multiplication { factor }: Multiplication| {
        assert!(factor >= 0, "on purpose");
        if factor == 0 {
            return Err(AppError::new("no_factor", "what is multiplied by 0 is lost"));
        }
        Ok(Actions::new()
            .description(json!({ "factor": factor }))
            .action("run", move |number: i64| async move { factor * number }))
    })
}

/// Node `alpha`, which offers nothing, and `beta`, which offers a factory. They know each other.
async fn pair() -> (Node, Node) {
    let (alpha, address) = in_process("alpha");
    let alpha = alpha.start().await.unwrap();
    let beta = newcomer("beta", &address).await;
    within(alpha.wait_for_node("beta")).await.unwrap();
    within(beta.wait_for_node("alpha")).await.unwrap();
    (alpha, beta)
}

/// A node that offers a factory.
async fn newcomer(name: &str, address: &str) -> Node {
    offering(in_process(name).0).join(address).start().await.unwrap()
}

/// The error's own text, and its code if the application has one.
fn told(error: &CallError) -> (&str, &str) {
    match error {
        CallError::Failed { code, message, .. } => (code, message),
        CallError::BadArguments { reason, .. } => ("bad_arguments", reason),
        error => panic!("{error:?}"),
    }
}

/// Where an application of that name is hosted, as `node` knows it.
fn places(node: &Node, application: &str) -> Vec<String> {
    node.hosts(application).iter().map(|host| host.node.clone()).collect()
}

#[tokio::test]
async fn what_one_node_offers_another_installs_and_everybody_calls() {
    let (alpha, beta) = pair().await;
    let tripler = alpha.install_from("multiplier", "tripler", json!({"factor": 3}));
    let offers: Vec<_> = tripler.offers().iter().map(|host| host.node.clone()).collect();
    assert_eq!(offers, ["beta"]);
    within(tripler.on("beta")).await.unwrap();
    assert_eq!(places(&beta, "tripler"), ["beta"]);
    let product: i64 = within(alpha.app("tripler").on("beta").call("run", 14)).await.unwrap();
    assert_eq!(product, 42);
    hosts(&alpha, "tripler", 1).await;
    assert_eq!(alpha.hosts("tripler")[0].description, json!({"factor": 3}));
    let product: i64 = within(alpha.call("tripler", "run", 5)).await.unwrap();
    assert_eq!(product, 15);
}

#[tokio::test]
async fn a_node_says_which_factories_it_offers() {
    let (alpha, beta) = pair().await;
    for node in [&alpha, &beta] {
        let names: Vec<String> = within(node.app("node").on("beta").call("installable", ())).await.unwrap();
        assert_eq!(names, ["multiplier"]);
        let none: Vec<String> = within(node.app("node").on("alpha").call("installable", ())).await.unwrap();
        assert!(none.is_empty(), "{none:?}");
        let said: Vec<_> = node.hosts("node").iter().map(|host| host.description.clone()).collect();
        assert_eq!(said, [Value::Null, json!({"installable": ["multiplier"]})]);
    }
}

#[tokio::test]
async fn a_node_that_offers_nothing_refuses() {
    let (alpha, beta) = pair().await;
    let error = within(beta.install_from("multiplier", "tripler", json!({"factor": 3})).on("alpha")).await.unwrap_err();
    assert_eq!(told(&error), ("no_such_factory", "this node offers no factories"));
    let error = within(alpha.install_from("unknown", "tripler", Value::Null).on("beta")).await.unwrap_err();
    assert_eq!(told(&error), ("no_such_factory", "no factory `unknown` is offered here, only `multiplier`"));
    assert!(places(&alpha, "tripler").is_empty() && places(&beta, "tripler").is_empty());
    assert!(within(alpha.install_from("unknown", "tripler", Value::Null).all()).await.is_empty());
}

#[tokio::test]
async fn a_node_installs_on_itself_as_on_any_other() {
    let (alpha, beta) = pair().await;
    within(beta.install_from("multiplier", "doubler", json!({"factor": 2})).on("beta")).await.unwrap();
    assert_eq!(within(beta.call::<i64>("doubler", "run", 4)).await.unwrap(), 8);
    hosts(&alpha, "doubler", 1).await;
}

#[tokio::test]
async fn on_all_nodes_means_those_that_offer_it() {
    let (alpha, address) = in_process("alpha");
    let alpha = offering(alpha).start().await.unwrap();
    let beta = newcomer("beta", &address).await;
    let gamma = in_process("gamma").0.join(&address).start().await.unwrap();
    hosts(&alpha, "node", 3).await;
    within(beta.install_from("multiplier", "busy", json!({"factor": 9})).on("beta")).await.unwrap();

    let installed = within(alpha.install_from("multiplier", "doubler", json!({"factor": 2})).all()).await;
    let outcomes: Vec<_> = installed.iter().map(|installed| (&installed.node[..], installed.result.is_ok())).collect();
    assert_eq!(outcomes, [("alpha", true), ("beta", true)]);
    assert_eq!(installed[1].peer_id, beta.peer_id());
    hosts(&gamma, "doubler", 2).await;

    let installed = within(alpha.install_from("multiplier", "busy", json!({"factor": 2})).all()).await;
    assert!(installed[0].result.is_ok(), "{installed:?}");
    assert_eq!(told(installed[1].result.as_ref().unwrap_err()).0, "name_taken");
}

#[tokio::test]
async fn newcomers_get_it_until_the_handle_is_dropped() {
    let (alpha, address) = in_process("alpha");
    let alpha = offering(alpha).start().await.unwrap();
    let _beta = newcomer("beta", &address).await;
    hosts(&alpha, "node", 2).await;
    let mut everywhere = alpha.install_from("multiplier", "doubler", json!({"factor": 2})).everywhere();
    let mut names = Vec::new();
    for _ in 0..2 {
        let installed = within(everywhere.next()).await.unwrap();
        assert!(installed.result.is_ok(), "{installed:?}");
        names.push(installed.node);
    }
    names.sort();
    assert_eq!(names, ["alpha", "beta"]);

    let gamma = newcomer("gamma", &address).await;
    let installed = within(everywhere.next()).await.unwrap();
    assert_eq!((&installed.node[..], installed.result.is_ok()), ("gamma", true));
    assert_eq!(installed.peer_id, gamma.peer_id());
    hosts(&alpha, "doubler", 3).await;

    drop(everywhere);
    let delta = newcomer("delta", &address).await;
    within(alpha.wait_for_node("delta")).await.unwrap();
    within(alpha.install_from("multiplier", "tripler", json!({"factor": 3})).on("delta")).await.unwrap();
    assert!(!places(&delta, "doubler").contains(&"delta".to_owned()));
    assert_eq!(places(&gamma, "doubler").iter().filter(|name| *name == "gamma").count(), 1);
}

#[tokio::test]
async fn a_node_that_refuses_is_told_once_and_the_others_get_it() {
    let (alpha, beta) = pair().await;
    beta.register("doubler", Actions::new()).unwrap();
    let mut everywhere = alpha.install_from("multiplier", "doubler", json!({"factor": 2})).everywhere();
    let installed = within(everywhere.next()).await.unwrap();
    assert_eq!((&installed.node[..], told(installed.result.as_ref().unwrap_err()).0), ("beta", "name_taken"));
    let _gamma = newcomer("gamma", &alpha.addresses()[0].to_string()).await;
    let installed = within(everywhere.next()).await.unwrap();
    assert_eq!((&installed.node[..], installed.result.is_ok()), ("gamma", true));
}

#[tokio::test]
async fn it_ends_when_the_node_has_stopped_or_nobody_holds_it() {
    for stops in [true, false] {
        let (alpha, beta) = pair().await;
        let mut everywhere = alpha.install_from("multiplier", "doubler", json!({"factor": 2})).everywhere();
        assert!(within(everywhere.next()).await.unwrap().result.is_ok());
        if stops {
            within(alpha.stop()).await;
        } else {
            drop(alpha);
        }
        assert!(within(everywhere.next()).await.is_none());
        assert_eq!(within(beta.call::<i64>("doubler", "run", 4)).await.unwrap(), 8);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_did_not_answer_in_time_is_asked_again() {
    let (alpha, address) = in_process("alpha");
    let alpha = alpha.start().await.unwrap();
    let (go_on, wait) = mpsc::channel::<()>();
    let (wait, made) = (Mutex::new(wait), Arc::new(AtomicUsize::new(0)));
    let counted = made.clone();
    let slow = in_process("slow").0.installable("slow", move |()| {
        counted.fetch_add(1, SeqCst);
        wait.lock().unwrap().recv_timeout(LIMIT / 3).map_err(AppError::of)?;
        Ok::<_, AppError>(Actions::new().action("run", |number: i64| async move { number }))
    });
    let slow = slow.join(&address).start().await.unwrap();
    hosts(&alpha, "node", 2).await;
    let installation = alpha.install_from("slow", "slow", Value::Null).timeout(Duration::from_millis(100));
    let error = within(installation.on("slow")).await.unwrap_err();
    assert!(matches!(error, CallError::TimedOut { .. }), "{error:?}");
    let mut everywhere = installation.everywhere();
    // By the end of this the first attempt of the other has most probably ended in vain, too.
    within(installation.on("slow")).await.unwrap_err();
    go_on.send(()).unwrap();
    let installed = within(everywhere.next()).await.unwrap();
    assert!(installed.result.is_ok(), "{installed:?}");
    assert_eq!(made.load(SeqCst), 1);
    assert_eq!(within(slow.call::<i64>("slow", "run", 1)).await.unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_application_is_made_once_however_often_it_is_asked_for() {
    let (alpha, address) = in_process("alpha");
    let alpha = alpha.start().await.unwrap();
    let made = Arc::new(AtomicUsize::new(0));
    let counted = made.clone();
    let beta = in_process("beta").0.installable("counted", move |_: Value| {
        counted.fetch_add(1, SeqCst);
        Ok::<_, AppError>(Actions::new())
    });
    let _beta = beta.join(&address).start().await.unwrap();
    within(alpha.wait_for_node("beta")).await.unwrap();
    let installation = alpha.install_from("counted", "counted", json!({"one": 1, "two": [2.5, null]}));
    for result in within(join_all((0..50).map(|_| installation.on("beta")))).await {
        result.unwrap();
    }
    assert_eq!(made.load(SeqCst), 1);
}

#[tokio::test]
async fn a_name_that_is_taken_is_refused() {
    let (alpha, beta) = pair().await;
    beta.register("own", Actions::new().action("run", |number: i64| async move { number })).unwrap();
    within(alpha.install_from("multiplier", "doubler", json!({"factor": 2})).on("beta")).await.unwrap();
    for (name, factor) in [("own", 2), ("node", 2), ("doubler", 3)] {
        let error = within(alpha.install_from("multiplier", name, json!({"factor": factor})).on("beta")).await;
        let error = error.unwrap_err();
        let (code, text) = told(&error);
        assert_eq!(code, "name_taken");
        assert!(text.contains(&format!("`{name}`")), "{text}");
    }
    let product: i64 = within(alpha.app("doubler").on("beta").call("run", 4)).await.unwrap();
    assert_eq!(product, 8);
    let same: i64 = within(alpha.app("own").on("beta").call("run", 4)).await.unwrap();
    assert_eq!(same, 4);
    // The other way round it is the same.
    let error = beta.register("doubler", Actions::new()).unwrap_err();
    assert_eq!(error, RegisterError::Taken { name: "doubler".into() });
}

#[tokio::test]
async fn only_what_was_installed_is_uninstalled() {
    let (alpha, beta) = pair().await;
    let uninstall = |name: &'static str| {
        let target = alpha.app("node").on("beta");
        async move { within(target.call::<()>("uninstall", name)).await }
    };
    let doubler = alpha.install_from("multiplier", "doubler", json!({"factor": 2}));
    within(doubler.on("beta")).await.unwrap();
    hosts(&alpha, "doubler", 1).await;
    uninstall("doubler").await.unwrap();
    hosts(&alpha, "doubler", 0).await;

    beta.register("own", Actions::new()).unwrap();
    for name in ["doubler", "own", "node", "unknown"] {
        let error = uninstall(name).await.unwrap_err();
        let text = format!("no application `{name}` was installed here by others");
        assert_eq!(told(&error), ("not_installed", &text[..]));
    }
    assert_eq!(places(&beta, "own"), ["beta"]);

    // What the owner takes away and registers is the owner's.
    within(doubler.on("beta")).await.unwrap();
    beta.unregister("doubler").unwrap();
    beta.register("doubler", Actions::new()).unwrap();
    uninstall("doubler").await.unwrap_err();
    assert_eq!(places(&beta, "doubler"), ["beta"]);
}

#[tokio::test]
async fn a_configuration_that_the_factory_does_not_take_is_refused() {
    let (alpha, beta) = pair().await;
    for config in [json!(null), json!({}), json!({"factor": "two"}), json!([1, 2, 3]), json!({"factor": 1e300})] {
        let error = within(alpha.install_from("multiplier", "bad", config.clone()).on("beta")).await.unwrap_err();
        let (code, text) = told(&error);
        assert!(code == "bad_arguments" && text.starts_with("`multiplier`: "), "{config}: {text}");
        assert!(!error.may_have_run());
    }
    let error = within(alpha.install_from("multiplier", "bad", json!({"factor": 0})).on("beta")).await.unwrap_err();
    assert_eq!(told(&error), ("no_factor", "what is multiplied by 0 is lost"));
    let error = within(alpha.install_from("multiplier", "bad", json!({"factor": -1})).on("beta")).await.unwrap_err();
    assert!(matches!(&error, CallError::Panicked { reason, .. } if reason == "panicked: on purpose"), "{error:?}");
    assert!(places(&beta, "bad").is_empty());
    within(alpha.install_from("multiplier", "bad", json!({"factor": 1})).on("beta")).await.unwrap();
}

#[tokio::test]
async fn what_others_can_have_a_node_host_is_bounded() {
    let (alpha, beta) = pair().await;
    let install = |name: String| {
        let installation = alpha.install_from("multiplier", name, json!({"factor": 1}));
        async move { within(installation.on("beta")).await }
    };
    beta.register("own", Actions::new()).unwrap();
    for number in 0..64 {
        install(format!("app-{number}")).await.unwrap();
    }
    let error = install("one-more".into()).await.unwrap_err();
    assert_eq!(told(&error), ("too_many_installed", "64 applications are installed here, which is the limit"));
    install("app-7".into()).await.unwrap();
    beta.register("own-too", Actions::new()).unwrap();
    within(alpha.app("node").on("beta").call::<()>("uninstall", "app-7")).await.unwrap();
    install("one-more".into()).await.unwrap();
}

#[tokio::test]
async fn hostile_orders_are_refused_with_short_errors() {
    let (alpha, beta) = pair().await;
    let before = beta.description();
    for name in [String::new(), "x".repeat(257), "new\nline".into(), "\0".into()] {
        let error = within(alpha.install_from("multiplier", name, json!({"factor": 1})).on("beta")).await.unwrap_err();
        assert!(told(&error).1.contains("cannot name an application"), "{error}");
    }
    let long = "x".repeat(1_000_000);
    let mut deep = json!({"factor": 1});
    for _ in 0..100 {
        deep = json!([deep]);
    }
    for (factory, name, config) in [
        (&long[..], "name", json!({"factor": 1})),
        ("multiplier", &long[..], json!({"factor": 1})),
        ("multiplier", "name", json!({"factor": 1, "more": "x".repeat(64 * 1024)})),
        ("multiplier", "name", deep),
    ] {
        let error = within(alpha.install_from(factory, name, config).on("beta")).await.unwrap_err();
        assert!(error.to_string().len() < 400, "{error}");
    }
    let node = alpha.app("node").on("beta");
    for order in [json!([]), json!(["multiplier"]), json!(["multiplier", "name"]), json!([1, 2, 3]), json!({"a": 1})] {
        for action in ["install", "uninstall"] {
            let order = Payload::encode(&order).unwrap();
            within(node.call_raw(action, order)).await.unwrap_err();
        }
    }
    for bytes in [&b""[..], b"\xff", b"\x83", b"\x9f\x9f\x9f", b"\x9b\xff\xff\xff\xff\xff\xff\xff\xff", &[0x81; 300]] {
        for action in ["install", "uninstall", "installable"] {
            let error = within(node.call_raw(action, Payload::from_bytes(bytes.to_vec()))).await.unwrap_err();
            assert!(matches!(error, CallError::BadArguments { .. }), "{error:?}");
        }
    }
    within(node.call::<()>("uninstall", &long)).await.unwrap_err();
    assert_eq!(beta.description().applications, before.applications);
    within(alpha.install_from("multiplier", "name", json!({"factor": 1})).on("beta")).await.unwrap();
}

#[tokio::test]
async fn a_record_that_would_become_too_large_is_refused() {
    let (alpha, address) = in_process("alpha");
    let alpha = alpha.start().await.unwrap();
    let beta = in_process("beta")
        .0
        .installable("wordy", |size: usize| Ok::<_, AppError>(Actions::new().description(json!("x".repeat(size)))));
    let beta = beta.join(&address).start().await.unwrap();
    within(alpha.wait_for_node("beta")).await.unwrap();
    let error = within(alpha.install_from("wordy", "wordy", json!(100_000)).on("beta")).await.unwrap_err();
    let (code, text) = told(&error);
    assert!(code == "not_registered" && text.contains("cannot be announced"), "{error}");
    assert!(places(&beta, "wordy").is_empty());
}

#[tokio::test]
async fn factories_that_cannot_be_offered_are_named_at_the_start() {
    let refused = |builder: Builder| async move {
        match builder.start().await.unwrap_err() {
            StartError::Factory(error) => error,
            error => panic!("{error:?}"),
        }
    };
    let node = || in_process("alpha").0;
    let empty = node().installable("", |()| Ok::<_, AppError>(Actions::new()));
    assert_eq!(refused(empty).await, FactoryError::Name { name: String::new() });
    assert_eq!(refused(offering(offering(node()))).await, FactoryError::Twice { name: "multiplier".into() });
    let many = (0..65).fold(node(), |builder, number| {
        builder.installable(format!("factory-{number}"), |()| Ok::<_, AppError>(Actions::new()))
    });
    assert_eq!(refused(many).await, FactoryError::TooMany { given: 65 });
    assert_eq!(refused(offering(node().passive(true))).await, FactoryError::Passive);
}

#[tokio::test]
async fn a_passive_node_installs_on_others() {
    let (alpha, address) = in_process("alpha");
    let alpha = offering(alpha).start().await.unwrap();
    let passive = in_process("looker").0.passive(true).join(&address).start().await.unwrap();
    within(passive.wait_for_node("alpha")).await.unwrap();
    let installed = within(passive.install_from("multiplier", "doubler", json!({"factor": 2})).all()).await;
    assert!(installed.len() == 1 && installed[0].result.is_ok(), "{installed:?}");
    assert_eq!(places(&alpha, "doubler"), ["alpha"]);
}
