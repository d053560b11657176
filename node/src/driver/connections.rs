//! Connections: who is connected, who is a stranger, whether a node is lost, and how many connections are kept.

use std::{
    collections::hash_map::Entry,
    io,
    time::{Duration, Instant},
};

use libp2p::{
    Multiaddr, PeerId, TransportError,
    core::ConnectedPoint,
    identify, ping,
    swarm::{ConnectionError, ConnectionId, DialError},
};
use rand::seq::IteratorRandom;

use super::{Driver, Due, TICK, doubts::refused, finding::EAGER_PASSIVE, root, syncing::Bucket, timers::jittered};
use crate::core::Counters;

/// A dial that takes longer is ended.
const DIAL_LIMIT: Duration = Duration::from_millis(5_500);

/// A peer that can be reached is connected in this time.
const FRESH: Duration = Duration::from_millis(1_500);

/// A node whose connection was lost has so long to be reached again: one repeated SYN, and some.
const REDIAL_LIMIT: Duration = Duration::from_millis(2_500);

/// The same after it had been silent for [`SILENCE`] already: the answer to a repeated SYN still counts.
const REDIAL_LIMIT_AFTER_SILENCE: Duration = Duration::from_millis(1_200);

/// Of two nodes that lose their connection, the one with the larger peer id waits so long for the other's dial.
const YIELD: Duration = Duration::from_millis(100);

/// A node that restarts its network is back after a moment: only the second refusal counts.
pub(super) const SECOND_CHANCE: Duration = Duration::from_millis(200);

/// Pings go every 2 s. A connection without an answer for so long is closed, and the dial that follows shows the rest:
/// together less than 5 s. Not left to libp2p's ping: it keeps the first failure to itself, and reports the second after more than ten seconds.
const SILENCE: Duration = Duration::from_millis(3_500);

/// Identify is the first thing that libp2p programs tell each other.
const UNKNOWN_LIMIT: Duration = Duration::from_secs(10);

/// A connection younger than this is not closed to save one.
const YOUNG: Duration = Duration::from_secs(10);

/// A peer that is told of the closing has so long to note it.
const RELEASE_LIMIT: Duration = Duration::from_secs(1);

/// Connections opened, or closed, per tick to come between the marks: no haste, no storms.
const OPENED_AT_ONCE: usize = 2;
const CLOSED_AT_ONCE: usize = 4;

/// Whoever closes a connection in this time, before anything was levelled, has turned us away.
const TURNED_AWAY: Duration = Duration::from_secs(1);

/// Lost nodes that are looked for; the others come back by gossip, or by themselves.
const MAX_LOST: usize = 64;

/// The pause between two looks for a lost node doubles up to this. A network that was cut is whole again soon after.
const LONGEST_REVISIT: Duration = Duration::from_secs(10);

/// With fewer neighbours than that a node does not wait for the dials of those with smaller peer ids.
const FEW: usize = 4;

pub(super) struct Peer {
    connections: Vec<Connection>,
    pub(super) standing: Standing,
    /// No rule stands in the way.
    pub(super) admitted: bool,
    /// It has shown that it serves us; else it may still be waiting for what we show.
    pub(super) serves: bool,
    /// One side has said that it closes the connection only to save one.
    pub(super) released: bool,
    releasing: bool,
    pub(super) synced: bool,
    pub(super) since: Instant,
    pub(super) active: Instant,
    /// When a beat last made us ask this peer for a record.
    pub(super) asked: Option<Instant>,
    pub(super) bucket: Bucket,
}

struct Connection {
    id: ConnectionId,
    outbound: bool,
    heard: Instant,
}

/// Whether a peer belongs to this swarm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    Unknown,
    Ours,
    Stranger,
}

pub(super) struct Dial {
    since: Instant,
}

pub(super) struct Redial {
    attempts: u32,
    until: Instant,
}

impl Peer {
    fn new(now: Instant) -> Self {
        Self {
            connections: Vec::new(),
            standing: Standing::Unknown,
            admitted: false,
            serves: false,
            released: false,
            releasing: false,
            synced: false,
            since: now,
            active: now,
            asked: None,
            bucket: Bucket::new(now),
        }
    }

    /// Whether this node has dialled one of its connections.
    pub(super) fn has_dialled(&self) -> bool {
        self.connections.iter().any(|connection| connection.outbound)
    }

