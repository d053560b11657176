//! What `multinodes run` says when it does not work: in one line, of what was asked for, to somebody who knows nothing of
//! how nodes talk with each other.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::fs;

use common::Swarm;

/// What nobody wants to read: names of the inside, and values as programs print them.
const INSIDE: [&str; 5] = ["multinodes/code", "Some(", "Err(", "{ ", "Elapsed"];

/// What compilers make where nothing else is asked for: a program for runtimes of WASI 0.2.
const COMMAND_OF_WASI: &str = r#"(component
    (core module $code (func (export "run") (result i32) (i32.const 0)))
    (core instance $made (instantiate $code))
    (func $run (result (result)) (canon lift (core func $made "run")))
    (instance $runs (export "run" (func $run)))
    (export "wasi:cli/run@0.2.0" (instance $runs)))"#;

/// Runs it, and looks whether it fails so.
#[track_caller]
fn fails(swarm: &Swarm, line: &str, code: i32, parts: &[&str]) {
    let arguments: Vec<&str> = line.split_whitespace().collect();
    let outcome = swarm.run(&arguments).expect(code);
    assert!(outcome.stderr.lines().count() == 1 && outcome.stderr.starts_with("error: "), "{line}: {outcome:?}");
    for part in parts {
        assert!(outcome.stderr.contains(part), "{line}: `{part}` is not in {outcome:?}");
    }
    for part in INSIDE {
        assert!(!outcome.stderr.contains(part), "{line}: `{part}` is in {outcome:?}");
    }
}

fn swarm() -> Swarm {
    let swarm = Swarm::new();
    let guests = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/guests");
    for file in fs::read_dir(guests).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), swarm.path(file.file_name().to_str().unwrap())).unwrap();
    }
    let big = r#"(memory (export "memory") 1) (data (i32.const 8192) "big")"#.replace("big", &"x".repeat(50_000));
    let echo = fs::read_to_string(swarm.path("echo.wat")).unwrap();
    fs::write(swarm.path("big.wat"), echo.replace(r#"(memory (export "memory") 1)"#, &big)).unwrap();
    fs::write(swarm.path("bad.wasm"), "nonsense").unwrap();
    fs::write(swarm.path("other.wat"), "(module)").unwrap();
    fs::write(swarm.path("command.wat"), COMMAND_OF_WASI).unwrap();
    swarm
}

#[test]
fn whoever_runs_code_in_vain_reads_what_is_wrong_with_it_or_which_limit_it_meets() {
    let swarm = swarm();
    let rule = "any:run,cpu=300ms,memory=16MiB,size=40KiB";
    let _beta = swarm.start("beta", &["--allow-code", rule]);
    fails(&swarm, "run bad.wasm", 2, &["`bad.wasm`: it is not WebAssembly"]);
    fails(&swarm, "run other.wat", 2, &["`other.wat`", "exports neither `run`"]);
    let needed =
        ["exports `wasi:cli/run@0.2.0`", "a runtime of WASI", "node/wit/node.wit", "examples/guests/README.md"];
    fails(&swarm, "run command.wat", 2, &needed);
    fails(&swarm, "run none.wasm", 2, &["`none.wasm` cannot be read"]);
    fails(&swarm, "run echo.wat --node nobody --timeout 2s", 1, &["no node `nobody`", "multinodes nodes"]);
    for (guest, text) in [
        ("forever", "computed for longer than its limit of 300ms (`cpu_limit`)"),
        ("memory", "bytes of memory (`memory_limit`)"),
        ("recursion", "bytes of stack (`stack_limit`)"),
        ("nagging", "more often than its limit of 10000 times (`host_call_limit`)"),
        ("big", "are more than the limit of 40960 (`bad_code`)"),
        ("failing", "no such luck"),
    ] {
        let named = format!("`{guest}` on node `beta` failed: ");
        fails(&swarm, &format!("run {guest}.wat --node beta --timeout 30s"), 1, &[&named, text]);
    }
    fails(
        &swarm,
        "run echo.wat --app calculator --node beta",
        1,
        &["forbidden", "who runs node `beta`", "any:run,app="],
    );
}

#[test]
fn whoever_installs_or_calls_code_in_vain_reads_the_name_of_the_application() {
    let swarm = swarm();
    let _beta = swarm.start("beta", &["--allow-code", "any:install,wall=1s", "--demo-applications", "calculator"]);
    let install = |options: &str| format!("run counter.wat --node beta --timeout 30s --install {options}");
    fails(&swarm, &install("calculator"), 1, &["`calculator` on node `beta` failed: another application"]);
    fails(&swarm, &install("counter --with 1000"), 1, &["`counter` on node `beta` failed: not with such"]);
    swarm.run(&install("counter --version 2.0.0").split(' ').collect::<Vec<_>>()).expect(0);
    fails(&swarm, &install("counter --version 1.0.0"), 1, &["`counter` on node `beta` failed", "a later version"]);
    fails(&swarm, "code uninstall none --node beta", 1, &["`none` on node `beta` failed: no code is installed"]);
    fails(&swarm, "run echo.wat --node beta", 1, &["forbidden", "`any:run`"]);
    fails(&swarm, "run echo.wat", 1, &["forbidden", "who runs that node"]);
    fails(&swarm, "call counter trap", 1, &["`counter` on node `beta` broke: the guest trapped: "]);
}
