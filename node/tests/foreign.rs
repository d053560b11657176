//! Peers of other implementations: as much of a node as the protocol asks for, and libp2p as others have it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "common/in_process.rs"]
mod in_process;

use std::{collections::VecDeque, convert::Infallible, io, task::Context, task::Poll, time::Duration, time::Instant};

use futures::{AsyncReadExt, AsyncWriteExt, FutureExt, StreamExt, future::BoxFuture};
use libp2p::{
    Multiaddr, PeerId, Stream, StreamProtocol, Swarm,
    core::{Endpoint, transport::PortUse, upgrade::ReadyUpgrade},
    identify,
    identity::Keypair,
    request_response,
    swarm::{
        ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm, NetworkBehaviour,
        SubstreamProtocol, SwarmEvent, ToSwarm,
        handler::{ConnectionEvent, FullyNegotiatedInbound},
    },
};
use multinodes::Node;
use multinodes_behaviour::{
    SwarmName, sync, transport,
    wire::{SyncRequest, SyncResponse},
};

use self::in_process::within;

/// Longer than a node waits for a sign of life, with what a busy machine may add.
const LONG: Duration = Duration::from_secs(5);

#[tokio::test]
async fn a_peer_that_ends_streams_of_pings_is_not_taken_for_silent() {
    let (node, mut foreign) = pair(Pongs::OneForEachStream).await;
    // The node opens another one whenever one ends.
    for _ in 0..4 {
        foreign.next(|event| matches!(event, ForeignEvent::Ping(()))).await;
    }
    drop(node);
}

#[tokio::test]
async fn whatever_comes_from_a_peer_is_a_sign_of_life() {
    let (node, mut foreign) = pair(Pongs::None).await;
    let peer_id = node.peer_id();
    let begun = Instant::now();
    let mut often = tokio::time::interval(Duration::from_millis(500));
    while begun.elapsed() < LONG {
        often.tick().await;
        foreign.ask(peer_id);
        foreign.next(|event| matches!(event, ForeignEvent::Sync(request_response::Event::Message { .. }))).await;
    }
}

#[tokio::test]
async fn whoever_speaks_the_swarms_protocols_belongs_to_it_whatever_else_it_shows() {
    let (node, mut foreign) = pair(Pongs::All).await;
    // Two pings take longer than it takes to hear who somebody is.
    for _ in 0..2 {
        foreign.next(|event| matches!(event, ForeignEvent::Ping(()))).await;
    }
    assert_eq!(node.counters().strangers, 0);
    assert_eq!(node.status().connected, 1);
}

/// A node, and a peer that is connected to it and has told it who it is.
async fn pair(pongs: Pongs) -> (Node, Foreign) {
    let swarm = format!("foreign-{}-{}", std::process::id(), pongs as u8);
    let node =
        Node::builder().name("node").swarm(&swarm).listen("/ip4/127.0.0.1/tcp/0").mdns(false).start().await.unwrap();
    let address: Multiaddr = node.addresses().first().unwrap().to_string().parse().unwrap();
    let mut foreign = Foreign::new(&swarm.parse().unwrap(), pongs);
    foreign.0.dial(address).unwrap();
    foreign.next(|event| matches!(event, ForeignEvent::Identify(identify::Event::Sent { .. }))).await;
    (node, foreign)
}

struct Foreign(Swarm<Protocols>);

impl Foreign {
    fn new(swarm: &SwarmName, pongs: Pongs) -> Self {
        let keypair = Keypair::generate_ed25519();
        let protocols = Protocols {
            identify: identify::Behaviour::new(identify::Config::new("ipfs/0.1.0".to_owned(), keypair.public())),
            sync: sync::new(swarm),
            ping: Ponging { pongs, told: VecDeque::new() },
        };
        let config =
            libp2p::swarm::Config::with_tokio_executor().with_idle_connection_timeout(Duration::from_secs(600));
        Self(Swarm::new(transport::new(&keypair).unwrap(), protocols, keypair.public().to_peer_id(), config))
    }

    fn ask(&mut self, peer_id: PeerId) {
        let request = SyncRequest::Push { records: Vec::new() };
        self.0.behaviour_mut().sync.send_request(&peer_id, request);
    }

