//! Asks the LAN by multicast who is there, and listens to the answers.

use std::time::Duration;

use futures::StreamExt;
use libp2p::{
    Multiaddr, PeerId, Swarm, Transport,
    core::transport::dummy::DummyTransport,
    swarm::{self, SwarmEvent},
};
use multinodes_behaviour::local;
use tokio::time::timeout;

/// More addresses are not kept.
const MAX_FOUND: usize = 1024;

/// What came of it.
#[derive(Debug, Default)]
pub struct Overheard {
    /// Who is where: libp2p programs, maybe strangers.
    pub found: Vec<(PeerId, Multiaddr)>,
    /// Why nothing could be heard.
    pub degraded: Option<String>,
}

/// Listens for `time`, as a node that has no address and so is found by nobody, on the interfaces with these names
/// or, without any, on those that nodes use.
pub async fn overhear(time: Duration, interfaces: Vec<String>) -> Overheard {
    let local = PeerId::random();
    let mut behaviour = local::Behaviour::new(local, interfaces);
    behaviour.ask();
    let config = swarm::Config::with_tokio_executor();
    let mut swarm = Swarm::new(DummyTransport::new().boxed(), behaviour, local, config);
    let mut overheard = Overheard::default();
    let listening = async {
        loop {
            match swarm.select_next_some().await {
                SwarmEvent::Behaviour(local::Event::Found(found)) => {
                    overheard.found.extend(found);
                    overheard.found.truncate(MAX_FOUND);
                }
                SwarmEvent::Behaviour(local::Event::Degraded { reason }) => overheard.degraded = Some(reason),
                _ => {}
            }
        }
    };
    let _ = timeout(time, listening).await;
    overheard
}
