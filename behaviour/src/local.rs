//! Finds nodes of the same LAN by mDNS. (Interface first; see the next commit.)

use std::task::{Context, Poll};

use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse},
    swarm::{
        ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent,
        ToSwarm, dummy,
    },
};

/// Finds nodes of the same LAN.
#[derive(Debug)]
pub struct Behaviour {}

/// What was found, or why nothing can be.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// Addresses of libp2p programs on the LAN, maybe strangers: neither loopback nor link-local, without peer id.
    Found(Vec<(PeerId, Multiaddr)>),
    /// Multicast does not work here; said once.
    Degraded {
        /// What does not work, and the remedy.
        reason: String,
    },
}

impl Behaviour {
    /// Creates the behaviour. It starts when the first address that others can reach is known.
    #[must_use]
    pub fn new(_peer_id: PeerId, _passive: bool) -> Self {
        Self {}
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

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Event, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}
