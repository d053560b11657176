//! Who is in the swarm, as this node knows it: a replicated map with one writer for each key.
//!
//! Every node signs its own record, and of two records of one node the higher (incarnation, revision) wins. So records
//! may come in any order, any number of times and by any way: the result is the same.
//!
//! A record proves who has signed it, and not that there is a node behind it: anybody can make up keys without end. So
//! a node is *verified* when this one was connected to it, and what is made up is bounded by who has brought it.
//!
//! Pure: no clock, no network, no task. Whoever calls says what time it is, and takes the changes away afterwards.

mod crowd;
mod describing;
mod entry;
mod liveness;
mod lives;
mod names;
mod news;
mod reading;
mod room;
#[cfg(test)]
mod tests;
mod weight;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Instant,
};

use libp2p::PeerId;
use multinodes_behaviour::{SignedBeat, SignedRecord, wire::Version};

use self::{
    crowd::Crowd,
    describing::{Described, describe},
    entry::{Entry, State},
    names::Names,
    news::News,
};
pub(crate) use self::{liveness::changed, lives::Turns, news::MAX_NAMED};

/// More live nodes than that are not held: state and sync grow with their number.
pub(crate) const MAX_NODES: usize = 10_000;

/// What all records together may take in memory, in bytes, with all that is made of them: 13 KiB for each of so many nodes,
/// and no more for a few that anybody can make up with the largest records.
const MAX_WEIGHT: usize = 128 * 1024 * 1024;

/// The replicated state.
pub(crate) struct Directory {
    own: PeerId,
    host: Option<Vec<u8>>,
    entries: HashMap<PeerId, Entry>,
    connected: HashSet<PeerId>,
    /// The live holders of each name.
    names: Names,
    /// The live nodes that may have to give way: not this one, and none that is connected.
    living: Crowd,
    /// The nodes that are gone.
    gone: Crowd,
    live: usize,
    /// Nodes that were lost by silence.
    silent: usize,
    /// Of all entries together.
    weight: usize,
    /// So many nodes there are, as far as it is believed.
    believed: usize,
    news: News,
    turns: Turns,
    /// Tells this process from others that use its key.
    own_process: Option<u64>,
    /// Another one that does, and the last incarnation with which it went beyond this one.
    rival: Option<(u64, u64)>,
}

/// What became of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Merged {
    /// It was new, and others may not have it yet.
    News,
    /// It, or a later one, was known; or it is the last word of a node that was not.
    Old,
    /// Somebody holds a record of this very node that is later than its own: the own one must step over it.
    Overtaken(Version),
    /// The table is full, or whoever has brought it has brought too many.
    Refused,
}

/// What became of a sign of life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Heard {
    /// It was new.
    News,
    /// It was new and tells of a record that is not known here.
    Wanted,
    /// It, or a later one, was known.
    Old,
    /// Somebody signs with this node's key, and lives later.
    Overtaken(Version),
}

impl Directory {
    /// An empty directory of node `own`, on the host with token `host`.
    pub(crate) fn new(own: PeerId, host: Option<Vec<u8>>) -> Self {
        Self {
            own,
            host,
            entries: HashMap::new(),
            connected: HashSet::new(),
            names: Names::default(),
            living: Crowd::default(),
            gone: Crowd::default(),
            live: 0,
            silent: 0,
            weight: 0,
            believed: 0,
            news: News::default(),
            turns: Turns::default(),
            own_process: None,
            rival: None,
        }
    }

    /// Puts this node's own record in. There is no event for it.
    pub(crate) fn set_own(&mut self, signed: SignedRecord, load: u32, now: Instant) {
        self.own_process = signed.record.process.as_ref().map(|process| lives::number(process));
        let mut described = describe(signed, true, true);
        described.info.load = load;
        self.insert(described, None, now);
    }

    /// The load of this node itself.
    pub(crate) fn set_own_load(&mut self, load: u32) {
        let own = self.own;
        self.set_load(&own, load);
    }

    /// Takes a record of anybody, which the neighbour `source` has brought.
    pub(crate) fn on_record(&mut self, signed: SignedRecord, source: PeerId, now: Instant) -> Merged {
        let (peer_id, version) = (signed.peer_id, signed.version());
        let held = self.entries.get(&peer_id).map(|entry| (entry.version, entry.state));
        if held.is_some_and(|(held, _)| version <= held) {
            return Merged::Old;
        }
        if peer_id == self.own {
            self.on_rival(signed.record.process.as_ref().map(|process| &process[..]), version.incarnation);
            return Merged::Overtaken(version);
        }
        if signed.record.left {
            // A last word of somebody that nobody here has heard of says nothing, and anybody can make up such.
            let process = signed.record.process.clone();
            return if held.is_some() {
                let merged = self.bury(signed, now);
                self.on_life(&peer_id, process.as_ref().map(|process| &process[..]));
                merged
            } else {
                Merged::Old
            };
        }
        let same_host =
            self.host.is_some() && signed.record.host.as_ref().map(|token| &token[..]) == self.host.as_deref();
        let process = signed.record.process.clone();
        let described = describe(signed, false, same_host);
        if !self.make_room(&described, source) {
            return Merged::Refused;
        }
        self.welcome(described, source, now);
        self.on_life(&peer_id, process.as_ref().map(|process| &process[..]));
        Merged::News
    }

