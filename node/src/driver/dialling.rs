//! Dials: of one peer with all its known addresses, for a limited time, and what a failure shows.

use std::{
    io,
    num::NonZeroU8,
    time::{Duration, Instant},
};

use libp2p::{
    Multiaddr, PeerId, TransportError,
    swarm::{
        ConnectionId, DialError,
        dial_opts::{DialOpts, PeerCondition},
    },
};

use super::{Driver, Due, doubts::refused, losing::SECOND_CHANCE, root, timers::jittered};
use crate::{addresses, core::OpenFailure};

/// A dial that takes longer is ended.
pub(super) const DIAL_LIMIT: Duration = Duration::from_millis(5_500);

/// A peer that can be reached is connected in this time.
const FRESH: Duration = Duration::from_millis(1_500);

/// Addresses of a peer that are dialled at once. Of several that answer one is kept: to the peer the others are handshakes
/// that failed.
const SOME: NonZeroU8 = NonZeroU8::new(8).expect("eight is not zero");

/// On the same host every address answers at once, or refuses.
const ONE: NonZeroU8 = NonZeroU8::MIN;

pub(super) struct Dial {
    since: Instant,
    addresses: Vec<Multiaddr>,
}

impl Dial {
    /// It is ended because nobody has answered, or nobody any more, which is all that is known of its addresses then.
    fn is_over(&self) -> bool {
        self.since.elapsed() >= DIAL_LIMIT
    }
}

impl Driver {
    /// Dials a peer with all its known addresses, unless it is connected or being dialled.
    pub(super) fn dial(&mut self, peer_id: PeerId) {
        let known = self.known_addresses(&peer_id);
        self.dial_at(peer_id, known);
    }

    /// Dials a peer that nobody has asked for: not where dials fail again and again.
    pub(super) fn dial_unasked(&mut self, peer_id: PeerId) {
        let now = Instant::now();
        let mut known = self.known_addresses(&peer_id);
        let any = !known.is_empty();
        let may = self.failures.claim_peer(&peer_id, now);
        known.retain(|address| may && self.failures.claim(address, &peer_id, now));
        if any && known.is_empty() {
            tracing::debug!(%peer_id, "not dialled: where it is said to be, dials fail again and again");
            self.on_prospect_missed(peer_id);
        } else {
            self.dial_at(peer_id, known);
        }
    }

    fn known_addresses(&self, peer_id: &PeerId) -> Vec<Multiaddr> {
        let mut known = self.book.addresses(peer_id).to_vec();
        known.extend(self.directory.addresses(peer_id));
        let known = addresses::in_order(known);
        // Most of those who are heard on a link are reached by another address as well, and each dial that answers costs
        // them a handshake: so those with a zone wait until the others have failed.
        let (zoned, mut others): (Vec<_>, Vec<_>) = known.into_iter().partition(addresses::has_zone);
        if others.iter().all(|address| self.failures.has_failed(address)) {
            others.extend(zoned);
        }
        others
    }

    fn dial_at(&mut self, peer_id: PeerId, known: Vec<Multiaddr>) {
        let addresses = known.clone();
        let at_once = if known.first().is_some_and(addresses::is_of_host) { ONE } else { SOME };
        let options = DialOpts::peer_id(peer_id)
            .condition(PeerCondition::DisconnectedAndNotDialing)
            .addresses(known)
            .override_dial_concurrency_factor(at_once)
            // With the listening port two nodes that dial each other would open one TCP connection, both as its dialler.
            .allocate_new_port()
            .build();
        let connection = options.connection_id();
        match self.swarm.dial(options) {
            Ok(()) => self.on_dialling(peer_id, addresses),
            Err(error) => self.on_dial_failed(connection, Some(peer_id), &error),
        }
    }

    pub(super) fn has_address(&self, peer_id: &PeerId) -> bool {
        !self.book.addresses(peer_id).is_empty() || !self.directory.addresses(peer_id).is_empty()
    }

    fn on_dialling(&mut self, peer_id: PeerId, addresses: Vec<Multiaddr>) {
        let now = Instant::now();
        self.dials.insert(peer_id, Dial { since: now, addresses });
        self.timers.at(now + DIAL_LIMIT, Due::GiveUp(peer_id));
    }

    pub(super) fn give_up(&mut self, peer_id: &PeerId, now: Instant) {
        let Some(dial) = self.dials.get(peer_id) else { return };
        let limit = dial.since + DIAL_LIMIT;
        if limit > now {
            // The limit of an earlier dial.
            self.timers.at(limit, Due::GiveUp(*peer_id));
        } else if !self.peers.contains_key(peer_id) {
            // Ends a dial too; the error comes as an event.
            let _ = self.swarm.disconnect_peer_id(*peer_id);
        }
    }

    /// Dials that have begun only just now: the others probably fail, and nothing waits for them.
    pub(super) fn fresh_dials(&self) -> usize {
        self.fresh_dials_to(|_| true)
    }

