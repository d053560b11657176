//! Decides who gets in, in front of all protocols but identify and ping.
//!
//! A peer is known by its peer id as soon as a connection is established, and that can be enough: it is admitted or
//! denied. Where the decision depends on what identify will tell (a credential), it is *pending*: [`Gated`] keeps the
//! connection from the protocol inside, and that protocol from the peer, until the owner of the swarm admits the peer.
//! How long that may take is for the owner, who closes the connection.
//!
//! Not gated are the limits, identify, ping and mDNS (which speaks to no peer).

mod gated;
mod handler;

use std::{
    collections::HashMap,
    convert::Infallible,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse},
    swarm::{ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, dummy},
};

pub use crate::door::Door;
use crate::{delegate::only_watch, ended::ended};

pub use gated::Gated;
pub use handler::{Asked, Handler, In};

/// Decides who gets in.
pub trait Doorkeeper: Send + Sync {
    /// Decides on a connection with a peer, whose peer id is proven unless it is still to be dialled.
    ///
    /// It is called on the task of the swarm, for every connection anew: it must neither block nor panic. Of a peer that
    /// was admitted before, it remembers so by itself.
    fn decide(&self, peer_id: &PeerId) -> Admission;
}

impl fmt::Debug for dyn Doorkeeper {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Doorkeeper").finish_non_exhaustive()
    }
}

/// What a [`Doorkeeper`] says of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Admission {
    /// All protocols at once.
    Admitted,
    /// Only identify and ping, until `Behaviour::admit`.
    Pending,
    /// The connection is refused.
    Denied,
}

/// The doorkeeper denies the peer.
///
/// It is the cause in the error of the refused connection, which tells it from other failures:
///
/// ```
/// use libp2p::swarm::{ConnectionDenied, DialError, ListenError};
/// use multinodes_behaviour::gate::Denied;
///
/// fn is_denied_here(error: &ListenError) -> bool {
///     matches!(error, ListenError::Denied { cause } if cause.downcast_ref::<Denied>().is_some())
/// }
///
/// let cause = ConnectionDenied::new(Denied);
/// assert!(is_denied_here(&ListenError::Denied { cause }));
/// ```
///
/// `DialError::Denied` has the same cause. Only the side that denies sees it; for the other one the connection closes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the peer is not permitted to connect")]
pub struct Denied;

/// What a gated protocol is told of a connection that was closed, or that the protocol itself refused, before it could
/// use it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the peer was not admitted")]
pub struct NotAdmitted;

/// The connections on which nothing is decided yet, shared by the gate and all that stand behind it: all of them see
/// the same decision.
#[derive(Debug, Clone, Default)]
pub struct Undecided(Arc<Mutex<HashMap<ConnectionId, PeerId>>>);

impl Undecided {
    fn has(&self, connection_id: ConnectionId) -> bool {
        self.connections().contains_key(&connection_id)
    }

    /// One entry a connection at most, and these have limits.
    fn connections(&self) -> MutexGuard<'_, HashMap<ConnectionId, PeerId>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Refuses connections with denied peers, and says which ones are pending. It must come before all [`Gated`] ones.
#[derive(Debug)]
pub struct Behaviour {
    doorkeeper: Option<Arc<dyn Doorkeeper>>,
    undecided: Undecided,
}

impl Behaviour {
    /// Creates the gate; without a doorkeeper everybody is admitted.
    #[must_use]
    pub fn new(doorkeeper: Option<Arc<dyn Doorkeeper>>) -> Self {
        Self { doorkeeper, undecided: Undecided::default() }
    }

    /// Forgets that connections with a peer are pending. Every [`Gated`] one admits the peer for itself.
    pub fn admit(&mut self, peer_id: PeerId) {
        self.undecided.connections().retain(|_, pending| *pending != peer_id);
    }

    /// What those behind the gate look at.
    #[must_use]
    pub fn undecided(&self) -> Undecided {
        self.undecided.clone()
    }

    /// How many connections are pending.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.undecided.connections().len()
    }

    /// Tells whether a peer has a connection that is pending.
    #[must_use]
    pub fn is_pending(&self, peer_id: &PeerId) -> bool {
        self.undecided.connections().values().any(|pending| pending == peer_id)
    }

    fn decide(&self, peer_id: &PeerId) -> Admission {
        self.doorkeeper.as_ref().map_or(Admission::Admitted, |doorkeeper| doorkeeper.decide(peer_id))
    }

    fn on_established(&mut self, id: ConnectionId, peer_id: PeerId) -> Result<THandler<Self>, ConnectionDenied> {
        match self.decide(&peer_id) {
            Admission::Denied => return Err(ConnectionDenied::new(Denied)),
            Admission::Pending => drop(self.undecided.connections().insert(id, peer_id)),
            Admission::Admitted => {}
        }
        Ok(dummy::ConnectionHandler)
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_pending_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer_id: Option<PeerId>,
        _: &[Multiaddr],
        _: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        match peer_id.map(|peer_id| self.decide(&peer_id)) {
            Some(Admission::Denied) => Err(ConnectionDenied::new(Denied)),
            _ => Ok(Vec::new()),
        }
    }

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        peer_id: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.on_established(id, peer_id)
    }

    fn handle_established_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer_id: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.on_established(id, peer_id)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        if let Some((connection_id, _)) = ended(&event) {
            self.undecided.connections().remove(&connection_id);
        }
    }

    only_watch!();
}
