//! Who could be dialled: the rendezvous folder, the LAN, and Kademlia feed the address book.

use std::{
    collections::HashMap,
    io,
    time::{Duration, Instant, SystemTime},
};

use libp2p::{Multiaddr, PeerId, kad};
use multinodes_behaviour::local;
use rand::seq::SliceRandom;

use super::{Done, Driver, Due, status::LAN_TIME, timers::jittered};
use crate::{
    addresses,
    description::Event,
    rendezvous::{self, Note, Rendezvous},
};

/// Nodes that start together may miss each other's note at first, so the folder is read again soon, and then seldom.
const RESCANS: [Duration; 3] = [Duration::from_millis(100), Duration::from_millis(400), Duration::from_secs(1)];
const RESCAN: Duration = Duration::from_secs(5);

/// A passive node that knows nobody leaves no note by which others could find it: it has to look by itself.
const RESCAN_ALONE: Duration = Duration::from_secs(1);

/// Of two nodes that discover each other, the one with the larger peer id waits so long for the other's dial.
const YIELD: Duration = Duration::from_millis(100);

/// A one-shot command that has found somebody on this host asks the LAN so much later. Most have ended by then.
const HOST_TIME: Duration = Duration::from_secs(1);

/// That too many files are open is said no more often.
const SHORTAGE_PAUSE: Duration = Duration::from_secs(60);

/// If nobody was heard on the LAN for so long, it is said.
const LONELY: Duration = Duration::from_secs(10);

/// Dials of discovered peers under way at once.
const MAX_DIALS: usize = 8;

/// The same while this process is late: handshakes that wait for each other's turns end too late, and are begun again.
const MAX_DIALS_LATE: usize = 4;

/// The same with those that probably lead nowhere: below the limit of the behaviour.
const MAX_PENDING: usize = 48;

/// So many neighbours are enough to know everything soon; more of them are added at leisure.
const EAGER: usize = 8;

/// A one-shot command needs one neighbour, and others in case it is slow.
pub(super) const EAGER_PASSIVE: usize = 3;

/// More discovered peers than that do not wait for a dial.
const MAX_FOUND: usize = 1_024;

/// More notes than that are not remembered.
const MAX_NOTES: usize = 1_024;

/// Kademlia is fed only after a while: its first look-ups dial everybody, while the node has better things to do.
const FEED_AFTER: Duration = Duration::from_secs(10);

/// What is known of the ways of finding.
#[derive(Default)]
pub(super) struct Sources {
    pub(super) rendezvous: Option<Rendezvous>,
    notes: HashMap<PeerId, Note>,
    rescans: usize,
    reading: bool,
    /// Whether anybody was heard on the LAN.
    heard: bool,
    /// When the LAN is asked, if not at the start.
    lan_asked: Option<Instant>,
    /// When it was said that too many files are open.
    shortage: Option<Instant>,
}

/// Whether no more files can be opened, by this process or on this host.
pub(super) fn is_shortage(error: &io::Error) -> bool {
    #[cfg(unix)]
    let codes = [rustix::io::Errno::MFILE, rustix::io::Errno::NFILE].map(rustix::io::Errno::raw_os_error);
    #[cfg(not(unix))]
    let codes = [10024];
    super::root(error)
        .downcast_ref::<io::Error>()
        .and_then(io::Error::raw_os_error)
        .is_some_and(|code| codes.contains(&code))
}

impl Driver {
    /// Asks all sources that are switched on.
    pub(super) fn find(&mut self) {
        self.open_rendezvous();
        self.leave_note();
        if let Some(rendezvous) = self.sources.rendezvous.clone() {
            self.on_notes(rendezvous.peers());
        }
        match (self.core.settings.passive, self.dials.is_empty()) {
            (true, false) => self.put_off_lan(),
            (true, true) => self.ask_lan(),
            // It waits until it has an address to tell.
            (false, _) => {}
        }
        self.sources.rescans = 0;
        self.timers.after(RESCANS[0], Due::Rescan);
        for index in 0..self.joins.len() {
            self.join(index);
        }
        if self.core.settings.mdns {
            self.timers.after(LAN_TIME, Due::Settle);
            self.timers.after(LONELY, Due::Loneliness);
        }
    }

