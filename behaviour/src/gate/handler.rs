//! The part that lives with one connection: nothing but a closed door, until the protocol's own handler comes.

use std::{
    collections::{HashSet, VecDeque},
    fmt,
    sync::Arc,
    task::{Context, Poll, ready},
};

use libp2p::{
    StreamProtocol, identify,
    swarm::{
        ConnectionHandler, ConnectionHandlerEvent, StreamUpgradeError, SubstreamProtocol, SupportedProtocols,
        handler::{
            ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound, ListenUpgradeError,
            ProtocolSupport, UpgradeInfoSend,
        },
    },
};

use crate::{door::Door, ping};

/// How often a refused stream is asked for again on one connection: a peer that shows a protocol and refuses it all the
/// same would else keep us busy.
const MAX_RETRIES: usize = 8;

/// What is sent to the handler of one connection.
pub enum In<H: ConnectionHandler> {
    /// The peer is admitted: this is the handler of the protocol inside.
    Activate(Box<H>),
    /// The protocol inside says something to its own handler.
    Inner(H::FromBehaviour),
}

impl<H: ConnectionHandler> fmt::Debug for In<H> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Activate(_) => formatter.write_str("Activate"),
            Self::Inner(event) => formatter.debug_tuple("Inner").field(event).finish(),
        }
    }
}

/// How a protocol is treated by the gate.
pub(super) struct Manner<H: ConnectionHandler> {
    /// What is known of the peer's protocols is told again on activation.
    pub(super) retells: bool,
    patience: Option<Patience<H>>,
}

struct Patience<H: ConnectionHandler> {
    prefix: Arc<str>,
    copy: fn(&H::OutboundProtocol) -> H::OutboundProtocol,
}

impl<H: ConnectionHandler> Manner<H> {
    pub(super) fn be_patient(&mut self, prefix: &str, copy: fn(&H::OutboundProtocol) -> H::OutboundProtocol) {
        self.patience = Some(Patience { prefix: prefix.into(), copy });
    }
}

impl<H: ConnectionHandler> Default for Manner<H> {
    fn default() -> Self {
        Self { retells: false, patience: None }
    }
}

impl<H: ConnectionHandler> Clone for Manner<H> {
    fn clone(&self) -> Self {
        Self { retells: self.retells, patience: self.patience.clone() }
    }
}

impl<H: ConnectionHandler> Clone for Patience<H> {
    fn clone(&self) -> Self {
        Self { prefix: self.prefix.clone(), copy: self.copy }
    }
}

/// What belongs to a stream that is being opened.
pub struct Asked<H: ConnectionHandler> {
    info: H::OutboundOpenInfo,
    /// To ask once more.
    spare: Option<H::OutboundProtocol>,
}

/// The handler of the protocol inside, or none yet.
pub struct Handler<H: ConnectionHandler> {
    inner: Option<H>,
    manner: Manner<H>,
    /// What identify has told; as bounded as its messages.
    remote: SupportedProtocols,
    /// What is to be told again: two entries at most.
    reports: VecDeque<ProtocolSupport>,
    /// A refused stream. Nothing is kept of a second one.
    held: Option<(H::OutboundProtocol, H::OutboundOpenInfo)>,
    retries: usize,
}

impl<H: ConnectionHandler> Handler<H> {
    pub(super) fn new(inner: Option<H>, manner: Manner<H>) -> Self {
        let remote = SupportedProtocols::default();
        Self { inner, manner, remote, reports: VecDeque::new(), held: None, retries: 0 }
    }

    fn activate(&mut self, inner: H) {
        if self.inner.is_some() {
            return;
        }
        let remote: HashSet<StreamProtocol> = self.remote.iter().cloned().collect();
        if self.manner.retells && !remote.is_empty() {
            // An addition of what is known already would be told to nobody.
            self.reports.extend([ProtocolSupport::Removed(remote.clone()), ProtocolSupport::Added(remote)]);
        }
        self.inner = Some(inner);
    }

    /// Keeps what belongs to a refused stream, if the peer may still change its mind.
    fn hold(
        &mut self,
        error: DialUpgradeError<Asked<H>, H::OutboundProtocol>,
    ) -> Option<DialUpgradeError<H::OutboundOpenInfo, H::OutboundProtocol>> {
        let DialUpgradeError { info: Asked { info, spare }, error } = error;
        match spare {
            Some(upgrade)
                if matches!(error, StreamUpgradeError::NegotiationFailed)
                    && self.held.is_none()
                    && self.retries < MAX_RETRIES
                    && !self.is_stranger() =>
            {
                self.held = Some((upgrade, info));
                None
            }
            _ => Some(DialUpgradeError { info, error }),
        }
    }

    /// Tells whether the peer has shown something, and nothing of a swarm that we share.
    fn is_stranger(&self) -> bool {
        let Some(patience) = &self.manner.patience else { return true };
        let mut others = self.remote.iter().filter(|protocol| !serves_a_pending_peer(protocol)).peekable();
        others.peek().is_some() && !others.any(|protocol| protocol.as_ref().starts_with(&*patience.prefix))
    }

