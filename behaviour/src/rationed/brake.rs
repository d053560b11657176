//! Lets what a peer has to say wait at its own end: a handler that is not asked reads nothing, and the windows of its streams
//! close.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::Instant,
};

use libp2p::swarm::{ConnectionHandler, ConnectionHandlerEvent, SubstreamProtocol, handler::ConnectionEvent};
use tokio::time::{Sleep, sleep_until};

/// Until when one connection's handler is not asked. Seen when the handler would be asked next: nobody is woken by it.
#[derive(Debug, Default)]
pub(super) struct Brake(Mutex<Option<Instant>>);

impl Brake {
    pub(super) fn pull(&self, until: Instant) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(until);
    }

    /// When it is over, if that is still to come.
    fn until(&self) -> Option<Instant> {
        let mut until = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *until = until.filter(|until| *until > Instant::now());
        *until
    }
}

#[cfg(test)]
impl Brake {
    /// Whether it was, and nobody has looked since whether that is over.
    pub(super) fn is_pulled(&self) -> bool {
        self.0.lock().unwrap().is_some()
    }
}

/// A handler that can be paused.
pub struct Handler<H> {
    inner: H,
    brake: Arc<Brake>,
    pause: Option<Pin<Box<Sleep>>>,
}

impl<H> Handler<H> {
    pub(super) fn new(inner: H, brake: Arc<Brake>) -> Self {
        Self { inner, brake, pause: None }
    }

    fn poll_pause(&mut self, context: &mut Context<'_>) -> Poll<()> {
        while let Some(until) = self.brake.until() {
            let pause = self.pause.get_or_insert_with(|| Box::pin(sleep_until(until.into())));
            ready!(pause.as_mut().poll(context));
            self.pause = None;
        }
        self.pause = None;
        Poll::Ready(())
    }
}

impl<H: ConnectionHandler> ConnectionHandler for Handler<H> {
    type FromBehaviour = H::FromBehaviour;
    type ToBehaviour = H::ToBehaviour;
    type InboundProtocol = H::InboundProtocol;
    type OutboundProtocol = H::OutboundProtocol;
    type InboundOpenInfo = H::InboundOpenInfo;
    type OutboundOpenInfo = H::OutboundOpenInfo;

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol, Self::InboundOpenInfo> {
        self.inner.listen_protocol()
    }

    fn connection_keep_alive(&self) -> bool {
        self.inner.connection_keep_alive()
    }

    fn poll(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, Self::OutboundOpenInfo, Self::ToBehaviour>> {
        ready!(self.poll_pause(context));
        self.inner.poll(context)
    }

    fn poll_close(&mut self, context: &mut Context<'_>) -> Poll<Option<Self::ToBehaviour>> {
        self.inner.poll_close(context)
    }

    fn on_behaviour_event(&mut self, event: Self::FromBehaviour) {
        self.inner.on_behaviour_event(event);
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<
            '_,
            Self::InboundProtocol,
            Self::OutboundProtocol,
            Self::InboundOpenInfo,
            Self::OutboundOpenInfo,
        >,
    ) {
        self.inner.on_connection_event(event);
    }
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, future::poll_fn, task::Waker, time::Duration};

    use libp2p::core::upgrade::DeniedUpgrade;

    use super::*;

    /// Always has something to say.
    struct Talkative;

    impl ConnectionHandler for Talkative {
        type FromBehaviour = Infallible;
        type ToBehaviour = ();
        type InboundProtocol = DeniedUpgrade;
        type OutboundProtocol = DeniedUpgrade;
        type InboundOpenInfo = ();
        type OutboundOpenInfo = ();

        fn listen_protocol(&self) -> SubstreamProtocol<DeniedUpgrade> {
            SubstreamProtocol::new(DeniedUpgrade, ())
        }

        fn poll(&mut self, _: &mut Context<'_>) -> Poll<ConnectionHandlerEvent<DeniedUpgrade, (), ()>> {
            Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(()))
        }

        fn on_behaviour_event(&mut self, event: Infallible) {
            match event {}
        }

        fn on_connection_event(&mut self, _: ConnectionEvent<'_, DeniedUpgrade, DeniedUpgrade>) {}
    }

    #[tokio::test]
    async fn who_is_on_the_brake_is_not_asked_until_that_is_over_and_then_at_once() {
        let brake = Arc::new(Brake::default());
        let mut handler = Handler::new(Talkative, brake.clone());
        let at_once = |handler: &mut Handler<_>| handler.poll(&mut Context::from_waker(Waker::noop())).is_ready();
        assert!(at_once(&mut handler));
        brake.pull(Instant::now() + Duration::from_millis(20));
        assert!(!at_once(&mut handler));
        // While it waits it is to wait longer.
        let until = Instant::now() + Duration::from_millis(60);
        brake.pull(until);
        tokio::time::timeout(Duration::from_secs(20), poll_fn(|context| handler.poll(context))).await.unwrap();
        assert!(Instant::now() >= until);
        assert!(at_once(&mut handler));
    }
}
