//! What is said when a process has too few file descriptors.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{net::TcpStream, process::Command, time::Duration};

use common::{Process, Swarm};

/// The same command with so many descriptors.
fn limited(command: &Command, files: u32) -> Command {
    let mut limited = Command::new("sh");
    limited.arg("-c").arg(format!("ulimit -n {files}; exec \"$0\" \"$@\"")).arg(command.get_program());
    limited.args(command.get_args()).current_dir(command.get_current_dir().unwrap());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => limited.env(name, value),
            None => limited.env_remove(name),
        };
    }
    limited
}

const START: [&str; 6] = ["start", "--until-stdin-closes", "--listen", "/ip4/127.0.0.1/tcp/0", "--name", "alpha"];

#[test]
fn a_node_without_free_descriptors_is_named_with_what_it_lacks() {
    let swarm = Swarm::new();
    let command = swarm.command(&[&START[..], &["--json"]].concat());
    let mut alpha = Process::spawn("alpha", limited(&command, 40));
    let address = alpha.started()["addresses"][0].as_str().unwrap().to_owned();
    let port: u16 = address.split('/').nth(4).unwrap().parse().unwrap();
    // Neither says anything nor goes away.
    let connect = || TcpStream::connect_timeout(&([127, 0, 0, 1], port).into(), Duration::from_secs(5)).unwrap();
    let silent: Vec<TcpStream> = (0..80).map(|_| connect()).collect();
    let outcome = swarm.run(&["nodes", "--timeout", "2s"]);
    drop(silent);
    let said = &outcome.stderr;
    assert!(outcome.code != 0 || !outcome.stdout.contains("alpha"), "it was found all the same: {outcome:?}");
    assert!(said.contains("40 files that it may open are open") && said.contains("ulimit -n"), "{outcome:?}");
    assert!(!said.contains("was found"), "{outcome:?}");
    // The silent ones are gone, and with them what was wrong.
    swarm.until(&["nodes"], |nodes| common::names(nodes) == ["alpha"]);
}

#[test]
fn start_warns_of_a_limit_below_what_its_own_limits_allow() {
    let swarm = Swarm::new();
    for (files, warns) in [(40, true), (1024, false)] {
        let command = limited(&swarm.command(&START), files);
        let outcome = common::run(command, "");
        assert_eq!(outcome.stderr.contains(&format!("only {files} files may be open")), warns, "{outcome:?}");
    }
}
