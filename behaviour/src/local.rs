//! Finds nodes of the same LAN by mDNS.
//!
//! libp2p's own behaviour is wrapped, for five reasons that were measured or read in its source:
//!
//! 1. It speaks IPv4 or IPv6, never both: here are two of it.
//! 2. Started before a listen address is known, it answers the first question with nothing, and the next one comes half
//!    a second later. Here it starts when there is something to say, and discovery takes ten milliseconds.
//! 3. Where UDP port 5353 cannot be shared, or multicast not be sent, it is deaf for ever and tells only the log. Here
//!    that is tested first, told once with what to do, and tried again.
//! 4. Its tables grow with whatever is heard. Here they are bounded.
//! 5. An answer to somebody else puts off its next question by a whole minute, even its very first: who starts while
//!    others talk asks nobody, and is heard by nobody. Here it is asked again while few have been found.
//!
//! A passive node starts at once: it has no listen addresses, so its answers contain none, and nobody finds it.

mod probe;
mod question;

use std::{
    collections::{HashMap, VecDeque},
    future::Future,
    net::IpAddr,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use libp2p::{
    Multiaddr, PeerId,
    core::{
        Endpoint,
        transport::{ListenerId, PortUse},
    },
    mdns,
    multiaddr::Protocol,
    swarm::{
        ConnectionDenied, ConnectionId, ExpiredListenAddr, FromSwarm, NetworkBehaviour, NewListenAddr, THandler,
        THandlerInEvent, THandlerOutEvent, ToSwarm, dummy,
    },
};
use tokio::time::{Instant, Sleep, sleep_until};

use probe::{Family, ProbeError};
use question::Questions;

/// The default of five minutes would leave a node alone for as long after a lost packet; a question costs 33 bytes, and
/// an answer to anybody puts everybody's next question off.
const QUERY_INTERVAL: Duration = Duration::from_secs(60);

/// Two lost answers in a row are not yet a lost node.
const TTL: Duration = Duration::from_secs(3 * 60);

/// When no address is known after this time (a node that listens on loopback only), finding others is still worth it.
const LATEST_START: Duration = Duration::from_secs(1);

/// Port 5353 may become free, and a network may come up.
const RETRY: Duration = Duration::from_secs(10);

/// A LAN with more libp2p programs needs other ways of finding.
const MAX_PEERS: usize = 512;

/// A host with more addresses does not need them all.
const MAX_ADDRESSES: usize = 16;

/// Who has heard of so many asks no further question: they, or those whom they know, tell of the rest. So the questions of
/// a crowd that starts at once stay few.
const ENOUGH: usize = 8;

/// Above this the table inside libp2p's behaviour is thrown away: somebody is flooding the LAN.
const MAX_HEARD: usize = 2 * MAX_PEERS * MAX_ADDRESSES;

/// Finds nodes of the same LAN.
pub struct Behaviour {
    peer_id: PeerId,
    passive: bool,
    sources: [Source; 2],
    listening: Vec<(ListenerId, Multiaddr)>,
    found: HashMap<PeerId, Vec<Multiaddr>>,
    events: VecDeque<Event>,
    degraded: bool,
    /// When sources that do not run are tried next; set by the first poll, for it needs the runtime.
    timer: Option<Pin<Box<Sleep>>>,
    questions: Questions,
}

/// What was found, or why nothing can be.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// Addresses of libp2p programs on the LAN, maybe strangers: neither loopback nor link-local IPv6, without peer id.
    Found(Vec<(PeerId, Multiaddr)>),
    /// Programs that have not answered for minutes. They may still be well.
    Silent(Vec<PeerId>),
    /// Multicast does not work here; said once.
    Degraded {
        /// What does not work, and the remedy.
        reason: String,
    },
}

/// mDNS over one family of addresses.
struct Source {
    family: Family,
    running: Option<mdns::tokio::Behaviour>,
    /// It could not be started; it is tried again by the timer only.
    failed: bool,
}

