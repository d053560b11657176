mod attacks;

use std::{
    collections::{BTreeMap, HashSet},
    sync::LazyLock,
    time::{Duration, Instant},
};

use libp2p::{Multiaddr, identity::Keypair};
use multinodes_behaviour::{
    SwarmName,
    wire::{ApplicationRecord, Beat, Record},
};
use proptest::prelude::*;
use serde_bytes::ByteBuf;
use serde_json::Value;

use super::{
    liveness::{LEAST_MEMORY, LEAST_SPACING, LONGEST_SPACING, spacing},
    *,
};
use crate::description::Event;

static KEYS: LazyLock<Vec<Keypair>> = LazyLock::new(|| (0..5).map(|_| Keypair::generate_ed25519()).collect());

/// The neighbour that has brought whatever is taken.
static SOURCE: LazyLock<PeerId> = LazyLock::new(PeerId::random);

const HOST: &[u8] = b"this host";

fn peer(key: usize) -> PeerId {
    KEYS[key].public().to_peer_id()
}

fn record(incarnation: u64, revision: u64, name: &str) -> Record {
    Record {
        name: name.to_owned(),
        incarnation,
        revision,
        software: "1".to_owned(),
        addresses: Vec::new(),
        host: None,
        applications: Vec::new(),
        labels: Default::default(),
        left: false,
        process: None,
    }
}

fn sign(key: usize, record: Record) -> SignedRecord {
    SignedRecord::sign(&KEYS[key], &SwarmName::default(), record).unwrap()
}

fn signed(key: usize, incarnation: u64, revision: u64) -> SignedRecord {
    sign(key, record(incarnation, revision, &format!("node-{key}")))
}

fn open(envelope: &[u8]) -> SignedRecord {
    SignedRecord::open(&SwarmName::default(), envelope).unwrap()
}

fn goodbye(key: usize, incarnation: u64, revision: u64) -> SignedRecord {
    sign(key, Record { left: true, ..record(incarnation, revision, &format!("node-{key}")) })
}

fn beat(key: usize, incarnation: u64, revision: u64, beat: u64) -> SignedBeat {
    let beat = Beat { incarnation, revision, beat, load: 3 };
    SignedBeat::sign(&KEYS[key], &SwarmName::default(), beat).unwrap()
}

/// A directory of node 0, which is in it with version (10, 1).
fn directory(now: Instant) -> Directory {
    let mut directory = Directory::new(peer(0), Some(HOST.to_vec()));
    directory.set_own(signed(0, 10, 1), 0, now);
    directory.take_changes(true);
    directory
}

fn events(directory: &mut Directory) -> Vec<String> {
    let changes = directory.take_changes(true).map(|changes| changes.events).unwrap_or_default();
    changes.iter().map(short).collect()
}

fn short(event: &Event) -> String {
    match event {
        Event::Joined(node) => format!("joined {}", node.name),
        Event::Updated(node) => format!("updated {}", node.name),
        Event::Left { node, reason } => format!("left {} {reason:?}", node.name),
        Event::NameConflict { name, peer_ids, more } => format!("conflict {name} {}", peer_ids.len() + more),
        other => format!("{other:?}"),
    }
}

#[test]
fn a_node_joins_is_updated_and_leaves() {
    let now = Instant::now();
    let mut directory = directory(now);
    assert_eq!(directory.on_record(signed(1, 1, 1), *SOURCE, now), Merged::News);
    assert_eq!(events(&mut directory), ["joined node-1"]);
    assert_eq!(
        directory.on_record(sign(1, Record { software: "2".to_owned(), ..record(1, 2, "node-1") }), *SOURCE, now),
        Merged::News
    );
    assert_eq!(events(&mut directory), ["updated node-1"]);
    assert_eq!(directory.len(), 2);
    assert_eq!(directory.on_record(goodbye(1, 1, 3), *SOURCE, now), Merged::News);
    assert_eq!(events(&mut directory), ["left node-1 Stopped"]);
    assert_eq!(directory.len(), 1);
}

#[test]
fn a_record_that_says_the_same_again_is_no_update() {
    let now = Instant::now();
    let mut directory = directory(now);
    directory.on_record(signed(1, 1, 1), *SOURCE, now);
    events(&mut directory);
    assert_eq!(directory.on_record(signed(1, 1, 2), *SOURCE, now), Merged::News);
    assert_eq!(events(&mut directory), [] as [&str; 0]);
    directory.on_record(signed(1, 2, 1), *SOURCE, now);
    assert_eq!(events(&mut directory), ["updated node-1"], "a new life is an update");
}

