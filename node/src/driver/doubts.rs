//! Whether a node that is known only from others is still there, when it refuses to be dialled.

use std::{
    io::{self, ErrorKind},
    time::{Duration, Instant},
};

use libp2p::{PeerId, TransportError, swarm::DialError};

use super::{Driver, Due, losing::SECOND_CHANCE, root};

/// Two refusals of a node that nobody here was connected to belong together if no more lies between them.
const DOUBT: Duration = Duration::from_secs(2);

/// More nodes than that are not doubted at once; missing signs of life show the others.
const MAX_DOUBTS: usize = 256;

/// A live node that nobody here is connected to was refused at its addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Doubt {
    /// Once, at that time.
    Refused(Instant),
    /// Twice, in this life of it. If it gives signs of life all the same, its addresses mean something else here.
    Judged { incarnation: u64 },
}

impl Driver {
    /// Where a live node should be there is nobody. The second refusal in a row counts, unless the node has outlived
    /// one already.
    pub(super) fn doubt(&mut self, peer_id: PeerId, now: Instant) {
        let incarnation = self.directory.version(&peer_id).map_or(0, |version| version.incarnation);
        match self.doubts.get(&peer_id) {
            Some(Doubt::Judged { incarnation: judged }) if *judged == incarnation => {}
            Some(Doubt::Refused(first)) if now.saturating_duration_since(*first) <= DOUBT => {
                self.doubts.insert(peer_id, Doubt::Judged { incarnation });
                self.on_lost(peer_id, false, now);
            }
            None if self.doubts.len() >= MAX_DOUBTS => {}
            _ => {
                self.doubts.insert(peer_id, Doubt::Refused(now));
                self.timers.at(now + SECOND_CHANCE, Due::Redial(peer_id));
            }
        }
    }

    /// A dial has failed in another way: what was refused before does not count any more.
    pub(super) fn break_doubt(&mut self, peer_id: &PeerId) {
        if let Some(Doubt::Refused(_)) = self.doubts.get(peer_id) {
            self.doubts.remove(peer_id);
        }
    }

    pub(super) fn forget_doubts(&mut self) {
        self.doubts.retain(|peer_id, _| self.directory.knows(peer_id));
    }
}

/// Whether nobody listens at any of the peer's addresses that can be asked from here. A firewall that drops everything,
/// or a host that is down, looks different: the dial times out.
pub(super) fn refused(error: &DialError) -> bool {
    let DialError::Transport(errors) = error else { return false };
    let kinds = errors.iter().filter_map(|(_, error)| match error {
        TransportError::MultiaddrNotSupported(_) => None,
        TransportError::Other(error) => Some(innermost_kind(error)),
    });
    // Addresses of a kind of network that this host does not have say nothing.
    let telling: Vec<ErrorKind> =
        kinds.filter(|kind| !matches!(kind, ErrorKind::NetworkUnreachable | ErrorKind::AddrNotAvailable)).collect();
    !telling.is_empty() && telling.iter().all(|kind| *kind == ErrorKind::ConnectionRefused)
}

fn innermost_kind(error: &io::Error) -> ErrorKind {
    root(error).downcast_ref::<io::Error>().map_or(error.kind(), io::Error::kind)
}

#[cfg(test)]
mod tests {
    use libp2p::Multiaddr;

    use super::*;

    fn failed(kinds: &[ErrorKind]) -> DialError {
        let address: Multiaddr = "/ip4/127.0.0.1/tcp/1".parse().unwrap();
        let wrapped = |kind: &ErrorKind| TransportError::Other(io::Error::other(io::Error::from(*kind)));
        DialError::Transport(kinds.iter().map(|kind| (address.clone(), wrapped(kind))).collect())
    }

    #[test]
    fn only_refusals_show_that_a_node_is_gone() {
        use ErrorKind::{ConnectionRefused, NetworkUnreachable, TimedOut};
        assert!(refused(&failed(&[ConnectionRefused, ConnectionRefused])));
        assert!(refused(&failed(&[ConnectionRefused, NetworkUnreachable])));
        assert!(!refused(&failed(&[TimedOut])));
        assert!(!refused(&failed(&[ConnectionRefused, TimedOut])));
        assert!(!refused(&failed(&[NetworkUnreachable])));
        assert!(!refused(&DialError::Aborted));
    }
}
