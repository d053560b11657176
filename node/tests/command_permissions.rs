//! Permissions on the command line.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::fs;

use common::{Swarm, names};
use serde_json::json;

#[test]
fn a_label_in_a_ticket_opens_what_is_closed_to_others() {
    let swarm = Swarm::new();
    let (key, other_key) = (swarm.path("alpha.key"), swarm.path("other.key"));
    let (key, other_key) = (key.to_str().unwrap(), other_key.to_str().unwrap());
    let rule = "node/echo=peer.labels.role == 'admin'";
    let mut alpha = swarm.start("alpha", &["--identity", key, "--allow", rule]);
    drop(swarm.start("other", &["--identity", other_key]));
    let make = |file: &str, role: &str, signed_by: &str| {
        let (path, label) = (swarm.path(file).to_str().unwrap().to_owned(), format!("role={role}"));
        let said = swarm.run(&["ticket", "--json", "--out", &path, "--label", &label, "--signed-by", signed_by]);
        let said = said.expect(0).json();
        assert_eq!(said["labels"], json!({ "role": role }));
        (path, said["issuer"].as_str().unwrap().to_owned())
    };
    let ((admin, issuer), (guest, _)) = (make("admin", "admin", key), make("guest", "guest", key));
    let (forged, _) = make("forged", "admin", other_key);
    assert_eq!(alpha.started()["peer_id"], issuer.as_str());
    let call = |arguments: &[&str]| {
        let mut command = swarm.command(&[&["call", "node", "echo", "1", "--node", "alpha"], arguments].concat());
        if !arguments.is_empty() {
            command.env_remove("MULTINODES_SWARM");
        }
        common::run(command, "")
    };
    assert_eq!(call(&["--ticket", &admin]).expect(0).stdout.trim(), "1");
    for arguments in [&[][..], &["--ticket", &guest], &["--ticket", &forged]] {
        let refused = call(arguments).expect(1);
        assert_eq!((&*refused.stdout, &*refused.stderr), ("", "error: `node/echo` on node `alpha` is forbidden\n"));
    }
    swarm.run(&["call", "node", "ping", "--node", "alpha"]).expect(0);
}

#[test]
fn who_is_forbidden_to_tell_something_is_told_what_it_was() {
    let swarm = Swarm::new();
    fs::write(swarm.path("nobody"), "").unwrap();
    let _alpha = swarm.start("alpha", &["--demo-applications", "journal", "--allow", "journal/tell()=@nobody"]);
    let refused = swarm.run(&["tell", "journal", "1"]).expect(1);
    assert_eq!((&*refused.stdout, &*refused.stderr), ("", "error: `journal` is forbidden\n"));
}

#[test]
fn a_rule_about_what_is_not_hosted_is_pointed_out() {
    let swarm = Swarm::new();
    let outcome = common::run(swarm.command(&["start", "--until-stdin-closes", "--allow", "nodde=any"]), "");
    assert!(outcome.code == 0 && outcome.stderr.contains("`nodde`"), "{outcome:?}");
}

#[test]
fn a_file_of_allowed_peers_is_read_again_while_the_node_runs() {
    let swarm = Swarm::new();
    let file = swarm.path("peers");
    fs::write(&file, "# nobody yet\n").unwrap();
    let (rule, key) = (format!("@{}", file.display()), swarm.path("beta.key"));
    let mut alpha = swarm.start("alpha", &["--allow-peer", &rule]);
    let mut beta = swarm.start("beta", &["--identity", key.to_str().unwrap()]);
    let peer_id = beta.started()["peer_id"].as_str().unwrap().to_owned();
    assert_eq!(names(&swarm.run(&["nodes", "--json"]).expect(0).json()), ["beta"], "we are not allowed either");
    let new = swarm.path("new");
    fs::write(&new, format!("{peer_id}\n")).unwrap();
    fs::rename(&new, &file).unwrap();
    alpha.sees("beta");
    beta.sees("alpha");
}

#[test]
fn a_rule_that_is_wrong_stops_the_start_and_says_where() {
    let swarm = Swarm::new();
    let refused = |arguments: &[&str], part: &str| {
        let outcome = swarm.run(&[&["start", "--until-stdin-closes"], arguments].concat()).expect(2);
        assert!(outcome.stderr.contains(part), "`{part}` is not in {outcome:?}");
    };
    refused(&["--allow-peer", "peer.lables.role == 'a'"], "--allow-peer: ");
    refused(&["--allow-peer", "peer.lables.role == 'a'"], "`peer` has no `lables`, only `id`, `labels`");
    refused(
        &["--deny-peer", "node.name == 'a'"],
        "there is no variable `node`, only `peer`, `application` and `action`",
    );
    refused(&["--deny-peer", "@no-such-file"], "the file of rules `no-such-file` cannot be read");
    refused(&["--allow", "calculator"], "has no `=`");
    refused(&["--allow", "/div=any"], "`/div` names neither an application");
    refused(&["--allow", "calculator=1 + 1"], "this gives no boolean");
    refused(&["--trust", "somebody"], "`somebody` is no peer id");
    fs::write(swarm.path("peers"), "any\npeer.id =\n").unwrap();
    refused(&["--allow-peer", "@peers"], "line 2 of `peers`");
    let outcome = swarm.run(&["ticket", "--label", "role=admin"]).expect(2);
    assert!(outcome.stderr.contains("--signed-by"), "{outcome:?}");
}

#[test]
fn the_file_with_settings_has_rules_too() {
    let swarm = Swarm::new();
    let settings = "[start]\nallow = { 'node/echo' = [\"peer.labels.role == 'admin'\"] }\ndeny-peer = ['@banned']\n";
    fs::write(swarm.path("settings.toml"), settings).unwrap();
    fs::write(swarm.path("banned"), "").unwrap();
    let config = swarm.path("settings.toml");
    let _alpha = swarm.start("alpha", &["--config", config.to_str().unwrap()]);
    let refused = swarm.run(&["call", "node", "echo", "1", "--node", "alpha"]).expect(1);
    assert!(refused.stderr.contains("forbidden"), "{refused:?}");
    swarm.run(&["call", "node", "ping", "--node", "alpha"]).expect(0);
}
