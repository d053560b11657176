//! `start` and `events`: what they print, and how they end.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test fails by panicking, and prints what it has measured"
)]

mod common;

use common::Swarm;

#[test]
fn the_first_line_says_who_it_is_and_how_to_reach_it() {
    let swarm = Swarm::new();
    let mut alpha = swarm.launch("alpha", &[]);
    let started = alpha.started();
    assert_eq!(started["name"], "alpha");
    let peer_id = started["peer_id"].as_str().unwrap();
    let addresses = started["addresses"].as_array().unwrap();
    assert!(!addresses.is_empty());
    for address in addresses {
        let address = address.as_str().unwrap();
        assert!(
            address.starts_with("/ip4/127.0.0.1/tcp/") && address.ends_with(&format!("/p2p/{peer_id}")),
            "{address}"
        );
        assert!(!address.contains("/tcp/0/"), "the port is known: {address}");
    }
}

#[test]
fn sigterm_and_sigint_stop_it_gracefully() {
    let swarm = Swarm::new();
    for signal in ["TERM", "INT"] {
        let mut alpha = swarm.start("alpha", &[]);
        alpha.signal(signal);
        assert_eq!(alpha.end(), 0, "after SIG{signal}");
        assert!(alpha.heard.last().unwrap().is("stopped", "alpha"), "the last line: {:?}", alpha.heard.last());
    }
}

#[test]
fn nodes_show_each_other_join_and_leave() {
    let swarm = Swarm::new();
    let mut alpha = swarm.start("alpha", &[]);
    let mut beta = swarm.start("beta", &["--demo-applications", "calculator"]);
    assert_eq!(alpha.sees("beta").value["peer_id"].as_str().unwrap(), beta.peer_id());
    assert_eq!(beta.sees("alpha").value["peer_id"].as_str().unwrap(), alpha.peer_id());
    alpha.wait_for("beta's calculator", |line| {
        let applications = line.value["applications"].as_array();
        line.value["name"] == "beta" && applications.is_some_and(|all| all.iter().any(|name| name == "calculator"))
    });
    beta.signal("TERM");
    assert_eq!(beta.end(), 0);
    assert_eq!(alpha.misses("beta").value["reason"], "stopped");
}

#[test]
fn an_address_from_the_first_line_is_enough_to_join() {
    let swarm = Swarm::new();
    let alone = &["--no-rendezvous"];
    let mut alpha = swarm.start("alpha", alone);
    let address = alpha.started()["addresses"][0].as_str().unwrap().to_owned();
    let mut beta = swarm.start("beta", &["--no-rendezvous", "--join", &address]);
    alpha.sees("beta");
    beta.sees("alpha");
    let outcome = swarm.run(&["nodes", "--json", "--no-rendezvous", "--join", &address]).expect(0);
    assert_eq!(common::names(&outcome.json()), ["alpha", "beta"]);
}

#[test]
fn one_name_held_twice_is_shown_as_a_conflict() {
    let swarm = Swarm::new();
    let mut first = swarm.start("twin", &[]);
    let mut second = swarm.start("twin", &[]);
    let mut peer_ids = [first.peer_id(), second.peer_id()];
    peer_ids.sort();
    let conflict = first.wait_for("a name conflict", |line| line.is("name_conflict", "twin")).value;
    let mut shown: Vec<_> = conflict["peer_ids"].as_array().unwrap().iter().filter_map(|id| id.as_str()).collect();
    shown.sort_unstable();
    assert_eq!(shown, peer_ids);
    second.wait_for("a name conflict", |line| line.is("name_conflict", "twin"));
    assert_eq!(first.heard.iter().filter(|line| line.value["event"] == "name_conflict").count(), 1);
    let outcome = swarm.run(&["nodes"]).expect(0);
    assert!(peer_ids.iter().all(|peer_id| outcome.stderr.contains(peer_id)), "{outcome:?}");
    let mut third = common::Process::spawn("twin", swarm.command(&["start", "--name", "twin", "--no-mdns"]));
    third.wait_for("a name conflict for people", |line| {
        line.value.as_str().is_some_and(|text| text.contains("nodes are called `twin`"))
    });
    drop(third);
    let outcome = swarm.run(&["call", "node", "echo", "1", "--node", "twin"]).expect(1);
    assert!(peer_ids.iter().all(|peer_id| outcome.stderr.contains(peer_id)), "{outcome:?}");
    swarm.run(&["call", "node", "echo", "1", "--node", &peer_ids[0]]).expect(0);
}

#[test]
fn events_is_a_live_feed_that_ends_when_interrupted() {
    let swarm = Swarm::new();
    let _alpha = swarm.start("alpha", &[]);
    let mut events = common::Process::spawn("events", swarm.command(&["events", "--json"]));
    events.sees("alpha");
    let mut beta = swarm.start("beta", &[]);
    events.sees("beta");
    beta.signal("TERM");
    assert_eq!(beta.end(), 0);
    events.misses("beta");
    events.signal("INT");
    assert_eq!(events.end(), 0);
}

#[test]
fn settings_come_from_the_file_and_unknown_keys_are_refused() {
    let swarm = Swarm::new();
    std::fs::write(
        swarm.path("multinodes.toml"),
        "[start]\nname = 'from-the-file'\nlisten = ['/ip4/127.0.0.1/tcp/0']\n",
    )
    .unwrap();
    let mut node = common::Process::spawn("node", swarm.command(&["start", "--json"]));
    assert_eq!(node.started()["name"], "from-the-file");
    std::fs::write(swarm.path("multinodes.toml"), "swram = 'typo'\n").unwrap();
    let outcome = swarm.run(&["nodes"]).expect(2);
    assert!(outcome.stderr.contains("`swram`"), "{outcome:?}");
}

