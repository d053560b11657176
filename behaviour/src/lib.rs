//! What MultiNodes speaks on the wire.

mod behaviour;
pub mod codec;
pub mod gossip;
pub mod identity;
pub mod kademlia;
pub mod lane;
pub mod lanes;
pub mod limits;
pub mod local;
mod names;
pub mod record;
pub mod sync;
pub mod transport;
pub mod wire;

use std::time::Duration;

use libp2p::{Swarm, identity::Keypair, swarm};

pub use behaviour::{Behaviour, BehaviourEvent};
pub use names::{MAX_SWARM_NAME, NameError, SwarmName};
pub use record::{RecordError, SignedBeat, SignedRecord};

/// What the protocols of a node depend on.
#[derive(Debug, Clone)]
pub struct Config {
    /// The name of the swarm.
    pub swarm: SwarmName,
    /// The node's key: its public half is the peer id.
    pub keypair: Keypair,
    /// The node does not listen and is not announced, as a one-shot command.
    pub passive: bool,
    /// Find nodes of the LAN by mDNS.
    pub mdns: bool,
    /// Find addresses beyond the LAN by Kademlia.
    pub kademlia: bool,
    /// From how many connections on the driver closes some; hard limits are derived from it.
    pub high_mark: usize,
}

/// Builds a libp2p swarm that speaks all protocols of a node. Must be called within a tokio runtime.
///
/// # Errors
///
/// The key cannot be used for encryption.
pub fn build(config: &Config) -> Result<Swarm<Behaviour>, BuildError> {
    let transport = transport::new(&config.keypair)?;
    let behaviour = Behaviour::new(config)?;
    let peer_id = config.keypair.public().to_peer_id();
    Ok(Swarm::new(transport, behaviour, peer_id, swarm_config()))
}

/// The connection manager of the driver decides which idle connections are closed, not a timer in each of them.
const IDLE: Duration = Duration::from_secs(60 * 60 * 24 * 365);

fn swarm_config() -> swarm::Config {
    swarm::Config::with_tokio_executor().with_idle_connection_timeout(IDLE)
}

/// A swarm that cannot be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// There is no transport.
    #[error(transparent)]
    Transport(#[from] transport::TransportError),
    /// There is no gossip.
    #[error(transparent)]
    Gossip(#[from] gossip::GossipError),
}
