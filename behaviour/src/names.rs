//! The swarm's name, which is in every protocol id and topic: swarms of different names never mix.

use std::{fmt, str::FromStr, sync::Arc};

use libp2p::{StreamProtocol, gossipsub::IdentTopic};

/// The longest name of a swarm, in bytes.
pub const MAX_SWARM_NAME: usize = 64;

/// The name of a swarm: 1 to 64 of the characters `A-Z a-z 0-9 . _ -`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SwarmName(Arc<str>);

impl SwarmName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The protocol of lanes: calls and tells.
    #[must_use]
    pub fn lane_protocol(&self) -> StreamProtocol {
        self.protocol("lane")
    }

    /// The protocol by which neighbours level their directories.
    #[must_use]
    pub fn sync_protocol(&self) -> StreamProtocol {
        self.protocol("sync")
    }

    /// The protocol of the swarm's own Kademlia.
    #[must_use]
    pub fn kademlia_protocol(&self) -> StreamProtocol {
        self.protocol("kad")
    }

    /// What the protocols of gossip begin with: who gossips in another swarm, or in none, is never spoken to.
    #[must_use]
    pub fn gossip_protocol_prefix(&self) -> String {
        format!("/multinodes/{self}/gossip")
    }

    /// What all protocols of the swarm begin with, and no other protocol does.
    #[must_use]
    pub fn protocol_prefix(&self) -> String {
        format!("/multinodes/{self}/")
    }

    /// What identify names as its `protocol_version`: who shows another one is a stranger.
    #[must_use]
    pub fn identify_version(&self) -> String {
        format!("/multinodes/{self}/1")
    }

    /// The gossip topic of all messages that users publish, whatever their topic.
    #[must_use]
    pub fn message_topic(&self) -> IdentTopic {
        IdentTopic::new(format!("multinodes/{self}/message/1"))
    }

    /// The gossip topic of records and beats.
    #[must_use]
    pub fn gossip_topic(&self) -> IdentTopic {
        IdentTopic::new(format!("multinodes/{self}/1"))
    }

    fn protocol(&self, name: &str) -> StreamProtocol {
        StreamProtocol::try_from_owned(format!("/multinodes/{self}/{name}/1")).expect("the path begins with a slash")
    }
}

impl Default for SwarmName {
    fn default() -> Self {
        Self("default".into())
    }
}

impl FromStr for SwarmName {
    type Err = NameError;

    fn from_str(name: &str) -> Result<Self, NameError> {
        let fits = (1..=MAX_SWARM_NAME).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
        if fits { Ok(Self(name.into())) } else { Err(NameError { name: name.chars().take(80).collect() }) }
    }
}

impl fmt::Display for SwarmName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// A text that cannot name a swarm.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{name}` cannot name a swarm: 1 to 64 of the characters A-Z a-z 0-9 . _ - can")]
pub struct NameError {
    name: String,
}