impl Behaviour {
    /// Creates the behaviour. It starts when the first address that others can reach is known.
    #[must_use]
    pub fn new(peer_id: PeerId, passive: bool) -> Self {
        let source = |family| Source { family, running: None, failed: false };
        Self {
            peer_id,
            passive,
            sources: [source(Family::V4), source(Family::V6)],
            listening: Vec::new(),
            found: HashMap::new(),
            events: VecDeque::new(),
            degraded: false,
            timer: None,
            questions: Questions::default(),
        }
    }

    /// Starts what has an address of its family. With `retry` also what has failed before, and if there are no addresses
    /// at all, everything.
    fn start(&mut self, retry: bool) {
        let blind = retry && self.listening.iter().all(|(_, address)| Family::reachable(address).is_none());
        for index in 0..self.sources.len() {
            let source = &self.sources[index];
            let address = self.listening.iter().find_map(|(_, address)| source.family.reachable_ip(address));
            if source.running.is_some() || (source.failed && !retry) || (address.is_none() && !blind) {
                continue;
            }
            let family = source.family;
            match self.running(family, address) {
                Ok(running) => {
                    tracing::debug!(%family, "multicast discovery started");
                    self.sources[index] = Source { family, running: Some(running), failed: false };
                    self.questions.begin();
                }
                Err(error) => {
                    tracing::debug!(%family, %error, "multicast discovery does not start");
                    self.sources[index].failed = true;
                    self.on_failure(family, &error);
                }
            }
        }
    }

    fn running(&self, family: Family, address: Option<IpAddr>) -> Result<mdns::tokio::Behaviour, ProbeError> {
        family.probe(address)?;
        let config = mdns::Config { ttl: TTL, query_interval: QUERY_INTERVAL, enable_ipv6: family == Family::V6 };
        let mut running = mdns::tokio::Behaviour::new(config, self.peer_id).map_err(ProbeError::Interfaces)?;
        for (listener_id, address) in &self.listening {
            let event = NewListenAddr { listener_id: *listener_id, addr: address };
            running.on_swarm_event(FromSwarm::NewListenAddr(event));
        }
        Ok(running)
    }

    /// A host without IPv6 is not worth a word as long as IPv4 works.
    fn on_failure(&mut self, family: Family, error: &ProbeError) {
        let matters = family == Family::V4 || self.sources.iter().all(|source| source.failed);
        if matters && !self.degraded {
            self.degraded = true;
            let reason = format!("nodes of this network cannot be found by multicast: {error}");
            self.events.push_back(Event::Degraded { reason });
        }
    }

