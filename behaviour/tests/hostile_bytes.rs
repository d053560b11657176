//! Whatever a peer sends on any protocol, the node goes on answering.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::io;

use common::{Either, config, listen, until};
use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::{
    StreamProtocol, Swarm,
    request_response::{self, Message, ProtocolSupport},
    swarm::{self, SwarmEvent},
};
use multinodes_behaviour::{
    BehaviourEvent, SwarmName, build, codec, transport,
    wire::{SyncRequest, SyncResponse},
};
use rand::{RngCore, SeedableRng, rngs::StdRng};

const ROUNDS: usize = 40;

/// Writes bytes as they are, and reads whatever comes.
#[derive(Debug, Clone, Default)]
struct Raw;

impl request_response::Codec for Raw {
    type Protocol = StreamProtocol;
    type Request = Vec<u8>;
    type Response = Vec<u8>;

    async fn read_request<T: AsyncRead + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        _: &mut T,
    ) -> io::Result<Vec<u8>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    async fn read_response<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Vec<u8>>
    where
        T: AsyncRead + Unpin + Send,
    {
        let mut bytes = Vec::new();
        io.take(1 << 20).read_to_end(&mut bytes).await?;
        Ok(bytes)
    }

    async fn write_request<T>(&mut self, _: &StreamProtocol, io: &mut T, bytes: Vec<u8>) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        io.write_all(&bytes).await
    }

    async fn write_response<T>(&mut self, _: &StreamProtocol, _: &mut T, _: Vec<u8>) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        Ok(())
    }
}

#[tokio::test]
async fn a_node_survives_random_bytes_on_every_protocol() {
    let name = SwarmName::default();
    let gossip = StreamProtocol::try_from_owned(format!("{}/1.1.0", name.gossip_protocol_prefix())).unwrap();
    for protocol in [
        name.sync_protocol(),
        name.lane_protocol(),
        name.kademlia_protocol(),
        gossip,
        StreamProtocol::new("/ipfs/id/1.0.0"),
        StreamProtocol::new("/ipfs/id/push/1.0.0"),
        StreamProtocol::new("/ipfs/ping/1.0.0"),
    ] {
        attack(&name, protocol).await;
    }
}

/// Sends random bytes on a protocol, and then asks something sensible on the same or a new connection.
async fn attack(name: &SwarmName, protocol: StreamProtocol) {
    let mut victim = build(&config("default")).unwrap();
    let address = listen(&mut victim, "/ip4/127.0.0.1/tcp/0").await;
    let peer_id = *victim.local_peer_id();

    let mut noise = attacker(protocol.clone());
    let mut random = StdRng::seed_from_u64(7);
    for round in 0..ROUNDS {
        let mut bytes = vec![0; 1 << (round % 14)];
        random.fill_bytes(&mut bytes);
        noise.behaviour_mut().send_request_with_addresses(&peer_id, bytes, vec![address.clone()]);
    }
    let mut ended = 0;
    until(&mut victim, &mut noise, |_, event| {
        if let Either::Two(SwarmEvent::Behaviour(
            request_response::Event::OutboundFailure { .. } | request_response::Event::Message { .. },
        )) = event
        {
            ended += 1;
        }
        (ended == ROUNDS).then_some(())
    })
    .await;

    let mut polite = attacker(name.sync_protocol());
    let request = codec::encode(&SyncRequest::Release).unwrap();
    polite.behaviour_mut().send_request_with_addresses(&peer_id, request, vec![address]);
    let answer = until(&mut victim, &mut polite, |(victim, _), event| match event {
        Either::One(SwarmEvent::Behaviour(BehaviourEvent::Sync(request_response::Event::Message {
            message: Message::Request { channel, .. },
            ..
        }))) => {
            let response = SyncResponse { same: true, ..SyncResponse::default() };
            // An exchange that the noise has begun may be over.
            let _ = victim.behaviour_mut().sync.send_response(channel, response);
            None
        }
        Either::Two(SwarmEvent::Behaviour(request_response::Event::Message {
            message: Message::Response { response, .. },
            ..
        })) => Some(response),
        Either::Two(SwarmEvent::Behaviour(request_response::Event::OutboundFailure { error, .. })) => {
            panic!("after noise on {protocol}: {error}")
        }
        _ => None,
    })
    .await;
    assert!(codec::decode::<SyncResponse>(&answer, answer.len()).unwrap().same);
}

fn attacker(protocol: StreamProtocol) -> Swarm<request_response::Behaviour<Raw>> {
    let keypair = config("default").keypair;
    let settings = request_response::Config::default().with_request_timeout(std::time::Duration::from_secs(3));
    let behaviour = request_response::Behaviour::new([(protocol, ProtocolSupport::Outbound)], settings);
    let transport = transport::new(&keypair).unwrap();
    Swarm::new(transport, behaviour, keypair.public().to_peer_id(), swarm::Config::with_tokio_executor())
}
