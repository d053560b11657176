//! A protocol behind the gate.

use std::{
    collections::{HashMap, VecDeque},
    task::{Context, Poll, ready},
};

use libp2p::{
    Multiaddr, PeerId,
    core::{ConnectedPoint, Endpoint, transport::PortUse},
    swarm::{
        CloseConnection, ConnectionClosed, ConnectionDenied, ConnectionHandler, ConnectionId, DialError, DialFailure,
        FromSwarm, NetworkBehaviour, NotifyHandler, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
        behaviour::{AddressChange, ConnectionEstablished},
    },
};

use super::{
    NotAdmitted, Undecided,
    handler::{Handler, In, Manner},
};
use crate::{
    delegate::{ask_inside_of_pending, reach_inside},
    ended::ended,
};

/// A protocol behind the gate: of a connection that is pending it knows nothing, and the peer is shown nothing of it.
/// Everything else passes through.
///
/// A peer that refuses the protocol may have this node pending in its turn. A stream that is opened then fails as one of
/// an unsupported protocol, and is opened again by whoever wanted it.
pub struct Gated<B: NetworkBehaviour> {
    inner: B,
    undecided: Undecided,
    manner: Manner<THandler<B>>,
    /// An entry for each connection, of which there are limits.
    peers: HashMap<PeerId, Vec<Connection>>,
    /// At most one activation, or one end, for each connection.
    waiting: VecDeque<ToSwarm<B::ToSwarm, In<THandler<B>>>>,
}

struct Connection {
    id: ConnectionId,
    standing: Standing,
}

enum Standing {
    /// The protocol inside knows the connection.
    Inside,
    /// It does not; this is what it will be told.
    Pending { endpoint: ConnectedPoint, failed_addresses: Vec<Multiaddr> },
    /// It has refused the connection, which is being closed.
    Refused,
}

impl<B: NetworkBehaviour> Gated<B> {
    /// Puts a protocol behind the gate that `undecided` is from.
    #[must_use]
    pub fn new(inner: B, undecided: Undecided) -> Self {
        Self { inner, undecided, manner: Manner::default(), peers: HashMap::new(), waiting: VecDeque::new() }
    }

    /// For a protocol that asks which protocols the peer speaks: what identify has told while the connection was pending
    /// is told again when it is admitted.
    ///
    /// libp2p cannot say that to one handler alone: all handlers of the connection hear that the peer has lost its
    /// protocols, and at once that it has them again. So it is for one protocol of a connection, not for all.
    #[must_use]
    pub fn retelling_protocols(mut self) -> Self {
        self.manner.retells = true;
        self
    }

    /// For a protocol that never tries again on a connection where it was refused once: a peer that may have this node
    /// pending does not refuse for good. Such are the peers that have shown no protocol but identify and ping, or one
    /// that begins with `prefix`. The stream is asked for again as soon as the peer shows the protocol.
    #[must_use]
    pub fn patient(mut self, prefix: &str) -> Self
    where
        <THandler<B> as ConnectionHandler>::OutboundProtocol: Clone,
    {
        self.manner.be_patient(prefix, Clone::clone);
        self
    }

    /// Lets the protocol inside know the peer's pending connections, and the peer see the protocol.
    pub fn admit(&mut self, peer_id: PeerId) {
        while let Some((id, endpoint, failed_addresses)) = self.take_pending(&peer_id) {
            match self.establish(id, peer_id, &endpoint) {
                Ok(handler) => {
                    let other_established = self.inside(&peer_id);
                    self.set(&peer_id, id, Standing::Inside);
                    self.waiting.push_back(ToSwarm::NotifyHandler {
                        peer_id,
                        handler: NotifyHandler::One(id),
                        event: In::Activate(Box::new(handler)),
                    });
                    self.inner.on_swarm_event(FromSwarm::ConnectionEstablished(ConnectionEstablished {
                        peer_id,
                        connection_id: id,
                        endpoint: &endpoint,
                        failed_addresses: &failed_addresses,
                        other_established,
                    }));
                }
                Err(cause) => {
                    tracing::debug!(%peer_id, "a protocol refuses an admitted connection");
                    self.waiting.push_back(ToSwarm::CloseConnection { peer_id, connection: CloseConnection::One(id) });
                    self.fail(peer_id, id, cause);
                }
            }
        }
    }

