//! When something last came on a connection, whatever it was.

use std::{
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use libp2p::{Multiaddr, PeerId, multiaddr::Protocol};

/// When something last came on a connection. Clones are of the same connection.
#[derive(Debug, Clone)]
pub struct Pulse(Arc<Beats>);

#[derive(Debug)]
struct Beats {
    begun: Instant,
    /// In microseconds since then.
    last: AtomicU64,
}

impl Default for Pulse {
    fn default() -> Self {
        Self(Arc::new(Beats { begun: Instant::now(), last: AtomicU64::new(0) }))
    }
}

impl Pulse {
    /// Something has come.
    pub fn beat(&self) {
        let since = u64::try_from(self.0.begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.0.last.store(since, Relaxed);
    }

    /// When something last came, or the connection began.
    #[must_use]
    pub fn last(&self) -> Instant {
        let since = Duration::from_micros(self.0.last.load(Relaxed));
        self.0.begun.checked_add(since).unwrap_or(self.0.begun)
    }
}

/// The pulses of connections from the moment at which the transport has made them until the swarm knows them: a swarm
/// tells nobody which muxer belongs to which of its connections, but it does tell who is at the other end, and where.
#[derive(Debug, Clone, Default)]
pub struct Pulses(Arc<Mutex<Vec<Fresh>>>);

/// Those whose connection was refused meanwhile are let go when the next one comes; so there are no more of them than
/// connections that are being made.
#[derive(Debug)]
struct Fresh {
    peer_id: PeerId,
    address: Multiaddr,
    beats: Weak<Beats>,
}

impl Pulses {
    pub(crate) fn add(&self, peer_id: PeerId, address: &Multiaddr, pulse: &Pulse) {
        let mut fresh = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        fresh.retain(|one| one.beats.strong_count() > 0);
        fresh.push(Fresh { peer_id, address: address.clone(), beats: Arc::downgrade(&pulse.0) });
    }

    /// The pulse of a new connection. The transport may know it by another address, where a name was resolved: then it
    /// is the oldest one of that peer.
    pub(crate) fn take(&self, peer_id: &PeerId, address: &Multiaddr) -> Option<Pulse> {
        let mut fresh = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_of_peer = |one: &Fresh| one.peer_id == *peer_id && one.beats.strong_count() > 0;
        let index = fresh.iter().position(|one| is_of_peer(one) && one.address == *address);
        let is_name =
            |part| matches!(part, Protocol::Dns(_) | Protocol::Dns4(_) | Protocol::Dns6(_) | Protocol::Dnsaddr(_));
        let index =
            index.or_else(|| if address.iter().any(is_name) { fresh.iter().position(is_of_peer) } else { None })?;
        fresh.remove(index).beats.upgrade().map(Pulse)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pulse_is_found_by_peer_and_address_once_and_not_after_its_connection() {
        let (pulses, peer_id) = (Pulses::default(), PeerId::random());
        let (one, two): (Multiaddr, Multiaddr) =
            ("/ip4/10.0.0.1/tcp/1".parse().unwrap(), "/ip4/10.0.0.2/tcp/1".parse().unwrap());
        let (first, second, refused) = (Pulse::default(), Pulse::default(), Pulse::default());
        pulses.add(peer_id, &one, &refused);
        drop(refused);
        pulses.add(peer_id, &one, &first);
        pulses.add(peer_id, &two, &second);
        assert!(pulses.take(&PeerId::random(), &one).is_none());
        let quic = "/ip4/10.0.0.1/udp/1/quic-v1".parse().unwrap();
        assert!(pulses.take(&peer_id, &quic).is_none(), "a connection of another kind has none");
        assert!(Arc::ptr_eq(&pulses.take(&peer_id, &two).unwrap().0, &second.0));
        let named = "/dns4/host.example/tcp/1".parse().unwrap();
        assert!(Arc::ptr_eq(&pulses.take(&peer_id, &named).unwrap().0, &first.0));
        assert!(pulses.take(&peer_id, &one).is_none());
    }
}
