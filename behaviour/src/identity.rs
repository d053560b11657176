//! Tells a peer who this is, and whether it is still there.

use std::time::Duration;

use libp2p::{identify, identity::PublicKey, ping};

use crate::SwarmName;

/// The default of 15 s, and 20 s of patience, would show a cut-off host only after half a minute. A ping costs 64 bytes.
const PING_INTERVAL: Duration = Duration::from_secs(2);

/// Together with the interval a host that is cut off is noticed within 5 s.
const PING_TIMEOUT: Duration = Duration::from_secs(3);

/// What a node calls itself towards other libp2p programs.
pub const AGENT: &str = concat!("multinodes/", env!("CARGO_PKG_VERSION"));

/// Creates identify. It shows the swarm's name as the protocol version: who shows another one is a stranger.
///
/// No signed peer record: with one, js-libp2p peers kept their routing tables empty (measured).
#[must_use]
pub fn identify(key: PublicKey, swarm: &SwarmName) -> identify::Behaviour {
    let config = identify::Config::new(swarm.identify_version(), key)
        .with_agent_version(AGENT.into())
        // A node whose network comes up later, or changes, is reachable at once.
        .with_push_listen_addr_updates(true)
        // The driver has an address book of its own, which knows scopes.
        .with_cache_size(0);
    identify::Behaviour::new(config)
}

/// Creates ping. It reports failures; closing the connection is the driver's decision.
#[must_use]
pub fn ping() -> ping::Behaviour {
    ping::Behaviour::new(ping::Config::new().with_interval(PING_INTERVAL).with_timeout(PING_TIMEOUT))
}
