//! Rations of many, which outlive their connections and do not grow without a bound.

use std::{
    collections::HashMap,
    hash::Hash,
    time::{Duration, Instant},
};

use libp2p::PeerId;

use super::{Bucket, Origin, Rate};

/// A table that is full is looked through for what can be forgotten not more often than this.
const SWEEP: Duration = Duration::from_secs(1);

/// What is left of one rate for each of many. One that has recovered is forgotten; when there is no room for another one
/// all that are too many share a single ration, so that coming in ever new guises gains nothing.
#[derive(Debug)]
pub struct Table<K> {
    rate: Rate,
    most: usize,
    buckets: HashMap<K, Bucket>,
    others: Bucket,
    swept: Option<Instant>,
}

impl<K: Eq + Hash> Table<K> {
    /// For at most `most` of them.
    #[must_use]
    pub fn new(rate: Rate, most: usize, now: Instant) -> Self {
        Self { rate, most, buckets: HashMap::new(), others: Bucket::new(rate, now), swept: None }
    }

    /// What is left for one of them.
    pub fn of(&mut self, key: K, now: Instant) -> &mut Bucket {
        if self.buckets.len() >= self.most && !self.buckets.contains_key(&key) {
            self.sweep(now);
            if self.buckets.len() >= self.most {
                return &mut self.others;
            }
        }
        self.buckets.entry(key).or_insert_with(|| Bucket::new(self.rate, now))
    }

    /// How many are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.buckets.len()
    }

    /// Whether nobody is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.buckets.is_empty()
    }

    fn sweep(&mut self, now: Instant) {
        if self.swept.is_none_or(|swept| now.saturating_duration_since(swept) >= SWEEP) {
            self.swept = Some(now);
            self.buckets.retain(|_, bucket| !bucket.is_full(now));
        }
    }
}

/// Whom something is counted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Who {
    /// The peer.
    pub peer_id: PeerId,
    /// The host that it comes from; counted for it, too, if known.
    pub origin: Option<Origin>,
}

/// How many were let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    /// So many.
    pub count: usize,
    /// The peer alone has used up its ration: it is not others at the same host, or all together, that are too many.
    pub by_itself: bool,
}

/// One kind of thing that is rationed by peer, by host and for all.
#[derive(Debug)]
pub struct Tiers {
    peers: Table<PeerId>,
    origins: Table<Origin>,
    all: Bucket,
}

impl Tiers {
    /// Peers that are remembered: more than can come from one host until the first of them have recovered.
    pub const MAX_PEERS: usize = 8_192;

    /// Hosts that are remembered.
    pub const MAX_ORIGINS: usize = 1_024;

    /// Rates for one peer, all peers of one host, and all together.
    #[must_use]
    pub fn new([peer, origin, all]: [Rate; 3], now: Instant) -> Self {
        Self {
            peers: Table::new(peer, Self::MAX_PEERS, now),
            origins: Table::new(origin, Self::MAX_ORIGINS, now),
            all: Bucket::new(all, now),
        }
    }

    /// Takes as many of `count` as everybody concerned lets through.
    pub fn take(&mut self, who: Who, count: usize, now: Instant) -> Taken {
        let Self { peers, origins, all } = self;
        let peer = peers.of(who.peer_id, now);
        let of_peer = peer.whole(now);
        let mut origin = who.origin.map(|origin| origins.of(origin, now));
        let of_origin = origin.as_mut().map_or(usize::MAX, |origin| origin.whole(now));
        let taken = count.min(of_peer).min(of_origin).min(all.whole(now));
        peer.take_some(taken, now);
        if let Some(origin) = origin {
            origin.take_some(taken, now);
        }
        all.take_some(taken, now);
        Taken { count: taken, by_itself: of_peer < count && of_peer <= of_origin }
    }

