//! Opens and accepts the streams that lanes run on.
//!
//! Hand-written for a measured reason: `libp2p-stream` drops inbound streams when they come in bursts (219 of 400), and
//! libp2p's request-response opens and negotiates a stream for every single message. Here a stream is opened once, is
//! handed out whole, and lives as long as its lane.

mod handler;

use std::{
    collections::HashMap,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures::{AsyncRead, AsyncWrite};
use libp2p::{
    Multiaddr, PeerId, Stream, StreamProtocol,
    core::{Endpoint, transport::PortUse},
    swarm::{
        ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, NotifyHandler, THandler, THandlerInEvent,
        THandlerOutEvent, ToSwarm,
    },
};
use tokio::sync::oneshot;

use crate::ended::ended;
use handler::{Handler, Open};

/// Streams that wait to be handed to their connection's task; more are refused.
const MAX_WAITING: usize = 4096;

/// Opens and accepts streams for lanes.
pub struct Behaviour {
    protocol: StreamProtocol,
    local: PeerId,
    connections: HashMap<PeerId, Vec<Connection>>,
    waiting: std::collections::VecDeque<ToSwarm<Event, Open>>,
}

struct Connection {
    id: ConnectionId,
    /// Dialled by the smaller peer id: of two connections between a pair this one stays.
    stays: bool,
    /// Each open stream holds one clone.
    streams: Arc<()>,
}

/// A peer has opened a stream for a lane.
#[derive(Debug)]
pub struct Event {
    /// Who, proven by the connection.
    pub peer_id: PeerId,
    /// On which connection.
    pub connection_id: ConnectionId,
    /// The negotiated stream.
    pub stream: LaneStream,
}

/// Why no stream could be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// There is no connection to the peer.
    #[error("not connected")]
    NotConnected,
    /// The peer does not speak this swarm's lane protocol.
    #[error("the peer does not speak this swarm's lane protocol")]
    Unsupported,
    /// The stream could not be negotiated.
    #[error("the lane could not be opened: {0}")]
    Failed(String),
}

/// Gets the stream that was asked for.
pub type RespondTo = oneshot::Sender<Result<LaneStream, OpenError>>;

impl Behaviour {
    /// Creates the behaviour of node `local` for one swarm's lane protocol.
    #[must_use]
    pub fn new(protocol: StreamProtocol, local: PeerId) -> Self {
        Self { protocol, local, connections: HashMap::new(), waiting: std::collections::VecDeque::new() }
    }

    /// Opens a stream to a connected peer. If the connection closes meanwhile, `respond_to` is dropped.
    pub fn open(&mut self, peer_id: PeerId, respond_to: RespondTo) {
        let connection = self
            .connections
            .get(&peer_id)
            .and_then(|connections| connections.iter().find(|connection| connection.stays).or(connections.first()));
        let outcome = match connection {
            None => Err(OpenError::NotConnected),
            Some(_) if self.waiting.len() >= MAX_WAITING => Err(OpenError::Failed("too many are being opened".into())),
            Some(connection) => Ok(connection.id),
        };
        match outcome {
            Ok(connection) => self.waiting.push_back(ToSwarm::NotifyHandler {
                peer_id,
                handler: NotifyHandler::One(connection),
                event: Open { respond_to },
            }),
            // Whoever asked may have given up.
            Err(error) => drop(respond_to.send(Err(error))),
        }
    }

    /// How many lane streams, in either direction, are open on a connection.
    #[must_use]
    pub fn streams_on(&self, peer_id: &PeerId, connection_id: ConnectionId) -> usize {
        let connections = self.connections.get(peer_id).map(Vec::as_slice).unwrap_or_default();
        connections.iter().find(|connection| connection.id == connection_id).map_or(0, Connection::open_streams)
    }

    /// How many lane streams, in either direction, are open to a peer.
    #[must_use]
    pub fn streams_to(&self, peer_id: &PeerId) -> usize {
        self.connections.get(peer_id).map_or(0, |connections| connections.iter().map(Connection::open_streams).sum())
    }

    fn connect(&mut self, id: ConnectionId, peer_id: PeerId, dialled_by_us: bool) -> Handler {
        let streams = Arc::new(());
        let handler = Handler::new(self.protocol.clone(), streams.clone());
        let stays = dialled_by_us == (self.local < peer_id);
        self.connections.entry(peer_id).or_default().push(Connection { id, stays, streams });
        handler
    }
}

impl Connection {
    /// The connection itself and its handler hold one clone each.
    fn open_streams(&self) -> usize {
        Arc::strong_count(&self.streams).saturating_sub(2)
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = Event;

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        peer_id: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.connect(id, peer_id, false))
    }

    fn handle_established_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer_id: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.connect(id, peer_id, true))
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        let Some((connection_id, Some(peer_id))) = ended(&event) else { return };
        if let Some(connections) = self.connections.get_mut(&peer_id) {
            connections.retain(|connection| connection.id != connection_id);
            if connections.is_empty() {
                self.connections.remove(&peer_id);
            }
        }
    }

    fn on_connection_handler_event(
        &mut self,
        peer_id: PeerId,
        connection_id: ConnectionId,
        stream: THandlerOutEvent<Self>,
    ) {
        self.waiting.push_back(ToSwarm::GenerateEvent(Event { peer_id, connection_id, stream }));
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Event, THandlerInEvent<Self>>> {
        // Nothing arrives by itself: the swarm polls again after each call that can queue something.
        self.waiting.pop_front().map_or(Poll::Pending, Poll::Ready)
    }
}

/// A negotiated stream, counted as long as it is open.
pub struct LaneStream {
    stream: Stream,
    _counted: Arc<()>,
}

impl LaneStream {
    fn new(stream: Stream, counted: Arc<()>) -> Self {
        Self { stream, _counted: counted }
    }
}

impl std::fmt::Debug for LaneStream {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("LaneStream").finish_non_exhaustive()
    }
}

impl AsyncRead for LaneStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for LaneStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(cx)
    }
}
