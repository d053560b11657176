//! Code that means harm, and those who send it: what came of it is said exactly, and the node goes on serving.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod code;
#[path = "common/in_process.rs"]
mod in_process;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use code::{bomb, guest, within};
use in_process::{hosts, in_process};
use multinodes::{Actions, Builder, CallError, Cid, Code, CodeRef, CodeRule, Context, Keypair, Node, Rule};
use serde::de::DeserializeOwned;
use serde_bytes::ByteBuf;
use tokio::sync::Notify;

const SERVICE: &str = "multinodes/code";

fn rule(text: &str) -> CodeRule {
    text.parse().unwrap()
}

fn compiling(name: &str) -> (Builder, String) {
    let (builder, address) = in_process(name);
    (builder.compiler(env!("CARGO_BIN_EXE_multinodes")), address)
}

async fn joined(name: &str, address: &str) -> Node {
    let node = compiling(name).0.join(address).start().await.unwrap();
    within(node.wait_for_node("alpha")).await.unwrap();
    node
}

/// Alpha, which takes code by these rules, and beta, which sends it.
async fn two(rules: &[&str]) -> (Node, Node) {
    let (builder, address) = compiling("alpha");
    let builder = rules.iter().fold(builder, |builder, text| builder.allow_code(rule(text)));
    let alpha = builder.start().await.unwrap();
    (alpha, joined("beta", &address).await)
}

/// The node answers, and runs what is honest.
async fn serves(beta: &Node) {
    within(beta.app("node").on("alpha").call::<u64>("ping", ())).await.unwrap();
    let back: Vec<i64> = within(beta.run(&guest("echo")).on("alpha").call((1, 2))).await.unwrap();
    assert_eq!(back, [1, 2]);
}

/// What the application says, as its code and its text.
fn failed<T: std::fmt::Debug>(result: Result<T, CallError>) -> (String, String) {
    match result.unwrap_err() {
        CallError::Failed { code, message, .. } => (code, message),
        error => panic!("{error:?}"),
    }
}

/// What a program says that keeps to no rules.
async fn raw<R: DeserializeOwned>(node: &Node, reference: &CodeRef, bytes: Option<&[u8]>) -> Result<R, CallError> {
    let bytes = bytes.map(|bytes| ByteBuf::from(bytes.to_vec()));
    let arguments = (reference.clone(), bytes, None::<String>, ByteBuf::from(vec![0x80]));
    within(node.app(SERVICE).on("alpha").call("run", arguments)).await
}

/// Some code, described as it is not.
fn lie(code: &Code, key: &str, value: impl serde::Serialize) -> CodeRef {
    let mut told = serde_json::to_value(code.reference()).unwrap();
    told[key] = serde_json::to_value(value).unwrap();
    serde_json::from_value(told).unwrap()
}