    /// How many connections are known here, pending ones included.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.peers.values().map(Vec::len).sum()
    }

    fn establish(
        &mut self,
        id: ConnectionId,
        peer_id: PeerId,
        endpoint: &ConnectedPoint,
    ) -> Result<THandler<B>, ConnectionDenied> {
        match endpoint {
            ConnectedPoint::Dialer { address, role_override, port_use } => {
                self.inner.handle_established_outbound_connection(id, peer_id, address, *role_override, *port_use)
            }
            ConnectedPoint::Listener { local_addr, send_back_addr } => {
                self.inner.handle_established_inbound_connection(id, peer_id, local_addr, send_back_addr)
            }
        }
    }

    /// The next pending connection of a peer, which is left as refused.
    fn take_pending(&mut self, peer_id: &PeerId) -> Option<(ConnectionId, ConnectedPoint, Vec<Multiaddr>)> {
        let connections = self.peers.get_mut(peer_id)?;
        let pending = connections.iter_mut().find(|one| matches!(one.standing, Standing::Pending { .. }))?;
        match std::mem::replace(&mut pending.standing, Standing::Refused) {
            Standing::Pending { endpoint, failed_addresses } => Some((pending.id, endpoint, failed_addresses)),
            Standing::Inside | Standing::Refused => None,
        }
    }

    /// A dial of the protocol inside may have ended in this connection, and it waits to hear of it.
    fn fail(&mut self, peer_id: PeerId, connection_id: ConnectionId, cause: ConnectionDenied) {
        if self.inside(&peer_id) == 0 {
            let error = &DialError::Denied { cause };
            let failure = DialFailure { peer_id: Some(peer_id), error, connection_id };
            self.inner.on_swarm_event(FromSwarm::DialFailure(failure));
        }
    }

    fn on_new(
        &mut self,
        id: ConnectionId,
        peer_id: PeerId,
        endpoint: ConnectedPoint,
    ) -> Result<Handler<THandler<B>>, ConnectionDenied> {
        let (standing, inner) = if self.undecided.has(id) {
            (Standing::Pending { endpoint, failed_addresses: Vec::new() }, None)
        } else {
            (Standing::Inside, Some(self.establish(id, peer_id, &endpoint)?))
        };
        self.peers.entry(peer_id).or_default().push(Connection { id, standing });
        Ok(Handler::new(inner, self.manner.clone()))
    }

    fn on_established(&mut self, mut event: ConnectionEstablished<'_>) {
        match self.standing(&event.peer_id, event.connection_id) {
            Some(Standing::Pending { failed_addresses, .. }) => *failed_addresses = event.failed_addresses.to_vec(),
            Some(Standing::Refused) => {}
            Some(Standing::Inside) | None => {
                event.other_established = self.inside(&event.peer_id).saturating_sub(1);
                self.inner.on_swarm_event(FromSwarm::ConnectionEstablished(event));
            }
        }
    }

    fn on_closed(&mut self, mut event: ConnectionClosed<'_>) {
        match self.remove(&event.peer_id, event.connection_id) {
            Some(Standing::Inside) | None => {
                event.remaining_established = self.inside(&event.peer_id);
                self.inner.on_swarm_event(FromSwarm::ConnectionClosed(event));
            }
            Some(Standing::Pending { .. }) => {
                self.fail(event.peer_id, event.connection_id, ConnectionDenied::new(NotAdmitted));
            }
            Some(Standing::Refused) => {}
        }
    }

    fn on_address_change(&mut self, event: AddressChange<'_>) {
        match self.standing(&event.peer_id, event.connection_id) {
            Some(Standing::Pending { endpoint, .. }) => *endpoint = event.new.clone(),
            Some(Standing::Refused) => {}
            Some(Standing::Inside) | None => self.inner.on_swarm_event(FromSwarm::AddressChange(event)),
        }
    }

    fn standing(&mut self, peer_id: &PeerId, id: ConnectionId) -> Option<&mut Standing> {
        let connections = self.peers.get_mut(peer_id)?;
        connections.iter_mut().find(|connection| connection.id == id).map(|connection| &mut connection.standing)
    }

    fn set(&mut self, peer_id: &PeerId, id: ConnectionId, to: Standing) {
        if let Some(standing) = self.standing(peer_id, id) {
            *standing = to;
        }
    }

    fn remove(&mut self, peer_id: &PeerId, id: ConnectionId) -> Option<Standing> {
        let connections = self.peers.get_mut(peer_id)?;
        let index = connections.iter().position(|connection| connection.id == id)?;
        let removed = connections.swap_remove(index);
        if connections.is_empty() {
            self.peers.remove(peer_id);
        }
        Some(removed.standing)
    }

    /// How many connections with a peer the protocol inside knows.
    fn inside(&self, peer_id: &PeerId) -> usize {
        self.of(peer_id).filter(|connection| matches!(connection.standing, Standing::Inside)).count()
    }

    /// Any connection will do for the protocol inside, but it knows of some only.
    fn known(&self, peer_id: &PeerId, handler: NotifyHandler) -> NotifyHandler {
        if matches!(handler, NotifyHandler::One(_)) || self.inside(peer_id) == self.of(peer_id).count() {
            return handler;
        }
        let inside = self.of(peer_id).find(|connection| matches!(connection.standing, Standing::Inside));
        inside.map_or(handler, |connection| NotifyHandler::One(connection.id))
    }

    fn of(&self, peer_id: &PeerId) -> impl Iterator<Item = &Connection> {
        self.peers.get(peer_id).into_iter().flatten()
    }
}

