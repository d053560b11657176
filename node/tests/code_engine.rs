//! Code that travels, without the travelling: what is refused, what is stopped, what is kept.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod code;
#[cfg(target_os = "linux")]
#[path = "common/processes.rs"]
mod processes;

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use code::{Engine, Recorder, bomb, command, guest, limits, within};
use multinodes::{
    Code, CodeError, GuestError, GuestLimits, World,
    code::{Allowance, Alone, Budget, CompileLimits, Compiler, CompilerHome, Runtime, run, vet},
};

const ARGUMENTS: &[u8] = &[0x82, 1, 2];

#[tokio::test]
async fn a_task_runs_and_gives_its_result_and_says_where_the_time_went() {
    let engine = Engine::new();
    let first = engine.run("echo", ARGUMENTS, GuestLimits::default()).await.unwrap();
    assert_eq!(first.result, ARGUMENTS);
    let timings = first.timings;
    assert!(timings.compile > timings.run && timings.vetting > Duration::ZERO, "{timings:?}");
    assert!(timings.instantiate > Duration::ZERO && timings.run > Duration::ZERO, "{timings:?}");
    let second = engine.run("echo", ARGUMENTS, GuestLimits::default()).await.unwrap();
    assert_eq!((second.timings.vetting, second.timings.compile), (Duration::ZERO, Duration::ZERO));
}

#[tokio::test]
async fn a_task_that_says_that_it_failed_is_believed() {
    let error = Engine::new().run("failing", ARGUMENTS, GuestLimits::default()).await.unwrap_err();
    assert_eq!(error, GuestError::Failed("no such luck".to_owned()));
}

#[tokio::test]
async fn an_endless_loop_ends_at_whichever_limit_comes_first() {
    let engine = Engine::new();
    let wall = Duration::from_millis(100);
    let error = engine.run("forever", ARGUMENTS, limits(|limits| limits.wall = wall)).await.unwrap_err();
    assert_eq!(error, GuestError::TimeLimit { limit: wall });
    let cpu = Duration::from_millis(50);
    let error = engine.run("forever", ARGUMENTS, limits(|limits| limits.cpu = cpu)).await.unwrap_err();
    assert_eq!(error, GuestError::CpuLimit { limit: cpu });
    // Before its first function is called, too.
    let error = engine.run("at_once", ARGUMENTS, limits(|limits| limits.cpu = cpu)).await.unwrap_err();
    assert_eq!(error, GuestError::CpuLimit { limit: cpu });
}

#[tokio::test]
async fn waiting_for_others_counts_for_the_time_and_not_for_the_computing() {
    let engine = Engine::new();
    let silent = Arc::new(Recorder { is_silent: true, ..Recorder::default() });
    let wall = Duration::from_millis(100);
    let both = limits(|limits| (limits.wall, limits.cpu) = (wall, Duration::from_millis(20)));
    let error = engine.run_among("asking", ARGUMENTS, both, silent).await.unwrap_err();
    assert_eq!(error, GuestError::TimeLimit { limit: wall });
}

#[tokio::test]
async fn what_a_guest_asks_for_is_done_on_the_runtime_of_its_node() {
    let engine = Engine::new();
    let recorder = Arc::new(Recorder::default());
    let outcome = engine.run_among("asking", ARGUMENTS, GuestLimits::default(), recorder.clone()).await.unwrap();
    assert_eq!(outcome.result, ARGUMENTS);
    let asked = recorder.asked.lock().unwrap().clone();
    assert_eq!(asked.len(), 1);
    assert!(asked[0].starts_with("calculator.add on "), "{asked:?}");
}

#[tokio::test]
async fn endless_questions_end_at_their_limit() {
    let engine = Engine::new();
    let error = engine.run("nagging", ARGUMENTS, limits(|limits| limits.host_calls = 1000)).await.unwrap_err();
    assert_eq!(error, GuestError::HostCallLimit { limit: 1000 });
    let endless = limits(|limits| (limits.host_calls, limits.wall) = (u64::MAX, Duration::from_millis(100)));
    let error = engine.run("nagging", ARGUMENTS, endless).await.unwrap_err();
    assert!(matches!(error, GuestError::TimeLimit { .. }), "{error:?}");
}

#[tokio::test]
async fn memory_and_tables_end_at_their_limit() {
    let engine = Engine::new();
    for name in ["memory", "table"] {
        let error = engine.run(name, ARGUMENTS, limits(|limits| limits.memory = 4 << 20)).await.unwrap_err();
        assert_eq!(error, GuestError::MemoryLimit { limit: 4 << 20 }, "{name}");
    }
    // Not even enough to begin with.
    let error = engine.run("echo", ARGUMENTS, limits(|limits| limits.memory = 1000)).await.unwrap_err();
    assert_eq!(error, GuestError::MemoryLimit { limit: 1000 });
}

