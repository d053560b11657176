//! Opens and accepts the streams that lanes run on. (Stub: the founder's branch replaces it.)

use std::{
    convert::Infallible,
    task::{Context, Poll},
};

use libp2p::{
    Multiaddr, PeerId, Stream, StreamProtocol,
    core::{Endpoint, transport::PortUse},
    swarm::{
        ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent,
        ToSwarm, dummy,
    },
};
use tokio::sync::oneshot;

/// Opens and accepts streams for lanes.
#[derive(Debug)]
pub struct Behaviour {}

/// A lane's stream has arrived.
#[derive(Debug)]
pub enum Event {
    /// A peer has opened a lane.
    Inbound {
        /// Who, proven by the connection.
        peer_id: PeerId,
        /// On which connection.
        connection_id: ConnectionId,
        /// The negotiated stream.
        stream: Stream,
    },
}

/// Why no lane could be opened.
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

impl Behaviour {
    /// Creates the behaviour for one swarm's lane protocol.
    #[must_use]
    pub fn new(_protocol: StreamProtocol) -> Self {
        Self {}
    }

    /// Opens a lane's stream to a connected peer.
    pub fn open(&mut self, _peer_id: PeerId, respond_to: oneshot::Sender<Result<Stream, OpenError>>) {
        let _ = respond_to.send(Err(OpenError::NotConnected));
    }

    /// How many lane streams, in either direction, are open on a connection.
    #[must_use]
    pub fn streams_on(&self, _connection_id: ConnectionId) -> usize {
        0
    }

    /// How many lane streams, in either direction, are open to a peer.
    #[must_use]
    pub fn streams_to(&self, _peer_id: &PeerId) -> usize {
        0
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Event;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, _: FromSwarm<'_>) {}

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, _: THandlerOutEvent<Self>) {}

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Event, THandlerInEvent<Self>>> {
        let _: Option<Infallible> = None;
        Poll::Pending
    }
}
