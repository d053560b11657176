//! Code that means harm, and those who send it: what came of it is said exactly, and the node goes on serving.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod code;
#[path = "common/code_nodes.rs"]
mod code_nodes;
#[path = "common/in_process.rs"]
mod in_process;

use std::{fs, time::Duration};

use code::{bomb, guest, within};
use code_nodes::{Gate, SERVICE, answers, asking, compiling, failed, knowing_alpha, lie, raw, rule, serves, two};
use multinodes::{Actions, CallError, Cid, Code, CodeRef, Context, Keypair, Node};
use serde_bytes::ByteBuf;

/// The code of the refusal is `bad_code`, its text has this in it, and alpha goes on answering.
async fn refused(beta: &Node, reference: &CodeRef, bytes: Option<&[u8]>, part: &str) {
    let (code, text) = failed(raw::<ByteBuf>(beta, reference, bytes).await);
    assert!(code == "bad_code" && text.contains(part), "{code}: {text}");
    answers(beta).await;
}

#[tokio::test]
async fn bytes_that_are_no_code_or_not_the_code_that_was_named_are_refused() {
    let (_alpha, beta) = two(&["any:size=1MiB"]).await;
    let (echo, counter) = (guest("echo"), guest("counter"));
    let junk = b"certainly no module".repeat(3);
    // Not wasm; a core module; half a component.
    for bytes in [&junk[..], b"\0asm\x01\0\0\0", &echo.bytes()[..100]] {
        let reference = lie(&echo, "cid", Cid::of(bytes));
        assert!(bytes.len() as u64 <= reference.size());
        refused(&beta, &reference, Some(bytes), "not WebAssembly").await;
    }
    // Another hash; more than was said; more than is allowed, by what is said alone.
    refused(&beta, &lie(&echo, "cid", Cid::of(&junk)), Some(echo.bytes()), "the bytes are").await;
    refused(&beta, &lie(&echo, "size", 10), Some(echo.bytes()), "more than the limit of 10").await;
    refused(&beta, &lie(&echo, "size", u64::MAX), None, "more than the limit of 1048576").await;
    // Of the other world, said so or not, known by then or not.
    for _ in 0..2 {
        let other = "it is an application and not a task";
        refused(&beta, counter.reference(), Some(counter.bytes()), other).await;
        refused(&beta, &lie(&counter, "world", "task"), Some(counter.bytes()), other).await;
    }
    let (code, _) = failed(within(beta.install("task", &echo).on("alpha")).await);
    assert_eq!(code, "bad_code");
    // Of no world at all.
    let bytes = wat::parse_str("(component)").unwrap();
    refused(&beta, &lie(&echo, "cid", Cid::of(&bytes)), Some(&bytes), "exports neither").await;
    serves(&beta).await;
}

#[tokio::test]
async fn an_import_that_no_node_has_and_a_bomb_for_the_compiler_are_refused() {
    let (_alpha, beta) = two(&["any"]).await;
    let wat = r#"(component (import "multinodes:guest/files@0.1.0" (instance)))"#;
    let bytes = wat::parse_str(wat).unwrap();
    let mut reference = lie(&guest("echo"), "cid", Cid::of(&bytes));
    refused(&beta, &reference, Some(&bytes), "`multinodes:guest/files@0.1.0`").await;
    let bomb = Code::from_bytes(bomb(500, 1000)).unwrap();
    for _ in 0..3 {
        let (code, text) = failed(within(beta.run(&bomb).on("alpha").timeout(code::LIMIT).call::<()>(())).await);
        assert!(code == "bad_code" && text.contains("costs the compiler too much"), "{code}: {text}");
        answers(&beta).await;
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
    let beta = knowing_alpha(compiling("beta").0.keypair(key).join(&address)).await;
    let gate = Gate::of(&alpha);
    // It asks again and again.
    let passing = Gate::guest(
        r#"(func (export "run") (param i32 i32) (result i32)
          (loop (call $pass) (br_if 0 (i32.eqz (i32.load8_u (i32.const 0)))))
          (i32.const 0))"#,
    );
    let run = beta.run(&passing).on("alpha").timeout(Duration::from_secs(50));
    let running = tokio::spawn(async move { run.call::<()>(()).await });
    for _ in 0..3 {
        gate.came().await;
        gate.open();
    }
    gate.came().await;
    fs::write(&peers, "# nobody").unwrap();
    let echo = guest("echo");
    within(async {
        while !matches!(beta.run(&echo).on("alpha").call::<()>(()).await, Err(CallError::Forbidden)) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    gate.open();
    let (_, text) = failed(within(running).await.unwrap());
    assert_eq!(text, "forbidden");
    answers(&beta).await;
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
async fn four_guests_that_spin_take_nothing_away_from_other_applications() {
    let wall = Duration::from_secs(6);
    let (alpha, beta) = two(&["any:app=gate,wall=6s,cpu=1m"]).await;
    let gate = Gate::of(&alpha);
    alpha.register("calculator", Actions::new().action("add", |(a, b): (i64, i64)| async move { a + b })).unwrap();
    within(beta.wait_for("calculator")).await.unwrap();
    let spinning = Gate::guest(
        r#"(func (export "run") (param i32 i32) (result i32) (call $pass) (loop $again (br $again)) (i32.const 0))"#,
    );
    let running: Vec<_> = (0..4)
        .map(|_| {
            let run = beta.run(&spinning).on("alpha").timeout(code::LIMIT);
            tokio::spawn(async move { run.call::<()>(()).await })
        })
        .collect();
    for _ in 0..4 {
        gate.came().await;
    }
    for _ in 0..4 {
        gate.open();
    }
    let calculator = beta.app("calculator").timeout(wall);
    for number in 0..100 {
        assert_eq!(within(calculator.call::<i64>("add", (number, 1))).await.unwrap(), number + 1);
    }
    assert!(!running.iter().any(|guest| guest.is_finished()), "all of them ran all the while");
    for guest in running {
        let (code, text) = failed(within(guest).await.unwrap());
        assert_eq!(code, "time_limit", "{text}");
    }
    serves(&beta).await;
}