    fn on_timer(&mut self, context: &mut Context<'_>) {
        let first = if self.passive { Duration::ZERO } else { LATEST_START };
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + first)));
        if timer.as_mut().poll(context).is_pending() {
            return;
        }
        while timer.as_mut().poll(context).is_ready() {
            timer.as_mut().reset(Instant::now() + RETRY);
        }
        self.start(true);
    }

    /// Polls the sources until one has found something.
    fn poll_sources(&mut self, context: &mut Context<'_>) {
        for index in 0..self.sources.len() {
            while let Some(running) = &mut self.sources[index].running {
                match running.poll(context) {
                    Poll::Ready(ToSwarm::GenerateEvent(mdns::Event::Discovered(list))) => self.on_discovered(list),
                    Poll::Ready(ToSwarm::GenerateEvent(mdns::Event::Expired(list))) => self.on_expired(&list),
                    // What it would tell the other behaviours is not filtered by scope; the driver tells them.
                    Poll::Ready(_) => {}
                    Poll::Pending => break,
                }
                self.bound(index);
            }
        }
    }

    fn poll_questions(&mut self, context: &mut Context<'_>) {
        while self.questions.is_due(context) {
            if self.found.len() < ENOUGH {
                let families = self.sources.iter().filter(|source| source.running.is_some());
                families.for_each(|source| source.family.ask());
            }
        }
    }

    fn bound(&mut self, index: usize) {
        let source = &mut self.sources[index];
        if source.running.as_ref().is_some_and(|running| running.discovered_nodes().len() > MAX_HEARD) {
            tracing::warn!(family = %source.family, "multicast discovery is flooded, and starts anew");
            silence(source.running.take(), &self.listening);
            source.failed = true;
            self.found.clear();
        }
    }

    fn on_discovered(&mut self, list: Vec<(PeerId, Multiaddr)>) {
        let mut found = Vec::new();
        for (peer_id, address) in list {
            let address = without_peer_id(address);
            if Family::reachable(&address).is_none() {
                continue;
            }
            if self.found.len() >= MAX_PEERS && !self.found.contains_key(&peer_id) {
                tracing::debug!(%peer_id, "too many peers on this network, one more is ignored");
                continue;
            }
            let addresses = self.found.entry(peer_id).or_default();
            if addresses.len() < MAX_ADDRESSES && !addresses.contains(&address) {
                addresses.push(address.clone());
                found.push((peer_id, address));
            }
        }
        if !found.is_empty() {
            self.events.push_back(Event::Found(found));
        }
    }

    /// Makes room: a node that no longer answers multicast may be well, and a dead one is noticed by its connection.
    fn on_expired(&mut self, list: &[(PeerId, Multiaddr)]) {
        let mut silent = Vec::new();
        for (peer_id, address) in list {
            let address = without_peer_id(address.clone());
            if let Some(addresses) = self.found.get_mut(peer_id) {
                addresses.retain(|other| *other != address);
                if addresses.is_empty() {
                    self.found.remove(peer_id);
                    silent.push(*peer_id);
                }
            }
        }
        if !silent.is_empty() {
            self.events.push_back(Event::Silent(silent));
        }
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Event;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::NewListenAddr(NewListenAddr { listener_id, addr }) => {
                self.listening.push((listener_id, addr.clone()));
            }
            FromSwarm::ExpiredListenAddr(ExpiredListenAddr { addr, .. }) => {
                self.listening.retain(|(_, address)| address != addr);
            }
            _ => return,
        }
        for running in self.sources.iter_mut().filter_map(|source| source.running.as_mut()) {
            running.on_swarm_event(event);
        }
        self.start(false);
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<ToSwarm<Event, THandlerInEvent<Self>>> {
        self.on_timer(context);
        self.poll_sources(context);
        self.poll_questions(context);
        self.events.pop_front().map_or(Poll::Pending, |event| Poll::Ready(ToSwarm::GenerateEvent(event)))
    }
}

impl Drop for Behaviour {
    fn drop(&mut self) {
        for source in &mut self.sources {
            silence(source.running.take(), &self.listening);
        }
    }
}

/// The tasks of libp2p's behaviour outlive it until they hear of somebody, and would announce a node that has stopped:
/// without addresses they have nothing to announce.
fn silence(running: Option<mdns::tokio::Behaviour>, listening: &[(ListenerId, Multiaddr)]) {
    if let Some(mut running) = running {
        for (listener_id, address) in listening {
            let event = ExpiredListenAddr { listener_id: *listener_id, addr: address };
            running.on_swarm_event(FromSwarm::ExpiredListenAddr(event));
        }
    }
}

/// Whether this host has a link-local address of IPv4. Asks the system, which takes some microseconds.
#[must_use]
pub fn is_on_link() -> bool {
    let is_link_local = |one: &if_addrs::Interface| matches!(one.ip(), IpAddr::V4(ip) if ip.is_link_local());
    if_addrs::get_if_addrs().is_ok_and(|all| all.iter().any(is_link_local))
}

fn without_peer_id(mut address: Multiaddr) -> Multiaddr {
    if matches!(address.iter().last(), Some(Protocol::P2p(_))) {
        address.pop();
    }
    address
}

#[cfg(test)]
mod tests;
