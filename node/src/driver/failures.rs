//! Where dials fail again and again: such places are dialled more and more seldom, whoever is said to be there, and so
//! are peers, wherever they are said to be. Ids are free, and so are addresses: neither pause helps without the other.
//!
//! A place is an address, and the host of many addresses, for ports are free as well. Only dials that nobody asked for
//! wait: a user's own call, and an address to join through, do not.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use libp2p::{Multiaddr, PeerId};
use multinodes_behaviour::ration::Origin;

use crate::addresses;

/// More places than that are not remembered. That many fit a large LAN, and take well under a megabyte.
const MAX_PLACES: usize = 1_024;

/// So many failures in a row at one address are nothing unusual: a node that is starting, or is full for a moment.
const FREE: u32 = 3;

/// The same for all addresses of a host: many nodes of one host may start at once and turn each other away.
const FREE_OF_HOST: u32 = 64;

/// The same for a peer, wherever it is said to be.
const FREE_OF_PEER: u32 = 8;

/// The pause after the first failure too many; it doubles with each that follows.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// One dial in five minutes costs nothing, and who is well again is found in that time.
const LONGEST_PAUSE: Duration = Duration::from_secs(5 * 60);

/// Shorter, for whoever says that something is at a host, or where a peer is, need not be that host or peer.
const LONGEST_PAUSE_OF_HOST: Duration = Duration::from_secs(30);

/// What failed and was not dialled for so long after its pause is new again.
const FORGIVEN_AFTER: Duration = Duration::from_secs(10 * 60);

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Place {
    Address(Multiaddr),
    Host(Origin),
    Peer(PeerId),
}

#[derive(Debug)]
struct Failure {
    times: u32,
    until: Instant,
    /// Who has answered there instead: to that peer the failures say nothing.
    holder: Option<PeerId>,
}

/// A bounded table of places where dials have failed in a row.
#[derive(Debug, Default)]
pub(super) struct Failures(HashMap<Place, Failure>);

impl Place {
    fn pause(&self, times: u32) -> Duration {
        let (free, longest) = match self {
            Self::Address(_) => (FREE, LONGEST_PAUSE),
            Self::Host(_) => (FREE_OF_HOST, LONGEST_PAUSE_OF_HOST),
            Self::Peer(_) => (FREE_OF_PEER, LONGEST_PAUSE_OF_HOST),
        };
        match times.checked_sub(free) {
            Some(excess) => (FIRST_PAUSE * 2_u32.pow(excess.min(16))).min(longest),
            None => Duration::ZERO,
        }
    }
}

impl Failures {
    /// Whether a peer may be dialled at an address now. If it has failed too often, the one dial that is allowed after
    /// the pause is taken by this: the others wait for what comes of it.
    pub(super) fn claim(&mut self, address: &Multiaddr, peer_id: &PeerId, now: Instant) -> bool {
        self.claim_all(places(address), peer_id, now)
    }

    /// The same of a peer, wherever it is.
    pub(super) fn claim_peer(&mut self, peer_id: &PeerId, now: Instant) -> bool {
        self.claim_all(vec![Place::Peer(*peer_id)], peer_id, now)
    }

    fn claim_all(&mut self, places: Vec<Place>, peer_id: &PeerId, now: Instant) -> bool {
        let waits = |place: &Place| {
            self.0.get(place).is_some_and(|failure| failure.until > now && failure.holder != Some(*peer_id))
        };
        if places.iter().any(waits) {
            return false;
        }
        for place in places {
            if let Some(failure) = self.0.get_mut(&place) {
                failure.until = now + place.pause(failure.times);
            }
        }
        true
    }

    /// A dial has come to nothing. `holder` is who answered instead. What `costs` nothing, as a refusal, is not held
    /// against the host.
    pub(super) fn failed(&mut self, address: &Multiaddr, holder: Option<PeerId>, costs: bool, now: Instant) {
        for place in places(address).into_iter().filter(|place| costs || matches!(place, Place::Address(_))) {
            let is_address = matches!(place, Place::Address(_));
            let failure = self.note(place, now);
            if is_address {
                failure.holder = holder.or(failure.holder);
            }
        }
    }

    /// A peer was at none of its addresses.
    pub(super) fn failed_peer(&mut self, peer_id: PeerId, now: Instant) {
        self.note(Place::Peer(peer_id), now);
    }

    fn note(&mut self, place: Place, now: Instant) -> &mut Failure {
        self.make_room(&place);
        let failure = self.0.entry(place.clone()).or_insert(Failure { times: 0, until: now, holder: None });
        if now.saturating_duration_since(failure.until) > FORGIVEN_AFTER {
            failure.times = 0;
        }
        failure.times = failure.times.saturating_add(1);
        failure.until = now + place.pause(failure.times);
        failure
    }

