//! What an attacker can do to a node: its memory stays bounded, honest peers are served all the while, and it is counted.
//!
//! The node is a process of its own, the attacker a thread, the honest peer a node of this process.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test may panic, and shows its figures")]

#[path = "common/attacker.rs"]
mod attacker;
mod common;
#[path = "common/processes.rs"]
mod processes;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use attacker::{Attack, Attacker, FORGED, Member, Target, forged};
use common::{Process, Swarm};
use futures::StreamExt;
use libp2p::{Multiaddr, PeerId, identity::Keypair};
use multinodes::{
    Event, Node,
    topology::{Emitter, Flow, Grouping, Stage},
};
use multinodes_behaviour::{
    SignedRecord, SwarmName,
    wire::{Record, SyncRequest},
};
use processes::{MIB, resident};
use serde_bytes::ByteBuf;
use tokio::sync::Mutex;

/// Longer than what stalls is given (30 s), on a busy machine.
const LIMIT: Duration = Duration::from_secs(100);

/// Calls that are made in any case while the attack goes on.
const CALLS: usize = 100;

/// One attack has the machine to itself; those that wait for half a minute may overlap.
static QUIET: Mutex<()> = Mutex::const_new(());

type Counters = BTreeMap<String, u64>;

/// A node, and an honest peer that calls it.
struct Siege {
    swarm: Swarm,
    node: Process,
    target: Target,
    honest: Node,
}

impl Siege {
    async fn begin() -> Self {
        let swarm = Swarm::new();
        let mut node = swarm.start("besieged", &["--demo-applications", "clock"]);
        let address = node.started()["addresses"][0].as_str().unwrap().to_owned();
        let target = Target::new(&swarm.name, &address);
        let honest = swarm.builder().name("honest").start().await.unwrap();
        honest.wait_for_node("besieged").await.unwrap();
        let siege = Self { swarm, node, target, honest };
        siege.call().await;
        siege
    }

    /// An honest call, within the deadline that every call has.
    async fn call(&self) {
        let besieged = self.honest.app("node").on("besieged");
        let answer: String = besieged.call("echo", "hello").await.expect("honest peers are served");
        assert_eq!(answer, "hello");
    }

    async fn counters(&self) -> Counters {
        self.honest.app("node").on("besieged").call("counters", ()).await.unwrap()
    }

    /// The resident memory of the besieged process, in MiB.
    fn memory(&self) -> u64 {
        resident(self.node.id()) / MIB
    }

    /// Calls while the attack goes on, until it is counted, and gives the most memory that was taken meanwhile.
    async fn withstands(&self, attack: Attack) -> u64 {
        let counter = attack.counted_as();
        let before = self.counters().await[counter];
        let attacker = Attacker::begin(attack, self.target.clone());
        let (mut calls, mut memory) = (0, 0);
        // Calls are refused only when there are too many at once: a node that keeps up has nothing to count. Those that
        // last are counted, see `Attack::Slow`.
        let keeps_up = attack == Attack::Calls;
        while calls < CALLS || (!keeps_up && self.counters().await[counter] == before) {
            self.call().await;
            calls += 1;
            memory = memory.max(self.memory());
            assert!(!attacker.has_failed(), "{attack:?}");
        }
        assert!(attacker.done() > 0);
        memory
    }
}

/// The attack, and the most memory that it may make the node take, in MiB: some 30 are those of a node with no worries.
async fn withstood(attack: Attack, most: u64) {
    let memory = tokio::time::timeout(LIMIT, async {
        let siege = Siege::begin().await;
        let memory = siege.withstands(attack).await;
        siege.call().await;
        memory
    });
    let memory = memory.await.unwrap_or_else(|_| panic!("{attack:?} is not counted as {}", attack.counted_as()));
    assert!(memory <= most, "{attack:?} makes the node take {memory} MiB");
}

async fn withstood_alone(attack: Attack, most: u64) {
    let _quiet = QUIET.lock().await;
    withstood(attack, most).await;
}

#[tokio::test]
async fn connections_that_say_nothing_are_refused_beyond_a_limit() {
    withstood_alone(Attack::Sockets, 100).await;
}

#[tokio::test]
async fn connections_of_ever_new_peers_are_refused_beyond_a_limit() {
    withstood_alone(Attack::Connections, 200).await;
}

#[tokio::test]
async fn lanes_are_refused_beyond_a_limit() {
    withstood_alone(Attack::Lanes, 100).await;
}

#[tokio::test]
async fn a_flood_of_calls_keeps_nobody_else_out() {
    withstood_alone(Attack::Calls, 150).await;
}

