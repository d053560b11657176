//! How many connections, and how much memory, before new connections are refused. libp2p sets none of these by itself.
//!
//! Not libp2p's own limits of connections: they know nothing of hosts, and keep an entry for every peer that was ever
//! connected.

use std::{collections::HashMap, convert::Infallible};

use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse},
    memory_connection_limits,
    swarm::{
        ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler,
        behaviour::{ConnectionEstablished, DialFailure, ListenFailure},
        dummy,
    },
};

use crate::{delegate::only_watch, ended::ended, places::PLACES, ration::Origin};

/// Dials under way: each costs a handshake.
const DIALS: usize = 64;

/// A net below the places of handshakes, for a transport that does not give them: who has lost its place is counted here
/// until its task has noticed it.
const PENDING: usize = 2 * PLACES;

/// Two nodes that dial each other at once get two connections for a moment, four if each has two kinds of transport.
const PER_PEER: usize = 4;

/// Connections above the high mark are closed by the driver after a while, so some room must be left above it: the
/// driver chooses better whom to let go than a limit chooses whom to refuse.
const HEAD_ROOM: usize = 2;

/// Below this even a small high mark does not go: one-shot commands come and go.
const LEAST_ESTABLISHED: usize = 64;

/// Of these places peers that come from one host may have so many parts of [`PARTS`]: whatever one host does, there is
/// room for others. Those that this node has dialled are not counted for it.
const PARTS_OF_ONE: usize = 3;
const PARTS: usize = 4;

/// The part of the machine's memory at which this process takes no more connections: a node that is swapping, or about
/// to be killed, serves those it has better than new ones. It is not a limit of what a node should use.
const MEMORY: f64 = 0.9;

/// The most connections that there may be at a time, those included of which it is not known yet whose they are.
#[must_use]
pub fn most(high_mark: usize) -> usize {
    established(high_mark).saturating_add(PENDING).saturating_add(DIALS)
}

fn established(high_mark: usize) -> usize {
    high_mark.saturating_mul(HEAD_ROOM).max(LEAST_ESTABLISHED)
}

/// Limits the number of connections.
#[must_use]
pub fn connections(high_mark: usize) -> Behaviour {
    Behaviour { most: established(high_mark), begun: HashMap::new(), established: HashMap::new() }
}

/// Refuses connections when memory runs out.
#[must_use]
pub fn memory() -> memory_connection_limits::Behaviour {
    memory_connection_limits::Behaviour::with_max_percentage(MEMORY)
}

/// Refuses connections beyond a number: of dials and handshakes under way, of a peer, of a host, and of all.
#[derive(Debug)]
pub struct Behaviour {
    most: usize,
    /// Under way, and whether each was dialled.
    begun: HashMap<ConnectionId, bool>,
    established: HashMap<ConnectionId, Established>,
}

#[derive(Debug)]
struct Established {
    peer_id: PeerId,
    /// Where it came from; none if it was dialled.
    origin: Option<Origin>,
}

/// There are as many connections as there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("there are {limit} connections {kind} already, which is the limit")]
pub struct Exceeded {
    /// Which ones, for people.
    pub kind: &'static str,
    /// How many there may be.
    pub limit: usize,
}

impl Behaviour {
    fn begin(&mut self, id: ConnectionId, dialled: bool) -> Result<(), ConnectionDenied> {
        let under_way = self.begun.values().filter(|other| **other == dialled).count();
        if dialled {
            check("being dialled", DIALS, under_way)?
        } else {
            check("coming in", PENDING, under_way)?
        }
        self.begun.insert(id, dialled);
        Ok(())
    }

    fn establish(
        &mut self,
        id: ConnectionId,
        peer_id: &PeerId,
        origin: Option<Origin>,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.begun.remove(&id);
        self.check_room(origin)?;
        check("with this peer", PER_PEER, self.count(|one| one.peer_id == *peer_id))?;
        Ok(dummy::ConnectionHandler)
    }

    /// Whether there is room for another one from there.
    fn check_room(&self, origin: Option<Origin>) -> Result<(), ConnectionDenied> {
        check("in all", self.most, self.established.len())?;
        if origin.is_some() {
            check("from this host", self.most * PARTS_OF_ONE / PARTS, self.count(|one| one.origin == origin))?;
        }
        Ok(())
    }

    fn count(&self, matches: impl Fn(&Established) -> bool) -> usize {
        self.established.values().filter(|one| matches(one)).count()
    }
}

