use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use futures::{StreamExt, future::poll_fn};
use libp2p::{
    Multiaddr, PeerId, Swarm,
    core::{
        Transport,
        muxing::{StreamMuxer, StreamMuxerBox, StreamMuxerEvent, StreamMuxerExt},
        transport::Boxed,
    },
    identity::Keypair,
    ping,
    swarm::{self, NetworkBehaviour, SwarmEvent, dummy},
};

use super::{mine::Told, *};
use crate::transport;

const LIMIT: Duration = Duration::from_secs(20);

/// A muxer that panics, but for its end, which does not come.
struct Broken {
    closes: bool,
}

impl StreamMuxer for Broken {
    type Substream = futures::io::Cursor<Vec<u8>>;
    type Error = io::Error;

    fn poll_inbound(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<Self::Substream>> {
        panic!("inbound")
    }

    fn poll_outbound(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<Self::Substream>> {
        panic!("outbound")
    }

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<StreamMuxerEvent>> {
        panic!("poll")
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        assert!(!self.closes, "close");
        Poll::Pending
    }
}

#[tokio::test]
async fn the_panic_of_a_muxer_is_an_error_of_its_connection() {
    let panics = Panics::default();
    let mut muxer = muxer(StreamMuxerBox::new(Broken { closes: true }), panics.clone());
    assert!(poll_fn(|context| muxer.poll_unpin(context)).await.is_err());
    assert!(poll_fn(|context| muxer.poll_inbound_unpin(context)).await.is_err(), "it is not asked again");
    assert!(muxer.close().await.is_err());
    assert_eq!(panics.count(), 1);
}

#[tokio::test]
async fn a_muxer_that_panics_while_it_is_closed_is_closed() {
    let panics = Panics::default();
    let muxer = muxer(StreamMuxerBox::new(Broken { closes: true }), panics.clone());
    assert!(tokio::time::timeout(LIMIT, muxer.close()).await.expect("it ends").is_err());
    assert_eq!(panics.count(), 1);
}

#[tokio::test]
async fn a_muxer_whose_peer_reads_nothing_is_closed_after_a_while() {
    let muxer = muxer(StreamMuxerBox::new(Broken { closes: false }), Panics::default());
    let closed = tokio::time::timeout(LIMIT, muxer.close()).await.expect("it ends");
    assert!(closed.unwrap_err().to_string().contains("timed out"));
}

#[derive(NetworkBehaviour)]
struct Mine {
    ping: ping::Behaviour,
    mine: mine::Behaviour,
}

type Output = (PeerId, StreamMuxerBox);

fn swarm_on<B: NetworkBehaviour>(keypair: &Keypair, transport: Boxed<Output>, behaviour: B) -> Swarm<B> {
    let config = swarm::Config::with_tokio_executor().with_idle_connection_timeout(LIMIT);
    Swarm::new(transport, behaviour, keypair.public().to_peer_id(), config)
}

fn swarm<B: NetworkBehaviour>(behaviour: B) -> Swarm<B> {
    let keypair = Keypair::generate_ed25519();
    swarm_on(&keypair, transport::new(&keypair).unwrap(), behaviour)
}

/// One whose connections panic when they are made, under a roof.
fn broken(panics: &Panics) -> Swarm<dummy::Behaviour> {
    let keypair = Keypair::generate_ed25519();
    let broken = Transport::map(transport::new(&keypair).unwrap(), |_, _| -> Output { panic!("a connection") }).boxed();
    swarm_on(&keypair, super::transport(broken, panics.clone()), dummy::Behaviour)
}

fn mine(listens: mine::Bomb) -> Mine {
    Mine { ping: ping::Behaviour::default(), mine: mine::Behaviour { told: None, listens } }
}

async fn listen<B: NetworkBehaviour>(swarm: &mut Swarm<B>) -> Multiaddr {
    swarm.listen_on("/ip4/127.0.0.1/tcp/0".parse().unwrap()).unwrap();
    loop {
        if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
            return address;
        }
    }
}

#[tokio::test]
async fn the_panic_of_a_dial_is_its_error() {
    let panics = Panics::default();
    let mut there = swarm(dummy::Behaviour);
    let address = listen(&mut there).await;
    tokio::spawn(async move { while there.next().await.is_some() {} });
    let mut here = broken(&panics);
    here.dial(address).unwrap();
    let failed =
        async { while !matches!(here.select_next_some().await, SwarmEvent::OutgoingConnectionError { .. }) {} };
    tokio::time::timeout(LIMIT, failed).await.expect("the dial has an end");
    assert_eq!(panics.count(), 1);
}

#[tokio::test]
async fn the_panic_of_a_handshake_is_its_error() {
    let panics = Panics::default();
    let mut here = broken(&panics);
    let address = listen(&mut here).await;
    let mut there = swarm(dummy::Behaviour);
    there.dial(address).unwrap();
    tokio::spawn(async move { while there.next().await.is_some() {} });
    let failed =
        async { while !matches!(here.select_next_some().await, SwarmEvent::IncomingConnectionError { .. }) {} };
    tokio::time::timeout(LIMIT, failed).await.expect("the handshake has an end");
    assert_eq!(panics.count(), 1);
}

#[tokio::test]
async fn the_panic_of_a_handler_closes_its_connection_and_no_other() {
    one_of_two_is_closed(mine::Bomb(false), Some(Told::Panic), None).await;
}

#[tokio::test]
async fn the_panic_of_a_stream_that_is_opened_closes_its_connection_and_no_other() {
    one_of_two_is_closed(mine::Bomb(false), Some(Told::Open(mine::Bomb(true))), None).await;
}

#[tokio::test]
async fn the_panic_of_a_stream_that_a_peer_opens_closes_its_connection_and_no_other() {
    one_of_two_is_closed(mine::Bomb(true), None, Some(Told::Open(mine::Bomb(false)))).await;
}

/// Of two connections to a node under a roof the first one breaks, by what this node or its peer is told to do with it.
async fn one_of_two_is_closed(listens: mine::Bomb, tell_here: Option<Told>, mut tell_there: Option<Told>) {
    let panics = Panics::default();
    let mut here = swarm(Shelter::sheltering(mine(listens), panics.clone()));
    let address = listen(&mut here).await;
    let [mut one, mut two] = [(), ()].map(|()| swarm(mine(mine::Bomb(false))));
    one.dial(address.clone()).unwrap();
    two.dial(address).unwrap();
    let first = *one.local_peer_id();
    let closed = async {
        let (mut connected, mut at) = (0, None);
        loop {
            tokio::select! {
                event = one.select_next_some() => {
                    if let SwarmEvent::ConnectionEstablished { peer_id, connection_id, .. } = event {
                        one.behaviour_mut().mine.told = tell_there.take().map(|told| (peer_id, connection_id, told));
                    }
                }
                _ = two.select_next_some() => {}
                event = here.select_next_some() => match event {
                    SwarmEvent::ConnectionEstablished { peer_id, connection_id, .. } => {
                        connected += 1;
                        at = at.or((peer_id == first).then_some(connection_id));
                        if connected == 2 {
                            let told = tell_here.clone().zip(at);
                            here.behaviour_mut().mine.told = told.map(|(told, at)| (first, at, told));
                        }
                    }
                    SwarmEvent::ConnectionClosed { peer_id, .. } => assert_eq!(peer_id, first),
                    _ => {}
                },
            }
            if connected == 2 && !here.is_connected(&first) {
                break;
            }
        }
    };
    tokio::time::timeout(LIMIT, closed).await.expect("the connection has an end");
    assert!(here.is_connected(two.local_peer_id()), "the other connection is well");
    assert_eq!(panics.count(), 1);
}
