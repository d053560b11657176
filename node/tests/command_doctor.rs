//! `multinodes doctor`: what does not work is a line with a remedy, and the worst line is the exit code.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{fs, net::TcpListener, path::Path};

use common::{Outcome, Swarm, run};
use serde_json::Value;

/// The lines of `doctor --json`, each checked to have what it must have.
#[track_caller]
fn findings(outcome: &Outcome) -> Vec<Value> {
    let findings: Vec<Value> = outcome.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(!findings.is_empty(), "{outcome:?}");
    for finding in &findings {
        for field in ["check", "subject", "verdict", "text"] {
            assert!(finding[field].as_str().is_some_and(|text| !text.is_empty()), "no `{field}`: {finding}");
        }
        let verdict = finding["verdict"].as_str().unwrap();
        assert!(["ok", "warning", "failure"].contains(&verdict), "{finding}");
        assert_eq!(finding["remedy"].is_string(), verdict != "ok", "what is not ok has a remedy: {finding}");
    }
    findings
}

/// The verdict of the line of `check` whose subject or text contains `part`.
#[track_caller]
fn verdict<'a>(findings: &'a [Value], check: &str, part: &str) -> &'a str {
    line(findings, check, part)["verdict"].as_str().unwrap()
}

#[track_caller]
fn line<'a>(findings: &'a [Value], check: &str, part: &str) -> &'a Value {
    let has = |finding: &Value, field: &str| finding[field].as_str().unwrap().contains(part);
    let wanted = |finding: &&Value| finding["check"] == check && (has(finding, "subject") || has(finding, "text"));
    findings.iter().find(wanted).unwrap_or_else(|| panic!("no line of `{check}` with `{part}`: {findings:#?}"))
}

/// A port of this host on which nobody listens any more.
fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

#[cfg(unix)]
fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
}

#[test]
fn a_healthy_swarm_is_ok_in_every_line_and_the_exit_code_is_0() {
    let swarm = Swarm::new();
    let mut alpha = swarm.start("alpha", &[]);
    let _beta = swarm.start("beta", &[]);
    alpha.sees("beta");
    let outcome = swarm.until_code(0, &["doctor", "--json"]);
    let findings = findings(&outcome);
    assert!(findings.iter().all(|finding| finding["verdict"] == "ok"), "{findings:#?}");
    for check in ["limits", "rendezvous", "multicast", "nodes", "listening", "identity", "version"] {
        line(&findings, check, "");
    }
    for name in ["alpha", "beta"] {
        line(&findings, "dialling", &format!("{name} /ip4/127.0.0.1/tcp/"));
        line(&findings, "clock", name);
    }
    assert!(line(&findings, "multicast", "")["text"].as_str().unwrap().contains("nothing was sent"));

    let text = swarm.run(&["doctor"]).expect(0).stdout;
    let dials = text.lines().filter(|line| line.starts_with("ok       dialling    ")).count();
    assert_eq!(dials, 2, "{text}");
    assert!(text.lines().last().unwrap().ends_with("0 with a warning, 0 failed"), "{text}");
}

#[test]
fn a_node_that_uses_permissions_is_nothing_to_warn_of() {
    let swarm = Swarm::new();
    let _store = swarm.start("store", &["--allow", "node=peer.labels.role == 'admin'"]);
    let outcome = swarm.until_code(0, &["doctor", "--json"]);
    assert_eq!(verdict(&findings(&outcome), "clock", "store"), "ok");
}

#[test]
fn finding_nobody_is_a_warning_with_what_to_do() {
    let swarm = Swarm::new();
    let outcome = swarm.run(&["doctor"]).expect(1);
    let line = outcome.stdout.lines().position(|line| line.starts_with("warning  nodes")).unwrap();
    let remedy = outcome.stdout.lines().nth(line + 1).unwrap();
    assert!(remedy.trim_start().starts_with("remedy:") && remedy.contains("5353"), "{outcome:?}");
}

#[test]
fn a_node_that_was_killed_leaves_a_stale_note() {
    let swarm = Swarm::new();
    let mut alpha = swarm.start("alpha", &[]);
    alpha.signal("KILL");
    alpha.end();
    let findings = findings(&swarm.run(&["doctor", "--json"]).expect(1));
    let stale = line(&findings, "rendezvous", "stale");
    let note = stale["subject"].as_str().unwrap();
    assert_eq!(
        (stale["verdict"].as_str(), note.ends_with(&format!("{}.json", alpha.peer_id()))),
        (Some("warning"), true)
    );
    assert!(stale["remedy"].as_str().unwrap().contains("rm "), "{stale}");
}

#[test]
fn each_address_is_dialled_by_itself_and_one_that_nobody_listens_on_is_named() {
    let swarm = Swarm::new();
    let mut alpha = swarm.start("alpha", &[]);
    let works = alpha.started()["addresses"][0].as_str().unwrap().to_owned();
    let dead = format!("127.0.0.1:{}", free_port());
    let findings = findings(&swarm.run(&["doctor", "--json", "--join", &dead, "--join", &works]).expect(3));
    assert_eq!(verdict(&findings, "dialling", &dead), "failure");
    assert!(line(&findings, "dialling", &dead)["text"].as_str().unwrap().starts_with("refused"));
    assert_eq!(verdict(&findings, "dialling", &works), "ok");
    assert_eq!(verdict(&findings, "dialling", "alpha /ip4"), "ok");
}

