//! Who holds a place, and who has to give it up.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use super::State;
use crate::ration::{self, Bucket, Origin, Rate};

/// Handshakes of incoming connections under way: each costs CPU before anything is known of the peer. A swarm of 100 that
/// starts at once needs some; those that are refused try again.
pub const PLACES: usize = 64;

/// Handshakes that peers of one host may begin. Each costs about a millisecond in all. A host with hundreds of nodes that
/// start at once is served, and so are scripts that run one command after another.
const ORIGIN: Rate = Rate { burst: 512.0, per_second: 128.0 };

/// The same for all hosts together.
const ALL: Rate = Rate { burst: 2_048.0, per_second: 512.0 };

/// Hosts that are remembered for it.
const MAX_ORIGINS: usize = 4_096;

/// A handshake that goes on takes milliseconds, across the world less than this. Before it is over none of the same host
/// takes its place, or a crowd that comes at once would have each other's handshakes begin without end.
const GRACE: Duration = Duration::from_secs(1);

/// The handshakes under way, oldest first.
pub(super) struct Table {
    entries: Vec<Entry>,
    origins: ration::Table<Origin>,
    all: Bucket,
}

struct Entry {
    origin: Option<Origin>,
    since: Instant,
    state: Arc<State>,
}

impl Table {
    pub(super) fn new(now: Instant) -> Self {
        Self { entries: Vec::new(), origins: ration::Table::new(ORIGIN, MAX_ORIGINS, now), all: Bucket::new(ALL, now) }
    }

    /// A place for a handshake from there, perhaps another one's.
    pub(super) fn enter(&mut self, origin: Option<Origin>, now: Instant) -> Option<Arc<State>> {
        let may = origin.is_none_or(|origin| self.origins.of(origin, now).take(1.0, now)) && self.all.take(1.0, now);
        if !may {
            return None;
        }
        if self.entries.len() >= PLACES {
            let given_up = self.entries.remove(self.victim(origin, now)?);
            given_up.state.take_away();
        }
        let state = Arc::<State>::default();
        self.entries.push(Entry { origin, since: now, state: state.clone() });
        Some(state)
    }

    pub(super) fn leave(&mut self, state: &Arc<State>) {
        self.entries.retain(|entry| !Arc::ptr_eq(&entry.state, state));
    }

    /// Who has to give up its place for one of `newcomer`. Among those of the hosts that hold most it is the first that has
    /// said nothing; else the first if that makes the places fairer, or if it has had its time.
    fn victim(&self, newcomer: Option<Origin>, now: Instant) -> Option<usize> {
        let mut held: HashMap<Option<Origin>, usize> = HashMap::new();
        for entry in &self.entries {
            *held.entry(entry.origin).or_default() += 1;
        }
        let most = held.values().copied().max()?;
        let fairer = most > held.get(&newcomer).map_or(0, |held| *held) + 1;
        let of_most = || self.entries.iter().enumerate().filter(|(_, entry)| held[&entry.origin] == most);
        let silent = of_most().find(|(_, entry)| !entry.state.talks.load(Relaxed));
        let late = |entry: &Entry| now.saturating_duration_since(entry.since) >= GRACE;
        silent.or_else(|| of_most().find(|(_, entry)| fairer || late(entry))).map(|(index, _)| index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(number: u8) -> Option<Origin> {
        Some(Origin::V4([10, 0, 0, number].into()))
    }

    fn talk(state: &Arc<State>) {
        state.talks.store(true, Relaxed);
    }

    fn is_lost(state: &Arc<State>) -> bool {
        state.lost.load(Relaxed)
    }

    fn full(origin: Option<Origin>, now: Instant) -> (Table, Vec<Arc<State>>) {
        let mut table = Table::new(now);
        let held = (0..PLACES).map(|_| table.enter(origin, now).unwrap()).collect();
        (table, held)
    }

    #[test]
    fn those_who_say_nothing_give_way_to_others_of_the_same_host_and_of_another() {
        let now = Instant::now();
        let (mut table, held) = full(host(1), now);
        held[1..].iter().for_each(talk);
        let same = table.enter(host(1), now).unwrap();
        assert!(is_lost(&held[0]) && !held[1..].iter().any(is_lost));
        talk(&same);
        assert!(table.enter(host(1), now).is_none(), "those who talk are left their time");
        let other = table.enter(host(2), now).unwrap();
        assert!(is_lost(&held[1]) && !is_lost(&same) && !is_lost(&other), "the host that holds most gives way");
        assert!(table.enter(host(1), now + GRACE).is_some());
        assert!(is_lost(&held[2]) && !is_lost(&other));
        assert_eq!(table.entries.len(), PLACES);
    }

    #[test]
    fn hosts_end_up_with_as_many_places_each() {
        let now = Instant::now();
        let (mut table, held) = full(host(1), now);
        held.iter().for_each(talk);
        let entered = (0..PLACES).filter_map(|_| table.enter(host(2), now)).inspect(talk).count();
        assert_eq!(entered, PLACES / 2);
        assert_eq!(held.iter().filter(|state| is_lost(state)).count(), PLACES / 2);
    }

    #[test]
    fn a_place_that_is_left_is_free() {
        let now = Instant::now();
        let (mut table, held) = full(host(1), now);
        held.iter().for_each(talk);
        assert!(table.enter(host(1), now).is_none());
        table.leave(&held[7]);
        assert!(table.enter(host(1), now).is_some());
        assert!(!held.iter().any(is_lost));
    }

    #[test]
    fn one_host_begins_so_many_handshakes_and_keeps_no_other_from_it() {
        let now = Instant::now();
        let mut table = Table::new(now);
        let begun = (0..10_000).filter(|_| table.enter(host(1), now).is_some()).count();
        assert_eq!(begun, ORIGIN.burst as usize);
        assert!(table.enter(host(2), now).is_some());
        assert!(table.enter(host(1), now + Duration::from_secs(1)).is_some());
        // Nodes of one process have no address, and only what holds for all.
        let begun = (0..10_000).filter(|_| table.enter(None, now + Duration::from_secs(60)).is_some()).count();
        assert_eq!(begun, ALL.burst as usize);
    }
}
