//! A node goes on as it was while its command is replaced by another version.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{
    ffi::OsStr,
    fs::{self, File},
    os::{fd::AsRawFd, unix::fs::PermissionsExt},
    path::{Path, PathBuf},
    process::Command,
};

use common::{Endless, Process, Swarm, names};
use serde_json::json;

/// The command under another name of the same file, or a copy of it.
fn installed(swarm: &Swarm) -> PathBuf {
    let (command, here) = (Path::new(env!("CARGO_BIN_EXE_multinodes")), swarm.path("multinodes"));
    fs::hard_link(command, &here).or_else(|_| fs::copy(command, &here).map(drop)).unwrap();
    here
}

/// The same command with another path to its program.
fn by(program: impl AsRef<OsStr>, plain: &Command) -> Command {
    let mut command = Command::new(program);
    command.args(plain.get_args()).current_dir(plain.get_current_dir().unwrap());
    command.envs(plain.get_envs().filter_map(|(key, value)| Some((key, value?))));
    command
}

#[test]
fn code_is_still_compiled_in_a_process_of_its_own_when_the_command_was_replaced() {
    let swarm = Swarm::new();
    fs::write(swarm.path("echo.wat"), include_str!("guests/echo.wat")).unwrap();
    let command = installed(&swarm);
    let rules = ["-v", "--name", "beta", "--allow-code", "any", "--listen", "/ip4/127.0.0.1/tcp/0"];
    let start = [&["start", "--json", "--until-stdin-closes"], &rules[..]].concat();
    let mut beta = Process::spawn("beta", by(&command, &swarm.command(&start)));
    swarm.until(&["nodes"], |nodes| names(nodes) == ["beta"]);
    // As an installation does it: another file takes its place.
    let new = swarm.path("new");
    fs::write(&new, "another version").unwrap();
    fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).unwrap();
    fs::rename(&new, &command).unwrap();
    let echoed = swarm.run(&["run", "echo.wat", "5", "--node", "beta", "--timeout", "30s"]).expect(0);
    assert_eq!(echoed.json(), json!([5]));
    beta.signal("TERM");
    let log = beta.complaints();
    assert!(!log.contains("compiled in this process"), "{log}");
}

#[test]
fn a_killed_node_whose_command_is_gone_leaves_no_busy_child() {
    let swarm = Swarm::new();
    let work = Endless::new(&swarm);
    let start = ["start", "--json", "--until-stdin-closes", "--name", "alpha", "--listen", "/ip4/127.0.0.1/tcp/0"];
    // Its file has no name any more even before it begins.
    let path = installed(&swarm);
    let file = File::open(&path).unwrap();
    fs::remove_file(&path).unwrap();
    let program = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
    let exec = format!("work={}", work.command);
    let plain = swarm.command(&[&start[..], &["--exec", &exec]].concat());
    let mut alpha = Process::spawn("alpha", by(program, &plain));
    alpha.started();
    swarm.run(&["tell", "work", "1"]).expect(0);
    work.has("begun");
    alpha.signal("KILL");
    work.has("ended");
}
