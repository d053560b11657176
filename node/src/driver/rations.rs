//! How much of this node's work a peer gets, counted so that coming back, or coming in another guise, gains nothing.
//!
//! What costs a signature to verify, or a walk over the directory, is rationed by peer id, by the host that the peer comes
//! from, and for all. The rations of a host are those of several peers: several nodes on one host are nothing unusual.
//! Only a peer that goes beyond its own ration is to blame for that. Who sends what no honest node sends is kept away.

use std::{
    collections::HashMap,
    sync::atomic::AtomicU64,
    time::{Duration, Instant},
};

use libp2p::PeerId;
use multinodes_behaviour::{
    ration::{Bucket, Rate, Table, Taken, Tiers, Who},
    rationed::Excess,
};

use super::Driver;
use crate::core::{Counters, OpenFailure};

/// Exchanges that a neighbour may ask for. Each costs a walk over the directory.
const REQUESTS: Rate = Rate { burst: 40.0, per_second: 4.0 };

/// So many records of a neighbour's exchanges are looked at: a whole directory at once, with some to spare. Each costs a
/// signature to verify.
const RECORDS: Rate = Rate { burst: 16_384.0, per_second: 512.0 };

/// So many records and beats of its gossip: what there is to tell when a thousand nodes start at once, and in the long run
/// five times all beats together. Of more the exchanges tell.
const GOSSIP: Rate = Rate { burst: 1_024.0, per_second: 128.0 };

/// So many messages of topics that it passes on, whoever has sent them: what four of the busiest senders send.
const MESSAGES: Rate = Rate { burst: 8_192.0, per_second: 2_048.0 };

/// So many lanes. A node has a few to each neighbour, and opens one again when it was idle for long.
const LANES: Rate = Rate { burst: 64.0, per_second: 8.0 };

/// Of what is said by others, half of what neighbours take is passed on, so that a flood ends one step from where it began,
/// and nobody is taken for its source who only passes it on. Exchanges bring the rest.
const RELAYED: Rate = GOSSIP.times(0.5);
const RELAYED_MESSAGES: Rate = MESSAGES.times(0.5);

/// Peers of one host may take together what so many of them may, and all peers what so many. Of signatures few can be
/// verified a second, of what only comes in numbers when a host starts its nodes there is more. What is known of nodes comes
/// from one neighbour or the other, so many of them do not bring more of it.
const HOST: f64 = 4.0;
const HOST_OF_RECORDS: f64 = 2.0;
const ALL: f64 = 8.0;
const HOST_OF_MANY: f64 = 16.0;
const ALL_OF_MANY: f64 = 64.0;

/// A bad record in an exchange costs as much as so many good ones, of the peer's ration and of its host's.
const BAD: f64 = 64.0;

/// What is no honest node's doing may happen so often: nobody passes bad things on who checks them, as everybody has to.
const STRIKES: Rate = Rate { burst: 16.0, per_second: 1.0 };

/// Bad gossip may be a matter of versions. A bad record was asked for by nobody, and comes by thousands.
pub(super) const STRIKE: f64 = 1.0;
const STRIKES_OF_RECORD: f64 = 4.0;

/// A beat makes this node ask a neighbour for what it lacks not more often than this.
const ASKED: Rate = Rate { burst: 1.0, per_second: 1.0 };

/// What a peer shows of itself is looked at so often: as a rule once on each connection, and when its addresses change. A
/// credential costs two signatures to verify.
const SHOWN: Rate = Rate { burst: 16.0, per_second: 1.0 };

/// Who has gone too far is not spoken with for so long.
const KEPT_AWAY: Duration = Duration::from_secs(60);

/// The most peers that are remembered for that; the one that was kept away for longest is forgotten first.
const MAX_KEPT_AWAY: usize = 1_024;

/// What is said to whoever wants to speak with such a peer.
const MISBEHAVED: &str = "it has sent what no node should, and is kept away for a while";

/// What is left for whom. It outlives connections, and the network when that is built anew.
pub(super) struct Rations {
    pub(super) requests: Tiers,
    pub(super) records: Tiers,
    pub(super) gossip: Tiers,
    pub(super) messages: Tiers,
    pub(super) lanes: Tiers,
    pub(super) asked: Table<PeerId>,
    shown: Table<PeerId>,
    /// What may be passed on of others.
    pub(super) relayed: Bucket,
    pub(super) relayed_messages: Bucket,
    strikes: Table<PeerId>,
    kept_away: HashMap<PeerId, Instant>,
}

impl Rations {
    pub(super) fn new(now: Instant) -> Self {
        let tiers = |rate: Rate, host| Tiers::new([rate, rate.times(host), rate.times(ALL)], now);
        let many = |rate: Rate| Tiers::new([rate, rate.times(HOST_OF_MANY), rate.times(ALL_OF_MANY)], now);
        Self {
            requests: many(REQUESTS),
            records: tiers(RECORDS, HOST_OF_RECORDS),
            gossip: tiers(GOSSIP, HOST_OF_RECORDS),
            messages: tiers(MESSAGES, HOST),
            lanes: many(LANES),
            asked: Table::new(ASKED, Tiers::MAX_PEERS, now),
            shown: Table::new(SHOWN, Tiers::MAX_PEERS, now),
            relayed: Bucket::new(RELAYED, now),
            relayed_messages: Bucket::new(RELAYED_MESSAGES, now),
            strikes: Table::new(STRIKES, Tiers::MAX_PEERS, now),
            kept_away: HashMap::new(),
        }
    }

