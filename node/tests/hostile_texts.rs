//! A hostile peer chooses every text that it may, and some that it may not: nothing of it reaches a terminal as it is. And
//! what it sends that cannot be read is counted, and logged with its peer id.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use common::{Outcome, Process, Swarm as Commands};
use futures::{AsyncReadExt, AsyncWriteExt, FutureExt, StreamExt, future::BoxFuture};
use libp2p::{
    Multiaddr, PeerId, Swarm,
    core::SignedEnvelope,
    identity::Keypair,
    request_response::{Event, Message},
    swarm::{NetworkBehaviour, SwarmEvent},
};
use multinodes_behaviour::{
    Behaviour, BehaviourEvent, Config, SignedRecord, SwarmName, codec,
    lane::{Delivery, Exchange, Incoming, Io, Limits, Opener, Refusal, Responder, Service, Unopened, Unwritten},
    lanes, transport,
    wire::{ApplicationRecord, ErrorCode, Record, SyncRequest},
};
use serde_bytes::ByteBuf;
use serde_json::json;
use tokio::sync::oneshot;

/// Clears a terminal, rings, begins a line, and turns the order of what follows around.
const EVIL: &str = "evil\u{1b}[2J\u{7}\n\u{202e}INJECTED\u{9b}1m";

const LIMIT: Duration = Duration::from_secs(60);

#[derive(NetworkBehaviour)]
struct Mine {
    multinodes: Behaviour,
    /// Opens streams of the protocol for exchanges.
    exchanges: lanes::Behaviour,
}

/// Answers every call with an error of its own.
struct Answers;

impl Service for Answers {
    fn peer(&self) -> String {
        String::new()
    }

    fn on_call(&self, call: Incoming<'_>, responder: Responder) {
        let mut refusal = Refusal::new(ErrorCode::Failed, format!("{}: {EVIL}", call.action));
        refusal.name = EVIL.to_owned();
        refusal.data = codec::encode(&EVIL).unwrap().into();
        if let Some(rest) = responder.respond(Err(refusal), &mut Unwritten::default()) {
            tokio::spawn(rest);
        }
    }

    fn on_tell(&self, _: Incoming<'_>) -> Delivery {
        Delivery::Refused(Refusal::new(ErrorCode::Failed, EVIL))
    }
}

impl Opener for Answers {
    fn open(&self) -> BoxFuture<'_, Result<Box<dyn Io>, Unopened>> {
        async { Err("it opens nothing".into()) }.boxed()
    }
}

/// Everything that a peer may say of itself.
fn record(name: &str, address: &Multiaddr) -> Record {
    let texts = json!({ EVIL: EVIL, "list": [EVIL, { EVIL: null }] });
    let application = ApplicationRecord {
        name: "evil".into(),
        version: Some(EVIL.into()),
        description: texts,
        actions: vec!["run".into()],
        slots: Some(1),
        idempotent: Vec::new(),
        trouble: Some(EVIL.into()),
    };
    Record {
        name: name.into(),
        incarnation: 1,
        revision: 1,
        process: None,
        software: EVIL.into(),
        addresses: vec![ByteBuf::from(address.to_vec())],
        host: None,
        applications: vec![application],
        labels: BTreeMap::from([(EVIL.into(), EVIL.into())]),
        left: false,
    }
}

/// One that no honest program signs.
fn forbidden(swarm: &SwarmName, address: &Multiaddr) -> ByteBuf {
    let payload = codec::encode(&record(EVIL, address)).unwrap();
    let domain = format!("multinodes/{swarm}/record");
    let envelope =
        SignedEnvelope::new(&Keypair::generate_ed25519(), domain, b"/multinodes/record/1".to_vec(), payload).unwrap();
    ByteBuf::from(envelope.into_protobuf_encoding())
}

struct Hostile {
    swarm: Swarm<Mine>,
    target: PeerId,
    exchange: Arc<Exchange>,
}

impl Hostile {
    /// Connects to its victim and tells it of itself.
    async fn connect(swarm: &str, target: PeerId, address: Multiaddr) -> Self {
        let swarm: SwarmName = swarm.parse().unwrap();
        let config = Config {
            swarm: swarm.clone(),
            keypair: Keypair::generate_ed25519(),
            passive: false,
            mdns: false,
            interfaces: Vec::new(),
            kademlia: false,
            high_mark: 96,
            refused_subscriptions: Arc::default(),
            privacy: None,
            doorkeeper: None,
            credential: None,
        };
        let local = config.keypair.public().to_peer_id();
        let mine = Mine {
            multinodes: Behaviour::new(&config).unwrap(),
            exchanges: lanes::Behaviour::new(swarm.sync_protocol(), local),
        };
        let patient = libp2p::swarm::Config::with_tokio_executor().with_idle_connection_timeout(LIMIT);
        let raw = Swarm::new(transport::new(&config.keypair).unwrap(), mine, local, patient);
        let exchange = Exchange::new(Arc::new(Answers), Arc::new(Answers), Limits::new(1 << 20));
        let mut hostile = Self { swarm: raw, target, exchange };
        hostile.swarm.listen_on("/ip4/127.0.0.1/tcp/0".parse().unwrap()).unwrap();
        let here = loop {
            if let SwarmEvent::NewListenAddr { address, .. } = hostile.swarm.select_next_some().await {
                break address;
            }
        };
        hostile.swarm.dial(address).unwrap();
        while !hostile.swarm.is_connected(&target) {
            hostile.turn().await;
        }
        let own = SignedRecord::sign(&config.keypair, &swarm, record("evil-node", &here)).unwrap();
        let records = vec![ByteBuf::from(own.envelope().to_vec()), forbidden(&swarm, &here)];
        hostile.swarm.behaviour_mut().multinodes.sync.send_request(&target, SyncRequest::Push { records });
        while !hostile.turn().await {}
        hostile
    }