    /// Whoever is on this host is asked first.
    fn put_off_lan(&mut self) {
        if let Some(local) = self.swarm.behaviour_mut().local.as_mut() {
            local.postpone(HOST_TIME);
            let asked = Instant::now() + HOST_TIME;
            self.sources.lan_asked = Some(asked);
            self.timers.at(asked + LAN_TIME, Due::Settle);
        }
    }

    /// Asks the LAN now, if that was put off.
    pub(super) fn ask_lan(&mut self) {
        let begins = self.swarm.behaviour_mut().local.as_mut().is_some_and(local::Behaviour::ask);
        if begins {
            self.sources.lan_asked = Some(Instant::now());
            self.timers.after(LAN_TIME, Due::Settle);
        }
    }

    /// When whoever answers on the LAN has done so; nothing if it is not asked.
    pub(super) fn lan_answered(&self) -> Option<Instant> {
        self.core.settings.mdns.then(|| self.sources.lan_asked.unwrap_or(self.started) + LAN_TIME)
    }

    fn open_rendezvous(&mut self) {
        let settings = &self.core.settings;
        let Some(folder) = settings.rendezvous.clone() else { return };
        // A passive node leaves no trace, not even a folder.
        if self.sources.rendezvous.is_some() || (settings.passive && !folder.exists()) {
            return;
        }
        match Rendezvous::open(&folder) {
            Ok(rendezvous) => {
                if folder == rendezvous::default_folder(settings.mark())
                    && let Some(fault) = rendezvous::unusable_runtime()
                {
                    let reason = format!("the rendezvous folder is not where it usually is: {fault}");
                    self.tell(Event::Degraded { reason });
                }
                if !settings.passive {
                    rendezvous.sweep_unfinished(SystemTime::now());
                }
                self.sources.rendezvous = Some(rendezvous);
            }
            Err(error) => self.tell(Event::Degraded { reason: error.to_string() }),
        }
    }

    /// Leaves this node's note, unless it has none to leave.
    pub(super) fn leave_note(&mut self) {
        if self.core.settings.passive || self.stopping.is_some() {
            return;
        }
        let Some(rendezvous) = &self.sources.rendezvous else { return };
        let note = self.note();
        if rendezvous.holds(&note) {
            return;
        }
        if let Err(error) = rendezvous.publish(&note) {
            if is_shortage(&error) {
                // The note that is there is good enough, and this passes.
                return self.on_shortage(&error);
            }
            let folder = rendezvous.folder().display();
            let reason = format!("this node cannot be found through the rendezvous folder `{folder}`: {error}");
            self.sources.rendezvous = None;
            self.tell(Event::Degraded { reason });
        }
    }

    /// Too many files are open to take a connection, or to look at a file. Said once in a while.
    pub(super) fn on_shortage(&mut self, error: &io::Error) {
        let now = Instant::now();
        if self.sources.shortage.is_some_and(|told| now.saturating_duration_since(told) < SHORTAGE_PAUSE) {
            return;
        }
        self.sources.shortage = Some(now);
        let reason = format!(
            "no more connections are taken, so others do not find this node: {error}; raise the limit (ulimit -n)"
        );
        self.tell(Event::Degraded { reason });
    }

