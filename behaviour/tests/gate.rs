//! Who gets in, and what a peer sees of a node that has not decided yet.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::sync::Arc;

use common::{Either, config, listen, until};
use libp2p::{
    Multiaddr, PeerId, StreamProtocol, Swarm, gossipsub, identify, kad,
    request_response::{Event as Exchange, Message, OutboundFailure},
    swarm::{ConnectionId, DialError, ListenError, SwarmEvent, dial_opts::DialOpts},
};
use multinodes_behaviour::{
    Admission, Behaviour, BehaviourEvent, BuildError, Config, Doorkeeper, SwarmName, build, gate,
    identity::{CredentialError, MAX_CREDENTIAL, credential_of},
    lanes::{LaneStream, OpenError},
    rationed,
    wire::{SyncRequest, SyncResponse},
};
use tokio::sync::oneshot;

const TCP: &str = "/ip4/127.0.0.1/tcp/0";

/// Says the same of everybody.
struct Says(Admission);

impl Doorkeeper for Says {
    fn decide(&self, _: &PeerId) -> Admission {
        self.0
    }
}

fn saying(admission: Admission) -> Config {
    Config { doorkeeper: Some(Arc::new(Says(admission))), ..config("here") }
}

fn ungated() -> Config {
    config("here")
}

#[tokio::test]
async fn a_denied_peer_cannot_connect() {
    let (mut one, mut two) = (build(&saying(Admission::Denied)).unwrap(), build(&ungated()).unwrap());
    let address = listen(&mut one, TCP).await;
    two.dial(address).unwrap();
    let dialler = *two.local_peer_id();
    until(&mut one, &mut two, |_, event| match event {
        Either::One(SwarmEvent::IncomingConnectionError { peer_id, error: ListenError::Denied { cause }, .. }) => {
            assert_eq!(peer_id, Some(dialler));
            assert_eq!(cause.downcast_ref::<gate::Denied>(), Some(&gate::Denied));
            Some(())
        }
        Either::One(SwarmEvent::ConnectionEstablished { .. }) => panic!("it is let in"),
        _ => None,
    })
    .await;
    nothing_is_left(&one);
}

#[tokio::test]
async fn a_denied_peer_is_not_dialled() {
    let (mut one, mut two) = (build(&ungated()).unwrap(), build(&saying(Admission::Denied)).unwrap());
    let address = listen(&mut one, TCP).await;
    two.dial(address.clone()).unwrap();
    until(&mut one, &mut two, |_, event| match event {
        Either::Two(SwarmEvent::OutgoingConnectionError { error: DialError::Denied { cause }, .. }) => {
            assert!(cause.downcast::<gate::Denied>().is_ok());
            Some(())
        }
        Either::Two(SwarmEvent::ConnectionEstablished { .. }) => panic!("it is connected"),
        _ => None,
    })
    .await;
    nothing_is_left(&two);
    let known = DialOpts::peer_id(*one.local_peer_id()).addresses(vec![address]).build();
    let Err(DialError::Denied { cause }) = two.dial(known) else { panic!("a denied peer is dialled") };
    assert!(cause.downcast_ref::<gate::Denied>().is_some());
}

#[tokio::test]
async fn nothing_passes_between_pending_peers_until_both_admit() {
    for address in [TCP, "/memory/0"] {
        let mut pair = Pair::new(saying(Admission::Pending), saying(Admission::Pending), address).await;
        for side in [0, 1] {
            assert!(matches!(pair.lane(side).await, Err(OpenError::NotConnected)));
            assert!(pair.publish(side).is_err());
        }
        pair.admit(0);
        assert!(matches!(pair.lane(0).await, Err(OpenError::Unsupported)));
        assert!(matches!(pair.sync_refused(0).await, OutboundFailure::UnsupportedProtocols));
        assert!(matches!(pair.lane(1).await, Err(OpenError::NotConnected)));
        assert!([0, 1].iter().all(|side| pair.publish(*side).is_err()));
        pair.admit(1);
        pair.all_protocols_work().await;
    }
}

#[tokio::test]
async fn a_pending_peer_that_admits_is_refused_until_it_is_admitted_itself() {
    let mut pair = Pair::new(saying(Admission::Pending), ungated(), TCP).await;
    assert!(matches!(pair.lane(1).await, Err(OpenError::Unsupported)));
    assert!(matches!(pair.sync_refused(1).await, OutboundFailure::UnsupportedProtocols));
    assert!([0, 1].iter().all(|side| pair.publish(*side).is_err()));
    pair.admit(0);
    pair.all_protocols_work().await;
}

