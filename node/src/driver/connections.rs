//! Connections: who is connected, who is a stranger, and who has gone silent.

use std::time::{Duration, Instant};

use libp2p::{
    Multiaddr, PeerId,
    core::ConnectedPoint,
    identify,
    swarm::{ConnectionError, ConnectionId},
};
use multinodes_behaviour::{identity, ping, ration::Origin};

use super::{
    Driver, Due, TICK,
    no_answer::{NoAnswer, shortened},
};
use crate::core::Counters;

/// Pings go every 2 s. A connection on which nothing has come for so long is closed, and the dial that follows shows the rest:
/// together less than 5 s. Not left to libp2p's ping: it keeps the first failure to itself, and reports the second after more than ten seconds.
const SILENCE: Duration = Duration::from_millis(3_500);

/// Identify is the first thing that libp2p programs tell each other.
const UNKNOWN_LIMIT: Duration = Duration::from_secs(10);

/// Whoever closes a connection in this time, before anything was levelled, has turned us away.
const TURNED_AWAY: Duration = Duration::from_secs(1);

pub(super) struct Peer {
    pub(super) connections: Vec<Connection>,
    pub(super) standing: Standing,
    /// No rule stands in the way.
    pub(super) admitted: bool,
    /// It has shown that it serves us; else it may still be waiting for what we show.
    pub(super) serves: bool,
    /// One side has said that it closes the connection only to save one.
    pub(super) released: bool,
    pub(super) releasing: bool,
    pub(super) synced: bool,
    pub(super) since: Instant,
    pub(super) active: Instant,
    /// The host at the other end of its first connection.
    pub(super) origin: Option<Origin>,
}

pub(super) struct Connection {
    pub(super) id: ConnectionId,
    pub(super) outbound: bool,
    /// Where it leads, if this node has dialled it.
    dialled: Option<Multiaddr>,
    heard: Instant,
}

/// Whether a peer belongs to this swarm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    Unknown,
    Ours,
    Stranger,
}

impl Peer {
    fn new(origin: Option<Origin>, now: Instant) -> Self {
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
            origin,
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
    pub(super) fn on_connected(&mut self, peer_id: PeerId, connection: ConnectionId, endpoint: &ConnectedPoint) {
        let now = Instant::now();
        let outbound = endpoint.is_dialer();
        tracing::debug!(%peer_id, outbound, address = %endpoint.get_remote_address(), "connected");
        self.dials.remove(&peer_id);
        self.redials.remove(&peer_id);
        self.doubts.remove(&peer_id);
        self.on_join_connected(connection, peer_id);
        let welcome = self.is_welcome(&peer_id);
        let peer =
            self.peers.entry(peer_id).or_insert_with(|| Peer::new(Origin::of(endpoint.get_remote_address()), now));
        peer.admitted |= welcome;
        let first = peer.connections.is_empty();
        let dialled = outbound.then(|| endpoint.get_remote_address().clone());
        peer.connections.push(Connection { id: connection, outbound, dialled, heard: now });
        peer.released = false;
        if self.book.is_stranger(&peer_id, now) {
            self.expel(peer_id, "it is known as a stranger");
            return;
        }
        if self.keeps_away(&peer_id) {
            return self.turn_away(peer_id);
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
            let closed = peer.connections.iter().position(|other| other.id == connection);
            let dialled = closed.and_then(|index| peer.connections.remove(index).dialled);
            // Of several that lead to one peer the surplus is closed before anything is levelled.
            if let Some(address) = dialled.filter(|_| left == 0 && !peer.synced) {
                self.failures.failed(&address, None, true, now);
                self.failures.failed_peer(peer_id, now);
            }
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
        let expected = peer.released || peer.standing == Standing::Stranger;
        let turned_away = !expected && !peer.synced && now.saturating_duration_since(peer.since) < TURNED_AWAY;
        self.rejoin(&peer_id, expected, turned_away);
        if turned_away {
            // It does not want us, or has no room: another dial at once would come to the same. It was there, though:
            // whether it still is, its signs of life show.
            self.redials.remove(&peer_id);
            self.look_for(peer_id, now);
        } else if !expected && self.directory.is_live(&peer_id) {
            self.begin_redial(peer_id, cause.is_none(), now);
        }
        if !expected && !peer.synced {
            self.on_prospect_missed(peer_id);
        }
        self.pump();
    }

    /// A peer has levelled with this node: where it was dialled all is well.
    pub(super) fn on_place_met(&mut self, peer_id: &PeerId) {
        let connections = self.peers.get(peer_id).into_iter().flat_map(|peer| &peer.connections);
        self.failures.met(*peer_id, connections.filter_map(|connection| connection.dialled.as_ref()));
    }

    pub(super) fn on_identify(&mut self, event: identify::Event) {
        let identify::Event::Received { peer_id, info, .. } = event else { return };
        if !self.admits_shown(peer_id, Instant::now()) {
            return;
        }
        if !identity::belongs(&info, &self.core.settings.swarm) {
            self.on_join_answer(&peer_id, &NoAnswer::OtherSwarm(shortened(&info.protocol_version)));
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
        if self.peers.contains_key(&event.peer) {
            self.core.selection.round_trips.measured(event.peer, event.round_trip);
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
        let silence = SILENCE + self.lag.allowance(now);
        let (mut silent, mut next) = (Vec::new(), now + TICK);
        let ping = &self.swarm.behaviour().ping;
        for connection in self.peers.values_mut().flat_map(|peer| &mut peer.connections) {
            connection.heard = ping.heard(connection.id).map_or(connection.heard, |heard| connection.heard.max(heard));
            if slept {
                // This process did not run for a while: nobody else is to blame.
                connection.heard = now;
            } else if now.saturating_duration_since(connection.heard) > silence {
                silent.push(connection.id);
            } else {
                next = next.min(connection.heard + silence);
            }
        }
        if next < now + TICK {
            // Its turn comes before the next tick, unless something else does.
            self.timers.at(next + Duration::from_millis(1), Due::Silence);
        }
        for connection in silent {
            tracing::debug!(?connection, "no sign of life, so the connection is closed");
            self.swarm.close_connection(connection);
        }
    }
}
