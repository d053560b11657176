//! How far away peers are: smoothed round-trip times of the pings on their connections.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use libp2p::PeerId;
use multinodes_behaviour::quick_hash::QuickHash;

/// How much of the smoothed time one measurement is: as in TCP, RFC 6298.
const WEIGHT: u64 = 8;

/// The smoothed times of the peers that are connected, in nanoseconds: not more than there are connections.
#[derive(Default)]
pub(crate) struct RoundTrips {
    table: ArcSwap<HashMap<PeerId, Arc<AtomicU64>, QuickHash>>,
    changing: Mutex<()>,
}

impl RoundTrips {
    pub(crate) fn of(&self, peer_id: &PeerId) -> Option<Duration> {
        self.table.load().get(peer_id).map(|time| Duration::from_nanos(time.load(Relaxed)))
    }

    pub(crate) fn measured(&self, peer_id: PeerId, time: Duration) {
        let time = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX / 2).max(1);
        if let Some(smoothed) = self.table.load().get(&peer_id) {
            // Only the driver measures.
            let before = smoothed.load(Relaxed);
            smoothed.store(before - before / WEIGHT + time / WEIGHT, Relaxed);
            return;
        }
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut table = HashMap::clone(&self.table.load());
        table.insert(peer_id, Arc::new(AtomicU64::new(time)));
        self.table.store(Arc::new(table));
    }

    pub(crate) fn forget(&self, peer_id: &PeerId) {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        if self.table.load().contains_key(peer_id) {
            let mut table = HashMap::clone(&self.table.load());
            table.remove(peer_id);
            self.table.store(Arc::new(table));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_slow_ping_does_not_make_a_peer_far() {
        let (round_trips, peer_id) = (RoundTrips::default(), PeerId::random());
        assert_eq!(round_trips.of(&peer_id), None);
        let millis = Duration::from_millis;
        round_trips.measured(peer_id, millis(8));
        assert_eq!(round_trips.of(&peer_id), Some(millis(8)));
        round_trips.measured(peer_id, millis(88));
        assert_eq!(round_trips.of(&peer_id), Some(millis(18)));
        for _ in 0..100 {
            round_trips.measured(peer_id, millis(80));
        }
        assert!(round_trips.of(&peer_id).is_some_and(|time| time > millis(79) && time <= millis(80)));
        round_trips.forget(&peer_id);
        assert_eq!(round_trips.of(&peer_id), None);
    }
}
