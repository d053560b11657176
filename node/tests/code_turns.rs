//! Nobody has the compiler, or a core, for as long as he likes.

#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![cfg(unix)]

mod code;
#[path = "common/code_nodes.rs"]
mod code_nodes;
#[path = "common/in_process.rs"]
mod in_process;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use code::{
    Engine,
    bombs::{globals, repeated},
    guest, limits, within,
};
use code_nodes::{answers, compiling, failed, knowing_alpha, rule, two};
use multinodes::{
    CallError, Code, GuestError, PeerId, Rate,
    code::{Allowance, Alone, Budget, CompileLimits, Compiler, CompilerHome, Runtime, run},
};

/// A command that never ends with more than 20,000 bytes, and compiles what is smaller.
fn picky(folder: &Path) -> CompilerHome {
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_multinodes"), folder.join("real")).unwrap();
    let link = folder.join("picky.sh");
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/code/compilers/picky.sh");
    std::os::unix::fs::symlink(script, &link).unwrap();
    CompilerHome::Command(link)
}

/// Each is another one, and the picky compiler does not end with it.
fn endless(number: usize) -> Code {
    Code::from_bytes(repeated(&globals(5_000 + number), 1)).unwrap()
}

#[tokio::test]
async fn one_sender_whose_code_takes_long_does_not_hold_up_another() {
    let folder = tempfile::tempdir().unwrap();
    let runtime = Runtime::new(1, 4).unwrap();
    let compiler = Compiler::new(runtime, picky(folder.path()), None, CompileLimits::default()).unwrap();
    let (rule, budget) = (Allowance::default(), Budget::default());
    let (busy, other) = (rule.of(PeerId::random()), rule.of(PeerId::random()));
    let mut all = Vec::new();
    for number in 0..6 {
        let (compiler, busy) = (compiler.clone(), busy.clone());
        all.push(tokio::spawn(async move { compiler.compile_for(&endless(number), &budget, &busy).await }));
    }
    // They have the compiler.
    within(async {
        while !folder.path().join("pid").exists() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let begun = std::time::Instant::now();
    let compiled = within(compiler.compile_for(&guest("echo"), &budget, &other)).await.unwrap();
    let (took, timings) = (begun.elapsed(), compiled.timings());
    assert!(took < Duration::from_secs(10), "{took:?}");
    // What it has waited for others counts apart.
    assert!(timings.waiting > Duration::from_millis(500), "{timings:?}");
    assert!(timings.waiting + timings.vetting + timings.compile <= took, "{timings:?} of {took:?}");
    assert!(all.iter().all(|one| !one.is_finished()));
    for one in all {
        one.abort();
    }
}

#[tokio::test]
async fn a_turn_is_over_when_the_work_has_ended_and_not_when_nobody_waits_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let runtime = Runtime::new(1, 4).unwrap();
    let compiler = Compiler::new(runtime, picky(folder.path()), None, CompileLimits::default()).unwrap();
    let budget = Budget::default();
    for number in 0..4 {
        let code = endless(number);
        let mut compiling = Box::pin(compiler.compile(&code, &budget));
        within(async {
            while !folder.path().join("pid").exists() {
                assert!(futures::poll!(&mut compiling).is_pending());
                tokio::task::yield_now().await;
            }
        })
        .await;
        drop(compiling);
        let other = Code::from_bytes(repeated(&globals(number), 1)).unwrap();
        within(compiler.compile(&other, &budget)).await.unwrap();
        std::fs::remove_file(folder.path().join("pid")).unwrap();
    }
    assert!(!folder.path().join("overlaps").exists(), "two at once");
}

#[tokio::test]
async fn whoever_has_had_the_compiler_for_long_waits_and_is_told_how_long() {
    let (builder, address) = compiling("alpha");
    let _alpha = builder.allow_code(rule("any:compile=1ms/h")).start().await.unwrap();
    let beta = knowing_alpha(compiling("beta").0.join(&address)).await;
    let gamma = knowing_alpha(compiling("gamma").0.join(&address)).await;
    let echo = guest("echo");
    within(beta.run(&echo).on("alpha").call::<Vec<i64>>((1, 2))).await.unwrap();
    let (code, text) = failed(within(beta.run(&guest("failing")).on("alpha").call::<()>(())).await);
    assert!(code == "compile_rate" && text.contains("1ms in each 60m") && text.contains("wait "), "{code}: {text}");
    // What is compiled costs nothing, and others have their own time.
    within(beta.run(&echo).on("alpha").call::<Vec<i64>>((1, 2))).await.unwrap();
    let (code, _) = failed(within(gamma.run(&guest("failing")).on("alpha").call::<()>(())).await);
    assert_eq!(code, "error", "it ran");
    answers(&beta).await;
}

#[tokio::test]
async fn all_guests_of_a_sender_together_compute_no_more_than_their_rate() {
    let engine = Engine::new();
    let forever = engine.compile(&guest("forever")).await.unwrap();
    let echo = engine.compile(&guest("echo")).await.unwrap();
    let (second, cpu) = (Duration::from_secs(1), Duration::from_millis(500));
    let rate = Rate::new(Duration::from_millis(800), 3_600 * second);
    let rule = Allowance::new(limits(|limits| (limits.cpu, limits.rate) = (cpu, Some(rate))));
    let (busy, other) = (rule.of(PeerId::random()), rule.of(PeerId::random()));
    let once = async |compiled, allowance: &Allowance| {
        within(run(&engine.runtime, compiled, vec![0x80], allowance, Arc::new(Alone))).await
    };
    assert_eq!(once(&forever, &busy).await.unwrap_err(), GuestError::CpuLimit { limit: cpu });
    let error = once(&forever, &busy).await.unwrap_err();
    assert!(matches!(error, GuestError::RateLimit { begun: true, .. }), "{error:?}");
    // Other code is no way around it, and it is no matter of a moment.
    let error = once(&echo, &busy).await.unwrap_err();
    assert!(matches!(error, GuestError::RateLimit { begun: false, wait, .. } if wait > 300 * second), "{error:?}");
    assert!(!error.may_have_run());
    once(&echo, &other).await.unwrap();
}

#[tokio::test]
async fn a_guest_that_stays_computes_no_more_than_the_rate_of_its_installer() {
    let (_alpha, beta) = two(&["any:cpu=100ms/h"]).await;
    let spinning = Code::from_bytes(
        r#"(module
          (memory (export "memory") 1)
          (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024))
          (func (export "start") (param i32 i32) (result i32) (i32.const 0))
          (func (export "handle") (param i32 i32 i32 i32) (result i32) (local $n i32)
            (loop (local.set $n (i32.add (local.get $n) (i32.const 1)))
              (br_if 0 (i32.lt_u (local.get $n) (i32.const 10000000))))
            (i32.store8 (i32.const 100) (i32.const 0xf6))
            (i32.store (i32.const 4) (i32.const 100)) (i32.store (i32.const 8) (i32.const 1)) (i32.const 0))
          (func (export "process") (param i32 i32) (result i32) (i32.const 0)))"#,
    );
    within(beta.install("spinning", &spinning.unwrap()).on("alpha")).await.unwrap();
    within(beta.wait_for("spinning")).await.unwrap();
    let stopped = within(async {
        loop {
            match beta.call::<()>("spinning", "spin", ()).await {
                Ok(()) => {}
                Err(CallError::Busy { .. }) => return true,
                // Stopped in the middle.
                Err(error) => assert!(error.to_string().contains("100ms in each 1h"), "{error}"),
            }
        }
    });
    assert!(stopped.await);
    let (code, text) = failed(within(beta.run(&guest("echo")).on("alpha").call::<()>(())).await);
    assert!(code == "rate_limit" && text.contains("wait "), "{code}: {text}");
    answers(&beta).await;
}