#[tokio::test]
async fn calls_that_do_not_end_are_refused_beyond_a_limit() {
    withstood_alone(Attack::Slow, 150).await;
}

#[tokio::test]
async fn answers_that_nobody_asked_for_are_counted() {
    withstood_alone(Attack::Answers, 100).await;
}

#[tokio::test]
async fn gossip_that_is_none_is_counted_and_its_source_not_listened_to() {
    withstood_alone(Attack::Noise, 100).await;
}

#[tokio::test]
async fn records_of_ever_new_peer_ids_by_gossip_are_refused_beyond_a_limit() {
    withstood_alone(Attack::Gossip, 200).await;
}

#[tokio::test]
async fn records_of_ever_new_peer_ids_by_exchanges_are_refused_beyond_a_limit() {
    withstood_alone(Attack::Records, 200).await;
}

#[tokio::test]
async fn who_does_not_read_its_answers_is_cut_off() {
    withstood(Attack::Unread, 100).await;
}

#[tokio::test]
async fn who_sends_half_a_frame_and_waits_is_cut_off() {
    // Four of the largest messages are what one peer may have under way.
    withstood(Attack::HalfFrames, 200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_records_with_one_name_cost_little_here_and_at_the_neighbours() {
    let _quiet = QUIET.lock().await;
    tokio::time::timeout(LIMIT, async {
        let siege = Siege::begin().await;
        let mut mallory = Member::connect(&siege.target).await.unwrap();
        let like = record_of(&mut mallory, siege.honest.peer_id()).await.record;
        let contested = || {
            let record = Record { name: "contested".to_owned(), ..like.clone() };
            SignedRecord::sign(&Keypair::generate_ed25519(), &siege.target.swarm, record).unwrap()
        };
        let records: Vec<ByteBuf> = (0..9_900).map(|_| ByteBuf::from(contested().envelope().to_vec())).collect();
        let before = siege.memory();
        // The neighbour only hears of it. Events are read as they come: who is slow misses some.
        let mut events = siege.honest.events();
        let told = tokio::spawn(async move {
            loop {
                if let Event::NameConflict { name, peer_ids, .. } = events.next().await.unwrap() {
                    assert_eq!(name, "contested");
                    return peer_ids.len();
                }
            }
        });
        mallory.ask(SyncRequest::Push { records }).await.unwrap();
        siege.call().await;
        let named = told.await.unwrap();
        assert!((2..=8).contains(&named), "{named}");
        siege.call().await;
        let taken = siege.memory().saturating_sub(before);
        println!("{taken} MiB");
        assert!(taken < 50, "{taken} MiB");
    })
    .await
    .expect("in time");
}

/// Records of nodes that do not exist, which are said to host an application at an address where nobody answers.
fn made_up_hosts(
    application: &str,
    count: usize,
    like: &Record,
    swarm: &SwarmName,
    address: &Multiaddr,
) -> Vec<ByteBuf> {
    let made_up = |number| {
        let mut record = Record { name: format!("nobody-{number}"), ..like.clone() };
        record.addresses = vec![ByteBuf::from(address.to_vec())];
        record.applications.retain(|hosted| hosted.name == application);
        let signed = SignedRecord::sign(&Keypair::generate_ed25519(), swarm, record).unwrap();
        ByteBuf::from(signed.envelope().to_vec())
    };
    (0..count).map(made_up).collect()
}

/// Has a peer tell an honest node of thousands of hosts that do not exist. Connections are taken there as long as what this
/// gives is kept, and then nothing comes.
async fn introduce_made_up_hosts(swarm: &Swarm, honest: &Node, application: &str) -> (std::net::TcpListener, Member) {
    let nowhere = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = nowhere.local_addr().unwrap().port();
    let address = format!("{}/p2p/{}", honest.description().addresses[0], honest.peer_id());
    let mut mallory = Member::connect(&Target::new(&swarm.name, &address)).await.unwrap();
    let host = honest.hosts(application)[0].peer_id;
    let like = record_of(&mut mallory, host).await.record;
    let nowhere_address = format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap();
    let records = made_up_hosts(application, 9_000, &like, &mallory.target().swarm.clone(), &nowhere_address);
    for records in records.chunks(2_000) {
        mallory.ask(SyncRequest::Push { records: records.to_vec() }).await.unwrap();
    }
    let mut events = honest.events();
    while honest.hosts(application).len() < 1_000 {
        events.next().await.unwrap();
    }
    (nowhere, mallory)
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_made_up_hosts_hold_up_no_flow() {
    let _quiet = QUIET.lock().await;
    tokio::time::timeout(LIMIT, async {
        let swarm = Swarm::new();
        let honest = swarm.builder().name("honest").start().await.unwrap();
        let worker = swarm.builder().name("worker").start().await.unwrap();
        let work = Stage::new(|number: u64, out: Emitter| async move { Ok(out.emit(number).await?) });
        worker.register("work", work).unwrap();
        honest.wait_for("work").await.unwrap();
        let _introduced = introduce_made_up_hosts(&swarm, &honest, "work").await;
        let begun = Instant::now();
        for grouping in [Grouping::Shuffle, Grouping::LocalFirst] {
            let run = Flow::new("f").stage("work", grouping).run(&honest, futures::stream::iter(0..1_000_u64)).unwrap();
            let counters = run.finish().await;
            assert_eq!((counters.acked, counters.replayed), (1_000, 0), "{counters:?}");
        }
        println!("two flows of 1,000 items {:?}", begun.elapsed());
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    })
    .await
    .expect("in time");
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_made_up_hosts_hold_up_neither_calls_nor_maps() {
    let _quiet = QUIET.lock().await;
    tokio::time::timeout(LIMIT, async {
        let swarm = Swarm::new();
        let _host = swarm.start("host", &["--demo-applications", "calculator"]);
        let honest = swarm.builder().name("honest").start().await.unwrap();
        honest.wait_for("calculator").await.unwrap();
        let call = async || {
            let begun = Instant::now();
            let sum: i64 = honest.call("calculator", "add", (1, 2)).await.unwrap();
            assert_eq!(sum, 3);
            begun.elapsed()
        };
        call().await;

        let _introduced = introduce_made_up_hosts(&swarm, &honest, "calculator").await;
        let mut slowest = Duration::ZERO;
        for _ in 0..CALLS {
            slowest = slowest.max(call().await);
        }
        let begun = Instant::now();
        let items = futures::stream::iter((0..100_i64).map(|number| (number, 1)));
        let outcomes: Vec<_> = honest.app("calculator").map::<i64>("add", items).collect().await;
        println!("slowest call {slowest:?}, a map of 100 items {:?}", begun.elapsed());
        assert_eq!(outcomes.len(), 100);
        assert!(outcomes.iter().all(|outcome| outcome.as_ref().is_ok_and(|outcome| outcome.result.is_ok())));
        // One that had to wait for a made-up host would have waited for seconds.
        assert!(slowest < Duration::from_secs(1), "{slowest:?}");
        assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    })
    .await
    .expect("in time");
}

/// What the driver may take for one thing. On a quiet machine it is a few milliseconds; a list of records that is verified
/// at one go takes more than a second, also on a fast one.
const LONGEST_TURN: Duration = Duration::from_millis(500);

#[tokio::test]
async fn records_with_wrong_signatures_cost_the_node_next_to_nothing_and_who_comes_anew_is_served() {
    let _quiet = QUIET.lock().await;
    let work = async {
        let siege = Siege::begin().await;
        let attacker = Attacker::begin(Attack::Forged, siege.target.clone());
        let mut one_shots = 0;
        while one_shots < 10 || attacker.done() < 10 * FORGED as u64 {
            let passer_by = siege.swarm.builder().passive(true).start().await.unwrap();
            let answer: String = passer_by.app("node").on("besieged").call("echo", "hello").await.unwrap();
            assert_eq!(answer, "hello");
            passer_by.stop().await;
            one_shots += 1;
        }
        let (sent, counters) = (attacker.done(), siege.counters().await);
        assert!(counters["bad_records"] > 0 && counters["kept_away"] > 0, "{counters:?}");
        assert!(counters["bad_records"] < sent / 100, "of {sent} records so many were looked at: {counters:?}");
        let longest = Duration::from_micros(counters["longest_turn_us"]);
        assert!(longest < LONGEST_TURN, "{longest:?}");
    };
    tokio::time::timeout(LIMIT, work).await.expect("in time");
}

#[tokio::test]
async fn who_has_sent_bad_records_gains_nothing_by_coming_back() {
    let work = async {
        let siege = Siege::begin().await;
        let keypair = Keypair::generate_ed25519();
        let records = forged(&siege.target.swarm);
        for _ in 0..5 {
            let Some(mut mallory) = Member::connect_as(keypair.clone(), &siege.target).await else { continue };
            assert_eq!(mallory.ask(SyncRequest::Push { records: records.clone() }).await, None);
        }
        let counters = siege.counters().await;
        assert!((1..20).contains(&counters["bad_records"]), "{counters:?}");
        assert_eq!(counters["kept_away"], 1);
        siege.call().await;
    };
    tokio::time::timeout(LIMIT, work).await.expect("in time");
}

#[tokio::test]
async fn fifty_nodes_of_one_host_join_at_once_and_all_are_served() {
    let _quiet = QUIET.lock().await;
    let work = async {
        let siege = Siege::begin().await;
        let address = siege.target.address.to_string();
        let nodes = futures::future::join_all((0..50).map(|number| {
            let (name, address) = (format!("node-{number}"), address.clone());
            let builder = siege.swarm.builder().name(name).rendezvous(false).join(address);
            async { builder.start().await.unwrap() }
        }));
        let nodes = nodes.await;
        let served = nodes.iter().map(|node| async {
            node.wait_for_node("besieged").await.unwrap();
            // On a machine that is busy with so many nodes one may be silent for so long that its connection is closed.
            while node.app("node").on("besieged").call::<String>("echo", "hello").await.ok().as_deref() != Some("hello")
            {
            }
        });
        futures::future::join_all(served).await;
        let counters = siege.counters().await;
        let refused = ["refused_records", "refused_requests", "refused_lanes", "kept_away"].map(|name| counters[name]);
        assert_eq!(refused, [0; 4], "{counters:?}");
        futures::future::join_all(nodes.into_iter().map(|node| async move { node.stop().await })).await;
    };
    tokio::time::timeout(LIMIT, work).await.expect("in time");
}

#[tokio::test]
async fn forged_tampered_and_replayed_records_change_nothing() {
    tokio::time::timeout(LIMIT, async {
        let siege = Siege::begin().await;
        let mut events = siege.honest.events();
        let mut mallory = Member::connect(&siege.target).await.unwrap();
        let honest = record_of(&mut mallory, siege.honest.peer_id()).await;
        // What is replayed was true once.
        siege.honest.register("news", multinodes::Actions::new()).unwrap();
        loop {
            let now = record_of(&mut mallory, siege.honest.peer_id()).await;
            if now.version() > honest.version() {
                break;
            }
        }
        let before = siege.counters().await;

        let mut tampered = honest.envelope().to_vec();
        let middle = tampered.len() / 2;
        tampered[middle] ^= 1;
        let records = [honest.envelope().to_vec(), tampered, somebody_elses(&mallory, &siege, &honest.record)];
        let records = records.map(ByteBuf::from).to_vec();
        mallory.ask(SyncRequest::Push { records }).await.unwrap();

        let after = siege.counters().await;
        assert_eq!(after["bad_records"], before["bad_records"] + 2, "the tampered and the forged one: {after:?}");
        let now = record_of(&mut mallory, siege.honest.peer_id()).await;
        assert!(now.version() > honest.version(), "the replayed one has changed nothing");
        siege.call().await;
        while let Some(event) = futures::FutureExt::now_or_never(events.next()).flatten() {
            assert!(!matches!(event, Event::Left { .. } | Event::NameConflict { .. }), "{event:?}");
        }
        drop(siege.swarm);
    })
    .await
    .expect("in time");
}

/// What the besieged node holds of another one.
async fn record_of(mallory: &mut Member, peer_id: PeerId) -> SignedRecord {
    loop {
        let nothing = SyncRequest::Offer { digest: ByteBuf::new(), versions: Some(Vec::new()), records: Vec::new() };
        // Who asks too often is not answered for a moment.
        let Some(response) = mallory.ask(nothing).await else { continue };
        let swarm = mallory.target().swarm.clone();
        let open = response.records.iter().map(|record| SignedRecord::open(&swarm, record).unwrap());
        if let Some(record) = open.into_iter().find(|record| record.peer_id == peer_id) {
            return record;
        }
    }
}

/// A record that is signed by Mallory and says that it is the honest peer's.
fn somebody_elses(mallory: &Member, siege: &Siege, honest: &Record) -> Vec<u8> {
    let later = Record { revision: honest.revision + 1000, left: true, ..honest.clone() };
    let signed = SignedRecord::sign(&mallory.keypair, &siege.target.swarm, later).unwrap();
    let mut bytes = signed.envelope().to_vec();
    // The last 32 bytes of an identity multihash of an Ed25519 key are the key.
    let key = |peer_id: PeerId| peer_id.to_bytes().split_off(6);
    let (own, other) = (key(signed.peer_id), key(siege.honest.peer_id()));
    let at = bytes.windows(own.len()).position(|window| window == own).expect("the key is in the envelope");
    bytes[at..at + other.len()].copy_from_slice(&other);
    bytes
}