    /// A first exchange with it is to be expected, or under way.
    pub(super) fn awaits_sync(&self, now: Instant, patience: Duration) -> bool {
        self.standing != Standing::Stranger && !self.synced && now.saturating_duration_since(self.since) < patience
    }
}

impl Driver {
    pub(super) fn on_dialling(&mut self, peer_id: PeerId) {
        self.dials.insert(peer_id, Dial { since: Instant::now() });
        self.timers.after(DIAL_LIMIT, Due::GiveUp(peer_id));
    }

    pub(super) fn give_up(&mut self, peer_id: &PeerId, now: Instant) {
        let Some(dial) = self.dials.get(peer_id) else { return };
        let late = now.saturating_duration_since(dial.since) + Duration::from_millis(100) >= DIAL_LIMIT;
        if late && !self.peers.contains_key(peer_id) {
            // Ends a dial too; the error comes as an event.
            let _ = self.swarm.disconnect_peer_id(*peer_id);
        }
    }

    pub(super) fn on_connected(&mut self, peer_id: PeerId, connection: ConnectionId, endpoint: &ConnectedPoint) {
        let now = Instant::now();
        let outbound = endpoint.is_dialer();
        tracing::debug!(%peer_id, outbound, address = %endpoint.get_remote_address(), "connected");
        self.dials.remove(&peer_id);
        self.redials.remove(&peer_id);
        self.doubts.remove(&peer_id);
        self.on_join_connected(connection, peer_id);
        let welcome = self.is_welcome(&peer_id);
        let peer = self.peers.entry(peer_id).or_insert_with(|| Peer::new(now));
        peer.admitted |= welcome;
        let first = peer.connections.is_empty();
        peer.connections.push(Connection { id: connection, outbound, heard: now });
        peer.released = false;
        if self.book.is_stranger(&peer_id, now) {
            self.expel(peer_id, "it is known as a stranger");
            return;
        }
        if outbound {
            let address = endpoint.get_remote_address().clone();
            self.book.add(peer_id, [address]);
        }
        // One that was lost may turn us away again: it is back when it has shown that it serves us.
        if first && !self.lost.contains_key(&peer_id) {
            self.directory.on_connected(peer_id, now);
        }
        if self.is_admitted(&peer_id) {
            self.on_admitted(peer_id);
        }
    }

    pub(super) fn on_closed(
        &mut self,
        peer_id: PeerId,
        connection: ConnectionId,
        left: u32,
        cause: Option<&ConnectionError>,
    ) {
        let now = Instant::now();
        if let Some(peer) = self.peers.get_mut(&peer_id) {
            peer.connections.retain(|other| other.id != connection);
        }
        if left > 0 {
            return;
        }
        let Some(peer) = self.peers.remove(&peer_id) else { return };
        tracing::debug!(%peer_id, cause = cause.map(tracing::field::display), released = peer.released, "disconnected");
        self.directory.on_disconnected(&peer_id, now);
        self.core.disconnected(&peer_id);
        self.on_exchanges_ended(&peer_id);
        if self.stopping.is_some() {
            self.ended |= self.peers.is_empty();
            return;
        }
        self.rejoin(&peer_id, peer.released || peer.standing == Standing::Stranger);
        let expected = peer.released || peer.standing == Standing::Stranger;
        if !expected && !peer.synced && now.saturating_duration_since(peer.since) < TURNED_AWAY {
            // It does not want us, or has no room: another dial at once would come to the same. That is said once:
            // others may hear of it, and it comes and goes for nobody.
            if !self.lost.contains_key(&peer_id) {
                self.on_lost(peer_id, now);
            }
        } else if !expected && self.directory.is_live(&peer_id) {
            let silent = cause.is_none();
            self.begin_redial(peer_id, if silent { REDIAL_LIMIT_AFTER_SILENCE } else { REDIAL_LIMIT }, now);
        }
        if !expected && !peer.synced {
            self.on_prospect_missed(peer_id);
        }
        self.pump();
    }

    /// A connection to a live node was lost: a dial shows whether the node is.
    fn begin_redial(&mut self, peer_id: PeerId, limit: Duration, now: Instant) {
        self.redials.insert(peer_id, Redial { attempts: 0, until: now + limit });
        self.timers.at(now + limit, Due::Lose(peer_id));
        if self.core.peer_id < peer_id {
            self.dial(peer_id);
        } else {
            self.timers.at(now + YIELD, Due::Redial(peer_id));
        }
    }

