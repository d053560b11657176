//! Lanes to peers: one exchange for each peer that was talked to, opened and reopened on demand.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Instant,
};

use futures::{FutureExt, future::BoxFuture};
use libp2p::PeerId;
use multinodes_behaviour::{
    lane::{Delivery, Exchange, Incoming, Io, Limits, Opener, Refusal, Responder, Service},
    quick_hash::QuickHash,
    wire::{ErrorCode, Options},
};
use tokio::sync::oneshot;

use crate::{
    application::Context,
    core::{Command, Core},
    crew::Job,
    payload::Payload,
    registry::{Told, unknown},
};

/// The exchanges with all peers that are connected or being talked to.
pub(crate) struct Links {
    core: Weak<Core>,
    limits: Limits,
    exchanges: Mutex<HashMap<PeerId, Arc<Exchange>, QuickHash>>,
}

impl Links {
    pub(crate) fn new(core: Weak<Core>, max_message: usize) -> Self {
        Self { core, limits: Limits::new(max_message), exchanges: Mutex::default() }
    }

    /// The exchange with a peer; it connects when it is first used.
    pub(crate) fn with(&self, peer_id: PeerId) -> Arc<Exchange> {
        self.exchanges()
            .entry(peer_id)
            .or_insert_with(|| {
                let service = Arc::new(Peer { core: self.core.clone(), peer_id });
                Exchange::new(service.clone(), service, self.limits.clone())
            })
            .clone()
    }

    /// Runs a lane on a stream that a peer has opened.
    pub(crate) fn accept(&self, peer_id: PeerId, io: Box<dyn Io>) {
        if !self.with(peer_id).accept(io) {
            tracing::debug!(%peer_id, "lane refused: the peer has too many");
        }
    }

    /// The last connection to a peer is gone: whoever waits for it is told, and nothing of it is kept.
    pub(crate) fn forget(&self, peer_id: &PeerId) {
        let exchange = self.exchanges().remove(peer_id);
        if let Some(exchange) = exchange {
            exchange.close();
        }
    }

    /// Whether calls to or from a peer are in flight.
    pub(crate) fn in_use(&self, peer_id: &PeerId) -> bool {
        self.exchanges().get(peer_id).is_some_and(|exchange| exchange.in_use())
    }

    /// Tells all peers that nothing new is taken here.
    pub(crate) fn say_goodbye(&self) {
        for exchange in self.exchanges().values() {
            exchange.say_goodbye();
        }
    }

    /// Calls of all peers that run here.
    pub(crate) fn serving(&self) -> usize {
        self.exchanges().values().map(|exchange| exchange.serving()).sum()
    }

    /// Closes everything, and gives what ends when all that was queued is written.
    pub(crate) fn close(&self) -> impl Future<Output = ()> + use<> {
        let exchanges: Vec<_> = self.exchanges().drain().map(|(_, exchange)| exchange).collect();
        for exchange in &exchanges {
            exchange.close();
        }
        async move {
            for exchange in exchanges {
                exchange.ended().await;
            }
        }
    }

    /// Answers that nobody had asked for, and frames that could not be read, of the peers that are connected.
    pub(crate) fn oddities(&self) -> (u64, u64) {
        self.exchanges()
            .values()
            .map(|exchange| exchange.oddities())
            .fold((0, 0), |(unasked, malformed), (one, other)| (unasked + one, malformed + other))
    }

    fn exchanges(&self) -> MutexGuard<'_, HashMap<PeerId, Arc<Exchange>, QuickHash>> {
        self.exchanges.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// This node's side of the exchange with one peer.
struct Peer {
    core: Weak<Core>,
    peer_id: PeerId,
}

impl Peer {
    fn context(&self, core: &Arc<Core>, application: &Arc<str>, deadline: Instant, trace: Option<&str>) -> Context {
        Context {
            node: core.handle(),
            application: application.clone(),
            caller: self.peer_id,
            deadline,
            trace: trace.map(Arc::from),
        }
    }
}

impl Service for Peer {
    fn on_call(&self, call: Incoming<'_>, responder: Responder) {
        let Some(core) = self.core.upgrade().filter(|core| !core.registry.is_draining()) else {
            return responder.refuse(draining());
        };
        if call.deadline <= Instant::now() {
            return responder.refuse(expired());
        }
        let Some(hosted) = core.registry.find(call.application) else {
            return responder.refuse(unknown(call.application));
        };
        let admission = match hosted.admit() {
            Ok(admission) => admission,
            Err(refusal) => return responder.refuse(refusal),
        };
        let context = self.context(&core, &hosted.name, call.deadline, call.trace);
        let (action, arguments, charge) = (call.action.to_owned(), Payload::from_bytes(call.payload), call.charge);
        core.crew.run(Job { hosted, admission, context, action, arguments, responder, charge });
    }

    fn on_sweep(&self) {
        if let Some(core) = self.core.upgrade() {
            core.crew.look();
        }
    }

    fn on_tell(&self, tell: Incoming<'_>) -> Delivery {
        let Some(core) = self.core.upgrade().filter(|core| !core.registry.is_draining()) else {
            return Delivery::Refused(draining());
        };
        if tell.deadline <= Instant::now() {
            return Delivery::Refused(expired());
        }
        let Some(hosted) = core.registry.find(tell.application) else {
            return Delivery::Refused(unknown(tell.application));
        };
        let context = self.context(&core, &hosted.name, tell.deadline, tell.trace);
        let is_cast = tell.options.contains(Options::CAST);
        hosted.tell(Told { context, message: Payload::from_bytes(tell.payload), charge: tell.charge }, is_cast)
    }
}

impl Opener for Peer {
    fn open(&self) -> BoxFuture<'_, Result<Box<dyn Io>, String>> {
        async {
            let core = self.core.upgrade().ok_or("this node is stopping")?;
            let (respond_to, stream) = oneshot::channel();
            let command = Command::OpenLane { peer_id: self.peer_id, respond_to };
            core.commands.send(command).await.map_err(|_| "this node is stopping")?;
            match stream.await {
                Ok(Ok(stream)) => Ok(Box::new(stream) as Box<dyn Io>),
                Ok(Err(failure)) => Err(failure.to_string()),
                Err(_) => Err("the connection closed while the lane was being opened".to_owned()),
            }
        }
        .boxed()
    }
}

fn draining() -> Refusal {
    Refusal::new(ErrorCode::Draining, "the node is stopping")
}

fn expired() -> Refusal {
    Refusal::new(ErrorCode::Expired, "the deadline had passed before it was started")
}
