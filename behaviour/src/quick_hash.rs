//! A hash for tables on the path of every call: several times faster than the standard one for short keys, and still
//! seeded, so that a peer cannot choose keys that collide.

use std::hash::{BuildHasher, Hasher, RandomState};

/// An odd number with well-spread bits: the golden ratio.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// Makes [`QuickHasher`]s with one random seed.
#[derive(Debug, Clone)]
pub struct QuickHash {
    seed: u64,
    factor: u64,
}

impl Default for QuickHash {
    fn default() -> Self {
        let random = RandomState::new();
        // Multiplying by a secret odd number spreads keys as well as a table needs.
        Self { seed: random.hash_one(0), factor: random.hash_one(1) | 1 }
    }
}

impl BuildHasher for QuickHash {
    type Hasher = QuickHasher;

    fn build_hasher(&self) -> QuickHasher {
        QuickHasher { state: self.seed, factor: self.factor }
    }
}

/// Hashes short keys: numbers and peer ids.
#[derive(Debug)]
pub struct QuickHasher {
    state: u64,
    factor: u64,
}

impl Hasher for QuickHasher {
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.write_u64(u64::from_le_bytes(*word));
        }
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        if !rest.is_empty() {
            self.write_u64(u64::from_le_bytes(last));
        }
    }

    fn write_u64(&mut self, word: u64) {
        self.state = fold(self.state ^ word, self.factor);
    }

    fn write_usize(&mut self, number: usize) {
        self.write_u64(number as u64);
    }

    fn write_u8(&mut self, number: u8) {
        self.write_u64(number.into());
    }

    fn finish(&self) -> u64 {
        fold(self.state, SPREAD)
    }
}

/// Multiplies, and folds the product: each bit of the outcome depends on many bits of both.
fn fold(one: u64, other: u64) -> u64 {
    let product = u128::from(one) * u128::from(other);
    (product as u64) ^ ((product >> 64) as u64)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use libp2p::PeerId;

    use super::*;

    #[test]
    fn numbers_and_peer_ids_spread_over_the_table() {
        let peer_ids: Vec<PeerId> = (0..4096).map(|_| PeerId::random()).collect();
        // A hash without any flaw fills 2,589 of 4,096 places on average.
        for _ in 0..100 {
            let hash = QuickHash::default();
            for shift in [0, 16, 32] {
                let places = |part: fn(u64) -> u64| {
                    (0..4096_u64).map(|number| part(hash.hash_one(number << shift))).collect::<HashSet<_>>().len()
                };
                assert!(places(|hash| hash & 0xfff) > 1_500 && places(|hash| hash >> 52) > 1_500);
            }
            let high: HashSet<u64> = peer_ids.iter().map(|peer_id| hash.hash_one(peer_id) >> 52).collect();
            assert!(high.len() > 2_300, "{}", high.len());
        }
        assert_ne!(QuickHash::default().hash_one(1), QuickHash::default().hash_one(1));
    }
}
