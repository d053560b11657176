//! How commands end, and what ends with them: a lost terminal, a lost reader, a killed node.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{
    fs::File,
    io::{BufRead, BufReader, Read},
    process::{Command, Stdio},
    sync::mpsc,
};

use common::{LIMIT, Process, Swarm};

/// The same command, started by another one.
fn through(program: &str, arguments: &[&str], plain: &Command) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).arg(plain.get_program()).args(plain.get_args());
    for (name, value) in plain.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.current_dir(plain.get_current_dir().unwrap());
    command
}

#[cfg(target_os = "linux")]
#[test]
fn a_node_whose_terminal_is_gone_says_goodbye() {
    let swarm = Swarm::new();
    let mut alpha = swarm.start("alpha", &[]);
    // Whoever runs the tests may ignore the signal, which would go on to all that is started.
    let plain = swarm.command(&["start", "--json", "--name", "beta", "--listen", "/ip4/127.0.0.1/tcp/0"]);
    let mut beta = Process::spawn("beta", through("env", &["--default-signal=HUP"], &plain));
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
    let mut alpha = Process::spawn("alpha", command);
    alpha.started();
    alpha.signal("HUP");
    swarm.run(&["ping", "alpha", "--count", "1"]).expect(0);
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
    let swarm = Swarm::new();
    let fifo = swarm.path("alive");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    // Its grandchild holds the pipe open, and is not in anybody's way.
    let work = format!("work=sh -c 'exec 3>{}; echo begun >&3; sleep 1000 & wait'", fifo.display());
    let mut alpha = swarm.start("alpha", &["--exec", &work]);
    let (said, heard) = mpsc::channel();
    std::thread::spawn(move || {
        let mut pipe = BufReader::new(File::open(fifo).unwrap());
        let mut line = String::new();
        pipe.read_line(&mut line).unwrap();
        said.send(line).unwrap();
        // Ends when nobody has the pipe open for writing any more.
        pipe.read_to_end(&mut Vec::new()).unwrap();
        said.send("ended".to_owned()).unwrap();
    });
    swarm.run(&["tell", "work", "1"]).expect(0);
    assert_eq!(heard.recv_timeout(LIMIT).unwrap(), "begun\n");
    alpha.signal("KILL");
    assert_eq!(heard.recv_timeout(LIMIT).unwrap(), "ended");
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
    let _alpha = swarm.start("alpha", &[]);
    let longest = "18446744073709551615s";
    for arguments in [
        &["call", "node", "echo", "1", "--timeout", longest][..],
        &["ping", "alpha", "--count", "1", "--timeout", longest],
        &["ping", "alpha", "--count", "1", "--interval", longest],
        &["nodes", "--timeout", longest],
        &["apps", "--timeout", longest],
        &["explain", "node", "--timeout", longest],
        &["tell", "node", "1", "--timeout", longest],
    ] {
        let outcome = swarm.run(arguments);
        assert!(!outcome.stderr.contains("panicked") && outcome.code != 101, "{arguments:?}: {}", outcome.stderr);
    }
    let outcome = swarm.run(&["ticket", "--expires", "8000years"]).expect(2);
    assert!(outcome.stderr.contains("1000 years"), "{}", outcome.stderr);
}
