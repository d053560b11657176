//! Whose handshakes go on at once: a place for each, fairly among the hosts that they come from.
//!
//! Who connects and says nothing holds a place until the handshake's limit. So when all are taken a newcomer gets that of
//! somebody of the host that holds most: first of those that have said nothing yet. And what a handshake costs is counted
//! once the other side has spoken, which [`Spoken`] notices. Nobody's silence keeps others out, neither from another host
//! nor from the same one, where several nodes and commands are nothing unusual.

mod table;

use std::{
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use futures::{
    FutureExt,
    future::{BoxFuture, Either, Pending, pending},
    task::AtomicWaker,
};
use libp2p::{
    Multiaddr,
    core::{
        Transport, UpgradeInfo,
        transport::{Boxed, DialOpts, ListenerId, TransportError, TransportEvent},
        upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade},
    },
    multiaddr::Protocol,
};

use tokio::time::{Sleep, sleep};

pub use self::table::PLACES;
use self::table::Table;
use crate::ration::{Bucket, Origin, Rate};

/// So many connections are refused as they come. Of more the system takes care, in whose queue they wait, nearly for nothing:
/// to accept them and to close them would have most of a core in a flood.
const REFUSALS: Rate = Rate { burst: 256.0, per_second: 1_024.0 };

/// How long none is accepted after that, from whatever host.
const PAUSE: Duration = Duration::from_millis(10);

/// Gives the handshakes of incoming connections their places.
pub struct Fair<O> {
    inner: Boxed<O>,
    places: Places,
    /// How many were refused and not told yet.
    refused: Option<(ListenerId, usize)>,
    refusals: Bucket,
    pause: Option<Pin<Box<Sleep>>>,
    /// What comes after the refusals that are told.
    ahead: Option<TransportEvent<Held<O>, io::Error>>,
}

/// The node has no place for so many handshakes, or has given it to another one.
///
/// It is the cause of the errors of incoming connections and of listeners (`SwarmEvent::ListenerError`) that tell of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many handshakes are under way, or have been begun from that host")]
pub struct NoPlace {
    /// How many were refused.
    pub handshakes: usize,
}

impl NoPlace {
    fn error(handshakes: usize) -> io::Error {
        io::Error::other(Self { handshakes })
    }
}

impl<O> Fair<O> {
    /// Before all other layers: what it refuses costs no more than to accept it. One of the layers inside has to be
    /// [`Spoken`], else nobody is ever heard.
    #[must_use]
    pub fn new(inner: Boxed<O>) -> Self {
        let places = Places(Arc::new(Mutex::new(Table::new(Instant::now()))));
        let refusals = Bucket::new(REFUSALS, Instant::now());
        Self { inner, places, refused: None, refusals, pause: None, ahead: None }
    }

    /// What comes next but refusals, which are counted. After too many of them it pauses.
    fn next(&mut self, cx: &mut Context<'_>) -> Poll<TransportEvent<Held<O>, io::Error>> {
        loop {
            if let Some(pause) = &mut self.pause {
                ready!(pause.as_mut().poll(cx));
                self.pause = None;
            }
            let listener_id = match ready!(Pin::new(&mut self.inner).poll(cx)) {
                TransportEvent::Incoming { listener_id, upgrade, local_addr, send_back_addr } => {
                    if let Some(place) = self.places.enter(&send_back_addr) {
                        let upgrade = Held { upgrade, place: Some(place) };
                        let incoming = TransportEvent::Incoming { listener_id, upgrade, local_addr, send_back_addr };
                        return Poll::Ready(incoming);
                    }
                    // What was accepted is closed with the upgrade.
                    listener_id
                }
                // None of the others has an upgrade.
                other => return Poll::Ready(other.map_upgrade(|upgrade| Held { upgrade, place: None })),
            };
            self.refused.get_or_insert((listener_id, 0)).1 += 1;
            if !self.refusals.take(1.0, Instant::now()) {
                self.pause = Some(Box::pin(sleep(PAUSE)));
            }
        }
    }

    /// What is said of those that were refused.
    fn told(&mut self) -> Option<TransportEvent<Held<O>, io::Error>> {
        let (listener_id, count) = self.refused.take()?;
        Some(TransportEvent::ListenerError { listener_id, error: NoPlace::error(count) })
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
        if let Some(event) = self.ahead.take() {
            return Poll::Ready(event);
        }
        let next = self.next(cx);
        let Some(told) = self.told() else { return next };
        if let Poll::Ready(event) = next {
            self.ahead = Some(event);
        }
        Poll::Ready(told)
    }
}

/// A handshake under way, as long as it has its place.
#[must_use = "a handshake does nothing unless it is polled"]
pub struct Held<O> {
    upgrade: BoxFuture<'static, io::Result<O>>,
    place: Option<Place>,
}

impl<O> Future for Held<O> {
    type Output = io::Result<O>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<O>> {
        let Self { upgrade, place: Some(Place(seat)) } = &mut *self else { return self.upgrade.poll_unpin(cx) };
        if seat.is_lost(cx) {
            return Poll::Ready(Err(NoPlace::error(1)));
        }
        let outcome = SEAT.sync_scope(seat.clone(), || upgrade.poll_unpin(cx));
        // It may have been lost by what the other side has just said.
        if outcome.is_pending() && seat.is_lost(cx) {
            return Poll::Ready(Err(NoPlace::error(1)));
        }
        outcome
    }
}

