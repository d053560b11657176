//! Who was heard, where, and until when that holds. Bounded, whatever is heard.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use libp2p::{Multiaddr, PeerId};

/// A LAN with more libp2p programs needs other ways of finding.
pub(super) const MAX_PEERS: usize = 512;

/// A host with more addresses does not need them all.
pub(super) const MAX_ADDRESSES: usize = 16;

/// What is told for longer is believed for so long: nobody takes a place for ever.
const LONGEST: Duration = Duration::from_secs(10 * 60);

/// What is told for a shorter time is believed for so long, so that nobody can be found and forgotten all the time.
const SHORTEST: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub(super) struct Table(HashMap<PeerId, Vec<(Multiaddr, Instant)>>);

impl Table {
    /// Notes that a peer was heard at an address. True if that is news.
    pub(super) fn note(&mut self, peer_id: PeerId, address: &Multiaddr, ttl: Duration, now: Instant) -> bool {
        let until = now + ttl.clamp(SHORTEST, LONGEST);
        if self.0.len() >= MAX_PEERS && !self.0.contains_key(&peer_id) {
            tracing::debug!(%peer_id, "too many peers on this network, one more is ignored");
            return false;
        }
        let addresses = self.0.entry(peer_id).or_default();
        if let Some((_, known)) = addresses.iter_mut().find(|(known, _)| known == address) {
            *known = until.max(*known);
            return false;
        }
        if addresses.len() >= MAX_ADDRESSES {
            return false;
        }
        addresses.push((address.clone(), until));
        true
    }

    /// Makes room: who was not heard again in time is given. It may be well, and a dead one is noticed by its connection.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<PeerId> {
        let mut silent = Vec::new();
        self.0.retain(|peer_id, addresses| {
            addresses.retain(|(_, until)| *until > now);
            if addresses.is_empty() {
                silent.push(*peer_id);
            }
            !addresses.is_empty()
        });
        silent
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(180);

    fn address(port: u16) -> Multiaddr {
        format!("/ip4/10.0.0.1/tcp/{port}").parse().unwrap()
    }

    #[test]
    fn it_is_bounded() {
        let (mut table, now, peer_id) = (Table::default(), Instant::now(), PeerId::random());
        assert_eq!((1..100).filter(|port| table.note(peer_id, &address(*port), TTL, now)).count(), MAX_ADDRESSES);
        for _ in 0..2 * MAX_PEERS {
            table.note(PeerId::random(), &address(1), TTL, now);
        }
        assert_eq!(table.len(), MAX_PEERS);
    }

    #[test]
    fn what_has_expired_makes_room_and_is_news_again() {
        let (mut table, now, peer_id) = (Table::default(), Instant::now(), PeerId::random());
        assert!(table.note(peer_id, &address(1), TTL, now));
        assert!(!table.note(peer_id, &address(1), TTL, now + TTL / 2));
        assert!(table.expire(now + TTL).is_empty(), "it was heard since");
        assert_eq!(table.expire(now + TTL + TTL / 2), [peer_id]);
        assert!(table.note(peer_id, &address(1), TTL, now + 2 * TTL));
    }

    #[test]
    fn nobody_takes_a_place_for_ever_or_comes_and_goes_all_the_time() {
        let (mut table, now) = (Table::default(), Instant::now());
        let [eternal, fleeting] = [PeerId::random(), PeerId::random()];
        table.note(eternal, &address(1), Duration::from_secs(u64::from(u32::MAX)), now);
        table.note(fleeting, &address(2), Duration::ZERO, now);
        assert!(table.expire(now + SHORTEST / 2).is_empty());
        assert_eq!(table.expire(now + SHORTEST), [fleeting]);
        assert_eq!(table.expire(now + LONGEST), [eternal]);
    }
}
