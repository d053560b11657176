//! The handlers of connections under a roof. The behaviour itself is not: its state is that of all connections.

use std::{
    collections::VecDeque,
    fmt,
    task::{Context, Poll, ready},
};

use libp2p::{
    PeerId,
    swarm::{
        CloseConnection, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm, NetworkBehaviour,
        StreamUpgradeError, SubstreamProtocol, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
        handler::{
            ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound, ListenUpgradeError,
        },
    },
};

use super::{Broken, Inbound, Outbound, Panics};
use crate::delegate::{ask_inside_of_pending, reach_inside, wrap_handlers_of_inside};

/// A behaviour whose handlers are under a roof: one that panics costs its connection, which is closed.
pub struct Shelter<B: NetworkBehaviour> {
    inner: B,
    panics: Panics,
    /// To be closed: each connection once.
    broken: VecDeque<(PeerId, ConnectionId)>,
}

impl<B: NetworkBehaviour> Shelter<B> {
    /// Puts the handlers of a behaviour under a roof.
    pub fn sheltering(inner: B, panics: Panics) -> Self {
        Self { inner, panics, broken: VecDeque::new() }
    }

    fn handler(&self, _: ConnectionId, inner: THandler<B>) -> Handler<THandler<B>> {
        Handler { inner: Some(inner), panics: self.panics.clone(), told: false }
    }
}

reach_inside!(Shelter);

impl<B: NetworkBehaviour> NetworkBehaviour for Shelter<B> {
    type ConnectionHandler = Handler<THandler<B>>;
    type ToSwarm = B::ToSwarm;

    ask_inside_of_pending!();

    wrap_handlers_of_inside!(Self::handler);

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        self.inner.on_swarm_event(event);
    }

    fn on_connection_handler_event(&mut self, peer_id: PeerId, id: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {
            Out::Inner(event) => self.inner.on_connection_handler_event(peer_id, id, event),
            Out::Panicked => self.broken.push_back((peer_id, id)),
        }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        if let Some((peer_id, id)) = self.broken.pop_front() {
            return Poll::Ready(ToSwarm::CloseConnection { peer_id, connection: CloseConnection::One(id) });
        }
        self.inner.poll(context)
    }
}

/// What a handler under a roof says.
pub enum Out<E> {
    /// What the handler inside says.
    Inner(E),
    /// It has panicked; said once.
    Panicked,
}

impl<E: fmt::Debug> fmt::Debug for Out<E> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inner(event) => event.fmt(formatter),
            Self::Panicked => formatter.write_str("Panicked"),
        }
    }
}

/// A handler under a roof, or what is left of it.
pub struct Handler<H> {
    inner: Option<H>,
    panics: Panics,
    told: bool,
}

impl<H: ConnectionHandler> Handler<H> {
    fn ask<T>(&mut self, ask: impl FnOnce(&mut H) -> T) -> Option<T> {
        let inner = self.inner.as_mut()?;
        let answer = self.panics.shelter("a handler", || ask(inner));
        if answer.is_none() {
            self.give_up();
        }
        answer
    }

    /// Something of it has panicked elsewhere.
    fn give_up(&mut self) {
        self.panics.discard(self.inner.take());
    }
}

type Event<H> = ConnectionHandlerEvent<
    Outbound<<H as ConnectionHandler>::OutboundProtocol>,
    <H as ConnectionHandler>::OutboundOpenInfo,
    Out<<H as ConnectionHandler>::ToBehaviour>,
>;

impl<H: ConnectionHandler> ConnectionHandler for Handler<H> {
    type FromBehaviour = H::FromBehaviour;
    type ToBehaviour = Out<H::ToBehaviour>;
    type InboundProtocol = Inbound<H::InboundProtocol>;
    type OutboundProtocol = Outbound<H::OutboundProtocol>;
    type InboundOpenInfo = Option<H::InboundOpenInfo>;
    type OutboundOpenInfo = H::OutboundOpenInfo;

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol, Self::InboundOpenInfo> {
        let listening = self.inner.as_ref().map(|inner| self.panics.shelter("a handler", || inner.listen_protocol()));
        match listening.flatten() {
            Some(protocol) => protocol.map_upgrade(|upgrade| Inbound::new(Some(upgrade), &self.panics)).map_info(Some),
            None => SubstreamProtocol::new(Inbound::new(None, &self.panics), None),
        }
    }

    fn connection_keep_alive(&self) -> bool {
        let inner = self.inner.as_ref();
        inner.is_some_and(|inner| self.panics.shelter("a handler", || inner.connection_keep_alive()).unwrap_or(false))
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Event<H>> {
        match self.ask(|inner| inner.poll(context)) {
            Some(event) => event.map(|event| {
                event.map_custom(Out::Inner).map_protocol(|upgrade| Outbound::new(upgrade, self.panics.clone()))
            }),
            None if std::mem::replace(&mut self.told, true) => Poll::Pending,
            None => Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(Out::Panicked)),
        }
    }

    fn poll_close(&mut self, context: &mut Context<'_>) -> Poll<Option<Self::ToBehaviour>> {
        let last = ready!(self.ask(|inner| inner.poll_close(context)).unwrap_or(Poll::Ready(None)));
        Poll::Ready(last.map(Out::Inner))
    }

    fn on_behaviour_event(&mut self, event: H::FromBehaviour) {
        self.ask(|inner| inner.on_behaviour_event(event));
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
        let event = match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol, info: Some(info) }) => {
                ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol, info })
            }
            ConnectionEvent::ListenUpgradeError(ListenUpgradeError { info: Some(info), error }) => match error {
                Broken::Inner(error) => ConnectionEvent::ListenUpgradeError(ListenUpgradeError { info, error }),
                Broken::Panicked => return self.give_up(),
            },
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol, info }) => {
                ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol, info })
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { info, error }) => {
                let error = match error {
                    StreamUpgradeError::Apply(Broken::Panicked) => return self.give_up(),
                    StreamUpgradeError::Apply(Broken::Inner(error)) => StreamUpgradeError::Apply(error),
                    StreamUpgradeError::Timeout => StreamUpgradeError::Timeout,
                    StreamUpgradeError::NegotiationFailed => StreamUpgradeError::NegotiationFailed,
                    StreamUpgradeError::Io(error) => StreamUpgradeError::Io(error),
                };
                ConnectionEvent::DialUpgradeError(DialUpgradeError { info, error })
            }
            ConnectionEvent::AddressChange(change) => ConnectionEvent::AddressChange(change),
            ConnectionEvent::LocalProtocolsChange(change) => ConnectionEvent::LocalProtocolsChange(change),
            ConnectionEvent::RemoteProtocolsChange(change) => ConnectionEvent::RemoteProtocolsChange(change),
            _ => return,
        };
        self.ask(|inner| inner.on_connection_event(event));
    }
}
