//! Files that the command is given or is to make: nothing planted is followed, nothing endless is read.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::{fs, os::unix::fs::symlink, process::Command};

use common::Swarm;

#[test]
fn what_has_no_end_or_never_begins_is_refused_by_name() {
    let swarm = Swarm::new();
    symlink("/dev/zero", swarm.path("endless")).unwrap();
    assert!(Command::new("mkfifo").arg(swarm.path("silent")).status().unwrap().success());
    for file in ["endless", "silent"] {
        let rules = format!("@{file}");
        for arguments in [
            &["start", "--identity", file][..],
            &["start", "--secret", file],
            &["start", "--deny-peer", &rules],
            &["start", "--config", file],
            &["code", "inspect", file],
            &["nodes", "--ticket", file],
        ] {
            let mut command = swarm.command(arguments);
            if arguments.contains(&"--ticket") {
                // The ticket says which swarm.
                command.env_remove("MULTINODES_SWARM");
            }
            let outcome = common::run(command, "").expect(2);
            assert!(outcome.stderr.contains(&format!("`{file}`")), "{arguments:?}: {outcome:?}");
            assert!(outcome.stderr.contains("no regular file"), "{arguments:?}: {outcome:?}");
        }
    }
}

#[test]
fn what_is_made_goes_through_no_link_and_an_emptied_key_stays_empty() {
    let swarm = Swarm::new();
    for (name, text) in [("victim", "precious"), ("emptied", "")] {
        fs::write(swarm.path(name), text).unwrap();
    }
    for link in ["secret", "out"] {
        symlink(swarm.path("victim"), swarm.path(link)).unwrap();
    }
    symlink(swarm.path("emptied"), swarm.path("journal")).unwrap();
    swarm.run(&["secret", "new", "secret"]).expect(2);
    let _alpha = swarm.start("alpha", &[]);
    fs::write(swarm.path("items"), "1\n2\n").unwrap();
    for (flag, file) in [("--out", "out"), ("--journal", "journal")] {
        let outcome = swarm.run(&["map", "node", "echo", "--in", "items", flag, file]).expect(2);
        assert!(outcome.stderr.contains("it is a link"), "{outcome:?}");
    }
    let outcome = swarm.run(&["start", "--identity", "emptied"]).expect(2);
    assert!(outcome.stderr.contains("is empty"), "{outcome:?}");
    assert_eq!(fs::read(swarm.path("victim")).unwrap(), b"precious");
    assert_eq!(fs::read(swarm.path("emptied")).unwrap(), b"");
}
