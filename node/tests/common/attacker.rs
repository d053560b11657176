//! Peers that mean harm, built from the parts that honest nodes are built from. One thread each, so that an attack takes
//! one core at the most. The benchmark includes this file as well.
#![allow(dead_code, unreachable_pub, reason = "each program that includes it uses a part")]
#![allow(clippy::unwrap_used, reason = "an attacker that cannot go on fails the test")]

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread::JoinHandle,
    time::Duration,
};

use futures::{AsyncReadExt, AsyncWriteExt, StreamExt};
use libp2p::{Multiaddr, PeerId, Swarm, gossipsub::PublishError, identity::Keypair, swarm::SwarmEvent};
use multinodes_behaviour::{
    Behaviour, BehaviourEvent, Config, SignedRecord, SwarmName, build, codec, gossip,
    lanes::LaneStream,
    wire::{Call, Frame, Gossip, Options, Record, SyncRequest, SyncResponse},
};
use serde_bytes::ByteBuf;
use tokio::{net::TcpStream, sync::oneshot, task::JoinSet};

/// What is done to the target, again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attack {
    /// Connections that say nothing.
    Sockets,
    /// Connections of ever new peers, which stay.
    Connections,
    /// Lanes, of which none is used.
    Lanes,
    /// Calls as fast as they are taken.
    Calls,
    /// The same of an action that does not end by itself: needs the demo's application `clock`.
    Slow,
    /// Calls whose answers are not read.
    Unread,
    /// Half of a large frame on each lane, and then nothing.
    HalfFrames,
    /// Answers to calls that nobody has made.
    Answers,
    /// Gossip that is none.
    Noise,
    /// Records of ever new peer ids by gossip.
    Gossip,
    /// Records of ever new peer ids by exchanges of directories.
    Records,
    /// Records by exchanges whose signatures are wrong, from ever new peers.
    Forged,
}

impl Attack {
    /// Those that any node can be attacked with.
    pub const ALL: [(&'static str, Self); 11] = [
        ("sockets", Self::Sockets),
        ("connections", Self::Connections),
        ("lanes", Self::Lanes),
        ("calls", Self::Calls),
        ("unread", Self::Unread),
        ("half-frames", Self::HalfFrames),
        ("answers", Self::Answers),
        ("noise", Self::Noise),
        ("gossip", Self::Gossip),
        ("records", Self::Records),
        ("forged", Self::Forged),
    ];

    /// By its name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|(known, _)| *known == name).map(|(_, attack)| attack)
    }

    /// What the target counts it as, see the action `counters` of its application `node`.
    pub fn counted_as(self) -> &'static str {
        match self {
            Self::Sockets | Self::Connections => "refused_connections",
            Self::Lanes => "refused_lanes",
            Self::Calls | Self::Slow => "refused_calls",
            Self::Unread | Self::HalfFrames => "stalled_lanes",
            Self::Answers => "unasked_answers",
            Self::Noise | Self::Forged => "bad_records",
            Self::Gossip | Self::Records => "refused_records",
        }
    }

    /// Goes on for ever. `done` grows with each step.
    pub async fn run(self, target: Target, done: Arc<AtomicU64>) {
        match self {
            Self::Sockets => crowd(SOCKETS, done, || hold_socket(target.clone())).await,
            Self::Connections => crowd(CONNECTIONS, done, || hold_connection(target.clone())).await,
            Self::Lanes => lanes(target, &done).await,
            Self::Calls => flood(target, &done, calls).await,
            Self::Slow => flood(target, &done, slow_calls).await,
            Self::Answers => flood(target, &done, answers).await,
            Self::Unread => stuck(target, &done, |_| unread()).await,
            Self::HalfFrames => stuck(target, &done, half_frame).await,
            Self::Noise => gossip_without_end(target, &done, |_, number| format!("noise {number}").into_bytes()).await,
            Self::Gossip => gossip_without_end(target, &done, new_record).await,
            Self::Records => records(target, &done).await,
            Self::Forged => forged_without_end(target, &done).await,
        }
    }
}

/// More than the target lets begin at once.
const SOCKETS: usize = 128;

/// More than the target keeps.
const CONNECTIONS: usize = 256;

/// As many as one peer may have open.
const LANES: usize = 10;

/// Frames that are written at once.
const BATCH: u64 = 64;

/// Records in one exchange.
const PUSHED: usize = 2048;