    /// Goes on. True if an exchange was answered.
    async fn turn(&mut self) -> bool {
        match self.swarm.select_next_some().await {
            SwarmEvent::Behaviour(MineEvent::Multinodes(BehaviourEvent::Lanes(lane))) => {
                self.exchange.accept(Box::new(lane.stream));
                false
            }
            SwarmEvent::Behaviour(MineEvent::Multinodes(BehaviourEvent::Sync(Event::Message { message, .. }))) => {
                matches!(message, Message::Response { .. })
            }
            _ => false,
        }
    }

    /// Says something on a stream of its own, and waits until the other side has ended that.
    async fn say(&mut self, exchange: bool, bytes: &[u8]) {
        let (respond_to, mut opened) = oneshot::channel();
        let behaviour = self.swarm.behaviour_mut();
        let lanes = if exchange { &mut behaviour.exchanges } else { &mut *behaviour.multinodes.lanes };
        lanes.open(self.target, respond_to);
        let mut stream = loop {
            tokio::select! {
                stream = &mut opened => break stream.unwrap().unwrap(),
                _ = self.turn() => {}
            }
        };
        let speak = async {
            stream.write_all(bytes).await.unwrap();
            stream.flush().await.unwrap();
            if exchange {
                stream.close().await.unwrap();
            }
            let _ = stream.read_to_end(&mut Vec::new()).await;
        };
        let mut speak = std::pin::pin!(speak);
        loop {
            tokio::select! {
                () = &mut speak => return,
                _ = self.turn() => {}
            }
        }
    }
}

/// Whether nothing in a text is obeyed by a terminal, and no line is another's.
#[track_caller]
fn is_clean(what: &str, text: &str) {
    let raw = |letter: char| letter != '\n' && (letter.is_control() || letter == '\u{202e}');
    assert!(!text.contains(raw), "{what}: {text:?}");
    assert!(!text.lines().any(|line| line.trim_start().starts_with("INJECTED")), "{what}: {text:?}");
}

#[track_caller]
fn are_clean(what: &[&str], outcome: &Outcome) {
    is_clean(&what.join(" "), &outcome.stdout);
    is_clean(&what.join(" "), &outcome.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_a_hostile_peer_says_is_printed_raw_and_what_cannot_be_read_is_counted_and_named() {
    let commands = Commands::new();
    let start = ["start", "-v", "--until-stdin-closes", "--listen", "/ip4/127.0.0.1/tcp/0", "--name", "victim"];
    let mut victim = Process::spawn("victim", commands.command(&start));
    let nodes = commands.until(&["nodes"], |nodes| nodes[0]["name"] == "victim");
    let peer_id: PeerId = nodes[0]["peer_id"].as_str().unwrap().parse().unwrap();
    let mut address: Multiaddr = nodes[0]["addresses"][0].as_str().unwrap().parse().unwrap();
    address.pop();
    let hostile = Hostile::connect(&commands.name, peer_id, address);
    let mut hostile = tokio::time::timeout(LIMIT, hostile).await.unwrap();
    let id = hostile.swarm.local_peer_id().to_string();

    // A frame that is none, and requests that are none: another shape, another kind, and no CBOR.
    let evil = codec::encode(&EVIL).unwrap();
    let frame = [&(evil.len() as u32).to_be_bytes()[..], &evil].concat();
    let kind = codec::encode(&BTreeMap::from([(EVIL, 1)])).unwrap();
    let speaking = async {
        hostile.say(false, &frame).await;
        for request in [&evil, &kind, &b"\xff\x00"[..].to_vec()] {
            hostile.say(true, request).await;
        }
    };
    tokio::time::timeout(LIMIT, speaking).await.unwrap();
    tokio::spawn(async move {
        loop {
            hostile.turn().await;
        }
    });

    commands.until(&["nodes"], |nodes| common::names(nodes).contains(&"evil-node"));
    let counters = commands.run(&["call", "node", "counters", "--node", "victim"]).expect(0).json();
    for (name, least) in [("malformed_frames", 1), ("malformed_exchanges", 3), ("bad_records", 1)] {
        assert!(counters[name].as_u64() >= Some(least), "{name}: {counters}");
    }
    let seen: [&[&str]; 9] = [
        &["nodes"],
        &["nodes", "--json"],
        &["apps"],
        &["apps", "--json"],
        &["info", "evil-node"],
        &["info", "evil-node", "--json"],
        &["explain", "evil"],
        &["explain", "evil", "--json"],
        &["ping", "evil-node", "--count", "1"],
    ];
    for what in seen {
        are_clean(what, &commands.run(what));
    }
    let failing: [&[&str]; 5] = [
        &["call", "evil", "run"],
        &["call", "evil", "run", "--json"],
        &["call", "evil", "run", "--all"],
        &["tell", "evil", "1"],
        &["-v", "call", "evil", "run"],
    ];
    for what in failing {
        let outcome = commands.run(what);
        assert!(outcome.code != 0 || what.contains(&"--all"), "{what:?}: {outcome:?}");
        assert!(outcome.stderr.contains("evil") || outcome.stdout.contains("evil"), "{what:?}: {outcome:?}");
        are_clean(what, &outcome);
    }

    victim.signal("TERM");
    let log = victim.complaints();
    is_clean("the log of `start -v`", &log);
    for line in &victim.heard {
        is_clean("the output of `start -v`", line.value.as_str().unwrap_or_default());
    }
    for said in ["lane closed", "cannot be read"] {
        let line = log.lines().find(|line| line.contains(said)).unwrap_or_else(|| panic!("no `{said}`: {log}"));
        assert!(line.contains(&id), "who? {line}");
    }
}
