//! Our multicast discovery and libp2p's own find each other, on many interfaces, in a network of their own.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::{collections::HashSet, net::IpAddr, process::Command, time::Duration};

use common::config;
use futures::StreamExt;
use libp2p::{Multiaddr, PeerId, Swarm, identity::Keypair, mdns, multiaddr::Protocol, swarm, swarm::SwarmEvent};
use multinodes_behaviour::{Behaviour, BehaviourEvent, Config, build, local, transport};
use tokio::time::timeout;

const LIMIT: Duration = Duration::from_secs(30);

/// More than one socket of Linux may listen on by default.
const INTERFACES: usize = 25;

/// Runs a test again in a network of its own, unless it is there already. False where the system does not allow that.
fn is_within(test: &str) -> bool {
    const WITHIN: &str = "MULTINODES_TEST_WITHIN";
    if std::env::var_os(WITHIN).is_some() {
        return true;
    }
    let unshare = |script: &str| {
        let mut command = Command::new("unshare");
        command.args(["--map-root-user", "--net", "sh", "-ec", script]).arg(std::env::current_exe().unwrap());
        command
    };
    if !unshare("ip link add x type veth peer name y").output().is_ok_and(|output| output.status.success()) {
        return false;
    }
    let script = format!(
        "ip link set lo up
         for number in $(seq {INTERFACES}); do
             ip link add lan$number type veth peer name far$number
             ip addr add 10.66.$number.1/24 dev lan$number
             ip link set lan$number up
             ip link set far$number up
         done
         exec \"$0\" --exact {test} --nocapture"
    );
    let output = unshare(&script).env(WITHIN, "yes").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
    false
}

fn ours(passive: bool, interfaces: &[&str]) -> Swarm<Behaviour> {
    let interfaces = interfaces.iter().map(|name| (*name).to_owned()).collect();
    let mut swarm = build(&Config { mdns: true, passive, interfaces, ..config("default") }).unwrap();
    if !passive {
        swarm.listen_on("/ip4/0.0.0.0/tcp/0".parse().unwrap()).unwrap();
    }
    swarm
}

fn libp2ps() -> Swarm<mdns::tokio::Behaviour> {
    let keypair = Keypair::generate_ed25519();
    let peer_id = keypair.public().to_peer_id();
    let behaviour = mdns::tokio::Behaviour::new(mdns::Config::default(), peer_id).unwrap();
    let transport = transport::new(&keypair).unwrap();
    let mut swarm = Swarm::new(transport, behaviour, peer_id, swarm::Config::with_tokio_executor());
    swarm.listen_on("/ip4/0.0.0.0/tcp/0".parse().unwrap()).unwrap();
    swarm
}

/// The addresses of `sought` that an event tells.
fn told(event: &SwarmEvent<BehaviourEvent>, sought: PeerId) -> Vec<IpAddr> {
    match event {
        SwarmEvent::Behaviour(BehaviourEvent::Local(local::Event::Found(found))) => {
            found.iter().filter(|(peer_id, _)| *peer_id == sought).filter_map(|(_, address)| ip(address)).collect()
        }
        SwarmEvent::Behaviour(BehaviourEvent::Local(event)) => panic!("{event:?}"),
        _ => Vec::new(),
    }
}

fn ip(address: &Multiaddr) -> Option<IpAddr> {
    match address.iter().next()? {
        Protocol::Ip4(ip) => Some(ip.into()),
        Protocol::Ip6(ip) => Some(ip.into()),
        _ => None,
    }
}

#[tokio::test]
async fn ours_and_libp2ps_find_each_other() {
    if !is_within("ours_and_libp2ps_find_each_other") {
        return;
    }
    let (mut ours, mut theirs) = (ours(false, &[]), libp2ps());
    let (our_id, their_id) = (*ours.local_peer_id(), *theirs.local_peer_id());
    let (mut found_by_us, mut found_by_them) = (HashSet::new(), HashSet::new());
    // As many as are remembered of one peer, and all.
    let complete = async {
        while found_by_us.len() < 16 || found_by_them.len() < INTERFACES {
            tokio::select! {
                event = ours.select_next_some() => found_by_us.extend(told(&event, their_id)),
                event = theirs.select_next_some() => {
                    if let SwarmEvent::Behaviour(mdns::Event::Discovered(found)) = event {
                        let found = found.iter().filter(|(peer_id, _)| *peer_id == our_id);
                        found_by_them.extend(found.filter_map(|(_, address)| ip(address)));
                    }
                }
            }
        }
    };
    let in_time = timeout(LIMIT, complete).await.is_ok();
    assert!(in_time, "found by us {found_by_us:?}, by libp2p's {found_by_them:?}");
}

#[tokio::test]
async fn on_an_interface_that_is_named_and_no_other() {
    if !is_within("on_an_interface_that_is_named_and_no_other") {
        return;
    }
    let (mut passive, mut theirs) = (ours(true, &["lan7"]), libp2ps());
    let their_id = *theirs.local_peer_id();
    let mut found = HashSet::new();
    let mut collect = async |found: &mut HashSet<IpAddr>, at_least: usize, time: Duration| {
        timeout(time, async {
            while found.len() < at_least {
                tokio::select! {
                    event = passive.select_next_some() => found.extend(told(&event, their_id)),
                    _ = theirs.select_next_some() => {}
                }
            }
        })
        .await
        .is_ok()
    };
    assert!(collect(&mut found, 1, LIMIT).await, "nobody was found");
    // Libp2p's asks and is answered on all interfaces in the first second.
    assert!(!collect(&mut found, 2, Duration::from_millis(1_500)).await, "{found:?}");
    assert_eq!(found, HashSet::from(["10.66.7.1".parse().unwrap()]));
}
