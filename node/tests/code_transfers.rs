//! How code comes to where it runs: from whom, how much of it, and what is left when it does not come.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "common/attacker.rs"]
mod attacker;
mod code;
#[path = "common/code_nodes.rs"]
mod code_nodes;
#[path = "common/in_process.rs"]
mod in_process;
#[path = "common/source.rs"]
mod source;

use std::{fs, path::Path, time::Duration};

use attacker::Target;
use code::{guest, within};
use code_nodes::{
    SERVICE, ballast, compiling, failed, file, joined, knowing_alpha, large, lie, raw, rule, run_arguments, serves, two,
};
use in_process::hosts;
use multinodes::{Cid, Code, Node};
use serde_bytes::ByteBuf;
use source::Source;

#[tokio::test]
async fn a_transfer_that_is_cut_goes_on_from_another_holder() {
    let large = large();
    let data = tempfile::tempdir().unwrap();
    let (alphas, betas, gammas) = (data.path().join("a"), data.path().join("b"), data.path().join("c"));
    // Beta has the first megabyte and a half only.
    fs::write(file(&betas, large.cid(), "wasm"), &large.bytes()[..3 << 19]).unwrap();
    fs::write(file(&gammas, large.cid(), "wasm"), large.bytes()).unwrap();
    let (builder, address) = compiling("alpha");
    let alpha = builder.allow_code(rule("any:size=8MiB")).data_folder(&alphas).start().await.unwrap();
    let holder = |name: &str, folder: &Path| {
        knowing_alpha(compiling(name).0.allow_code(rule("any")).data_folder(folder).join(&address))
    };
    let beta = holder("beta", &betas).await;
    let (code, text) = failed(raw::<ByteBuf>(&beta, large.reference(), None).await);
    assert!(code == "no_code", "{code}: {text}");
    let partial = file(&alphas, large.cid(), "partial");
    assert_eq!(fs::metadata(&partial).unwrap().len(), 1 << 20, "what has come is kept");
    let gamma = holder("gamma", &gammas).await;
    hosts(&alpha, "node", 3).await;
    let back: ByteBuf = raw(&beta, large.reference(), None).await.unwrap();
    assert_eq!(back.as_ref(), [0x80]);
    assert!(!partial.exists());
    assert!(fs::read(file(&alphas, large.cid(), "wasm")).unwrap() == *large.bytes());
    // Beta's half of a piece came twice, for nothing.
    assert_eq!(alpha.counters().code_bytes, large.size() + 2 * (1 << 19));
    serves(&gamma).await;
}

#[tokio::test]
async fn wrong_bytes_from_before_do_not_spoil_an_honest_transfer() {
    let large = large();
    let data = tempfile::tempdir().unwrap();
    let (builder, address) = compiling("alpha");
    let _alpha = builder.allow_code(rule("any:size=8MiB")).data_folder(data.path()).start().await.unwrap();
    let beta = joined("beta", &address).await;
    let partial = file(data.path(), large.cid(), "partial");
    fs::write(&partial, vec![0xee; 1 << 20]).unwrap();
    let back: Vec<i64> = within(beta.run(&large).on("alpha").timeout(code::LIMIT).call((5,))).await.unwrap();
    assert_eq!(back, [5]);
    assert!(!partial.exists());
}

#[tokio::test]
async fn names_of_code_that_were_made_up_leave_nothing_behind() {
    let data = tempfile::tempdir().unwrap();
    let (builder, address) = compiling("alpha");
    let _alpha = builder.allow_code(rule("any")).data_folder(data.path()).start().await.unwrap();
    let senders = [joined("beta", &address).await, joined("gamma", &address).await, joined("delta", &address).await];
    let floods = senders.iter().enumerate().map(|(sender, node)| async move {
        for number in 0..40 {
            let junk = format!("{sender} {number}").into_bytes();
            let reference = lie(&guest("echo"), "cid", Cid::of(&junk));
            assert_eq!(failed(raw::<ByteBuf>(node, &reference, None).await).0, "no_code");
            assert_eq!(failed(raw::<ByteBuf>(node, &reference, Some(&junk)).await).0, "bad_code");
        }
    });
    futures::future::join_all(floods).await;
    let left = fs::read_dir(data.path().join("code")).unwrap().filter(|entry| entry.as_ref().unwrap().path().is_file());
    assert_eq!(left.count(), 0);
    serves(&senders[0]).await;
}

