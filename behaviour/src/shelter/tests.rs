use std::{pin::Pin, task::Context, time::Duration};

use futures::{StreamExt, future::poll_fn};
use libp2p::{
    Swarm,
    core::muxing::{StreamMuxer, StreamMuxerBox, StreamMuxerEvent, StreamMuxerExt},
    identity::Keypair,
    ping,
    swarm::{self, SwarmEvent, dummy},
};

use super::*;
use crate::transport;

const LIMIT: Duration = Duration::from_secs(20);

struct Panicking;

impl StreamMuxer for Panicking {
    type Substream = futures::io::Cursor<Vec<u8>>;
    type Error = io::Error;

    fn poll_inbound(self: Pin<&mut Self>, _: &mut Context<'_>) -> std::task::Poll<io::Result<Self::Substream>> {
        panic!("inbound")
    }

    fn poll_outbound(self: Pin<&mut Self>, _: &mut Context<'_>) -> std::task::Poll<io::Result<Self::Substream>> {
        panic!("outbound")
    }

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> std::task::Poll<io::Result<StreamMuxerEvent>> {
        panic!("poll")
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> std::task::Poll<io::Result<()>> {
        panic!("close")
    }
}

#[tokio::test]
async fn the_panic_of_a_muxer_is_an_error_of_its_connection() {
    let panics = Panics::default();
    let mut muxer = muxer(StreamMuxerBox::new(Panicking), panics.clone());
    assert!(poll_fn(|context| muxer.poll_unpin(context)).await.is_err());
    assert!(poll_fn(|context| muxer.poll_inbound_unpin(context)).await.is_err(), "it is not asked again");
    assert!(muxer.close().await.is_err());
    assert_eq!(panics.count(), 1);
}

#[derive(libp2p::swarm::NetworkBehaviour)]
struct Mine {
    ping: ping::Behaviour,
    mine: mine::Behaviour,
}

/// A behaviour whose handlers panic when they are told to.
mod mine {
    use std::task::{Context, Poll};

    use libp2p::{
        Multiaddr, PeerId,
        core::{Endpoint, transport::PortUse, upgrade::DeniedUpgrade},
        swarm::{
            ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm, NetworkBehaviour,
            NotifyHandler, SubstreamProtocol, ToSwarm, handler::ConnectionEvent,
        },
    };

    #[derive(Default)]
    pub(super) struct Behaviour(pub(super) Option<(PeerId, ConnectionId)>);

    pub(super) struct Handler;

    impl ConnectionHandler for Handler {
        type FromBehaviour = ();
        type ToBehaviour = ();
        type InboundProtocol = DeniedUpgrade;
        type OutboundProtocol = DeniedUpgrade;
        type InboundOpenInfo = ();
        type OutboundOpenInfo = ();

        fn listen_protocol(&self) -> SubstreamProtocol<DeniedUpgrade> {
            SubstreamProtocol::new(DeniedUpgrade, ())
        }

        fn poll(&mut self, _: &mut Context<'_>) -> Poll<ConnectionHandlerEvent<DeniedUpgrade, (), ()>> {
            Poll::Pending
        }

        fn on_behaviour_event(&mut self, (): ()) {
            panic!("a handler was told to panic")
        }

        fn on_connection_event(&mut self, _: ConnectionEvent<'_, DeniedUpgrade, DeniedUpgrade>) {}
    }

    impl NetworkBehaviour for Behaviour {
        type ConnectionHandler = Handler;
        type ToSwarm = std::convert::Infallible;

        fn handle_established_inbound_connection(
            &mut self,
            _: ConnectionId,
            _: PeerId,
            _: &Multiaddr,
            _: &Multiaddr,
        ) -> Result<Handler, ConnectionDenied> {
            Ok(Handler)
        }

        fn handle_established_outbound_connection(
            &mut self,
            _: ConnectionId,
            _: PeerId,
            _: &Multiaddr,
            _: Endpoint,
            _: PortUse,
        ) -> Result<Handler, ConnectionDenied> {
            Ok(Handler)
        }

        fn on_swarm_event(&mut self, _: FromSwarm<'_>) {}

        fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, (): ()) {}

        fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, ()>> {
            self.0.take().map_or(Poll::Pending, |(peer_id, id)| {
                Poll::Ready(ToSwarm::NotifyHandler { peer_id, handler: NotifyHandler::One(id), event: () })
            })
        }
    }
}

fn swarm<B: swarm::NetworkBehaviour>(behaviour: B) -> Swarm<B> {
    let keypair = Keypair::generate_ed25519();
    let config = swarm::Config::with_tokio_executor().with_idle_connection_timeout(LIMIT);
    Swarm::new(transport::new(&keypair).unwrap(), behaviour, keypair.public().to_peer_id(), config)
}

#[tokio::test]
async fn the_panic_of_a_handler_closes_its_connection_and_no_other() {
    let panics = Panics::default();
    let inner = Mine { ping: ping::Behaviour::default(), mine: mine::Behaviour::default() };
    let mut here = swarm(Shelter::sheltering(inner, panics.clone()));
    here.listen_on("/ip4/127.0.0.1/tcp/0".parse().unwrap()).unwrap();
    let address = loop {
        if let SwarmEvent::NewListenAddr { address, .. } = here.select_next_some().await {
            break address;
        }
    };
    let [mut one, mut two] = [(), ()].map(|()| swarm(dummy::Behaviour));
    for other in [&mut one, &mut two] {
        other.dial(address.clone()).unwrap();
    }
    let first = *one.local_peer_id();
    let closed = async {
        let mut connected = 0;
        loop {
            tokio::select! {
                _ = one.select_next_some() => {}
                _ = two.select_next_some() => {}
                event = here.select_next_some() => match event {
                    SwarmEvent::ConnectionEstablished { peer_id, connection_id, .. } => {
                        connected += 1;
                        if peer_id == first {
                            here.behaviour_mut().mine.0 = Some((peer_id, connection_id));
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
