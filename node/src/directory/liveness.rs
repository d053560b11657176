//! Who lives: by connections, and by signs of life of those that nobody here is connected to.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use libp2p::PeerId;

use super::{Directory, Entry, MAX_NODES, State};

/// The least time between two beats of one node.
pub(crate) const LEAST_SPACING: Duration = Duration::from_secs(5);

/// Each node that is believed to be there adds so much to the time between two beats: fewer than 20 beats a second in all.
const SPACING_PER_NODE: Duration = Duration::from_millis(60);

/// The most time between two beats of one node.
pub(super) const LONGEST_SPACING: Duration = Duration::from_secs(600);

/// So many beats may be missed by a node that nobody here is connected to.
const MISSED_BEATS: u32 = 3;

/// After so many a node that this one was connected to is asked whether it is there.
const QUIET_BEATS: u32 = 2;

/// So many nodes with signs of life are believed for each that this node was connected to: with the 32 neighbours that a node
/// looks for, more than a thousand. Whoever makes up nodes has to let many real ones run for a few more to count.
const VOUCHED: usize = 32;

/// From one beat to the next the time between them changes by no more than this: far less than a node may be silent for.
const CHANGE: f64 = 1.5;

/// The longest that a node waits for its first beat: who has heard none yet waits for three times [`LEAST_SPACING`] at least.
const LONGEST_FIRST: Duration = Duration::from_secs(12);

/// Nodes that are gone are remembered for so many times the spacing of beats, or [`LEAST_MEMORY`]: far longer than
/// anybody else still takes them for alive.
const MEMORY_BEATS: u32 = 10;
pub(super) const LEAST_MEMORY: Duration = Duration::from_secs(600);

/// How often each of `nodes` nodes gives a sign of life.
pub(super) fn spacing(nodes: usize) -> Duration {
    let nodes = u32::try_from(nodes.min(MAX_NODES)).unwrap_or(u32::MAX);
    (SPACING_PER_NODE * nodes).clamp(LEAST_SPACING, LONGEST_SPACING)
}

/// How often a node gives a sign of life that did so every `before` and is to come to `wanted`: others judge it by the rhythm
/// that they have heard, and would take one that slows down at once for lost.
pub(crate) fn changed(before: Duration, wanted: Duration) -> Duration {
    wanted.clamp(before.div_f64(CHANGE), before.mul_f64(CHANGE))
}

impl Directory {
    /// How often this node gives a sign of life: by the nodes that are believed to be there, and not by all that somebody
    /// has made up.
    pub(crate) fn spacing(&self) -> Duration {
        spacing(self.believed)
    }

    /// How often it would give signs of life among all that are said to be there, made up or not, but within some seconds:
    /// when many nodes start at once nobody knows yet whom to believe, and their records have only just been heard.
    pub(crate) fn first_spacing(&self) -> Duration {
        spacing(self.live).min(LONGEST_FIRST)
    }

    /// A connection to a node is there: nothing proves better that it lives.
    pub(crate) fn on_connected(&mut self, peer_id: PeerId, now: Instant) {
        self.unlist(&peer_id);
        self.connected.insert(peer_id);
        self.living.set_absent(&peer_id, false);
        if let Some(entry) = self.entries.get_mut(&peer_id) {
            entry.verified = true;
            if !entry.info.verified {
                Arc::make_mut(&mut entry.info).verified = true;
                self.news.on_change();
            }
        }
        self.list(&peer_id);
        self.revive(&peer_id, now);
    }

    /// The last connection to a node is closed. That alone says nothing about the node.
    pub(crate) fn on_disconnected(&mut self, peer_id: &PeerId, now: Instant) {
        if !self.connected.contains(peer_id) {
            return;
        }
        self.unlist(peer_id);
        self.connected.remove(peer_id);
        self.living.set_absent(peer_id, true);
        if let Some(entry) = self.entries.get_mut(peer_id).filter(|entry| entry.state == State::Live) {
            entry.heard = now;
        }
        self.list(peer_id);
    }

    /// A node cannot be dialled any more, because it was refused where it should be, or because nothing was heard of it.
    pub(crate) fn on_unreachable(&mut self, peer_id: &PeerId, silent: bool, now: Instant) {
        if *peer_id != self.own && !self.connected.contains(peer_id) {
            self.lose(peer_id, silent, now);
        }
    }

    /// Where a node should be nobody listens: one that was lost by silence is gone.
    pub(crate) fn on_refused(&mut self, peer_id: &PeerId) {
        if !self.entries.get(peer_id).is_some_and(|entry| entry.silent) {
            return;
        }
        if let Some(mut entry) = self.remove(peer_id) {
            entry.silent = false;
            self.put(entry);
            self.news.on_change();
        }
    }