    /// Goes on until something happens. The connection must not end before.
    async fn next(&mut self, wanted: impl Fn(&ForeignEvent) -> bool) {
        within(async {
            loop {
                match self.step().await {
                    SwarmEvent::Behaviour(event) if wanted(&event) => return,
                    SwarmEvent::ConnectionClosed { cause, .. } => panic!("the connection has ended: {cause:?}"),
                    _ => {}
                }
            }
        })
        .await;
    }

    async fn step(&mut self) -> SwarmEvent<ForeignEvent> {
        let event = self.0.select_next_some().await;
        if let SwarmEvent::Behaviour(ForeignEvent::Sync(request_response::Event::Message {
            message: request_response::Message::Request { channel, .. },
            ..
        })) = event
        {
            let answer = SyncResponse { same: true, ..SyncResponse::default() };
            let _ = self.0.behaviour_mut().sync.send_response(channel, answer);
            return SwarmEvent::Dialing { peer_id: None, connection_id: ConnectionId::new_unchecked(0) };
        }
        event
    }
}

#[derive(NetworkBehaviour)]
#[behaviour(to_swarm = "ForeignEvent")]
struct Protocols {
    identify: identify::Behaviour,
    sync: sync::Behaviour,
    ping: Ponging,
}

#[allow(clippy::large_enum_variant, reason = "one at a time")]
enum ForeignEvent {
    Identify(identify::Event),
    Sync(sync::Event),
    /// A ping has come.
    Ping(()),
}

impl From<identify::Event> for ForeignEvent {
    fn from(event: identify::Event) -> Self {
        Self::Identify(event)
    }
}

impl From<sync::Event> for ForeignEvent {
    fn from(event: sync::Event) -> Self {
        Self::Sync(event)
    }
}

impl From<()> for ForeignEvent {
    fn from((): ()) -> Self {
        Self::Ping(())
    }
}

/// What becomes of a ping.
#[derive(Clone, Copy, PartialEq)]
enum Pongs {
    All,
    OneForEachStream,
    None,
}

struct Ponging {
    pongs: Pongs,
    told: VecDeque<()>,
}

impl NetworkBehaviour for Ponging {
    type ConnectionHandler = Handler;
    type ToSwarm = ();

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<Handler, ConnectionDenied> {
        Ok(Handler { pongs: self.pongs, streams: Vec::new() })
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<Handler, ConnectionDenied> {
        Ok(Handler { pongs: self.pongs, streams: Vec::new() })
    }

    fn on_swarm_event(&mut self, _: FromSwarm<'_>) {}

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, (): ()) {
        self.told.push_back(());
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<(), Infallible>> {
        self.told.pop_front().map_or(Poll::Pending, |()| Poll::Ready(ToSwarm::GenerateEvent(())))
    }
}

struct Handler {
    pongs: Pongs,
    streams: Vec<BoxFuture<'static, io::Result<Stream>>>,
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Infallible;
    type ToBehaviour = ();
    type InboundProtocol = ReadyUpgrade<StreamProtocol>;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol> {
        SubstreamProtocol::new(ReadyUpgrade::new(libp2p::ping::PROTOCOL_NAME), ())
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, (), ()>> {
        for index in 0..self.streams.len() {
            let Poll::Ready(outcome) = self.streams[index].poll_unpin(context) else { continue };
            drop(self.streams.remove(index));
            let Ok(stream) = outcome else { break };
            if self.pongs != Pongs::OneForEachStream {
                self.streams.push(answer(stream, self.pongs).boxed());
            }
            context.waker().wake_by_ref();
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(()));
        }
        Poll::Pending
    }

    fn on_behaviour_event(&mut self, event: Infallible) {
        match event {}
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<'_, Self::InboundProtocol, Self::OutboundProtocol>) {
        if let ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol, .. }) = event {
            self.streams.push(answer(protocol, self.pongs).boxed());
        }
    }
}

async fn answer(mut stream: Stream, pongs: Pongs) -> io::Result<Stream> {
    let mut ping = [0; 32];
    stream.read_exact(&mut ping).await?;
    if pongs != Pongs::None {
        stream.write_all(&ping).await?;
        stream.flush().await?;
    }
    Ok(stream)
}
