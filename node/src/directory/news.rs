//! What has changed since it was last asked: one event for each node and each contested name, however much has come in.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use libp2p::PeerId;

use super::{Directory, Entry, Names, State, describing::says_the_same};
use crate::description::{Event, LeftReason, NodeInfo, Snapshot};

/// So many of the nodes with one name are named: users need to know that there are several, and who the first ones are. While
/// there are no more, each newcomer is news.
pub(crate) const MAX_NAMED: usize = 8;

/// So many contested names are told of at once: each is a line in the log, and whoever makes them up can make up more.
const MAX_CONFLICTS: usize = 16;

/// What has changed.
#[derive(Debug, Default)]
pub(super) struct News {
    /// The nodes that may have changed, and how they were told of last, in the order in which they came.
    touched: HashMap<PeerId, Told>,
    next: u64,
    conflicts: HashSet<Arc<str>>,
    change: Change,
}

#[derive(Debug)]
struct Told {
    place: u64,
    /// As a live node, if it was one.
    as_live: Option<Arc<NodeInfo>>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Change {
    #[default]
    None,
    /// Only the load of a node: not worth a new snapshot at once.
    Slight,
    Full,
}

/// What has changed since it was last asked.
#[derive(Debug)]
pub(crate) struct Changes {
    /// For the users.
    pub(crate) events: Vec<Event>,
    /// The directory as it is now, if it is another one.
    pub(crate) snapshot: Option<Snapshot>,
}

impl News {
    /// A node comes, goes or changes; `before` is what is held of it until then.
    pub(super) fn touch(&mut self, peer_id: &PeerId, before: Option<&Entry>) {
        if !self.touched.contains_key(peer_id) {
            let as_live = before.filter(|entry| entry.state == State::Live).map(|entry| entry.info.clone());
            self.touched.insert(*peer_id, Told { place: self.next, as_live });
            self.next += 1;
        }
    }

    /// A node is held no more. If nobody was told of it, nobody has to hear that: it may be one of very many.
    pub(super) fn forget(&mut self, peer_id: &PeerId) {
        if self.touched.get(peer_id).is_some_and(|told| told.as_live.is_none()) {
            self.touched.remove(peer_id);
        }
    }

    pub(super) fn on_change(&mut self) {
        self.change = Change::Full;
    }

    pub(super) fn on_slight_change(&mut self) {
        self.change = self.change.max(Change::Slight);
    }

    /// A node has taken a name that others have.
    pub(super) fn on_conflict(&mut self, name: &Arc<str>, names: &Names) {
        let few = self.conflicts.len() < MAX_CONFLICTS && !self.conflicts.contains(name);
        if few && names.holders(name).nth(MAX_NAMED).is_none() {
            self.conflicts.insert(name.clone());
        }
    }

    fn is_due(&self, slight_too: bool) -> bool {
        self.change == Change::Full || (slight_too && self.change == Change::Slight)
    }
}

impl Directory {
    /// Whether there is anything for [`take_changes`](Self::take_changes) to take.
    pub(crate) fn is_changed(&self, slight_too: bool) -> bool {
        self.news.is_due(slight_too)
    }

    /// Takes away what has changed. A change of nothing but a load waits until `slight_too` is asked for.
    pub(crate) fn take_changes(&mut self, slight_too: bool) -> Option<Changes> {
        if !self.news.is_due(slight_too) {
            return None;
        }
        let news = std::mem::take(&mut self.news);
        let mut touched: Vec<(PeerId, Told)> = news.touched.into_iter().collect();
        touched.sort_unstable_by_key(|(_, told)| told.place);
        let mut events: Vec<Event> =
            touched.into_iter().filter_map(|(peer_id, told)| self.event(&peer_id, told.as_live)).collect();
        let mut conflicts: Vec<Arc<str>> = news.conflicts.into_iter().collect();
        conflicts.sort_unstable();
        events.extend(conflicts.iter().filter_map(|name| self.conflict(name)));
        Some(Changes { events, snapshot: Some(self.snapshot()) })
    }

    /// What has become of a node that was told of so.
    fn event(&self, peer_id: &PeerId, before: Option<Arc<NodeInfo>>) -> Option<Event> {
        let entry = self.entries.get(peer_id);
        let now = entry.filter(|entry| entry.state == State::Live).map(|entry| entry.info.clone());
        match (before, now) {
            (None, Some(now)) => Some(Event::Joined(now)),
            (Some(before), Some(now)) => (!says_the_same(&before, &now)).then_some(Event::Updated(now)),
            (Some(node), None) => {
                let stopped = entry.is_some_and(|entry| entry.state == State::Stopped);
                let reason = if stopped { LeftReason::Stopped } else { LeftReason::Lost };
                Some(Event::Left { node, reason })
            }
            (None, None) => None,
        }
    }

    fn conflict(&self, name: &Arc<str>) -> Option<Event> {
        let mut holders = self.names.holders(name);
        let peer_ids: Vec<PeerId> = holders.by_ref().take(MAX_NAMED).collect();
        let more = holders.count();
        let name = name.to_string();
        (peer_ids.len() > 1).then_some(Event::NameConflict { name, peer_ids, more })
    }
}