#[tokio::test]
async fn a_guest_may_import_wasi_as_long_as_it_does_not_use_it() {
    let engine = Engine::new();
    let outcome = engine.run("wasi", &[0x80], GuestLimits::default()).await.unwrap();
    assert_eq!(outcome.result, [0x80]);
    let error = engine.run("wasi", ARGUMENTS, GuestLimits::default()).await.unwrap_err();
    assert!(matches!(&error, GuestError::Trapped { reason } if reason.contains("wasi:cli/exit")), "{error:?}");
}

#[tokio::test]
async fn deep_recursion_ends_at_the_stack() {
    let error = Engine::new().run("recursion", ARGUMENTS, GuestLimits::default()).await.unwrap_err();
    assert!(matches!(error, GuestError::StackLimit { .. }), "{error:?}");
}

#[tokio::test]
async fn too_long_a_result_is_not_taken() {
    let engine = Engine::new();
    let error = engine.run("large", &[0x80], GuestLimits::default()).await.unwrap_err();
    assert_eq!(error, GuestError::OutputTooLarge { limit: 4 << 20 });
    let outcome = engine.run("large", &[0x80], limits(|limits| limits.output = 8 << 20)).await.unwrap();
    assert_eq!(outcome.result.len(), 8 << 20);
    // A gigabyte that it does not have.
    let error = engine.run("large", ARGUMENTS, limits(|limits| limits.output = usize::MAX)).await.unwrap_err();
    assert!(matches!(error, GuestError::Trapped { .. }), "{error:?}");
}

