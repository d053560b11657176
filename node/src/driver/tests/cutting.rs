//! A way to a node on which a connection breaks at a given place.

use tokio::{
    io::{AsyncReadExt, copy},
    net::{TcpListener, TcpStream},
    sync::watch,
};

use super::*;

/// How it breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Close,
    Reset,
    /// Nothing comes any more.
    Silence,
}

/// Passes on what is said to a node and back, until the node has said so many bytes.
pub(super) struct Cutting {
    pub(super) address: Multiaddr,
    /// When somebody dialled.
    pub(super) dials: watch::Receiver<Vec<Instant>>,
    task: JoinHandle<()>,
}

impl Cutting {
    pub(super) async fn new(to: &Multiaddr, after: usize, end: End) -> Self {
        let (listener, address) = place().await;
        let (noted, dials) = watch::channel(Vec::new());
        let to = socket_of(to);
        let task = tokio::spawn(async move {
            let mut passing = JoinSet::new();
            while let Ok((near, _)) = listener.accept().await {
                noted.send_modify(|dials: &mut Vec<Instant>| dials.push(Instant::now()));
                passing.spawn(pass_on(near, to.clone(), after, end));
            }
        });
        Self { address, dials, task }
    }

    /// How often it was dialled so far.
    pub(super) fn count(&self) -> usize {
        self.dials.borrow().len()
    }

    /// Waits until it was dialled so often, and says when.
    pub(super) async fn dialled(&mut self, times: usize) -> Vec<Instant> {
        let reached = tokio::time::timeout(LIMIT, self.dials.wait_for(|dials| dials.len() >= times)).await.is_ok();
        assert!(reached, "{} dials, {times} are awaited", self.count());
        self.dials.borrow().clone()
    }
}

impl Drop for Cutting {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass_on(near: TcpStream, to: String, after: usize, end: End) {
    let Ok(far) = TcpStream::connect(to).await else { return };
    let (mut far_reader, mut far_writer) = far.into_split();
    let (mut near_reader, mut near_writer) = near.into_split();
    let up = tokio::spawn(async move {
        let _ = copy(&mut near_reader, &mut far_writer).await;
        near_reader
    });
    let _ = copy(&mut (&mut far_reader).take(after as u64), &mut near_writer).await;
    match end {
        End::Silence => std::future::pending().await,
        End::Close => up.abort(),
        End::Reset => {
            // What was received and not read makes the system reset a connection that is closed.
            let socket = socket2::SockRef::from(near_writer.as_ref());
            let _ = socket.set_linger(Some(Duration::ZERO));
            up.abort();
        }
    }
    // The other half is gone with its task.
    let _ = up.await;
}

/// Where nobody answers yet.
pub(super) async fn place() -> (TcpListener, Multiaddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("/ip4/127.0.0.1/tcp/{}", listener.local_addr().unwrap().port()).parse().unwrap();
    (listener, address)
}

fn socket_of(address: &Multiaddr) -> String {
    let text = address.to_string();
    let parts: Vec<&str> = text.split('/').collect();
    format!("{}:{}", parts[2], parts[4])
}

/// A peer that speaks all protocols and does nothing by itself, and where it listens.
pub(super) async fn bare() -> (PeerId, Multiaddr) {
    let config = multinodes_behaviour::Config {
        swarm: "test".parse().unwrap(),
        keypair: Keypair::generate_ed25519(),
        passive: false,
        mdns: false,
        interfaces: Vec::new(),
        kademlia: false,
        high_mark: 96,
        refused_subscriptions: Default::default(),
        privacy: None,
        doorkeeper: None,
        credential: None,
    };
    let mut swarm = multinodes_behaviour::build(&config).unwrap();
    swarm.listen_on("/ip4/127.0.0.1/tcp/0".parse().unwrap()).unwrap();
    let peer_id = *swarm.local_peer_id();
    let address = loop {
        if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
            break address;
        }
    };
    tokio::spawn(async move { while swarm.next().await.is_some() {} });
    (peer_id, address)
}
