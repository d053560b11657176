//! A strategy at work: what it has to remember between two messages.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use arc_swap::{ArcSwapOption, Guard};
use rand::Rng;

use super::{choose, choose::Work};
use crate::{
    core::Core,
    description::Host,
    predicate::matching::Hosts,
    strategy::{Candidates, Strategy},
    topology::owner,
};

/// How long an order by distance is kept: pings come every 2 s.
const FRESH: Duration = Duration::from_millis(500);

/// One of so many messages to the nearest host goes to one that was never measured: else its distance would never be
/// known.
const EXPLORE: u32 = 32;

/// A strategy, with its place in the round and what it has found out about the last list of hosts.
pub(crate) struct Chooser {
    pub(crate) strategy: Strategy,
    turn: AtomicUsize,
    prepared: ArcSwapOption<Prepared>,
}

struct Prepared {
    from: Hosts,
    made: Instant,
    what: What,
}

enum What {
    /// The hash of each host, in the order of the list.
    Hashes(Vec<u64>),
    /// The nearest first; those behind the first so many were never measured.
    Order(Vec<usize>, usize),
}

impl Chooser {
    /// A round begins anywhere: else whoever makes a target for each message would begin with the same host each time.
    pub(crate) fn new(strategy: Strategy) -> Self {
        Self {
            strategy,
            turn: AtomicUsize::new(rand::rng().random_range(0..1 << 16)),
            prepared: ArcSwapOption::empty(),
        }
    }

    /// Whether this node's own application is taken whatever else there is.
    pub(crate) fn prefers_here(&self) -> bool {
        !matches!(self.strategy, Strategy::Sticky(_) | Strategy::Custom(_))
    }

    /// Whether hosts that this node was connected to come first where very many others are said to be there. Who owns a key is
    /// not a matter of whom this node knows, so a key goes to another one only after its owner has failed; and a user's own
    /// strategy sees all.
    pub(crate) fn prefers_verified(&self, again: bool) -> bool {
        match &self.strategy {
            Strategy::Custom(_) => false,
            Strategy::Sticky(_) => again,
            _ => true,
        }
    }

    /// One of the hosts that fit.
    pub(crate) fn choose<'a>(
        &self,
        core: &Core,
        hosts: &'a Hosts,
        fits: impl Fn(&Host) -> bool,
    ) -> Option<&'a Arc<Host>> {
        match &self.strategy {
            Strategy::Random => choose::random(hosts, fits),
            Strategy::RoundRobin => choose::next(hosts, self.turn.fetch_add(1, Relaxed), fits),
            Strategy::LeastLoaded => choose::least_loaded(hosts, fits, |host| work(core, host)),
            Strategy::Nearest => self.nearest(core, hosts, fits),
            Strategy::Sticky(key) => self.sticky(*key, hosts, fits),
            Strategy::Custom(choose) => {
                if !hosts.iter().any(|host| fits(host)) {
                    return None;
                }
                let chosen = choose(Candidates::new(core, hosts, &fits))?;
                Some(&hosts[chosen.index])
            }
        }
    }

    fn sticky<'a>(&self, key: u64, hosts: &'a Hosts, fits: impl Fn(&Host) -> bool) -> Option<&'a Arc<Host>> {
        let prepared = self.prepared(
            hosts,
            |_| true,
            || What::Hashes(hosts.iter().map(|host| owner::hash_of_host(&host.peer_id)).collect()),
        );
        let What::Hashes(hashes) = &prepared.as_ref()?.what else { return None };
        owner::owner_among(key, hashes.iter().copied(), |index| fits(&hosts[index])).map(|index| &hosts[index])
    }

    fn nearest<'a>(&self, core: &Core, hosts: &'a Hosts, fits: impl Fn(&Host) -> bool) -> Option<&'a Arc<Host>> {
        let prepared = self.prepared(hosts, |made| made.elapsed() < FRESH, || by_distance(core, hosts));
        let What::Order(order, measured) = &prepared.as_ref()?.what else { return None };
        let (near, unknown) = order.split_at(*measured);
        let mut random = rand::rng();
        if !unknown.is_empty() && random.random_ratio(1, EXPLORE) {
            let explored = &hosts[unknown[random.random_range(0..unknown.len())]];
            if fits(explored) {
                return Some(explored);
            }
        }
        let nearest = near.iter().map(|index| &hosts[*index]).find(|host| fits(host));
        nearest.or_else(|| choose::random(hosts, fits))
    }

    /// What was found out about this list, or is found out now.
    fn prepared(
        &self,
        hosts: &Hosts,
        is_fresh: impl Fn(Instant) -> bool,
        prepare: impl FnOnce() -> What,
    ) -> Guard<Option<Arc<Prepared>>> {
        let last = self.prepared.load();
        if last.as_ref().is_some_and(|last| Arc::ptr_eq(&last.from, hosts) && is_fresh(last.made)) {
            return last;
        }
        let prepared = Arc::new(Prepared { from: hosts.clone(), made: Instant::now(), what: prepare() });
        self.prepared.store(Some(prepared.clone()));
        Guard::from_inner(Some(prepared))
    }
}

