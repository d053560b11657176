//! What is known, for whoever asks: the driver, other nodes, and users by snapshots.

use std::collections::HashMap;

use bytes::Bytes;
use libp2p::{Multiaddr, PeerId};
use multinodes_behaviour::wire::Version;

use super::{Directory, Entry, State};
use crate::description::{Silent, Snapshot};

impl Directory {
    /// What is held of live nodes, in the order of peer ids: two directories with equal lists are equal.
    pub(crate) fn versions(&self) -> Vec<(PeerId, Version)> {
        let live = self.entries.iter().filter(|(_, entry)| entry.state == State::Live);
        let mut versions: Vec<_> = live.map(|(peer_id, entry)| (*peer_id, entry.version)).collect();
        versions.sort_unstable_by_key(|(peer_id, _)| *peer_id);
        versions
    }

    /// The signed records that somebody who holds `versions` lacks: live nodes, and the last words of those that it takes
    /// for alive. Nobody is told of a gone node that it has never heard of.
    pub(crate) fn missing_for(&self, versions: &[(PeerId, Version)]) -> Vec<Bytes> {
        let theirs: HashMap<&PeerId, &Version> = versions.iter().map(|(peer_id, version)| (peer_id, version)).collect();
        let lacks = |(peer_id, entry): &(&PeerId, &Entry)| match (entry.state, theirs.get(peer_id)) {
            (State::Live, None) => true,
            (State::Live | State::Stopped, Some(version)) => **version < entry.version,
            _ => false,
        };
        self.entries.iter().filter(lacks).map(|(_, entry)| entry.envelope.clone()).collect()
    }

    /// Of whom somebody who holds `versions` has a later record than is held here.
    pub(crate) fn wanted(&self, versions: &[(PeerId, Version)]) -> Vec<PeerId> {
        let later = |(peer_id, version): &&(PeerId, Version)| match self.entries.get(peer_id) {
            Some(entry) => *version > entry.version,
            None => *peer_id != self.own,
        };
        versions.iter().filter(later).map(|(peer_id, _)| *peer_id).collect()
    }

    /// Which record of a node is held, be it live or gone.
    pub(crate) fn version(&self, peer_id: &PeerId) -> Option<Version> {
        self.entries.get(peer_id).map(|entry| entry.version)
    }

    /// The signed record of a node, to pass on, be it live or gone.
    pub(crate) fn envelope(&self, peer_id: &PeerId) -> Option<&Bytes> {
        self.entries.get(peer_id).map(|entry| &entry.envelope)
    }

    /// Whether a node is known, be it live or gone.
    pub(crate) fn knows(&self, peer_id: &PeerId) -> bool {
        self.entries.contains_key(peer_id)
    }

    /// Where a node can be dialled from here, by its record.
    pub(crate) fn addresses(&self, peer_id: &PeerId) -> Vec<Multiaddr> {
        self.entries.get(peer_id).map(|entry| entry.info.addresses.clone()).unwrap_or_default()
    }

    /// What a node calls itself.
    pub(crate) fn name(&self, peer_id: &PeerId) -> Option<String> {
        self.entries.get(peer_id).map(|entry| entry.info.name.clone())
    }

    /// Whether a node says that it is there.
    pub(crate) fn has_address(&self, peer_id: &PeerId, address: &Multiaddr) -> bool {
        self.entries.get(peer_id).is_some_and(|entry| entry.info.addresses.contains(address))
    }

    /// Whether a node is known and not gone.
    pub(crate) fn is_live(&self, peer_id: &PeerId) -> bool {
        self.entries.get(peer_id).is_some_and(|entry| entry.state == State::Live)
    }

    /// Whether a node has said goodbye.
    pub(crate) fn has_stopped(&self, peer_id: &PeerId) -> bool {
        self.entries.get(peer_id).is_some_and(|entry| entry.state == State::Stopped)
    }

    /// Whether any node was lost because nothing was heard of it any more.
    pub(crate) fn any_silent(&self) -> bool {
        self.silent > 0
    }

    /// The live nodes, this one too.
    pub(crate) fn live(&self) -> impl Iterator<Item = &PeerId> {
        self.entries.iter().filter(|(_, entry)| entry.state == State::Live).map(|(peer_id, _)| peer_id)
    }

    /// How many nodes live, this one included unless it is passive.
    pub(crate) fn len(&self) -> usize {
        self.live
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        let live = self.entries.values().filter(|entry| entry.state == State::Live);
        let silent = self.entries.values().filter(|entry| entry.silent);
        let silent = if self.silent == 0 { Vec::new() } else { silent.map(Entry::as_silent).collect() };
        Snapshot { silent, ..Snapshot::new(live.map(|entry| entry.info.clone()).collect()) }
    }
}

impl Entry {
    fn as_silent(&self) -> Silent {
        Silent { node: self.info.clone(), since: self.heard }
    }
}