#[tokio::test]
async fn an_admitted_peer_is_let_in_at_once() {
    let mut pair = Pair::new(saying(Admission::Admitted), saying(Admission::Admitted), TCP).await;
    pair.all_protocols_work().await;
    assert_eq!(pair.swarms[0].behaviour().gate.pending(), 0);
}

#[tokio::test]
async fn kademlia_hears_what_identify_told_while_it_was_kept_out() {
    let mut pair = Pair::new(saying(Admission::Pending), ungated(), TCP).await;
    pair.admit(0);
    let peer_id = *pair.swarms[1].local_peer_id();
    let [one, two] = &mut pair.swarms;
    until(one, two, |_, event| match event {
        Either::One(SwarmEvent::Behaviour(BehaviourEvent::Kademlia(rationed::Event::Inner(
            kad::Event::RoutablePeer { peer, .. } | kad::Event::UnroutablePeer { peer },
        )))) => (peer == peer_id).then_some(()),
        Either::One(SwarmEvent::Behaviour(BehaviourEvent::Identify(identify::Event::Received { .. }))) => {
            panic!("it was told by identify")
        }
        _ => None,
    })
    .await;
}

#[tokio::test]
async fn a_connection_that_closes_while_it_is_pending_leaves_nothing() {
    let mut pair = Pair::new(saying(Admission::Pending), ungated(), TCP).await;
    let peer_id = *pair.swarms[1].local_peer_id();
    let [one, two] = &mut pair.swarms;
    assert!(one.behaviour().gate.is_pending(&peer_id));
    one.behaviour_mut().sync.send_request(&peer_id, SyncRequest::Release);
    assert!(one.close_connection(pair.ids[0]));
    let (mut closed, mut failed) = (false, false);
    until(one, two, |_, event| {
        match event {
            Either::One(SwarmEvent::ConnectionClosed { .. }) => closed = true,
            Either::One(SwarmEvent::Behaviour(BehaviourEvent::Sync(Exchange::OutboundFailure { error, .. }))) => {
                assert!(matches!(error, OutboundFailure::DialFailure), "{error}");
                failed = true;
            }
            _ => {}
        }
        (closed && failed).then_some(())
    })
    .await;
    nothing_is_left(one);
    one.behaviour_mut().admit(peer_id);
    nothing_is_left(one);
}

#[tokio::test]
async fn all_connections_of_a_peer_are_admitted_and_one_of_them_is_enough() {
    let mut pair = Pair::new(saying(Admission::Pending), ungated(), TCP).await;
    let more = pair.dial_again().await;
    assert_eq!(pair.swarms[0].behaviour().gate.pending(), 2);
    pair.admit(0);
    assert_eq!(pair.swarms[0].behaviour().gate.pending(), 0);
    assert_eq!(pair.swarms[0].behaviour().gossip.connections(), 2);
    assert!(pair.swarms[0].close_connection(pair.ids[0]));
    let [one, two] = &mut pair.swarms;
    let mut closed = 0;
    until(one, two, |_, event| {
        closed += usize::from(matches!(
            event,
            Either::One(SwarmEvent::ConnectionClosed { .. }) | Either::Two(SwarmEvent::ConnectionClosed { .. })
        ));
        (closed == 2).then_some(())
    })
    .await;
    pair.ids = more;
    pair.all_protocols_work().await;
    // What is new is decided anew, and does not disturb what is inside.
    pair.dial_again().await;
    assert_eq!(pair.swarms[0].behaviour().gate.pending(), 1);
    let stream = pair.lane(0).await.unwrap();
    drop(stream);
    pair.admit(0);
    assert_eq!(pair.swarms[0].behaviour().gossip.connections(), 2);
}

#[tokio::test]
async fn the_longest_credential_is_shown_beside_many_addresses_and_the_longest_name() {
    let name = "n".repeat(multinodes_behaviour::MAX_SWARM_NAME);
    let credential = "c".repeat(MAX_CREDENTIAL);
    let [one, two] =
        [Some(credential.clone()), None].map(|credential| build(&Config { credential, ..config(&name) }).unwrap());
    let mut pair = Pair { swarms: [one, two], ids: [ConnectionId::new_unchecked(0); 2] };
    for number in 0..20 {
        let address: Multiaddr = format!("/ip6/fd00::{number:x}/tcp/4001").parse().unwrap();
        pair.swarms[0].add_external_address(address);
    }
    let infos = pair.connect(TCP).await;
    assert_eq!(credential_of(&infos[1].agent_version), Some(credential.as_str()));
    assert!(infos[1].listen_addrs.len() > 20);
    assert_eq!(credential_of(&infos[0].agent_version), None);
}

