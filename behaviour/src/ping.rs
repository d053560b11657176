//! Tells whether peers are still there, and how far away they are: `/ipfs/ping/1.0.0`.
//!
//! Not libp2p's own behaviour. That one waits for two intervals after the end of a stream, which for us means that the peer
//! is gone, and other implementations end a stream after some seconds (js-libp2p after 10 s): here another one is opened at
//! once. And whatever comes from the peer is a sign of life here, not only the answer to a ping.

use std::{
    collections::{HashMap, VecDeque},
    convert::Infallible,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, FutureExt, future::BoxFuture};
pub use libp2p::ping::PROTOCOL_NAME;
use libp2p::{
    Multiaddr, PeerId, Stream, StreamProtocol,
    core::{Endpoint, transport::PortUse, upgrade::ReadyUpgrade},
    swarm::{
        ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm, NetworkBehaviour,
        SubstreamProtocol, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
        handler::{ConnectionEvent, FullyNegotiatedInbound, FullyNegotiatedOutbound},
    },
};
use tokio::time::Sleep;

use crate::{
    ended::ended,
    pulse::{Pulse, Pulses},
};

/// Libp2p's 15 s, and 20 s of patience, would show a cut-off host only after half a minute. A ping costs 64 bytes.
const INTERVAL: Duration = Duration::from_secs(2);

/// A stream on which no answer comes for so long is given up for another one. It says nothing of the connection.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Bytes of a ping, as libp2p specifies it.
const SIZE: usize = 32;

/// Streams of one connection on which pings are answered: one is used, and the next may come before the last has ended.
const MAX_INBOUND: usize = 2;

/// A ping was answered.
#[derive(Debug, Clone, Copy)]
pub struct Event {
    /// By whom.
    pub peer: PeerId,
    /// Where.
    pub connection: ConnectionId,
    /// How long it took.
    pub round_trip: Duration,
}

/// Pings all peers, answers their pings, and knows when something last came from them. It closes no connection: that is
/// the decision of the swarm's owner.
#[derive(Debug, Default)]
pub struct Behaviour {
    pulses: Pulses,
    known: HashMap<ConnectionId, Pulse>,
    /// At most as many as connections times what they do within one turn: each pings once in [`INTERVAL`].
    events: VecDeque<Event>,
}

impl Behaviour {
    /// With the pulses that the transport fills; without them only answers to pings are signs of life.
    #[must_use]
    pub fn new(pulses: Pulses) -> Self {
        Self { pulses, ..Self::default() }
    }

    /// When something last came on a connection.
    #[must_use]
    pub fn heard(&self, connection: ConnectionId) -> Option<Instant> {
        self.known.get(&connection).map(Pulse::last)
    }

    fn on_new(&mut self, connection: ConnectionId, peer_id: &PeerId, address: &Multiaddr) -> Handler {
        let pulse = self.pulses.take(peer_id, address).unwrap_or_default();
        self.known.insert(connection, pulse.clone());
        Handler {
            pulse,
            outbound: Outbound::Waiting(sleep(Duration::ZERO)),
            opened: Instant::now(),
            inbound: VecDeque::new(),
        }
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = Event;

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer_id: PeerId,
        _: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.on_new(connection, &peer_id, remote))
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer_id: PeerId,
        address: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.on_new(connection, &peer_id, address))
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        if let Some((connection, _)) = ended(&event) {
            self.known.remove(&connection);
        }
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        round_trip: THandlerOutEvent<Self>,
    ) {
        self.events.push_back(Event { peer, connection, round_trip });
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Event, THandlerInEvent<Self>>> {
        self.events.pop_front().map_or(Poll::Pending, |event| Poll::Ready(ToSwarm::GenerateEvent(event)))
    }
}

/// The part of one connection.
pub struct Handler {
    pulse: Pulse,
    outbound: Outbound,
    /// When the last stream was asked for. One that ends is followed by another at once, but not by more than one in an
    /// interval: a peer that ends each of them would else keep us busy.
    opened: Instant,
    inbound: VecDeque<BoxFuture<'static, io::Error>>,
}

