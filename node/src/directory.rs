//! Who is in the swarm, as this node knows it: a replicated map with one writer for each key.
//!
//! Every node signs its own record, and of two records of one node the higher (incarnation, revision) wins. So records
//! may come in any order, any number of times and by any way: the result is the same.
//!
//! Pure: no clock, no network, no task. Whoever calls says what time it is, and takes the changes away afterwards.

mod describing;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use libp2p::{Multiaddr, PeerId};
use multinodes_behaviour::{SignedBeat, SignedRecord, wire::Version};

use self::describing::{describe, says_the_same, weight};
use crate::description::{Event, LeftReason, NodeInfo, Snapshot};

/// More live nodes than that are not held: state and sync grow with their number.
pub(crate) const MAX_NODES: usize = 10_000;

/// What all records together may weigh, about in bytes: 13 KiB for each of so many nodes, and no more for a few that
/// anybody can make up with the largest records.
const MAX_WEIGHT: usize = 128 * 1024 * 1024;

/// Others are let go for a record that weighs no more: those that are connected could make up large ones as well.
const MODEST: usize = 64 * 1024;

/// Nodes that are gone are remembered, so that late gossip cannot bring them back, but not more than these.
pub(crate) const MAX_GONE: usize = 2_000;

/// The least time between two beats of one node.
const LEAST_SPACING: Duration = Duration::from_secs(5);

/// Each node that is known adds so much to the time between two beats: fewer than 20 beats a second in all.
const SPACING_PER_NODE: Duration = Duration::from_millis(60);

/// So many beats may be missed by a node that nobody here is connected to.
const MISSED_BEATS: u32 = 3;

/// Nodes that are gone are remembered for so many times the spacing of beats, or [`LEAST_MEMORY`]: far longer than
/// anybody else still takes them for alive.
const MEMORY_BEATS: u32 = 10;
const LEAST_MEMORY: Duration = Duration::from_secs(600);

/// How often each of `nodes` nodes gives a sign of life.
pub(crate) fn spacing(nodes: usize) -> Duration {
    let nodes = u32::try_from(nodes.min(MAX_NODES)).unwrap_or(u32::MAX);
    LEAST_SPACING.max(SPACING_PER_NODE * nodes)
}

/// The replicated state.
pub(crate) struct Directory {
    own: PeerId,
    host: Option<Vec<u8>>,
    entries: HashMap<PeerId, Entry>,
    connected: HashSet<PeerId>,
    /// The live holders of each name.
    names: HashMap<String, BTreeSet<PeerId>>,
    live: usize,
    /// Of all entries together.
    weight: usize,
    events: Vec<Event>,
    change: Change,
}

struct Entry {
    signed: SignedRecord,
    weight: usize,
    state: State,
    /// The last sign of life; of a node that is gone, when it went.
    heard: Instant,
    beat: u64,
    info: Arc<NodeInfo>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Live,
    Lost,
    Stopped,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Change {
    None,
    /// Only the load of a node: not worth a new snapshot at once.
    Slight,
    Full,
}

/// What became of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Merged {
    /// It was new, and others may not have it yet.
    News,
    /// It, or a later one, was known.
    Old,
    /// Somebody holds a record of this very node that is later than its own: the own one must step over it.
    Overtaken(Version),
    /// The table is full.
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

/// What has changed since it was last asked.
#[derive(Debug)]
pub(crate) struct Changes {
    /// For the users.
    pub(crate) events: Vec<Event>,
    /// The directory as it is now, if it is another one.
    pub(crate) snapshot: Option<Snapshot>,
}

impl Directory {
    /// An empty directory of node `own`, on the host with token `host`.
    pub(crate) fn new(own: PeerId, host: Option<Vec<u8>>) -> Self {
        Self {
            own,
            host,
            entries: HashMap::new(),
            connected: HashSet::new(),
            names: HashMap::new(),
            live: 0,
            weight: 0,
            events: Vec::new(),
            change: Change::None,
        }
    }