/// As many records as one exchange may have.
pub const FORGED: usize = 16_384;

/// Whom to harm.
#[derive(Debug, Clone)]
pub struct Target {
    pub swarm: SwarmName,
    pub peer_id: PeerId,
    /// Without peer id.
    pub address: Multiaddr,
}

impl Target {
    /// `address` ends with the peer id.
    pub fn new(swarm: &str, address: &str) -> Self {
        let mut address: Multiaddr = address.parse().unwrap();
        let Some(libp2p::multiaddr::Protocol::P2p(peer_id)) = address.pop() else { panic!("no peer id in {address}") };
        Self { swarm: swarm.parse().unwrap(), peer_id, address }
    }

    fn socket(&self) -> String {
        let text = self.address.to_string();
        let parts: Vec<&str> = text.split('/').collect();
        format!("{}:{}", parts[2], parts[4])
    }
}

/// An attack under way, on a thread of its own. It ends when dropped.
pub struct Attacker {
    done: Arc<AtomicU64>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Attacker {
    pub fn begin(attack: Attack, target: Target) -> Self {
        let (stop, stopped) = oneshot::channel();
        let done = Arc::new(AtomicU64::new(0));
        let progress = done.clone();
        let thread = std::thread::spawn(move || {
            alone(async {
                tokio::select! {
                    () = attack.run(target, progress) => {}
                    _ = stopped => {}
                }
            });
        });
        Self { done, stop: Some(stop), thread: Some(thread) }
    }

    /// How many steps were taken so far.
    pub fn done(&self) -> u64 {
        self.done.load(Relaxed)
    }

    /// Whether it has broken down.
    pub fn has_failed(&self) -> bool {
        self.thread.as_ref().is_some_and(JoinHandle::is_finished)
    }
}

impl Drop for Attacker {
    fn drop(&mut self) {
        drop(self.stop.take());
        let outcome = self.thread.take().map(JoinHandle::join);
        if !std::thread::panicking() {
            outcome.unwrap().unwrap();
        }
    }
}

/// Runs on this thread alone.
pub fn alone(work: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(work);
    runtime.shutdown_background();
}

/// A member of the swarm like any other, as far as anybody can see.
pub struct Member {
    pub swarm: Swarm<Behaviour>,
    pub keypair: Keypair,
    target: Target,
}

impl Member {
    /// A new one, or `None` if the target does not let it in.
    pub async fn connect(target: &Target) -> Option<Self> {
        Self::connect_as(Keypair::generate_ed25519(), target).await
    }

    /// The same as somebody.
    pub async fn connect_as(keypair: Keypair, target: &Target) -> Option<Self> {
        let config = Config {
            swarm: target.swarm.clone(),
            keypair: keypair.clone(),
            passive: true,
            mdns: false,
            kademlia: false,
            high_mark: 96,
            refused_subscriptions: Arc::default(),
            privacy: None,
            doorkeeper: None,
            credential: None,
            interfaces: Vec::new(),
        };
        let mut swarm = build(&config).unwrap();
        swarm.dial(target.address.clone()).unwrap();
        loop {
            match swarm.select_next_some().await {
                SwarmEvent::ConnectionEstablished { .. } => break,
                SwarmEvent::OutgoingConnectionError { .. } => return None,
                _ => {}
            }
        }
        Some(Self { swarm, keypair, target: target.clone() })
    }

