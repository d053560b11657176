//! Silent connections keep nobody out, from wherever they and the others come.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use common::{config, listen};
use futures::StreamExt;
use libp2p::{Multiaddr, PeerId, Swarm, swarm::SwarmEvent};
use multinodes_behaviour::{Behaviour, build, places::PLACES};
use tokio::{
    net::{TcpSocket, TcpStream},
    time::{Duration, timeout},
};

/// The limit of a handshake: who had to wait for it has been kept out.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// Far more than anything here needs.
const LIMIT: Duration = Duration::from_secs(30);

/// As many connections that say nothing as there are places, and some more.
async fn silence(from: Ipv4Addr, to: SocketAddr) -> Vec<TcpStream> {
    let mut streams = Vec::new();
    for _ in 0..2 * PLACES {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::new(IpAddr::V4(from), 0)).unwrap();
        streams.push(socket.connect(to).await.unwrap());
    }
    streams
}

fn socket_of(address: &Multiaddr) -> SocketAddr {
    let text = address.to_string();
    let parts: Vec<&str> = text.split('/').collect();
    format!("{}:{}", parts[2], parts[4]).parse().unwrap()
}

/// Whether an honest peer gets in at the first attempt.
async fn gets_in(address: &Multiaddr) -> bool {
    let mut honest = build(&config("places")).unwrap();
    honest.dial(address.clone()).unwrap();
    loop {
        match honest.select_next_some().await {
            SwarmEvent::ConnectionEstablished { .. } => return true,
            SwarmEvent::OutgoingConnectionError { .. } => return false,
            _ => {}
        }
    }
}

fn run(mut swarm: Swarm<Behaviour>) -> PeerId {
    let peer_id = *swarm.local_peer_id();
    tokio::spawn(async move { while swarm.next().await.is_some() {} });
    peer_id
}

#[tokio::test]
async fn silent_sockets_shut_out_nobody_from_the_same_host_or_another() {
    let attempts = async {
        let mut target = build(&config("places")).unwrap();
        let address = listen(&mut target, "/ip4/127.0.0.1/tcp/0").await;
        run(target);
        for from in [Ipv4Addr::LOCALHOST, Ipv4Addr::new(127, 0, 0, 2)] {
            let silent = silence(from, socket_of(&address)).await;
            let got_in = timeout(HANDSHAKE / 2, gets_in(&address)).await;
            assert_eq!(got_in, Ok(true), "beside silent sockets from {from}");
            drop(silent);
        }
    };
    timeout(LIMIT, attempts).await.expect("in time");
}