    /// A peer that now has shown itself as a stranger has refused for good.
    fn release(&mut self) {
        if !self.is_stranger() {
            return;
        }
        if let (Some((_, info)), Some(inner)) = (self.held.take(), &mut self.inner) {
            let error = StreamUpgradeError::NegotiationFailed;
            inner.on_connection_event(ConnectionEvent::DialUpgradeError(DialUpgradeError { info, error }));
        }
    }

    fn shows(&self, upgrade: &H::OutboundProtocol) -> bool {
        upgrade.protocol_info().any(|wanted| self.remote.iter().any(|shown| shown.as_ref() == wanted.as_ref()))
    }

    /// The held stream, if it is to be asked for again.
    fn retry(&mut self) -> Option<SubstreamProtocol<H::OutboundProtocol, Asked<H>>> {
        let (upgrade, info) = self.held.take()?;
        if !self.shows(&upgrade) {
            self.held = Some((upgrade, info));
            return None;
        }
        self.retries += 1;
        Some(self.ask(SubstreamProtocol::new(upgrade, info)))
    }

    fn ask(
        &self,
        protocol: SubstreamProtocol<H::OutboundProtocol, H::OutboundOpenInfo>,
    ) -> SubstreamProtocol<H::OutboundProtocol, Asked<H>> {
        let spare = self.manner.patience.as_ref().map(|patience| (patience.copy)(protocol.upgrade()));
        protocol.map_info(|info| Asked { info, spare })
    }
}

fn serves_a_pending_peer(protocol: &StreamProtocol) -> bool {
    [identify::PROTOCOL_NAME, identify::PUSH_PROTOCOL_NAME, ping::PROTOCOL_NAME].contains(protocol)
}

impl<H: ConnectionHandler> ConnectionHandler for Handler<H> {
    type FromBehaviour = In<H>;
    type ToBehaviour = H::ToBehaviour;
    type InboundProtocol = Door<H::InboundProtocol>;
    type OutboundProtocol = H::OutboundProtocol;
    type InboundOpenInfo = Option<H::InboundOpenInfo>;
    type OutboundOpenInfo = Asked<H>;

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol, Self::InboundOpenInfo> {
        match &self.inner {
            Some(inner) => inner.listen_protocol().map_upgrade(|upgrade| Door(Some(upgrade))).map_info(Some),
            None => SubstreamProtocol::new(Door(None), None),
        }
    }

    fn connection_keep_alive(&self) -> bool {
        self.inner.as_ref().is_some_and(H::connection_keep_alive)
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, Asked<H>, H::ToBehaviour>> {
        if let Some(report) = self.reports.pop_front() {
            return Poll::Ready(ConnectionHandlerEvent::ReportRemoteProtocols(report));
        }
        if let Some(protocol) = self.retry() {
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
        }
        let Some(inner) = &mut self.inner else { return Poll::Pending };
        Poll::Ready(match ready!(inner.poll(cx)) {
            ConnectionHandlerEvent::OutboundSubstreamRequest { protocol } => {
                ConnectionHandlerEvent::OutboundSubstreamRequest { protocol: self.ask(protocol) }
            }
            other => other.map_outbound_open_info(|info| Asked { info, spare: None }),
        })
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<Option<H::ToBehaviour>> {
        self.inner.as_mut().map_or(Poll::Ready(None), |inner| inner.poll_close(cx))
    }

    fn on_behaviour_event(&mut self, event: In<H>) {
        match (event, &mut self.inner) {
            (In::Activate(inner), _) => self.activate(*inner),
            (In::Inner(event), Some(inner)) => inner.on_behaviour_event(event),
            (In::Inner(event), None) => tracing::debug!(?event, "nothing is said to a pending peer"),
        }
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<'_, Self::InboundProtocol, Self::OutboundProtocol, Self::InboundOpenInfo, Asked<H>>,
    ) {
        let event = match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol, info: Some(info) }) => {
                ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol, info })
            }
            ConnectionEvent::ListenUpgradeError(ListenUpgradeError { info: Some(info), error }) => {
                ConnectionEvent::ListenUpgradeError(ListenUpgradeError { info, error })
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol, info }) => {
                ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol, info: info.info })
            }
            ConnectionEvent::DialUpgradeError(error) => match self.hold(error) {
                Some(error) => ConnectionEvent::DialUpgradeError(error),
                None => return,
            },
            ConnectionEvent::AddressChange(change) => ConnectionEvent::AddressChange(change),
            ConnectionEvent::LocalProtocolsChange(change) => ConnectionEvent::LocalProtocolsChange(change),
            ConnectionEvent::RemoteProtocolsChange(change) => {
                self.remote.on_protocols_change(change.clone());
                self.release();
                ConnectionEvent::RemoteProtocolsChange(change)
            }
            _ => return,
        };
        if let Some(inner) = &mut self.inner {
            inner.on_connection_event(event);
        }
    }
}
