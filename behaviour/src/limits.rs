//! How many connections, and how much memory, before new connections are refused. libp2p sets none of these by itself.

use libp2p::{
    connection_limits::{self, ConnectionLimits},
    memory_connection_limits,
};

/// Handshakes under way in each direction: each costs CPU before anything is known of the peer. A swarm of 100 that
/// starts at once needs some; those that are refused try again.
const PENDING: u32 = 64;

/// Two nodes that dial each other at once get two connections for a moment, four if each has two kinds of transport.
const PER_PEER: u32 = 4;

/// Connections above the high mark are closed by the driver after a while, so some room must be left above it: the
/// driver chooses better whom to let go than a limit chooses whom to refuse.
const HEAD_ROOM: usize = 2;

/// Below this even a small high mark does not go: one-shot commands come and go.
const LEAST_ESTABLISHED: usize = 64;

/// The part of the machine's memory at which this process takes no more connections: a node that is swapping, or about
/// to be killed, serves those it has better than new ones. It is not a limit of what a node should use.
const MEMORY: f64 = 0.9;

/// Limits the number of connections.
#[must_use]
pub fn connections(high_mark: usize) -> connection_limits::Behaviour {
    let established = high_mark.saturating_mul(HEAD_ROOM).max(LEAST_ESTABLISHED);
    connection_limits::Behaviour::new(
        ConnectionLimits::default()
            .with_max_pending_incoming(Some(PENDING))
            .with_max_pending_outgoing(Some(PENDING))
            .with_max_established_per_peer(Some(PER_PEER))
            .with_max_established(Some(u32::try_from(established).unwrap_or(u32::MAX))),
    )
}

/// Refuses connections when memory runs out.
#[must_use]
pub fn memory() -> memory_connection_limits::Behaviour {
    memory_connection_limits::Behaviour::with_max_percentage(MEMORY)
}
