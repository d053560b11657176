//! Silent connections keep nobody out, from wherever they and the others come.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use common::{config, listen};
use futures::StreamExt;
use libp2p::{Multiaddr, Swarm, swarm::SwarmEvent};
use multinodes_behaviour::{Behaviour, Config, Privacy, build, places::PLACES};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::{Duration, timeout},
};

/// The limit of a handshake: who had to wait for it has been kept out.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// Far more than anything here needs.
const LIMIT: Duration = Duration::from_secs(30);

/// A connection that says nothing.
async fn connect(from: Ipv4Addr, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(IpAddr::V4(from), 0)).unwrap();
    socket.connect(to).await.unwrap()
}

/// As many of them as there are places, and some more.
async fn silence(from: Ipv4Addr, to: SocketAddr) -> Vec<TcpStream> {
    let mut streams = Vec::new();
    for _ in 0..2 * PLACES {
        streams.push(connect(from, to).await);
    }
    streams
}

fn socket_of(address: &Multiaddr) -> SocketAddr {
    let text = address.to_string();
    let parts: Vec<&str> = text.split('/').collect();
    format!("{}:{}", parts[2], parts[4]).parse().unwrap()
}

/// Whether an honest peer gets in at the first attempt.
async fn gets_in(config: Config, address: &Multiaddr) -> bool {
    let mut honest = build(&config).unwrap();
    honest.dial(address.clone()).unwrap();
    loop {
        match honest.select_next_some().await {
            SwarmEvent::ConnectionEstablished { .. } => return true,
            SwarmEvent::OutgoingConnectionError { .. } => return false,
            _ => {}
        }
    }
}

/// A node, and where it listens.
async fn target(config: &Config) -> Multiaddr {
    let mut target: Swarm<Behaviour> = build(config).unwrap();
    let address = listen(&mut target, "/ip4/127.0.0.1/tcp/0").await;
    tokio::spawn(async move { while target.next().await.is_some() {} });
    address
}

#[tokio::test]
async fn silent_sockets_shut_out_nobody_from_the_same_host_or_another() {
    let attempts = async {
        let address = target(&config("places")).await;
        for from in [Ipv4Addr::LOCALHOST, Ipv4Addr::new(127, 0, 0, 2)] {
            let silent = silence(from, socket_of(&address)).await;
            let got_in = timeout(HANDSHAKE / 2, gets_in(config("places"), &address)).await;
            assert_eq!(got_in, Ok(true), "beside silent sockets from {from}");
            drop(silent);
        }
    };
    timeout(LIMIT, attempts).await.expect("in time");
}

#[tokio::test]
async fn sockets_that_come_again_and_again_and_say_nothing_use_up_nobodys_handshakes() {
    let attempts = async {
        let address = target(&config("places")).await;
        let socket = socket_of(&address);
        // More than one host may begin handshakes at once.
        for _ in 0..600 {
            drop(connect(Ipv4Addr::LOCALHOST, socket).await);
        }
        let got_in = async {
            let mut count = 0;
            for _ in 0..10 {
                for _ in 0..20 {
                    drop(connect(Ipv4Addr::LOCALHOST, socket).await);
                }
                count += usize::from(gets_in(config("places"), &address).await);
            }
            count
        };
        assert_eq!(got_in.await, 10);
    };
    timeout(LIMIT, attempts).await.expect("in time");
}

#[tokio::test]
async fn who_has_not_the_secret_of_a_private_swarm_counts_as_silent_whatever_it_begins_with() {
    let private = || {
        let config = config("places");
        Config { privacy: Some(Privacy::new(&[7; 32], &config.swarm)), ..config }
    };
    let attempts = async {
        let address = target(&private()).await;
        let mut strangers = silence(Ipv4Addr::LOCALHOST, socket_of(&address)).await;
        for stranger in &mut strangers {
            // The node has written its own 24 bytes by now, and reads ours; those that gave way are closed.
            if stranger.read_exact(&mut [0; 24]).await.is_ok() {
                let _ = stranger.write_all(&[9; 24]).await;
            }
        }
        let got_in = timeout(HANDSHAKE / 2, gets_in(private(), &address)).await;
        assert_eq!(got_in, Ok(true), "beside strangers with a nonce");
    };
    timeout(LIMIT, attempts).await.expect("in time");
}
