//! What was said of a node is resolved and checked here, and nowhere else.

use std::collections::BTreeMap;

use libp2p::{Multiaddr, multiaddr::Protocol};
use multinodes_behaviour::{Privacy, SwarmName, names};

use super::{
    Builder, MAX_ALL_LABELS, MAX_INTERFACE_NAME, MAX_INTERFACES, MAX_LABEL, MAX_LABELS, MAX_NODE_NAME, StartError,
};
use crate::{
    addresses, core::Settings, factories::Factories, identity::Identity, permissions::RuleError,
    random_name::random_name, rendezvous,
};

/// A largest message above this would not fit a frame.
const LARGEST_MAX_MESSAGE: usize = 1024 * 1024 * 1024;

impl Builder {
    /// Checks everything, and gives what a node is started with.
    pub(crate) fn resolve(self) -> Result<(Settings, Identity, Factories), StartError> {
        let name = names::into_normal(self.name.unwrap_or_else(random_name));
        if let Err(error) = names::check_node(&name, MAX_NODE_NAME) {
            return Err(StartError::Name { name: error.name().to_owned(), reason: error.reason().to_owned() });
        }
        if name.parse::<libp2p::PeerId>().is_ok() {
            return Err(StartError::Name { name, reason: "it is a peer id".to_owned() });
        }
        check_labels(&self.labels)?;
        check_interfaces(&self.interfaces)?;
        if let Some(rule) = self.wishes.allow.iter().chain(&self.wishes.deny).find(|rule| rule.is_about_requests()) {
            return Err(StartError::Rule(RuleError::Request { rule: format!("{rule:?}") }));
        }
        if self.torn {
            return Err(StartError::Torn);
        }
        let swarm: SwarmName = self.swarm.parse()?;
        let listen = match (&self.listen[..], self.passive) {
            ([], true) => Vec::new(),
            ([], false) => vec![any_port(Protocol::Ip4([0; 4].into())), any_port(Protocol::Ip6([0; 16].into()))],
            (given, _) => given.iter().map(|address| listen_address(address)).collect::<Result<_, _>>()?,
        };
        for address in &self.join {
            addresses::parse_join(address).map_err(StartError::Join)?;
        }
        let privacy = self.secret.as_ref().map(|secret| secret.privacy(&swarm));
        if privacy.is_some() {
            let joins = self.join.iter().filter_map(|text| text.trim().parse().ok());
            if let Some(address) = joins.chain(listen.iter().cloned()).find(|address| !is_guarded(address)) {
                return Err(StartError::Unguarded { address });
            }
        }
        let (low_mark, high_mark) = self.marks;
        if low_mark == 0 || high_mark <= low_mark {
            return Err(StartError::Marks { low: low_mark, high: high_mark });
        }
        if !(1024..=LARGEST_MAX_MESSAGE).contains(&self.max_message) {
            return Err(StartError::MaxMessage { size: self.max_message });
        }
        let factories = Factories::new(self.factories, self.passive)?;
        let identity = match (self.identity, self.keypair) {
            (_, Some(keypair)) => Identity::given(keypair),
            (Some(path), None) => Identity::from_file(&path)?,
            (None, None) => Identity::ephemeral(),
        };
        let peer_id = identity.keypair.public().to_peer_id();
        let credential = self.grant.as_ref().map(|grant| grant.claim(&swarm, &peer_id));
        // Who listens only within the process is found by nobody else.
        let within = !listen.is_empty() && listen.iter().all(is_memory);
        let mark = privacy.as_ref().map_or(swarm.as_str(), Privacy::mark);
        let rendezvous = self.rendezvous.then(|| match (self.rendezvous_folder, &self.runtime_folder) {
            (Some(folder), _) => folder,
            (None, Some(below)) => rendezvous::folder_in(below, mark),
            (None, None) => rendezvous::default_folder(mark),
        });
        let settings = Settings {
            name,
            labels: self.labels,
            swarm,
            secret: self.secret,
            privacy,
            listen,
            join: self.join,
            resolver: addresses::Resolver::default(),
            mdns: self.mdns && !within,
            interfaces: self.interfaces,
            kademlia: self.kademlia,
            rendezvous: rendezvous.filter(|_| !within),
            passive: self.passive,
            low_mark,
            high_mark,
            max_message: self.max_message,
            drain_timeout: self.drain_timeout,
            grant: self.grant,
            credential: credential.transpose().map_err(StartError::Credential)?,
        };
        Ok((settings, identity, factories))
    }
}

fn check_labels(labels: &BTreeMap<String, String>) -> Result<(), StartError> {
    let unfit = |character: char| character.is_control() || character.is_whitespace() || character == '=';
    for (key, value) in labels {
        let fits = (1..=MAX_LABEL).contains(&key.len()) && !key.contains(unfit) && value.len() <= MAX_LABEL;
        if !fits {
            return Err(StartError::Label { key: key.chars().take(80).collect() });
        }
    }
    let size = labels.iter().map(|(key, value)| key.len() + value.len()).sum();
    if labels.len() > MAX_LABELS || size > MAX_ALL_LABELS {
        return Err(StartError::Labels { count: labels.len(), size });
    }
    Ok(())
}

fn check_interfaces(names: &[String]) -> Result<(), StartError> {
    if names.len() > MAX_INTERFACES {
        return Err(StartError::Interfaces { count: names.len() });
    }
    let unfit = |character: char| character.is_control() || character == '/';
    match names.iter().find(|name| !(1..=MAX_INTERFACE_NAME).contains(&name.len()) || name.contains(unfit)) {
        Some(name) => Err(StartError::Interface { name: name.chars().take(80).collect() }),
        None => Ok(()),
    }
}

fn any_port(host: Protocol<'static>) -> Multiaddr {
    Multiaddr::from(host).with(Protocol::Tcp(0))
}

fn listen_address(text: &str) -> Result<Multiaddr, StartError> {
    text.parse().map_err(|error: libp2p::multiaddr::Error| StartError::Listen {
        address: text.to_owned(),
        reason: error.to_string(),
    })
}

fn is_memory(address: &Multiaddr) -> bool {
    matches!(address.iter().next(), Some(Protocol::Memory(_)))
}

/// Whether a secret can guard what is said there: memory, or TCP with nothing on top.
fn is_guarded(address: &Multiaddr) -> bool {
    let (address, _) = addresses::without_peer(address.clone());
    let parts: Vec<_> = address.iter().collect();
    matches!(parts[..], [Protocol::Memory(_)] | [_, Protocol::Tcp(_)] | [Protocol::Ip6zone(_), _, Protocol::Tcp(_)])
}