#[test]
fn what_cannot_be_used_is_named() {
    let swarm = Swarm::new();
    let outcome = swarm.run(&["start", "--listen", "not-an-address"]).expect(2);
    assert!(outcome.stderr.contains("not-an-address"), "{outcome:?}");
    let outcome = swarm.run(&["start", "--swarm", "no spaces"]).expect(2);
    assert!(outcome.stderr.contains("no spaces"), "{outcome:?}");
    std::fs::write(swarm.path("foreign.key"), "this is no key").unwrap();
    let outcome = swarm.run(&["start", "--identity", "foreign.key"]).expect(2);
    assert!(outcome.stderr.contains("foreign.key"), "{outcome:?}");
}

#[test]
fn a_rendezvous_folder_of_no_use_is_said_and_nothing_else_breaks() {
    let swarm = Swarm::new();
    std::fs::create_dir_all(swarm.runtime_dir()).unwrap();
    let file = swarm.runtime_dir().join("multinodes");
    std::fs::write(&file, "in the way").unwrap();
    let mut alpha = swarm.start("alpha", &[]);
    let line = alpha.wait_for("what does not work", |line| line.value["event"] == "degraded");
    assert!(line.value["reason"].as_str().unwrap().contains(file.to_str().unwrap()), "{line:?}");
    let address = alpha.started()["addresses"][0].as_str().unwrap().to_owned();
    swarm.run(&["call", "node", "echo", "1", "--join", &address]).expect(0);
}

#[test]
fn a_folder_of_the_system_that_is_of_no_use_is_said_with_the_one_that_is_used() {
    let swarm = Swarm::new();
    let temporary = swarm.path("temporary");
    std::fs::create_dir(&temporary).unwrap();
    let command = |arguments: &[&str]| {
        let mut command = swarm.command(arguments);
        command.env_remove("MULTINODES_RUNTIME_DIR").env("XDG_RUNTIME_DIR", "/no/such/folder");
        command.env("TMPDIR", &temporary);
        command
    };
    let nobody = common::run(command(&["info", "alpha"]), "").expect(1);
    let mut alpha = common::Process::spawn("alpha", command(&["start", "--json", "--name", "alpha"]));
    let line = alpha.wait_for("what does not work", |line| line.value["event"] == "degraded");
    for said in [&nobody.stderr, line.value["reason"].as_str().unwrap()] {
        let parts = [temporary.to_str().unwrap(), "XDG_RUNTIME_DIR, `/no/such/folder`, is no folder"];
        assert!(parts.iter().all(|part| said.contains(part)), "{said}");
    }
    common::run(command(&["info", "alpha"]), "").expect(0);
}

#[test]
fn a_port_in_use_is_named() {
    let swarm = Swarm::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let outcome = swarm.run(&["start", "--listen", &format!("/ip4/127.0.0.1/tcp/{port}")]).expect(2);
    assert!(outcome.stderr.contains(&port), "{outcome:?}");
}

#[test]
fn a_call_that_runs_is_finished_before_the_node_ends() {
    let swarm = Swarm::new();
    let mut alpha = swarm.start("alpha", &["--demo-applications", "clock"]);
    let sleeper = sleep(&swarm, "400");
    alpha.signal("TERM");
    let outcome = sleeper.join().unwrap();
    assert_eq!((outcome.code, outcome.stdout.as_str()), (0, "null\n"), "{outcome:?}");
    assert_eq!(alpha.end(), 0);
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let swarm = Swarm::new();
    let mut alpha = swarm.start("alpha", &["--demo-applications", "clock"]);
    let mut beta = swarm.start("beta", &[]);
    beta.sees("alpha");
    let sleeper = sleep(&swarm, "60000");
    let begin = std::time::Instant::now();
    alpha.signal("INT");
    swarm.until_code(1, &["call", "clock", "asleep"]);
    alpha.signal("INT");
    assert_eq!(alpha.end(), 128 + 2);
    assert!(begin.elapsed() < std::time::Duration::from_secs(9), "not because the call ran out of time");
    assert_eq!(sleeper.join().unwrap().code, 1);
}

/// Calls the clock of the swarm, and comes back when the call runs there.
fn sleep(swarm: &Swarm, milliseconds: &str) -> std::thread::JoinHandle<common::Outcome> {
    let command = swarm.command(&["call", "clock", "sleep", milliseconds]);
    let sleeper = std::thread::spawn(move || common::run(command, ""));
    swarm.until(&["call", "clock", "asleep"], |count| *count == 1);
    sleeper
}

#[test]
fn accepted_tells_that_are_not_finished_in_time_are_counted_and_shown_in_the_exit_code() {
    let swarm = Swarm::new();
    let slow = "slow=sleep 60";
    let mut alpha = swarm.start("alpha", &["--exec", slow, "--drain", "200ms"]);
    for _ in 0..3 {
        swarm.run(&["tell", "slow", "1"]).expect(0);
    }
    alpha.signal("TERM");
    assert_eq!(alpha.end(), 124);
    let complaints = alpha.complaints();
    assert!(complaints.contains("3 accepted tells were not finished"), "{complaints}");
}

#[test]
fn no_time_at_all_is_refused_by_the_flag_that_says_so() {
    let swarm = Swarm::new();
    for arguments in [&["nodes", "--timeout", "0s"][..], &["ping", "alpha", "--interval", "0s"]] {
        let outcome = swarm.run(arguments).expect(2);
        assert!(outcome.stderr.contains(arguments[arguments.len() - 2]), "{outcome:?}");
        assert!(outcome.stderr.contains("longer than 0"), "{outcome:?}");
    }
}