reach_inside!(Gated);

impl<B: NetworkBehaviour> NetworkBehaviour for Gated<B> {
    type ConnectionHandler = Handler<THandler<B>>;
    type ToSwarm = B::ToSwarm;

    ask_inside_of_pending!();

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        peer_id: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        let endpoint = ConnectedPoint::Listener { local_addr: local.clone(), send_back_addr: remote.clone() };
        self.on_new(id, peer_id, endpoint)
    }

    fn handle_established_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer_id: PeerId,
        address: &Multiaddr,
        role_override: Endpoint,
        port_use: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.on_new(id, peer_id, ConnectedPoint::Dialer { address: address.clone(), role_override, port_use })
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(event) => return self.on_established(event),
            FromSwarm::ConnectionClosed(event) => return self.on_closed(event),
            FromSwarm::AddressChange(event) => return self.on_address_change(event),
            _ => {}
        }
        if let Some((connection_id, Some(peer_id))) = ended(&event) {
            self.remove(&peer_id, connection_id);
        }
        self.inner.on_swarm_event(event);
    }

    fn on_connection_handler_event(
        &mut self,
        peer_id: PeerId,
        connection_id: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        self.inner.on_connection_handler_event(peer_id, connection_id, event);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        // First: what the protocol inside sends to a connection must find its handler there.
        if let Some(event) = self.waiting.pop_front() {
            return Poll::Ready(event);
        }
        Poll::Ready(match ready!(self.inner.poll(cx)) {
            ToSwarm::NotifyHandler { peer_id, handler, event } => {
                let handler = self.known(&peer_id, handler);
                ToSwarm::NotifyHandler { peer_id, handler, event: In::Inner(event) }
            }
            other => other.map_in(In::Inner),
        })
    }
}