    /// Puts this node's own record in. There is no event for it.
    pub(crate) fn set_own(&mut self, signed: SignedRecord, load: u32, now: Instant) {
        let mut info = describe(&signed, true, true);
        info.load = load;
        self.insert(signed, info, now);
    }

    /// The load of this node itself.
    pub(crate) fn set_own_load(&mut self, load: u32) {
        let own = self.own;
        self.set_load(&own, load);
    }

    /// Takes a record from anybody.
    pub(crate) fn on_record(&mut self, signed: SignedRecord, now: Instant) -> Merged {
        let peer_id = signed.peer_id;
        let held = self.entries.get(&peer_id).map(|entry| (entry.signed.version(), entry.state));
        if held.is_some_and(|(version, _)| signed.version() <= version) {
            return Merged::Old;
        }
        if peer_id == self.own {
            return Merged::Overtaken(signed.version());
        }
        let was_live = held.is_some_and(|(_, state)| state == State::Live);
        let grows = !was_live && !signed.record.left;
        if !self.has_room(&peer_id, grows, weight(&signed)) && !self.make_room(&signed, grows, now) {
            return Merged::Refused;
        }
        if signed.record.left {
            self.bury(signed, now)
        } else {
            self.welcome(signed, now)
        }
        Merged::News
    }

    /// Takes a sign of life from anybody.
    pub(crate) fn on_beat(&mut self, signed: &SignedBeat, now: Instant) -> Heard {
        let beat = &signed.beat;
        let version = Version { incarnation: beat.incarnation, revision: beat.revision };
        let Some(entry) = self.entries.get_mut(&signed.peer_id) else {
            return if signed.peer_id == self.own { Heard::Old } else { Heard::Wanted };
        };
        let held = entry.signed.version();
        if signed.peer_id == self.own {
            return if version > held { Heard::Overtaken(version) } else { Heard::Old };
        }
        if version.incarnation != held.incarnation {
            return if version > held { Heard::Wanted } else { Heard::Old };
        }
        if beat.beat <= entry.beat || entry.state == State::Stopped {
            return Heard::Old;
        }
        entry.beat = beat.beat;
        entry.heard = now;
        self.set_load(&signed.peer_id, beat.load);
        self.revive(&signed.peer_id, now);
        if version > held { Heard::Wanted } else { Heard::News }
    }

    /// A connection to a node is there: nothing proves better that it lives.
    pub(crate) fn on_connected(&mut self, peer_id: PeerId, now: Instant) {
        self.connected.insert(peer_id);
        self.revive(&peer_id, now);
    }

    /// The last connection to a node is closed. That alone says nothing about the node.
    pub(crate) fn on_disconnected(&mut self, peer_id: &PeerId, now: Instant) {
        if self.connected.remove(peer_id)
            && let Some(entry) = self.entries.get_mut(peer_id).filter(|entry| entry.state == State::Live)
        {
            entry.heard = now;
        }
    }

    /// A node that was connected cannot be dialled any more.
    pub(crate) fn on_unreachable(&mut self, peer_id: &PeerId, now: Instant) {
        if *peer_id != self.own && !self.connected.contains(peer_id) {
            self.lose(peer_id, now);
        }
    }

    /// Lets go of nodes that have been silent for too long, and forgets those that went long ago.
    pub(crate) fn on_tick(&mut self, now: Instant) {
        let patience = spacing(self.live) * MISSED_BEATS;
        let silent = |peer_id: &PeerId, entry: &Entry| {
            entry.state == State::Live
                && *peer_id != self.own
                && !self.connected.contains(peer_id)
                && now.saturating_duration_since(entry.heard) > patience
        };
        let silent: Vec<PeerId> = self
            .entries
            .iter()
            .filter(|(peer_id, entry)| silent(peer_id, entry))
            .map(|(peer_id, _)| *peer_id)
            .collect();
        for peer_id in &silent {
            self.lose(peer_id, now);
        }
        let memory = LEAST_MEMORY.max(spacing(self.live) * MEMORY_BEATS);
        self.entries
            .retain(|_, entry| entry.state == State::Live || now.saturating_duration_since(entry.heard) <= memory);
        self.weight = self.entries.values().map(|entry| entry.weight).sum();
    }

