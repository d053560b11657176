//! Which one of several hosts gets a message.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "common/in_process.rs"]
mod in_process;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use in_process::{hosts, in_process, within};
use multinodes::{Actions, AppRef, CallError, Considered, Node, Rule, Strategy, Verdict};
use tokio::sync::Semaphore;

/// An application that says where it is.
fn here(name: &str) -> Actions {
    let name = name.to_owned();
    Actions::new().action("where", move |()| {
        let name = name.clone();
        async move { name }
    })
}

/// A caller that hosts nothing, and so many nodes that host `test`.
async fn caller_and_hosts(count: usize) -> (Node, Vec<Node>) {
    let (caller, address) = in_process("caller");
    let caller = caller.start().await.unwrap();
    let mut nodes = Vec::new();
    for number in 0..count {
        let name = format!("host{number}");
        let node = in_process(&name).0.join(&address).start().await.unwrap();
        node.register("test", here(&name)).unwrap();
        nodes.push(node);
    }
    hosts(&caller, "test", count).await;
    (caller, nodes)
}

async fn places(target: &AppRef, calls: usize) -> BTreeMap<String, usize> {
    let mut places = BTreeMap::new();
    for _ in 0..calls {
        *places.entry(within(target.call("where", ())).await.unwrap()).or_default() += 1;
    }
    places
}

#[tokio::test]
async fn hosts_get_their_turns_and_a_default_holds_for_all_targets_of_the_node() {
    let (caller, _nodes) = caller_and_hosts(3).await;
    let even = BTreeMap::from([("host0", 4), ("host1", 4), ("host2", 4)].map(|(name, count)| (name.to_owned(), count)));
    assert_eq!(places(&caller.app("test").strategy(Strategy::RoundRobin), 12).await, even);
    caller.prefer("test", Strategy::RoundRobin);
    let mut places = BTreeMap::new();
    for _ in 0..12 {
        *places.entry(within(caller.call::<String>("test", "where", ())).await.unwrap()).or_default() += 1;
    }
    assert_eq!(places, even);
    let random = self::places(&caller.app("test").strategy(Strategy::Random), 60).await;
    assert_eq!(random.len(), 3, "{random:?}");
}

#[tokio::test]
async fn a_key_goes_to_one_host_whoever_calls() {
    let (caller, nodes) = caller_and_hosts(3).await;
    for node in &nodes {
        hosts(node, "test", 3).await;
    }
    let mut taken = BTreeSet::new();
    for key in 0..20_u8 {
        let target = |node: &Node| node.app("test").strategy(Strategy::sticky([key]));
        let place = places(&target(&caller), 3).await;
        assert_eq!(place.len(), 1, "{place:?}");
        for node in &nodes {
            let same = places(&target(node), 1).await;
            assert_eq!(same.keys().next(), place.keys().next(), "{key} from {}", node.name());
        }
        taken.extend(place.into_keys());
    }
    assert_eq!(taken.len(), 3, "{taken:?}");
}

#[tokio::test]
async fn what_a_host_says_of_one_action_moves_no_key_of_another() {
    let (caller, nodes) = caller_and_hosts(3).await;
    for node in &nodes {
        let guarded = here(node.name()).action("guarded", |()| async { 0_u8 }).allow(Rule::of(|_| false));
        node.register("guarded", guarded).unwrap();
    }
    hosts(&caller, "guarded", 3).await;
    for key in 0..20_u8 {
        let target = caller.app("guarded").strategy(Strategy::sticky([key]));
        let place = places(&target, 1).await;
        for (action, arguments, code) in [
            ("guarded", None, "forbidden"),
            ("unheard-of", None, "no_such_action"),
            ("where", Some(7), "bad_arguments"),
        ] {
            let error = within(target.call::<u8>(action, arguments)).await.unwrap_err();
            assert_eq!(error.code(), code, "{error:?}");
            assert_eq!(places(&target, 1).await, place, "after {error:?}");
        }
    }
}

#[tokio::test]
async fn the_nodes_own_application_is_taken_unless_another_one_is_asked_for() {
    let (_caller, nodes) = caller_and_hosts(2).await;
    hosts(&nodes[0], "test", 2).await;
    for strategy in [Strategy::Random, Strategy::RoundRobin, Strategy::LeastLoaded, Strategy::Nearest] {
        let target = nodes[0].app("test").strategy(strategy.clone());
        assert_eq!(places(&target, 4).await.into_keys().collect::<Vec<_>>(), ["host0"], "{strategy:?}");
        let target = target.remote();
        assert_eq!(target.hosts().len(), 1);
        assert_eq!(places(&target, 4).await.into_keys().collect::<Vec<_>>(), ["host1"], "{strategy:?}");
    }
}

#[tokio::test]
async fn versions_live_side_by_side_on_several_nodes() {
    let (caller, address) = in_process("caller");
    let caller = caller.start().await.unwrap();
    let mut nodes = Vec::new();
    for (name, version) in [("old", Some("1.2.3")), ("new", Some("2.0.0")), ("odd", Some("next")), ("none", None)] {
        let node = in_process(name).0.join(&address).start().await.unwrap();
        let application = match version {
            Some(version) => here(name).version(version),
            None => here(name),
        };
        node.register("test", application).unwrap();
        nodes.push(node);
    }
    hosts(&caller, "test", 4).await;
    for (wanted, place) in [("^1.2", "old"), (">=2, <3", "new")] {
        let target = caller.app("test").version(wanted).unwrap();
        assert_eq!(places(&target, 3).await.into_keys().collect::<Vec<_>>(), [place]);
        assert_eq!(target.hosts().len(), 1);
    }
    let nobody = caller.app("test").version("^3").unwrap();
    let error = within(nobody.call::<String>("where", ())).await.unwrap_err();
    assert!(matches!(error, CallError::NoMatch { hosts: 4, .. }), "{error:?}");
    // What is hosted here is no exception.
    let target = nodes[0].app("test").version("^2").unwrap();
    hosts(&nodes[0], "test", 4).await;
    assert_eq!(places(&target, 1).await.into_keys().collect::<Vec<_>>(), ["new"]);
    let error = caller.app("test").version("newest").unwrap_err();
    assert!(error.to_string().starts_with("`newest` is no condition on versions"), "{error}");
}

