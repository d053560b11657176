//! Addresses to join through: tried for ever, with growing pauses, as long as whoever answers there is neither connected
//! nor known as one of the swarm. Who is turned away comes back soon, and not at the same time as all the others.

use std::{
    io,
    time::{Duration, Instant},
};

use libp2p::{
    Multiaddr, PeerId,
    swarm::{ConnectionId, DialError, dial_opts::DialOpts},
};

use super::{
    Done, Driver, Due, answers::Answers, dialling::DIAL_LIMIT, namesakes::Namesakes, no_answer::NoAnswer,
    timers::jittered,
};
use crate::{
    addresses::{self, Join, without_peer},
    description::Event,
};

const FIRST_PAUSE: Duration = Duration::from_millis(500);
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Whoever is turned away because the other side is busy tries again after about so long: it serves some hundred peers
/// a second.
pub(super) const SOON: Duration = Duration::from_millis(300);

/// So often in a row. Who is turned away after that is not waiting for its turn, and comes back ever more rarely.
pub(super) const SOON_TRIES: u32 = 32;

/// More than that are refused: each costs a dial now and then.
const MAX_JOINS: usize = 64;

pub(super) struct Joining {
    pub(super) join: Join,
    /// What has come of it, for people.
    pub(super) answers: Answers,
    /// Others at the addresses of its name.
    pub(super) namesakes: Namesakes,
    /// Still to be tried in this round.
    left: Vec<Multiaddr>,
    dialling: Option<(ConnectionId, Multiaddr)>,
    /// Where a dial is under way.
    dialled: Vec<Multiaddr>,
    /// A dial by peer id is under way, or a name is being resolved.
    busy: bool,
    /// At an address of this round somebody has hung up.
    busy_there: bool,
    /// Who answered there.
    pub(super) peer: Option<PeerId>,
    pause: Duration,
    /// How often in a row it was turned away.
    turned_away: u32,
    /// When it is tried next, if that is noted.
    next: Option<Instant>,
    pub(super) outcome: bool,
}

impl Joining {
    pub(super) fn new(join: Join) -> Self {
        Self {
            peer: join.peer_id(),
            join,
            answers: Answers::default(),
            namesakes: Namesakes::default(),
            left: Vec::new(),
            dialling: None,
            dialled: Vec::new(),
            busy: false,
            busy_there: false,
            pause: FIRST_PAUSE,
            turned_away: 0,
            next: None,
            outcome: false,
        }
    }

    pub(super) fn has_outcome(&self) -> bool {
        self.outcome
    }

    /// Where it is dialled now, and where nothing has come of that yet.
    pub(super) fn under_way(&self) -> Vec<Multiaddr> {
        let is_dialled = self.dialling.is_some() || self.busy;
        if is_dialled { self.dialled.clone() } else { Vec::new() }
    }

    /// Whether its name is being looked up.
    pub(super) fn is_resolving(&self) -> bool {
        self.busy && self.dialled.is_empty()
    }

    /// The network is built anew.
    pub(super) fn reset(&mut self) {
        self.left.clear();
        self.dialled.clear();
        self.dialling = None;
        self.namesakes.reset();
        self.busy = false;
        self.pause = FIRST_PAUSE;
        self.next = None;
    }

    fn is_dialling(&self, connection: ConnectionId) -> bool {
        self.dialling.as_ref().is_some_and(|(dialling, _)| *dialling == connection)
    }

    /// Where a dial of it has led, which is over by that.
    fn dialled_by(&mut self, connection: ConnectionId) -> Option<Multiaddr> {
        self.dialling.take_if(|(dialling, _)| *dialling == connection).map(|(_, address)| address)
    }

    /// Notes what came where the last dial has led.
    pub(super) fn answer(&mut self, answer: NoAnswer) {
        let place = if let [address] = &self.dialled[..] { Some(address.clone()) } else { None };
        self.answers.note(place, answer);
    }

    fn note(&mut self, error: &DialError) {
        for (address, answer) in NoAnswer::all_of(error, DIAL_LIMIT) {
            self.answers.note(address, answer);
        }
    }

    pub(super) fn next_pause(&mut self, turned_away: bool) -> Duration {
        if turned_away && self.turned_away < SOON_TRIES {
            self.turned_away += 1;
            return SOON.mul_f64(rand::random_range(0.5..2.0));
        }
        let pause = self.pause;
        self.pause = (pause * 2).min(LONGEST_PAUSE);
        jittered(pause)
    }
}