    /// Whether there is anything for [`take_changes`](Self::take_changes) to take.
    pub(crate) fn is_changed(&self, slight_too: bool) -> bool {
        self.change == Change::Full || (slight_too && self.change == Change::Slight) || !self.events.is_empty()
    }

    /// Takes away what has changed. A change of nothing but a load waits until `slight_too` is asked for.
    pub(crate) fn take_changes(&mut self, slight_too: bool) -> Option<Changes> {
        let due = self.change == Change::Full || (slight_too && self.change == Change::Slight);
        if !due && self.events.is_empty() {
            return None;
        }
        let snapshot = due.then(|| self.snapshot());
        if due {
            self.change = Change::None;
        }
        Some(Changes { events: std::mem::take(&mut self.events), snapshot })
    }

    /// What is held of live nodes, in the order of peer ids: two directories with equal lists are equal.
    pub(crate) fn versions(&self) -> Vec<(PeerId, Version)> {
        let mut versions: Vec<_> = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.state == State::Live)
            .map(|(peer_id, entry)| (*peer_id, entry.signed.version()))
            .collect();
        versions.sort_unstable_by_key(|(peer_id, _)| *peer_id);
        versions
    }

    /// The records that somebody who holds `versions` lacks: live nodes, and the last words of those that it takes for
    /// alive. Nobody is told of a gone node that it has never heard of.
    pub(crate) fn missing_for(&self, versions: &[(PeerId, Version)]) -> Vec<SignedRecord> {
        let theirs: HashMap<&PeerId, &Version> = versions.iter().map(|(peer_id, version)| (peer_id, version)).collect();
        let lacks = |entry: &Entry| match (entry.state, theirs.get(&entry.signed.peer_id)) {
            (State::Live, None) => true,
            (State::Live | State::Stopped, Some(version)) => **version < entry.signed.version(),
            _ => false,
        };
        self.entries.values().filter(|entry| lacks(entry)).map(|entry| entry.signed.clone()).collect()
    }

    /// Of whom somebody who holds `versions` has a later record than is held here.
    pub(crate) fn wanted(&self, versions: &[(PeerId, Version)]) -> Vec<PeerId> {
        let later = |(peer_id, version): &&(PeerId, Version)| match self.entries.get(peer_id) {
            Some(entry) => *version > entry.signed.version(),
            None => *peer_id != self.own,
        };
        versions.iter().filter(later).map(|(peer_id, _)| *peer_id).collect()
    }

    /// The record of a node, live or gone.
    pub(crate) fn record(&self, peer_id: &PeerId) -> Option<&SignedRecord> {
        self.entries.get(peer_id).map(|entry| &entry.signed)
    }

    /// Where a node can be dialled from here, by its record.
    pub(crate) fn addresses(&self, peer_id: &PeerId) -> Vec<Multiaddr> {
        self.entries.get(peer_id).map(|entry| entry.info.addresses.clone()).unwrap_or_default()
    }

    /// Whether a node is known and not gone.
    pub(crate) fn is_live(&self, peer_id: &PeerId) -> bool {
        self.entries.get(peer_id).is_some_and(|entry| entry.state == State::Live)
    }

    /// Whether a node has said goodbye.
    pub(crate) fn has_stopped(&self, peer_id: &PeerId) -> bool {
        self.entries.get(peer_id).is_some_and(|entry| entry.state == State::Stopped)
    }

    /// The live nodes, this one too.
    pub(crate) fn live(&self) -> impl Iterator<Item = &PeerId> {
        self.entries.iter().filter(|(_, entry)| entry.state == State::Live).map(|(peer_id, _)| peer_id)
    }

