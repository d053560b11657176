//! The choices themselves: which one of a list of hosts, by each strategy. Without a clock, and without knowing the node.

use std::{iter, sync::Arc};

use rand::Rng;

use crate::description::Host;

/// How much a host has to do, as far as is known here.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Work {
    /// What this node has sent to it and what is not answered yet.
    pub(crate) in_flight: usize,
    /// What ran there when it last gave a sign of life. This node's own is among it, but a host must not look free
    /// because its sign of life is old.
    pub(crate) load: u32,
    pub(crate) slots: Option<u32>,
}

impl Work {
    /// Whether it is known that another call would have to wait.
    pub(crate) fn is_full(&self) -> bool {
        self.slots.is_some_and(|slots| self.in_flight >= slots as usize || self.load >= slots)
    }

    fn amount(&self) -> u64 {
        self.in_flight as u64 + u64::from(self.load)
    }

    /// Whether it has less to do than another, for its size if both say theirs.
    fn is_less_than(&self, other: &Self) -> bool {
        match (self.slots, other.slots) {
            (Some(own), Some(others)) => self.amount() * u64::from(others) < other.amount() * u64::from(own),
            _ => self.amount() < other.amount(),
        }
    }
}

/// One of those that fit, each with the same chance.
pub(crate) fn random(hosts: &[Arc<Host>], fits: impl Fn(&Host) -> bool) -> Option<&Arc<Host>> {
    at_random(hosts).find(|host| fits(host))
}

/// The one with less to do out of two that fit and are not full, drawn at random. Full ones only if all are.
pub(crate) fn least_loaded(
    hosts: &[Arc<Host>],
    fits: impl Fn(&Host) -> bool,
    work: impl Fn(&Host) -> Work,
) -> Option<&Arc<Host>> {
    if let [only] = hosts {
        return Some(only).filter(|host| fits(host));
    }
    let mut free: Option<(&Arc<Host>, Work)> = None;
    let mut full: Option<(&Arc<Host>, Work)> = None;
    for host in at_random(hosts).filter(|host| fits(host)) {
        let work = work(host);
        if work.is_full() {
            if full.is_none_or(|(_, least)| work.is_less_than(&least)) {
                full = Some((host, work));
            }
            continue;
        }
        match free {
            // It was drawn twice.
            Some((one, _)) if Arc::ptr_eq(one, host) => {}
            Some((one, its)) => return Some(if work.is_less_than(&its) { host } else { one }),
            None => free = Some((host, work)),
        }
    }
    free.or(full).map(|(host, _)| host)
}

/// The next one from `turn` on that fits.
pub(crate) fn next(hosts: &[Arc<Host>], turn: usize, fits: impl Fn(&Host) -> bool) -> Option<&Arc<Host>> {
    let from = turn.checked_rem(hosts.len())?;
    hosts[from..].iter().chain(&hosts[..from]).find(|host| fits(host))
}

/// All hosts in random order. The first few may come again: nothing needs to be shuffled for them. The first that fits
/// from a random place on would favour those behind a gap.
fn at_random(hosts: &[Arc<Host>]) -> impl Iterator<Item = &Arc<Host>> {
    const TRIES: usize = 8;
    let tries = if hosts.is_empty() { 0 } else { TRIES };
    let draw = || &hosts[rand::rng().random_range(0..hosts.len())];
    iter::repeat_with(draw).take(tries).chain(iter::once(()).flat_map(|()| shuffled(hosts)))
}

/// Shuffled only as far as need be: finding out whether one fits may cost microseconds.
fn shuffled(hosts: &[Arc<Host>]) -> impl Iterator<Item = &Arc<Host>> {
    let mut order: Vec<usize> = (0..hosts.len()).collect();
    (0..hosts.len()).map(move |next| {
        let drawn = rand::rng().random_range(next..order.len());
        order.swap(next, drawn);
        &hosts[order[next]]
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::description::tests::host;

    fn hosts(count: usize) -> Vec<Arc<Host>> {
        (0..count).map(|number| Arc::new(host(&format!("n{number}"), json!({"n": number})))).collect()
    }

    fn number(host: &Host) -> usize {
        host.description["n"].as_u64().unwrap() as usize
    }

    fn counts(mut pick: impl FnMut() -> String, rounds: usize) -> HashMap<String, usize> {
        let mut counts = HashMap::new();
        for _ in 0..rounds {
            *counts.entry(pick()).or_default() += 1;
        }
        counts
    }

    #[test]
    fn every_host_that_fits_is_picked_about_as_often() {
        let hosts = hosts(10);
        let fits = |host: &Host| number(host) > 6;
        let idle = |_: &Host| Work { in_flight: 0, load: 0, slots: None };
        for strategy in 0..2 {
            let pick = || match strategy {
                0 => random(&hosts, fits).unwrap().node.clone(),
                _ => least_loaded(&hosts, fits, idle).unwrap().node.clone(),
            };
            let counts = counts(pick, 3000);
            assert_eq!(counts.len(), 3, "{counts:?}");
            assert!(counts.values().all(|count| (800..1200).contains(count)), "{counts:?}");
        }
        assert!(random(&hosts, |_| false).is_none() && random(&[], |_| true).is_none());
        assert!(least_loaded(&hosts, |_| false, idle).is_none() && least_loaded(&[], |_| true, idle).is_none());
    }

    #[test]
    fn each_gets_its_turn() {
        let hosts = hosts(3);
        let names: Vec<_> = (5..9).map(|turn| number(next(&hosts, turn, |_| true).unwrap())).collect();
        assert_eq!(names, [2, 0, 1, 2]);
        assert_eq!(number(next(&hosts, 5, |host| number(host) == 1).unwrap()), 1);
        assert!(next(&hosts, 1, |_| false).is_none() && next(&[], 1, |_| true).is_none());
    }

    proptest! {
        #[test]
        fn no_host_that_is_known_to_be_full_is_picked_while_another_is_free(
            works in prop::collection::vec((0_usize..6, 0_u32..6, prop::option::of(1_u32..5), any::<bool>()), 1..60),
        ) {
            let hosts = hosts(works.len());
            let work = |host: &Host| {
                let (in_flight, load, slots, _) = works[number(host)];
                Work { in_flight, load, slots }
            };
            let fits = |host: &Host| works[number(host)].3;
            let picked = least_loaded(&hosts, fits, work);
            prop_assert_eq!(picked.is_some(), works.iter().any(|(.., fits)| *fits));
            if let Some(picked) = picked {
                prop_assert!(fits(picked));
                let is_free = |host: &&Arc<Host>| fits(host) && !work(host).is_full();
                prop_assert!(!work(picked).is_full() || !hosts.iter().any(|host| is_free(&host)));
            }
        }

        #[test]
        fn the_most_loaded_of_all_is_not_picked(count in 2_usize..40, most in any::<prop::sample::Index>()) {
            let hosts = hosts(count);
            let most = most.index(count);
            let work = |host: &Host| Work { in_flight: usize::from(number(host) == most), load: 0, slots: None };
            prop_assert_ne!(number(least_loaded(&hosts, |_| true, work).unwrap()), most);
        }
    }
}