    pub(super) fn rescan(&mut self) {
        self.sources.rescans += 1;
        let alone = self.core.settings.passive && self.directory.len() == 0;
        let seldom = if alone { RESCAN_ALONE } else { RESCAN };
        let pause = RESCANS.get(self.sources.rescans).copied().unwrap_or(seldom);
        self.timers.after(jittered(pause), Due::Rescan);
        if self.stopping.is_some() {
            return;
        }
        if self.core.settings.passive {
            self.open_rendezvous();
        } else {
            self.leave_note();
        }
        if self.sources.reading {
            return;
        }
        if let Some(rendezvous) = self.sources.rendezvous.clone() {
            self.sources.reading = true;
            self.tasks.spawn(async move {
                let notes = tokio::task::spawn_blocking(move || rendezvous.peers()).await;
                Done::Notes(notes.unwrap_or_else(|error| Err(io::Error::other(error))))
            });
        }
    }

    pub(super) fn on_notes(&mut self, notes: io::Result<Vec<Note>>) {
        self.sources.reading = false;
        match notes {
            Ok(mut notes) => {
                // In the order of the folder all nodes of the host would dial the same few first.
                notes.shuffle(&mut rand::rng());
                notes.into_iter().for_each(|note| self.on_note(note));
            }
            Err(error) => tracing::debug!(%error, "the rendezvous folder cannot be read"),
        }
    }

    fn on_note(&mut self, note: Note) {
        let peer_id = note.peer_id;
        let of_swarm = note.swarm == self.core.settings.mark();
        if !of_swarm || peer_id == self.core.peer_id || self.peers.contains_key(&peer_id) {
            return;
        }
        let same_host = note.host.is_some() && note.host == self.host_text();
        let usable = note.addresses.iter().filter(|address| addresses::usable(address, same_host)).cloned();
        self.book.add(peer_id, usable.collect::<Vec<_>>());
        // The later of two dials at once; the other only if that did not happen.
        let later = (self.own.incarnation, peer_id) > (note.incarnation, self.core.peer_id);
        let seen = self.sources.notes.get(&peer_id) == Some(&note);
        if seen || self.sources.notes.len() < MAX_NOTES {
            self.sources.notes.insert(peer_id, note);
        }
        if later || seen || self.core.settings.passive {
            self.discover(peer_id);
        }
    }

    /// Nobody answers where a note says.
    pub(super) fn sweep_note(&mut self, peer_id: &PeerId) {
        let Some(note) = self.sources.notes.remove(peer_id) else { return };
        if self.core.settings.passive {
            return;
        }
        let host = self.host_text();
        if let Some(rendezvous) = &self.sources.rendezvous
            && rendezvous.sweep(&note, host.as_deref())
        {
            tracing::debug!(%peer_id, pid = note.pid, "removed the note of a node that is gone");
        }
    }

    pub(super) fn on_local(&mut self, event: local::Event) {
        match event {
            local::Event::Found(found) => self.on_found(found),
            local::Event::Silent(peer_ids) => self.forget_prospects(&peer_ids),
            local::Event::Degraded { reason } => {
                self.sources.heard = true;
                self.tell(Event::Degraded { reason });
            }
            _ => {}
        }
    }

    fn on_found(&mut self, found: Vec<(PeerId, Multiaddr)>) {
        self.sources.heard = true;
        let others = found.into_iter().filter(|(peer_id, _)| *peer_id != self.core.peer_id);
        self.find_at(
            others.filter(|(_, address)| addresses::usable(address, false) || addresses::has_zone(address)).collect(),
        );
    }

    pub(super) fn find_at(&mut self, found: Vec<(PeerId, Multiaddr)>) {
        let mut peer_ids: Vec<PeerId> = Vec::new();
        for (peer_id, address) in found {
            self.book.add(peer_id, [address]);
            self.note_prospect(peer_id);
            if !peer_ids.contains(&peer_id) {
                peer_ids.push(peer_id);
            }
        }
        for peer_id in peer_ids {
            if self.is_awaited(&peer_id) {
                self.dial(peer_id);
            } else if self.core.settings.passive || self.core.peer_id < peer_id {
                self.discover(peer_id);
            } else {
                self.timers.after(YIELD, Due::Dial(peer_id));
            }
        }
    }

