//! Which connection has come to its end.

use libp2p::{
    PeerId,
    swarm::{ConnectionClosed, ConnectionId, FromSwarm},
};

/// The connection that an event is the end of, and whose it was if that is known. One that another behaviour has denied
/// is never established and never closed: its failure is reported instead, to those that had admitted it, too.
pub(crate) fn ended(event: &FromSwarm<'_>) -> Option<(ConnectionId, Option<PeerId>)> {
    match event {
        FromSwarm::ConnectionClosed(ConnectionClosed { peer_id, connection_id, .. }) => {
            Some((*connection_id, Some(*peer_id)))
        }
        FromSwarm::DialFailure(failure) => Some((failure.connection_id, failure.peer_id)),
        FromSwarm::ListenFailure(failure) => Some((failure.connection_id, failure.peer_id)),
        _ => None,
    }
}