impl Driver {
    pub(super) fn add_join(&mut self, address: &str) {
        let known = self.joins.iter().any(|join| join.join.text() == address.trim());
        match addresses::parse_join(address) {
            Ok(_) if known => {}
            Ok(_) if self.joins.len() >= MAX_JOINS => {
                let reason = format!("{MAX_JOINS} other addresses to join through are as many as there may be");
                self.tell(Event::JoinFailed { address: address.trim().to_owned(), reason });
            }
            Ok(join) => {
                self.joins.push(Joining::new(join));
                self.unsettle();
                self.join(self.joins.len() - 1);
            }
            Err(error) => tracing::warn!(%error, "cannot join"),
        }
    }

    /// Begins a round over the addresses of one join, unless its peer is connected.
    pub(super) fn join(&mut self, index: usize) {
        let Some(joining) = self.joins.get_mut(index) else { return };
        let now = Instant::now();
        if joining.next.is_some_and(|next| next > now) {
            return;
        }
        joining.next = None;
        let connected = joining.peer.is_some_and(|peer_id| self.peers.contains_key(&peer_id));
        if connected || joining.busy || joining.dialling.is_some() || self.stopping.is_some() {
            joining.outcome |= connected;
            return;
        }
        // Others have told of it: this node is in its swarm, and one that has many connections needs no more.
        let known = joining.peer.is_some_and(|peer_id| self.directory.is_live(&peer_id));
        if known && self.peers.values().any(|peer| peer.synced) {
            joining.outcome = true;
            self.forget_answers(index);
            self.join_after(index, jittered(LONGEST_PAUSE));
            return;
        }
        joining.busy = true;
        joining.dialled.clear();
        let join = joining.join.clone();
        self.begin_answers(index, now);
        if let Some(address) = join.literal() {
            self.on_resolved(index, Ok(vec![address]));
        } else {
            let resolver = self.core.settings.resolver.clone();
            self.tasks.spawn(async move { Done::Resolved { join: index, result: join.resolve(&resolver).await } });
            self.revisit_name(index);
        }
    }

    pub(super) fn on_resolved(&mut self, index: usize, result: io::Result<Vec<Multiaddr>>) {
        let Some(joining) = self.joins.get_mut(index) else { return };
        joining.busy = false;
        match result {
            Ok(addresses) => {
                joining.left = addresses;
                self.join_next(index);
            }
            Err(error) => {
                joining.answers.note(None, NoAnswer::Unresolved(error.to_string()));
                self.join_later(index, false);
            }
        }
    }

    /// Dials the next address of a join.
    fn join_next(&mut self, index: usize) {
        let Some(joining) = self.joins.get_mut(index) else { return };
        if let Some(peer_id) = joining.join.peer_id() {
            let addresses = std::mem::take(&mut joining.left);
            joining.dialled.clone_from(&addresses);
            self.book.add(peer_id, addresses);
            joining.busy = true;
            self.dial(peer_id);
            return;
        }
        if joining.left.is_empty() {
            let turned_away = std::mem::take(&mut joining.busy_there);
            self.join_later(index, turned_away);
            return;
        }
        let address = joining.left.remove(0);
        joining.dialled = vec![without_peer(address.clone()).0];
        let options = DialOpts::unknown_peer_id().address(address.clone()).allocate_new_port().build();
        joining.dialling = Some((options.connection_id(), address));
        if let Err(error) = self.swarm.dial(options) {
            tracing::debug!(%error, "an address to join through cannot be dialled");
            joining.dialling = None;
            joining.note(&error);
            self.join_next(index);
        }
    }

    fn join_later(&mut self, index: usize, turned_away: bool) {
        // Who has met others of the swarm learns from them, and leaves the place to those who have met nobody.
        let alone = !self.peers.values().any(|peer| peer.synced);
        let Some(joining) = self.joins.get_mut(index) else { return };
        joining.outcome = true;
        let pause = joining.next_pause(turned_away && alone);
        self.join_after(index, pause);
        self.tell_answers(index, turned_away);
    }

