//! Who holds a place, and who has to give it up.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use super::State;
use crate::ration::{self, Bucket, Origin, Rate};

/// Handshakes of incoming connections under way: each costs CPU before anything is known of the peer. A swarm of 100 that
/// starts at once needs some; those that are refused try again.
pub const PLACES: usize = 64;

/// Connections that peers of one host may begin. One that says nothing costs some ten microseconds, so this many are
/// nothing; and while they come no faster, one that speaks within milliseconds does so before it has to give way.
const CONNECTS: Rate = Rate { burst: 2_048.0, per_second: 512.0 };

/// Handshakes of those that have spoken, of one host. Each costs about a millisecond in all. A host with hundreds of nodes
/// that start at once is served, and so are scripts that run one command after another.
const ORIGIN: Rate = Rate { burst: 256.0, per_second: 64.0 };

/// The same for all hosts together.
const ALL: Rate = Rate { burst: 2_048.0, per_second: 256.0 };

/// Hosts that are remembered for it.
const MAX_ORIGINS: usize = 4_096;

/// A handshake that goes on takes milliseconds, across the world less than this. Before it is over none of the same host
/// takes its place, or a crowd that comes at once would have each other's handshakes begin without end.
const GRACE: Duration = Duration::from_secs(1);

/// The handshakes under way, oldest first.
pub(super) struct Table {
    entries: Vec<Entry>,
    connects: ration::Table<Origin>,
    origins: ration::Table<Origin>,
    all: Bucket,
}

struct Entry {
    origin: Option<Origin>,
    since: Instant,
    /// The other side has said something.
    speaks: bool,
    state: Arc<State>,
}

impl Table {
    pub(super) fn new(now: Instant) -> Self {
        let by_origin = |rate| ration::Table::new(rate, MAX_ORIGINS, now);
        let (connects, origins) = (by_origin(CONNECTS), by_origin(ORIGIN));
        Self { entries: Vec::new(), connects, origins, all: Bucket::new(ALL, now) }
    }

    /// A place for a handshake from there, perhaps another one's.
    pub(super) fn enter(&mut self, origin: Option<Origin>, now: Instant) -> Option<Arc<State>> {
        if !origin.is_none_or(|origin| self.connects.of(origin, now).take(1.0, now)) {
            return None;
        }
        if self.entries.len() >= PLACES {
            let given_up = self.entries.remove(self.victim(origin, now)?);
            given_up.state.take_away();
        }
        let state = Arc::<State>::default();
        self.entries.push(Entry { origin, since: now, speaks: false, state: state.clone() });
        Some(state)
    }

    /// The other side has spoken: from now on its handshake costs something. False if there are too many of them, or its
    /// place went to another one before; then it is lost.
    pub(super) fn speak(&mut self, state: &Arc<State>, now: Instant) -> bool {
        let Some(entry) = self.entries.iter_mut().find(|entry| Arc::ptr_eq(&entry.state, state)) else { return false };
        if std::mem::replace(&mut entry.speaks, true) {
            return true;
        }
        let origin = entry.origin;
        let may = origin.is_none_or(|origin| self.origins.of(origin, now).take(1.0, now)) && self.all.take(1.0, now);
        if !may {
            state.take_away();
        }
        may
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
        let silent = of_most().find(|(_, entry)| !entry.speaks);
        let late = |entry: &Entry| now.saturating_duration_since(entry.since) >= GRACE;
        silent.or_else(|| of_most().find(|(_, entry)| fairer || late(entry))).map(|(index, _)| index)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;

    use super::*;

    fn host(number: u8) -> Option<Origin> {
        Some(Origin::V4([10, 0, 0, number].into()))
    }

    fn is_lost(state: &Arc<State>) -> bool {
        state.lost.load(Relaxed)
    }

    fn full(origin: Option<Origin>, now: Instant) -> (Table, Vec<Arc<State>>) {
        let mut table = Table::new(now);
        let held = (0..PLACES).map(|_| table.enter(origin, now).unwrap()).collect();
        (table, held)
    }

    impl Table {
        fn all_speak(&mut self, held: &[Arc<State>], now: Instant) {
            held.iter().for_each(|state| assert!(self.speak(state, now)));
        }

        /// How many of so many that come and speak at once begin a handshake.
        fn begin(&mut self, count: usize, origin: Option<Origin>, now: Instant) -> usize {
            let mut begin = || {
                let state = self.enter(origin, now)?;
                let begun = self.speak(&state, now);
                self.leave(&state);
                begun.then_some(())
            };
            (0..count).filter_map(|_| begin()).count()
        }
    }

    #[test]
    fn those_who_say_nothing_give_way_to_others_of_the_same_host_and_of_another() {
        let now = Instant::now();
        let (mut table, held) = full(host(1), now);
        table.all_speak(&held[1..], now);
        let same = table.enter(host(1), now).unwrap();
        assert!(is_lost(&held[0]) && !held[1..].iter().any(is_lost));
        assert!(!table.speak(&held[0], now), "it comes too late");
        assert!(table.speak(&same, now));
        assert!(table.enter(host(1), now).is_none(), "those who speak are left their time");
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
        table.all_speak(&held, now);
        let mut entered = Vec::new();
        for _ in 0..PLACES {
            let state = table.enter(host(2), now);
            table.all_speak(state.as_slice(), now);
            entered.extend(state);
        }
        assert_eq!(entered.len(), PLACES / 2);
        assert_eq!(held.iter().filter(|state| is_lost(state)).count(), PLACES / 2);
    }

    #[test]
    fn a_place_that_is_left_is_free() {
        let now = Instant::now();
        let (mut table, held) = full(host(1), now);
        table.all_speak(&held, now);
        assert!(table.enter(host(1), now).is_none());
        table.leave(&held[7]);
        assert!(table.enter(host(1), now).is_some());
        assert!(!held.iter().any(is_lost));
    }

    #[test]
    fn one_host_begins_so_many_handshakes_and_keeps_no_other_from_it() {
        let now = Instant::now();
        let mut table = Table::new(now);
        assert_eq!(table.begin(1_000, host(1), now), ORIGIN.burst as usize);
        assert_eq!(table.begin(1, host(2), now), 1);
        let later = now + Duration::from_secs(1);
        assert_eq!(table.begin(1_000, host(1), later), ORIGIN.per_second as usize);
        // Nodes of one process have no address, and only what holds for all.
        let later = now + Duration::from_secs(60);
        assert_eq!(table.begin(10_000, None, later), ALL.burst as usize);
    }

    #[test]
    fn silent_connections_spend_nothing_of_what_handshakes_have() {
        let now = Instant::now();
        let mut table = Table::new(now);
        let silent = |table: &mut Table, host| (0..3_000).filter(|_| table.enter(host, now).is_some()).count();
        assert_eq!(silent(&mut table, host(1)), CONNECTS.burst as usize, "more than that of one host are refused");
        for number in 2..10 {
            assert_eq!(silent(&mut table, host(number)), CONNECTS.burst as usize, "all together have no limit");
        }
        assert_eq!(table.begin(1, host(10), now), 1);
        let later = now + Duration::from_secs(1);
        assert_eq!(table.begin(1_000, host(1), later), ORIGIN.burst as usize);
    }
}
