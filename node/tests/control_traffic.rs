//! What a peer has a node do by questions and by packets of gossip is bounded, however it asks: nothing is looked at beyond
//! that, the peer is kept away, and honest ones are served all the while.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{sync::Arc, time::Duration};

use common::Swarm as Commands;
use futures::{AsyncRead, AsyncReadExt, AsyncWriteExt, StreamExt};
use libp2p::{
    Multiaddr, PeerId, StreamProtocol, Swarm, identify,
    identity::Keypair,
    swarm::{NetworkBehaviour, SwarmEvent},
};
use multinodes::Node;
use multinodes_behaviour::{SwarmName, lanes, ping, transport};
use tokio::sync::oneshot;

const LIMIT: Duration = Duration::from_secs(90);

/// As much of a member as is needed to be let in, and streams of one protocol.
#[derive(NetworkBehaviour)]
struct Hostile {
    identify: identify::Behaviour,
    ping: ping::Behaviour,
    streams: lanes::Behaviour,
}

/// A message behind its length, as both protocols have them.
fn framed(message: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut length = message.len();
    while length >= 0x80 {
        bytes.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    bytes.push(length as u8);
    bytes.extend_from_slice(message);
    bytes
}

/// A field of protobuf that has bytes.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    [&[number << 3 | 2][..], &framed(bytes)].concat()
}

/// A question for the nodes that are closest to a key.
fn question() -> Vec<u8> {
    framed(&[&[0x08, 4][..], &field(2, &[7; 32])].concat())
}

/// A packet of gossip that asks for seven hundred messages, none of which there is.
fn wishes() -> Vec<u8> {
    let ids: Vec<u8> =
        (0..700_u32).flat_map(|number| field(1, &[&number.to_be_bytes()[..], &[7; 16]].concat())).collect();
    framed(&field(3, &field(2, &ids)))
}

fn gossip(name: &SwarmName) -> StreamProtocol {
    StreamProtocol::try_from_owned(format!("{}/1.1.0", name.gossip_protocol_prefix())).unwrap()
}

/// What is said again and again, and on how many streams of which protocol.
struct Flood {
    protocol: fn(&SwarmName) -> StreamProtocol,
    said: Vec<u8>,
    streams: usize,
}

/// Goes on without end, as a new peer whenever it is let go.
async fn flood(name: SwarmName, flood: Flood, target: (PeerId, Multiaddr)) {
    loop {
        let keypair = Keypair::generate_ed25519();
        let local = keypair.public().to_peer_id();
        let hostile = Hostile {
            identify: identify::Behaviour::new(identify::Config::new(name.identify_version(), keypair.public())),
            ping: ping::Behaviour::default(),
            streams: lanes::Behaviour::new((flood.protocol)(&name), local),
        };
        let config = libp2p::swarm::Config::with_tokio_executor().with_idle_connection_timeout(LIMIT);
        let mut swarm = Swarm::new(transport::new(&keypair).unwrap(), hostile, local, config);
        swarm.dial(target.1.clone()).unwrap();
        let mut connected = false;
        let mut speaking = None;
        // Who closes the streams of gossip that the node opens is not listened to any more.
        let mut heard = tokio::task::JoinSet::new();
        loop {
            match swarm.select_next_some().await {
                SwarmEvent::ConnectionEstablished { .. } if !connected => {
                    connected = true;
                    speaking = Some(speak(&mut swarm, target.0, &flood));
                }
                SwarmEvent::Behaviour(HostileEvent::Streams(mut event)) => {
                    heard.spawn(async move { read_all(&mut event.stream).await });
                }
                SwarmEvent::ConnectionClosed { .. } | SwarmEvent::OutgoingConnectionError { .. } => break,
                _ => {}
            }
        }
        drop(speaking);
    }
}

/// Takes whatever comes.
async fn read_all(reader: &mut (impl AsyncRead + Unpin)) {
    while reader.read(&mut [0; 65_536]).await.is_ok_and(|count| count > 0) {}
}

/// Writes on a few streams without end, and reads whatever comes.
fn speak(swarm: &mut Swarm<Hostile>, target: PeerId, flood: &Flood) -> tokio::task::JoinSet<()> {
    let mut speaking = tokio::task::JoinSet::new();
    let batch = Arc::new(flood.said.repeat((64 * 1024 / flood.said.len()).max(1)));
    for _ in 0..flood.streams {
        let (respond_to, opened) = oneshot::channel();
        swarm.behaviour_mut().streams.open(target, respond_to);
        let batch = batch.clone();
        speaking.spawn(async move {
            let Ok(Ok(stream)) = opened.await else { return };
            let (mut reader, mut writer) = stream.split();
            let write = async { while writer.write_all(&batch).await.is_ok() && writer.flush().await.is_ok() {} };
            futures::join!(write, read_all(&mut reader));
        });
    }
    speaking
}

/// A node and an honest peer of it, while the node is flooded until that is counted.
async fn is_counted(flood_with: Flood) {
    let commands = Commands::new();
    let mut victim = commands.start("victim", &[]);
    let nodes = victim.started();
    let peer_id: PeerId = nodes["peer_id"].as_str().unwrap().parse().unwrap();
    let mut address: Multiaddr = nodes["addresses"][0].as_str().unwrap().parse().unwrap();
    address.pop();
    let honest = commands.builder().name("honest").start().await.unwrap();
    honest.wait_for_node("victim").await.unwrap();
    let name: SwarmName = commands.name.parse().unwrap();
    let flood = tokio::spawn(flood(name, flood_with, (peer_id, address)));
    let counted = tokio::time::timeout(LIMIT, until_counted(&honest)).await;
    assert!(!flood.is_finished(), "the attacker has broken down");
    flood.abort();
    counted.expect("it is counted in time, and the peer kept away");
}

/// Calls while the flood goes on.
async fn until_counted(honest: &Node) {
    let victim = honest.app("node").on("victim");
    loop {
        let counters: serde_json::Value = victim.call("counters", ()).await.expect("honest peers are served");
        if counters["refused_control"].as_u64() > Some(0) && counters["kept_away"].as_u64() > Some(0) {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn questions_without_end_are_not_answered_without_end() {
    // More streams than there may be misdeeds: on none of them anything more is answered.
    is_counted(Flood { protocol: SwarmName::kademlia_protocol, said: question(), streams: 24 }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wishes_without_end_are_not_looked_through_without_end() {
    is_counted(Flood { protocol: gossip, said: wishes(), streams: 1 }).await;
}