#[test]
fn late_gossip_brings_nobody_back() {
    let now = Instant::now();
    let mut directory = directory(now);
    directory.on_record(signed(1, 1, 3), *SOURCE, now);
    directory.on_record(goodbye(1, 1, 5), *SOURCE, now);
    events(&mut directory);
    assert_eq!(directory.on_record(signed(1, 1, 4), *SOURCE, now), Merged::Old);
    assert_eq!(directory.on_beat(&beat(1, 1, 5, 9), &SOURCE, now), Heard::Old);
    assert!(!directory.is_live(&peer(1)));
    assert_eq!(directory.on_record(signed(1, 2, 1), *SOURCE, now), Merged::News);
    assert_eq!(events(&mut directory), ["joined node-1"], "a new life is welcome");
}

#[test]
fn a_lost_node_comes_back_by_a_beat_a_record_or_a_connection() {
    type Way = fn(&mut Directory, Instant);
    let ways: [Way; 3] = [
        |directory, now| assert_eq!(directory.on_beat(&beat(1, 1, 1, 6), &SOURCE, now), Heard::News),
        |directory, now| assert_eq!(directory.on_record(signed(1, 1, 2), *SOURCE, now), Merged::News),
        |directory, now| directory.on_connected(peer(1), now),
    ];
    for way in ways {
        let now = Instant::now();
        let mut directory = directory(now);
        directory.on_record(signed(1, 1, 1), *SOURCE, now);
        directory.on_beat(&beat(1, 1, 1, 5), &SOURCE, now);
        assert_eq!(events(&mut directory), ["joined node-1"]);
        directory.on_unreachable(&peer(1), true, now);
        assert_eq!(events(&mut directory), ["left node-1 Lost"]);
        assert_eq!(directory.on_beat(&beat(1, 1, 1, 5), &SOURCE, now), Heard::Old);
        assert_eq!(directory.on_record(signed(1, 1, 1), *SOURCE, now), Merged::Old);
        assert!(!directory.is_live(&peer(1)), "what was known before proves nothing");
        way(&mut directory, now);
        assert_eq!(events(&mut directory), ["joined node-1"]);
    }
}

#[test]
fn who_fell_silent_may_live_until_it_is_refused_or_says_goodbye() {
    let now = Instant::now();
    let mut directory = directory(now);
    for key in 1..4 {
        directory.on_record(signed(key, 1, 1), *SOURCE, now);
    }
    let silent = |directory: &mut Directory| {
        let silent = directory.take_changes(true).unwrap().snapshot.unwrap().silent;
        assert_eq!(directory.any_silent(), !silent.is_empty());
        let mut names: Vec<_> = silent.iter().map(|silent| silent.node.name.clone()).collect();
        names.sort_unstable();
        names
    };
    directory.on_unreachable(&peer(1), false, now);
    assert!(silent(&mut directory).is_empty(), "it was refused");
    directory.on_unreachable(&peer(1), true, now);
    directory.on_unreachable(&peer(2), true, now);
    directory.on_unreachable(&peer(3), true, now);
    assert_eq!(silent(&mut directory), ["node-2", "node-3"]);
    directory.on_refused(&peer(2));
    assert_eq!(silent(&mut directory), ["node-3"]);
    directory.on_connected(peer(3), now);
    assert!(silent(&mut directory).is_empty());
    directory.on_disconnected(&peer(3), now);
    directory.on_unreachable(&peer(3), true, now);
    assert_eq!(silent(&mut directory), ["node-3"]);
    directory.on_record(sign(3, Record { left: true, ..record(1, 2, "node-3") }), *SOURCE, now);
    assert!(silent(&mut directory).is_empty(), "its last word");
    directory.on_record(signed(2, 1, 2), *SOURCE, now);
    directory.on_tick(now + LEAST_MEMORY * 2, Duration::ZERO);
    assert_eq!(silent(&mut directory), ["node-2"], "nothing was heard of it for long");
    directory.on_tick(now + LEAST_MEMORY * 4, Duration::ZERO);
    assert!(!directory.any_silent(), "it is forgotten");
}

