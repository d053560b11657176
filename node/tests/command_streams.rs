//! Standard streams that are closed, or open the wrong way: nothing is lost without a word, and no file of ours takes their
//! place.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{fs, process::Command};

use common::{Outcome, Process, Swarm, run};

/// The same command, started by a shell that does something to its streams.
fn with_streams(swarm: &Swarm, arguments: &[&str], streams: &str) -> Command {
    let plain = swarm.command(arguments);
    let mut command = swarm.command::<&str>(&[]);
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("exec \"$0\" \"$@\" {streams}")]).arg(plain.get_program()).args(plain.get_args());
    for (name, value) in command.current_dir(swarm.path("")).get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    shell.current_dir(swarm.path(""));
    shell
}

fn outcome(swarm: &Swarm, arguments: &[&str], streams: &str) -> Outcome {
    run(with_streams(swarm, arguments, streams), "1\n")
}

/// All that say something on stdout.
const TALKING: [&[&str]; 22] = [
    &["--help"],
    &["--version"],
    &["call", "--help"],
    &["completion", "bash"],
    &["secret", "new"],
    &["nodes"],
    &["nodes", "--json"],
    &["apps"],
    &["info", "alpha"],
    &["explain", "node"],
    &["doctor", "--json"],
    &["call", "node", "echo", "1"],
    &["call", "node", "echo", "\"text\"", "--raw"],
    &["call", "node", "echo", "1", "--all"],
    &["tell", "journal", "1", "--all"],
    &["map", "node", "echo"],
    &["ping", "alpha", "--count", "1"],
    &["ticket"],
    &["events"],
    &["subscribe", "news", "--count", "1"],
    &["start", "--name", "beta"],
    &["demo"],
];

#[test]
fn nobody_is_told_that_all_is_well_where_stdout_is_closed() {
    let swarm = Swarm::new();
    let _alpha = swarm.start("alpha", &["--demo-applications", "journal"]);
    for arguments in TALKING {
        let outcome = outcome(&swarm, arguments, ">&-").expect(2);
        assert!(outcome.stderr.contains("stdout is closed"), "{arguments:?}: {outcome:?}");
    }
    for streams in [">&- 2>&-", "<&- >&- 2>&-"] {
        for arguments in [&["nodes"][..], &["call", "node", "echo", "1"], &["--help"]] {
            outcome(&swarm, arguments, streams).expect(2);
        }
    }
    // What cannot be said is not done either.
    let counted = swarm.run(&["call", "journal", "count"]).expect(0);
    assert_eq!(counted.stdout, "0\n", "the message of `tell --all` was not sent");
}

#[test]
fn what_says_nothing_needs_no_stdout_and_no_stderr() {
    let swarm = Swarm::new();
    let _alpha = swarm.start("alpha", &["--demo-applications", "journal"]);
    for arguments in [
        &["tell", "journal", "1"][..],
        &["secret", "new", "secret"],
        &["ticket", "--out", "ticket"],
        &["map", "node", "echo", "--in", "none", "--out", "out"],
    ] {
        fs::write(swarm.path("none"), "").unwrap();
        outcome(&swarm, arguments, ">&- 2>&-").expect(0);
    }
    outcome(&swarm, &["nodes"], "2>&-").expect(0);
}

#[cfg(target_os = "linux")]
#[test]
fn stdout_that_is_full_or_open_for_reading_only_is_a_failure() {
    let swarm = Swarm::new();
    let _alpha = swarm.start("alpha", &["--demo-applications", "journal"]);
    for arguments in TALKING {
        if ["events", "subscribe"].contains(&arguments[0]) {
            // They have said nothing yet that could be lost.
            continue;
        }
        let full = outcome(&swarm, arguments, ">/dev/full").expect(2);
        assert!(full.stderr.contains("No space left"), "{arguments:?}: {full:?}");
        let wrong = outcome(&swarm, arguments, "1</dev/null").expect(2);
        assert!(wrong.stderr.contains("stdout is not open for writing"), "{arguments:?}: {wrong:?}");
    }
}

#[test]
fn stdin_that_is_closed_is_not_taken_for_an_empty_one() {
    let swarm = Swarm::new();
    let _alpha = swarm.start("alpha", &["--demo-applications", "journal"]);
    for arguments in [
        &["call", "node", "echo", "-"][..],
        &["tell", "journal", "-"],
        &["map", "node", "echo"],
        &["map", "node", "echo", "--in", "/dev/stdin"],
    ] {
        let closed = outcome(&swarm, arguments, "<&-").expect(2);
        assert!(closed.stderr.contains("cannot read stdin: stdin is closed"), "{arguments:?}: {closed:?}");
        let wrong = outcome(&swarm, arguments, "0>/dev/null").expect(2);
        assert!(wrong.stderr.contains("stdin is not open for reading"), "{arguments:?}: {wrong:?}");
    }
    // Who wants nothing of it does not miss it.
    outcome(&swarm, &["call", "node", "echo", "1"], "<&-").expect(0);
}

#[cfg(target_os = "linux")]
#[test]
fn no_file_takes_the_place_of_a_closed_stream() {
    let swarm = Swarm::new();
    let command = with_streams(&swarm, &["start", "--json", "--name", "alpha", "--identity", "key"], "<&- 2>&-");
    let mut alpha = Process::spawn("alpha", command);
    alpha.started();
    for number in [0, 2] {
        let file = fs::read_link(format!("/proc/{}/fd/{number}", alpha.id())).unwrap();
        assert_eq!(file.to_str(), Some("/dev/null"), "stream {number}");
    }
    fs::write(swarm.path("items"), "1\n2\n").unwrap();
    let arguments = ["map", "node", "echo", "--in", "items", "--out", "out", "--journal", "journal"];
    outcome(&swarm, &arguments, "<&- >&- 2>&-").expect(0);
    let lines = fs::read_to_string(swarm.path("out")).unwrap();
    assert!(lines.lines().count() == 2 && lines.lines().all(|line| line.starts_with("{\"index\":")), "{lines}");
    alpha.signal("TERM");
    assert_eq!(alpha.end(), 0);
}