    pub(super) fn keeps_away(&self, peer_id: &PeerId, now: Instant) -> bool {
        self.kept_away.get(peer_id).is_some_and(|since| now.saturating_duration_since(*since) < KEPT_AWAY)
    }

    /// Counts a misdeed. True if it is one too many: from now on the peer is kept away.
    fn strike(&mut self, peer_id: PeerId, strikes: f64, now: Instant) -> bool {
        if self.strikes.of(peer_id, now).take(strikes, now) {
            return false;
        }
        if self.kept_away.len() >= MAX_KEPT_AWAY
            && let Some(longest) = self.kept_away.iter().min_by_key(|(_, since)| **since).map(|(peer_id, _)| *peer_id)
        {
            self.kept_away.remove(&longest);
        }
        self.kept_away.insert(peer_id, now);
        true
    }
}

impl Driver {
    /// Whom what a peer sends is counted for.
    pub(super) fn who(&self, peer_id: PeerId) -> Who {
        Who { peer_id, origin: self.peers.get(&peer_id).and_then(|peer| peer.origin) }
    }

    /// Whether a peer has gone too far, and is not spoken with for a while.
    pub(super) fn keeps_away(&self, peer_id: &PeerId) -> bool {
        self.rations.keeps_away(peer_id, Instant::now())
    }

    /// Whether gossip of a neighbour is looked at; it is counted if not.
    pub(super) fn admits_gossip(&mut self, peer_id: PeerId, now: Instant) -> bool {
        let who = self.who(peer_id);
        let taken = self.rations.gossip.take_sent(who, now);
        self.hold_up(&peer_id, taken);
        self.admits(peer_id, taken, now, |counters| &counters.refused_records)
    }

    /// Whether a message that a neighbour passes on is looked at; it is counted if not.
    pub(super) fn admits_message(&mut self, peer_id: PeerId, now: Instant) -> bool {
        let who = self.who(peer_id);
        let taken = self.rations.messages.take_sent(who, now);
        self.hold_up(&peer_id, taken);
        self.admits(peer_id, taken, now, |counters| &counters.refused_messages)
    }

    /// What comes beyond a ration of gossip waits at the other end: to read it costs more than to refuse it.
    fn hold_up(&mut self, peer_id: &PeerId, taken: Taken) {
        if taken.count == 0 {
            self.swarm.behaviour_mut().gossip.pause(peer_id);
        }
    }

    /// Whether a lane that a peer has opened is taken; it is counted if not.
    pub(super) fn admits_lane(&mut self, peer_id: PeerId, now: Instant) -> bool {
        let who = self.who(peer_id);
        let taken = self.rations.lanes.take(who, 1, now);
        self.admits(peer_id, taken, now, |counters| &counters.refused_lanes)
    }

    /// Whether what a peer shows of itself is looked at.
    pub(super) fn admits_shown(&mut self, peer_id: PeerId, now: Instant) -> bool {
        let admitted = self.rations.shown.of(peer_id, now).take(1.0, now);
        if !admitted {
            self.strike(peer_id, STRIKE, now);
        }
        admitted
    }

    fn admits(
        &mut self,
        peer_id: PeerId,
        taken: Taken,
        now: Instant,
        counter: impl Fn(&Counters) -> &AtomicU64,
    ) -> bool {
        if taken.count > 0 {
            return !self.rations.keeps_away(&peer_id, now);
        }
        Counters::add(counter(&self.core.counters));
        if taken.by_itself {
            self.strike(peer_id, STRIKE, now);
        }
        false
    }

    /// A question of a peer, or a packet of its gossip, was not looked at.
    pub(super) fn on_excess(&mut self, excess: Excess) {
        let Excess { peer_id, by_itself } = excess;
        Counters::add(&self.core.counters.refused_control);
        if by_itself {
            self.strike(peer_id, STRIKE, Instant::now());
        }
    }

    /// How many of `count` records of a neighbour are looked at; the others are counted.
    pub(super) fn admit_records(&mut self, peer_id: PeerId, count: usize, now: Instant) -> usize {
        let who = self.who(peer_id);
        let admitted =
            if self.rations.keeps_away(&peer_id, now) { 0 } else { self.rations.records.take(who, count, now).count };
        Counters::add_many(&self.core.counters.refused_records, count - admitted);
        admitted
    }

    /// A record in an exchange that is none, or not signed by whom it is said to be of.
    pub(super) fn on_bad_record(&mut self, peer_id: PeerId, now: Instant) {
        Counters::add(&self.core.counters.bad_records);
        let who = self.who(peer_id);
        self.rations.records.charge(who, BAD - 1.0, now);
        self.strike(peer_id, STRIKES_OF_RECORD, now);
    }