tokio::task_local! {
    /// The place of the handshake that is polled.
    static SEAT: Seat;
}

/// An upgrade that notes that the other side has spoken: it has agreed to this very protocol. What lies below, as the
/// bytes that begin a connection of a private swarm, proves nothing. If there are too many handshakes of its host, or of
/// all, the upgrade is not begun, and the handshake ends.
#[derive(Debug, Clone)]
pub struct Spoken<U>(pub U);

impl<U: UpgradeInfo> UpgradeInfo for Spoken<U> {
    type Info = U::Info;
    type InfoIter = U::InfoIter;

    fn protocol_info(&self) -> U::InfoIter {
        self.0.protocol_info()
    }
}

impl<C, U: InboundConnectionUpgrade<C>> InboundConnectionUpgrade<C> for Spoken<U> {
    type Output = U::Output;
    type Error = U::Error;
    type Future = Either<U::Future, Pending<Result<U::Output, U::Error>>>;

    fn upgrade_inbound(self, io: C, info: U::Info) -> Self::Future {
        // Without a place nobody counts.
        if SEAT.try_with(Seat::speak).unwrap_or(true) {
            Either::Left(self.0.upgrade_inbound(io, info))
        } else {
            // Whoever polls it looks at the place.
            Either::Right(pending())
        }
    }
}

impl<C, U: OutboundConnectionUpgrade<C>> OutboundConnectionUpgrade<C> for Spoken<U> {
    type Output = U::Output;
    type Error = U::Error;
    type Future = U::Future;

    fn upgrade_outbound(self, io: C, info: U::Info) -> U::Future {
        self.0.upgrade_outbound(io, info)
    }
}

#[derive(Clone)]
struct Places(Arc<Mutex<Table>>);

impl Places {
    fn enter(&self, from: &Multiaddr) -> Option<Place> {
        let state = self.table().enter(Origin::of(from), Instant::now())?;
        let seat = Seat { state, places: self.clone() };
        // A connection of QUIC is one only after the other side has spoken.
        if from.iter().any(|part| matches!(part, Protocol::QuicV1)) {
            seat.speak();
        }
        Some(Place(seat))
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the holder of a place and the table both look at.
#[derive(Default)]
struct State {
    lost: AtomicBool,
    waker: AtomicWaker,
}

impl State {
    fn take_away(&self) {
        self.lost.store(true, Relaxed);
        self.waker.wake();
    }
}

/// One of the places of a table.
#[derive(Clone)]
struct Seat {
    state: Arc<State>,
    places: Places,
}

impl Seat {
    fn is_lost(&self, cx: &Context<'_>) -> bool {
        self.state.waker.register(cx.waker());
        self.state.lost.load(Relaxed)
    }

    /// The other side has spoken. False if the place is lost.
    fn speak(&self) -> bool {
        self.places.table().speak(&self.state, Instant::now())
    }
}

/// Holds a place, which is free again when this is dropped.
struct Place(Seat);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.places.table().leave(&self.0.state);
    }
}

#[cfg(test)]
mod tests {
    use futures::{future::poll_fn, task::noop_waker_ref};

    use super::*;

    /// A listener to which one host connects without end.
    struct Flooded;

    impl Transport for Flooded {
        type Output = ();
        type Error = io::Error;
        type ListenerUpgrade = Pending<io::Result<()>>;
        type Dial = Pending<io::Result<()>>;

        fn listen_on(&mut self, _: ListenerId, _: Multiaddr) -> Result<(), TransportError<io::Error>> {
            Ok(())
        }

        fn remove_listener(&mut self, _: ListenerId) -> bool {
            false
        }

        fn dial(&mut self, _: Multiaddr, _: DialOpts) -> Result<Self::Dial, TransportError<io::Error>> {
            Ok(pending())
        }

        fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<TransportEvent<Self::ListenerUpgrade, io::Error>> {
            let address: Multiaddr = "/ip4/10.0.0.1/tcp/1".parse().unwrap();
            let listener_id = ListenerId::next();
            let (local_addr, send_back_addr) = (address.clone(), address);
            Poll::Ready(TransportEvent::Incoming { listener_id, upgrade: pending(), local_addr, send_back_addr })
        }
    }

    #[tokio::test]
    async fn a_flood_of_connections_waits_after_so_many_refusals_and_is_looked_at_again() {
        let mut fair = Fair::new(Flooded.boxed());
        let (mut held, mut refused) = (Vec::new(), 0);
        let mut turn = |fair: &mut Fair<()>| {
            let event = Pin::new(fair).poll(&mut Context::from_waker(noop_waker_ref()));
            event.map(|event| match event {
                TransportEvent::Incoming { upgrade, .. } => held.push(upgrade),
                TransportEvent::ListenerError { error, .. } => {
                    refused += error.get_ref().unwrap().downcast_ref::<NoPlace>().unwrap().handshakes;
                }
                other => panic!("{other:?}"),
            })
        };
        let waits = (0..20_000).any(|_| turn(&mut fair).is_pending());
        assert!(waits, "all are looked at as they come");
        assert!(refused >= 256, "{refused}");
        let again = poll_fn(|cx| Pin::new(&mut fair).poll(cx));
        tokio::time::timeout(Duration::from_secs(60), again).await.expect("it goes on after the pause");
    }
}