#[test]
fn somebody_else_at_an_address_is_told_from_nobody() {
    let (swarm, other) = (Swarm::new(), Swarm::new());
    let mut alpha = swarm.start("alpha", &["--no-rendezvous"]);
    let address = alpha.started()["addresses"][0].as_str().unwrap().to_owned();
    let lines = findings(&other.run(&["doctor", "--json", "--join", &address]).expect(3));
    let stranger = line(&lines, "dialling", &address);
    assert!(stranger["text"].as_str().unwrap().contains("another swarm"), "{stranger}");
    assert!(stranger["remedy"].as_str().unwrap().contains("--swarm"), "{stranger}");

    let (plain, expected) = address.split_once("/p2p/").unwrap();
    let wrong = format!("{plain}/p2p/{}", multinodes::PeerId::random());
    let lines = findings(&swarm.run(&["doctor", "--json", "--no-rendezvous", "--join", &wrong]).expect(3));
    let taken = line(&lines, "dialling", &wrong);
    assert!(taken["text"].as_str().unwrap().contains(&format!("another peer answers, `{expected}`")), "{taken}");
}

#[test]
fn a_name_that_is_held_twice_is_a_failure() {
    let swarm = Swarm::new();
    let mut twins = [swarm.start("twin", &[]), swarm.start("twin", &[])];
    let findings = findings(&swarm.until_code(3, &["doctor", "--json"]));
    let twin = line(&findings, "identity", "twin");
    assert_eq!(twin["verdict"], "failure");
    for twin_node in &mut twins {
        assert!(twin["text"].as_str().unwrap().contains(&twin_node.peer_id()), "{twin}");
    }
}

#[cfg(unix)]
#[test]
fn a_key_that_two_processes_use_is_a_failure() {
    let swarm = Swarm::new();
    let (original, copy) = (swarm.path("original"), swarm.path("copy"));
    let mut one = swarm.start("one", &["--no-rendezvous", "--identity", original.to_str().unwrap()]);
    fs::copy(&original, &copy).unwrap();
    set_mode(&copy, 0o600);
    let mut two = swarm.start("two", &["--no-rendezvous", "--identity", copy.to_str().unwrap()]);
    assert_eq!(one.peer_id(), two.peer_id());
    let addresses = [one.started(), two.started()].map(|line| line["addresses"][0].as_str().unwrap().to_owned());
    let arguments =
        ["doctor", "--json", "--no-rendezvous", "--join", &addresses[0], "--join", &addresses[1], "--identity"];
    let outcome = swarm.run(&[&arguments[..], &[original.to_str().unwrap()]].concat()).expect(3);
    let findings = findings(&outcome);
    let clash = line(&findings, "identity", &one.peer_id());
    assert!(clash["verdict"] == "failure" && clash["text"].as_str().unwrap().contains("two processes"), "{clash}");
    let holder = line(&findings, "identity", original.to_str().unwrap());
    assert!(holder["verdict"] == "ok" && holder["text"].as_str().unwrap().starts_with("in use by `"), "{holder}");
}

#[cfg(unix)]
#[test]
fn an_identity_file_is_looked_at_and_never_changed() {
    let (swarm, other) = (Swarm::new(), Swarm::new());
    let (key, missing, empty) = (swarm.path("key"), swarm.path("missing"), swarm.path("empty"));
    fs::write(&empty, "").unwrap();
    let mut alpha = swarm.start("alpha", &["--identity", key.to_str().unwrap()]);
    let doctor = |swarm: &Swarm, path: &Path| {
        let lines = findings(&swarm.run(&["doctor", "--json", "--identity", path.to_str().unwrap()]));
        line(&lines, "identity", path.to_str().unwrap())["verdict"].as_str().unwrap().to_owned()
    };
    assert_eq!(doctor(&swarm, &key), "ok", "alpha has it");
    assert_eq!(doctor(&other, &key), "warning", "somebody has it");
    assert_eq!((doctor(&swarm, &missing), missing.exists()), ("ok".to_owned(), false));
    assert_eq!((doctor(&swarm, &empty), fs::read(&empty).unwrap().len()), ("failure".to_owned(), 0));
    alpha.signal("TERM");
    alpha.end();
    assert_eq!(doctor(&other, &key), "ok", "nobody has it");
    set_mode(&key, 0o644);
    assert_eq!(doctor(&other, &key), "failure", "others may read it");
}

