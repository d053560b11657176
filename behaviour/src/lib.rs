//! What MultiNodes speaks on the wire.

pub mod codec;
pub mod lane;
pub mod lanes;
mod names;
pub mod wire;

pub use names::{MAX_SWARM_NAME, NameError, SwarmName};