    /// The same, patiently.
    async fn connected(target: &Target) -> Self {
        loop {
            if let Some(member) = Self::connect(target).await {
                return member;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Does what is asked of a member, but nothing for itself. `false` when the target has hung up.
    pub async fn turn(&mut self) -> bool {
        !matches!(self.swarm.select_next_some().await, SwarmEvent::ConnectionClosed { num_established: 0, .. })
    }

    pub fn target(&self) -> &Target {
        &self.target
    }

    async fn turn_until_closed(&mut self) {
        while self.turn().await {}
    }

    async fn lane(&mut self) -> Option<LaneStream> {
        let (respond_to, mut stream) = oneshot::channel();
        self.swarm.behaviour_mut().lanes.open(self.target.peer_id, respond_to);
        loop {
            tokio::select! {
                stream = &mut stream => return stream.ok()?.ok(),
                open = self.turn() => if !open { return None },
            }
        }
    }

    /// One exchange of directories.
    pub async fn ask(&mut self, request: SyncRequest) -> Option<SyncResponse> {
        use libp2p::request_response::{Event, Message};
        let asked = self.swarm.behaviour_mut().sync.send_request(&self.target.peer_id, request);
        loop {
            match self.swarm.select_next_some().await {
                SwarmEvent::Behaviour(BehaviourEvent::Sync(Event::Message {
                    message: Message::Response { request_id, response },
                    ..
                })) if request_id == asked => return Some(response),
                SwarmEvent::Behaviour(BehaviourEvent::Sync(Event::OutboundFailure { request_id, .. }))
                    if request_id == asked =>
                {
                    return None;
                }
                _ => {}
            }
        }
    }
}

/// Before who was not let in tries again. No test waits for it: an attacker that only dialled would use up its one core
/// on that, and harm less.
const PAUSE: Duration = Duration::from_millis(10);

/// Keeps so many at it at once.
async fn crowd<F: Future<Output = ()> + Send + 'static>(size: usize, done: Arc<AtomicU64>, member: impl Fn() -> F) {
    let mut crowd = JoinSet::new();
    loop {
        while crowd.len() < size {
            done.fetch_add(1, Relaxed);
            crowd.spawn(member());
        }
        crowd.join_next().await;
    }
}

async fn hold_socket(target: Target) {
    let Ok(mut socket) = TcpStream::connect(target.socket()).await else { return tokio::time::sleep(PAUSE).await };
    let mut greeting = [0; 256];
    // Until the target hangs up.
    while tokio::io::AsyncReadExt::read(&mut socket, &mut greeting).await.is_ok_and(|count| count > 0) {}
}

async fn hold_connection(target: Target) {
    match Member::connect(&target).await {
        Some(mut member) => member.turn_until_closed().await,
        None => tokio::time::sleep(PAUSE).await,
    }
}

async fn lanes(target: Target, done: &AtomicU64) {
    loop {
        let mut member = Member::connected(&target).await;
        let mut kept = Vec::new();
        while let Some(lane) = member.lane().await {
            done.fetch_add(1, Relaxed);
            kept.push(lane);
            // The others were refused, and would fill up the room for streams on the connection.
            kept.truncate(LANES);
        }
    }
}

/// Writes frames without end, and reads whatever comes.
async fn flood(target: Target, done: &AtomicU64, batch: fn(u64) -> Vec<u8>) {
    loop {
        let mut member = Member::connected(&target).await;
        let Some(lane) = member.lane().await else { continue };
        let (mut reader, mut writer) = lane.split();
        let mut answers = vec![0; 64 * 1024];
        let write = async {
            for number in 0.. {
                if writer.write_all(&batch(number * BATCH)).await.is_err() || writer.flush().await.is_err() {
                    return;
                }
                done.fetch_add(BATCH, Relaxed);
            }
        };
        let read = async { while reader.read(&mut answers).await.is_ok_and(|count| count > 0) {} };
        tokio::select! {
            () = write => {}
            () = read => {}
            () = member.turn_until_closed() => {}
        }
    }
}

fn calls(first: u64) -> Vec<u8> {
    let payload = codec::encode(&("hello",)).unwrap();
    frames((first..first + BATCH).map(|id| call(id, ("node", "echo"), &payload)))
}

fn slow_calls(first: u64) -> Vec<u8> {
    const AN_HOUR: u64 = 3_600_000;
    let payload = codec::encode(&(AN_HOUR,)).unwrap();
    frames((first..first + BATCH).map(|id| call(id, ("clock", "sleep"), &payload)))
}

fn call<'a>(id: u64, (application, action): (&'a str, &'a str), payload: &'a [u8]) -> Frame<'a> {
    Frame::Call(Call {
        id,
        application,
        action,
        deadline_ms: 10_000,
        options: Options::default(),
        trace: None,
        payload,
    })
}

fn answers(first: u64) -> Vec<u8> {
    frames((first..first + BATCH).map(|id| Frame::Reply { id, payload: b"surprise" }))
}

fn frames<'a>(frames: impl Iterator<Item = Frame<'a>>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for frame in frames {
        frame.encode(&mut bytes).unwrap();
    }
    bytes
}

