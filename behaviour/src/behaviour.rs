//! All protocols of a node, composed.

#![allow(missing_docs, reason = "the variants of the derived event cannot be documented")]

use libp2p::{
    PeerId, identify, memory_connection_limits,
    swarm::{NetworkBehaviour, behaviour::toggle::Toggle},
};

use crate::{
    BuildError, Config,
    gate::{self, Gated},
    gossip, identity, kademlia, lanes, limits, local, ping,
    pulse::Pulses,
    rationed::{Cost, Rationed},
    shelter::{Panics, Shelter},
    sync,
};

/// All protocols of a node; what panics in their part of a connection costs that connection.
pub type Behaviour = Shelter<Protocols>;

/// The protocols by themselves.
#[derive(NetworkBehaviour)]
pub struct Protocols {
    /// Refuses connections over a number; first, so that a refused connection costs the others nothing.
    pub limits: limits::Behaviour,
    /// Refuses connections when memory runs out.
    pub memory_limits: memory_connection_limits::Behaviour,
    /// Refuses peers that are denied, and says which ones are pending.
    pub gate: gate::Behaviour,
    /// Tells peers who this is.
    pub identify: identify::Behaviour,
    /// Tells whether peers are still there.
    pub ping: ping::Behaviour,
    /// Finds addresses beyond the LAN.
    pub kademlia: Gated<Rationed<Toggle<kademlia::Behaviour>>>,
    /// Spreads changes.
    pub gossip: Gated<Rationed<gossip::Behaviour>>,
    /// Levels directories.
    pub sync: Gated<sync::Behaviour>,
    /// Finds nodes of the LAN.
    pub local: Toggle<local::Behaviour>,
    /// Carries calls and messages.
    pub lanes: Gated<lanes::Behaviour>,
}

impl Behaviour {
    /// Creates all protocols, for a swarm of one's own making.
    ///
    /// # Errors
    ///
    /// The credential cannot be shown, or a constant of this crate contradicts the rules of libp2p.
    pub fn new(config: &Config) -> Result<Self, BuildError> {
        Self::counting(config, Panics::default(), Pulses::default())
    }

    /// The same, and counts panics, and takes signs of life from where the transport leaves them.
    pub(crate) fn counting(config: &Config, panics: Panics, pulses: Pulses) -> Result<Self, BuildError> {
        Ok(Self::sheltering(Protocols::new(config, pulses)?, panics))
    }
}

impl Protocols {
    fn new(config: &Config, pulses: Pulses) -> Result<Self, BuildError> {
        let peer_id = config.keypair.public().to_peer_id();
        let kademlia = config.kademlia.then(|| kademlia::new(peer_id, &config.swarm, config.passive));
        let local = config.mdns.then(|| local::Behaviour::new(peer_id, config.interfaces.clone()));
        let gossip = gossip::new(&config.swarm, config.refused_subscriptions.clone())?;
        let lanes = lanes::Behaviour::new(config.swarm.lane_protocol(), peer_id);
        let kademlia = Rationed::new(Toggle::from(kademlia), Cost::Number, kademlia::RATIONS);
        let gossip = Rationed::new(gossip, Cost::Time, gossip::RATIONS);
        let gate = gate::Behaviour::new(config.doorkeeper.clone());
        let undecided = || gate.undecided();
        Ok(Self {
            limits: limits::connections(config.high_mark),
            memory_limits: limits::memory(),
            identify: identity::identify(config.keypair.public(), &config.swarm, config.credential.as_deref())?,
            ping: ping::Behaviour::new(pulses),
            kademlia: Gated::new(kademlia, undecided()).retelling_protocols(),
            // Gossipsub gives up a connection on which it was refused.
            gossip: Gated::new(gossip, undecided()).patient(&config.swarm.protocol_prefix()),
            sync: Gated::new(sync::new(&config.swarm), undecided()),
            local: local.into(),
            lanes: Gated::new(lanes, undecided()),
            gate,
        })
    }

    /// Admits a peer: all protocols are spoken on its pending connections from now on. One that has none is left alone.
    pub fn admit(&mut self, peer_id: PeerId) {
        self.gate.admit(peer_id);
        self.kademlia.admit(peer_id);
        self.gossip.admit(peer_id);
        self.sync.admit(peer_id);
        self.lanes.admit(peer_id);
    }
}
