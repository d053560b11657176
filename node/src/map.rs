//! Many items, one action, a whole swarm.

#[cfg(feature = "journal")]
#[allow(dead_code, reason = "the engine uses it")]
pub(crate) mod journal;