#[test]
fn who_was_met_and_has_become_quiet_is_asked_before_it_is_lost() {
    let start = Instant::now();
    let mut directory = directory(start);
    for key in 1..4 {
        directory.on_record(signed(key, 1, 1), *SOURCE, start);
    }
    for key in 1..3 {
        directory.on_connected(peer(key), start);
    }
    directory.on_disconnected(&peer(2), start);
    let quiet = |directory: &Directory, after: Duration, allowance: Duration| {
        directory.quiet(start + after, allowance).copied().collect::<Vec<_>>()
    };
    let after = spacing(4) * 2 + Duration::from_secs(1);
    assert!(quiet(&directory, spacing(4) * 2, Duration::ZERO).is_empty());
    assert_eq!(quiet(&directory, after, Duration::ZERO), [peer(2)], "one is connected, another one was only told of");
    assert!(quiet(&directory, after, Duration::from_secs(1)).is_empty(), "this process is late");
    directory.on_tick(start + after, Duration::ZERO);
    assert!(directory.is_live(&peer(2)));
    directory.on_beat(&beat(2, 1, 1, 1), &SOURCE, start + after);
    assert!(quiet(&directory, after, Duration::ZERO).is_empty());
    directory.on_tick(start + after * 3, Duration::ZERO);
    assert!(quiet(&directory, after * 3, Duration::ZERO).is_empty(), "it is lost");
}

#[test]
fn a_silent_node_expires_unless_it_is_connected() {
    let start = Instant::now();
    let mut directory = directory(start);
    directory.on_record(signed(1, 1, 1), *SOURCE, start);
    directory.on_record(signed(2, 1, 1), *SOURCE, start);
    directory.on_connected(peer(2), start);
    events(&mut directory);
    directory.on_tick(start + spacing(3) * 3, Duration::ZERO);
    assert_eq!(events(&mut directory), [] as [&str; 0]);
    directory.on_beat(&beat(1, 1, 1, 1), &SOURCE, start + Duration::from_secs(10));
    directory.on_tick(start + Duration::from_secs(24), Duration::ZERO);
    assert!(directory.is_live(&peer(1)));
    directory.on_tick(start + Duration::from_secs(26), Duration::ZERO);
    assert_eq!(events(&mut directory), ["left node-1 Lost"]);
    directory.on_disconnected(&peer(2), start + Duration::from_secs(100));
    directory.on_tick(start + Duration::from_secs(101), Duration::ZERO);
    assert!(directory.is_live(&peer(2)), "its time counts from the end of the connection");
    directory.on_tick(start + Duration::from_secs(116), Duration::ZERO);
    assert!(!directory.is_live(&peer(2)));
}

#[test]
fn whoever_has_stood_still_takes_nobody_for_lost_for_that() {
    let now = Instant::now();
    let mut directory = directory(now);
    directory.on_record(signed(1, 1, 1), *SOURCE, now);
    assert_eq!(events(&mut directory), ["joined node-1"]);
    let (pause, silent) = (Duration::from_secs(3600), spacing(2) * 3);
    directory.on_standstill(pause, now + pause);
    directory.on_tick(now + pause + silent, Duration::ZERO);
    assert_eq!(events(&mut directory), Vec::<String>::new());
    directory.on_tick(now + pause + silent + Duration::from_millis(1), Duration::ZERO);
    assert_eq!(events(&mut directory), ["left node-1 Lost"]);
}

#[test]
fn a_beat_of_an_unknown_state_asks_for_the_record() {
    let now = Instant::now();
    let mut directory = directory(now);
    assert_eq!(directory.on_beat(&beat(1, 1, 1, 1), &SOURCE, now), Heard::Wanted, "unknown node");
    directory.on_record(signed(1, 1, 1), *SOURCE, now);
    assert_eq!(directory.on_beat(&beat(1, 1, 1, 1), &SOURCE, now), Heard::News);
    assert_eq!(directory.on_beat(&beat(1, 1, 1, 1), &SOURCE, now), Heard::Old);
    assert_eq!(directory.on_beat(&beat(1, 1, 2, 2), &SOURCE, now), Heard::Wanted, "unknown revision");
    assert_eq!(directory.on_beat(&beat(1, 2, 1, 1), &SOURCE, now), Heard::Wanted, "unknown incarnation");
    assert_eq!(directory.on_beat(&beat(1, 0, 9, 9), &SOURCE, now), Heard::Old, "an earlier life");
    assert_eq!(directory.take_changes(true).unwrap().snapshot.unwrap().by_peer[&peer(1)].load, 3);
}

