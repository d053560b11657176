//! Whose handshakes go on at once: a place for each, fairly among the hosts that they come from.
//!
//! Who connects and says nothing holds a place until the handshake's limit. So when all are taken a newcomer gets that of
//! somebody of the host that holds most: first of those that have said nothing yet. Nobody's silence keeps others out,
//! neither from another host nor from the same one, where several nodes and commands are nothing unusual.

mod table;

use std::{
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Instant,
};

use futures::{FutureExt, future::BoxFuture, task::AtomicWaker};
use libp2p::{
    Multiaddr,
    core::{
        Transport,
        transport::{Boxed, DialOpts, ListenerId, TransportError, TransportEvent},
    },
};

pub use self::table::PLACES;
use self::table::Table;
use crate::ration::Origin;

/// Gives the handshakes of incoming connections their places.
pub struct Fair<O> {
    inner: Boxed<O>,
    places: Places,
}

/// The node has no place for the handshake, or has given it to another one.
///
/// It is the cause of the errors of incoming connections and of listeners (`SwarmEvent::ListenerError`) that tell of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many handshakes are under way, or have been begun from that host")]
pub struct NoPlace;

impl<O> Fair<O> {
    /// Before all other layers: what it refuses costs no more than to accept it.
    #[must_use]
    pub fn new(inner: Boxed<O>) -> Self {
        Self { inner, places: Places(Arc::new(Mutex::new(Table::new(Instant::now())))) }
    }
}

impl<O: 'static> Transport for Fair<O> {
    type Output = O;
    type Error = io::Error;
    type ListenerUpgrade = Held<O>;
    type Dial = <Boxed<O> as Transport>::Dial;

    fn listen_on(&mut self, id: ListenerId, address: Multiaddr) -> Result<(), TransportError<io::Error>> {
        self.inner.listen_on(id, address)
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.inner.remove_listener(id)
    }

    fn dial(&mut self, address: Multiaddr, options: DialOpts) -> Result<Self::Dial, TransportError<io::Error>> {
        self.inner.dial(address, options)
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<TransportEvent<Self::ListenerUpgrade, io::Error>> {
        Pin::new(&mut self.inner).poll(cx).map(|event| match event {
            TransportEvent::Incoming { listener_id, upgrade, local_addr, send_back_addr } => {
                match self.places.enter(Origin::of(&send_back_addr)) {
                    Some(place) => {
                        let upgrade = Held { upgrade, place };
                        TransportEvent::Incoming { listener_id, upgrade, local_addr, send_back_addr }
                    }
                    // What was accepted is closed with the upgrade.
                    None => TransportEvent::ListenerError { listener_id, error: io::Error::other(NoPlace) },
                }
            }
            other => other.map_upgrade(|_| unreachable_upgrade()),
        })
    }
}

/// Only an incoming connection has an upgrade, and those are dealt with before.
fn unreachable_upgrade<O>() -> Held<O> {
    let (place, upgrade) = (Place::nowhere(), async { Err(io::Error::other(NoPlace)) });
    Held { upgrade: upgrade.boxed(), place }
}

/// A handshake under way, as long as it has its place.
#[must_use = "a handshake does nothing unless it is polled"]
pub struct Held<O> {
    upgrade: BoxFuture<'static, io::Result<O>>,
    place: Place,
}

impl<O> Future for Held<O> {
    type Output = io::Result<O>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<O>> {
        if self.place.is_lost(cx) {
            return Poll::Ready(Err(io::Error::other(NoPlace)));
        }
        self.upgrade.poll_unpin(cx)
    }
}

#[derive(Clone)]
struct Places(Arc<Mutex<Table>>);

impl Places {
    fn enter(&self, origin: Option<Origin>) -> Option<Place> {
        let state = self.table().enter(origin, Instant::now())?;
        Some(Place { state, places: Some(self.clone()) })
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the holder of a place and the table both look at.
#[derive(Default)]
struct State {
    /// It was looked at once, and waits for the other side.
    waits: AtomicBool,
    /// The other side has said something since.
    talks: AtomicBool,
    lost: AtomicBool,
    waker: AtomicWaker,
}

impl State {
    fn take_away(&self) {
        self.lost.store(true, Relaxed);
        self.waker.wake();
    }
}

/// A place in the table; it is free again when this is dropped.
struct Place {
    state: Arc<State>,
    places: Option<Places>,
}

impl Place {
    fn nowhere() -> Self {
        Self { state: Arc::default(), places: None }
    }

    /// Looks at the place before each step of the handshake. Nothing but the other side wakes it after the first.
    fn is_lost(&self, cx: &Context<'_>) -> bool {
        self.state.waker.register(cx.waker());
        if self.state.waits.swap(true, Relaxed) {
            self.state.talks.store(true, Relaxed);
        }
        self.state.lost.load(Relaxed)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(places) = &self.places {
            places.table().leave(&self.state);
        }
    }
}
