//! Two swarms in one test, driven together.

#![allow(dead_code, clippy::unwrap_used, reason = "each test file uses a part; tests may panic")]

use std::time::Duration;

use futures::StreamExt;
use libp2p::{
    Multiaddr, Swarm,
    identity::Keypair,
    swarm::{NetworkBehaviour, SwarmEvent},
};
use multinodes_behaviour::{Behaviour, Config, build};
use tokio::time::timeout;

/// Far more than anything here needs; a test that reaches it has failed.
const LIMIT: Duration = Duration::from_secs(30);

pub(crate) fn config(swarm: &str) -> Config {
    Config {
        swarm: swarm.parse().unwrap(),
        keypair: Keypair::generate_ed25519(),
        passive: false,
        mdns: false,
        kademlia: true,
        high_mark: 96,
        refused_subscriptions: Default::default(),
        privacy: None,
        doorkeeper: None,
        credential: None,
        interfaces: Vec::new(),
    }
}

/// Two connected swarms; the second has dialled the first.
pub(crate) async fn connected(one: &str, two: &str, address: &str) -> [Swarm<Behaviour>; 2] {
    let [mut one, mut two] = [one, two].map(|name| build(&config(name)).unwrap());
    let address = listen(&mut one, address).await;
    two.dial(address).unwrap();
    let mut established = 0;
    until(&mut one, &mut two, |_, event| {
        established += usize::from(matches!(event, Either::One(SwarmEvent::ConnectionEstablished { .. })));
        established += usize::from(matches!(event, Either::Two(SwarmEvent::ConnectionEstablished { .. })));
        (established == 2).then_some(())
    })
    .await;
    [one, two]
}

/// Listens and tells where.
pub(crate) async fn listen<B: NetworkBehaviour>(swarm: &mut Swarm<B>, address: &str) -> Multiaddr {
    swarm.listen_on(address.parse().unwrap()).unwrap();
    let listening = async {
        loop {
            if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
                return address;
            }
        }
    };
    timeout(LIMIT, listening).await.expect("it listens in time")
}

/// An event of the first or of the second swarm.
pub(crate) enum Either<A, B> {
    One(SwarmEvent<A>),
    Two(SwarmEvent<B>),
}

/// Runs both until `check` has what it wants.
pub(crate) async fn until<A: NetworkBehaviour, B: NetworkBehaviour, T>(
    one: &mut Swarm<A>,
    two: &mut Swarm<B>,
    mut check: impl FnMut((&mut Swarm<A>, &mut Swarm<B>), Either<A::ToSwarm, B::ToSwarm>) -> Option<T>,
) -> T {
    let run = async {
        loop {
            let event = tokio::select! {
                event = one.select_next_some() => Either::One(event),
                event = two.select_next_some() => Either::Two(event),
            };
            if let Some(result) = check((one, two), event) {
                return result;
            }
        }
    };
    timeout(LIMIT, run).await.expect("it happens in time")
}