    pub(super) fn on_loneliness(&mut self) {
        if !self.sources.heard && self.peers.is_empty() && !self.core.settings.passive {
            let reason = "nobody was heard by multicast on this network; \
                          if there should be others, name the address of one of them with --join";
            self.tell(Event::Degraded { reason: reason.to_owned() });
        }
    }

    /// Puts a peer in line for a dial.
    pub(super) fn discover(&mut self, peer_id: PeerId) {
        if self.found.len() < MAX_FOUND && self.is_dialable(&peer_id) && !self.found.contains(&peer_id) {
            self.found.push_back(peer_id);
        }
        self.pump();
    }

    /// Dials those in line, as long as there is room.
    pub(super) fn pump(&mut self) {
        let eager = if self.core.settings.passive { EAGER_PASSIVE } else { EAGER.min(self.core.settings.low_mark) };
        if self.peers.values().filter(|peer| peer.synced).count() >= eager {
            // The directory knows by now whom else to dial, and there is no hurry. Those who are only connected may be anybody.
            self.found.clear();
        }
        let at_once = if self.lag.is_late(Instant::now()) { MAX_DIALS_LATE } else { MAX_DIALS };
        while self.dials.len() < MAX_PENDING
            && self.fresh_dials() < at_once
            && self.peers.len() + self.fresh_dials() < eager
        {
            let Some(peer_id) = self.found.pop_front() else { return };
            if self.is_dialable(&peer_id) {
                self.dial_unasked(peer_id);
            }
        }
    }

    fn is_dialable(&self, peer_id: &PeerId) -> bool {
        self.stopping.is_none()
            && *peer_id != self.core.peer_id
            && !self.peers.contains_key(peer_id)
            && !self.dials.contains_key(peer_id)
            && !self.book.is_stranger(peer_id, Instant::now())
            && !self.core.permissions.shuns(peer_id)
            && !self.keeps_away(peer_id)
    }

    /// Tells Kademlia where a node of this swarm listens.
    pub(super) fn feed_kademlia(&mut self, peer_id: PeerId, listening: &[Multiaddr]) {
        if self.started.elapsed() < FEED_AFTER {
            return;
        }
        let Some(kademlia) = self.swarm.behaviour_mut().kademlia.as_mut() else { return };
        for address in listening.iter().filter(|address| addresses::usable(address, false)) {
            kademlia.add_address(&peer_id, address.clone());
        }
    }

    /// Asks the swarm where a peer is that no record tells of. False if that is not possible.
    pub(super) fn look_up(&mut self, peer_id: PeerId) -> bool {
        let connected: Vec<PeerId> = self.peers.keys().copied().collect();
        for neighbour in connected {
            let known = self.directory.addresses(&neighbour);
            self.feed_kademlia(neighbour, &known);
        }
        match self.swarm.behaviour_mut().kademlia.as_mut() {
            Some(kademlia) if !self.peers.is_empty() => {
                kademlia.get_closest_peers(peer_id);
                true
            }
            _ => false,
        }
    }

    pub(super) fn on_kademlia(&mut self, event: kad::Event) {
        let kad::Event::OutboundQueryProgressed { result: kad::QueryResult::GetClosestPeers(result), step, .. } = event
        else {
            return;
        };
        let (key, peers) = match result {
            Ok(found) => (found.key, found.peers),
            Err(kad::GetClosestPeersError::Timeout { key, peers }) => (key, peers),
        };
        let Ok(wanted) = PeerId::from_bytes(&key) else { return };
        if let Some(found) = peers.into_iter().find(|peer| peer.peer_id == wanted) {
            let usable = found.addrs.into_iter().filter(|address| addresses::usable(address, false));
            self.book.add(wanted, usable.collect::<Vec<_>>());
        }
        if step.last {
            self.on_looked_up(wanted);
        }
    }
}
