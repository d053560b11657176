//! The keys of a private swarm, derived from its secret and its name.
//!
//! Three keys with a label each, so that what one of them gives away says nothing of the others. The name is part of all
//! of them: swarms of different names never mix, also if they have one secret.

use std::fmt;

use libp2p::{identity::Keypair, pnet::PreSharedKey};
use zeroize::Zeroizing;

use crate::SwarmName;

/// The length of a secret, in bytes.
pub const SECRET: usize = 32;

/// The part of a derived key that is shown as the [mark](Privacy::mark), in bytes.
const MARK: usize = 16;

/// The keys of a private swarm. Never printed, and wiped from memory.
#[derive(Clone, PartialEq, Eq)]
pub struct Privacy {
    guard: Zeroizing<[u8; SECRET]>,
    prologue: Zeroizing<[u8; SECRET]>,
    mark: String,
}

impl Privacy {
    /// Derives the keys.
    #[must_use]
    pub fn new(secret: &[u8; SECRET], swarm: &SwarmName) -> Self {
        let derive = |label: &str| Zeroizing::new(derived(secret, &format!("multinodes/1/{label}/{swarm}")));
        let hex: String = derive("mark")[..MARK].iter().map(|byte| format!("{byte:02x}")).collect();
        Self { guard: derive("guard"), prologue: derive("prologue"), mark: format!("+{hex}") }
    }

    /// What the swarm is called where strangers can look, such as in the names of folders: `+` and 32 hexadecimal
    /// digits, from which neither the name nor the secret follows. No open swarm can be called so.
    #[must_use]
    pub fn mark(&self) -> &str {
        &self.mark
    }

    pub(crate) fn pre_shared_key(&self) -> PreSharedKey {
        PreSharedKey::new(*self.guard)
    }

    pub(crate) fn prologue(&self) -> &[u8] {
        &*self.prologue
    }
}

impl fmt::Debug for Privacy {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Privacy").field("mark", &self.mark).finish_non_exhaustive()
    }
}

/// HKDF-SHA256 of the secret without salt; `info` says what for. It is what libp2p derives from a key's private half.
fn derived(secret: &[u8; SECRET], info: &str) -> [u8; SECRET] {
    // A copy that is wiped after it is read.
    let keypair = Keypair::ed25519_from_bytes(*secret).expect("any 32 bytes are an Ed25519 key");
    keypair.derive_secret(info.as_bytes()).expect("Ed25519 keys have a private half")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn privacy(secret: u8, swarm: &str) -> Privacy {
        Privacy::new(&[secret; SECRET], &swarm.parse().unwrap())
    }

    #[test]
    fn all_keys_depend_on_the_secret_and_on_the_name() {
        let one = privacy(1, "garden");
        assert_eq!(one, privacy(1, "garden"));
        for other in [privacy(2, "garden"), privacy(1, "gardens")] {
            assert_ne!(one.mark, other.mark);
            assert_ne!(one.guard, other.guard);
            assert_ne!(one.prologue, other.prologue);
        }
        assert_ne!(one.guard, one.prologue);
    }

    #[test]
    fn nothing_of_the_keys_is_printed() {
        let text = format!("{:?}", privacy(1, "garden"));
        assert!(text.starts_with("Privacy { mark: \"") && !text.contains("garden") && text.len() < 64, "{text}");
    }

    #[test]
    fn the_keys_are_those_of_the_protocol() {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let one = Privacy::new(&std::array::from_fn(|index| index as u8), &"garden".parse().unwrap());
        assert_eq!(one.mark(), MARK_OF_GARDEN);
        assert_eq!(hex(&*one.guard), GUARD_OF_GARDEN);
        assert_eq!(hex(one.prologue()), PROLOGUE_OF_GARDEN);
    }

    // The same values are in PROTOCOL.md; made with an independent HKDF.
    const MARK_OF_GARDEN: &str = "+1c7de8f562a7ef5bfd6251565824ccda";
    const GUARD_OF_GARDEN: &str = "c7acf786aa77401e93aeff422ed0d6dc20ae2459f8ca6718215107f592c43d1c";
    const PROLOGUE_OF_GARDEN: &str = "5e69fc76e5b4d46fe17d90b7e6c29304ffcf78675506689058d54b3ee7bcad11";
}