/// Opens as many lanes as it may, writes something on each, reads nothing, and begins anew when the target has had enough.
async fn stuck(target: Target, done: &AtomicU64, bytes: fn(usize) -> Vec<u8>) {
    loop {
        let mut member = Member::connected(&target).await;
        let mut lanes = Vec::new();
        for number in 0..LANES {
            if let Some(mut lane) = member.lane().await {
                let bytes = bytes(number);
                lanes.push(async move {
                    done.fetch_add(1, Relaxed);
                    // Who is to answer gets stuck here.
                    if lane.write_all(&bytes).await.is_ok() && lane.flush().await.is_ok() {
                        let _ = lane.read(&mut [0]).await;
                    }
                });
            }
        }
        tokio::select! {
            _ = futures::future::join_all(lanes) => {}
            () = member.turn_until_closed() => {}
        }
    }
}

/// Calls with large answers: 8 MiB in all.
fn unread() -> Vec<u8> {
    let payload = codec::encode(&("x".repeat(128 * 1024),)).unwrap();
    frames((0..64).map(|id| call(id, ("node", "echo"), &payload)))
}

/// One half of the largest frame on some lanes, of one that needs no leave on the others.
fn half_frame(number: usize) -> Vec<u8> {
    let length: u32 = if number < LANES / 2 { 16 * 1024 * 1024 } else { 256 * 1024 };
    let mut bytes = length.to_be_bytes().to_vec();
    bytes.resize(length as usize / 2, 0);
    bytes
}

async fn gossip_without_end(target: Target, done: &AtomicU64, message: fn(&SwarmName, u64) -> Vec<u8>) {
    let mut number = u64::from(std::process::id()) << 32;
    loop {
        let mut member = Member::connected(&target).await;
        let topic = target.swarm.gossip_topic();
        let mut next = message(&target.swarm, number);
        loop {
            // As much as its own queue takes, then what the connection has to say.
            loop {
                let published = member.swarm.behaviour_mut().gossip.publish(topic.clone(), next.clone());
                if matches!(published, Err(PublishError::NoPeersSubscribedToTopic)) {
                    break;
                }
                done.fetch_add(1, Relaxed);
                number += 1;
                // What found the queue full counts as published, and cannot be again.
                next = message(&target.swarm, number);
                if published.is_err() || number % BATCH == 0 {
                    break;
                }
            }
            tokio::task::yield_now().await;
            let turn = tokio::time::timeout(Duration::from_millis(1), member.turn()).await;
            if turn == Ok(false) {
                break;
            }
        }
    }
}

fn new_record(swarm: &SwarmName, number: u64) -> Vec<u8> {
    gossip::encode(&Gossip::Record(made_up(swarm, number))).unwrap()
}

/// The record of a node that does not exist.
fn made_up(swarm: &SwarmName, number: u64) -> ByteBuf {
    let record = Record {
        name: format!("nobody-{number}"),
        incarnation: 1,
        revision: 1,
        software: "0".to_owned(),
        addresses: Vec::new(),
        host: None,
        applications: Vec::new(),
        labels: Default::default(),
        left: false,
        process: None,
    };
    let signed = SignedRecord::sign(&Keypair::generate_ed25519(), swarm, record).unwrap();
    ByteBuf::from(signed.envelope().to_vec())
}

async fn records(target: Target, done: &AtomicU64) {
    let mut number = 0;
    loop {
        let mut member = Member::connected(&target).await;
        loop {
            let made_up = (number..number + PUSHED as u64).map(|number| made_up(&target.swarm, number)).collect();
            number += PUSHED as u64;
            done.fetch_add(PUSHED as u64, Relaxed);
            // Who is refused is not let go.
            if member.ask(SyncRequest::Push { records: made_up }).await.is_none()
                && !member.swarm.is_connected(&target.peer_id)
            {
                break;
            }
        }
    }
}

async fn forged_without_end(target: Target, done: &AtomicU64) {
    let forged = forged(&target.swarm);
    loop {
        let mut member = Member::connected(&target).await;
        done.fetch_add(FORGED as u64, Relaxed);
        // Until the target hangs up, or does not answer any more.
        while member.ask(SyncRequest::Push { records: forged.clone() }).await.is_some() {
            done.fetch_add(FORGED as u64, Relaxed);
        }
    }
}

/// Records that look as if somebody had signed them.
pub fn forged(swarm: &SwarmName) -> Vec<ByteBuf> {
    let made_up = made_up(swarm, 0);
    let forge = |number: usize| {
        let mut record = made_up.clone();
        let end = record.len() - 2;
        record[end..].copy_from_slice(&(number as u16).to_be_bytes());
        record
    };
    (1..=FORGED).map(forge).collect()
}
