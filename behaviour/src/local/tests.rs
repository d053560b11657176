use super::*;

fn behaviour() -> Behaviour {
    Behaviour::new(PeerId::random(), false)
}

fn address(text: &str) -> Multiaddr {
    text.parse().unwrap()
}

#[test]
fn addresses_that_mean_nothing_to_others_are_left_out_and_peer_ids_stripped() {
    let mut local = behaviour();
    let peer_id = PeerId::random();
    let heard = [
        address("/ip4/127.0.0.1/tcp/1"),
        address("/ip6/::1/tcp/1"),
        address("/ip6/fe80::1/tcp/1"),
        address("/dns4/example.org/tcp/1"),
        address("/ip4/10.0.0.1/tcp/1").with(Protocol::P2p(peer_id)),
        address("/ip6/fd00::1/tcp/1"),
        address("/ip4/10.0.0.1/tcp/1"),
    ];
    local.on_discovered(heard.map(|address| (peer_id, address)).to_vec());
    let found = vec![(peer_id, address("/ip4/10.0.0.1/tcp/1")), (peer_id, address("/ip6/fd00::1/tcp/1"))];
    assert_eq!(local.events, [Event::Found(found)]);
}

#[test]
fn the_table_of_what_was_found_is_bounded() {
    let mut local = behaviour();
    let peer_id = PeerId::random();
    let many = (1..100).map(|port| (peer_id, address(&format!("/ip4/10.0.0.1/tcp/{port}"))));
    local.on_discovered(many.collect());
    assert_eq!(local.found[&peer_id].len(), MAX_ADDRESSES);
    let others = (0..2 * MAX_PEERS).map(|_| (PeerId::random(), address("/ip4/10.0.0.2/tcp/1")));
    local.on_discovered(others.collect());
    assert_eq!(local.found.len(), MAX_PEERS);
}

#[test]
fn what_has_expired_makes_room_and_is_found_again() {
    let mut local = behaviour();
    let heard = vec![(PeerId::random(), address("/ip4/10.0.0.1/tcp/1"))];
    local.on_discovered(heard.clone());
    local.on_expired(&heard);
    assert!(local.found.is_empty());
    local.on_discovered(heard.clone());
    let found = Event::Found(heard.clone());
    assert_eq!(local.events, [found.clone(), Event::Silent(vec![heard[0].0]), found]);
}

#[test]
fn a_failure_is_told_once_and_names_the_remedy() {
    let mut local = behaviour();
    let error = || ProbeError::Port(std::io::ErrorKind::AddrInUse.into());
    local.on_failure(Family::V6, &error());
    assert!(local.events.is_empty(), "IPv4 may still work");
    local.on_failure(Family::V4, &error());
    local.on_failure(Family::V4, &error());
    assert_eq!(local.events.len(), 1);
    let Some(Event::Degraded { reason }) = local.events.pop_front() else { panic!("another event") };
    assert!(reason.contains("5353") && reason.contains("`--join`"), "{reason}");
}

#[tokio::test]
async fn nothing_starts_while_only_loopback_is_known() {
    let mut local = behaviour();
    let loopback = address("/ip4/127.0.0.1/tcp/1");
    let event = NewListenAddr { listener_id: ListenerId::next(), addr: &loopback };
    local.on_swarm_event(FromSwarm::NewListenAddr(event));
    assert!(local.sources.iter().all(|source| source.running.is_none() && !source.failed));
}