    pub(super) fn redial(&mut self, peer_id: PeerId) {
        let wanted = self.redials.contains_key(&peer_id) || self.doubts.contains_key(&peer_id);
        if wanted && self.stopping.is_none() && !self.peers.contains_key(&peer_id) && !self.dials.contains_key(&peer_id)
        {
            self.dial(peer_id);
        }
    }

    pub(super) fn lose(&mut self, peer_id: &PeerId, now: Instant) {
        let due = self.redials.get(peer_id).is_some_and(|redial| redial.until <= now);
        if due && !self.peers.contains_key(peer_id) {
            self.on_lost(*peer_id, now);
            // Ends a dial too; the error comes as an event.
            let _ = self.swarm.disconnect_peer_id(*peer_id);
        }
    }

    pub(super) fn on_lost(&mut self, peer_id: PeerId, now: Instant) {
        self.redials.remove(&peer_id);
        self.directory.on_unreachable(&peer_id, now);
        // One that is being looked for has its next look before it already: a second series would never end, either.
        if self.lost.len() < MAX_LOST
            && let Entry::Vacant(looks) = self.lost.entry(peer_id)
        {
            looks.insert(0);
            self.timers.at(now + revisit_pause(0), Due::Revisit(peer_id));
        }
    }

    /// Dials a lost node again, until it is back or forgotten.
    pub(super) fn revisit(&mut self, peer_id: PeerId) {
        let forgotten = self.directory.record(&peer_id).is_none() || self.directory.has_stopped(&peer_id);
        if forgotten || self.stopping.is_some() || self.peers.get(&peer_id).is_some_and(|peer| peer.synced) {
            self.lost.remove(&peer_id);
            return;
        }
        let Some(times) = self.lost.get_mut(&peer_id) else { return };
        *times = times.saturating_add(1);
        let pause = revisit_pause(*times);
        self.timers.after(jittered(pause), Due::Revisit(peer_id));
        if self.peers.contains_key(&peer_id) {
            return;
        }
        if !self.dials.contains_key(&peer_id) && self.has_address(&peer_id) {
            self.dial(peer_id);
        }
    }

    /// Dials that have begun only just now: the others probably fail, and nothing waits for them.
    pub(super) fn fresh_dials(&self) -> usize {
        self.dials.values().filter(|dial| dial.since.elapsed() < FRESH).count()
    }

    pub(super) fn on_dial_error(&mut self, connection: ConnectionId, peer_id: Option<PeerId>, error: &DialError) {
        self.on_dial_failed(connection, peer_id, error);
        self.pump();
    }

    /// Draws the conclusions, and begins no other dial of a discovered peer: that may fail at once, too.
    pub(super) fn on_dial_failed(&mut self, connection: ConnectionId, peer_id: Option<PeerId>, error: &DialError) {
        tracing::debug!(?peer_id, %error, "a dial has failed");
        if let DialError::Denied { cause } = error {
            self.on_refused(cause, false);
        }
        if matches!(error, DialError::LocalPeerId { .. }) {
            self.on_join_to_self(connection);
        }
        if matches!(error, DialError::DialPeerConditionFalse(_)) {
            // It is connected or being dialled, which is what was wanted.
            return;
        }
        self.on_join_failed(connection, peer_id, &reason(error));
        let Some(peer_id) = peer_id else { return };
        self.dials.remove(&peer_id);
        if !self.peers.contains_key(&peer_id) {
            if nobody_there(error) {
                self.on_nobody_there(peer_id, refused(error));
            }
            self.on_lane_dial_failed(peer_id, &reason(error));
            self.on_prospect_missed(peer_id);
        }
    }

    fn on_nobody_there(&mut self, peer_id: PeerId, refused: bool) {
        let now = Instant::now();
        self.sweep_note(&peer_id);
        if let Some(redial) = self.redials.get_mut(&peer_id) {
            redial.attempts += 1;
            if redial.attempts < 2 {
                self.timers.at(now + SECOND_CHANCE, Due::Redial(peer_id));
                return;
            }
            self.on_lost(peer_id, now);
        } else if refused && self.directory.is_live(&peer_id) {
            self.doubt(peer_id, now);
        } else {
            self.break_doubt(&peer_id);
        }
        if !self.directory.is_live(&peer_id) && !self.is_prospect(&peer_id) {
            self.book.remove(&peer_id);
        }
    }

