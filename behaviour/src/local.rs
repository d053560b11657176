//! Finds nodes of the same LAN by mDNS, as libp2p specifies it.
//!
//! Not by libp2p's own behaviour, for reasons that were measured or read in its source:
//!
//! 1. It opens a socket for each interface, and Linux gives each of them every multicast packet of the host: with the number
//!    of interfaces its work grows with the square, on the task of the swarm. Here one socket of each family, or a few,
//!    listen on all interfaces, on a task of their own, and those behind which is nobody but this host are left out.
//! 2. It speaks IPv4 or IPv6, never both, and of IPv6 on one interface alone.
//! 3. Where UDP port 5353 cannot be shared, or multicast not be sent, it is deaf for ever and tells only the log. Here that
//!    is told once with what to do, and tried again.
//! 4. Its tables grow with whatever is heard. Here they are bounded, and so is what is read.
//! 5. An answer to somebody else puts off its next question by a whole minute, even its very first: who starts while
//!    others talk asks nobody, and is heard by nobody. Here it is asked again while few have been found.
//! 6. Link-local addresses of IPv6 come without the zone that whoever dials them needs.
//!
//! A passive node has no listen addresses, so it answers nobody, and nobody finds it.

mod family;
pub mod interfaces;
mod lan;
mod packet;
mod sockets;
mod table;
mod way;

use std::{
    future::Future,
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
    swarm::{
        ConnectionDenied, ConnectionId, ExpiredListenAddr, FromSwarm, NetworkBehaviour, NewListenAddr, THandler,
        THandlerInEvent, THandlerOutEvent, ToSwarm, dummy,
    },
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::{Instant, Sleep, sleep_until},
};

use lan::Lan;

/// When no address is known after this time (a node that listens on loopback only), finding others is still worth it.
const LATEST_START: Duration = Duration::from_secs(1);

/// If the task has failed, another one is started.
const RETRY: Duration = Duration::from_secs(10);

/// What was found and not taken; until it is, nothing more is read.
const MAX_EVENTS: usize = 64;

/// Finds nodes of the same LAN.
pub struct Behaviour {
    peer_id: PeerId,
    interfaces: Vec<String>,
    listening: Vec<(ListenerId, Multiaddr)>,
    told: watch::Sender<Vec<Multiaddr>>,
    asking: Option<Asking>,
    /// How long nothing is asked while no address is known.
    patience: Duration,
    /// When it is asked in any case; set by the first poll, for it needs the runtime.
    timer: Option<Pin<Box<Sleep>>>,
    /// The task has failed, and another one waits for the timer.
    has_failed: bool,
}

/// What was found, or why nothing can be.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// Addresses of libp2p programs on the LAN, maybe strangers: no loopback ones, and without peer id. Link-local ones of
    /// IPv6 begin with the zone, `/ip6zone/eth0/ip6/fe80::1/..`.
    Found(Vec<(PeerId, Multiaddr)>),
    /// Programs that have not answered for minutes. They may still be well.
    Silent(Vec<PeerId>),
    /// Multicast does not work here; said once.
    Degraded {
        /// What does not work, and the remedy.
        reason: String,
    },
}

/// The task, which ends with this.
struct Asking {
    task: JoinHandle<()>,
    reports: mpsc::Receiver<Event>,
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Behaviour {
    /// Creates the behaviour. It starts when the first address that others can reach is known, when [`ask`](Self::ask) is
    /// called, or after a second. It asks on the `interfaces` with these names, or if there are none on those behind which others
    /// may be, see [`interfaces::survey`].
    #[must_use]
    pub fn new(peer_id: PeerId, interfaces: Vec<String>) -> Self {
        let told = watch::Sender::new(Vec::new());
        Self {
            peer_id,
            interfaces,
            listening: Vec::new(),
            told,
            asking: None,
            patience: LATEST_START,
            timer: None,
            has_failed: false,
        }
    }

    /// Asks only after so long, unless it has begun already, an address comes to be known, or [`ask`](Self::ask) is called.
    pub fn postpone(&mut self, patience: Duration) {
        self.patience = patience;
        self.timer = None;
    }

    /// Begins to ask, unless it has begun already. Tells whether it has only now.
    pub fn ask(&mut self) -> bool {
        let begins = self.asking.is_none() && self.patience > Duration::ZERO;
        self.postpone(Duration::ZERO);
        begins
    }

    fn tell(&mut self) {
        self.told.send_replace(self.listening.iter().map(|(_, address)| address.clone()).collect());
    }

    fn is_due(&mut self, context: &mut Context<'_>) -> bool {
        let is_reachable = || self.listening.iter().any(|(_, address)| family::reachable(address).is_some());
        if !self.has_failed && (self.patience.is_zero() || is_reachable()) {
            return true;
        }
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + self.patience)));
        timer.as_mut().poll(context).is_ready()
    }

    fn start(&mut self) {
        tracing::debug!("multicast discovery starts");
        let (sender, reports) = mpsc::channel(MAX_EVENTS);
        let lan = Lan::new(self.peer_id, self.interfaces.clone(), self.told.borrow().clone());
        let task = tokio::spawn(lan.run(self.told.subscribe(), sender));
        self.has_failed = false;
        self.asking = Some(Asking { task, reports });
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
                self.tell();
            }
            FromSwarm::ExpiredListenAddr(ExpiredListenAddr { listener_id, addr }) => {
                self.listening.retain(|(listener, address)| *listener != listener_id || address != addr);
                self.tell();
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<ToSwarm<Event, THandlerInEvent<Self>>> {
        loop {
            let Some(asking) = &mut self.asking else {
                if !self.is_due(context) {
                    return Poll::Pending;
                }
                self.start();
                continue;
            };
            match asking.reports.poll_recv(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(event)) => return Poll::Ready(ToSwarm::GenerateEvent(event)),
                Poll::Ready(None) => {
                    tracing::warn!("multicast discovery has failed, and starts again");
                    self.asking = None;
                    self.has_failed = true;
                    self.timer = Some(Box::pin(sleep_until(Instant::now() + RETRY)));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
