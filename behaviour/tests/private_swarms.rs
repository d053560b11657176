//! Who has not the secret of a private swarm connects to nobody in it and reads nothing of it.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::time::Duration;

use common::{Either, config, listen, until};
use libp2p::{Multiaddr, PeerId, Swarm, identify, multiaddr::Protocol, swarm::SwarmEvent};
use multinodes_behaviour::{Behaviour, BehaviourEvent, Config, Privacy, build};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::timeout,
};

const TCP: &str = "/ip4/127.0.0.1/tcp/0";
const LIMIT: Duration = Duration::from_secs(20);

/// What a private swarm shows to whoever connects: a number that is used once.
const NONCE: usize = 24;

/// What the dialler of an open swarm says first.
const OPEN_DIAL: &[u8] = b"\x13/multistream/1.0.0\n\x07/noise\n";

fn node(swarm: &str, secret: Option<u8>) -> Swarm<Behaviour> {
    let privacy = secret.map(|byte| Privacy::new(&[byte; 32], &swarm.parse().unwrap()));
    build(&Config { privacy, ..config(swarm) }).unwrap()
}

/// Dials, and gives who was reached and whom the other side has seen.
async fn dial(dialler: &mut Swarm<Behaviour>, listener: &mut Swarm<Behaviour>, address: &str) -> Reached {
    let address = listen(listener, address).await;
    dialler.dial(address).unwrap();
    let mut dialled = None;
    let mut taken = None;
    until(dialler, listener, |_, event| {
        match event {
            Either::One(SwarmEvent::ConnectionEstablished { peer_id, .. }) => dialled = Some(Some(peer_id)),
            Either::One(SwarmEvent::OutgoingConnectionError { peer_id, .. }) => {
                assert_eq!(peer_id, None, "not even who it is becomes known");
                dialled = Some(None);
            }
            Either::Two(SwarmEvent::ConnectionEstablished { peer_id, .. }) => taken = Some(Some(peer_id)),
            Either::Two(SwarmEvent::IncomingConnectionError { peer_id, .. }) => {
                assert_eq!(peer_id, None, "not even who it is becomes known");
                taken = Some(None);
            }
            _ => {}
        }
        dialled.zip(taken)
    })
    .await
}

type Reached = (Option<PeerId>, Option<PeerId>);

#[tokio::test]
async fn who_has_the_secret_is_let_in() {
    for address in [TCP, "/memory/0"] {
        let (mut one, mut two) = (node("garden", Some(1)), node("garden", Some(1)));
        let reached = dial(&mut two, &mut one, address).await;
        assert_eq!(reached, (Some(*one.local_peer_id()), Some(*two.local_peer_id())));
    }
}

#[tokio::test]
async fn who_has_another_secret_or_none_sees_nobody_and_is_seen_by_nobody() {
    let inside = ("garden", Some(1));
    let outside = [("garden", Some(2)), ("garden", None), ("gardens", Some(1))];
    let mut dials = Vec::new();
    for address in [TCP, "/memory/0"] {
        for outside in outside {
            for (dialler, listener) in [(inside, outside), (outside, inside)] {
                dials.push(async move {
                    let (mut two, mut one) = (node(dialler.0, dialler.1), node(listener.0, listener.1));
                    let reached = dial(&mut two, &mut one, address).await;
                    assert_eq!(reached, (None, None), "{dialler:?} has dialled {listener:?} at {address}");
                });
            }
        }
    }
    futures::future::join_all(dials).await;
}

#[tokio::test]
async fn a_stranger_reads_a_random_number_and_is_hung_up_on() {
    let mut swarm = node("garden", Some(1));
    let address = listen(&mut swarm, TCP).await;
    let running = tokio::spawn(async move {
        loop {
            let event = futures::StreamExt::select_next_some(&mut swarm).await;
            assert!(!matches!(event, SwarmEvent::ConnectionEstablished { .. }));
        }
    });
    let mut heard = Vec::new();
    for said in [OPEN_DIAL, &[0; 4096], &[0xff; 100], b"GET / HTTP/1.1\r\nHost: garden\r\n\r\n"] {
        let mut stream = TcpStream::connect(socket(&address)).await.unwrap();
        stream.write_all(said).await.unwrap();
        let mut answer = Vec::new();
        // A reset is as good as an end.
        let _ = timeout(LIMIT, stream.read_to_end(&mut answer)).await.expect("it hangs up");
        assert!(answer.len() <= NONCE, "{answer:?}");
        assert!(!heard.contains(&answer) || answer.is_empty(), "a nonce is used once");
        heard.push(answer);
    }
    assert!(heard.iter().any(|answer| answer.len() == NONCE), "{heard:?}");
    assert!(!running.is_finished());
    running.abort();
}

