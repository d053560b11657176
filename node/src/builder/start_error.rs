//! Why a node does not start.

use libp2p::Multiaddr;
use multinodes_behaviour::{NameError, RecordError, names};

use super::{MAX_ALL_LABELS, MAX_INTERFACE_NAME, MAX_INTERFACES, MAX_LABEL, MAX_LABELS, MAX_NODE_NAME};
use crate::{
    addresses::JoinError, driver::DriverError, factories::FactoryError, identity::IdentityError, permissions::RuleError,
};

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The name cannot be a node's.
    #[error("`{name}` cannot name a node: {reason}; 1 to {MAX_NODE_NAME} bytes of {} can", names::RULE)]
    Name {
        /// The name, shortened.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A label is too long, or its key is of no use.
    #[error(
        "`{key}` cannot be a label: a key of 1 to {MAX_LABEL} bytes without white space and `=`, and a value of at most {MAX_LABEL} bytes can"
    )]
    Label {
        /// Its key, shortened.
        key: String,
    },
    /// There are too many labels.
    #[error("{count} labels with {size} bytes are too many: {MAX_LABELS} with {MAX_ALL_LABELS} bytes are allowed")]
    Labels {
        /// How many.
        count: usize,
        /// Keys and values, in bytes.
        size: usize,
    },
    /// A network interface cannot be called so.
    #[error(
        "`{name}` cannot be the name of a network interface, such as eth0: 1 to {MAX_INTERFACE_NAME} bytes without `/` can"
    )]
    Interface {
        /// The name, shortened.
        name: String,
    },
    /// Too many network interfaces are named.
    #[error("{count} network interfaces are too many: {MAX_INTERFACES} are allowed")]
    Interfaces {
        /// How many.
        count: usize,
    },
    /// The name cannot be a swarm's.
    #[error(transparent)]
    Swarm(#[from] NameError),
    /// An address to listen on is malformed.
    #[error("`{address}` is no multiaddress to listen on, such as /ip4/0.0.0.0/tcp/4001: {reason}")]
    Listen {
        /// As it was given.
        address: String,
        /// What is wrong with it.
        reason: String,
    },
    /// In a private swarm, an address is of a kind that no secret can guard.
    #[error(
        "`{address}` cannot be used in a private swarm: its secret guards plain TCP only, such as /ip4/0.0.0.0/tcp/4001"
    )]
    Unguarded {
        /// The address to listen on or to join through.
        address: Multiaddr,
    },
    /// A secret and a ticket lead into different swarms.
    #[error("a secret was given, and then a ticket to a swarm with another one, or with none: which is meant?")]
    Torn,
    /// The labels of the ticket cannot be shown to peers.
    #[error("the labels of the ticket cannot be shown to peers: {0}")]
    Credential(RecordError),
    /// A rule for connections is none.
    #[error(transparent)]
    Rule(RuleError),
    /// An address to join through is malformed.
    #[error(transparent)]
    Join(JoinError),
    /// The marks make no sense.
    #[error("{low} and {high} cannot be the low and the high mark of connections: 1 <= low < high is needed")]
    Marks {
        /// The low mark.
        low: usize,
        /// The high mark.
        high: usize,
    },
    /// The largest message is too small or too large.
    #[error("{size} bytes cannot be the largest message: 1 KiB to 1 GiB can")]
    MaxMessage {
        /// In bytes.
        size: usize,
    },
    /// A factory cannot be offered.
    #[error(transparent)]
    Factory(#[from] FactoryError),
    /// The identity file cannot be used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The folder for code cannot be this node's.
    #[cfg(feature = "wasm")]
    #[error(transparent)]
    DataFolder(#[from] crate::code::DataFolderError),
    /// The network cannot be started, for example because a port is taken.
    #[error(transparent)]
    Network(#[from] DriverError),
}