    /// Takes one that a peer has sent unasked. What it sends is counted for the peer whether others of its host leave room for
    /// it or not: whoever sends on beyond its own ration is to blame for that.
    pub fn take_sent(&mut self, who: Who, now: Instant) -> Taken {
        if !self.peers.of(who.peer_id, now).take(1.0, now) {
            return Taken { count: 0, by_itself: true };
        }
        let of_origin = who.origin.is_none_or(|origin| self.origins.of(origin, now).take(1.0, now));
        Taken { count: usize::from(of_origin && self.all.take(1.0, now)), by_itself: false }
    }

    /// Takes `amount` from a peer and its host, whether it is there or not.
    pub fn charge(&mut self, who: Who, amount: f64, now: Instant) {
        self.peers.of(who.peer_id, now).charge(amount, now);
        if let Some(origin) = who.origin {
            self.origins.of(origin, now).charge(amount, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate { burst: 10.0, per_second: 1.0 };

    #[test]
    fn who_sends_on_is_to_blame_though_others_have_left_nothing_and_who_keeps_to_its_ration_is_not() {
        let now = Instant::now();
        let mut tiers = Tiers::new([RATE, RATE.times(2.0), RATE.times(8.0)], now);
        let origin = Origin::of(&"/ip4/10.0.0.1/tcp/1".parse().unwrap());
        let mut sends = |times: usize| {
            let who = Who { peer_id: PeerId::random(), origin };
            let taken: Vec<_> = (0..times).map(|_| tiers.take_sent(who, now)).collect();
            (taken.iter().filter(|taken| taken.count > 0).count(), taken.iter().filter(|taken| taken.by_itself).count())
        };
        assert_eq!(sends(15), (10, 5));
        assert_eq!(sends(15), (10, 5));
        assert_eq!(sends(10), (0, 0), "the host's ration is used up by the others");
        assert_eq!(sends(15), (0, 5));
    }

    #[test]
    fn ever_new_guises_share_one_ration_and_memory_has_a_bound() {
        let start = Instant::now();
        let mut table = Table::new(RATE, 100, start);
        let known = (0..100).filter(|key| table.of(*key, start).take(10.0, start)).count();
        let others: usize = (100..10_000).map(|key| table.of(key, start).take_some(10, start)).sum();
        assert_eq!((known, others, table.len()), (100, 10, 100));
        let later = start + Duration::from_secs(60);
        assert_eq!(table.of(10_000, later).take_some(10, later), 10);
        assert_eq!(table.len(), 1, "those that have recovered are forgotten");
    }

    #[test]
    fn what_one_peer_may_another_one_of_the_same_host_may_too_up_to_a_limit() {
        let start = Instant::now();
        let mut tiers = Tiers::new([RATE, RATE.times(5.0), RATE.times(8.0)], start);
        let mut take = |host: u8| {
            let origin = Some(Origin::V4([10, 0, 0, host].into()));
            tiers.take(Who { peer_id: PeerId::random(), origin }, 12, start)
        };
        let whole = Taken { count: 10, by_itself: true };
        assert_eq!([(); 5].map(|()| take(1)), [whole; 5]);
        assert_eq!(take(1), Taken { count: 0, by_itself: false }, "the host has had its share");
        assert_eq!([(); 3].map(|()| take(2)), [whole; 3]);
        assert_eq!(take(3).count, 0, "all have had theirs");
    }

    #[test]
    fn a_peer_that_comes_back_has_what_it_had_left() {
        let start = Instant::now();
        let mut tiers = Tiers::new([RATE, RATE.times(5.0), RATE.times(8.0)], start);
        let who = Who { peer_id: PeerId::random(), origin: None };
        assert_eq!(tiers.take(who, 100, start).count, 10);
        assert_eq!(tiers.take(who, 100, start + Duration::from_secs(2)).count, 2);
        tiers.charge(who, 100.0, start + Duration::from_secs(2));
        assert_eq!(tiers.take(who, 100, start + Duration::from_secs(12)).count, 0);
    }
}
