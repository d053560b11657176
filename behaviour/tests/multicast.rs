//! Multicast, in a network of its own, so that nothing outside is reached:
//!
//! ```text
//! unshare -rn sh -c 'ip link set lo up; ip addr add 10.99.0.1/32 dev lo; cargo test -p multinodes-behaviour --test multicast -- --ignored --test-threads 1'
//! ```

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test may panic, and tells a time")]

mod common;

use std::{net::UdpSocket, time::Instant};

use common::{Either, config, until};
use libp2p::swarm::SwarmEvent;
use multinodes_behaviour::{Behaviour, BehaviourEvent, Config, build, local};

fn node(passive: bool) -> libp2p::Swarm<Behaviour> {
    let mut swarm = build(&Config { mdns: true, passive, ..config("default") }).unwrap();
    if !passive {
        for address in ["/ip4/0.0.0.0/tcp/0", "/ip6/::/tcp/0"] {
            swarm.listen_on(address.parse().unwrap()).unwrap();
        }
    }
    swarm
}

#[tokio::test]
#[ignore = "needs a network of its own, see above"]
async fn nodes_of_one_network_find_each_other_at_once() {
    let start = Instant::now();
    let [mut one, mut two] = [node(false), node(false)];
    let (first, second) = (*one.local_peer_id(), *two.local_peer_id());
    let mut found = [false; 2];
    until(&mut one, &mut two, |_, event| {
        match event {
            Either::One(SwarmEvent::Behaviour(BehaviourEvent::Local(event))) => found[0] |= has(event, second),
            Either::Two(SwarmEvent::Behaviour(BehaviourEvent::Local(event))) => found[1] |= has(event, first),
            _ => {}
        }
        (found == [true; 2]).then_some(())
    })
    .await;
    eprintln!("found after {:?}", start.elapsed());
}

#[tokio::test]
#[ignore = "needs a network of its own, see above"]
async fn a_passive_node_finds_and_is_not_found() {
    let [mut one, mut passive] = [node(false), node(true)];
    let (listening, hidden) = (*one.local_peer_id(), *passive.local_peer_id());
    let start = Instant::now();
    until(&mut one, &mut passive, |_, event| match event {
        Either::One(SwarmEvent::Behaviour(BehaviourEvent::Local(event))) => {
            assert!(!has(event, hidden), "a passive node was announced");
            None
        }
        Either::Two(SwarmEvent::Behaviour(BehaviourEvent::Local(event))) => has(event, listening).then_some(()),
        _ => None,
    })
    .await;
    eprintln!("found after {:?}", start.elapsed());
}

#[tokio::test]
#[ignore = "needs a network of its own, see above"]
async fn a_port_that_cannot_be_shared_is_told() {
    let holder = UdpSocket::bind("0.0.0.0:5353").unwrap();
    let [mut one, mut two] = [node(false), node(false)];
    let reason = until(&mut one, &mut two, |_, event| match event {
        Either::One(SwarmEvent::Behaviour(BehaviourEvent::Local(local::Event::Degraded { reason }))) => Some(reason),
        _ => None,
    })
    .await;
    assert!(reason.contains("5353") && reason.contains("`--join`"), "{reason}");
    drop(holder);
    until(&mut one, &mut two, |_, event| match event {
        Either::One(SwarmEvent::Behaviour(BehaviourEvent::Local(local::Event::Found(_)))) => Some(()),
        _ => None,
    })
    .await;
}

fn has(event: local::Event, sought: libp2p::PeerId) -> bool {
    match event {
        local::Event::Found(list) => list.iter().any(|(peer_id, _)| *peer_id == sought),
        event => panic!("{event:?}"),
    }
}
