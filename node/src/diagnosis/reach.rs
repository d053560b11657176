//! Dials one address, beside all connections that a node has, and asks who is there.

use std::{
    io::{self, ErrorKind},
    net::IpAddr,
    time::Duration,
};

use futures::StreamExt;
use libp2p::{
    Multiaddr, PeerId, Swarm, TransportError, identify,
    identity::Keypair,
    multiaddr::Protocol,
    swarm::{
        self, DialError, SwarmEvent,
        dial_opts::{DialOpts, PeerCondition},
    },
};
use multinodes_behaviour::{identity, transport};

use super::{Diagnosis, Place};
use crate::driver::root;

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

/// What came instead of an answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NoAnswer {
    /// The host is there, and nobody listens.
    #[error("refused: nobody listens there")]
    Refused,
    /// Nothing came back.
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    /// The system knows no way.
    #[error("no way there: {0}")]
    NoWay(String),
    /// Somebody else is there.
    #[error("another peer answers, `{0}`")]
    OtherPeer(PeerId),
    /// A node of another swarm, or another libp2p program.
    #[error("it belongs to another swarm, or is another program: it speaks `{0}`")]
    OtherSwarm(String),
    /// It hung up, or spoke something else.
    #[error("the handshake fails: {0}")]
    Handshake(String),
    /// It has hung up as soon as it knew who we are.
    #[error("connected, but it hung up: its rules may not let this node connect, or it has too many connections")]
    TurnedAway,
    /// It does not say who it is.
    #[error("connected, but it has not said within {0:?} what it is")]
    Mute(Duration),
    /// No transport of this build, or of a private swarm, speaks so.
    #[error("this kind of address is not supported here")]
    Unsupported,
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
            Err(NoAnswer::TimedOut(_)) if listens(&place.address).await => {
                Err(NoAnswer::Handshake(format!("it listens, but has not answered within {limit:?}")))
            }
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

/// Whether somebody accepts TCP connections there, whatever it speaks.
async fn listens(address: &Multiaddr) -> bool {
    let mut parts = address.iter();
    let ip: IpAddr = match parts.next() {
        Some(Protocol::Ip4(ip)) => ip.into(),
        Some(Protocol::Ip6(ip)) => ip.into(),
        _ => return false,
    };
    let Some(Protocol::Tcp(port)) = parts.next() else { return false };
    let connected = tokio::time::timeout(KNOCK, tokio::net::TcpStream::connect((ip, port))).await;
    matches!(connected, Ok(Ok(_)))
}

/// A second dial of what did not answer in a longer time need not be patient.
const KNOCK: Duration = Duration::from_secs(1);

/// The most of a text of a stranger that is shown, in characters.
const SHOWN: usize = 80;

fn shortened(text: &str) -> String {
    text.chars().take(SHOWN).collect()
}

fn no_answer(error: &DialError, limit: Duration) -> NoAnswer {
    let errors = match error {
        DialError::WrongPeerId { obtained, .. } => return NoAnswer::OtherPeer(*obtained),
        DialError::Transport(errors) => errors,
        other => return NoAnswer::NoWay(other.to_string()),
    };
    match errors.first() {
        Some((_, TransportError::Other(error))) => of_transport(error, limit),
        Some((_, TransportError::MultiaddrNotSupported(_))) | None => NoAnswer::Unsupported,
    }
}

fn of_transport(error: &io::Error, limit: Duration) -> NoAnswer {
    let cause = root(error);
    let system = cause.downcast_ref::<io::Error>();
    match system.map(io::Error::kind) {
        Some(ErrorKind::ConnectionRefused) => NoAnswer::Refused,
        Some(ErrorKind::TimedOut) => NoAnswer::TimedOut(limit),
        Some(ErrorKind::NetworkUnreachable | ErrorKind::HostUnreachable | ErrorKind::AddrNotAvailable) => {
            NoAnswer::NoWay(cause.to_string())
        }
        _ if cause.to_string().to_lowercase().contains("timeout") => NoAnswer::TimedOut(limit),
        _ => NoAnswer::Handshake(shortened(&cause.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_says_becomes_a_reason() {
        let limit = Duration::from_secs(1);
        let of = |kind: ErrorKind| of_transport(&io::Error::other(io::Error::from(kind)), limit);
        assert!(matches!(of(ErrorKind::ConnectionRefused), NoAnswer::Refused));
        assert!(matches!(of(ErrorKind::TimedOut), NoAnswer::TimedOut(_)));
        assert!(matches!(of(ErrorKind::HostUnreachable), NoAnswer::NoWay(_)));
        assert!(matches!(of(ErrorKind::UnexpectedEof), NoAnswer::Handshake(_)));
    }
}