    pub(super) fn on_identify(&mut self, event: identify::Event) {
        let identify::Event::Received { peer_id, info, .. } = event else { return };
        if info.protocol_version != self.core.settings.swarm.identify_version() {
            self.expel(peer_id, "it belongs to another swarm or is another program");
            return;
        }
        self.welcome(peer_id);
        self.on_shown(peer_id, &info.agent_version);
        if info.protocols.contains(&self.core.settings.swarm.lane_protocol()) {
            self.on_served(peer_id);
        }
        if self.is_admitted(&peer_id) {
            self.feed_kademlia(peer_id, &info.listen_addrs);
        }
    }

    /// A peer has shown that it belongs to this swarm.
    pub(super) fn welcome(&mut self, peer_id: PeerId) {
        if let Some(peer) = self.peers.get_mut(&peer_id).filter(|peer| peer.standing == Standing::Unknown) {
            peer.standing = Standing::Ours;
        }
    }

    /// A peer has shown that it does not.
    pub(super) fn expel(&mut self, peer_id: PeerId, reason: &str) {
        let Some(peer) = self.peers.get_mut(&peer_id) else { return };
        peer.standing = Standing::Stranger;
        if self.book.add_stranger(peer_id, Instant::now()) {
            tracing::debug!(%peer_id, %reason, "a stranger is let go");
            Counters::add(&self.core.counters.strangers);
        }
        self.on_join_stranger(&peer_id);
        self.fail_lane(&peer_id, "it does not belong to this swarm");
        let _ = self.swarm.disconnect_peer_id(peer_id);
    }

    pub(super) fn is_stranger(&self, peer_id: &PeerId) -> bool {
        self.peers.get(peer_id).is_some_and(|peer| peer.standing == Standing::Stranger)
    }

    pub(super) fn on_ping(&mut self, event: &ping::Event) {
        if let Ok(time) = event.result
            && let Some(peer) = self.peers.get_mut(&event.peer)
            && let Some(connection) = peer.connections.iter_mut().find(|other| other.id == event.connection)
        {
            connection.heard = Instant::now();
            self.core.selection.round_trips.measured(event.peer, time);
        }
    }

    /// Sees to peers that have not shown in time that they belong to the swarm, or have not levelled with this node.
    pub(super) fn close_unknown(&mut self, now: Instant) {
        let late = |peer: &Peer, limit: Duration| now.saturating_duration_since(peer.since) > limit;
        let (mut unknown, mut unsynced) = (Vec::new(), Vec::new());
        for (peer_id, peer) in &self.peers {
            match peer.standing {
                Standing::Unknown if late(peer, UNKNOWN_LIMIT) => unknown.push(*peer_id),
                Standing::Ours if !peer.synced && late(peer, TICK) => unsynced.push(*peer_id),
                _ => {}
            }
        }
        for peer_id in unknown {
            self.expel(peer_id, "it has not shown in time that it belongs to this swarm");
        }
        for peer_id in unsynced {
            self.offer_again(peer_id);
        }
    }

    /// Closes connections whose other side has gone silent.
    pub(super) fn close_silent(&mut self, now: Instant) {
        let slept = now.saturating_duration_since(self.ticked) > SILENCE / 2;
        let (mut silent, mut next) = (Vec::new(), now + TICK);
        for connection in self.peers.values_mut().flat_map(|peer| &mut peer.connections) {
            if slept {
                // This process did not run for a while: nobody else is to blame.
                connection.heard = now;
            } else if now.saturating_duration_since(connection.heard) > SILENCE {
                silent.push(connection.id);
            } else {
                next = next.min(connection.heard + SILENCE);
            }
        }
        if next < now + TICK {
            // Its turn comes before the next tick, unless a pong does.
            self.timers.at(next + Duration::from_millis(1), Due::Silence);
        }
        for connection in silent {
            tracing::debug!(?connection, "no sign of life, so the connection is closed");
            self.swarm.close_connection(connection);
        }
    }