    /// Notes when a join is tried next, unless that is sooner already: there is one note for each.
    fn join_after(&mut self, index: usize, pause: Duration) {
        let Some(joining) = self.joins.get_mut(index) else { return };
        let when = Instant::now() + pause;
        if joining.next.is_none_or(|next| when < next) {
            joining.next = Some(when);
            self.timers.at(when, Due::Join(index));
        }
    }

    /// A peer has levelled with this node: what led to it is well.
    pub(super) fn on_join_met(&mut self, peer_id: &PeerId) {
        for index in 0..self.joins.len() {
            let joining = &mut self.joins[index];
            if joining.peer == Some(*peer_id) {
                joining.pause = FIRST_PAUSE;
                joining.turned_away = 0;
                self.forget_answers(index);
            }
        }
    }

    /// A connection is there: maybe it is that of a join.
    pub(super) fn on_join_connected(&mut self, connection: ConnectionId, peer_id: PeerId) {
        for joining in &mut self.joins {
            if let Some(address) = joining.dialled_by(connection) {
                joining.namesakes.note(&address, peer_id);
                joining.peer = Some(peer_id);
            } else if joining.join.peer_id() != Some(peer_id) {
                continue;
            }
            joining.left.clear();
            joining.busy = false;
            joining.outcome = true;
        }
        self.on_namesake(connection, Some(peer_id));
    }

    /// A dial has failed: maybe it is that of a join. True if so.
    pub(super) fn on_join_failed(
        &mut self,
        connection: ConnectionId,
        peer_id: Option<PeerId>,
        error: &DialError,
        turned_away: bool,
    ) -> bool {
        let concerns = |joining: &Joining| {
            joining.is_dialling(connection) || (joining.busy && peer_id.is_some() && joining.join.peer_id() == peer_id)
        };
        self.on_namesake(connection, None);
        let indices: Vec<usize> =
            self.joins.iter().enumerate().filter(|(_, joining)| concerns(joining)).map(|(index, _)| index).collect();
        for index in &indices {
            let joining = &mut self.joins[*index];
            joining.dialling = None;
            joining.busy = false;
            joining.busy_there |= turned_away;
            joining.note(error);
            // With a peer id, one dial tries all addresses.
            if joining.join.peer_id().is_some() {
                joining.busy_there = false;
                self.join_later(*index, turned_away);
            } else {
                self.join_next(*index);
            }
        }
        !indices.is_empty()
    }

    /// This very node answers at the address.
    pub(super) fn on_join_to_self(&mut self, connection: ConnectionId) {
        self.on_namesake(connection, Some(self.core.peer_id));
        let own = self.core.peer_id;
        if let Some(joining) = self.joins.iter_mut().find(|joining| joining.is_dialling(connection)) {
            if let Some((_, address)) = &joining.dialling {
                joining.namesakes.note(address, own);
            }
            joining.pause = LONGEST_PAUSE;
        }
    }

    /// Whoever answers at the address does not belong to this swarm.
    pub(super) fn on_join_stranger(&mut self, peer_id: &PeerId) {
        for joining in self.joins.iter_mut().filter(|joining| joining.peer == Some(*peer_id)) {
            joining.pause = LONGEST_PAUSE;
        }
    }

    /// Says what somebody has answered who does not belong to this swarm.
    pub(super) fn on_join_answer(&mut self, peer_id: &PeerId, answer: &NoAnswer) {
        for index in 0..self.joins.len() {
            let joining = &mut self.joins[index];
            if joining.peer == Some(*peer_id) {
                joining.answer(answer.clone());
                self.tell_answers(index, false);
            }
        }
    }

    /// The last connection to a peer is closed: joins that led to it begin again.
    pub(super) fn rejoin(&mut self, peer_id: &PeerId, released: bool, turned_away: bool) {
        for index in 0..self.joins.len() {
            let joining = &mut self.joins[index];
            if joining.peer == Some(*peer_id) {
                // Who lets go of us has too many connections: coming back at once would not help it.
                joining.pause = if released { LONGEST_PAUSE } else { joining.pause };
                let pause = joining.next_pause(turned_away && !released);
                if turned_away {
                    joining.answer(NoAnswer::TurnedAway);
                }
                self.join_after(index, pause);
                self.tell_answers(index, true);
            }
        }
    }

    pub(super) fn is_joined(&self, peer_id: &PeerId) -> bool {
        self.joins.iter().any(|joining| joining.peer == Some(*peer_id))
    }
}