enum Outbound {
    /// There is no stream, and none is wanted before that.
    Waiting(Pin<Box<Sleep>>),
    Opening,
    /// Rests for the interval, and pings.
    Round(BoxFuture<'static, io::Result<(Stream, Duration)>>),
}

impl Handler {
    fn on_ended(&mut self) {
        self.outbound = Outbound::Waiting(sleep(INTERVAL.saturating_sub(self.opened.elapsed())));
    }

    fn answer(&mut self, context: &mut Context<'_>) {
        self.inbound.retain_mut(|answering| match answering.poll_unpin(context) {
            Poll::Pending => true,
            Poll::Ready(error) => {
                tracing::trace!(%error, "a stream of pings has ended");
                false
            }
        });
    }
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Infallible;
    type ToBehaviour = Duration;
    type InboundProtocol = ReadyUpgrade<StreamProtocol>;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol> {
        SubstreamProtocol::new(ReadyUpgrade::new(PROTOCOL_NAME), ())
    }

    fn on_behaviour_event(&mut self, event: Infallible) {
        match event {}
    }

    fn poll(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, (), Duration>> {
        self.answer(context);
        loop {
            match &mut self.outbound {
                Outbound::Opening => return Poll::Pending,
                Outbound::Waiting(time) => {
                    ready!(time.poll_unpin(context));
                    self.outbound = Outbound::Opening;
                    self.opened = Instant::now();
                    let protocol = self.listen_protocol().with_timeout(TIMEOUT);
                    return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
                }
                Outbound::Round(round) => match ready!(round.poll_unpin(context)) {
                    Ok((stream, round_trip)) => {
                        self.pulse.beat();
                        self.outbound = Outbound::Round(round_on(stream, INTERVAL).boxed());
                        return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(round_trip));
                    }
                    Err(error) => {
                        tracing::trace!(%error, "a stream of pings has ended");
                        self.on_ended();
                    }
                },
            }
        }
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<'_, Self::InboundProtocol, Self::OutboundProtocol>) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol: mut stream, .. }) => {
                stream.ignore_for_keep_alive();
                if self.inbound.len() >= MAX_INBOUND {
                    self.inbound.pop_front();
                }
                self.inbound.push_back(answer_all(stream).boxed());
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol: mut stream, .. }) => {
                stream.ignore_for_keep_alive();
                self.outbound = Outbound::Round(round_on(stream, Duration::ZERO).boxed());
            }
            ConnectionEvent::DialUpgradeError(_) => self.on_ended(),
            _ => {}
        }
    }
}

fn sleep(pause: Duration) -> Pin<Box<Sleep>> {
    Box::pin(tokio::time::sleep(pause))
}

/// One ping after a pause in which nothing should come; what comes there is the stream's end.
async fn round_on<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, pause: Duration) -> io::Result<(S, Duration)> {
    if let Ok(outcome) = tokio::time::timeout(pause, stream.read(&mut [0])).await {
        return Err(match outcome? {
            0 => io::ErrorKind::UnexpectedEof.into(),
            _ => io::Error::new(io::ErrorKind::InvalidData, "an answer without a ping"),
        });
    }
    tokio::time::timeout(TIMEOUT, async {
        let ping: [u8; SIZE] = rand::random();
        let begun = Instant::now();
        stream.write_all(&ping).await?;
        stream.flush().await?;
        let mut pong = [0; SIZE];
        stream.read_exact(&mut pong).await?;
        if pong != ping {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "an answer to another ping"));
        }
        Ok((stream, begun.elapsed()))
    })
    .await?
}

/// Answers pings until the stream ends.
async fn answer_all<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S) -> io::Error {
    loop {
        if let Err(error) = answer_one(&mut stream).await {
            return error;
        }
    }
}

async fn answer_one<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) -> io::Result<()> {
    let mut ping = [0; SIZE];
    stream.read_exact(&mut ping).await?;
    stream.write_all(&ping).await?;
    stream.flush().await
}
