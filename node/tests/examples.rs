//! The examples run to their end, alone and as several processes, and what they say is right.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::{net::TcpListener, path::PathBuf, process::Command};

use common::{Process, run};

/// Cargo builds the examples for the tests, beside them.
fn example(name: &str) -> Command {
    let tests = std::env::current_exe().unwrap();
    let file: PathBuf =
        [tests.parent().unwrap().parent().unwrap().to_str().unwrap(), "examples", name].iter().collect();
    assert!(file.exists(), "{} is not there: `cargo build --examples` makes it", file.display());
    Command::new(file)
}

/// An address on loopback that was free a moment ago.
fn address() -> String {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    format!("/ip4/127.0.0.1/tcp/{port}")
}

#[test]
fn collatz_numbers_visit_every_node_and_come_to_1() {
    let mut collatz = example("collatz");
    collatz.arg("60");
    let outcome = run(collatz, "").expect(0);
    for name in ["alpha", "beta", "gamma", "delta"] {
        assert!(outcome.stdout.contains(&format!("  {name} was brought `collatz`\n")), "{outcome:?}");
        assert!(outcome.stdout.contains(&format!(" visits to {name}\n")), "{outcome:?}");
    }
    assert!(outcome.stdout.contains("60 came to 1 in "), "{outcome:?}");
    assert!(outcome.stdout.contains("  54 took the longest way: 112 steps"), "{outcome:?}");
}

#[test]
fn collatz_runs_as_several_processes() {
    let address = address();
    let mut joins = example("collatz");
    joins.args(["join", &address]);
    let mut joining = Process::spawn("join", joins);
    let mut first = example("collatz");
    first.args(["first", &address, "60"]);
    let outcome = run(first, "").expect(0);
    assert!(outcome.stdout.contains("60 came to 1 in "), "{outcome:?}");
    assert_eq!(outcome.stdout.matches(" was brought `collatz`\n").count(), 2, "{outcome:?}");
    assert_eq!(outcome.stdout.matches(" visits to ").count(), 2, "{outcome:?}");
    assert_eq!(joining.end(), 0, "it ends when the first is gone");
}