#[tokio::test]
async fn a_users_own_choice_is_kept() {
    let (caller, _nodes) = caller_and_hosts(3).await;
    let last = Strategy::custom(|candidates| {
        candidates.iter().filter(|candidate| !candidate.is_full()).max_by_key(|candidate| &candidate.host.node)
    });
    assert_eq!(places(&caller.app("test").strategy(last), 4).await.into_keys().collect::<Vec<_>>(), ["host2"]);
    let nobody = caller.app("test").strategy(Strategy::custom(|_| None));
    let error = within(nobody.call::<String>("where", ())).await.unwrap_err();
    assert!(matches!(error, CallError::NoMatch { hosts: 3, .. }), "{error:?}");
}

#[tokio::test]
async fn a_busy_host_is_set_aside_for_a_moment_and_comes_back_by_itself() {
    let (caller, nodes) = caller_and_hosts(2).await;
    let (begun, gate) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let (begins, waits) = (begun.clone(), gate.clone());
    let full = here("host0").concurrency(1).queue(0).action("wait", move |()| {
        let gate = waits.clone();
        begins.add_permits(1);
        async move { gate.acquire().await.map(|permit| permit.forget()).is_ok() }
    });
    nodes[0].unregister("test").unwrap();
    hosts(&caller, "test", 1).await;
    nodes[0].register("test", full).unwrap();
    hosts(&caller, "test", 2).await;
    let long = tokio::spawn({
        let caller = caller.clone();
        async move { caller.app("test").on("host0").call::<bool>("wait", ()).await }
    });
    within(begun.acquire()).await.unwrap().forget();
    let turns = caller.app("test").strategy(Strategy::RoundRobin);
    // Whoever meets it first is sent on to the other host, and nobody else is sent there for now.
    assert_eq!(places(&turns, 6).await.into_keys().collect::<Vec<_>>(), ["host1"]);
    let (verdict, reason) = explained(&turns, "host0");
    let busy = "`test` on node `host0` is busy: `test` has all the calls it takes";
    // On a slow machine the moment is over.
    let aside = verdict == Verdict::Aside && reason.starts_with("set aside for ");
    assert!((aside || verdict == Verdict::Possible) && reason.ends_with(busy), "{verdict:?}: {reason}");
    gate.add_permits(1);
    assert!(within(long).await.unwrap().unwrap());
    within(async { while places(&turns, 2).await.len() < 2 {} }).await;
    let last_error = |host: &Considered| host.last_error.clone();
    assert!(turns.explain().iter().all(|host| last_error(host).is_none()), "it has answered: {:?}", turns.explain());
}

fn explained(target: &AppRef, node: &str) -> (Verdict, String) {
    let considered = target.explain().into_iter().find(|host| host.node == node).unwrap();
    (considered.verdict, considered.reason)
}

#[tokio::test]
async fn all_that_speaks_for_or_against_a_host_is_said() {
    let (caller, nodes) = caller_and_hosts(2).await;
    hosts(&nodes[0], "test", 2).await;
    nodes[0].unregister("test").unwrap();
    nodes[0].register("test", here("host0").version("1.0.0")).unwrap();
    let mut changes = caller.events();
    within(async {
        while caller.hosts("test").iter().filter(|host| host.version.is_some()).count() != 1 {
            changes.next().await.unwrap();
        }
    })
    .await;
    let app = || caller.app("test");
    let says = |target: AppRef, node: &str, verdict: Verdict, reason: &str| {
        assert_eq!(explained(&target, node), (verdict, reason.to_owned()));
    };
    let (taken, possible, passed_over) = (Verdict::Taken, Verdict::Possible, Verdict::PassedOver);
    let first = Strategy::custom(|candidates| candidates.iter().min_by_key(|candidate| &candidate.host.node));
    says(app().strategy(first.clone()), "host0", taken, "by the user's own strategy");
    says(app().strategy(first), "host1", possible, "another one is taken");
    says(app().strategy(Strategy::custom(|_| None)), "host0", possible, "the strategy takes nobody");
    says(app().on("host1"), "host1", taken, "it is asked for");
    says(app().on("host1"), "host0", passed_over, "another node is asked for");
    says(app().version("^1").unwrap(), "host0", taken, "by `LeastLoaded`");
    says(app().version("^1").unwrap(), "host1", passed_over, "it has no version, `^1` is wanted");
    says(app().version("^2").unwrap(), "host0", passed_over, "version `1.0.0` does not match `^2`");
    #[cfg(feature = "cel")]
    {
        let labelled = app().matching("true").unwrap().matching("'x' in node.labels").unwrap();
        says(labelled, "host1", passed_over, "the predicate is false: `'x' in node.labels`");
    }
    says(app().filter(|host| host.node == "host1"), "host0", passed_over, "the filter is false");
    let here = || nodes[0].app("test");
    says(here(), "host0", taken, "it is here");
    says(here(), "host1", possible, "another one is taken");
    says(here().remote(), "host0", passed_over, "only other nodes are asked for");
}
