//! Which host owns a key: rendezvous hashing, so that all nodes agree without asking each other.

use libp2p::PeerId;
use multinodes_behaviour::codec;
use serde::{Deserialize, Serialize};
use serde_cbor::Value;
use sha2::{Digest, Sha256};

/// Where the key is in a tuple. See [`Grouping::by_key`](super::Grouping::by_key).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Key(Vec<String>);

impl Key {
    pub(crate) fn new(path: &str) -> Self {
        Self(if path.is_empty() { Vec::new() } else { path.split('.').map(str::to_owned).collect() })
    }

    /// The path as it was said.
    #[must_use]
    pub fn path(&self) -> String {
        self.0.join(".")
    }

    /// The hash of the key of an encoded tuple; `None` if it has none.
    pub(crate) fn hash_in(&self, tuple: &[u8]) -> Option<u64> {
        // Decoded and encoded again, so that every way to write the same value has the same hash.
        let value: Value = codec::decode(tuple, usize::MAX).ok()?;
        let part = self.0.iter().try_fold(&value, |value, step| match value {
            Value::Map(fields) => fields.get(&Value::Text(step.clone())),
            Value::Array(items) => items.get(step.parse::<usize>().ok()?),
            _ => None,
        })?;
        Some(hash(&serde_cbor::to_vec(part).ok()?))
    }
}

/// A host's part of the hash.
pub(crate) fn hash_of_host(peer_id: &PeerId) -> u64 {
    hash(&peer_id.to_bytes())
}

/// Who of the hosts, given by their hashes, owns the key.
pub(crate) fn owner(key: u64, hosts: impl Iterator<Item = u64>) -> Option<usize> {
    owner_among(key, hosts, |_| true)
}

/// Who of those hosts that fit owns the key. Only the few that would own it are asked whether they fit.
pub(crate) fn owner_among(key: u64, hosts: impl Iterator<Item = u64>, fits: impl Fn(usize) -> bool) -> Option<usize> {
    let mut owner: Option<(usize, (u64, u64))> = None;
    for (index, host) in hosts.enumerate() {
        let rank = (mix(key ^ host), host);
        if owner.is_none_or(|(_, highest)| rank > highest) && fits(index) {
            owner = Some((index, rank));
        }
    }
    owner.map(|(index, _)| index)
}

/// The same on every machine and in every version, which the hashers of the standard library do not promise.
pub(crate) fn hash(bytes: &[u8]) -> u64 {
    let digest = Sha256::digest(bytes);
    digest.iter().take(8).fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

/// The finaliser of SplitMix64: every bit of the result depends on every bit of the input.
fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, HashMap};

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::payload::Payload;

    proptest! {
        #[test]
        fn when_a_host_is_lost_only_its_keys_move(
            hosts in prop::collection::btree_set(any::<u64>(), 2..40),
            keys in prop::collection::vec(any::<u64>(), 1..200),
            lost in any::<prop::sample::Index>(),
        ) {
            let hosts: Vec<_> = BTreeSet::into_iter(hosts).collect();
            let lost = lost.index(hosts.len());
            let left: Vec<_> = hosts.iter().copied().filter(|host| *host != hosts[lost]).collect();
            for key in keys {
                let before = hosts[owner(key, hosts.iter().copied()).unwrap()];
                let after = left[owner(key, left.iter().copied()).unwrap()];
                prop_assert!(before == after || before == hosts[lost]);
                // The order in which a node knows the hosts plays no part.
                let turned = owner(key, hosts.iter().rev().copied()).unwrap();
                prop_assert_eq!(before, hosts[hosts.len() - 1 - turned]);
                // One that is there and not to be taken is as good as lost.
                let passed_over = owner_among(key, hosts.iter().copied(), |index| index != lost).unwrap();
                prop_assert_eq!(after, hosts[passed_over]);
            }
        }
    }

    #[test]
    fn keys_are_spread_evenly() {
        let hosts: Vec<_> = (0..5_u8).map(|host| hash(&[host])).collect();
        let mut counts = HashMap::<usize, usize>::new();
        for key in 0..5000_u32 {
            *counts.entry(owner(hash(&key.to_le_bytes()), hosts.iter().copied()).unwrap()).or_default() += 1;
        }
        assert!(counts.len() == 5 && counts.values().all(|count| (850..1150).contains(count)), "{counts:?}");
        assert_eq!(owner(1, std::iter::empty()), None);
    }

    #[test]
    fn a_key_is_found_by_names_and_places() {
        let tuple = Payload::encode(&json!({"page": {"url": "u", "links": ["a", "b"]}, "n": 1})).unwrap();
        let hash = |path: &str| Key::new(path).hash_in(tuple.as_bytes());
        let of = |value: &str| Key::new("").hash_in(Payload::encode(&value).unwrap().as_bytes());
        assert_eq!(hash("page.url"), of("u"));
        assert_eq!(hash("page.links.1"), of("b"));
        assert_ne!(hash("page.url"), hash("page.links.0"));
        for missing in ["page.size", "page.links.2", "page.links.x", "n.0", "pages"] {
            assert_eq!(hash(missing), None, "{missing}");
        }
        assert_eq!(Key::new("").hash_in(&[0xff]), None);
    }
}
