//! libp2p's own request-response with CBOR. Its limits are raised so that nothing fails; with [`Version::V1Lazy`] it
//! also saves the round trip in which the protocol of each request is negotiated.

use std::{collections::HashMap, time::Duration};

use bytes::Bytes;
use futures::StreamExt;
use libp2p::{
    Multiaddr, PeerId, StreamProtocol, Swarm,
    core::upgrade::Version,
    multiaddr::Protocol,
    noise,
    request_response::{self, Event, Message, OutboundRequestId, ProtocolSupport, cbor},
    swarm::{DialError, SwarmEvent},
    tcp, yamux,
};
use tokio::sync::{mpsc, oneshot};

use crate::{
    Error,
    contestant::{Blob, Client},
    process,
};

type Behaviour = cbor::Behaviour<Blob, Blob>;

/// With the default of 100, further requests fail instead of waiting.
const STREAMS: usize = 2048;

/// Above the 1 MiB payload and its CBOR header; the default cuts at 1 MiB.
const LARGEST: u64 = 2 * 1024 * 1024;

fn swarm(version: Version) -> Result<Swarm<Behaviour>, Error> {
    let multiplexer = || {
        let mut config = yamux::Config::default();
        config.set_max_num_streams(2 * STREAMS);
        config
    };
    Ok(libp2p::SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(tcp::Config::new().nodelay(true), noise::Config::new, multiplexer)?
        .with_behaviour(|_| {
            let codec = cbor::codec::Codec::default().set_request_size_maximum(LARGEST);
            let config = request_response::Config::default()
                .with_request_timeout(Duration::from_secs(60))
                .with_max_concurrent_streams(STREAMS);
            Behaviour::with_codec(codec, [(StreamProtocol::new("/bench/1"), ProtocolSupport::Full)], config)
        })?
        .with_swarm_config(|config| {
            config
                .with_substream_upgrade_protocol_override(version)
                .with_idle_connection_timeout(Duration::from_secs(3600))
        })
        .build())
}

/// Answers every request from the swarm's own loop.
pub(crate) async fn serve(version: Version) -> Result<(), Error> {
    let mut swarm = swarm(version)?;
    swarm.listen_on("/ip4/127.0.0.1/tcp/0".parse()?)?;
    loop {
        match swarm.select_next_some().await {
            SwarmEvent::NewListenAddr { address, .. } => {
                process::say_ready(&address.with(Protocol::P2p(*swarm.local_peer_id())).to_string());
            }
            SwarmEvent::Behaviour(Event::Message { message: Message::Request { request, channel, .. }, .. }) => {
                // Fails when the connection is gone: then there is nobody to tell.
                let _ = swarm.behaviour_mut().send_response(channel, request.answer());
            }
            _ => {}
        }
    }
}

/// The calling side: a handle to the task that owns the swarm.
#[derive(Clone)]
pub(crate) struct RequestResponse(mpsc::Sender<Request>);

struct Request {
    payload: Bytes,
    respond_to: oneshot::Sender<Result<usize, String>>,
}

impl RequestResponse {
    pub(crate) async fn connect(address: &str, version: Version) -> Result<Self, Error> {
        let mut address: Multiaddr = address.parse()?;
        let Some(Protocol::P2p(peer_id)) = address.iter().last() else {
            return Err("no peer id in the address".into());
        };
        let mut swarm = swarm(version)?;
        swarm
            .dial(std::mem::replace(&mut address, Multiaddr::empty()))
            .map_err(|error: DialError| error.to_string())?;
        while !swarm.is_connected(&peer_id) {
            if let SwarmEvent::OutgoingConnectionError { error, .. } = swarm.select_next_some().await {
                return Err(error.into());
            }
        }
        let (requests, queue) = mpsc::channel(STREAMS);
        tokio::spawn(run(swarm, peer_id, queue));
        Ok(Self(requests))
    }
}

impl Client for RequestResponse {
    async fn call(&self, payload: Bytes) -> Result<usize, Error> {
        let (respond_to, response) = oneshot::channel();
        self.0.send(Request { payload, respond_to }).await.map_err(|_| "the swarm's task has ended")?;
        Ok(response.await??)
    }
}

async fn run(mut swarm: Swarm<Behaviour>, peer_id: PeerId, mut queue: mpsc::Receiver<Request>) {
    let mut waiting: HashMap<OutboundRequestId, oneshot::Sender<Result<usize, String>>> = HashMap::new();
    loop {
        tokio::select! {
            request = queue.recv() => {
                let Some(Request { payload, respond_to }) = request else { return };
                waiting.insert(swarm.behaviour_mut().send_request(&peer_id, Blob(payload)), respond_to);
            }
            event = swarm.select_next_some() => match event {
                SwarmEvent::Behaviour(Event::Message { message: Message::Response { request_id, response }, .. }) => {
                    if let Some(respond_to) = waiting.remove(&request_id) {
                        let _ = respond_to.send(Ok(response.0.len()));
                    }
                }
                SwarmEvent::Behaviour(Event::OutboundFailure { request_id, error, .. }) => {
                    if let Some(respond_to) = waiting.remove(&request_id) {
                        let _ = respond_to.send(Err(error.to_string()));
                    }
                }
                _ => {}
            },
        }
    }
}
