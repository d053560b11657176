//! Lanes to peers: one exchange for each peer that was talked to, opened and reopened on demand.

mod standstill;
mod told;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak, atomic::Ordering::Relaxed},
    time::Instant,
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use libp2p::PeerId;
use multinodes_behaviour::{
    lane::{
        Delivery, Exchange, Incoming, Io, LaneError, Limits, Oddities, Opener, Outgoing, Refusal, Responder, Service,
        Standstill, Tells, Unopened,
    },
    names,
    quick_hash::QuickHash,
    wire::{ErrorCode, MAX_NAME, Options},
};
use tokio::sync::oneshot;

pub(crate) use self::standstill::keep;
use self::told::{Lost, Told};
use crate::{
    application::{Origin, Watcher},
    core::{Command, Core, Counters, OpenFailure},
    crew::Job,
    payload::Payload,
    registry::{self, Hosted, draining, expired, forbidden, unknown},
};

/// The exchanges with all peers that are connected or being talked to.
pub(crate) struct Links {
    core: Weak<Core>,
    limits: Limits,
    /// Read on every call, without a lock; replaced as a whole by whoever holds `changing`.
    exchanges: ArcSwap<Exchanges>,
    changing: Mutex<Changing>,
}

/// What is only looked at when a peer comes or goes.
#[derive(Default)]
struct Changing {
    /// The node has stopped.
    stopped: bool,
    /// Of peers that are gone: who comes anew each time is counted all the same.
    past: Oddities,
    told: Told,
}

type Exchanges = HashMap<PeerId, Link, QuickHash>;

/// What there is with one peer.
#[derive(Clone)]
struct Link {
    exchange: Arc<Exchange>,
    /// The tells of the peer that were accepted here.
    tells: Arc<Tells>,
}

impl Links {
    pub(crate) fn new(core: Weak<Core>, max_message: usize) -> Self {
        let limits = Limits { standstill: Arc::new(standstill::by_system_clock()), ..Limits::new(max_message) };
        Self { core, limits, exchanges: ArcSwap::default(), changing: Mutex::default() }
    }

    /// The exchange with a peer; it connects when it is first used.
    /// `None` when the node has stopped.
    pub(crate) fn with(&self, peer_id: PeerId) -> Option<Arc<Exchange>> {
        if let Some(link) = self.exchanges.load().get(&peer_id) {
            return Some(link.exchange.clone());
        }
        let mut changing = self.changing();
        if changing.stopped {
            return None;
        }
        let mut exchanges = self.copy();
        if let Some(link) = exchanges.get(&peer_id) {
            return Some(link.exchange.clone());
        }
        let core = self.core.upgrade()?;
        let tells = changing.told.begin(&peer_id, core.incarnation.load(Relaxed));
        let service = Arc::new(Peer { core, peer_id, tells: tells.clone() });
        let exchange = Exchange::new(service.clone(), service, self.limits.clone());
        exchanges.insert(peer_id, Link { exchange: exchange.clone(), tells });
        self.exchanges.store(Arc::new(exchanges));
        Some(exchange)
    }

    /// What notices that this process stood still, to be kept by the driver.
    pub(crate) fn standstill(&self) -> Arc<Standstill> {
        self.limits.standstill.clone()
    }

    /// Casts to a peer, if nothing has to be waited for; else nothing is done.
    pub(crate) fn cast_now(
        &self,
        peer_id: &PeerId,
        head: Outgoing<'_>,
        payload: &Bytes,
    ) -> Option<Result<(), LaneError>> {
        self.exchanges.load().get(peer_id)?.exchange.cast_now(head, payload)
    }

    /// The exchange with a peer, if a message of so many bytes can go to it at once.
    pub(crate) fn open(&self, peer_id: &PeerId, size: usize) -> Option<Arc<Exchange>> {
        self.exchanges.load().get(peer_id).filter(|link| link.exchange.is_open(size)).map(|link| link.exchange.clone())
    }

    /// Runs a lane on a stream that a peer has opened.
    pub(crate) fn accept(&self, peer_id: PeerId, io: Box<dyn Io>) {
        if !self.with(peer_id).is_some_and(|exchange| exchange.accept(io)) {
            tracing::debug!(%peer_id, "lane refused: the peer has too many");
        }
    }