#[test]
fn a_credential_that_cannot_be_shown_is_an_error() {
    let too_long = Config { credential: Some("c".repeat(MAX_CREDENTIAL + 1)), ..ungated() };
    let Err(BuildError::Credential(error)) = Behaviour::new(&too_long).map(|_| ()) else { panic!("it is too long") };
    assert_eq!(error, CredentialError::TooLong { length: MAX_CREDENTIAL + 1 });
    let blank = Config { credential: Some("a b".into()), ..ungated() };
    assert!(matches!(Behaviour::new(&blank).map(|_| ()), Err(BuildError::Credential(CredentialError::Unprintable))));
}

fn nothing_is_left(swarm: &Swarm<Behaviour>) {
    let behaviour = swarm.behaviour();
    assert_eq!(behaviour.gate.pending(), 0);
    assert_eq!(behaviour.kademlia.connections(), 0);
    assert_eq!(behaviour.gossip.connections(), 0);
    assert_eq!(behaviour.sync.connections(), 0);
    assert_eq!(behaviour.lanes.connections(), 0);
}

/// Two swarms, of which the second has dialled the first.
struct Pair {
    swarms: [Swarm<Behaviour>; 2],
    ids: [ConnectionId; 2],
}

impl Pair {
    /// Connects them, and waits until identify has told each of the other.
    async fn new(one: Config, two: Config, address: &str) -> Self {
        let pending = [&one, &two].map(|config| match &config.doorkeeper {
            Some(doorkeeper) => doorkeeper.decide(&PeerId::random()) == Admission::Pending,
            None => false,
        });
        let swarms = [one, two].map(|config| build(&config).unwrap());
        let mut pair = Self { swarms, ids: [ConnectionId::new_unchecked(0); 2] };
        let infos = pair.connect(address).await;
        for (side, info) in infos.iter().enumerate() {
            let others = |shown: &StreamProtocol| shown.as_ref().starts_with("/multinodes/");
            assert_eq!(info.protocols.iter().any(others), !pending[1 - side], "{:?}", info.protocols);
        }
        pair
    }

    async fn connect(&mut self, address: &str) -> [identify::Info; 2] {
        let address = listen(&mut self.swarms[0], address).await;
        self.swarms[1].dial(address).unwrap();
        let [one, two] = &mut self.swarms;
        let (ids, mut infos) = (&mut self.ids, [None, None]);
        until(one, two, |_, event| {
            let (side, event) = of_side(event);
            match event {
                SwarmEvent::ConnectionEstablished { connection_id, .. } => ids[side] = connection_id,
                SwarmEvent::Behaviour(BehaviourEvent::Identify(identify::Event::Received { info, .. })) => {
                    infos[side].get_or_insert(info);
                }
                _ => {}
            }
            infos.iter().all(Option::is_some).then_some(())
        })
        .await;
        infos.map(Option::unwrap)
    }

    /// Gets one more connection.
    async fn dial_again(&mut self) -> [ConnectionId; 2] {
        let [one, two] = &mut self.swarms;
        let address = one.listeners().next().unwrap().clone();
        two.dial(address).unwrap();
        let mut ids = [None; 2];
        until(one, two, |_, event| {
            if let (side, SwarmEvent::ConnectionEstablished { connection_id, .. }) = of_side(event) {
                ids[side] = Some(connection_id);
            }
            Some([ids[0]?, ids[1]?])
        })
        .await
    }

    fn admit(&mut self, side: usize) {
        let peer_id = *self.swarms[1 - side].local_peer_id();
        self.swarms[side].behaviour_mut().admit(peer_id);
    }

    fn publish(&mut self, side: usize) -> Result<gossipsub::MessageId, gossipsub::PublishError> {
        publish(&mut self.swarms[side], side)
    }

    /// Opens a lane from one side.
    async fn lane(&mut self, side: usize) -> Result<LaneStream, OpenError> {
        let peer_id = *self.swarms[1 - side].local_peer_id();
        let (respond_to, mut opened) = oneshot::channel();
        self.swarms[side].behaviour_mut().lanes.open(peer_id, respond_to);
        let [one, two] = &mut self.swarms;
        loop {
            tokio::select! {
                biased;
                outcome = &mut opened => return outcome.unwrap(),
                () = until(one, two, |_, _| Some(())) => {}
            }
        }
    }

