//! Names for nodes that were given none: easy to say, and hardly ever twice.

use rand::{Rng, seq::IndexedRandom};

const QUALITIES: [&str; 32] = [
    "amber", "brave", "brisk", "calm", "clever", "crisp", "eager", "early", "fair", "fleet", "fond", "gentle", "glad",
    "golden", "grand", "keen", "kind", "lively", "lucky", "merry", "neat", "noble", "proud", "quick", "quiet", "rapid",
    "ready", "silver", "steady", "sunny", "swift", "wise",
];

const ANIMALS: [&str; 32] = [
    "badger", "bear", "beaver", "bison", "crane", "crow", "deer", "dove", "eagle", "falcon", "finch", "fox", "hare",
    "hawk", "heron", "ibis", "jay", "lark", "lynx", "marten", "moose", "otter", "owl", "raven", "robin", "seal",
    "stork", "swan", "tern", "trout", "wolf", "wren",
];

/// A name such as `brisk-otter-4f2a`.
pub(crate) fn random_name() -> String {
    let mut random = rand::rng();
    let quality = QUALITIES.choose(&mut random).unwrap_or(&QUALITIES[0]);
    let animal = ANIMALS.choose(&mut random).unwrap_or(&ANIMALS[0]);
    format!("{quality}-{animal}-{:04x}", random.random::<u16>())
}
