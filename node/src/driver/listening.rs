//! Where this node listens, and who is told.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv6Addr, TcpListener},
    time::Duration,
};

use futures::{FutureExt, StreamExt};
use libp2p::{Multiaddr, core::transport::ListenerId, multiaddr::Protocol};

use super::{Driver, DriverError};
use crate::{addresses, rendezvous::Note};

/// A listener reports its first address within a millisecond, unless the host has none.
const REPORT_LIMIT: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Listening {
    /// The listeners, and the index of the address that each was asked for.
    listeners: HashMap<ListenerId, usize>,
    /// Those that have not yet said where they listen.
    silent: Vec<ListenerId>,
    failure: Option<io::Error>,
    /// The ports that were given, so that a network which is built anew is found where it was.
    ports: Vec<Option<u16>>,
    pub(super) addresses: Vec<Multiaddr>,
    /// All that was asked for is there; from now on each change is told.
    pub(super) complete: bool,
}

impl Listening {
    pub(super) fn new(count: usize) -> Self {
        Self {
            listeners: HashMap::new(),
            silent: Vec::new(),
            failure: None,
            ports: vec![None; count],
            addresses: Vec::new(),
            complete: false,
        }
    }
}

impl Driver {
    /// Listens on all addresses of the settings, and waits until it is known what came of it.
    pub(super) async fn listen(&mut self, again: bool) -> Result<(), DriverError> {
        self.listening.listeners.clear();
        self.listening.silent.clear();
        self.listening.addresses.clear();
        let wanted = self.core.settings.listen.clone();
        // All before the first: one that is listened on would stand in the way of testing the same port over IPv6.
        for address in wanted.iter().filter(|_| !again) {
            test_port(address).map_err(|source| DriverError::Listen { address: address.clone(), source })?;
        }
        for (index, address) in wanted.iter().enumerate() {
            self.listen_on(index, address, wanted.len() > 1, again)?;
        }
        let reports = async {
            while !self.listening.silent.is_empty() && self.listening.failure.is_none() {
                let event = self.swarm.select_next_some().await;
                self.on_swarm_event(event);
            }
        };
        if tokio::time::timeout(REPORT_LIMIT, reports).await.is_err() {
            tracing::warn!(?wanted, "some listeners have no address to listen on yet");
        }
        // The addresses of the other interfaces come right after the first.
        while let Some(Some(event)) = self.swarm.next().now_or_never() {
            self.on_swarm_event(event);
        }
        match self.listening.failure.take() {
            Some(source) => {
                Err(DriverError::Listen { address: wanted.first().cloned().unwrap_or_else(Multiaddr::empty), source })
            }
            None => Ok(()),
        }
    }

    fn listen_on(
        &mut self,
        index: usize,
        address: &Multiaddr,
        one_of_several: bool,
        again: bool,
    ) -> Result<(), DriverError> {
        let kept = self.listening.ports.get(index).copied().flatten().filter(|_| again);
        let same_port = kept.map(|port| with_port(address, port));
        let listener = match same_port.map(|address| self.swarm.listen_on(address)) {
            Some(Ok(listener)) => Ok(listener),
            _ => self.swarm.listen_on(address.clone()),
        };
        match listener {
            Ok(listener) => {
                self.listening.listeners.insert(listener, index);
                if !is_any_v6(address) || host_has_v6() {
                    self.listening.silent.push(listener);
                }
                Ok(())
            }
            // Hosts without IPv6 are common, and nobody asked for more than any address.
            Err(error) if is_any_v6(address) && one_of_several => {
                tracing::info!(%error, "not listening on IPv6");
                Ok(())
            }
            Err(error) => Err(DriverError::listen(address.clone(), error)),
        }
    }

    pub(super) fn on_new_address(&mut self, listener: ListenerId, address: Multiaddr) {
        self.listening.silent.retain(|silent| *silent != listener);
        let port = address.iter().find_map(|part| match part {
            Protocol::Tcp(port) | Protocol::Udp(port) => Some(port),
            _ => None,
        });
        if let (Some(index), Some(port)) = (self.listening.listeners.get(&listener), port) {
            self.listening.ports[*index] = Some(port);
        }
        let (address, _) = addresses::without_peer(address);
        if !self.listening.addresses.contains(&address) {
            tracing::debug!(%address, "listening");
            self.listening.addresses.push(address);
            self.on_addresses_changed();
        }
    }

    pub(super) fn on_expired_address(&mut self, address: &Multiaddr) {
        self.listening.addresses.retain(|other| other != address);
        self.on_addresses_changed();
    }

    pub(super) fn on_listener_closed(
        &mut self,
        listener: ListenerId,
        addresses: &[Multiaddr],
        reason: Result<(), io::Error>,
    ) {
        self.listening.silent.retain(|silent| *silent != listener);
        self.listening.addresses.retain(|address| !addresses.contains(address));
        if let Err(error) = reason {
            tracing::warn!(%error, ?addresses, "a listener has ended");
            if !self.listening.complete {
                self.listening.failure = Some(super::innermost(error));
            }
        }
        self.on_addresses_changed();
    }

    fn on_addresses_changed(&mut self) {
        if self.listening.complete && self.stopping.is_none() {
            self.refresh_addresses();
            self.announce();
        }
    }

    /// Shows readers and neighbours on this host where the node listens now.
    pub(super) fn refresh_addresses(&mut self) {
        self.core.addresses.send_replace(addresses::in_order(self.listening.addresses.iter().cloned()));
        self.leave_note();
    }

    /// This node's note for the rendezvous folder.
    pub(super) fn note(&self) -> Note {
        let dialable = self.listening.addresses.iter().filter(|address| addresses::usable(address, true)).cloned();
        Note {
            peer_id: self.core.peer_id,
            swarm: self.core.settings.mark().to_owned(),
            pid: std::process::id(),
            incarnation: self.own.incarnation,
            host: self.host_text(),
            addresses: addresses::in_order(dialable),
        }
    }

    pub(super) fn host_text(&self) -> Option<String> {
        let token = self.host.as_ref()?;
        Some(token.iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

/// libp2p shares the ports it listens on with every process of the same user that does so too, and half of the
/// connections would go there: so whether a port is free is tried first.
fn test_port(address: &Multiaddr) -> io::Result<()> {
    let mut parts = address.iter();
    let ip = match parts.next() {
        Some(Protocol::Ip4(ip)) => IpAddr::V4(ip),
        Some(Protocol::Ip6(ip)) => IpAddr::V6(ip),
        _ => return Ok(()),
    };
    match parts.next() {
        Some(Protocol::Tcp(port)) if port != 0 => match TcpListener::bind((ip, port)) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(error),
            // Whatever else is wrong, listening will tell.
            _ => Ok(()),
        },
        _ => Ok(()),
    }
}

fn with_port(address: &Multiaddr, port: u16) -> Multiaddr {
    address
        .iter()
        .map(|part| match part {
            Protocol::Tcp(0) => Protocol::Tcp(port),
            Protocol::Udp(0) => Protocol::Udp(port),
            other => other,
        })
        .collect()
}

fn is_any_v6(address: &Multiaddr) -> bool {
    matches!(address.iter().next(), Some(Protocol::Ip6(ip)) if IpAddr::V6(ip) == IpAddr::V6(Ipv6Addr::UNSPECIFIED))
}

/// A host that has switched IPv6 off would never report an address for it.
fn host_has_v6() -> bool {
    !cfg!(target_os = "linux") || std::fs::read("/proc/net/if_inet6").is_ok_and(|list| !list.is_empty())
}
