//! Which of the candidates gets a message.

use std::sync::Arc;

use libp2p::PeerId;
use rand::Rng;

use crate::{
    call_error::CallError,
    core::Core,
    description::{Host, NodeInfo},
    registry::Hosted,
};

/// Says of a host whether it may get a message.
pub(crate) type Filter = Arc<dyn Fn(&Host) -> bool + Send + Sync>;

/// Who gets the message.
pub(crate) enum Target {
    /// The application that is hosted here.
    Here(Arc<Hosted>),
    /// The application that this remote node hosts.
    There(Arc<NodeInfo>),
}

impl Target {
    pub(crate) fn peer_id(&self, core: &Core) -> PeerId {
        match self {
            Self::Here(_) => core.peer_id,
            Self::There(info) => info.peer_id,
        }
    }
}

/// Nobody can get the message, as far as is known now.
pub(crate) enum Nobody {
    /// More may become known: say this if it does not.
    Yet(CallError),
    /// Knowing more does not help.
    Ever(CallError),
}

/// Picks one host of an application: this node if it hosts it, else a remote one at random. Hosts in `tried` are out.
pub(crate) fn pick(
    core: &Core,
    application: &str,
    filter: Option<&Filter>,
    tried: &[PeerId],
) -> Result<Target, Nobody> {
    let here = core.registry.find(application);
    if let Some(hosted) = here.as_ref().filter(|_| !tried.contains(&core.peer_id)) {
        let fits = filter.is_none_or(|filter| filter(&core.local_host(hosted)));
        if fits {
            return Ok(Target::Here(hosted.clone()));
        }
    }
    let snapshot = core.snapshot.load();
    let hosts = snapshot.by_application.get(application).map(|hosts| &hosts[..]).unwrap_or_default();
    let fits = |host: &Host| !host.local && !tried.contains(&host.peer_id) && filter.is_none_or(|filter| filter(host));
    match at_random(hosts, fits) {
        Some(host) => Ok(Target::There(host.info.clone())),
        None => {
            let remote = hosts.iter().filter(|host| !host.local).count();
            Err(Nobody::Yet(nobody(application, remote + usize::from(here.is_some()))))
        }
    }
}

/// The application on the node that has this peer id.
pub(crate) fn at(core: &Core, application: &str, peer_id: PeerId) -> Result<Target, CallError> {
    let target = if peer_id == core.peer_id {
        here(core, application)
    } else {
        match core.snapshot.load().by_peer.get(&peer_id) {
            Some(info) => Ok(Target::There(info.clone())),
            None => Err(Nobody::Yet(CallError::NoSuchNode { node: peer_id.to_base58() })),
        }
    };
    target.map_err(|(Nobody::Yet(error) | Nobody::Ever(error))| error)
}

/// Finds the node that is meant by a name or a peer id.
pub(crate) fn resolve(core: &Core, application: &str, node: &str) -> Result<Target, Nobody> {
    if let Ok(peer_id) = node.parse::<PeerId>() {
        if peer_id == core.peer_id {
            return here(core, application);
        }
        let snapshot = core.snapshot.load();
        return match snapshot.by_peer.get(&peer_id) {
            Some(info) => Ok(Target::There(info.clone())),
            None => Err(Nobody::Yet(CallError::NoSuchNode { node: node.to_owned() })),
        };
    }
    let snapshot = core.snapshot.load();
    let known = snapshot.by_name.get(node).map(Vec::as_slice).unwrap_or_default();
    // This node's own name counts before the directory has it.
    let own =
        core.settings.name == node && !core.settings.passive && !known.iter().any(|info| info.peer_id == core.peer_id);
    match (known, own) {
        ([], false) => Err(Nobody::Yet(CallError::NoSuchNode { node: node.to_owned() })),
        ([], true) => here(core, application),
        ([info], false) if info.peer_id == core.peer_id => here(core, application),
        ([info], false) => Ok(Target::There(info.clone())),
        _ => {
            let peer_ids = known.iter().map(|info| info.peer_id).chain(own.then_some(core.peer_id)).collect();
            Err(Nobody::Ever(CallError::AmbiguousName { name: node.to_owned(), peer_ids }))
        }
    }
}

fn here(core: &Core, application: &str) -> Result<Target, Nobody> {
    match core.registry.find(application) {
        Some(hosted) => Ok(Target::Here(hosted)),
        None => Err(Nobody::Ever(CallError::NoSuchApplication {
            application: application.to_owned(),
            node: Some(core.settings.name.clone()),
        })),
    }
}

fn nobody(application: &str, hosts: usize) -> CallError {
    let application = application.to_owned();
    if hosts > 0 {
        CallError::NoMatch { application, hosts }
    } else {
        CallError::NoSuchApplication { application, node: None }
    }
}

/// One of those that fit, each with the same chance: the first that fits from a random place on would favour those
/// behind a gap, so a few random places are tried first.
fn at_random(hosts: &[Arc<Host>], fits: impl Fn(&Host) -> bool) -> Option<&Arc<Host>> {
    const TRIES: usize = 4;
    if hosts.is_empty() {
        return None;
    }
    let mut random = rand::rng();
    for _ in 0..TRIES {
        let host = &hosts[random.random_range(0..hosts.len())];
        if fits(host) {
            return Some(host);
        }
    }
    let fitting: Vec<_> = hosts.iter().filter(|host| fits(host)).collect();
    (!fitting.is_empty()).then(|| fitting[random.random_range(0..fitting.len())])
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use serde_json::json;

    use super::*;
    use crate::description::tests::host;

    fn counts(mut pick: impl FnMut() -> String, rounds: usize) -> HashMap<String, usize> {
        let mut counts = HashMap::new();
        for _ in 0..rounds {
            *counts.entry(pick()).or_default() += 1;
        }
        counts
    }

    #[test]
    fn every_host_that_fits_is_picked_about_as_often() {
        let hosts: Vec<_> = (0..10).map(|number| Arc::new(host(&format!("n{number}"), json!({"n": number})))).collect();
        let fits = |host: &Host| host.description["n"].as_i64() > Some(6);
        let counts = counts(|| at_random(&hosts, fits).unwrap().node.clone(), 3000);
        assert_eq!(counts.len(), 3, "{counts:?}");
        assert!(counts.values().all(|count| (800..1200).contains(count)), "{counts:?}");
        assert!(at_random(&hosts, |_| false).is_none());
        assert!(at_random(&[], |_| true).is_none());
    }
}
