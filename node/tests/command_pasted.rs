//! Commands that are printed work when they are pasted: into a shell in the same folder, with the same environment.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{
    fs,
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
};

use common::{LIMIT, Outcome, Process, Swarm, run};

/// A shell in the swarm's folder, on a host where the command is installed.
fn shell(swarm: &Swarm, line: &str) -> Command {
    let installed = swarm.path("bin");
    fs::create_dir_all(&installed).unwrap();
    let _ = std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_multinodes"), installed.join("multinodes"));
    let plain = swarm.command::<&str>(&[]);
    let mut shell = Command::new("sh");
    shell.args(["-c", line]).current_dir(swarm.path(""));
    for (name, value) in plain.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    let path = std::env::var("PATH").unwrap_or_default();
    shell.env("PATH", format!("{}:{path}", installed.display()));
    shell
}

fn paste(swarm: &Swarm, line: &str) -> Outcome {
    run(shell(swarm, line), "")
}

/// A command that does not end by itself.
fn paste_on(swarm: &Swarm, name: &str, line: &str) -> Process {
    let line = format!("exec {line} --json --until-stdin-closes --no-rendezvous --name {name}");
    let mut process = Process::spawn(name, shell(swarm, &line));
    process.started();
    process
}

/// A node, and what it has said to people when it was up.
struct Node {
    child: Child,
    notes: Vec<(String, String)>,
}

impl Node {
    fn start(swarm: &Swarm, flags: &[&str]) -> Self {
        let start = ["start", "--name", "alpha", "--until-stdin-closes", "--listen", "/ip4/127.0.0.1/tcp/0"];
        let mut command = swarm.command(&[&start, flags].concat());
        let command = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let notes = lines.take_while(|line| !line.starts_with("to stop:"));
        let notes = notes.filter_map(|line| {
            let (label, line) = line.split_once(": ")?;
            Some((label.to_owned(), line.to_owned()))
        });
        let (said, heard) = mpsc::channel();
        thread::spawn(move || said.send(notes.collect::<Vec<_>>()));
        let notes = heard.recv_timeout(LIMIT).unwrap();
        Self { child, notes }
    }

    fn said(&self, label: &str) -> Vec<&str> {
        let said: Vec<_> = self.notes.iter().filter(|(at, _)| at == label).map(|(_, line)| &line[..]).collect();
        assert!(!said.is_empty(), "`{label}` is missing in {:?}", self.notes);
        said
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Somebody who is not there.
const NOBODY: &str = "12D3KooWCMtBBmC2Bu2qaEz5T8HUE4JVm7kDN7B9K6C7Z5acwyXu";

/// The commands in a text, as they are quoted there.
fn quoted(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).filter(|part| part.contains("multinodes ")).collect()
}

#[test]
fn what_a_node_says_when_it_is_up_works_in_the_next_terminal_and_on_the_next_host() {
    let swarm = Swarm::new();
    swarm.run(&["secret", "new", "the secret"]).expect(0);
    for (number, flags) in [
        &[][..],
        &["--swarm=-mine"],
        &["--swarm", "garden", "--secret", "the secret"],
        &["--no-rendezvous", "--swarm", "by-address"],
        &["--runtime-dir", "another folder"],
    ]
    .into_iter()
    .enumerate()
    {
        let node = Node::start(&swarm, flags);
        let tries = node.said("try next");
        let listed = paste(&swarm, tries[0]).expect(0);
        assert!(listed.stdout.contains("alpha"), "{flags:?}: {tries:?}: {listed:?}");
        assert_eq!(paste(&swarm, tries[1]).expect(0).stdout, "\"hi\"\n", "{flags:?}: {tries:?}");
        if flags.contains(&"--secret") {
            paste(&swarm, node.said("for others")[0]).expect(0);
        }
        let mut beta = paste_on(&swarm, &format!("beta-{number}"), node.said("from elsewhere")[0]);
        beta.sees("alpha");
    }
}

#[test]
fn what_an_error_says_works() {
    let swarm = Swarm::new();
    let made = swarm.run(&["secret", "new", "the secret", "--swarm", "my-garden"]).expect(0);
    let start = made.stderr.strip_prefix("try next: ").unwrap().trim_end();
    assert!(start.contains("--swarm my-garden"), "{start}");
    let gamma = paste_on(&swarm, "gamma", start);
    drop(gamma);
    let flags = ["--swarm", "my-garden", "--secret", "the secret"];
    let nobody = swarm.run(&[&["nodes"][..], &flags].concat()).expect(0);
    let [start] = quoted(&nobody.stderr)[..] else { panic!("{nobody:?}") };
    let start = format!("exec {start} --json --until-stdin-closes --name alpha");
    let mut alpha = Process::spawn("alpha", shell(&swarm, &start));
    alpha.started();
    let unknown = swarm.run(&[&["call", "nothing", "do"][..], &flags].concat()).expect(1);
    let missing = swarm.run(&[&["info", "nobody"][..], &flags].concat()).expect(1);
    let lines = [quoted(&unknown.stderr), quoted(&missing.stderr)].concat();
    assert_eq!(lines.len(), 3, "{lines:?}");
    for line in lines {
        let outcome = paste(&swarm, line).expect(0);
        assert!(outcome.stdout.contains("alpha"), "{line}: {outcome:?}");
    }
}

#[test]
fn what_is_said_of_a_node_that_lets_nobody_in_works() {
    let swarm = Swarm::new();
    let flags = ["--swarm", "my-garden"];
    let _closed = Node::start(&swarm, &[&flags[..], &["--allow-peer", NOBODY]].concat());
    let nobody = swarm.run(&[&["nodes"][..], &flags].concat()).expect(0);
    let [doctor] = quoted(&nobody.stderr)[..] else { panic!("{nobody:?}") };
    let outcome = paste(&swarm, doctor);
    assert!(outcome.stdout.contains("my-garden"), "{doctor}: {outcome:?}");
}

#[test]
fn what_the_demo_ends_with_works() {
    let swarm = Swarm::new();
    let demo = paste(&swarm, "multinodes demo").expect(0);
    let lines = quoted(demo.stdout.lines().last().unwrap());
    let [start, nodes] = lines[..] else { panic!("{lines:?}") };
    let start = format!("exec {start} --json --until-stdin-closes");
    let mut alpha = Process::spawn("alpha", shell(&swarm, &start));
    alpha.started();
    assert!(paste(&swarm, nodes).expect(0).stdout.contains("alpha"));
    // Started by its path, as `cargo run` does, it is not in the PATH.
    let plain = swarm.run(&["nodes"]).expect(0).stderr + &swarm.run(&["info", "nobody"]).expect(1).stderr;
    assert!(quoted(&plain).iter().all(|line| line.starts_with(env!("CARGO_BIN_EXE_multinodes"))), "{plain}");
}