#[tokio::test]
async fn pieces_of_code_are_bounded_and_its_hash_is_enough_once_it_is_there() {
    let (_alpha, beta) = two(&["any:size=8MiB"]).await;
    let large = large();
    let back: Vec<i64> = within(beta.run(&large).on("alpha").timeout(code::LIMIT).call((5,))).await.unwrap();
    assert_eq!(back, [5]);
    let fetch = |offset: u64, length: u64| {
        let beta = beta.clone();
        let cid = large.cid();
        async move { within(beta.app(SERVICE).on("alpha").call::<ByteBuf>("fetch", (cid, offset, length))).await.unwrap() }
    };
    assert_eq!(fetch(0, u64::MAX).await.len(), 1 << 20);
    assert_eq!(fetch(u64::MAX, u64::MAX).await.len(), 0);
    assert_eq!(fetch(5, 3).await.as_ref(), &large.bytes()[5..8]);
    assert_eq!(fetch(large.size() - 2, 3).await.len(), 2);
    // The hash is enough from then on, whoever names it: nothing is sent again.
    let again = raw::<ByteBuf>(&beta, large.reference(), None).await.unwrap();
    assert_eq!(again.as_ref(), [0x80]);
    serves(&beta).await;
}

/// Alpha, which takes code and also listens where peers can come that are no nodes; gamma, which has this code; and such a
/// peer, which gives of it what it likes, and names it to alpha.
async fn besides_a_source(
    code: &Code,
    folder: &Path,
    give: impl Fn(usize, usize) -> Option<Vec<u8>> + Send + Sync + 'static,
) -> (Node, Node, Source) {
    let (builder, address) = compiling("alpha");
    let builder = builder.listen("/ip4/127.0.0.1/tcp/0").mdns(false).rendezvous(false);
    let alpha = builder.allow_code(rule("any:size=8MiB")).data_folder(folder.join("a")).start().await.unwrap();
    fs::write(file(&folder.join("g"), code.cid(), "wasm"), code.bytes()).unwrap();
    let gamma = compiling("gamma").0.allow_code(rule("any")).data_folder(folder.join("g")).join(&address);
    let gamma = knowing_alpha(gamma).await;
    hosts(&alpha, "node", 2).await;
    let address = alpha.addresses().into_iter().find(|address| address.to_string().contains("/tcp/")).unwrap();
    let target = Target { swarm: "default".parse().unwrap(), peer_id: alpha.peer_id(), address };
    let source = within(Source::connect(&target, give)).await;
    (alpha, gamma, source)
}

#[tokio::test]
async fn a_source_that_falls_silent_in_the_middle_holds_up_its_transfer_for_half_of_its_time() {
    let (large, folder) = (large(), tempfile::tempdir().unwrap());
    let bytes = large.bytes().clone();
    let give = move |offset, length| (offset == 0).then(|| bytes[..length].to_vec());
    let (alpha, gamma, source) = besides_a_source(&large, folder.path(), give).await;
    let arguments = run_arguments(large.reference(), None);
    let back = within(source.call::<ByteBuf>(SERVICE, "run", &arguments, Duration::from_secs(12))).await.unwrap();
    assert_eq!(back.as_ref(), [0x80]);
    assert_eq!(source.asked(), [0, 1 << 20], "the second piece never came from there");
    let counters = alpha.counters();
    assert_eq!(
        (counters.code_fetches, counters.code_bytes),
        (1, large.size()),
        "the rest came from elsewhere, and only that"
    );
    let pong: u64 = within(source.call("node", "ping", &[(); 0], code::LIMIT)).await.unwrap();
    assert!(pong > 0, "the connection was there all the time");
    serves(&gamma).await;
}