    async fn sync_refused(&mut self, side: usize) -> OutboundFailure {
        let peer_id = *self.swarms[1 - side].local_peer_id();
        self.swarms[side].behaviour_mut().sync.send_request(&peer_id, SyncRequest::Release);
        let [one, two] = &mut self.swarms;
        until(one, two, |_, event| match of_side(event) {
            (_, SwarmEvent::Behaviour(BehaviourEvent::Sync(Exchange::OutboundFailure { error, .. }))) => Some(error),
            (_, SwarmEvent::Behaviour(BehaviourEvent::Sync(event))) => panic!("it is served: {event:?}"),
            _ => None,
        })
        .await
    }

    /// A lane, an exchange and a message pass in each direction, on the connection that there is.
    async fn all_protocols_work(&mut self) {
        let ids = self.ids;
        let peer_ids = [*self.swarms[1].local_peer_id(), *self.swarms[0].local_peer_id()];
        let mut opened = Vec::new();
        let mut seen = Seen::default();
        for (side, swarm) in self.swarms.iter_mut().enumerate() {
            // A peer that has just admitted shows so by an identify push: until then it may refuse.
            assert!(swarm.is_connected(&peer_ids[side]));
            let (respond_to, outcome) = oneshot::channel();
            swarm.behaviour_mut().lanes.open(peer_ids[side], respond_to);
            swarm.behaviour_mut().sync.send_request(&peer_ids[side], SyncRequest::Release);
            opened.push(outcome);
        }
        let [one, two] = &mut self.swarms;
        until(one, two, |(one, two), event| {
            let swarms = [one, two];
            let (side, event) = of_side(event);
            match event {
                SwarmEvent::ConnectionEstablished { .. } | SwarmEvent::ConnectionClosed { .. } => {
                    panic!("the connection does not last")
                }
                SwarmEvent::Behaviour(event) => seen.on_event(side, &mut *swarms[side], event, ids[side]),
                _ => {}
            }
            for (side, swarm) in swarms.into_iter().enumerate() {
                seen.published[side] = seen.published[side] || publish(swarm, side).is_ok();
            }
            seen.is_all().then_some(())
        })
        .await;
        for outcome in opened {
            assert!(outcome.await.unwrap().is_ok());
        }
    }
}

/// What each side got of the other.
#[derive(Debug, Default)]
struct Seen {
    lanes: [bool; 2],
    exchanges: [bool; 2],
    published: [bool; 2],
    messages: [bool; 2],
    /// A lane lasts as long as somebody holds it.
    held: Vec<LaneStream>,
}

impl Seen {
    fn on_event(&mut self, side: usize, swarm: &mut Swarm<Behaviour>, event: BehaviourEvent, id: ConnectionId) {
        match event {
            BehaviourEvent::Lanes(event) => {
                assert_eq!(event.connection_id, id);
                self.lanes[side] = true;
                self.held.push(event.stream);
            }
            BehaviourEvent::Sync(Exchange::Message {
                message: Message::Request { channel, .. },
                connection_id,
                ..
            }) => {
                assert_eq!(connection_id, id);
                swarm.behaviour_mut().sync.send_response(channel, SyncResponse::default()).unwrap();
            }
            BehaviourEvent::Sync(Exchange::Message { .. }) => self.exchanges[side] = true,
            BehaviourEvent::Sync(Exchange::OutboundFailure { error, .. }) => panic!("the exchange fails: {error}"),
            BehaviourEvent::Gossip(rationed::Event::Inner(gossipsub::Event::Message { .. })) => {
                self.messages[side] = true
            }
            _ => {}
        }
    }

    fn is_all(&self) -> bool {
        [self.lanes, self.exchanges, self.published, self.messages].as_flattened().iter().all(|seen| *seen)
    }
}

fn publish(swarm: &mut Swarm<Behaviour>, side: usize) -> Result<gossipsub::MessageId, gossipsub::PublishError> {
    let topic = "here".parse::<SwarmName>().unwrap().gossip_topic();
    swarm.behaviour_mut().gossip.publish(topic, vec![side as u8; 10])
}

fn of_side(event: Either<BehaviourEvent, BehaviourEvent>) -> (usize, SwarmEvent<BehaviourEvent>) {
    match event {
        Either::One(event) => (0, event),
        Either::Two(event) => (1, event),
    }
}
