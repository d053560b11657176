//! The address book: where peers that may belong to the swarm can be dialled, by whatever source said so.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use libp2p::{Multiaddr, PeerId};

use crate::addresses;

/// More peers than that are not remembered; the oldest are forgotten first.
const MAX_PEERS: usize = 4_096;

/// More addresses of one peer than that would only be dialled in vain.
const MAX_ADDRESSES: usize = 16;

/// More strangers than that are not remembered.
const MAX_STRANGERS: usize = 1_024;

/// A program that was a stranger may since have been replaced by another one.
const STRANGE_FOR: Duration = Duration::from_secs(600);

#[derive(Debug, Default)]
pub(super) struct Book {
    peers: HashMap<PeerId, Vec<Multiaddr>>,
    order: VecDeque<PeerId>,
    strangers: HashMap<PeerId, Instant>,
}

impl Book {
    /// Notes addresses of a peer, the best first. The newest are kept, and of those that come together the first.
    pub(super) fn add(&mut self, peer_id: PeerId, found: impl IntoIterator<Item = Multiaddr>) {
        if !self.peers.contains_key(&peer_id) {
            self.order.push_back(peer_id);
            if self.order.len() > MAX_PEERS
                && let Some(oldest) = self.order.pop_front()
            {
                self.peers.remove(&oldest);
            }
        }
        let known = self.peers.entry(peer_id).or_default();
        for address in found.into_iter().take(MAX_ADDRESSES) {
            let (address, _) = addresses::without_peer(address);
            known.retain(|other| *other != address);
            known.push(address);
        }
        let excess = known.len().saturating_sub(MAX_ADDRESSES);
        known.drain(..excess);
    }

    pub(super) fn addresses(&self, peer_id: &PeerId) -> &[Multiaddr] {
        self.peers.get(peer_id).map_or(&[], Vec::as_slice)
    }

    pub(super) fn remove(&mut self, peer_id: &PeerId) {
        if self.peers.remove(peer_id).is_some() {
            self.order.retain(|other| other != peer_id);
        }
    }

    /// Remembers that a peer does not belong to the swarm. True if that is news.
    pub(super) fn add_stranger(&mut self, peer_id: PeerId, now: Instant) -> bool {
        self.remove(&peer_id);
        if self.strangers.len() >= MAX_STRANGERS
            && let Some(oldest) = self.strangers.iter().min_by_key(|(_, since)| **since).map(|(peer_id, _)| *peer_id)
        {
            self.strangers.remove(&oldest);
        }
        self.strangers.insert(peer_id, now).is_none()
    }

    pub(super) fn is_stranger(&self, peer_id: &PeerId, now: Instant) -> bool {
        self.strangers.get(peer_id).is_some_and(|since| now.saturating_duration_since(*since) < STRANGE_FOR)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(port: u16) -> Multiaddr {
        format!("/ip4/10.0.0.1/tcp/{port}").parse().unwrap()
    }

    #[test]
    fn the_newest_addresses_are_kept() {
        let mut book = Book::default();
        let peer_id = PeerId::random();
        (1..=20).for_each(|port| book.add(peer_id, [address(port)]));
        book.add(peer_id, [address(6)]);
        let known = book.addresses(&peer_id);
        assert_eq!((known.len(), known.first(), known.last()), (16, Some(&address(5)), Some(&address(6))));
    }

    #[test]
    fn of_the_many_addresses_of_a_host_with_many_interfaces_the_best_are_kept() {
        let mut book = Book::default();
        let peer_id = PeerId::random();
        let loopback: Multiaddr = "/ip4/127.0.0.1/tcp/1".parse().unwrap();
        book.add(peer_id, std::iter::once(loopback.clone()).chain((1..=60).map(address)));
        let known = book.addresses(&peer_id);
        assert_eq!((known.len(), known.first(), known.last()), (16, Some(&loopback), Some(&address(15))));
    }

    #[test]
    fn the_book_is_bounded() {
        let mut book = Book::default();
        let first = PeerId::random();
        book.add(first, [address(1)]);
        for _ in 0..MAX_PEERS {
            book.add(PeerId::random(), [address(1)]);
        }
        assert_eq!((book.peers.len(), book.order.len()), (MAX_PEERS, MAX_PEERS));
        assert!(book.addresses(&first).is_empty());
        for _ in 0..2 * MAX_STRANGERS {
            book.add_stranger(PeerId::random(), Instant::now());
        }
        assert_eq!(book.strangers.len(), MAX_STRANGERS);
    }

    #[test]
    fn a_stranger_is_one_for_a_while() {
        let (mut book, now, peer_id) = (Book::default(), Instant::now(), PeerId::random());
        assert!(book.add_stranger(peer_id, now));
        assert!(!book.add_stranger(peer_id, now));
        assert!(book.is_stranger(&peer_id, now));
        assert!(!book.is_stranger(&peer_id, now + STRANGE_FOR));
    }
}