#[tokio::test]
async fn only_so_many_run_at_once_and_a_dropped_one_makes_room() {
    let engine = Engine::new();
    let forever = engine.compile(&guest("forever")).await.unwrap();
    let allowance = Allowance::new(limits(|limits| (limits.instances, limits.wall) = (1, Duration::from_secs(3600))));
    let one = run(&engine.runtime, &forever, Vec::new(), &allowance, Arc::new(Alone));
    let mut one = Box::pin(one);
    assert!(futures::poll!(&mut one).is_pending());
    let error = run(&engine.runtime, &forever, Vec::new(), &allowance, Arc::new(Alone)).await.unwrap_err();
    assert_eq!(error, GuestError::InstanceLimit { limit: 1 });
    assert!(!error.may_have_run());
    drop(one);
    // It goes as soon as the clock ticks.
    let echo = engine.compile(&guest("echo")).await.unwrap();
    within(async {
        while run(&engine.runtime, &echo, ARGUMENTS.to_vec(), &allowance, Arc::new(Alone)).await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_runtime_that_is_dropped_in_the_middle_ends_its_guests_and_does_not_panic() {
    let engine = Engine::new();
    let nagging = engine.compile(&guest("nagging")).await.unwrap();
    let Engine { runtime, compiler } = engine;
    drop(compiler);
    let recorder = Arc::new(Recorder::default());
    let task = tokio::spawn({
        let (runtime, recorder) = (runtime.clone(), recorder.clone());
        let endless = limits(|limits| (limits.host_calls, limits.wall) = (u64::MAX, Duration::from_secs(3600)));
        async move { run(&runtime, &nagging, Vec::new(), &Allowance::new(endless), recorder).await }
    });
    within(recorder.named.notified()).await;
    let gone = Arc::downgrade(&recorder);
    drop(recorder);
    task.abort();
    assert!(task.await.unwrap_err().is_cancelled());
    // The guest is still on its thread, and the last handle goes here.
    assert_eq!(Arc::strong_count(&runtime), 1);
    drop(runtime);
    within(async {
        while gone.strong_count() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[test]
fn what_is_no_guest_is_refused_with_the_reason() {
    let refused = |text: &str| Code::from_bytes(text).unwrap_err();
    for given in ["", "hello", "(module", "\0asm", "\0asm\u{1}\0\0\0\u{1}", "(component"] {
        assert!(matches!(refused(given), CodeError::NotWasm { .. }), "{given:?}: {:?}", refused(given));
    }
    assert!(matches!(Code::from_bytes([0xff; 100]).unwrap_err(), CodeError::NotWasm { .. }));
    assert!(matches!(refused("(module)"), CodeError::WrongWorld { .. }));
    assert!(matches!(refused(r#"(component (core module))"#), CodeError::WrongWorld { .. }));
    let both = r#"(module (func (export "run")) (func (export "start")))"#;
    assert!(matches!(refused(both), CodeError::WrongWorld { .. }));
    // The right names with the wrong types.
    let typeless = r#"(module (func (export "run")))"#;
    assert!(matches!(refused(typeless), CodeError::NotAComponent { .. }), "{:?}", refused(typeless));
    let other = r#"(component
        (core module $m (func (export "run") (param i32) (result i32) (local.get 0)))
        (core instance $i (instantiate $m))
        (func (export "run") (param "a" u32) (result u32) (canon lift (core func $i "run"))))"#;
    let CodeError::WrongWorld { reason } = refused(other) else { panic!("{:?}", refused(other)) };
    assert_eq!(reason, "its `run` has another type");
}

#[test]
fn an_import_that_no_node_has_is_named() {
    let refused = |text: &str| match Code::from_bytes(text).unwrap_err() {
        CodeError::UnknownImport { import } => import,
        error => panic!("{error:?}"),
    };
    let module = r#"(module (import "env" "system" (func (param i32))) (func (export "run") (param i32 i32) (result i32) unreachable))"#;
    assert_eq!(refused(module), "env");
    assert_eq!(
        refused(r#"(component (import "multinodes:guest/files@0.1.0" (instance)))"#),
        "multinodes:guest/files@0.1.0"
    );
    assert_eq!(
        refused(r#"(component (import "multinodes:guest/host@0.2.0" (instance)))"#),
        "multinodes:guest/host@0.2.0"
    );
    let function =
        r#"(component (import "multinodes:guest/host@0.1.0" (instance (export "exec" (func (param "a" string))))))"#;
    assert_eq!(refused(function), "multinodes:guest/host@0.1.0#exec");
    let types =
        r#"(component (import "multinodes:guest/host@0.1.0" (instance (export "log" (func (param "a" u32))))))"#;
    assert_eq!(refused(types), "multinodes:guest/host@0.1.0#log");
}

#[test]
fn code_over_the_limit_is_refused_by_its_size_alone() {
    let code = guest("echo");
    let mut budget = Budget::default();
    budget.size = 100;
    assert_eq!(vet(code.bytes(), &budget), Err(CodeError::TooLarge { size: code.size(), limit: 100 }));
}

#[test]
fn any_byte_of_a_guest_can_be_changed_or_missing_and_nothing_panics() {
    let code = guest("counter");
    let bytes = code.bytes();
    for position in 0..bytes.len() {
        let mut changed = bytes.to_vec();
        changed[position] ^= 1 << (position % 8);
        _ = vet(&changed, &Budget::default());
        _ = vet(&bytes[..position], &Budget::default());
    }
    assert_eq!(vet(bytes, &Budget::default()).unwrap().world, World::Application);
}

#[test]
fn a_bomb_for_the_compiler_is_refused_by_its_shape() {
    let bomb = Code::from_bytes(bomb(500, 1000)).unwrap();
    assert!(bomb.size() < 64 * 1024, "{}", bomb.size());
    let error = vet(bomb.bytes(), &Budget::default()).unwrap_err();
    assert!(matches!(error, CodeError::TooComplex { what: "one function", .. }), "{error:?}");
    let mut budget = Budget::default();
    budget.function = u64::MAX;
    let error = vet(bomb.bytes(), &budget).unwrap_err();
    assert!(matches!(error, CodeError::TooComplex { what: "all functions", .. }), "{error:?}");
    let honest = guest("counter");
    assert!(vet(honest.bytes(), &Budget::default()).unwrap().cost < 1000);
}

#[cfg(unix)]
#[tokio::test]
async fn a_bomb_whose_shape_is_not_looked_at_is_stopped_in_its_own_process() {
    let runtime = Runtime::new(1, 4).unwrap();
    let bomb = Code::from_bytes(bomb(500, 4000)).unwrap();
    let quick = CompileLimits { cpu: Duration::from_secs(1), ..CompileLimits::default() };
    let small = CompileLimits { memory: 150 << 20, ..CompileLimits::default() };
    for limits in [quick, small] {
        let compiler = Compiler::new(runtime.clone(), command(), None, limits).unwrap();
        let begun = Instant::now();
        let error = within(compiler.compile(&bomb, &Budget::unlimited())).await.unwrap_err();
        assert_eq!(error, CodeError::CompileLimit { memory: limits.memory, cpu: limits.cpu });
        // Not for the other limit: nobody computes for thirty seconds in less.
        assert!(begun.elapsed() < Duration::from_secs(30));
        // The compiler goes on, for others.
        let echo = within(compiler.compile(&guest("echo"), &Budget::default())).await.unwrap();
        let outcome = run(&runtime, &echo, ARGUMENTS.to_vec(), &Allowance::default(), Arc::new(Alone)).await;
        assert_eq!(outcome.unwrap().result, ARGUMENTS);
    }
}

#[cfg(unix)]
#[tokio::test]
async fn what_the_compiler_refused_is_not_given_to_it_again() {
    let folder = tempfile::tempdir().unwrap();
    let count = folder.path().join("count");
    let home = script(folder.path(), "refusing.sh");
    let runtime = Runtime::new(1, 4).unwrap();
    let compiler = Compiler::new(runtime, home, None, CompileLimits::default()).unwrap();
    for _ in 0..3 {
        let error = within(compiler.compile(&guest("echo"), &Budget::default())).await.unwrap_err();
        assert_eq!(error, CodeError::Compile { reason: "not like this".to_owned() });
    }
    assert_eq!(std::fs::read_to_string(&count).unwrap(), "once\n");
    // Another budget is another question.
    within(compiler.compile(&guest("echo"), &Budget::unlimited())).await.unwrap_err();
    assert_eq!(std::fs::read_to_string(&count).unwrap(), "once\nonce\n");
}

/// A command that stands for the compiler, and leaves its files in this folder. Linked, as one that was written just now
/// may be busy.
#[cfg(unix)]
fn script(folder: &Path, name: &str) -> CompilerHome {
    let link = folder.join(name);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/code/compilers").join(name);
    std::os::unix::fs::symlink(script, &link).unwrap();
    CompilerHome::Command(link)
}

#[tokio::test]
async fn compiled_code_is_found_after_a_start_and_a_damaged_file_is_compiled_anew() {
    let folder = tempfile::tempdir().unwrap();
    let runtime = Runtime::new(1, 4).unwrap();
    let open = || {
        let folder = Some(folder.path().to_owned());
        Compiler::new(runtime.clone(), command(), folder, CompileLimits::default()).unwrap()
    };
    let echo = guest("echo");
    assert!(open().find(&echo.cid()).is_none());
    within(open().compile(&echo, &Budget::default())).await.unwrap();
    let again = open();
    let found = again.find(&echo.cid()).unwrap();
    assert_eq!(found.world(), World::Task);
    let outcome = run(&runtime, &found, ARGUMENTS.to_vec(), &Allowance::default(), Arc::new(Alone)).await.unwrap();
    assert_eq!(outcome.result, ARGUMENTS);
    let file = folder.path().join(multinodes::code::engine_hash().unwrap()).join(format!("{}.cwasm", echo.cid()));
    let whole = std::fs::read(&file).unwrap();
    let mut changed = whole.clone();
    *changed.last_mut().unwrap() ^= 1;
    for damaged in [&changed[..], &whole[..whole.len() / 2], &[]] {
        std::fs::write(&file, damaged).unwrap();
        let compiler = open();
        assert!(compiler.find(&echo.cid()).is_none());
        let compiled = within(compiler.compile(&echo, &Budget::default())).await.unwrap();
        assert!(compiled.timings().vetting > Duration::ZERO);
        assert_eq!(std::fs::read(&file).unwrap(), whole);
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(file.parent().unwrap()), mode(&file)), (0o700, 0o600));
    }
}

#[tokio::test]
async fn compiled_code_runs_only_as_what_it_was_compiled_of_and_only_from_a_folder_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let runtime = Runtime::new(1, 4).unwrap();
    let open =
        |folder: &Path| Compiler::new(runtime.clone(), command(), Some(folder.to_owned()), CompileLimits::default());
    let (echo, other) = (guest("echo"), guest("forever"));
    let compiler = open(folder.path()).unwrap();
    within(compiler.compile(&echo, &Budget::default())).await.unwrap();
    let cache = folder.path().join(multinodes::code::engine_hash().unwrap());
    let file = |code: &Code| cache.join(format!("{}.cwasm", code.cid()));
    std::fs::copy(file(&echo), file(&other)).unwrap();
    assert!(open(folder.path()).unwrap().find(&other.cid()).is_none(), "it is other code");
    // What another node has made for itself, byte for byte.
    let elsewhere = tempfile::tempdir().unwrap();
    within(open(elsewhere.path()).unwrap().compile(&echo, &Budget::default())).await.unwrap();
    let made = elsewhere.path().join(cache.file_name().unwrap()).join(file(&echo).file_name().unwrap());
    std::fs::copy(made, file(&echo)).unwrap();
    assert!(open(folder.path()).unwrap().find(&echo.cid()).is_none(), "its seal is another's");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        std::os::unix::fs::symlink("/dev/zero", file(&echo)).unwrap();
        assert!(open(folder.path()).unwrap().find(&echo.cid()).is_none(), "it has no end");
        for open_to_others in [&cache, &folder.path().to_owned()] {
            std::fs::set_permissions(open_to_others, PermissionsExt::from_mode(0o777)).unwrap();
            let error = open(folder.path()).unwrap_err().to_string();
            assert!(error.contains("can be written by others"), "{error}");
            std::fs::set_permissions(open_to_others, PermissionsExt::from_mode(0o700)).unwrap();
        }
    }
    within(open(folder.path()).unwrap().compile(&echo, &Budget::default())).await.unwrap();
}

#[tokio::test]
async fn a_command_that_does_not_compile_is_named() {
    let runtime = Runtime::new(1, 4).unwrap();
    for path in ["/nowhere/multinodes", "/bin/false"] {
        let home = CompilerHome::Command(path.into());
        let compiler = Compiler::new(runtime.clone(), home, None, CompileLimits::default()).unwrap();
        let error = within(compiler.compile(&guest("echo"), &Budget::default())).await.unwrap_err();
        assert!(matches!(error, CodeError::Compiler { .. }), "{error:?}");
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_compiler_for_which_nobody_waits_any_more_is_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let pid = folder.path().join("pid");
    let home = script(folder.path(), "slow.sh");
    let runtime = Runtime::new(1, 4).unwrap();
    let compiler = Compiler::new(runtime, home, None, CompileLimits::default()).unwrap();
    let (echo, budget) = (guest("echo"), Budget::default());
    let mut compiling = Box::pin(compiler.compile(&echo, &budget));
    let pid = within(async {
        loop {
            assert!(futures::poll!(&mut compiling).is_pending());
            if let Ok(pid) = std::fs::read_to_string(&pid) {
                return pid.trim().parse().unwrap();
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(processes::is_running(pid));
    drop(compiling);
    within(async {
        while processes::is_running(pid) {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[cfg(unix)]
#[tokio::test]
async fn the_command_is_found_near_the_program() {
    let runtime = Runtime::new(1, 4).unwrap();
    let found = Compiler::new(runtime, CompilerHome::default(), None, CompileLimits::default()).unwrap();
    assert!(format!("{found:?}").contains(env!("CARGO_BIN_EXE_multinodes")), "{found:?}");
}

#[tokio::test]
async fn without_a_command_code_is_compiled_in_the_process_itself() {
    let runtime = Runtime::new(1, 4).unwrap();
    let compiler = Compiler::new(runtime.clone(), CompilerHome::Here, None, CompileLimits::default()).unwrap();
    let echo = within(compiler.compile(&guest("echo"), &Budget::default())).await.unwrap();
    let outcome = run(&runtime, &echo, ARGUMENTS.to_vec(), &Allowance::default(), Arc::new(Alone)).await.unwrap();
    assert_eq!(outcome.result, ARGUMENTS);
}

#[tokio::test]
async fn code_that_is_not_what_it_was_said_to_be_does_not_run() {
    let engine = Engine::new();
    let (task, application) = (guest("echo"), guest("counter"));
    let error = Code::received(task.bytes().clone(), application.reference().clone()).unwrap_err();
    assert!(matches!(error, CodeError::TooLarge { .. } | CodeError::WrongHash { .. }), "{error:?}");
    let compiled = engine.compile(&application).await.unwrap();
    let error = run(&engine.runtime, &compiled, Vec::new(), &Allowance::default(), Arc::new(Alone)).await.unwrap_err();
    assert_eq!(error, GuestError::WrongWorld { actual: World::Application });
}

#[test]
fn code_of_a_file_has_its_name_and_can_be_signed() {
    let keypair = multinodes::Keypair::generate_ed25519();
    let code = guest("echo").versioned("1.2.3").unwrap().sign(&keypair).unwrap();
    assert_eq!((code.name(), code.version()), (Some("echo"), Some("1.2.3")));
    assert_eq!(code.publisher(), Some(keypair.public().to_peer_id()));
    // A change of what was signed takes the signature away.
    assert_eq!(code.clone().named("other").unwrap().publisher(), None);
    assert!(matches!(code.clone().versioned("newest"), Err(CodeError::Version { .. })));
    assert!(matches!(code.named(""), Err(CodeError::Name { .. })));
    assert!(matches!(Code::from_file("/nowhere.wasm"), Err(CodeError::Unreadable { .. })));
}
