//! The part that lives with one connection.

use std::{
    collections::VecDeque,
    sync::Arc,
    task::{Context, Poll},
};

use libp2p::{
    StreamProtocol,
    core::upgrade::ReadyUpgrade,
    swarm::{
        ConnectionHandler, ConnectionHandlerEvent, StreamUpgradeError, SubstreamProtocol,
        handler::{ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound},
    },
};

use super::{LaneStream, OpenError, RespondTo};
use crate::lane::MAX_INBOUND_LANES;

/// Streams that wait for negotiation on one connection; more are refused.
const MAX_OPENING: usize = 64;

/// Asks a connection for a stream.
#[derive(Debug)]
pub struct Open {
    pub(super) respond_to: RespondTo,
}

/// Opens and accepts lane streams on one connection.
#[derive(Debug)]
pub struct Handler {
    protocol: StreamProtocol,
    streams: Arc<()>,
    wanted: VecDeque<RespondTo>,
    opening: usize,
    arrived: VecDeque<LaneStream>,
}

impl Handler {
    pub(super) fn new(protocol: StreamProtocol, streams: Arc<()>) -> Self {
        Self { protocol, streams, wanted: VecDeque::new(), opening: 0, arrived: VecDeque::new() }
    }

    fn wrap(&self, stream: libp2p::Stream) -> LaneStream {
        LaneStream::new(stream, self.streams.clone())
    }
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Open;
    type ToBehaviour = LaneStream;
    type InboundProtocol = ReadyUpgrade<StreamProtocol>;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = RespondTo;

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol> {
        SubstreamProtocol::new(ReadyUpgrade::new(self.protocol.clone()), ())
    }

    fn connection_keep_alive(&self) -> bool {
        // An open stream keeps its connection by itself.
        !self.wanted.is_empty()
    }

    fn poll(
        &mut self,
        _: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, RespondTo, LaneStream>> {
        if let Some(stream) = self.arrived.pop_front() {
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(stream));
        }
        if let Some(respond_to) = self.wanted.pop_front() {
            self.opening += 1;
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest {
                protocol: SubstreamProtocol::new(ReadyUpgrade::new(self.protocol.clone()), respond_to),
            });
        }
        Poll::Pending
    }

    fn on_behaviour_event(&mut self, Open { respond_to }: Open) {
        if self.wanted.len() + self.opening >= MAX_OPENING {
            // Whoever asked may have given up.
            let _ = respond_to.send(Err(OpenError::Failed("too many lanes are being opened".into())));
        } else {
            self.wanted.push_back(respond_to);
        }
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<'_, Self::InboundProtocol, Self::OutboundProtocol, (), RespondTo>,
    ) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol: stream, .. }) => {
                if self.arrived.len() < MAX_INBOUND_LANES {
                    let stream = self.wrap(stream);
                    self.arrived.push_back(stream);
                } else {
                    tracing::debug!("lane stream dropped: the peer opens too many");
                }
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound {
                protocol: stream,
                info: respond_to,
            }) => {
                self.opening -= 1;
                // Whoever asked may have given up; the stream is reset then.
                let _ = respond_to.send(Ok(self.wrap(stream)));
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { info: respond_to, error }) => {
                self.opening -= 1;
                let error = match error {
                    StreamUpgradeError::NegotiationFailed => OpenError::Unsupported,
                    StreamUpgradeError::Timeout => OpenError::Failed("the peer did not answer in time".into()),
                    StreamUpgradeError::Apply(never) => match never {},
                    StreamUpgradeError::Io(error) => OpenError::Failed(error.to_string()),
                };
                // Whoever asked may have given up.
                let _ = respond_to.send(Err(error));
            }
            _ => {}
        }
    }
}