    /// How many nodes live, this one included unless it is passive.
    pub(crate) fn len(&self) -> usize {
        self.live
    }

    fn snapshot(&self) -> Snapshot {
        let live = self.entries.values().filter(|entry| entry.state == State::Live);
        Snapshot::new(live.map(|entry| entry.info.clone()).collect())
    }

    fn welcome(&mut self, signed: SignedRecord, now: Instant) {
        let peer_id = signed.peer_id;
        let same_host =
            self.host.is_some() && signed.record.host.as_ref().map(|token| &token[..]) == self.host.as_deref();
        let mut info = describe(&signed, false, same_host);
        let before = self.entries.get(&peer_id).filter(|entry| entry.state == State::Live).map(|entry| &entry.info);
        info.load = before.map_or(0, |before| before.load);
        let differs = before.map(|before| !says_the_same(before, &info));
        let takes_name = before.is_none_or(|before| before.name != info.name);
        self.insert(signed, info, now);
        let Some(entry) = self.entries.get(&peer_id) else { return };
        match differs {
            None => self.events.push(Event::Joined(entry.info.clone())),
            Some(true) => self.events.push(Event::Updated(entry.info.clone())),
            Some(false) => {}
        }
        if takes_name {
            self.report_conflict(&peer_id);
        }
    }

    fn insert(&mut self, signed: SignedRecord, info: NodeInfo, now: Instant) {
        let (peer_id, name) = (signed.peer_id, info.name.clone());
        let before = self.remove(&peer_id);
        let beat = match &before {
            Some(before) if before.signed.record.incarnation == signed.record.incarnation => before.beat,
            _ => 0,
        };
        if let Some(before) = before.filter(|before| before.state == State::Live) {
            self.live -= 1;
            if before.info.name != name {
                self.release_name(&before.info.name, &peer_id);
            }
        }
        self.live += 1;
        self.put(signed, State::Live, now, beat, Arc::new(info));
        self.names.entry(name.clone()).or_default().insert(peer_id);
        self.mark_conflict(&name);
        self.change = Change::Full;
    }

    fn bury(&mut self, signed: SignedRecord, now: Instant) {
        let peer_id = signed.peer_id;
        let info = match self.entries.get(&peer_id) {
            Some(entry) => entry.info.clone(),
            None => Arc::new(describe(&signed, false, false)),
        };
        self.depart(&peer_id, LeftReason::Stopped, now);
        self.make_room_for_gone();
        self.put(signed, State::Stopped, now, 0, info);
    }

    fn lose(&mut self, peer_id: &PeerId, now: Instant) {
        if self.is_live(peer_id) {
            self.make_room_for_gone();
            self.depart(peer_id, LeftReason::Lost, now);
        }
    }

    /// Takes a live node out of the living, with its event. The entry stays.
    fn depart(&mut self, peer_id: &PeerId, reason: LeftReason, now: Instant) {
        let Some(entry) = self.entries.get_mut(peer_id).filter(|entry| entry.state == State::Live) else { return };
        entry.state = if reason == LeftReason::Stopped { State::Stopped } else { State::Lost };
        entry.heard = now;
        let node = entry.info.clone();
        self.live -= 1;
        self.change = Change::Full;
        self.release_name(&node.name, peer_id);
        self.events.push(Event::Left { node, reason });
    }

    fn revive(&mut self, peer_id: &PeerId, now: Instant) {
        let full = self.live >= MAX_NODES;
        let Some(entry) = self.entries.get_mut(peer_id) else { return };
        if entry.state != State::Lost || full {
            return;
        }
        entry.state = State::Live;
        entry.heard = now;
        let name = entry.info.name.clone();
        self.live += 1;
        self.change = Change::Full;
        self.names.entry(name.clone()).or_default().insert(*peer_id);
        self.mark_conflict(&name);
        if let Some(entry) = self.entries.get(peer_id) {
            self.events.push(Event::Joined(entry.info.clone()));
        }
        self.report_conflict(peer_id);
    }

