//! Dials one address, beside all connections that a node has, and asks who is there.

use std::time::Duration;

use futures::StreamExt;
use libp2p::{
    Multiaddr, PeerId, Swarm, identify,
    identity::Keypair,
    swarm::{
        self, DialError, SwarmEvent,
        dial_opts::{DialOpts, PeerCondition},
    },
};
use multinodes_behaviour::{identity, transport};

use super::{Diagnosis, Place};
pub use crate::driver::no_answer::NoAnswer;
use crate::driver::{answers::listens, no_answer::shortened};

/// Who answered.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Its proven peer id.
    pub peer_id: PeerId,
    /// How long it took to connect, handshakes included.
    pub took: Duration,
    /// Where it says that it listens: another process of the same peer id says something else.
    pub listening: Vec<Multiaddr>,
}

/// Why nobody of the swarm answered.
#[derive(Debug, thiserror::Error)]
#[error("{kind}")]
pub struct ReachError {
    /// What kind of a reason it is.
    pub kind: NoAnswer,
}

impl Diagnosis {
    /// Dials one address with a key of its own, and gives who answers within `limit` as a node of the swarm.
    ///
    /// # Errors
    ///
    /// See [`NoAnswer`].
    pub async fn reach(&self, place: &Place, limit: Duration) -> Result<Answer, ReachError> {
        let result = match self.dial(place, limit).await {
            // Who has another secret waits for more of what it takes for noise, and is not told from silence by that.
            Err(NoAnswer::TimedOut(_)) if listens(&place.address, KNOCK).await => Err(NoAnswer::Deaf(limit)),
            result => result,
        };
        result.map_err(|kind| ReachError { kind })
    }

    async fn dial(&self, place: &Place, limit: Duration) -> Result<Answer, NoAnswer> {
        // A key for each dial: a peer takes only a few connections of one.
        let keypair = Keypair::generate_ed25519();
        let transport = match &self.settings.privacy {
            None => transport::new(&keypair),
            Some(privacy) => transport::private(&keypair, privacy),
        };
        let transport = transport.map_err(|error| NoAnswer::NoWay(error.to_string()))?;
        let local = keypair.public().to_peer_id();
        let swarm = &self.settings.swarm;
        let credential = self.settings.grant.as_ref().map(|grant| grant.claim(swarm, &local)).transpose();
        let credential = credential.map_err(|error| NoAnswer::NoWay(error.to_string()))?;
        let introduction = identity::identify(keypair.public(), swarm, credential.as_deref())
            .map_err(|error| NoAnswer::NoWay(error.to_string()))?;
        let mut swarm = Swarm::new(transport, introduction, local, swarm::Config::with_tokio_executor());
        let options = match place.peer_id {
            Some(peer_id) => DialOpts::peer_id(peer_id)
                .condition(PeerCondition::Always)
                .addresses(vec![place.address.clone()])
                .build(),
            None => DialOpts::unknown_peer_id().address(place.address.clone()).build(),
        };
        swarm.dial(options).map_err(|error| no_answer(&error, limit))?;
        let mut connected = None;
        let answered = tokio::time::timeout(limit, self.listen_to(&mut swarm, limit, &mut connected)).await;
        answered.unwrap_or(Err(match connected {
            Some(_) => NoAnswer::Mute(limit),
            None => NoAnswer::TimedOut(limit),
        }))
    }

    async fn listen_to(
        &self,
        swarm: &mut Swarm<identify::Behaviour>,
        limit: Duration,
        connected: &mut Option<Duration>,
    ) -> Result<Answer, NoAnswer> {
        loop {
            match swarm.select_next_some().await {
                SwarmEvent::ConnectionEstablished { established_in, .. } => *connected = Some(established_in),
                SwarmEvent::OutgoingConnectionError { error, .. } => return Err(no_answer(&error, limit)),
                SwarmEvent::ConnectionClosed { cause, .. } => {
                    tracing::debug!(cause = cause.map(tracing::field::display), "hung up");
                    return Err(NoAnswer::TurnedAway);
                }
                SwarmEvent::Behaviour(identify::Event::Received { peer_id, info, .. }) => {
                    if !identity::belongs(&info, &self.settings.swarm) {
                        return Err(NoAnswer::OtherSwarm(shortened(&info.protocol_version)));
                    }
                    let took = connected.unwrap_or_default();
                    return Ok(Answer { peer_id, took, listening: info.listen_addrs });
                }
                SwarmEvent::Behaviour(identify::Event::Error { error, .. }) => {
                    return Err(NoAnswer::OtherSwarm(shortened(&error.to_string())));
                }
                _ => {}
            }
        }
    }
}

/// A second dial of what did not answer in a longer time need not be patient.
const KNOCK: Duration = Duration::from_secs(1);

fn no_answer(error: &DialError, limit: Duration) -> NoAnswer {
    let first = NoAnswer::all_of(error, limit).into_iter().next();
    first.map_or(NoAnswer::Unsupported, |(_, answer)| answer)
}
