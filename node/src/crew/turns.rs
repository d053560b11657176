//! Whose turn it is: what comes from peers is done in turns, so that nobody waits behind all the calls of another one.

use std::collections::{HashMap, VecDeque};

use libp2p::PeerId;
use multinodes_behaviour::quick_hash::QuickHash;

/// So many peers that have no call waiting keep their empty line: to make a new one for each call is dear.
const IDLE_LINES: usize = 64;

/// An empty line that has held more than this gives its memory back.
const SHORT: usize = 64;

/// A line for each peer. Calls of one peer keep their order.
pub(crate) struct Turns<T> {
    lines: HashMap<PeerId, VecDeque<T>, QuickHash>,
    /// The peers whose lines are not empty.
    order: VecDeque<PeerId>,
    waiting: usize,
}

impl<T> Default for Turns<T> {
    fn default() -> Self {
        Self { lines: HashMap::default(), order: VecDeque::new(), waiting: 0 }
    }
}

impl<T> Turns<T> {
    pub(crate) fn len(&self) -> usize {
        self.waiting
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting == 0
    }

    /// Whether anything of a peer waits.
    pub(crate) fn has(&self, peer_id: &PeerId) -> bool {
        self.lines.get(peer_id).is_some_and(|line| !line.is_empty())
    }

    pub(crate) fn push(&mut self, peer_id: PeerId, job: T) {
        let line = self.lines.entry(peer_id).or_default();
        if line.is_empty() {
            self.order.push_back(peer_id);
        }
        line.push_back(job);
        self.waiting += 1;
    }

    pub(crate) fn pop(&mut self) -> Option<T> {
        let peer_id = self.order.pop_front()?;
        let many = self.lines.len() > IDLE_LINES;
        let line = self.lines.get_mut(&peer_id)?;
        let job = line.pop_front()?;
        self.waiting -= 1;
        if !line.is_empty() {
            self.order.push_back(peer_id);
        } else if many {
            self.lines.remove(&peer_id);
        } else if line.capacity() > SHORT {
            line.shrink_to(SHORT);
        }
        Some(job)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_waits_behind_all_the_calls_of_another() {
        let (busy, modest) = (PeerId::random(), PeerId::random());
        let mut turns = Turns::default();
        for number in 0..1000 {
            turns.push(busy, (busy, number));
        }
        turns.push(modest, (modest, 0));
        turns.push(modest, (modest, 1));
        let first: Vec<_> = (0..5).filter_map(|_| turns.pop()).collect();
        assert_eq!(first, [(busy, 0), (modest, 0), (busy, 1), (modest, 1), (busy, 2)]);
        assert_eq!((turns.len(), std::iter::from_fn(|| turns.pop()).count()), (997, 997));
        assert!(turns.is_empty() && turns.order.is_empty());
    }

    #[test]
    fn lines_of_peers_that_are_gone_are_not_kept_for_ever() {
        let mut turns = Turns::default();
        for _ in 0..10 * IDLE_LINES {
            turns.push(PeerId::random(), ());
        }
        while turns.pop().is_some() {}
        assert!(turns.lines.len() <= IDLE_LINES);
    }
}
