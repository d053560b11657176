//! What `multinodes doctor` needs to see of the inside; no part of what is promised.

mod overhearing;
mod reach;

use std::path::Path;

use libp2p::{Multiaddr, PeerId};
pub use multinodes_behaviour::local::interfaces::{Interface, LeftOut, survey as interfaces};

pub use self::{
    overhearing::{Overheard, overhear},
    reach::{Answer, NoAnswer, ReachError},
};
pub use crate::rendezvous::inspection::{FoundNote, Inspection, State as FolderState};
use crate::{
    addresses,
    builder::{Builder, StartError},
    core::Settings,
    identity::{Identity, IdentityError},
    rendezvous::{self, inspection},
};

/// The settings of a node that is not started.
pub struct Diagnosis {
    settings: Settings,
}

/// A place where somebody is said to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Where.
    pub address: Multiaddr,
    /// Who should be there, if that is known.
    pub peer_id: Option<PeerId>,
}

impl Diagnosis {
    /// Checks the settings as starting a node does.
    ///
    /// # Errors
    ///
    /// Those of starting, except for what the network would say.
    pub fn of(builder: Builder) -> Result<Self, StartError> {
        let (settings, ..) = builder.resolve()?;
        Ok(Self { settings })
    }

    /// Looks at the rendezvous folder; `None` if it is switched off. To be done before a node starts, which makes it.
    #[must_use]
    pub fn rendezvous(&self) -> Option<Inspection> {
        let folder = self.settings.rendezvous.as_deref()?;
        let token = addresses::host_token(Some(folder));
        let host = token.map(|token| token.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
        Some(inspection::inspect(folder, self.settings.mark(), host.as_deref()))
    }

    /// The places to join through, names resolved: each with the text that it comes from, or why it leads nowhere.
    pub async fn joins(&self) -> Vec<(String, Result<Vec<Place>, String>)> {
        let mut joins = Vec::new();
        for text in &self.settings.join {
            let places = match addresses::parse_join(text) {
                Ok(join) => {
                    join.resolve(&self.settings.resolver).await.map_err(|error| error.to_string()).map(|resolved| {
                        let place = |address| Place { address, peer_id: join.peer_id() };
                        resolved.into_iter().map(place).collect()
                    })
                }
                Err(error) => Err(error.to_string()),
            };
            joins.push((text.clone(), places));
        }
        joins
    }
}

/// That `$XDG_RUNTIME_DIR` is of no use, and which folder is used instead.
#[must_use]
pub fn unusable_runtime() -> Option<String> {
    rendezvous::unusable_runtime()
}

/// Whether this host may dial `address` of a node that may be elsewhere.
#[must_use]
pub fn is_dialable(address: &Multiaddr, same_host: bool) -> bool {
    addresses::usable(address, same_host)
}

/// The most connections that a node may come to have at a time, unless its marks are set.
#[must_use]
pub fn most_connections() -> usize {
    multinodes_behaviour::limits::most(crate::builder::DEFAULT_HIGH_MARK)
}

/// Whether only hosts on the same link can dial `address`.
#[must_use]
pub fn is_of_link(address: &Multiaddr) -> bool {
    addresses::is_of_link(address)
}

/// Reads an identity file as a node does, and lets it go again.
///
/// # Errors
///
/// It cannot be used, or is in use.
pub fn identity(path: &Path) -> Result<PeerId, IdentityError> {
    Identity::from_file(path).map(|identity| identity.keypair.public().to_peer_id())
}

/// Whose key is in an identity file, also while a node uses it.
#[must_use]
pub fn holder(path: &Path) -> Option<PeerId> {
    crate::identity::peek(path)
}