fn check(kind: &'static str, limit: usize, count: usize) -> Result<(), ConnectionDenied> {
    if count >= limit { Err(ConnectionDenied::new(Exceeded { kind, limit })) } else { Ok(()) }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_pending_inbound_connection(
        &mut self,
        id: ConnectionId,
        _: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        // Whom there is no room for is refused before the handshake, which costs far more.
        self.check_room(Origin::of(remote))?;
        self.begin(id, false)
    }

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        peer_id: PeerId,
        _: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.establish(id, &peer_id, Origin::of(remote))
    }

    fn handle_pending_outbound_connection(
        &mut self,
        id: ConnectionId,
        _: Option<PeerId>,
        _: &[Multiaddr],
        _: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        self.begin(id, true).map(|()| Vec::new())
    }

    fn handle_established_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer_id: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.establish(id, &peer_id, None)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match &event {
            FromSwarm::ConnectionEstablished(ConnectionEstablished { peer_id, connection_id, endpoint, .. }) => {
                let origin = if endpoint.is_dialer() { None } else { Origin::of(endpoint.get_remote_address()) };
                self.established.insert(*connection_id, Established { peer_id: *peer_id, origin });
            }
            FromSwarm::DialFailure(DialFailure { connection_id, .. })
            | FromSwarm::ListenFailure(ListenFailure { connection_id, .. }) => {
                self.begun.remove(connection_id);
            }
            _ => {}
        }
        if let Some((connection_id, _)) = ended(&event) {
            self.established.remove(&connection_id);
        }
    }

    only_watch!();
}

#[cfg(test)]
mod tests {
    use libp2p::{core::ConnectedPoint, swarm::ConnectionClosed};

    use super::*;

    /// Establishes one, if that is allowed.
    fn connect(limits: &mut Behaviour, id: usize, peer_id: PeerId, host: u8) -> Option<ConnectedPoint> {
        let id = ConnectionId::new_unchecked(id);
        let local_addr: Multiaddr = "/ip4/10.0.0.100/tcp/1".parse().unwrap();
        let send_back_addr: Multiaddr = format!("/ip4/10.0.0.{host}/tcp/1").parse().unwrap();
        limits.handle_pending_inbound_connection(id, &local_addr, &send_back_addr).ok()?;
        limits.handle_established_inbound_connection(id, peer_id, &local_addr, &send_back_addr).ok()?;
        let endpoint = ConnectedPoint::Listener { local_addr, send_back_addr };
        limits.on_swarm_event(FromSwarm::ConnectionEstablished(ConnectionEstablished {
            peer_id,
            connection_id: id,
            endpoint: &endpoint,
            failed_addresses: &[],
            other_established: 0,
        }));
        Some(endpoint)
    }

    #[test]
    fn one_host_leaves_room_for_others_and_one_peer_for_others_of_its_host() {
        let mut limits = connections(96);
        let mallory = PeerId::random();
        assert_eq!((0..10).filter(|id| connect(&mut limits, *id, mallory, 1).is_some()).count(), PER_PEER);
        let established =
            (10..400).filter(|id| connect(&mut limits, *id, PeerId::random(), 1).is_some()).count() + PER_PEER;
        assert_eq!(established, 144);
        let others = (400..600).filter(|id| connect(&mut limits, *id, PeerId::random(), 2).is_some()).count();
        assert_eq!(others, 192 - 144);
    }

    #[test]
    fn whom_there_is_no_room_for_begins_no_handshake() {
        let mut limits = connections(96);
        let begins = |limits: &mut Behaviour, id, host: u8| {
            let remote: Multiaddr = format!("/ip4/10.0.0.{host}/tcp/1").parse().unwrap();
            limits
                .handle_pending_inbound_connection(ConnectionId::new_unchecked(id), &Multiaddr::empty(), &remote)
                .is_ok()
        };
        for id in 0..144 {
            assert!(connect(&mut limits, id, PeerId::random(), 1).is_some());
        }
        assert!(!begins(&mut limits, 1_000, 1));
        assert!(begins(&mut limits, 1_001, 2));
        for id in 144..192 {
            assert!(connect(&mut limits, id, PeerId::random(), 3).is_some());
        }
        assert!(!begins(&mut limits, 1_002, 2));
        assert_eq!(limits.begun.len(), 1);
    }

    #[test]
    fn nothing_is_kept_of_peers_that_have_gone() {
        let mut limits = connections(96);
        for id in 0..1_000 {
            let peer_id = PeerId::random();
            let endpoint = connect(&mut limits, id, peer_id, 1).unwrap();
            limits.on_swarm_event(FromSwarm::ConnectionClosed(ConnectionClosed {
                peer_id,
                connection_id: ConnectionId::new_unchecked(id),
                endpoint: &endpoint,
                cause: None,
                remaining_established: 0,
            }));
        }
        assert!(limits.begun.is_empty() && limits.established.is_empty());
    }
}
