//! A behaviour for tests whose handlers, and the negotiations of whose streams, panic when they are told to.

use std::{
    convert::Infallible,
    iter,
    task::{Context, Poll},
};

use futures::{FutureExt, future::BoxFuture};
use libp2p::{
    Multiaddr, PeerId, Stream,
    core::{
        Endpoint,
        transport::PortUse,
        upgrade::{InboundUpgrade, OutboundUpgrade, UpgradeInfo},
    },
    swarm::{
        ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm, NetworkBehaviour,
        NotifyHandler, SubstreamProtocol, ToSwarm, handler::ConnectionEvent,
    },
};

/// A protocol whose negotiation panics, if so.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bomb(pub(super) bool);

impl Bomb {
    fn tick(self) -> BoxFuture<'static, Result<(), Infallible>> {
        async move {
            assert!(!self.0, "a stream was told to panic");
            Ok(())
        }
        .boxed()
    }
}

impl UpgradeInfo for Bomb {
    type Info = &'static str;
    type InfoIter = iter::Once<&'static str>;

    fn protocol_info(&self) -> Self::InfoIter {
        iter::once("/bomb/1")
    }
}

impl InboundUpgrade<Stream> for Bomb {
    type Output = ();
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<(), Infallible>>;

    fn upgrade_inbound(self, _: Stream, _: &'static str) -> Self::Future {
        self.tick()
    }
}

impl OutboundUpgrade<Stream> for Bomb {
    type Output = ();
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<(), Infallible>>;

    fn upgrade_outbound(self, _: Stream, _: &'static str) -> Self::Future {
        self.tick()
    }
}

/// What a handler is told.
#[derive(Debug, Clone)]
pub(super) enum Told {
    Panic,
    Open(Bomb),
}

pub(super) struct Behaviour {
    pub(super) told: Option<(PeerId, ConnectionId, Told)>,
    pub(super) listens: Bomb,
}

pub(super) struct Handler {
    listens: Bomb,
    opens: Option<Bomb>,
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Told;
    type ToBehaviour = ();
    type InboundProtocol = Bomb;
    type OutboundProtocol = Bomb;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<Bomb> {
        SubstreamProtocol::new(self.listens, ())
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ConnectionHandlerEvent<Bomb, (), ()>> {
        self.opens.take().map_or(Poll::Pending, |bomb| {
            let protocol = SubstreamProtocol::new(bomb, ());
            Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol })
        })
    }

    fn on_behaviour_event(&mut self, told: Told) {
        match told {
            Told::Panic => panic!("a handler was told to panic"),
            Told::Open(bomb) => self.opens = Some(bomb),
        }
    }

    fn on_connection_event(&mut self, _: ConnectionEvent<'_, Bomb, Bomb>) {}
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<Handler, ConnectionDenied> {
        Ok(Handler { listens: self.listens, opens: None })
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<Handler, ConnectionDenied> {
        Ok(Handler { listens: self.listens, opens: None })
    }

    fn on_swarm_event(&mut self, _: FromSwarm<'_>) {}

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, (): ()) {}

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Infallible, Told>> {
        self.told.take().map_or(Poll::Pending, |(peer_id, id, event)| {
            Poll::Ready(ToSwarm::NotifyHandler { peer_id, handler: NotifyHandler::One(id), event })
        })
    }
}
