//! All protocols of a node, composed.

#![allow(missing_docs, reason = "the variants of the derived event cannot be documented")]

use libp2p::{
    connection_limits, identify, memory_connection_limits, ping,
    swarm::{NetworkBehaviour, behaviour::toggle::Toggle},
};

use crate::{BuildError, Config, gossip, identity, kademlia, lanes, limits, local, sync};

/// All protocols of a node.
#[derive(NetworkBehaviour)]
pub struct Behaviour {
    /// Refuses connections over a number; first, so that a refused connection costs the others nothing.
    pub limits: connection_limits::Behaviour,
    /// Refuses connections when memory runs out.
    pub memory_limits: memory_connection_limits::Behaviour,
    /// Tells peers who this is.
    pub identify: identify::Behaviour,
    /// Tells whether peers are still there.
    pub ping: ping::Behaviour,
    /// Finds addresses beyond the LAN.
    pub kademlia: Toggle<kademlia::Behaviour>,
    /// Spreads changes.
    pub gossip: gossip::Behaviour,
    /// Levels directories.
    pub sync: sync::Behaviour,
    /// Finds nodes of the LAN.
    pub local: Toggle<local::Behaviour>,
    /// Carries calls and messages.
    pub lanes: lanes::Behaviour,
}

impl Behaviour {
    /// Creates all protocols, for a swarm of one's own making.
    ///
    /// # Errors
    ///
    /// Only if a constant of this crate contradicts the rules of libp2p.
    pub fn new(config: &Config) -> Result<Self, BuildError> {
        let peer_id = config.keypair.public().to_peer_id();
        let kademlia = config.kademlia.then(|| kademlia::new(peer_id, &config.swarm, config.passive));
        let local = config.mdns.then(|| local::Behaviour::new(peer_id, config.passive));
        Ok(Self {
            limits: limits::connections(config.high_mark),
            memory_limits: limits::memory(),
            identify: identity::identify(config.keypair.public(), &config.swarm),
            ping: identity::ping(),
            kademlia: kademlia.into(),
            gossip: gossip::new(&config.swarm, config.refused_subscriptions.clone())?,
            sync: sync::new(&config.swarm),
            local: local.into(),
            lanes: lanes::Behaviour::new(config.swarm.lane_protocol(), config.keypair.public().to_peer_id()),
        })
    }
}