    /// This node itself has stood still for so long, because it was stopped or its machine was: who gave a sign of life
    /// meanwhile was not heard, so nobody has been silent in that time.
    pub(crate) fn on_standstill(&mut self, lasted: Duration, now: Instant) {
        let live: Vec<PeerId> = self.live().copied().collect();
        for peer_id in live {
            self.unlist(&peer_id);
            if let Some(entry) = self.entries.get_mut(&peer_id) {
                entry.heard = (entry.heard + lasted).min(now);
            }
            self.list(&peer_id);
        }
    }

    /// Lets go of nodes that have been silent for too long, and forgets those that went long ago. This process is late with
    /// what it hears: each sign of life is given so much more time.
    pub(crate) fn on_tick(&mut self, now: Instant, allowance: Duration) {
        self.believed = self.count_believed();
        let memory = LEAST_MEMORY.max(spacing(self.live) * MEMORY_BEATS);
        let silent = |entry: &Entry| now.saturating_duration_since(entry.heard);
        let (mut lost, mut forgotten) = (Vec::new(), Vec::new());
        for (peer_id, entry) in &self.entries {
            match entry.state {
                State::Live if *peer_id == self.own || self.connected.contains(peer_id) => {}
                State::Live if silent(entry) > (self.beats_of(entry) + allowance) * MISSED_BEATS => lost.push(*peer_id),
                State::Lost | State::Stopped if silent(entry) > memory => forgotten.push(*peer_id),
                _ => {}
            }
        }
        for peer_id in &lost {
            self.lose(peer_id, true, now);
        }
        for peer_id in &forgotten {
            if self.remove(peer_id).is_some_and(|entry| entry.silent) {
                self.news.on_change();
            }
        }
    }

    /// Live nodes of which nothing was heard for some time, and which this one was connected to: others may have made up the
    /// rest.
    pub(crate) fn quiet(&self, now: Instant, allowance: Duration) -> impl Iterator<Item = &PeerId> {
        let quiet = move |entry: &Entry| {
            now.saturating_duration_since(entry.heard) > (self.beats_of(entry) + allowance) * QUIET_BEATS
        };
        self.live().filter(move |peer_id| {
            **peer_id != self.own
                && !self.connected.contains(*peer_id)
                && self.entries.get(*peer_id).is_some_and(|entry| entry.verified && quiet(entry))
        })
    }

    /// How often a node gives signs of life: by its own rhythm, else by how often it may be expected to be heard. Where nothing is
    /// known of it, it may know of all that are known here: to be patient with those harms nobody.
    fn beats_of(&self, entry: &Entry) -> Duration {
        match entry.rhythm.gap() {
            Some(gap) => gap.max(self.spacing()),
            None => spacing(self.live),
        }
    }

    /// How many nodes there are: those that this one was connected to, and so many of the others as have given signs of
    /// life and are vouched for.
    fn count_believed(&self) -> usize {
        let live = || self.entries.values().filter(|entry| entry.state == State::Live);
        let verified = live().filter(|entry| entry.info.verified).count();
        let heard = live().filter(|entry| !entry.info.verified && entry.rhythm.gap().is_some()).count();
        verified + heard.min(verified * VOUCHED)
    }

    /// A live node has given a sign of life.
    pub(super) fn touch_life(&mut self, peer_id: &PeerId, now: Instant) {
        self.unlist(peer_id);
        if let Some(entry) = self.entries.get_mut(peer_id) {
            entry.heard = now;
        }
        self.list(peer_id);
    }

    pub(super) fn lose(&mut self, peer_id: &PeerId, silent: bool, now: Instant) {
        if !self.is_live(peer_id) {
            return;
        }
        self.news.touch(peer_id, self.entries.get(peer_id));
        let Some(mut entry) = self.remove(peer_id) else { return };
        let info = entry.info.clone();
        entry.state = State::Lost;
        entry.silent = silent;
        entry.heard = now;
        if entry.info.conflict {
            Arc::make_mut(&mut entry.info).conflict = false;
        }
        self.put(entry);
        self.release_name(&info.name, peer_id);
        self.news.on_change();
        self.make_room_for_gone();
    }

    pub(super) fn revive(&mut self, peer_id: &PeerId, now: Instant) {
        let lost = self.entries.get(peer_id).is_some_and(|entry| entry.state == State::Lost);
        if !lost || self.live >= MAX_NODES {
            return;
        }
        self.news.touch(peer_id, self.entries.get(peer_id));
        let Some(mut entry) = self.remove(peer_id) else { return };
        entry.state = State::Live;
        entry.silent = false;
        entry.heard = now;
        // Signs of life that others pass on do not show that it can be reached again.
        entry.verified = self.connected.contains(peer_id);
        if entry.info.verified != entry.verified {
            Arc::make_mut(&mut entry.info).verified = entry.verified;
        }
        self.put(entry);
        self.claim_name(peer_id);
        self.news.on_change();
    }
}
