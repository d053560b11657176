//! Nodes that may have to give way, by who has brought them: whoever brings many makes room at the cost of their own.

use std::{
    collections::{BTreeSet, HashMap},
    time::Instant,
};

use libp2p::PeerId;

/// Nodes in groups. Every step costs the logarithm of their number.
#[derive(Debug, Default)]
pub(super) struct Crowd {
    /// Those that each introducer has brought, and that this node was never connected to.
    introduced: HashMap<PeerId, Group>,
    /// The introducers: those that are connected first, then by what their group weighs.
    ranking: BTreeSet<(bool, usize, PeerId)>,
    /// Those that this node was connected to.
    verified: Group,
    len: usize,
    weight: usize,
}

#[derive(Debug, Default)]
struct Group {
    weight: usize,
    /// The one that was silent for longest first.
    members: BTreeSet<(Instant, PeerId)>,
    /// Its introducer is not connected any more.
    absent: bool,
}

/// A node's place in a crowd.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    /// Who has brought it; nobody if it is verified.
    pub(super) introducer: Option<PeerId>,
    pub(super) heard: Instant,
    pub(super) weight: usize,
}

impl Crowd {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn weight(&self) -> usize {
        self.weight
    }

    /// How many an introducer has brought, and what they weigh.
    pub(super) fn brought_by(&self, introducer: &PeerId) -> (usize, usize) {
        self.introduced.get(introducer).map_or((0, 0), |group| (group.members.len(), group.weight))
    }

    pub(super) fn add(&mut self, peer_id: PeerId, place: Place, absent: bool) {
        self.len += 1;
        self.weight += place.weight;
        match place.introducer {
            None => self.verified.add(peer_id, place),
            Some(introducer) => self.change(introducer, absent, |group| group.add(peer_id, place)),
        }
    }

    pub(super) fn remove(&mut self, peer_id: PeerId, place: Place) {
        self.len -= 1;
        self.weight -= place.weight;
        match place.introducer {
            None => self.verified.remove(peer_id, place),
            Some(introducer) => self.change(introducer, false, |group| group.remove(peer_id, place)),
        }
    }

    /// An introducer has gone, or is back.
    pub(super) fn set_absent(&mut self, introducer: &PeerId, absent: bool) {
        if self.introduced.contains_key(introducer) {
            self.change(*introducer, absent, |group| group.absent = absent);
        }
    }

    /// The one to give way first that nobody here was ever connected to: of introducers that are gone, else of those that
    /// have brought more than `own_weight`.
    pub(super) fn stalest_introduced(&self, own_weight: usize) -> Option<PeerId> {
        let (absent, weight, introducer) = self.ranking.last()?;
        if !absent && *weight <= own_weight {
            return None;
        }
        self.introduced.get(introducer)?.stalest()
    }

    /// The one to give way first of those that this node was connected to.
    pub(super) fn stalest_verified(&self) -> Option<PeerId> {
        self.verified.stalest()
    }

    fn change(&mut self, introducer: PeerId, absent: bool, change: impl FnOnce(&mut Group)) {
        let group = self.introduced.entry(introducer).or_insert_with(|| Group { absent, ..Group::default() });
        self.ranking.remove(&(group.absent, group.weight, introducer));
        change(group);
        if group.members.is_empty() {
            self.introduced.remove(&introducer);
        } else {
            self.ranking.insert((group.absent, group.weight, introducer));
        }
    }
}

impl Group {
    fn add(&mut self, peer_id: PeerId, place: Place) {
        self.weight += place.weight;
        self.members.insert((place.heard, peer_id));
    }

    fn remove(&mut self, peer_id: PeerId, place: Place) {
        self.weight -= place.weight;
        self.members.remove(&(place.heard, peer_id));
    }

    fn stalest(&self) -> Option<PeerId> {
        self.members.first().map(|(_, peer_id)| *peer_id)
    }
}