#[cfg(unix)]
#[test]
fn what_is_wrong_with_the_rendezvous_folder_is_named_with_the_command_that_mends_it() {
    let swarm = Swarm::new();
    let _alpha = swarm.start("alpha", &[]);
    let folder = swarm.rendezvous()[0].parent().unwrap().to_owned();
    let doctor = |code| findings(&swarm.until_code(code, &["doctor", "--json"]));
    assert_eq!(verdict(&doctor(0), "rendezvous", "private and writable"), "ok");

    set_mode(&folder, 0o755);
    assert_eq!(verdict(&doctor(1), "rendezvous", "0755"), "warning");
    set_mode(&folder, 0o777);
    let lines = doctor(3);
    let open = line(&lines, "rendezvous", "0777");
    assert_eq!(open["verdict"], "failure");
    assert_eq!(open["remedy"], format!("chmod 700 {}", folder.display()));
    set_mode(&folder, 0o700);

    fs::write(folder.join("broken.json"), "{").unwrap();
    assert_eq!(verdict(&doctor(1), "rendezvous", "broken.json"), "warning");
}

#[test]
fn a_port_to_listen_on_is_tried() {
    let swarm = Swarm::new();
    let mut alpha = swarm.start("alpha", &[]);
    let address = alpha.started()["addresses"][0].as_str().unwrap().to_owned();
    let (held_by_alpha, _) = address.split_once("/p2p/").unwrap();
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let taken = format!("/ip4/127.0.0.1/tcp/{}", listener.local_addr().unwrap().port());
    let free = format!("/ip4/127.0.0.1/tcp/{}", free_port());
    let listen = format!("{taken},{free},{held_by_alpha}");
    let findings = findings(&swarm.run(&["doctor", "--json", "--listen", &listen]).expect(3));
    assert_eq!(verdict(&findings, "listening", &taken), "failure");
    assert_eq!(verdict(&findings, "listening", &free), "ok");
    assert_eq!(verdict(&findings, "listening", "in use by `alpha`"), "ok");
}

#[test]
fn a_wrong_secret_fails_at_the_handshake_and_the_right_one_is_fine() {
    let swarm = Swarm::new();
    let secret = |name: &str| {
        let path = swarm.path(name).to_str().unwrap().to_owned();
        swarm.run(&["secret", "new", &path]).expect(0);
        path
    };
    let (right, wrong) = (secret("right"), secret("wrong"));
    let mut alpha = swarm.start("alpha", &["--secret", &right]);
    let address = alpha.started()["addresses"][0].as_str().unwrap().to_owned();
    let lines = findings(&swarm.until_code(0, &["doctor", "--json", "--secret", &right]));
    assert_eq!(verdict(&lines, "private", "its secret was read"), "ok");
    for (text, given) in [("with a wrong secret", &["--secret", &wrong][..]), ("with none", &[])] {
        let arguments = [&["doctor", "--json", "--join", &address], given].concat();
        let lines = findings(&swarm.run(&arguments).expect(3));
        let failed = line(&lines, "dialling", &address);
        assert_eq!(failed["verdict"], "failure", "{text}: {failed}");
        assert!(failed["text"].as_str().unwrap().contains("handshake"), "{text}: {failed}");
        assert!(failed["remedy"].as_str().unwrap().contains("--secret"), "{text}: {failed}");
    }
}

#[cfg(unix)]
#[test]
fn settings_that_cannot_be_used_are_findings() {
    let swarm = Swarm::new();
    let secret = swarm.path("secret");
    swarm.run(&["secret", "new", secret.to_str().unwrap()]).expect(0);
    set_mode(&secret, 0o644);
    let lines = findings(&swarm.run(&["doctor", "--json", "--secret", secret.to_str().unwrap()]).expect(3));
    assert!(line(&lines, "settings", "chmod 600")["verdict"] == "failure", "{lines:?}");
    let lines = findings(&swarm.run(&["doctor", "--json", "--join", "nowhere"]).expect(3));
    assert_eq!(verdict(&lines, "settings", "nowhere"), "failure");
    swarm.run(&["doctor", "--no-such-flag"]).expect(2);
}

#[test]
fn a_ticket_that_expires_soon_is_a_warning() {
    let swarm = Swarm::new();
    let _alpha = swarm.start("alpha", &[]);
    let ticket = |name: &str, expires: &str| {
        let path = swarm.path(name).to_str().unwrap().to_owned();
        swarm.run(&["ticket", "--expires", expires, "--out", &path]).expect(0);
        path
    };
    let doctor = |ticket: &str| {
        let mut command = swarm.command(&["doctor", "--json", "--ticket", ticket]);
        command.env_remove("MULTINODES_SWARM");
        run(command, "")
    };
    let soon = doctor(&ticket("soon", "2h")).expect(1);
    assert_eq!(verdict(&findings(&soon), "private", "expires in 1h 59m"), "warning");
    let later = doctor(&ticket("later", "9days")).expect(0);
    assert_eq!(verdict(&findings(&later), "private", "expires in 8days"), "ok");
}

#[test]
fn the_help_says_what_the_exit_codes_mean() {
    let swarm = Swarm::new();
    let help = swarm.run(&["doctor", "--help"]).expect(0).stdout;
    assert!(
        help.contains("Examples:") && help.contains("0 all is ok, 1 there are warnings, 3 there are failures"),
        "{help}"
    );
}
