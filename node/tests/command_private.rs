//! Secrets and tickets on the command line.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{fs, path::Path, process::Command};

use common::{Swarm, names, run};

/// Makes a secret in the swarm's folder, and gives its path.
fn secret(swarm: &Swarm, name: &str) -> String {
    let path = swarm.path(name).to_str().unwrap().to_owned();
    swarm.run(&["secret", "new", &path]).expect(0);
    path
}

/// A command that knows of no swarm but what its arguments say.
fn nameless(swarm: &Swarm, arguments: &[&str]) -> Command {
    let mut command = swarm.command(arguments);
    command.env_remove("MULTINODES_SWARM");
    command
}

#[cfg(unix)]
fn allow_others(path: &Path) {
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
}

#[test]
fn who_has_the_secret_sees_the_swarm_and_nobody_else_does() {
    let swarm = Swarm::new();
    let (right, wrong) = (secret(&swarm, "right"), secret(&swarm, "wrong"));
    let mut alpha = swarm.start("alpha", &["--secret", &right]);
    let mut beta = swarm.start("beta", &["--secret", &right]);
    let mut gamma = swarm.start("gamma", &[]);
    alpha.sees("beta");
    beta.sees("alpha");
    let inside = |nodes: &serde_json::Value| names(nodes) == ["alpha", "beta"];
    swarm.until(&["nodes", "--secret", &right], inside);
    let mut by_environment = swarm.command(&["nodes", "--json"]);
    by_environment.env("MULTINODES_SECRET", &right);
    assert!(inside(&run(by_environment, "").expect(0).json()));
    fs::write(swarm.path("settings.toml"), "secret = 'right'").unwrap();
    let settings = swarm.path("settings.toml");
    assert!(inside(&swarm.run(&["nodes", "--json", "--config", settings.to_str().unwrap()]).expect(0).json()));

    assert_eq!(names(&swarm.run(&["nodes", "--json"]).expect(0).json()), ["gamma"]);
    let address = alpha.started()["addresses"][0].as_str().unwrap().to_owned();
    let outcome = swarm.run(&["nodes", "--json", "--secret", &wrong, "--join", &address]).expect(0);
    assert_eq!(outcome.json(), serde_json::json!([]));
    assert!(outcome.stderr.contains("private swarm"), "{outcome:?}");
    gamma.signal("TERM");
    gamma.end();
    assert!(!gamma.heard.iter().any(|line| line.value["event"] == "joined"), "{:?}", gamma.heard);
    assert!(!alpha.heard.iter().any(|line| line.is("joined", "gamma")));
}