    /// The last connection to a peer is gone: whoever waits for it is told, and nothing of it is kept but what tells need.
    /// `live`: the incarnation in which it lives on, as far as is known.
    pub(crate) fn forget(&self, peer_id: &PeerId, live: Option<u64>) {
        let mut changing = self.changing();
        // Most nodes that are gone were never talked to, and there may be very many of them.
        let lost = if self.exchanges.load().contains_key(peer_id) {
            let mut exchanges = self.copy();
            let Some(Link { exchange, tells }) = exchanges.remove(peer_id) else { return };
            self.exchanges.store(Arc::new(exchanges));
            exchange.close();
            changing.past += exchange.oddities();
            changing.told.end(*peer_id, tells, exchange.heard(), live)
        } else {
            changing.told.on_life(peer_id, live)
        };
        drop(changing);
        self.on_lost(peer_id, lost);
    }

    /// A node lives in this incarnation: what it had accepted in an earlier one is lost.
    pub(crate) fn on_life(&self, peer_id: &PeerId, incarnation: u64) {
        let lost = self.changing().told.on_life(peer_id, Some(incarnation));
        self.on_lost(peer_id, lost);
    }

    fn on_lost(&self, peer_id: &PeerId, Lost { tells, exact }: Lost) {
        if tells == 0 {
            return;
        }
        if exact {
            tracing::warn!(%peer_id, tells, "accepted tells were not begun: their host has stopped");
        } else {
            tracing::warn!(%peer_id, at_most = tells, "accepted tells may not have been begun: their host is gone");
        }
        if let Some(core) = self.core.upgrade() {
            core.counters.lost_tells.fetch_add(tells, Relaxed);
        }
    }

    /// Whether calls to or from a peer are in flight.
    pub(crate) fn in_use(&self, peer_id: &PeerId) -> bool {
        self.exchanges.load().get(peer_id).is_some_and(|link| link.exchange.in_use())
    }

    /// Calls and tells of this node that a peer has not answered yet.
    pub(crate) fn in_flight(&self, peer_id: &PeerId) -> usize {
        self.exchanges.load().get(peer_id).map_or(0, |link| link.exchange.in_flight())
    }

    /// Tells all peers that nothing new is taken here.
    pub(crate) fn say_goodbye(&self) {
        for link in self.exchanges.load().values() {
            link.exchange.say_goodbye();
        }
    }

    /// Whether no peer asks for anything more: all have answered the goodbye.
    pub(crate) fn have_parted(&self) -> bool {
        self.exchanges.load().values().all(|link| link.exchange.has_parted())
    }

    /// Calls of all peers that run here.
    pub(crate) fn serving(&self) -> usize {
        self.exchanges.load().values().map(|link| link.exchange.serving()).sum()
    }

    /// Closes everything, after a last word on tells that are not begun, and gives what ends when all that was queued is
    /// written.
    pub(crate) fn close(&self) -> impl Future<Output = ()> + use<> {
        let mut changing = self.changing();
        changing.stopped = true;
        let exchanges = self.exchanges.swap(Arc::default());
        for Link { exchange, .. } in exchanges.values() {
            exchange.say_last_word();
            exchange.close();
            changing.past += exchange.oddities();
        }
        drop(changing);
        async move {
            for link in exchanges.values() {
                link.exchange.ended().await;
            }
        }
    }

    /// What all peers have done on their lanes that they should not have.
    pub(crate) fn oddities(&self) -> Oddities {
        let changing = self.changing();
        let mut sum = changing.past;
        for link in self.exchanges.load().values() {
            sum += link.exchange.oddities();
        }
        sum
    }

    fn copy(&self) -> Exchanges {
        Exchanges::clone(&self.exchanges.load())
    }

    fn changing(&self) -> MutexGuard<'_, Changing> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// This node's side of the exchange with one peer.
///
/// It holds the core, which holds it: [`Links::close`] breaks the circle, and a node does not end without it.
struct Peer {
    core: Arc<Core>,
    peer_id: PeerId,
    tells: Arc<Tells>,
}

impl Peer {
    fn origin(&self, deadline: Instant, trace: Option<&str>, options: Options) -> Origin {
        let (trace, depth) = (trace.map(Arc::from), options.depth());
        Origin { caller: self.peer_id, deadline, trace, watcher: Watcher::Nobody, depth }
    }