#[test]
fn a_load_alone_makes_no_snapshot_at_once() {
    let now = Instant::now();
    let mut directory = directory(now);
    directory.on_record(signed(1, 1, 1), *SOURCE, now);
    directory.take_changes(false);
    directory.on_beat(&beat(1, 1, 1, 1), &SOURCE, now);
    assert!(directory.take_changes(false).is_none());
    assert!(directory.take_changes(true).unwrap().snapshot.is_some());
    assert!(directory.take_changes(true).is_none());
}

#[test]
fn somebody_who_holds_a_later_record_of_this_node_is_stepped_over() {
    let now = Instant::now();
    let mut directory = directory(now);
    let later = Version { incarnation: 11, revision: 7 };
    assert_eq!(directory.on_record(signed(0, 11, 7), *SOURCE, now), Merged::Overtaken(later));
    assert_eq!(directory.on_record(goodbye(0, 11, 7), *SOURCE, now), Merged::Overtaken(later));
    assert_eq!(directory.on_beat(&beat(0, 11, 7, 1), &SOURCE, now), Heard::Overtaken(later));
    assert_eq!(directory.on_record(signed(0, 9, 99), *SOURCE, now), Merged::Old);
    assert_eq!(directory.wanted(&[(peer(0), later)]), [peer(0)]);
}

#[test]
fn two_live_holders_of_one_name_are_a_conflict_said_once() {
    let now = Instant::now();
    let mut directory = directory(now);
    directory.on_record(sign(1, record(1, 1, "same")), *SOURCE, now);
    directory.on_record(sign(2, record(1, 1, "same")), *SOURCE, now);
    assert_eq!(events(&mut directory), ["joined same", "joined same", "conflict same 2"]);
    directory.on_record(sign(2, Record { software: "2".to_owned(), ..record(1, 2, "same") }), *SOURCE, now);
    directory.on_beat(&beat(1, 1, 1, 1), &SOURCE, now);
    let changes = directory.take_changes(true).unwrap();
    assert_eq!(changes.events.iter().map(short).collect::<Vec<_>>(), ["updated same"]);
    assert!(changes.snapshot.unwrap().by_name["same"].iter().all(|node| node.conflict));
    directory.on_unreachable(&peer(1), true, now);
    let snapshot = directory.take_changes(true).unwrap().snapshot.unwrap();
    assert!(!snapshot.by_peer[&peer(2)].conflict);
    directory.on_connected(peer(1), now);
    assert_eq!(events(&mut directory), ["joined same", "conflict same 2"], "a new conflict");
    directory.on_record(sign(1, record(1, 2, "other")), *SOURCE, now);
    assert_eq!(events(&mut directory), ["updated other"]);
    let versions = directory.versions();
    assert_eq!(versions.len(), 3);
}

#[test]
fn a_conflict_with_this_node_itself_is_seen() {
    let now = Instant::now();
    let mut directory = directory(now);
    directory.on_record(sign(1, record(1, 1, "node-0")), *SOURCE, now);
    let changes = directory.take_changes(true).unwrap();
    assert_eq!(changes.events.iter().map(short).collect::<Vec<_>>(), ["joined node-0", "conflict node-0 2"]);
    assert!(changes.snapshot.unwrap().by_peer[&peer(0)].conflict);
}

#[test]
fn loopback_addresses_are_seen_only_on_the_same_host() {
    let now = Instant::now();
    let loopback: Multiaddr = "/ip4/127.0.0.1/tcp/1".parse().unwrap();
    let beyond: Multiaddr = "/ip4/10.0.0.1/tcp/1".parse().unwrap();
    let bytes = |address: &Multiaddr| ByteBuf::from(address.to_vec());
    let addresses = vec![bytes(&loopback), bytes(&beyond)];
    let mut directory = directory(now);
    for (key, host) in [(1, Some(HOST)), (2, Some(&b"another"[..])), (3, None)] {
        let host = host.map(|host| ByteBuf::from(host.to_vec()));
        directory.on_record(
            sign(key, Record { addresses: addresses.clone(), host, ..record(1, 1, "n") }),
            *SOURCE,
            now,
        );
    }
    assert_eq!(directory.addresses(&peer(1)), [loopback, beyond.clone()]);
    assert_eq!(directory.addresses(&peer(2)), std::slice::from_ref(&beyond));
    assert_eq!(directory.addresses(&peer(3)), [beyond]);
}