#[tokio::test]
async fn other_bytes_than_were_asked_for_are_fetched_again_from_an_honest_holder() {
    let (large, folder) = (large(), tempfile::tempdir().unwrap());
    let (alpha, gamma, source) = besides_a_source(&large, folder.path(), |_, length| Some(vec![0xee; length])).await;
    let arguments = run_arguments(large.reference(), None);
    let back = within(source.call::<ByteBuf>(SERVICE, "run", &arguments, code::LIMIT)).await.unwrap();
    assert_eq!(back.as_ref(), [0x80]);
    assert_eq!(source.asked().len(), 4, "it is not asked again");
    assert_eq!(alpha.counters().code_bytes, 2 * large.size());
    assert!(fs::read(file(&folder.path().join("a"), large.cid(), "wasm")).unwrap() == *large.bytes());
    serves(&gamma).await;
}

#[tokio::test]
async fn a_source_that_hangs_up_in_the_middle_leaves_what_it_gave_to_the_next() {
    let (large, folder) = (large(), tempfile::tempdir().unwrap());
    let bytes = large.bytes().clone();
    let (came, mut second) = tokio::sync::mpsc::unbounded_channel();
    let give = move |offset: usize, length: usize| {
        if offset > 0 {
            came.send(()).unwrap();
        }
        (offset == 0).then(|| bytes[..length].to_vec())
    };
    let (alpha, gamma, source) = besides_a_source(&large, folder.path(), give).await;
    let arguments = run_arguments(large.reference(), None);
    tokio::select! {
        outcome = source.call::<ByteBuf>(SERVICE, "run", &arguments, code::LIMIT) => panic!("{outcome:?}"),
        _ = within(second.recv()) => drop(source),
    }
    let partial = file(&folder.path().join("a"), large.cid(), "partial");
    assert_eq!(fs::metadata(&partial).unwrap().len(), 1 << 20, "what has come is kept");
    within(async {
        // Alpha may not know yet that nobody waits for the first.
        while raw_by(&gamma, &large).await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(alpha.counters().code_bytes, large.size(), "no byte came twice");
    serves(&gamma).await;
}

async fn raw_by(node: &Node, code: &Code) -> Result<ByteBuf, multinodes::CallError> {
    raw(node, code.reference(), None).await
}

#[tokio::test]
async fn code_is_sent_once_however_often_it_is_run() {
    let (alpha, beta) = two(&["any:size=8MiB"]).await;
    let (small, large) = (guest("echo"), large());
    let cost = || (alpha.counters().code_fetches, alpha.counters().code_bytes);
    for (code, cost_then) in [(&small, (0, small.size())), (&large, (1, small.size() + large.size()))] {
        for number in 0..3 {
            let run = beta.run(code).on("alpha").timeout(code::LIMIT);
            assert_eq!(within(run.call::<Vec<i64>>((number,))).await.unwrap(), [number]);
            assert_eq!(cost(), cost_then);
        }
    }
}

#[tokio::test]
async fn a_map_over_an_installed_application_ships_its_code_once_to_each_node() {
    const ITEMS: usize = 500;
    let (builder, address) = compiling("alpha");
    let alpha = builder.allow_code(rule("any:size=8MiB")).start().await.unwrap();
    let bravo = knowing_alpha(compiling("bravo").0.allow_code(rule("any:size=8MiB")).join(&address)).await;
    let beta = joined("beta", &address).await;
    within(beta.wait_for_node("bravo")).await.unwrap();
    let code = ballast(include_str!("guests/counter.wat"));
    let installed = within(beta.install("counter", &code).timeout(code::LIMIT).all()).await;
    assert!(installed.len() == 2 && installed.iter().all(|installed| installed.result.is_ok()), "{installed:?}");
    hosts(&beta, "counter", 2).await;
    let map = beta.app("counter").map_iter::<u8>("count", vec![(); ITEMS]);
    let outcomes: Vec<_> = within(futures::StreamExt::collect(map)).await;
    let nodes: Vec<_> = outcomes.into_iter().map(|outcome| outcome.unwrap()).collect();
    assert!(nodes.len() == ITEMS && nodes.iter().all(|outcome| outcome.result.is_ok()));
    for node in [&alpha, &bravo] {
        assert!(
            nodes.iter().any(|outcome| outcome.node.as_deref() == Some(node.name())),
            "{} did nothing",
            node.name()
        );
        let counters = node.counters();
        assert_eq!((counters.code_fetches, counters.code_bytes), (1, code.size()), "{}", node.name());
    }
}