/// A guest that asks `application` for `action` with its own arguments, and gives the answer: a task, or one that stays.
fn asking(application: &str, action: &str) -> (Code, Code) {
    let (at, lengths) = (16 + application.len(), (application.len(), action.len()));
    let ask = |pointer: &str, length: &str| {
        let (one, other) = lengths;
        format!(
            "(call $call (i32.const 16) (i32.const {one}) (i32.const {at}) (i32.const {other}) {pointer} {length} (i32.const 0)) (i32.const 0)"
        )
    };
    let module = |exports: String| {
        Code::from_bytes(format!(
            r#"(module
            (import "multinodes:guest/host@0.1.0" "call" (func $call (param i32 i32 i32 i32 i32 i32 i32)))
            (memory (export "memory") 1)
            (global $free (mut i32) (i32.const 4096))
            (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
              (global.get $free)
              (global.set $free (i32.add (global.get $free) (i32.and (i32.add (local.get 3) (i32.const 7)) (i32.const -8)))))
            (data (i32.const 16) "{application}{action}")
            {exports})"#
        ))
        .unwrap()
    };
    let task = ask("(local.get 0)", "(local.get 1)");
    let handle = ask("(local.get 2)", "(local.get 3)");
    (
        module(format!(r#"(func (export "run") (param i32 i32) (result i32) {task})"#)),
        module(format!(
            r#"(func (export "start") (param i32 i32) (result i32) (i32.const 0))
            (func (export "handle") (param i32 i32 i32 i32) (result i32) {handle})
            (func (export "process") (param i32 i32) (result i32) (i32.const 0))"#
        )),
    )
}

/// Echo, with three megabytes that it does not need.
fn large() -> Code {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/guests/echo.wat")).unwrap();
    let ballast = format!(r#"(data (i32.const 65536) "{}")"#, "ballast!".repeat(3 << 17));
    let text = text.replace(r#"(memory (export "memory") 1)"#, &format!(r#"(memory (export "memory") 64) {ballast}"#));
    Code::from_bytes(text).unwrap()
}

/// The file in which a node keeps some code, or a part of it.
fn file(data: &Path, cid: Cid, extension: &str) -> PathBuf {
    fs::create_dir_all(data.join("code")).unwrap();
    data.join("code").join(format!("{cid}.{extension}"))
}

#[tokio::test]
async fn bytes_that_are_no_code_or_not_the_code_that_was_named_are_refused() {
    let (_alpha, beta) = two(&["any:size=1MiB"]).await;
    let (echo, counter) = (guest("echo"), guest("counter"));
    let junk = b"certainly no module".repeat(3);
    let named_junk = lie(&echo, "cid", Cid::of(&junk));
    let size = |bytes: &[u8]| bytes.len() as u64;
    // Not wasm; a core module; half a component.
    for bytes in [&junk[..], b"\0asm\x01\0\0\0", &echo.bytes()[..100]] {
        let reference = lie(&echo, "cid", Cid::of(bytes));
        assert!(size(bytes) <= reference.size());
        let (code, text) = failed(raw::<ByteBuf>(&beta, &reference, Some(bytes)).await);
        assert!(code == "bad_code" && text.contains("not WebAssembly"), "{code}: {text}");
    }
    // Another hash; more than was said; more than is allowed, by what is said alone.
    let (code, text) = failed(raw::<ByteBuf>(&beta, &named_junk, Some(echo.bytes())).await);
    assert!(code == "bad_code" && text.contains("the bytes are"), "{code}: {text}");
    let (code, text) = failed(raw::<ByteBuf>(&beta, &lie(&echo, "size", 10), Some(echo.bytes())).await);
    assert!(code == "bad_code" && text.contains("more than the limit of 10"), "{code}: {text}");
    let (code, text) = failed(raw::<ByteBuf>(&beta, &lie(&echo, "size", u64::MAX), None).await);
    assert!(code == "bad_code" && text.contains("more than the limit of 1048576"), "{code}: {text}");
    // Of the other world, said so or not, known by then or not.
    for _ in 0..2 {
        let (code, text) = failed(raw::<ByteBuf>(&beta, counter.reference(), Some(counter.bytes())).await);
        assert!(code == "bad_code" && text == "it is an application and not a task", "{code}: {text}");
        let (code, text) = failed(raw::<ByteBuf>(&beta, &lie(&counter, "world", "task"), Some(counter.bytes())).await);
        assert!(code == "bad_code" && text == "it is an application and not a task", "{code}: {text}");
    }
    let (code, _) = failed(within(beta.install("task", &echo).on("alpha")).await);
    assert_eq!(code, "bad_code");
    serves(&beta).await;
}

#[tokio::test]
async fn an_import_that_no_node_has_and_a_bomb_for_the_compiler_are_refused() {
    let (_alpha, beta) = two(&["any"]).await;
    let wat = r#"(component (import "multinodes:guest/files@0.1.0" (instance)))"#;
    let bytes = wat::parse_str(wat).unwrap();
    let mut reference = lie(&guest("echo"), "cid", Cid::of(&bytes));
    let (code, text) = failed(raw::<ByteBuf>(&beta, &reference, Some(&bytes)).await);
    assert!(code == "bad_code" && text.contains("`multinodes:guest/files@0.1.0`"), "{code}: {text}");
    let bomb = Code::from_bytes(bomb(500, 1000)).unwrap();
    for _ in 0..3 {
        let (code, text) = failed(within(beta.run(&bomb).on("alpha").timeout(code::LIMIT).call::<()>(())).await);
        assert!(code == "bad_code" && text.contains("costs the compiler too much"), "{code}: {text}");
    }
    // Beyond what a signature can be.
    reference = lie(&guest("echo"), "publisher", vec![0_u8; 36]);
    let back: ByteBuf = raw(&beta, &reference, Some(guest("echo").bytes())).await.unwrap();
    assert_eq!(back.as_ref(), [0x80], "half a signature is as none");
    serves(&beta).await;
}

#[tokio::test]
async fn a_guest_that_takes_more_than_its_limits_is_stopped_and_said_to_be() {
    let (_alpha, beta) = two(&["any:cpu=200ms,memory=16MiB"]).await;
    for (name, asked, expected) in [
        ("forever", false, "cpu_limit"),
        ("at_once", false, "cpu_limit"),
        ("nagging", false, "host_call_limit"),
        ("memory", false, "memory_limit"),
        ("table", false, "memory_limit"),
        ("recursion", false, "stack_limit"),
        ("large", false, "output_limit"),
        // A gigabyte that it does not have.
        ("large", true, "trapped"),
        ("wasi", true, "trapped"),
    ] {
        let run = beta.run(&guest(name)).on("alpha").timeout(code::LIMIT);
        let result = within(async { if asked { run.call::<()>((1,)).await } else { run.call::<()>(()).await } });
        let (code, text) = failed(result.await);
        assert_eq!(code, expected, "{name}: {text}");
        serves(&beta).await;
    }
    let (_alpha, beta) = two(&["any:wall=300ms"]).await;
    let (code, _) = failed(within(beta.run(&guest("forever")).on("alpha").call::<()>(())).await);
    assert_eq!(code, "time_limit");
    serves(&beta).await;
}

#[tokio::test]
async fn a_guest_that_calls_itself_through_another_node_ends_at_the_depth_of_calls() {
    let (_alpha, beta) = two(&["any:app=calculator,instances=64"]).await;
    let (task, _) = asking("calculator", "add");
    let again = task.clone();
    let add = move |context: Context, ()| {
        let run = context.node().run(&again).on("alpha").timeout(code::LIMIT);
        async move { run.call::<i64>(()).await.map_err(|error| error.to_string()) }
    };
    beta.register("calculator", Actions::new().try_action_with("add", add)).unwrap();
    let (_, text) = failed(within(beta.run(&task).on("alpha").timeout(code::LIMIT).call::<i64>(())).await);
    assert!(text.contains("calls within each other"), "{text}");
    serves(&beta).await;
}

#[tokio::test]
async fn a_sender_whose_permission_is_withdrawn_in_the_middle_reaches_nothing_from_then_on() {
    let folder = tempfile::tempdir().unwrap();
    let peers = folder.path().join("peers");
    let key = Keypair::generate_ed25519();
    fs::write(&peers, key.public().to_peer_id().to_string()).unwrap();
    let (builder, address) = compiling("alpha");
    let alpha = builder.allow_code(rule(&format!("@{}:app=gate,wall=1m", peers.display()))).start().await.unwrap();
    let beta = compiling("beta").0.keypair(key).join(&address).start().await.unwrap();
    within(beta.wait_for_node("alpha")).await.unwrap();
    let (came, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (coming, going) = (came.clone(), go.clone());
    let gate = Actions::new().action("pass", move |()| {
        let (came, go) = (coming.clone(), going.clone());
        async move {
            came.notify_one();
            go.notified().await;
        }
    });
    alpha.register("gate", gate).unwrap();
    // It asks again and again.
    let text = r#"(module
        (import "multinodes:guest/host@0.1.0" "call" (func $call (param i32 i32 i32 i32 i32 i32 i32)))
        (memory (export "memory") 1)
        (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 4096))
        (data (i32.const 16) "gatepass\80")
        (func (export "run") (param i32 i32) (result i32)
          (loop
            (call $call (i32.const 16) (i32.const 4) (i32.const 20) (i32.const 4) (i32.const 24) (i32.const 1) (i32.const 0))
            (br_if 0 (i32.eqz (i32.load8_u (i32.const 0)))))
          (i32.const 0)))"#;
    let passing = Code::from_bytes(text).unwrap();
    let run = beta.run(&passing).on("alpha").timeout(Duration::from_secs(50));
    let running = tokio::spawn(async move { run.call::<()>(()).await });
    for _ in 0..3 {
        within(came.notified()).await;
        go.notify_one();
    }
    within(came.notified()).await;
    fs::write(&peers, "# nobody").unwrap();
    let echo = guest("echo");
    within(async {
        while !matches!(beta.run(&echo).on("alpha").call::<()>(()).await, Err(CallError::Forbidden)) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    go.notify_one();
    let (_, text) = failed(within(running).await.unwrap());
    assert_eq!(text, "forbidden");
    within(beta.app("node").on("alpha").call::<u64>("ping", ())).await.unwrap();
}

#[tokio::test]
async fn a_guest_is_no_way_to_what_only_the_node_itself_may() {
    let (alpha, beta) = two(&["any:run,app=*"]).await;
    within(alpha.install("mine", &guest("counter")).on("alpha")).await.unwrap();
    let (task, _) = asking(SERVICE, "uninstall");
    let (_, text) = failed(within(beta.run(&task).on("alpha").call::<()>(("mine",))).await);
    assert_eq!(text, "forbidden");
    let (code, _) = failed(within(beta.run(&task).on("alpha").in_application(SERVICE).call::<()>(("mine",))).await);
    assert_eq!(code, "no_such_application");
    let error = within(beta.uninstall("mine", "alpha")).await.unwrap_err();
    assert!(matches!(error, CallError::Forbidden), "{error:?}");
    assert_eq!(within(alpha.call::<u8>("mine", "count", ())).await.unwrap(), 1);
    serves(&beta).await;
}

#[tokio::test]
async fn an_upgrade_by_somebody_else_has_only_what_that_one_may() {
    let (trusted, other) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
    let of = |key: &Keypair, options: &str| format!("{}:{options}", key.public().to_peer_id());
    let (builder, address) = compiling("alpha");
    let builder =
        builder.allow_code(rule(&of(&trusted, "app=secret"))).allow_code(rule(&of(&other, "install,wall=5s")));
    let alpha = builder.start().await.unwrap();
    alpha.register("secret", Actions::new().action("read", |()| async { 42 })).unwrap();
    let [trusted, other] = [("trusted", trusted), ("other", other)].map(|(name, key)| {
        let builder = compiling(name).0.keypair(key).join(&address);
        async move {
            let node = builder.start().await.unwrap();
            within(node.wait_for_node("alpha")).await.unwrap();
            node
        }
    });
    let (trusted, other) = (trusted.await, other.await);
    let (_, reader) = asking("secret", "read");
    let version = |version: &str| reader.clone().versioned(version).unwrap();
    within(trusted.install("reader", &version("1.0.0")).on("alpha")).await.unwrap();
    assert_eq!(within(alpha.call::<i64>("reader", "any", ())).await.unwrap(), 42);
    within(other.install("reader", &version("2.0.0")).on("alpha")).await.unwrap();
    let (_, text) = failed(within(alpha.call::<i64>("reader", "any", ())).await);
    assert_eq!(text, "forbidden");
    within(trusted.install("reader", &version("3.0.0")).on("alpha")).await.unwrap();
    assert_eq!(within(alpha.call::<i64>("reader", "any", ())).await.unwrap(), 42);
}

#[tokio::test]
async fn whoever_passes_signed_code_on_takes_none_of_it_away_from_others() {
    let publisher = Keypair::generate_ed25519();
    let (alpha, beta) = two(&[&format!("publisher={}", publisher.public().to_peer_id())]).await;
    let signed = guest("counter").sign(&publisher).unwrap();
    within(beta.install("counter", &signed).on("alpha")).await.unwrap();
    let error = within(beta.install("other", &guest("counter")).on("alpha")).await.unwrap_err();
    assert!(matches!(error, CallError::Forbidden), "it is not signed: {error:?}");
    let stranger = compiling("stranger").0.join(alpha.addresses()[0].to_string()).start().await.unwrap();
    within(stranger.wait_for_node("alpha")).await.unwrap();
    let error = within(stranger.uninstall("counter", "alpha")).await.unwrap_err();
    assert!(matches!(error, CallError::Forbidden), "{error:?}");
    within(beta.uninstall("counter", "alpha")).await.unwrap();
}

#[tokio::test]
async fn a_transfer_that_is_cut_goes_on_from_another_holder() {
    let large = large();
    let data = tempfile::tempdir().unwrap();
    let (alphas, betas, gammas) = (data.path().join("a"), data.path().join("b"), data.path().join("c"));
    // Beta has the first megabyte and a half only.
    fs::write(file(&betas, large.cid(), "wasm"), &large.bytes()[..3 << 19]).unwrap();
    fs::write(file(&gammas, large.cid(), "wasm"), large.bytes()).unwrap();
    let (builder, address) = compiling("alpha");
    let _alpha = builder.allow_code(rule("any:size=8MiB")).data_folder(&alphas).start().await.unwrap();
    let holder = |name: &str, folder: &Path| {
        compiling(name).0.allow_code(CodeRule::of(Rule::any())).data_folder(folder).join(&address).start()
    };
    let beta = holder("beta", &betas).await.unwrap();
    within(beta.wait_for_node("alpha")).await.unwrap();
    let (code, text) = failed(raw::<ByteBuf>(&beta, large.reference(), None).await);
    assert!(code == "no_code", "{code}: {text}");
    let partial = file(&alphas, large.cid(), "partial");
    assert_eq!(fs::metadata(&partial).unwrap().len(), 1 << 20, "what has come is kept");
    let gamma = holder("gamma", &gammas).await.unwrap();
    within(gamma.wait_for_node("alpha")).await.unwrap();
    hosts(&_alpha, "node", 3).await;
    let back: ByteBuf = raw(&beta, large.reference(), None).await.unwrap();
    assert_eq!(back.as_ref(), [0x80]);
    assert!(!partial.exists());
    assert!(fs::read(file(&alphas, large.cid(), "wasm")).unwrap() == *large.bytes());
}

#[tokio::test]
async fn wrong_bytes_from_before_do_not_spoil_an_honest_transfer_nor_does_a_full_disk() {
    let large = large();
    let data = tempfile::tempdir().unwrap();
    let (builder, address) = compiling("alpha");
    let _alpha = builder.allow_code(rule("any:size=8MiB")).data_folder(data.path()).start().await.unwrap();
    let beta = joined("beta", &address).await;
    let partial = file(data.path(), large.cid(), "partial");
    #[cfg(target_os = "linux")]
    {
        // A device on which there is never any room.
        std::os::unix::fs::symlink("/dev/full", &partial).unwrap();
        let (code, text) = failed(within(beta.run(&large).on("alpha").call::<()>(())).await);
        assert!(code == "no_code" && text.contains("there is no room"), "{code}: {text}");
        assert!(fs::symlink_metadata(&partial).is_err(), "nothing is left half");
        serves(&beta).await;
    }
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

#[tokio::test]
async fn of_two_versions_that_are_installed_at_once_the_same_one_wins_everywhere() {
    let (builder, address) = compiling("alpha");
    let alpha = builder.allow_code(rule("any")).start().await.unwrap();
    let host = |name: &str| compiling(name).0.allow_code(rule("any")).join(&address).start();
    let targets = [alpha.clone(), host("bravo").await.unwrap(), host("charlie").await.unwrap()];
    let (one, other) = (joined("one", &address).await, joined("other", &address).await);
    for node in [&one, &other] {
        for name in ["bravo", "charlie"] {
            within(node.wait_for_node(name)).await.unwrap();
        }
    }
    let (old, new) = (guest("counter").versioned("1.9.0").unwrap(), guest("counter").versioned("1.10.0").unwrap());
    let (_, unnamed) = asking("secret", "read");
    let plain = guest("counter");
    let larger = plain.cid().max(unnamed.cid());
    let install = |node: &Node, name: &str, code: &Code| {
        let installation = node.install(name, code).timeout(code::LIMIT);
        async move {
            for target in ["alpha", "bravo", "charlie"] {
                match installation.on(target).await {
                    Ok(()) => {}
                    Err(CallError::Failed { code, .. }) if code == "superseded" => {}
                    Err(error) => panic!("{error:?}"),
                }
            }
        }
    };
    let all = futures::future::join4(
        install(&one, "versions", &old),
        install(&other, "versions", &new),
        install(&one, "hashes", &plain),
        install(&other, "hashes", &unnamed),
    );
    within(all).await;
    for node in &targets {
        let own = |application: &str| node.hosts(application).iter().find(|host| host.local).unwrap().clone();
        assert_eq!(own("versions").version.as_deref(), Some("1.10.0"), "{}", node.name());
        assert_eq!(own("hashes").description["code"], larger.to_string(), "{}", node.name());
    }
    let (code, _) = failed(within(one.install("versions", &old).on("bravo")).await);
    assert_eq!(code, "superseded");
}

#[tokio::test]
async fn no_call_is_lost_while_a_guest_is_upgraded_in_place() {
    let (alpha, beta) = two(&["any"]).await;
    let version = |number: usize| guest("counter").versioned(format!("1.0.{number}")).unwrap();
    within(beta.install("counter", &version(0)).on("alpha")).await.unwrap();
    within(beta.wait_for("counter")).await.unwrap();
    let done = Mutex::new(false);
    let calls = async {
        let mut count = 0;
        while !*done.lock().unwrap() {
            let all = (0..32).map(|_| beta.call::<u8>("counter", "count", ()));
            count += futures::future::join_all(all).await.into_iter().map(Result::unwrap).count();
        }
        count
    };
    let upgrades = async {
        for number in 1..=10 {
            beta.install("counter", &version(number)).on("alpha").await.unwrap();
        }
        *done.lock().unwrap() = true;
    };
    let (count, ()) = within(futures::future::join(calls, upgrades)).await;
    assert!(count >= 32);
    assert_eq!(alpha.hosts("counter")[0].version.as_deref(), Some("1.0.10"));
    // One that does not start leaves the old one as it was.
    let bad = beta.install("counter", &version(11)).config(&1000).unwrap();
    let (_, text) = failed(within(bad.on("alpha")).await);
    assert_eq!(text, "not with such a configuration");
    within(beta.call::<u8>("counter", "count", ())).await.unwrap();
    assert_eq!(alpha.hosts("counter")[0].version.as_deref(), Some("1.0.10"));
}

#[tokio::test]
async fn what_was_installed_is_back_after_a_start_as_long_as_its_rule_and_its_sender_are_permitted() {
    let folder = tempfile::tempdir().unwrap();
    let (identity, peers) = (folder.path().join("key"), folder.path().join("peers"));
    let key = Keypair::generate_ed25519();
    let allowed = key.public().to_peer_id().to_string();
    fs::write(&peers, &allowed).unwrap();
    let by_file = format!("@{}", peers.display());
    let start = async |rules: &[&str]| {
        let (builder, address) = compiling("alpha");
        let builder = rules.iter().fold(builder, |builder, text| builder.allow_code(rule(text)));
        (builder.identity(&identity).start().await.unwrap(), address)
    };
    let (alpha, address) = start(&[&by_file]).await;
    let beta = compiling("beta").0.keypair(key).join(&address).start().await.unwrap();
    within(beta.wait_for_node("alpha")).await.unwrap();
    within(beta.install("counter", &guest("counter")).on("alpha")).await.unwrap();
    within(beta.stop()).await;
    let stop = async |node: Node| within(node.stop()).await;
    stop(alpha).await;
    let (alpha, _) = start(&["any:run", &by_file]).await;
    assert_eq!(within(alpha.call::<u8>("counter", "count", ())).await.unwrap(), 1);
    stop(alpha).await;
    let (alpha, _) = start(&["any:run"]).await;
    assert!(alpha.hosts("counter").is_empty(), "its rule is gone");
    stop(alpha).await;
    fs::write(&peers, "# nobody").unwrap();
    let (alpha, _) = start(&[&by_file]).await;
    assert!(alpha.hosts("counter").is_empty(), "its installer may not do that any more");
    stop(alpha).await;
}

#[tokio::test]
async fn a_map_over_an_installed_application_needs_nobody_who_has_its_code() {
    let (alpha, beta) = two(&["any"]).await;
    within(beta.install("counter", &guest("counter")).on("alpha")).await.unwrap();
    within(beta.wait_for("counter")).await.unwrap();
    within(beta.stop()).await;
    let gamma = in_process("gamma").0.join(alpha.addresses()[0].to_string()).start().await.unwrap();
    within(gamma.wait_for("counter")).await.unwrap();
    let map = gamma.app("counter").map_iter::<u8>("count", vec![(); 100]);
    let results: Vec<_> = within(futures::StreamExt::collect(map)).await;
    assert_eq!(results.len(), 100);
    assert!(results.iter().all(|outcome| outcome.as_ref().unwrap().result.is_ok()));
}

#[tokio::test]
async fn a_guest_that_does_not_finish_its_start_holds_up_nothing_but_its_name() {
    let (alpha, beta) = two(&["any:app=gate,wall=1m"]).await;
    let (came, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (coming, going) = (came.clone(), go.clone());
    let gate = Actions::new().action("pass", move |()| {
        let (came, go) = (coming.clone(), going.clone());
        async move {
            came.notify_one();
            go.notified().await;
        }
    });
    alpha.register("gate", gate).unwrap();
    let text = r#"(module
        (import "multinodes:guest/host@0.1.0" "call" (func $call (param i32 i32 i32 i32 i32 i32 i32)))
        (memory (export "memory") 1)
        (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 4096))
        (data (i32.const 16) "gatepass\80")
        (func (export "start") (param i32 i32) (result i32)
          (call $call (i32.const 16) (i32.const 4) (i32.const 20) (i32.const 4) (i32.const 24) (i32.const 1) (i32.const 0))
          (i32.const 0))
        (func (export "handle") (param i32 i32 i32 i32) (result i32) (i32.const 0))
        (func (export "process") (param i32 i32) (result i32) (i32.const 0)))"#;
    let slow = beta.install("slow", &Code::from_bytes(text).unwrap()).timeout(Duration::from_secs(50));
    let installing = tokio::spawn(async move { slow.on("alpha").await });
    within(came.notified()).await;
    within(beta.install("counter", &guest("counter")).on("alpha")).await.unwrap();
    within(beta.uninstall("counter", "alpha")).await.unwrap();
    assert!(!installing.is_finished());
    go.notify_one();
    within(installing).await.unwrap().unwrap();
    serves(&beta).await;
}