    /// A peer has done what no honest one does. One that goes on is kept away for a while: it would have us check
    /// signatures all day. To ignore single messages of it instead would let it suppress good ones, since gossip takes
    /// the copies of others for duplicates.
    pub(super) fn strike(&mut self, peer_id: PeerId, strikes: f64, now: Instant) {
        if !self.rations.keeps_away(&peer_id, now) && self.rations.strike(peer_id, strikes, now) {
            tracing::warn!(%peer_id, "a peer sends what no node should, and is kept away for a while");
            Counters::add(&self.core.counters.kept_away);
            self.turn_away(peer_id);
        }
    }

    /// A peer has gone too far at once.
    pub(super) fn keep_away(&mut self, peer_id: PeerId) {
        self.strike(peer_id, f64::INFINITY, Instant::now());
    }

    /// Closes the connections to a peer that is kept away, and does not look for it.
    pub(super) fn turn_away(&mut self, peer_id: PeerId) {
        if let Some(peer) = self.peers.get_mut(&peer_id) {
            peer.released = true;
        }
        self.fail_lane(&peer_id, MISBEHAVED);
        let _ = self.swarm.disconnect_peer_id(peer_id);
    }

    /// Why no lane to a peer can be had, if it is kept away.
    pub(super) fn misbehaved(&self, peer_id: &PeerId) -> Option<OpenFailure> {
        self.keeps_away(peer_id).then(|| OpenFailure::Unreachable(MISBEHAVED.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use multinodes_behaviour::ration::Origin;

    use super::*;

    fn of_host(host: u8) -> Who {
        Who { peer_id: PeerId::random(), origin: Some(Origin::V4([10, 0, 0, host].into())) }
    }

    #[test]
    fn a_neighbour_that_asks_too_often_is_refused_for_a_while_also_when_it_comes_back() {
        let start = Instant::now();
        let (mut rations, who) = (Rations::new(start), of_host(1));
        let mut asked = |now| (0..100).filter(|_| rations.requests.take(who, 1, now).count == 1).count();
        assert_eq!([asked(start), asked(start)], [40, 0]);
        assert_eq!(asked(start + Duration::from_secs(1)), 4);
        assert_eq!(asked(start + Duration::from_secs(60)), 40);
    }

    #[test]
    fn ever_new_peers_of_one_host_have_no_more_than_so_many_and_leave_the_rest_to_other_hosts() {
        let start = Instant::now();
        let mut rations = Rations::new(start);
        let mut tell = |host| rations.records.take(of_host(host), 16_384, start).count;
        assert_eq!((0..100).map(|_| tell(1)).sum::<usize>(), 2 * 16_384);
        assert_eq!(tell(2), 16_384);
        let others = (3..100).map(&mut tell).sum::<usize>();
        assert_eq!(others, 5 * 16_384, "and all together no more than so many");
    }

    #[test]
    fn fifty_nodes_of_one_host_level_with_a_neighbour_at_once() {
        let start = Instant::now();
        let mut rations = Rations::new(start);
        for _ in 0..50 {
            let who = of_host(1);
            // An offer, the same with versions, a push, and once more.
            let asked = (0..6).filter(|_| rations.requests.take(who, 1, start).count == 1).count();
            assert_eq!((asked, rations.records.take(who, 100, start).count), (6, 100));
            assert_eq!(rations.lanes.take(who, 4, start).count, 4);
        }
    }

    #[test]
    fn a_bad_record_costs_as_much_as_many_good_ones_and_a_few_are_too_many() {
        let start = Instant::now();
        let (mut rations, who) = (Rations::new(start), of_host(1));
        rations.records.charge(who, BAD, start);
        assert_eq!(rations.records.take(who, 20_000, start).count, 16_384 - 64);
        let struck = (0..100).position(|_| rations.strike(who.peer_id, STRIKES_OF_RECORD, start));
        assert_eq!(struck, Some(4));
        assert!(rations.keeps_away(&who.peer_id, start));
        assert!(!rations.keeps_away(&who.peer_id, start + KEPT_AWAY));
    }

    #[test]
    fn who_is_kept_away_is_remembered_within_a_bound() {
        let start = Instant::now();
        let mut rations = Rations::new(start);
        for step in 0..2 * MAX_KEPT_AWAY as u64 {
            let now = start + Duration::from_millis(step);
            assert!(rations.strike(PeerId::random(), 2.0 * STRIKES.burst, now));
        }
        assert_eq!(rations.kept_away.len(), MAX_KEPT_AWAY);
    }

    #[test]
    fn who_only_passes_on_never_sends_more_than_is_taken_of_it() {
        let start = Instant::now();
        let (mut rations, who) = (Rations::new(start), of_host(1));
        for second in 0..600 {
            let now = start + Duration::from_secs(second);
            let passed_on = rations.relayed.take_some(10_000, now);
            assert_eq!(rations.gossip.take(who, passed_on, now).count, passed_on);
            let passed_on = rations.relayed_messages.take_some(10_000, now);
            assert_eq!(rations.messages.take(who, passed_on, now).count, passed_on);
        }
    }
}