    fn make_room_for_gone(&mut self) {
        let gone = || self.entries.iter().filter(|(_, entry)| entry.state != State::Live);
        if self.entries.len() - self.live < MAX_GONE {
            return;
        }
        if let Some(oldest) = gone().min_by_key(|(_, entry)| entry.heard).map(|(peer_id, _)| *peer_id) {
            self.remove(&oldest);
        }
    }

    fn put(&mut self, signed: SignedRecord, state: State, heard: Instant, beat: u64, info: Arc<NodeInfo>) {
        let peer_id = signed.peer_id;
        self.remove(&peer_id);
        let weight = weight(&signed);
        self.weight += weight;
        self.entries.insert(peer_id, Entry { signed, weight, state, heard, beat, info });
    }

    fn remove(&mut self, peer_id: &PeerId) -> Option<Entry> {
        let entry = self.entries.remove(peer_id)?;
        self.weight -= entry.weight;
        Some(entry)
    }

    fn has_room(&self, peer_id: &PeerId, grows: bool, weight: usize) -> bool {
        let before = self.entries.get(peer_id).map_or(0, |entry| entry.weight);
        (!grows || self.live < MAX_NODES) && self.weight - before + weight <= MAX_WEIGHT
    }

    /// Makes room for a node that is connected, at the cost of those that are only said to be there: anybody can make up
    /// such nodes without end, but only so many can be connected.
    fn make_room(&mut self, signed: &SignedRecord, grows: bool, now: Instant) -> bool {
        let (peer_id, weight) = (signed.peer_id, weight(signed));
        if weight > MODEST || !self.connected.contains(&peer_id) {
            return false;
        }
        let mut others: Vec<(Instant, PeerId)> = self
            .entries
            .keys()
            .filter(|other| **other != self.own && **other != peer_id && !self.connected.contains(*other))
            .map(|other| (self.entries[other].heard, *other))
            .collect();
        others.sort_unstable();
        for (_, other) in others {
            if self.has_room(&peer_id, grows, weight) {
                break;
            }
            self.depart(&other, LeftReason::Lost, now);
            self.remove(&other);
        }
        self.has_room(&peer_id, grows, weight)
    }

    fn release_name(&mut self, name: &str, peer_id: &PeerId) {
        if let Some(holders) = self.names.get_mut(name) {
            holders.remove(peer_id);
            if holders.is_empty() {
                self.names.remove(name);
            }
        }
        self.mark_conflict(name);
        if let Some(entry) = self.entries.get_mut(peer_id).filter(|entry| entry.info.conflict) {
            Arc::make_mut(&mut entry.info).conflict = false;
        }
    }

    fn mark_conflict(&mut self, name: &str) {
        let Some(holders) = self.names.get(name) else { return };
        let conflict = holders.len() > 1;
        for holder in holders {
            if let Some(entry) = self.entries.get_mut(holder).filter(|entry| entry.info.conflict != conflict) {
                Arc::make_mut(&mut entry.info).conflict = conflict;
                self.change = Change::Full;
            }
        }
    }

    /// Says that a node which has just taken its name is not the only one.
    fn report_conflict(&mut self, newcomer: &PeerId) {
        let Some(entry) = self.entries.get(newcomer).filter(|entry| entry.info.conflict) else { return };
        let name = entry.info.name.clone();
        let peer_ids: Vec<PeerId> = self.names.get(&name).into_iter().flatten().copied().collect();
        self.events.push(Event::NameConflict { name, peer_ids });
    }

    fn set_load(&mut self, peer_id: &PeerId, load: u32) {
        if let Some(entry) = self.entries.get_mut(peer_id).filter(|entry| entry.info.load != load) {
            Arc::make_mut(&mut entry.info).load = load;
            self.change = self.change.max(Change::Slight);
        }
    }
}