    /// Takes a sign of life of anybody, which the neighbour `source` has brought.
    pub(crate) fn on_beat(&mut self, signed: &SignedBeat, source: &PeerId, now: Instant) -> Heard {
        let (peer_id, beat, version) = (signed.peer_id, &signed.beat, signed.version());
        let Some(entry) = self.entries.get_mut(&peer_id) else {
            return match peer_id == self.own {
                true => Heard::Old,
                // It is no use to ask for a record that would be refused.
                false if self.takes_more_of(source) => Heard::Wanted,
                false => Heard::News,
            };
        };
        let held = entry.version;
        if peer_id == self.own {
            return if version > held { Heard::Overtaken(version) } else { Heard::Old };
        }
        if version.incarnation != held.incarnation {
            return if version > held { Heard::Wanted } else { Heard::Old };
        }
        if beat.beat <= entry.beat || entry.state == State::Stopped {
            return Heard::Old;
        }
        entry.rhythm.on_beat(beat.beat - entry.beat, now);
        entry.beat = beat.beat;
        self.touch_life(&peer_id, now);
        self.set_load(&peer_id, beat.load);
        self.revive(&peer_id, now);
        if version > held { Heard::Wanted } else { Heard::News }
    }

    fn welcome(&mut self, described: Described, source: PeerId, now: Instant) {
        let peer_id = described.info.peer_id;
        self.news.touch(&peer_id, self.entries.get(&peer_id));
        self.insert(described, Some(source), now);
    }

    fn insert(&mut self, mut described: Described, source: Option<PeerId>, now: Instant) {
        let peer_id = described.info.peer_id;
        let before = self.remove(&peer_id);
        let life = before.as_ref().filter(|before| before.version.incarnation == described.version.incarnation);
        let beat = life.map_or(0, |before| before.beat);
        let alive = before.as_ref().filter(|before| before.state == State::Live);
        let verified = self.connected.contains(&peer_id) || alive.is_some_and(|before| before.verified);
        described.info.verified = verified || peer_id == self.own;
        if let Some(before) = alive.filter(|_| peer_id != self.own) {
            described.info.load = before.info.load;
        }
        let old_name = alive.map(|before| before.info.clone()).filter(|old| old.name != described.info.name);
        let keeps_name = alive.is_some() && old_name.is_none();
        described.info.conflict = keeps_name && alive.is_some_and(|before| before.info.conflict);
        let rhythm = before.as_ref().map(|before| before.rhythm).unwrap_or_default();
        let introducer = before.as_ref().and_then(|before| before.introducer).or(source);
        self.put(Entry {
            envelope: described.envelope,
            version: described.version,
            weight: described.weight,
            state: State::Live,
            silent: false,
            heard: now,
            beat,
            rhythm,
            introducer,
            verified,
            lives: before.map(|before| before.lives).unwrap_or_default(),
            info: Arc::new(described.info),
        });
        if let Some(old) = old_name {
            self.release_name(&old.name, &peer_id);
        }
        if !keeps_name {
            self.claim_name(&peer_id);
        }
        self.news.on_change();
    }

    /// Takes the last word of a node that is known.
    fn bury(&mut self, signed: SignedRecord, now: Instant) -> Merged {
        let peer_id = signed.peer_id;
        self.news.touch(&peer_id, self.entries.get(&peer_id));
        let Some(before) = self.remove(&peer_id) else { return Merged::Old };
        if before.state == State::Live {
            self.release_name(&before.info.name, &peer_id);
        }
        let described = describe(signed, false, false);
        self.put(Entry {
            envelope: described.envelope,
            version: described.version,
            weight: described.weight,
            state: State::Stopped,
            silent: false,
            heard: now,
            beat: 0,
            info: Arc::new(described.info),
            ..before
        });
        self.make_room_for_gone();
        self.news.on_change();
        Merged::News
    }

    /// Puts an entry into all tables but that of names.
    fn put(&mut self, entry: Entry) {
        let peer_id = entry.info.peer_id;
        self.weight += entry.weight;
        self.live += usize::from(entry.state == State::Live);
        self.silent += usize::from(entry.silent);
        self.entries.insert(peer_id, entry);
        self.list(&peer_id);
    }

    /// Takes an entry out of all tables but that of names.
    fn remove(&mut self, peer_id: &PeerId) -> Option<Entry> {
        self.unlist(peer_id);
        let entry = self.entries.remove(peer_id)?;
        self.weight -= entry.weight;
        self.live -= usize::from(entry.state == State::Live);
        self.silent -= usize::from(entry.silent);
        Some(entry)
    }

    /// Writes down that a node has the name in its record.
    fn claim_name(&mut self, peer_id: &PeerId) {
        let Some(entry) = self.entries.get(peer_id) else { return };
        let name: Arc<str> = entry.info.name.as_str().into();
        let other = self.names.insert(&name, *peer_id);
        if let Some(other) = other {
            self.set_conflict(&other, true);
            self.set_conflict(peer_id, true);
            if *peer_id != self.own {
                self.news.on_conflict(&name, &self.names);
            }
        }
    }

    fn release_name(&mut self, name: &str, peer_id: &PeerId) {
        if let Some(last) = self.names.remove(name, peer_id) {
            self.set_conflict(&last, false);
        }
    }

    fn set_conflict(&mut self, peer_id: &PeerId, conflict: bool) {
        if let Some(entry) = self.entries.get_mut(peer_id).filter(|entry| entry.info.conflict != conflict) {
            Arc::make_mut(&mut entry.info).conflict = conflict;
            self.news.on_change();
        }
    }

    fn set_load(&mut self, peer_id: &PeerId, load: u32) {
        if let Some(entry) = self.entries.get_mut(peer_id).filter(|entry| entry.info.load != load) {
            Arc::make_mut(&mut entry.info).load = load;
            self.news.on_slight_change();
        }
    }
}
