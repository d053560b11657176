//! How commands end, and what ends with them: a lost terminal, a lost reader, a killed node.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{
    fs::File,
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};

use common::{Endless, Process, Swarm, obeying_hangups, through};

#[cfg(target_os = "linux")]
#[test]
fn a_node_whose_terminal_is_gone_says_goodbye() {
    let swarm = Swarm::new();
    let mut alpha = swarm.start("alpha", &[]);
    let plain = swarm.command(&["start", "--json", "--name", "beta", "--listen", "/ip4/127.0.0.1/tcp/0"]);
    let mut beta = Process::spawn("beta", obeying_hangups(&plain));
    beta.started();
    alpha.sees("beta");
    beta.signal("HUP");
    assert_eq!(alpha.misses("beta").value["reason"], "stopped");
    assert_eq!(beta.end(), 0);
}

#[cfg(target_os = "linux")]
#[test]
fn who_was_told_to_ignore_a_hang_up_goes_on() {
    let swarm = Swarm::new();
    let plain = swarm.command(&["start", "--json", "--name", "alpha"]);
    let command = through("sh", &["-c", "trap '' HUP; exec \"$0\" \"$@\""], &plain);
    goes_on_after_a_hang_up(&swarm, command);
}

#[cfg(target_os = "linux")]
#[test]
fn a_hang_up_ends_no_node_of_a_service_manager() {
    let swarm = Swarm::new();
    let mut command = obeying_hangups(&swarm.command(&["start", "--json", "--name", "alpha"]));
    command.env("NOTIFY_SOCKET", swarm.path("notify"));
    goes_on_after_a_hang_up(&swarm, command);
}

/// For as long as it would take to stop, and more.
#[cfg(target_os = "linux")]
fn goes_on_after_a_hang_up(swarm: &Swarm, command: Command) {
    let mut alpha = Process::spawn("alpha", command);
    alpha.started();
    alpha.signal("HUP");
    swarm.run(&["ping", "alpha", "--count", "6", "--interval", "200ms"]).expect(0);
    alpha.signal("TERM");
    assert_eq!(alpha.end(), 0);
}

#[test]
fn a_node_whose_log_and_output_nobody_reads_any_more_goes_on() {
    let swarm = Swarm::new();
    let mut command = swarm.command(&["start", "-vvv", "--name", "alpha"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut alpha = command.spawn().unwrap();
    let mut stdout = BufReader::new(alpha.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    assert!(line.contains("alpha"), "{line}");
    drop((stdout, alpha.stderr.take()));
    // Each of them is shown and logged there, or would be.
    for name in ["beta", "gamma"] {
        let mut other = swarm.start(name, &[]);
        other.sees("alpha");
        other.signal("TERM");
        assert_eq!(other.end(), 0);
    }
    swarm.run(&["ping", "alpha", "--count", "1"]).expect(0);
    common::signal(alpha.id(), "TERM");
    assert_eq!(alpha.wait().unwrap().code(), Some(0));
}

#[test]
fn a_killed_node_leaves_no_busy_child() {
    leaves_no_busy_child("KILL");
}

#[cfg(target_os = "linux")]
#[test]
fn a_node_whose_terminal_is_gone_leaves_no_busy_child() {
    leaves_no_busy_child("HUP");
}

fn leaves_no_busy_child(name: &str) {
    let swarm = Swarm::new();
    let work = Endless::new(&swarm);
    let start = ["start", "--json", "--name", "alpha", "--listen", "/ip4/127.0.0.1/tcp/0", "--drain", "1s"];
    let exec = format!("work={}", work.command);
    let plain = swarm.command(&[&start[..], &["--exec", &exec]].concat());
    let mut alpha = Process::spawn("alpha", obeying_hangups(&plain));
    alpha.started();
    swarm.run(&["tell", "work", "1"]).expect(0);
    work.has("begun");
    alpha.signal(name);
    work.has("ended");
    alpha.has_ended();
}

#[cfg(target_os = "linux")]
#[test]
fn help_that_cannot_be_written_is_a_failure() {
    let swarm = Swarm::new();
    let mut command = swarm.command(&["--help"]);
    command.stdout(File::options().write(true).open("/dev/full").unwrap());
    assert_eq!(command.stderr(Stdio::null()).status().unwrap().code(), Some(2));
}

#[test]
fn the_longest_times_are_times_like_any_other() {
    let swarm = Swarm::new();
    let longest = "18446744073709551615s";
    let _alpha = swarm.start("alpha", &["--demo-applications", "worker", "--drain", longest]);
    std::fs::write(swarm.path("in.jsonl"), "1\n2\n").unwrap();
    let map = ["map", "worker", "square", "--in", "in.jsonl", "--idempotent"];
    for flag in ["--patience", "--lease", "--item-timeout", "--timeout"] {
        let outcome = swarm.run(&[&map[..], &[flag, longest]].concat());
        assert_eq!(outcome.stdout.lines().count(), 2, "{flag}: {outcome:?}");
    }
    for arguments in [
        &["call", "node", "echo", "1", "--timeout", longest][..],
        &["ping", "alpha", "--count", "1", "--timeout", longest],
        &["ping", "alpha", "--count", "1", "--interval", longest],
        &["nodes", "--timeout", longest],
        &["apps", "--timeout", longest],
        &["explain", "node", "--timeout", longest],
        &["tell", "node", "1", "--timeout", longest],
        &["call", "node", "echo", "1", "--idempotent", "--hedge", longest],
    ] {
        let outcome = swarm.run(arguments);
        assert!(!outcome.stderr.contains("panicked") && outcome.code != 101, "{arguments:?}: {}", outcome.stderr);
    }
    let outcome = swarm.run(&["ticket", "--expires", "8000years"]).expect(2);
    assert!(outcome.stderr.contains("1000 years"), "{}", outcome.stderr);
}
