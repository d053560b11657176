//! Addresses to join through where nobody of the swarm answers: what each of them answers is said soon, and they are tried on.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{
    net::TcpListener,
    time::{Duration, Instant},
};

use common::{Process, Swarm};
use multinodes::PeerId;

/// It is said after two seconds; a dial that is silent takes five, and on a busy machine nothing is sooner.
const SOON: Duration = Duration::from_millis(4_500);

/// A port on which nobody listens.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// The port of the first address that a node has said.
fn port(node: &mut Process) -> u16 {
    let started = node.started();
    started["addresses"][0].as_str().unwrap().split('/').nth(4).unwrap().parse().unwrap()
}

/// A name that no resolver has to ask anybody for: it is none.
fn no_name() -> String {
    format!("{}.invalid:4001", "x".repeat(64))
}

#[test]
fn what_each_address_answers_is_said_soon_and_it_is_tried_on() {
    let swarm = Swarm::new();
    let secret = swarm.path("secret");
    swarm.run(&["secret", "new", secret.to_str().unwrap()]).expect(0);
    let alone = ["--no-rendezvous"];
    let mut other = swarm.start("other", &["--no-rendezvous", "--swarm", "another"]);
    let mut private = swarm.start("private", &["--no-rendezvous", "--secret", secret.to_str().unwrap()]);
    let mut known = swarm.start("known", &alone);
    // It takes connections, and says nothing.
    let deaf = TcpListener::bind("127.0.0.1:0").unwrap();
    let refused = free_port();
    let cases = [
        (format!("127.0.0.1:{refused}"), "refused: nobody listens there"),
        (format!("localhost:{refused}"), "/ip4/127.0.0.1/tcp/"),
        (
            format!("127.0.0.1:{}", deaf.local_addr().unwrap().port()),
            "it listens, but has not answered the handshake within 1.5s",
        ),
        (format!("127.0.0.1:{}", port(&mut other)), "it belongs to another swarm"),
        (format!("127.0.0.1:{}", port(&mut private)), ""),
        (format!("/ip4/127.0.0.1/tcp/{}/p2p/{}", port(&mut known), PeerId::random()), "another peer answers, `12D3"),
        (no_name(), "the name cannot be resolved: "),
    ];
    let begun = Instant::now();
    let mut arguments = alone.to_vec();
    cases.iter().for_each(|(address, _)| arguments.extend(["--join", address.as_str()]));
    let mut alpha = swarm.start("alpha", &arguments);
    for (address, answer) in &cases {
        let line = alpha.wait_for(address, |line| {
            line.value["event"] == "join_failed" && line.value["address"].as_str() == Some(address)
        });
        let reason = line.value["reason"].as_str().unwrap();
        assert!(reason.contains(answer), "{address}: {reason}");
        let after = line.when.duration_since(begun);
        assert!(after < SOON, "{address}: after {after:?}");
    }
    // The same again is not said again, and one that comes up is joined.
    let listen = format!("/ip4/127.0.0.1/tcp/{refused}");
    let late = ["start", "--json", "--until-stdin-closes", "--name", "late", "--no-rendezvous", "--listen", &listen];
    let mut late = Process::spawn("late", swarm.command(&late));
    late.started();
    alpha.sees("late");
    let said = alpha.heard.iter().filter(|line| line.value["address"].as_str() == Some(&cases[0].0)).count();
    assert_eq!(said, 1);
}

#[test]
fn a_command_that_finds_nobody_says_what_the_addresses_answer() {
    let swarm = Swarm::new();
    let deaf = TcpListener::bind("127.0.0.1:0").unwrap();
    let (refused, deaf) =
        (format!("127.0.0.1:{}", free_port()), format!("127.0.0.1:{}", deaf.local_addr().unwrap().port()));
    let name = no_name();
    let joins = ["--no-rendezvous", "--join", &refused, "--join", &deaf, "--join", &name];
    for (verb, code) in [
        (&["nodes"][..], 0),
        (&["apps"], 0),
        (&["info", "alpha"], 1),
        (&["call", "node", "echo", "1"], 1),
        (&["tell", "node", "1"], 1),
        (&["ping", "alpha"], 1),
        (&["explain", "node"], 1),
    ] {
        let outcome = swarm.run(&[verb, &joins].concat()).expect(code);
        for (address, answer) in
            [(&refused, "refused: nobody"), (&deaf, "it listens, but"), (&name, "the name cannot be")]
        {
            let said = format!("at `{address}` ({answer}");
            assert!(outcome.stderr.contains(&said), "{verb:?}: `{said}` is missing: {outcome:?}");
        }
    }
}

#[test]
fn people_are_told_without_any_flag() {
    let swarm = Swarm::new();
    let address = format!("127.0.0.1:{}", free_port());
    let arguments = ["start", "--until-stdin-closes", "--name", "alpha", "--no-rendezvous", "--join", &address];
    let mut alpha = Process::spawn("alpha", swarm.command(&arguments));
    let wanted = format!("! cannot join through `{address}` yet: refused: nobody listens there");
    alpha
        .wait_for("what the address answers", |line| line.value.as_str().is_some_and(|line| line.starts_with(&wanted)));
}