    pub(super) fn fresh_dials_to(&self, whom: impl Fn(&PeerId) -> bool) -> usize {
        self.dials.iter().filter(|(peer_id, dial)| dial.since.elapsed() < FRESH && whom(peer_id)).count()
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
        self.note_failures(error);
        self.on_join_failed(connection, peer_id, error, turned_away(error));
        let Some(peer_id) = peer_id else { return };
        let dial = self.dials.remove(&peer_id);
        let given_up = dial.filter(|dial| matches!(error, DialError::Aborted) && dial.is_over());
        for address in given_up.iter().flat_map(|dial| &dial.addresses) {
            self.failures.failed(address, None, true, Instant::now());
        }
        if !self.peers.contains_key(&peer_id) {
            if nobody_there(error) || given_up.is_some() {
                self.failures.failed_peer(peer_id, Instant::now());
                self.on_nobody_there(peer_id, error);
            }
            let reason = reason(error);
            let failure = if silent(error) { OpenFailure::Silent(reason) } else { OpenFailure::Unreachable(reason) };
            self.on_lane_dial_failed(peer_id, &failure);
            self.on_prospect_missed(peer_id);
            if self.peers.is_empty() && self.dials.is_empty() {
                // Whoever was said to be on this host is not.
                self.ask_lan();
            }
        }
    }

    fn note_failures(&mut self, error: &DialError) {
        let now = Instant::now();
        match error {
            DialError::Transport(errors) => {
                for (address, error) in errors {
                    self.failures.failed(address, None, costs(error), now);
                }
            }
            DialError::WrongPeerId { obtained, address } => {
                self.failures.failed(address, Some(*obtained), true, now);
            }
            DialError::LocalPeerId { address } => self.failures.failed(address, Some(self.core.peer_id), true, now),
            _ => {}
        }
    }

    fn on_nobody_there(&mut self, peer_id: PeerId, error: &DialError) {
        let (refused, silent, busy) = (refused(error), silent(error), turned_away(error));
        let now = Instant::now();
        self.sweep_note(&peer_id);
        if let Some(redial) = self.redials.get_mut(&peer_id) {
            redial.attempts += 1;
            redial.busy = busy;
            redial.refused |= !silent && !busy;
            let silent = !redial.refused;
            if redial.attempts < 2 || (busy && redial.attempts < 4) {
                self.timers.at(now + jittered(SECOND_CHANCE), Due::Redial(peer_id));
                return;
            }
            if busy {
                // Somebody is there: whether it is this node, its signs of life show.
                self.redials.remove(&peer_id);
                self.look_for(peer_id, now);
            } else {
                self.on_lost(peer_id, silent, now);
            }
        } else if refused && self.directory.is_live(&peer_id) {
            self.doubt(peer_id, now);
        } else {
            self.break_doubt(&peer_id);
            if !silent {
                // The way to where it was is there, and it is not.
                self.directory.on_refused(&peer_id);
                self.own.cut_off &= self.directory.any_silent();
            }
        }
        if !self.directory.is_live(&peer_id) && !self.is_prospect(&peer_id) {
            self.book.remove(&peer_id);
        }
    }
}

/// Whether a failed dial shows that the peer is not where it was said to be.
fn nobody_there(error: &DialError) -> bool {
    matches!(error, DialError::Transport(_) | DialError::WrongPeerId { .. } | DialError::LocalPeerId { .. })
}

/// Whether a failure has taken more than a moment: silence takes the most. What is refused at once does not, and neither
/// does what this host cannot dial.
fn costs(error: &TransportError<io::Error>) -> bool {
    use io::ErrorKind::{AddrNotAvailable, ConnectionRefused, NetworkUnreachable};
    let kind = root(error).downcast_ref::<io::Error>().map(io::Error::kind);
    let is_cheap = matches!(kind, Some(AddrNotAvailable | ConnectionRefused | NetworkUnreachable));
    matches!(error, TransportError::Other(_)) && !is_cheap
}

/// Whether nothing was heard from where the peer should be: it, or this node, may be cut off.
pub(super) fn silent(error: &DialError) -> bool {
    match error {
        DialError::Transport(_) => !refused(error) && !turned_away(error),
        // Given up when it had taken too long.
        DialError::Aborted => true,
        _ => false,
    }
}

/// Whether somebody was there and hung up: who has no room for one more handshake does just that.
fn turned_away(error: &DialError) -> bool {
    let DialError::Transport(errors) = error else { return false };
    errors.iter().any(|(_, error)| hung_up(error))
}

fn hung_up(error: &TransportError<io::Error>) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    let kind = root(error).downcast_ref::<io::Error>().map(io::Error::kind);
    matches!(kind, Some(BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof))
}

/// What went wrong, for people: the innermost cause at each address.
fn reason(error: &DialError) -> String {
    let DialError::Transport(errors) = error else { return error.to_string() };
    let at = |(address, error): &(Multiaddr, TransportError<io::Error>)| format!("{address}: {}", root(error));
    errors.iter().map(at).collect::<Vec<_>>().join("; ")
}