#[test]
fn two_directories_level_each_other() {
    let now = Instant::now();
    let (mut one, mut other) = (directory(now), directory(now));
    one.on_record(signed(1, 1, 2), *SOURCE, now);
    one.on_record(signed(2, 1, 1), *SOURCE, now);
    for gone in [3, 4] {
        one.on_record(signed(gone, 1, 1), *SOURCE, now);
        one.on_record(goodbye(gone, 1, 2), *SOURCE, now);
    }
    other.on_record(signed(1, 1, 1), *SOURCE, now);
    other.on_record(signed(2, 2, 1), *SOURCE, now);
    other.on_record(signed(3, 1, 1), *SOURCE, now);
    let missing = one.missing_for(&other.versions());
    assert_eq!(missing.len(), 2, "the newer record, and the last word of a node taken for alive");
    let wanted = one.wanted(&other.versions());
    assert_eq!(wanted, [peer(2)]);
    for envelope in missing {
        other.on_record(open(&envelope), *SOURCE, now);
    }
    for peer_id in wanted {
        one.on_record(open(other.envelope(&peer_id).unwrap()), *SOURCE, now);
    }
    assert_eq!(one.versions(), other.versions());
}

#[test]
fn lost_nodes_are_not_passed_on() {
    let now = Instant::now();
    let mut directory = directory(now);
    directory.on_record(signed(1, 1, 1), *SOURCE, now);
    directory.on_unreachable(&peer(1), true, now);
    assert_eq!(directory.versions().len(), 1);
    assert_eq!(directory.missing_for(&[]).len(), 1);
    assert_eq!(directory.wanted(&[(peer(1), Version { incarnation: 1, revision: 1 })]), []);
}

#[test]
fn who_is_gone_is_forgotten_after_a_while() {
    let start = Instant::now();
    let mut directory = directory(start);
    directory.on_record(signed(1, 1, 1), *SOURCE, start);
    directory.on_record(goodbye(1, 1, 2), *SOURCE, start);
    directory.on_tick(start + LEAST_MEMORY, Duration::ZERO);
    assert!(directory.has_stopped(&peer(1)));
    directory.on_tick(start + LEAST_MEMORY + Duration::from_secs(1), Duration::ZERO);
    assert!(!directory.knows(&peer(1)));
}

#[test]
fn all_beats_together_stay_under_twenty_a_second() {
    for nodes in [1, 2, 10, 50, 82, 83, 84, 100, 1_000, 5_000, MAX_NODES] {
        let fastest = spacing(nodes).mul_f64(0.9);
        assert!(nodes as f64 / fastest.as_secs_f64() < 20.0, "{nodes} nodes, every {fastest:?}");
        assert!(spacing(nodes) >= spacing(nodes - 1));
    }
}

#[test]
fn who_learns_of_many_nodes_is_not_taken_for_lost_while_its_beats_become_rare() {
    let mut now = Instant::now();
    let mut directory = directory(now);
    directory.on_record(signed(1, 1, 1), *SOURCE, now);
    let mut spacing = LEAST_SPACING;
    for number in 1..30 {
        directory.on_beat(&beat(1, 1, 1, number), &SOURCE, now);
        spacing = changed(spacing, LONGEST_SPACING);
        // As late as chance has it.
        now += spacing.mul_f64(1.1);
        directory.on_tick(now, Duration::ZERO);
        assert!(directory.is_live(&peer(1)), "before beat {number}, after {spacing:?}");
    }
    assert_eq!(spacing, LONGEST_SPACING);
    // Nor does it become frequent at once, which others would take for its rhythm.
    assert_eq!(changed(Duration::from_secs(12), LEAST_SPACING), Duration::from_secs(8));
}

/// Records of three writers, none of whom signs two different records of one version.
fn any_record() -> impl Strategy<Value = SignedRecord> {
    (1..4_usize, 1..3_u64, 1..5_u64).prop_map(|(key, incarnation, revision)| {
        let name = if revision % 2 == 0 { "even" } else { "odd" };
        sign(key, Record { left: revision == 4, ..record(incarnation, revision, name) })
    })
}