    /// Whether dials at an address have failed lately, and none has succeeded since.
    pub(super) fn has_failed(&self, address: &Multiaddr) -> bool {
        self.0.contains_key(&Place::Address(addresses::without_peer(address.clone()).0))
    }

    /// A peer has levelled with this node; where it was dialled, if it was.
    pub(super) fn met<'a>(&mut self, peer_id: PeerId, addresses: impl IntoIterator<Item = &'a Multiaddr>) {
        self.0.remove(&Place::Peer(peer_id));
        for place in addresses.into_iter().flat_map(places) {
            self.0.remove(&place);
        }
    }

    /// The place that would be free soonest is forgotten.
    fn make_room(&mut self, place: &Place) {
        if self.0.len() >= MAX_PLACES
            && !self.0.contains_key(place)
            && let Some(soonest) =
                self.0.iter().min_by_key(|(_, failure)| failure.until).map(|(place, _)| place.clone())
        {
            self.0.remove(&soonest);
        }
    }
}

fn places(address: &Multiaddr) -> Vec<Place> {
    let host = Origin::of(address).map(Place::Host);
    std::iter::once(Place::Address(addresses::without_peer(address.clone()).0)).chain(host).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(host: u8, port: u16) -> Multiaddr {
        format!("/ip4/10.0.0.{host}/tcp/{port}").parse().unwrap()
    }

    /// Dials with a fresh id whenever that is allowed, for ten minutes. Gives how often that was.
    fn dials_in_ten_minutes(failures: &mut Failures, mut next: impl FnMut() -> Multiaddr) -> usize {
        let begun = Instant::now();
        let moments = (0..6_000).map(|tenth| begun + Duration::from_millis(100) * tenth);
        let dialled = moments.filter(|now| {
            let address = next();
            let allowed = failures.claim(&address, &PeerId::random(), *now);
            if allowed {
                failures.failed(&address, None, true, *now);
            }
            allowed
        });
        dialled.count()
    }

    #[test]
    fn an_address_that_always_fails_is_dialled_ever_more_seldom() {
        let mut failures = Failures::default();
        let dials = dials_in_ten_minutes(&mut failures, || address(1, 1));
        assert!((FREE as usize..=FREE as usize + 10).contains(&dials), "{dials}");
        assert!(failures.claim(&address(2, 1), &PeerId::random(), Instant::now()), "others are not concerned");
    }

    #[test]
    fn neither_do_ever_new_ports_of_a_host_help() {
        let mut ports = 1..;
        let dials = dials_in_ten_minutes(&mut Failures::default(), || address(1, ports.next().unwrap()));
        assert!((FREE_OF_HOST as usize..FREE_OF_HOST as usize + 30).contains(&dials), "{dials}");
    }

    #[test]
    fn what_is_well_again_and_who_answers_there_are_dialled_as_before() {
        let (mut failures, now, holder) = (Failures::default(), Instant::now(), PeerId::random());
        for _ in 0..20 {
            failures.failed(&address(1, 1), Some(holder), false, now);
        }
        assert!(!failures.claim(&address(1, 1), &PeerId::random(), now));
        assert!(failures.claim(&address(1, 1), &holder, now));
        failures.met(holder, [&address(1, 1)]);
        assert!(failures.claim(&address(1, 1), &PeerId::random(), now));
    }

    #[test]
    fn a_peer_that_is_never_where_it_is_said_to_be_is_dialled_ever_more_seldom() {
        let (mut failures, peer_id, mut now) = (Failures::default(), PeerId::random(), Instant::now());
        let end = now + Duration::from_secs(600);
        let mut dials = 0;
        while now < end {
            if failures.claim_peer(&peer_id, now) {
                dials += 1;
                failures.failed_peer(peer_id, now);
            }
            now += Duration::from_millis(100);
        }
        assert!((FREE_OF_PEER as usize..FREE_OF_PEER as usize + 30).contains(&dials), "{dials}");
        assert!(failures.claim_peer(&PeerId::random(), now), "others are not concerned");
        failures.met(peer_id, []);
        assert!(failures.claim_peer(&peer_id, now));
    }

    #[test]
    fn the_table_is_bounded() {
        let (mut failures, now) = (Failures::default(), Instant::now());
        for port in 1..=5_000 {
            failures.failed(&address(1, port), None, true, now);
        }
        assert_eq!(failures.0.len(), MAX_PLACES);
    }
}
