//! Keys that several processes use at once, as this node has seen.

use libp2p::PeerId;
use serde::{Deserialize, Serialize};

/// More are not remembered: the first are as telling as the rest.
const MAX_SHARED: usize = 64;

/// A key that several living processes use, such as those of a machine and its clone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SharedKey {
    /// Whose peer id it is, as text.
    pub peer_id: String,
    /// What one of them calls itself.
    pub name: String,
}

/// All of them, each once.
#[derive(Debug, Default)]
pub(crate) struct SharedKeys(Vec<SharedKey>);

impl SharedKeys {
    /// Notes one. True if that is news, and there is room.
    pub(crate) fn note(&mut self, peer_id: PeerId, name: &str) -> bool {
        let peer_id = peer_id.to_string();
        let news = self.0.len() < MAX_SHARED && self.0.iter().all(|known| known.peer_id != peer_id);
        if news {
            self.0.push(SharedKey { peer_id, name: name.to_owned() });
        }
        news
    }

    pub(crate) fn all(&self) -> Vec<SharedKey> {
        self.0.clone()
    }
}