type Summary = Vec<(PeerId, Version, String, bool)>;

fn summary(directory: &mut Directory) -> (Summary, usize) {
    let snapshot = directory.snapshot();
    let nodes = snapshot.nodes.iter().map(|node| {
        let version = Version { incarnation: node.incarnation, revision: node.revision };
        (node.peer_id, version, node.name.clone(), node.conflict)
    });
    (nodes.collect(), directory.live)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_order_and_any_duplicates_give_the_same_directory(
        (records, shuffled) in prop::collection::vec(any_record(), 1..14).prop_flat_map(|records| {
            let doubled: Vec<_> = records.iter().cloned().chain(records.iter().cloned()).collect();
            (Just(records), Just(doubled).prop_shuffle())
        })
    ) {
        let now = Instant::now();
        let (mut one, mut other) = (directory(now), directory(now));
        // The last word of a node that nobody has heard of is not kept.
        for directory in [&mut one, &mut other] {
            for key in 1..4 {
                directory.on_record(signed(key, 0, 1), *SOURCE, now);
            }
        }
        for record in records {
            one.on_record(record, *SOURCE, now);
        }
        for record in shuffled {
            other.on_record(record, *SOURCE, now);
        }
        prop_assert_eq!(one.versions(), other.versions());
        prop_assert_eq!(summary(&mut one), summary(&mut other));
    }

    #[test]
    fn whatever_comes_in_the_books_balance(
        inputs in prop::collection::vec((0..6_u8, 0..4_usize, 9..12_u64, 1..4_u64, 0..40_u64), 1..40)
    ) {
        let start = Instant::now();
        let mut directory = directory(start);
        let mut present: HashSet<PeerId> = HashSet::new();
        let mut now = start;
        for (what, key, incarnation, revision, more) in inputs {
            now += Duration::from_secs(more);
            match what {
                0 => { directory.on_record(signed(key, incarnation, revision), *SOURCE, now); }
                1 => { directory.on_record(goodbye(key, incarnation, revision), *SOURCE, now); }
                2 => { directory.on_beat(&beat(key, incarnation, revision, more), &SOURCE, now); }
                3 => directory.on_connected(peer(key), now),
                4 => { directory.on_disconnected(&peer(key), now); directory.on_unreachable(&peer(key), key % 2 == 0, now); }
                _ => directory.on_tick(now, Duration::ZERO),
            }
            let changes = directory.take_changes(true);
            for event in changes.iter().flat_map(|changes| &changes.events) {
                match event {
                    Event::Joined(node) => prop_assert!(present.insert(node.peer_id), "joined twice"),
                    Event::Updated(node) => prop_assert!(present.contains(&node.peer_id), "updated, but not there"),
                    Event::Left { node, .. } => prop_assert!(present.remove(&node.peer_id), "left, but not there"),
                    _ => {}
                }
            }
            let live: HashSet<PeerId> = directory.live().copied().filter(|peer_id| *peer_id != peer(0)).collect();
            prop_assert_eq!(&live, &present);
            prop_assert_eq!(directory.len(), live.len() + 1);
            prop_assert_eq!(directory.weight, directory.entries.values().map(|entry| entry.weight).sum::<usize>());
            prop_assert_eq!(directory.names.len(), directory.len());
            let connected = directory.connected.iter().filter(|peer_id| live.contains(peer_id)).count();
            prop_assert_eq!(directory.living.len(), live.len() - connected);
            prop_assert_eq!(directory.gone.len(), directory.entries.len() - directory.len());
            let weight = |of: fn(&Entry) -> bool| {
                let apart = |peer_id: &PeerId| *peer_id == peer(0) || directory.connected.contains(peer_id);
                let of = |(peer_id, entry): &(&PeerId, &Entry)| of(entry) && (entry.state != State::Live || !apart(peer_id));
                directory.entries.iter().filter(of).map(|(_, entry)| entry.weight).sum::<usize>()
            };
            prop_assert_eq!(directory.living.weight(), weight(|entry| entry.state == State::Live));
            prop_assert_eq!(directory.gone.weight(), weight(|entry| entry.state != State::Live));
        }
    }
}