#[tokio::test]
async fn a_stranger_that_sends_back_what_it_hears_is_not_let_in() {
    let mut swarm = node("garden", Some(1));
    let mirror = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = multiaddr(mirror.local_addr().unwrap());
    tokio::spawn(async move {
        let (stream, _) = mirror.accept().await.unwrap();
        let (mut reader, mut writer) = stream.into_split();
        let _ = tokio::io::copy(&mut reader, &mut writer).await;
    });
    swarm.dial(address).unwrap();
    let ended = async {
        loop {
            match futures::StreamExt::select_next_some(&mut swarm).await {
                SwarmEvent::ConnectionEstablished { .. } => panic!("it took its own echo for a member"),
                SwarmEvent::OutgoingConnectionError { .. } => return,
                _ => {}
            }
        }
    };
    timeout(LIMIT, ended).await.expect("the dial ends");
}

#[tokio::test]
async fn who_listens_on_the_cable_reads_neither_names_nor_peer_ids() {
    let (mut one, mut two) = (node("garden", Some(1)), node("garden", Some(1)));
    let behind = socket(&listen(&mut one, TCP).await);
    let (tell, mut told) = mpsc::unbounded_channel();
    let cable = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = multiaddr(cable.local_addr().unwrap());
    tokio::spawn(async move {
        let (near, _) = cable.accept().await.unwrap();
        let far = TcpStream::connect(behind).await.unwrap();
        let ((near_reader, near_writer), (far_reader, far_writer)) = (near.into_split(), far.into_split());
        tokio::join!(tap(near_reader, far_writer, tell.clone()), tap(far_reader, near_writer, tell));
    });
    two.dial(address).unwrap();
    let mut known = [false; 2];
    until(&mut one, &mut two, |_, event| {
        match event {
            Either::One(SwarmEvent::Behaviour(BehaviourEvent::Identify(identify::Event::Received { .. }))) => {
                known[0] = true;
            }
            Either::Two(SwarmEvent::Behaviour(BehaviourEvent::Identify(identify::Event::Received { .. }))) => {
                known[1] = true;
            }
            _ => {}
        }
        (known == [true; 2]).then_some(())
    })
    .await;
    let mut heard = Vec::new();
    while let Ok(bytes) = told.try_recv() {
        heard.extend(bytes);
    }
    assert!(heard.len() > 1000, "{}", heard.len());
    let peer_ids = [*one.local_peer_id(), *two.local_peer_id()].map(PeerId::to_bytes);
    let readable: [&[u8]; 6] =
        [b"multistream", b"/noise", b"multinodes", b"garden", &peer_ids[0][6..], &peer_ids[1][6..]];
    for text in readable {
        assert!(!heard.windows(text.len()).any(|window| window == text), "{text:?} can be read");
    }
}

/// Passes bytes on, and tells of them.
async fn tap(
    mut reader: tokio::net::tcp::OwnedReadHalf,
    mut writer: tokio::net::tcp::OwnedWriteHalf,
    tell: mpsc::UnboundedSender<Vec<u8>>,
) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = reader.read(&mut buffer).await {
        let _ = tell.send(buffer[..length].to_vec());
        if writer.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}

fn socket(address: &Multiaddr) -> std::net::SocketAddr {
    let port = address.iter().find_map(|part| match part {
        Protocol::Tcp(port) => Some(port),
        _ => None,
    });
    ([127, 0, 0, 1], port.unwrap()).into()
}

fn multiaddr(socket: std::net::SocketAddr) -> Multiaddr {
    Multiaddr::from(socket.ip()).with(Protocol::Tcp(socket.port()))
}
