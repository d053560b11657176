//! Whatever is written about protection and is of no use closes, or is refused: nothing opens by mistake.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::fs;

use common::{Swarm, names, run};

/// Starts a node that ends at once, and expects it to be refused with all of `parts` in the reason.
fn refused(swarm: &Swarm, arguments: &[&str], variables: &[(&str, &str)], parts: &[&str]) {
    let mut command = swarm.command(&[&["start", "--until-stdin-closes"], arguments].concat());
    command.envs(variables.iter().copied());
    let outcome = run(command, "").expect(2);
    assert!(parts.iter().all(|part| outcome.stderr.contains(part)), "{parts:?} in {outcome:?}");
}

#[test]
fn what_came_out_empty_in_the_file_with_settings_is_refused_by_name() {
    let swarm = Swarm::new();
    for (text, key) in [
        ("secret = ''", "secret"),
        ("ticket = ''", "ticket"),
        ("swarm = ''", "swarm"),
        ("[start]\nallow-peer = []", "allow-peer"),
        ("[start]\ndeny-peer = ['']", "deny-peer"),
        ("[start]\nallow = {}", "allow"),
        ("[start]\nallow = { node = [] }", "allow.node"),
        ("[start]\ntrust = ['']", "trust"),
    ] {
        fs::write(swarm.path("multinodes.toml"), text).unwrap();
        refused(&swarm, &[], &[], &[&format!("`{key}`"), "multinodes.toml", "is empty"]);
    }
}

#[test]
fn what_came_out_empty_or_misspelt_elsewhere_is_refused_by_name() {
    let swarm = Swarm::new();
    for flag in ["--swarm", "--allow-peer", "--deny-peer", "--allow", "--trust", "--allow-code"] {
        refused(&swarm, &[flag, ""], &[], &[flag, "is empty"]);
    }
    refused(&swarm, &["--allow", "node/instal=any"], &[], &["--allow", "`instal`", "install"]);
    for variable in ["MULTINODES_SECRET", "MULTINODES_TICKET"] {
        refused(&swarm, &[], &[(variable, "")], &[variable, "is empty"]);
    }
    refused(&swarm, &[], &[("MULTINODES_SECERT", "file")], &["MULTINODES_SECERT", "MULTINODES_SECRET"]);
    refused(&swarm, &[], &[("MULTINODES_ALLOW_PEER", "peer.lables.a == ''")], &["MULTINODES_ALLOW_PEER", "`lables`"]);
}

#[test]
fn empty_variables_are_as_if_not_set_and_let_nobody_in() {
    let swarm = Swarm::new();
    let mut command = swarm.command(&["nodes", "--json"]);
    for variable in ["JOIN", "TIMEOUT", "NO_KADEMLIA", "JSON", "VERBOSE", "COLOR", "CONFIG"] {
        command.env(format!("MULTINODES_{variable}"), "");
    }
    run(command, "").expect(0);
    let mut alpha = swarm.command(&["start", "--json", "--name", "alpha", "--until-stdin-closes"]);
    alpha.env("MULTINODES_ALLOW_PEER", "").env("MULTINODES_DRAIN", "");
    let mut alpha = common::Process::spawn("alpha", alpha);
    alpha.started();
    let seen = swarm.run(&["nodes", "--json"]).expect(0).json();
    assert!(names(&seen).is_empty(), "{seen}");
}

#[test]
fn what_is_typed_wins_over_the_environment() {
    let swarm = Swarm::new();
    let _alpha = swarm.start("alpha", &[]);
    let ticket = swarm.path("ticket");
    swarm.run(&["ticket", "--out", ticket.to_str().unwrap()]).expect(0);
    let mut typed = swarm.command(&["nodes", "--json", "--ticket", ticket.to_str().unwrap()]);
    typed.env("MULTINODES_SWARM", "other").env("MULTINODES_SECRET", "none");
    let outcome = run(typed, "").expect(0);
    assert_eq!(names(&outcome.json()), ["alpha"]);
    assert!(outcome.stderr.contains("MULTINODES_SECRET"), "{outcome:?}");
    let mut by_name = swarm.command(&["nodes", "--json", "--swarm", "other"]);
    by_name.env("MULTINODES_TICKET", &ticket);
    let outcome = run(by_name, "").expect(0);
    assert!(names(&outcome.json()).is_empty() && outcome.stderr.contains("MULTINODES_TICKET"), "{outcome:?}");
}