fn by_distance(core: &Core, hosts: &Hosts) -> What {
    let mut order: Vec<_> = (0..hosts.len()).map(|index| (round_trip(core, &hosts[index]), index)).collect();
    let measured = order.iter().filter(|(time, _)| time.is_some()).count();
    order.sort_unstable_by_key(|(time, index)| (time.is_none(), *time, *index));
    What::Order(order.into_iter().map(|(_, index)| index).collect(), measured)
}

/// How far away a host is, if that is known.
pub(crate) fn round_trip(core: &Core, host: &Host) -> Option<Duration> {
    if host.local { Some(Duration::ZERO) } else { core.selection.round_trips.of(&host.peer_id) }
}

/// What a host has to do, as far as this node knows.
pub(crate) fn work(core: &Core, host: &Host) -> Work {
    let (in_flight, load) =
        if host.local { (0, core.load()) } else { (core.links.in_flight(&host.peer_id), host.load) };
    Work { in_flight, load, slots: host.slots }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::{builder::Builder, description::tests::host};

    fn core() -> Arc<Core> {
        let (settings, identity, _) = Builder::default().name("caller").listen("/memory/1").resolve().unwrap();
        Core::new(settings, identity.keypair.clone(), crate::permissions::Wishes::default()).0
    }

    fn hosts(count: usize) -> Hosts {
        (0..count).map(|number| Arc::new(host(&format!("n{number}"), Value::Null))).collect()
    }

    #[test]
    fn the_nearest_host_is_taken_and_the_next_one_while_it_cannot_be() {
        let (core, hosts) = (core(), hosts(50));
        let order: Vec<usize> = (0..50).map(|index| (index * 7 + 3) % 50).collect();
        for (place, index) in order.iter().enumerate() {
            let time = Duration::from_millis(1 + place as u64);
            core.selection.round_trips.measured(hosts[*index].peer_id, time);
        }
        let chooser = Chooser::new(Strategy::Nearest);
        let nearest = |fits: &dyn Fn(&Host) -> bool| chooser.choose(&core, &hosts, fits).unwrap().node.clone();
        for _ in 0..200 {
            assert_eq!(nearest(&|_| true), hosts[order[0]].node);
        }
        assert_eq!(nearest(&|host| host.node != hosts[order[0]].node), hosts[order[1]].node);
        assert_eq!(nearest(&|host| host.node == hosts[order[49]].node), hosts[order[49]].node);
        assert!(chooser.choose(&core, &hosts, |_| false).is_none());
    }

    #[test]
    fn the_distance_of_a_host_that_was_never_connected_is_found_out_now_and_then() {
        let (core, hosts) = (core(), hosts(10));
        core.selection.round_trips.measured(hosts[4].peer_id, Duration::from_secs(1));
        let chooser = Chooser::new(Strategy::Nearest);
        let taken = (0..2000).map(|_| chooser.choose(&core, &hosts, |_| true).unwrap());
        let explored = taken.filter(|host| host.node != "n4").count();
        assert!((20..200).contains(&explored), "{explored} of 2000");
    }

    #[test]
    fn a_users_own_strategy_sees_only_the_hosts_that_may_be_taken() {
        let (core, hosts) = (core(), hosts(5));
        let chooser = Chooser::new(Strategy::custom(|candidates| {
            assert_eq!(candidates.hosts().len(), 5);
            assert!(candidates.get(2).is_none() && candidates.get(5).is_none());
            assert_eq!(candidates.get(3).map(|candidate| &candidate.host.node[..]), Some("n3"));
            candidates.iter().last()
        }));
        let chosen = chooser.choose(&core, &hosts, |host| host.node != "n2" && host.node != "n4");
        assert_eq!(chosen.unwrap().node, "n3");
        // It is not asked when there is nobody.
        assert!(chooser.choose(&core, &hosts, |_| false).is_none());
    }
}