    /// Of several connections to one peer, both sides keep the one that the smaller peer id has dialled.
    pub(super) fn close_duplicates(&mut self) {
        let mut surplus = Vec::new();
        for (peer_id, peer) in self.peers.iter().filter(|(_, peer)| peer.connections.len() > 1) {
            let right = |connection: &&Connection| connection.outbound == (self.core.peer_id < *peer_id);
            let kept = peer.connections.iter().find(right).or(peer.connections.first()).map(|kept| kept.id);
            let others = peer.connections.iter().filter(|other| Some(other.id) != kept);
            // Of two that one side has dialled only that side knows which it keeps.
            surplus.extend(others.filter(|other| other.outbound || !right(other)).map(|other| (*peer_id, other.id)));
        }
        for (peer_id, connection) in surplus {
            if self.swarm.behaviour().lanes.streams_on(&peer_id, connection) == 0 {
                self.swarm.close_connection(connection);
            }
        }
    }

    /// Keeps the number of connections between the marks.
    pub(super) fn balance(&mut self, now: Instant) {
        if self.stopping.is_some() {
            return;
        }
        let (low, high) = (self.neighbours_at_least(), self.core.settings.high_mark);
        let count = self.peers.len();
        if count < low {
            self.add_neighbours(low - count);
        } else if count > high {
            self.release_idlest(count - high, now);
        }
    }

    fn neighbours_at_least(&self) -> usize {
        let low = self.core.settings.low_mark;
        if self.core.settings.passive { low.min(EAGER_PASSIVE) } else { low }
    }

    fn add_neighbours(&mut self, missing: usize) {
        let (own, few) = (self.core.peer_id, self.peers.len() < FEW);
        let candidates = self.directory.live().filter(|peer_id| {
            **peer_id != own
                && (few || own < **peer_id)
                && !self.peers.contains_key(*peer_id)
                && !self.dials.contains_key(*peer_id)
                && !self.lost.contains_key(*peer_id)
                && !self.core.permissions.shuns(peer_id)
        });
        let chosen: Vec<PeerId> = candidates.copied().choose_multiple(&mut rand::rng(), missing.min(OPENED_AT_ONCE));
        for peer_id in chosen {
            if self.has_address(&peer_id) {
                self.dial(peer_id);
            }
        }
    }

    pub(super) fn has_address(&self, peer_id: &PeerId) -> bool {
        !self.book.addresses(peer_id).is_empty() || !self.directory.addresses(peer_id).is_empty()
    }

    fn release_idlest(&mut self, surplus: usize, now: Instant) {
        let behaviour = self.swarm.behaviour();
        let mesh: Vec<PeerId> = behaviour.gossip.mesh_peers(&self.topic).copied().collect();
        let mut idle: Vec<(Instant, PeerId)> = self
            .peers
            .iter()
            .filter(|(peer_id, peer)| {
                !peer.releasing
                    && now.saturating_duration_since(peer.since) > YOUNG
                    && !mesh.contains(peer_id)
                    && !self.core.in_use(peer_id)
                    && behaviour.lanes.streams_to(peer_id) == 0
                    && !self.is_joined(peer_id)
            })
            .map(|(peer_id, peer)| (peer.active, *peer_id))
            .collect();
        idle.sort_unstable();
        for (_, peer_id) in idle.into_iter().take(surplus.min(CLOSED_AT_ONCE)) {
            if let Some(peer) = self.peers.get_mut(&peer_id) {
                peer.releasing = true;
            }
            self.release(peer_id);
            self.timers.at(now + RELEASE_LIMIT, Due::Release(peer_id));
        }
    }

    /// Closes the connections to a peer that knows why.
    pub(super) fn let_go(&mut self, peer_id: PeerId) {
        if let Some(peer) = self.peers.get_mut(&peer_id).filter(|peer| peer.releasing) {
            peer.released = true;
            let _ = self.swarm.disconnect_peer_id(peer_id);
        }
    }
}

/// How long a node is left alone that was looked for so often already.
fn revisit_pause(times: u32) -> Duration {
    (TICK * 2_u32.saturating_pow(times.min(16))).min(LONGEST_REVISIT)
}

/// Whether a failed dial shows that the peer is not where it was said to be.
fn nobody_there(error: &DialError) -> bool {
    matches!(error, DialError::Transport(_) | DialError::WrongPeerId { .. } | DialError::LocalPeerId { .. })
}

/// What went wrong, for people: the innermost cause at each address.
fn reason(error: &DialError) -> String {
    let DialError::Transport(errors) = error else { return error.to_string() };
    let at = |(address, error): &(Multiaddr, TransportError<io::Error>)| format!("{address}: {}", root(error));
    errors.iter().map(at).collect::<Vec<_>>().join("; ")
}