#[test]
fn a_ticket_from_a_running_swarm_leads_into_it() {
    let swarm = Swarm::new();
    let secret = secret(&swarm, "secret");
    let mut alpha = swarm.start("alpha", &["--secret", &secret]);
    let ticket = swarm.run(&["ticket", "--secret", &secret, "--expires", "1h"]).expect(0);
    let text = ticket.stdout.trim();
    assert!(text.starts_with("multinodes-ticket-1:") && ticket.stdout.lines().count() == 1, "{ticket:?}");
    assert!(ticket.stderr.contains("secret") && !ticket.stderr.contains(&text[20..]), "{ticket:?}");

    let file = swarm.path("ticket");
    let file = file.to_str().unwrap();
    let said = swarm.run(&["ticket", "--secret", &secret, "--out", file, "--json"]).expect(0);
    let made = fs::read_to_string(file).unwrap();
    assert!(!said.stdout.contains(&made[30..made.len() - 1]) && said.json()["private"] == true, "{said:?}");
    let elsewhere = swarm.path("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    let elsewhere = elsewhere.to_str().unwrap();
    // Only the ticket leads there: the folder is another one, and nothing is multicast.
    let nodes = nameless(&swarm, &["nodes", "--json", "--runtime-dir", elsewhere, "--ticket", file]);
    assert_eq!(names(&run(nodes, "").expect(0).json()), ["alpha"]);
    let call = ["call", "node", "echo", "1", "--runtime-dir", elsewhere, "--ticket", "-"];
    assert_eq!(run(nameless(&swarm, &call), &made).expect(0).stdout.trim(), "1");
    let start = ["start", "--json", "--name", "beta", "--listen", "/ip4/127.0.0.1/tcp/0", "--ticket", file];
    let mut beta = common::Process::spawn("beta", nameless(&swarm, &start));
    beta.sees("alpha");
    alpha.sees("beta");
}

#[test]
fn a_ticket_that_is_no_good_says_why() {
    let swarm = Swarm::new();
    let _alpha = swarm.start("alpha", &[]);
    let good = swarm.run(&["ticket", "--expires", "1s"]).expect(0).stdout;
    let good = good.trim();
    let cut = &good[..good.len() - 20];
    let middle = good.len() / 2;
    let other = if &good[middle..=middle] == "x" { "y" } else { "x" };
    let altered = format!("{}{other}{}", &good[..middle], &good[middle + 1..]);
    for (text, reason) in [(cut, "is cut"), (&altered, "was altered"), ("hello", "no ticket"), ("", "no ticket")] {
        let outcome = run(nameless(&swarm, &["nodes", "--ticket", "-"]), text).expect(2);
        assert!(outcome.stderr.contains(reason) && outcome.stderr.lines().count() == 1, "{outcome:?}");
        assert!(text.get(30..).is_none_or(|content| !outcome.stderr.contains(content)), "{outcome:?}");
    }
    let begin = std::time::Instant::now();
    let expired = loop {
        let outcome = run(nameless(&swarm, &["nodes", "--ticket", "-"]), good);
        if outcome.code != 0 {
            break outcome;
        }
        assert!(begin.elapsed() < common::LIMIT);
    };
    assert!(expired.code == 2 && expired.stderr.contains("expired"), "{expired:?}");
}

#[test]
fn a_ticket_says_all_so_nothing_else_may() {
    let swarm = Swarm::new();
    let secret = secret(&swarm, "secret");
    for (arguments, said) in [
        (&["nodes", "--ticket", "any", "--swarm", "other"][..], "`--swarm` cannot be used with `--ticket`"),
        (&["nodes", "--ticket", "any", "--secret", &secret], "`--secret` cannot be used with `--ticket`"),
    ] {
        let outcome = run(nameless(&swarm, arguments), "").expect(2);
        assert!(outcome.stderr.contains(said), "{outcome:?}");
    }
    fs::write(swarm.path("multinodes.toml"), "ticket = 'any'").unwrap();
    let outcome = run(nameless(&swarm, &["nodes", "--swarm", "other"]), "").expect(2);
    assert!(outcome.stderr.contains("`ticket` of the file with settings"), "{outcome:?}");
}

#[cfg(unix)]
#[test]
fn a_file_that_others_may_read_is_refused_with_the_remedy() {
    let swarm = Swarm::new();
    let secret = secret(&swarm, "secret");
    let _alpha = swarm.start("alpha", &[]);
    let ticket = swarm.path("ticket");
    swarm.run(&["ticket", "--out", ticket.to_str().unwrap()]).expect(0);
    for (flag, path) in [("--secret", Path::new(&secret)), ("--ticket", &ticket)] {
        allow_others(path);
        let path = path.to_str().unwrap();
        let outcome = run(nameless(&swarm, &["nodes", flag, path]), "").expect(2);
        assert!(outcome.stderr.contains(&format!("chmod 600 {path}")), "{outcome:?}");
    }
}

#[test]
fn a_secret_is_printed_when_asked_for_and_never_as_json() {
    let swarm = Swarm::new();
    let printed = swarm.run(&["secret", "new"]).expect(0).stdout;
    assert!(printed.starts_with("multinodes-secret-1:") && printed.trim().len() == 63, "{printed}");
    assert_ne!(printed, swarm.run(&["secret", "new"]).expect(0).stdout);
    assert!(swarm.run(&["secret", "new", "--json"]).expect(2).stdout.is_empty());
    assert!(swarm.run(&["ticket", "--json"]).expect(2).stdout.is_empty());
    let path = secret(&swarm, "secret");
    let again = swarm.run(&["secret", "new", &path]).expect(2);
    assert!(again.stderr.contains(&path), "a file is not written over: {again:?}");
}

#[test]
fn neither_logs_nor_json_have_the_secret_or_the_ticket_in_them() {
    let swarm = Swarm::new();
    let path = secret(&swarm, "secret");
    let text = fs::read_to_string(&path).unwrap();
    let hidden = &text.trim()[20..];
    let start = |name: &str| {
        let mut command = nameless(&swarm, &["start", "--json", "-vvv", "--name", name, "--listen"]);
        command.args(["/ip4/127.0.0.1/tcp/0", "--secret", &path]);
        common::Process::spawn(name, command)
    };
    let (mut alpha, mut beta) = (start("alpha"), start("beta"));
    alpha.sees("beta");
    beta.sees("alpha");
    let ticket = run(nameless(&swarm, &["ticket", "-vvv", "--secret", &path]), "").expect(0);
    let ticket_text = &ticket.stdout.trim()[40..];
    let mut said = ticket.stderr.clone();
    said += &run(nameless(&swarm, &["info", "alpha", "--json", "-vvv", "--secret", &path]), "").expect(0).stdout;
    for process in [&mut alpha, &mut beta] {
        process.signal("TERM");
        let complaints = process.complaints();
        assert!(complaints.len() > 1000, "it has logged: {complaints}");
        said += &complaints;
        said += &format!("{:?}", process.heard);
    }
    assert!(!said.contains(hidden) && !said.contains(ticket_text));
}
