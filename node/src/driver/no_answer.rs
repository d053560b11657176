//! What came instead of an answer where somebody was dialled.

use std::{io, io::ErrorKind, time::Duration};

use libp2p::{Multiaddr, PeerId, TransportError, swarm::DialError};

use super::root;
use crate::{addresses::without_peer, length::length};

/// What came instead of an answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[cfg_attr(not(feature = "cli"), allow(unreachable_pub, reason = "only the command looks at it from outside"))]
pub enum NoAnswer {
    /// The host is there, and nobody listens.
    #[error("refused: nobody listens there")]
    Refused,
    /// Nothing came back.
    #[error("no answer within {}", length(*.0))]
    TimedOut(Duration),
    /// The system knows no way.
    #[error("no way there: {0}")]
    NoWay(String),
    /// The name stands for no address.
    #[error("the name cannot be resolved: {0}")]
    Unresolved(String),
    /// Somebody else is there.
    #[error("another peer answers, `{0}`")]
    OtherPeer(PeerId),
    /// It is the node that asks.
    #[error("this node itself answers there")]
    Myself,
    /// A node of another swarm, or another libp2p program.
    #[error("it belongs to another swarm, or is another program: it speaks `{0}`")]
    OtherSwarm(String),
    /// It hung up, or spoke something else.
    #[error("the handshake fails: {0}")]
    Handshake(String),
    /// It accepts connections, and then nothing comes: noise to it is what this node says.
    #[error("it listens, but has not answered the handshake within {}: it is another program, or has another secret", length(*.0))]
    Deaf(Duration),
    /// It has hung up as soon as it knew who we are.
    #[error("connected, but it hung up: its rules may not let this node connect, or it has too many connections")]
    TurnedAway,
    /// It does not say who it is.
    #[error("connected, but it has not said within {} what it is", length(*.0))]
    Mute(Duration),
    /// No transport of this build, or of a private swarm, speaks so.
    #[error("this kind of address is not supported here")]
    Unsupported,
}

impl NoAnswer {
    /// What a failed dial means, at each address; `limit` is how long an answer was waited for.
    pub(crate) fn all_of(error: &DialError, limit: Duration) -> Vec<(Option<Multiaddr>, Self)> {
        let at = |address: &Multiaddr| Some(without_peer(address.clone()).0);
        match error {
            DialError::Transport(errors) => {
                errors.iter().map(|(address, error)| (at(address), Self::of_transport(error, limit))).collect()
            }
            DialError::WrongPeerId { obtained, address } => vec![(at(address), Self::OtherPeer(*obtained))],
            DialError::LocalPeerId { address } => vec![(at(address), Self::Myself)],
            // It was given up.
            DialError::Aborted => vec![(None, Self::TimedOut(limit))],
            other => vec![(None, Self::NoWay(other.to_string()))],
        }
    }

    fn of_transport(error: &TransportError<io::Error>, limit: Duration) -> Self {
        match error {
            TransportError::Other(error) => Self::of_io(error, limit),
            TransportError::MultiaddrNotSupported(_) => Self::Unsupported,
        }
    }

    fn of_io(error: &io::Error, limit: Duration) -> Self {
        let cause = root(error);
        let system = cause.downcast_ref::<io::Error>();
        match system.map(io::Error::kind) {
            Some(ErrorKind::ConnectionRefused) => Self::Refused,
            Some(ErrorKind::TimedOut) => Self::TimedOut(limit),
            Some(ErrorKind::NetworkUnreachable | ErrorKind::HostUnreachable | ErrorKind::AddrNotAvailable) => {
                Self::NoWay(cause.to_string())
            }
            _ if cause.to_string().to_lowercase().contains("timeout") => Self::TimedOut(limit),
            _ => Self::Handshake(shortened(&cause.to_string())),
        }
    }
}

/// The most of a text of a stranger that is shown, in characters.
const SHOWN: usize = 80;

pub(crate) fn shortened(text: &str) -> String {
    text.chars().take(SHOWN).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_says_becomes_a_reason() {
        let limit = Duration::from_secs(1);
        let of = |kind: ErrorKind| NoAnswer::of_io(&io::Error::other(io::Error::from(kind)), limit);
        assert_eq!(of(ErrorKind::ConnectionRefused), NoAnswer::Refused);
        assert_eq!(of(ErrorKind::TimedOut), NoAnswer::TimedOut(limit));
        assert!(matches!(of(ErrorKind::HostUnreachable), NoAnswer::NoWay(_)));
        assert!(matches!(of(ErrorKind::UnexpectedEof), NoAnswer::Handshake(_)));
    }
}