    fn may(&self, hosted: &Hosted, action: Option<&str>) -> bool {
        let may = self.core.permissions.permits(&hosted.guards, &hosted.name, action, &self.peer_id);
        if !may {
            Counters::add(&self.core.counters.forbidden_messages);
            tracing::debug!(peer_id = %self.peer_id, application = %hosted.name, action, "forbidden");
        }
        may
    }
}

impl Service for Peer {
    fn on_call(&self, call: Incoming<'_>, responder: Responder) {
        let core = &self.core;
        if core.registry.is_draining() {
            return responder.refuse(draining());
        }
        if call.deadline <= call.received {
            return responder.refuse(expired());
        }
        let Some(hosted) = core.registry.find(call.application) else {
            return responder.refuse(unknown(call.application));
        };
        if let Err(error) = names::check("an action", call.action, MAX_NAME) {
            return responder.refuse(Refusal::new(ErrorCode::NoSuchAction, error.to_string()));
        }
        if !self.may(&hosted, Some(call.action)) {
            return responder.refuse(forbidden());
        }
        if hosted.is_crowded_for(responder.serving()) {
            let text = format!("`{}` has all the calls it takes from one peer", call.application);
            return responder.refuse(Refusal::new(ErrorCode::Busy, text));
        }
        let admission = match hosted.admit() {
            Ok(admission) => admission,
            Err(refusal) => return responder.refuse(refusal),
        };
        let (core, mut origin) = (core.clone(), self.origin(call.deadline, call.trace, call.options));
        if call.options.contains(Options::WATCHED) {
            origin.watcher = Watcher::There(responder.reporter());
        }
        let (action, arguments, charge) = (call.action.to_owned(), Payload::from_bytes(call.payload), call.charge);
        let received = call.received;
        self.core.crew.run(Job { core, hosted, admission, received, origin, action, arguments, responder, charge });
    }

    fn peer(&self) -> String {
        self.peer_id.to_string()
    }

    fn on_sweep(&self) {
        self.core.crew.look(Instant::now());
    }

    fn on_flood(&self) {
        // If the driver has too much to do for this, the next lane of that kind tells it.
        let _ = self.core.commands.try_send(Command::KeepAway { peer_id: self.peer_id });
    }

    fn on_tell(&self, tell: Incoming<'_>) -> Delivery {
        let core = &self.core;
        if core.registry.is_draining() {
            return Delivery::Refused(draining());
        }
        if tell.deadline <= tell.received {
            return Delivery::Refused(expired());
        }
        let Some(hosted) = core.registry.find(tell.application) else {
            return Delivery::Refused(unknown(tell.application));
        };
        if !self.may(&hosted, None) {
            return Delivery::Refused(forbidden());
        }
        let origin = self.origin(tell.deadline, tell.trace, tell.options);
        let is_cast = tell.options.contains(Options::CAST);
        // Nobody hears of casts that they are accepted.
        let tells = (!is_cast).then(|| self.tells.clone());
        let message = Payload::from_bytes(tell.payload);
        let delivery = hosted.tell(registry::Told { origin, message, charge: tell.charge, tells }, is_cast);
        if matches!(delivery, Delivery::Accepted) && !is_cast {
            self.tells.accept();
        }
        delivery
    }

    fn tells(&self) -> Option<Arc<Tells>> {
        Some(self.tells.clone())
    }
}

impl Opener for Peer {
    fn open(&self) -> BoxFuture<'_, Result<Box<dyn Io>, Unopened>> {
        async {
            let core = &self.core;
            let (respond_to, stream) = oneshot::channel();
            let command = Command::OpenLane { peer_id: self.peer_id, respond_to };
            core.commands.send(command).await.map_err(|_| "this node is stopping")?;
            match stream.await {
                Ok(Ok(stream)) => Ok(Box::new(stream) as Box<dyn Io>),
                Ok(Err(failure)) => {
                    let silent = matches!(failure, OpenFailure::Silent(_));
                    Err(Unopened { reason: failure.to_string(), silent })
                }
                Err(_) => Err("the connection closed while the lane was being opened".into()),
            }
        }
        .boxed()
    }
}
