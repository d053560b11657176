//! Room for records: how many and how heavy they may be, in all and of one introducer, and who gives way.

use libp2p::PeerId;

use super::{
    Directory, Entry, MAX_NODES, MAX_WEIGHT, State,
    crowd::{Crowd, Place},
    describing::Described,
};

/// Records of nodes that this one was never connected to are taken of one neighbour up to so many. In a larger swarm a node
/// learns the others of further neighbours, of which it looks for 32.
pub(super) const MAX_INTRODUCED: usize = 2_048;

/// What these may weigh together, in bytes: no neighbour fills the directory alone.
const MAX_INTRODUCED_WEIGHT: usize = MAX_WEIGHT / 4;

/// Others are let go for a record that weighs no more, in bytes: those that are connected could make up large ones as well.
const MODEST: usize = 64 * 1024;

/// Nodes that are gone are remembered, so that late gossip cannot bring them back, but not more than these.
pub(crate) const MAX_GONE: usize = 2_000;

/// What they may weigh, in bytes: of a node that is lost the record is kept for when it is back.
const MAX_GONE_WEIGHT: usize = MAX_WEIGHT / 8;

impl Directory {
    /// Makes room for a record if it may have some.
    ///
    /// For a node that is connected those make room that are only said to be there: anybody can make up such nodes without
    /// end, but only so many can be connected. Of the others each introducer has a share.
    pub(super) fn make_room(&mut self, described: &Described, source: PeerId) -> bool {
        let (peer_id, weight) = (described.info.peer_id, described.weight);
        let before = self.entries.get(&peer_id);
        let grows = before.is_none_or(|entry| entry.state != State::Live);
        let known = self.connected.contains(&peer_id) || before.is_some_and(|entry| entry.verified);
        let heavier = weight.saturating_sub(before.map_or(0, |entry| entry.weight));
        let introducer = before.and_then(|entry| entry.introducer).unwrap_or(source);
        if !known && !self.may_bring(&introducer, before.is_none(), heavier) {
            return false;
        }
        while !self.has_room(&peer_id, grows, weight) {
            let Some(other) = self.who_gives_way(&peer_id, weight, &introducer) else { return false };
            if other == peer_id {
                return false;
            }
            self.evict(&other);
        }
        true
    }

    /// Whether a record of a node that is not known would be taken of a neighbour.
    pub(crate) fn takes_more_of(&self, introducer: &PeerId) -> bool {
        self.may_bring(introducer, true, 0)
    }

    fn may_bring(&self, introducer: &PeerId, another: bool, heavier: usize) -> bool {
        let (living, gone) = (self.living.brought_by(introducer), self.gone.brought_by(introducer));
        let (count, weight) = (living.0 + gone.0, living.1 + gone.1);
        (!another || count < MAX_INTRODUCED) && (heavier == 0 || weight + heavier <= MAX_INTRODUCED_WEIGHT)
    }

    fn has_room(&self, peer_id: &PeerId, grows: bool, weight: usize) -> bool {
        let before = self.entries.get(peer_id).map_or(0, |entry| entry.weight);
        (!grows || self.live < MAX_NODES) && self.weight - before + weight <= MAX_WEIGHT
    }

    fn who_gives_way(&self, peer_id: &PeerId, weight: usize, introducer: &PeerId) -> Option<PeerId> {
        if self.connected.contains(peer_id) {
            if weight > MODEST {
                return None;
            }
            return self.living.stalest_introduced(0).or_else(|| self.living.stalest_verified());
        }
        // Who was connected once stays; and who has gone away has no share any more.
        let (_, own_weight) = self.living.brought_by(introducer);
        if self.connected.contains(introducer) { self.living.stalest_introduced(own_weight + weight) } else { None }
    }

    fn evict(&mut self, peer_id: &PeerId) {
        self.news.touch(peer_id, self.entries.get(peer_id));
        let Some(entry) = self.remove(peer_id) else { return };
        self.release_name(&entry.info.name, peer_id);
        self.news.forget(peer_id);
        self.news.on_change();
    }

    /// Forgets nodes that are gone until there are not too many: first those that were never connected, of the introducer
    /// who has brought most. So nobody can have those forgotten that others have brought.
    pub(super) fn make_room_for_gone(&mut self) {
        while self.gone.len() > MAX_GONE || self.gone.weight() > MAX_GONE_WEIGHT || self.weight > MAX_WEIGHT {
            let Some(other) = self.gone.stalest_introduced(0).or_else(|| self.gone.stalest_verified()) else { return };
            self.remove(&other);
            self.news.forget(&other);
        }
    }

    /// Puts a node into its crowd, if it has to give way in any case.
    pub(super) fn list(&mut self, peer_id: &PeerId) {
        if let Some((place, state)) = self.place(peer_id) {
            let absent = place.introducer.is_some_and(|introducer| !self.connected.contains(&introducer));
            match state {
                State::Live => self.living.add(*peer_id, place, absent),
                State::Lost | State::Stopped => self.gone.add(*peer_id, place, false),
            }
        }
    }

    /// Takes a node out of its crowd, before anything changes that its place depends on.
    pub(super) fn unlist(&mut self, peer_id: &PeerId) {
        if let Some((place, state)) = self.place(peer_id) {
            self.crowd(state).remove(*peer_id, place);
        }
    }

    fn crowd(&mut self, state: State) -> &mut Crowd {
        match state {
            State::Live => &mut self.living,
            State::Lost | State::Stopped => &mut self.gone,
        }
    }

    fn place(&self, peer_id: &PeerId) -> Option<(Place, State)> {
        let entry: &Entry = self.entries.get(peer_id)?;
        let stays = *peer_id == self.own || (entry.state == State::Live && self.connected.contains(peer_id));
        let introducer = entry.introducer.filter(|_| !entry.verified);
        let place = Place { introducer, heard: entry.heard, weight: entry.weight };
        (!stays).then_some((place, entry.state))
    }
}
