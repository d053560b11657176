//! What a rule for code gives, to whom, and for how long: others take nothing away by another door, what was proven once
//! counts as long as the proof does, and what a rule no longer gives is taken back.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod code;
#[path = "common/code_nodes.rs"]
mod code_nodes;
#[path = "common/in_process.rs"]
mod in_process;

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use code::{bomb, guest, within};
use code_nodes::{asking, compiling, failed, knowing_alpha, lie, raw, rule};
use in_process::in_process;
use multinodes::{
    Actions, Builder, Code, Context, Keypair, Node, PeerId,
    code::{Store, StoreError},
};
use serde_bytes::ByteBuf;

/// A node that compiles in a child, and takes code by these rules.
fn taking(name: &str, rules: &[&str]) -> (Builder, String) {
    let (builder, address) = compiling(name);
    (rules.iter().fold(builder, |builder, text| builder.allow_code(rule(text))), address)
}

fn key() -> (Keypair, PeerId) {
    let key = Keypair::generate_ed25519();
    let peer_id = key.public().to_peer_id();
    (key, peer_id)
}

async fn stop(node: Node) {
    within(node.stop()).await;
}

/// Waits until a node hosts an application itself, or does no longer.
async fn hosted(node: &Node, application: &str, is_there: bool) {
    within(async {
        while node.hosts(application).iter().any(|host| host.local) != is_there {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// Says who asks, as far as it can see.
fn oracle() -> Actions {
    Actions::new().action_with("ask", |context: Context, ()| async move { context.caller().to_base58() })
}

/// Echo, with so many bytes that it does not need.
fn padded(bytes: usize) -> Code {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/guests/echo.wat")).unwrap();
    let ballast = format!(r#"(memory (export "memory") 64) (data (i32.const 65536) "{}")"#, "x".repeat(bytes));
    Code::from_bytes(text.replace(r#"(memory (export "memory") 1)"#, &ballast)).unwrap()
}

#[tokio::test]
async fn whoever_may_not_install_takes_no_guest_away_by_the_door_for_factories() {
    let (friend, friend_id) = key();
    let (builder, address) = taking("alpha", &[&format!("{friend_id}:install")]);
    let alpha = builder.start().await.unwrap();
    let beta = knowing_alpha(in_process("beta").0.keypair(friend).join(&address)).await;
    let stranger = knowing_alpha(in_process("stranger").0.join(&address)).await;
    within(beta.install("counter", &guest("counter")).on("alpha")).await.unwrap();
    let (code, _) = failed(within(stranger.app("node").on("alpha").call::<()>("uninstall", "counter")).await);
    assert_eq!(code, "not_installed");
    assert_eq!(within(alpha.call::<u8>("counter", "count", ())).await.unwrap(), 1);
    // The node's own program may, and it can be installed again afterwards.
    alpha.unregister("counter").unwrap();
    within(beta.install("counter", &guest("counter")).on("alpha")).await.unwrap();
    assert_eq!(within(alpha.call::<u8>("counter", "count", ())).await.unwrap(), 1);
    within(beta.uninstall("counter", "alpha")).await.unwrap();
}

#[tokio::test]
async fn code_that_a_generous_rule_has_taken_is_none_that_a_stricter_one_takes() {
    let folder = tempfile::tempdir().unwrap();
    let (friend, friend_id) = key();
    let (padded, complex) = (padded(100_000), Code::from_bytes(bomb(20, 20)).unwrap());
    let generous = format!("{friend_id}:size=1MiB");
    let start = async || {
        let (builder, address) = taking("alpha", &[&generous, "any:size=50KiB,complexity=100"]);
        (builder.identity(folder.path().join("key")).start().await.unwrap(), address)
    };
    let (mut alpha, mut address) = start().await;
    let beta = knowing_alpha(in_process("beta").0.keypair(friend).join(&address)).await;
    within(beta.run(&padded).on("alpha").timeout(code::LIMIT).call::<Vec<i64>>((1,))).await.unwrap();
    // It is compiled, whatever it does then.
    drop(within(beta.run(&complex).on("alpha").timeout(code::LIMIT).call::<()>(())).await);
    for is_restarted in [false, true] {
        if is_restarted {
            stop(alpha).await;
            (alpha, address) = start().await;
        }
        let stranger = knowing_alpha(in_process("stranger").0.join(&address)).await;
        let (code, text) = failed(within(stranger.run(&padded).on("alpha").call::<()>(())).await);
        assert!(code == "bad_code" && text.contains("more than the limit of 51200"), "{code}: {text}");
        let (code, text) = failed(raw::<ByteBuf>(&stranger, &lie(&padded, "size", 10), None).await);
        assert!(code == "bad_code" && text.contains("more than the limit of 51200"), "{code}: {text}");
        let (code, text) = failed(within(stranger.run(&complex).on("alpha").call::<()>(())).await);
        assert!(code == "bad_code" && text.contains("costs the compiler too much"), "{code}: {text}");
        stop(stranger).await;
    }
}

#[tokio::test]
async fn what_a_rule_no_longer_gives_is_taken_back_and_is_there_again_when_it_does() {
    let folder = tempfile::tempdir().unwrap();
    let (identity, peers) = (folder.path().join("key"), folder.path().join("peers"));
    let ((one, one_id), (two, two_id)) = (key(), key());
    let permit = |all: &[PeerId]| {
        let text: Vec<String> = all.iter().map(ToString::to_string).collect();
        fs::write(&peers, text.join("\n") + "\n#").unwrap();
    };
    let by_file = format!("@{}:install", peers.display());
    let start = async || {
        let (builder, address) = taking("alpha", &[&by_file]);
        (builder.identity(&identity).start().await.unwrap(), address)
    };
    permit(&[one_id, two_id]);
    let (alpha, address) = start().await;
    let one = knowing_alpha(in_process("one").0.keypair(one).join(&address)).await;
    let two = knowing_alpha(in_process("two").0.keypair(two).join(&address)).await;
    within(one.install("first", &guest("counter")).on("alpha")).await.unwrap();
    within(two.install("second", &guest("counter")).on("alpha")).await.unwrap();
    // While it runs.
    permit(&[one_id]);
    hosted(&alpha, "second", false).await;
    assert_eq!(within(alpha.call::<u8>("first", "count", ())).await.unwrap(), 1, "that is not concerned");
    permit(&[two_id, one_id]);
    hosted(&alpha, "second", true).await;
    assert_eq!(within(alpha.call::<u8>("second", "count", ())).await.unwrap(), 1);
    stop(alpha).await;
    // Over starts.
    permit(&[one_id]);
    let (alpha, _) = start().await;
    assert_eq!(within(alpha.call::<u8>("first", "count", ())).await.unwrap(), 1);
    assert!(alpha.hosts("second").is_empty());
    stop(alpha).await;
    permit(&[two_id, one_id]);
    let (alpha, _) = start().await;
    for name in ["first", "second"] {
        assert_eq!(within(alpha.call::<u8>(name, "count", ())).await.unwrap(), 1, "{name}");
    }
    stop(alpha).await;
}

#[tokio::test]
async fn a_rule_that_is_written_otherwise_but_gives_the_same_brings_guests_back_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let (friend, friend_id) = key();
    let start = async |options: &str| {
        let (builder, address) = taking("alpha", &[&format!("{friend_id}:{options}")]);
        (builder.identity(folder.path().join("key")).start().await.unwrap(), address)
    };
    let (alpha, address) = start("install").await;
    let beta = knowing_alpha(in_process("beta").0.keypair(friend).join(&address)).await;
    within(beta.install("counter", &guest("counter")).on("alpha")).await.unwrap();
    stop(alpha).await;
    let (alpha, _) = start("install,cpu=2s").await;
    assert_eq!(within(alpha.call::<u8>("counter", "count", ())).await.unwrap(), 1);
    stop(alpha).await;
    let (alpha, _) = start("run").await;
    assert!(alpha.hosts("counter").is_empty());
    stop(alpha).await;
}

#[cfg(feature = "cel")]
#[tokio::test]
async fn labels_of_an_installer_who_is_gone_count_as_long_as_their_issuer_has_said_and_is_trusted() {
    let folder = tempfile::tempdir().unwrap();
    let (issuer, issuer_id) = key();
    let start = async |trusted: &[PeerId]| {
        let (builder, address) = taking("alpha", &["peer.labels.role == 'dev':install,app=oracle"]);
        let builder = trusted.iter().fold(builder, |builder, issuer| builder.trust(*issuer));
        let alpha = builder.identity(folder.path().join("key")).start().await.unwrap();
        alpha.register("oracle", oracle()).unwrap();
        (alpha, address)
    };
    let (alpha, _) = start(&[issuer_id]).await;
    let labels = BTreeMap::from([("role".to_owned(), "dev".to_owned())]);
    let ticket = |seconds: u64| {
        let ticket = alpha.ticket(Some(Duration::from_secs(seconds))).unwrap();
        ticket.labelled(&issuer, labels.clone()).unwrap()
    };
    let (_, asking) = asking("oracle", "ask");
    for (name, seconds) in [("lasting", 3600), ("short", 4)] {
        let installer = knowing_alpha(in_process(name).0.ticket(ticket(seconds))).await;
        within(installer.install(name, &asking).on("alpha")).await.unwrap();
        let asked: String = within(alpha.call(name, "any", ())).await.unwrap();
        assert_eq!(asked, installer.peer_id().to_base58());
        stop(installer).await;
    }
    // Whoever installs it again with a new ticket renews what the old one gave.
    let (renewing, _) = key();
    for seconds in [3, 3600] {
        let installer = knowing_alpha(in_process("renewing").0.keypair(renewing.clone()).ticket(ticket(seconds))).await;
        within(installer.install("renewed", &asking).on("alpha")).await.unwrap();
        stop(installer).await;
    }
    within(alpha.call::<String>("short", "any", ())).await.unwrap();
    hosted(&alpha, "short", false).await;
    within(alpha.call::<String>("lasting", "any", ())).await.unwrap();
    stop(alpha).await;
    let (alpha, _) = start(&[issuer_id]).await;
    assert!(alpha.hosts("short").is_empty(), "its time is over");
    for name in ["lasting", "renewed"] {
        within(alpha.call::<String>(name, "any", ())).await.unwrap();
    }
    stop(alpha).await;
    let (alpha, _) = start(&[]).await;
    assert!(alpha.hosts("lasting").is_empty(), "its issuer is not trusted any more");
    stop(alpha).await;
}

#[tokio::test]
async fn an_application_here_sees_who_has_sent_the_guest_that_asks() {
    let (builder, address) = taking("alpha", &["any:app=oracle"]);
    let alpha = builder.start().await.unwrap();
    alpha.register("oracle", oracle()).unwrap();
    let beta = knowing_alpha(in_process("beta").0.join(&address)).await;
    let (task, stays) = asking("oracle", "ask");
    let asked: String = within(beta.run(&task).on("alpha").call(())).await.unwrap();
    assert_eq!(asked, beta.peer_id().to_base58(), "and not the node on which it runs");
    within(beta.install("asking", &stays).on("alpha")).await.unwrap();
    let asked: String = within(alpha.call("asking", "any", ())).await.unwrap();
    assert_eq!(asked, beta.peer_id().to_base58());
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn what_cannot_be_written_down_is_not_said_to_be_installed() {
    let folder = tempfile::tempdir().unwrap();
    let (builder, address) = taking("alpha", &["any"]);
    let alpha = builder.data_folder(folder.path()).start().await.unwrap();
    let beta = knowing_alpha(in_process("beta").0.join(&address)).await;
    let code = folder.path().join("code");
    let list = code.join("installed.cbor");
    // A folder with something in it is in its place: no file can take it.
    fs::create_dir_all(list.join("in-the-way")).unwrap();
    let (code, text) = failed(within(beta.install("counter", &guest("counter")).on("alpha")).await);
    assert!(code == "not_kept" && !text.contains("installed.cbor"), "{code}: {text}");
    assert!(alpha.hosts("counter").is_empty());
    fs::remove_dir_all(&list).unwrap();
    within(beta.install("counter", &guest("counter")).on("alpha")).await.unwrap();
    assert_eq!(within(alpha.call::<u8>("counter", "count", ())).await.unwrap(), 1);
}

#[test]
fn code_that_is_installed_does_not_go_to_make_room_for_other_code() {
    let folder = tempfile::tempdir().unwrap();
    let codes: Vec<Code> = (0..4).map(|number| padded(10_000 + number)).collect();
    let store = Store::open(Some(folder.path().to_owned()), Some(2 * codes[3].size())).unwrap();
    store.put(&codes[0]).unwrap();
    store.pin([codes[0].cid()]);
    for other in &codes[1..] {
        store.put(other).unwrap();
        assert!(store.find(&codes[0].cid()).is_some() && store.find(&other.cid()).is_some());
    }
    store.pin([codes[0].cid(), codes[3].cid()]);
    assert!(matches!(store.put(&codes[1]), Err(StoreError::Full { .. })), "nothing may go");
    store.pin([]);
    store.put(&codes[1]).unwrap();
    assert_eq!(store.ls().unwrap().len(), 2);
}

#[tokio::test]
async fn a_list_of_what_is_installed_that_cannot_be_read_is_put_aside_and_not_written_over() {
    let folder = tempfile::tempdir().unwrap();
    let list = folder.path().join("code/installed.cbor");
    fs::create_dir_all(list.parent().unwrap()).unwrap();
    fs::write(&list, b"no list").unwrap();
    let alpha = taking("alpha", &["any"]).0.data_folder(folder.path()).start().await.unwrap();
    within(alpha.install("counter", &guest("counter")).on("alpha")).await.unwrap();
    assert_eq!(fs::read(list.with_extension("cbor.unreadable")).unwrap(), b"no list");
    stop(alpha).await;
}
