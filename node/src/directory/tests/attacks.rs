//! What somebody can do to a directory who makes up keys without end.
#![allow(clippy::print_stdout, reason = "figures for whoever runs the tests, and for the process that measures")]

use std::process::Command;

use super::{
    super::{
        news::MAX_NAMED,
        room::{MAX_GONE, MAX_INTRODUCED},
    },
    *,
};

/// The record of a node that nobody has ever seen.
fn made_up(record: Record) -> SignedRecord {
    SignedRecord::sign(&Keypair::generate_ed25519(), &SwarmName::default(), record).unwrap()
}

fn application(description: Value) -> ApplicationRecord {
    ApplicationRecord {
        name: "a".to_owned(),
        version: None,
        description,
        actions: Vec::new(),
        slots: None,
        idempotent: Vec::new(),
        trouble: None,
    }
}

/// A record that is small on the wire and large in memory: so many maps with one pair each.
fn heavy(maps: usize) -> SignedRecord {
    let description = Value::Array(vec![serde_json::json!({"": null}); maps]);
    made_up(Record { applications: vec![application(description)], ..record(1, 1, "heavy") })
}

/// A neighbour.
fn neighbour(directory: &mut Directory, now: Instant) -> PeerId {
    let peer_id = PeerId::random();
    directory.on_connected(peer_id, now);
    peer_id
}

/// Takes made-up records of a neighbour until one is refused, and says how many were taken.
fn fill(directory: &mut Directory, source: PeerId, now: Instant, record: impl Fn() -> SignedRecord) -> usize {
    (0..).take_while(|_| directory.on_record(record(), source, now) == Merged::News).count()
}

#[test]
fn ten_thousand_records_with_one_name_are_one_conflict() {
    let now = Instant::now();
    let mut directory = directory(now);
    let records: Vec<SignedRecord> = (0..MAX_NODES - 1).map(|_| made_up(record(1, 1, "contested"))).collect();
    let sources: Vec<PeerId> = (0..5).map(|_| neighbour(&mut directory, now)).collect();
    let begun = Instant::now();
    for (number, signed) in records.into_iter().enumerate() {
        assert_eq!(directory.on_record(signed, sources[number % 5], now), Merged::News);
    }
    let changes = directory.take_changes(false).unwrap();
    let took = begun.elapsed();
    println!("{} records with one name take {took:?}", MAX_NODES - 1);
    // In an optimised build it is a tenth of this; each with all others would be minutes.
    assert!(took < Duration::from_secs(3), "{took:?}");
    let conflicts: Vec<_> = changes.events.iter().filter(|event| matches!(event, Event::NameConflict { .. })).collect();
    let [Event::NameConflict { name, peer_ids, more }] = conflicts[..] else { panic!("{} conflicts", conflicts.len()) };
    assert_eq!((&name[..], peer_ids.len(), *more), ("contested", MAX_NAMED, MAX_NODES - 1 - MAX_NAMED));
    assert_eq!(changes.events.len(), MAX_NODES);
    assert!(changes.snapshot.unwrap().by_name["contested"].iter().all(|node| node.conflict));
    // Whoever goes on with it is told of no more: what is told is a line in the log.
    directory.on_unreachable(&{ *directory.live().find(|peer_id| **peer_id != peer(0)).unwrap() }, true, now);
    directory.take_changes(false);
    directory.on_record(made_up(record(1, 1, "contested")), sources[0], now);
    assert_eq!(events(&mut directory), ["joined contested"]);
}

#[test]
fn whatever_is_said_of_a_node_in_one_turn_is_one_event() {
    let now = Instant::now();
    let mut directory = directory(now);
    for revision in 1..1_000 {
        let software = revision.to_string();
        directory.on_record(sign(1, Record { software, ..record(1, revision, "busy") }), *SOURCE, now);
    }
    assert_eq!(events(&mut directory), ["joined busy"]);
    directory.on_record(sign(1, Record { software: "last".to_owned(), ..record(1, 1_000, "busy") }), *SOURCE, now);
    directory.on_record(goodbye(1, 1, 1_001), *SOURCE, now);
    assert_eq!(events(&mut directory), ["left busy Stopped"]);
    // Who comes and goes in one turn was never there, and takes no memory.
    for number in 0..10 {
        let signed = made_up(record(1, 1, &number.to_string()));
        let peer_id = signed.peer_id;
        directory.on_record(signed, *SOURCE, now);
        directory.on_unreachable(&peer_id, true, now);
    }
    assert_eq!(events(&mut directory), [] as [&str; 0]);
}

#[test]
fn contested_names_are_told_of_a_few_at_a_time() {
    let now = Instant::now();
    let mut directory = directory(now);
    for _ in 0..2 {
        for number in 0..100 {
            directory.on_record(made_up(record(1, 1, &format!("name-{number}"))), *SOURCE, now);
        }
    }
    let conflicts = events(&mut directory).iter().filter(|event| event.starts_with("conflict")).count();
    assert_eq!(conflicts, 16);
}

#[test]
fn one_neighbour_brings_so_many_records_and_leaves_room_for_others() {
    let now = Instant::now();
    let mut directory = directory(now);
    let (liar, honest) = (neighbour(&mut directory, now), neighbour(&mut directory, now));
    let brought = (0..9_000).filter(|_| directory.on_record(made_up(record(1, 1, "x")), liar, now) == Merged::News);
    assert_eq!(brought.count(), MAX_INTRODUCED);
    assert!(!directory.takes_more_of(&liar) && directory.takes_more_of(&honest));
    assert_eq!(directory.on_record(signed(1, 1, 1), honest, now), Merged::News);
    // A sign of life of somebody who would be refused is passed on, but nobody is asked for the record.
    assert_eq!(directory.on_beat(&beat(2, 1, 1, 1), &liar, now), Heard::News);
    assert_eq!(directory.on_beat(&beat(2, 1, 1, 1), &honest, now), Heard::Wanted);
    // Who is confirmed by a connection does not count any more.
    let confirmed = *directory.live().find(|peer_id| ![peer(0), peer(1)].contains(peer_id)).unwrap();
    directory.on_connected(confirmed, now);
    assert!(directory.takes_more_of(&liar));
    directory.on_disconnected(&confirmed, now);
    assert!(directory.takes_more_of(&liar));
}

#[test]
fn many_introducers_share_the_room_and_those_that_are_gone_have_none() {
    let now = Instant::now();
    let mut directory = directory(now);
    let liars: Vec<PeerId> = (0..6).map(|_| neighbour(&mut directory, now)).collect();
    let taken: usize = liars.iter().map(|liar| fill(&mut directory, *liar, now, || made_up(record(1, 1, "x")))).sum();
    assert!(directory.len() == MAX_NODES && taken >= MAX_NODES - 1);
    let honest = neighbour(&mut directory, now);
    let shared = fill(&mut directory, honest, now, || made_up(record(1, 1, "y")));
    assert!((1_200..1_700).contains(&shared), "{shared}");
    for liar in &liars {
        directory.on_disconnected(liar, now);
    }
    fill(&mut directory, honest, now, || made_up(record(1, 1, "y")));
    assert!(!directory.takes_more_of(&honest), "it has brought all that it may");
    assert_eq!(directory.len(), MAX_NODES);
}

#[test]
fn who_is_connected_gets_in_however_full_it_is() {
    let now = Instant::now();
    let mut directory = directory(now);
    directory.on_connected(peer(1), now);
    assert_eq!(directory.on_record(signed(1, 1, 1), peer(1), now), Merged::News);
    let liars: Vec<PeerId> = (0..5).map(|_| neighbour(&mut directory, now)).collect();
    for (liar, maps) in liars.iter().flat_map(|liar| [(liar, 682), (liar, 20), (liar, 0)]) {
        fill(&mut directory, *liar, now, || heavy(maps));
    }
    let late = heavy(20);
    assert_eq!(directory.on_record(late.clone(), PeerId::random(), now), Merged::Refused);
    directory.on_connected(late.peer_id, now);
    assert_eq!(directory.on_record(late.clone(), late.peer_id, now), Merged::News);
    assert!([late.peer_id, peer(1), peer(0)].iter().all(|peer_id| directory.is_live(peer_id)));
    // For a large one nobody is let go.
    let (large, live) = (heavy(682), directory.live);
    directory.on_connected(large.peer_id, now);
    assert_eq!((directory.on_record(large.clone(), large.peer_id, now), directory.live), (Merged::Refused, live));
    assert!(directory.weight <= MAX_WEIGHT);
}

#[test]
fn made_up_nodes_change_neither_the_rhythm_of_beats_nor_the_patience() {
    let start = Instant::now();
    let mut directory = directory(start);
    let liar = neighbour(&mut directory, start);
    let at = |seconds| start + Duration::from_secs(seconds);
    directory.on_record(signed(1, 1, 1), *SOURCE, start);
    for number in 0..5 {
        directory.on_beat(&beat(1, 1, 1, number + 1), &SOURCE, at(number * 5));
    }
    fill(&mut directory, liar, at(20), || made_up(record(1, 1, "x")));
    directory.on_tick(at(20), Duration::ZERO);
    assert!(directory.len() > MAX_INTRODUCED);
    assert_eq!(directory.spacing(), Duration::from_secs(5));
    directory.on_tick(at(34), Duration::ZERO);
    assert!(directory.is_live(&peer(1)));
    directory.on_tick(at(36), Duration::ZERO);
    assert!(!directory.is_live(&peer(1)), "it has missed three beats of its own");
}

#[test]
fn in_a_swarm_that_gives_signs_of_life_beats_are_rare() {
    let start = Instant::now();
    let mut directory = directory(start);
    let keys: Vec<Keypair> = (0..1_000).map(|_| Keypair::generate_ed25519()).collect();
    for (number, key) in keys.iter().enumerate() {
        let signed = SignedRecord::sign(key, &SwarmName::default(), record(1, 1, "n")).unwrap();
        if number < 32 {
            directory.on_connected(signed.peer_id, start);
        }
        directory.on_record(signed, *SOURCE, start);
    }
    directory.on_tick(start, Duration::ZERO);
    assert_eq!(directory.spacing(), Duration::from_secs(5), "they may be made up");
    for round in 1..=2 {
        for key in &keys {
            let beat = Beat { incarnation: 1, revision: 1, beat: round, load: 0 };
            let beat = SignedBeat::sign(key, &SwarmName::default(), beat).unwrap();
            directory.on_beat(&beat, &SOURCE, start + Duration::from_secs(60 * round));
        }
    }
    directory.on_tick(start + Duration::from_secs(120), Duration::ZERO);
    assert_eq!(directory.spacing(), spacing(1_001));
}

#[test]
fn made_up_goodbyes_bring_nobody_back_from_the_dead() {
    let now = Instant::now();
    let mut directory = directory(now);
    let (liar, honest) = (neighbour(&mut directory, now), neighbour(&mut directory, now));
    // One that was connected, and one that another neighbour has told of.
    directory.on_connected(peer(1), now);
    for (key, source) in [(1, peer(1)), (2, honest)] {
        directory.on_record(signed(key, 1, 1), source, now);
        directory.on_record(goodbye(key, 1, 2), source, now);
    }
    directory.on_disconnected(&peer(1), now);
    let stranger = goodbye(3, 1, 1);
    assert_eq!(directory.on_record(stranger, liar, now), Merged::Old);
    assert!(!directory.knows(&peer(3)), "the last word of nobody");
    for number in 0..MAX_GONE as u64 + 100 {
        let now = now + Duration::from_millis(number);
        let (key, swarm) = (Keypair::generate_ed25519(), SwarmName::default());
        directory.on_record(SignedRecord::sign(&key, &swarm, record(1, 1, "x")).unwrap(), liar, now);
        let last = Record { left: true, ..record(1, 2, "x") };
        directory.on_record(SignedRecord::sign(&key, &swarm, last).unwrap(), liar, now);
    }
    assert_eq!(directory.gone.len(), MAX_GONE);
    for key in [1, 2] {
        assert_eq!(directory.on_record(signed(key, 1, 1), liar, now), Merged::Old, "node-{key}");
        assert!(directory.has_stopped(&peer(key)));
    }
}

/// What the tests of memory fill a directory with: as much of it as the limits of a record allow.
type Shape = (&'static str, fn(usize) -> SignedRecord);
const SHAPES: [Shape; 6] = [
    ("maps", |_| heavy(682)),
    ("lists", |_| {
        let lists = vec![Value::Array(vec![Value::Null]); 1_000];
        made_up(Record { applications: vec![application(Value::Array(lists))], ..record(1, 1, "n") })
    }),
    ("applications", |number| {
        let named = |index| ApplicationRecord { name: format!("{number}-{index}"), ..application(Value::Null) };
        made_up(Record { applications: (0..1_000).map(named).collect(), ..record(1, 1, "n") })
    }),
    ("actions", |_| {
        let actions = ApplicationRecord { actions: vec!["a".to_owned(); 1_024], ..application(Value::Null) };
        made_up(Record { applications: vec![actions; 20], ..record(1, 1, "n") })
    }),
    ("labels", |_| {
        let labels: BTreeMap<_, _> = (0..64).map(|number| (number.to_string(), "v".repeat(256))).collect();
        made_up(Record { labels, ..record(1, 1, "n") })
    }),
    ("small", |number| made_up(record(1, 1, &format!("node-{number}")))),
];

/// Says to a process that it is one to be measured, and what with.
const MEASURED: &str = "MULTINODES_TEST_DIRECTORY_SHAPE";

/// The documented limit is of all that is held, with two snapshots, since readers have the old one while the new one is
/// made. Each is measured in a process of its own: this one has other tests in it.
#[test]
#[cfg(target_os = "linux")]
fn a_full_directory_takes_no_more_than_is_documented() {
    if let Ok(shape) = std::env::var(MEASURED) {
        let (_, record) = SHAPES.iter().find(|(name, _)| *name == shape).unwrap();
        return fill_and_measure(*record);
    }
    for (shape, _) in SHAPES {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "directory::tests::attacks::a_full_directory_takes_no_more_than_is_documented"])
            .args(["--nocapture", "--test-threads=1"])
            .env(MEASURED, shape)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let number = |name: &str| {
            let line = text.lines().find_map(|line| line.split_once(name)).unwrap_or_else(|| panic!("{output:?}"));
            line.1.trim().parse::<usize>().unwrap()
        };
        let (taken, weight) = (number("taken:"), number("weight:"));
        println!("{shape}: {} MiB, weighed {} MiB", taken >> 20, weight >> 20);
        assert!(taken <= MAX_WEIGHT, "{shape}: {} MiB", taken >> 20);
        assert!(taken <= weight + (4 << 20), "{shape}: {taken} bytes are weighed as {weight}");
    }
}

#[cfg(target_os = "linux")]
fn fill_and_measure(record: fn(usize) -> SignedRecord) {
    let now = Instant::now();
    let mut directory = directory(now);
    let sources: Vec<PeerId> = (0..5).map(|_| neighbour(&mut directory, now)).collect();
    // Whatever the program takes anyway is there by now.
    drop(open(record(0).envelope()));
    let before = resident();
    let mut number = 0;
    for source in &sources {
        // As it comes from the network: with the room to spare that the decoder leaves.
        while directory.on_record(open(record(number).envelope()), *source, now) == Merged::News {
            number += 1;
        }
    }
    let old = directory.take_changes(true).unwrap().snapshot;
    let live: Vec<PeerId> = directory.live().copied().collect();
    for peer_id in live {
        directory.set_load(&peer_id, 7);
    }
    let new = directory.take_changes(true).unwrap().snapshot;
    let taken = resident().saturating_sub(before);
    println!("\ntaken: {taken}\nweight: {}", directory.weight);
    drop((old, new));
}

/// The resident memory of this process, in bytes.
#[cfg(target_os = "linux")]
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().trim().parse::<usize>().unwrap() * 1024
}

#[test]
fn the_first_beat_waits_among_all_that_are_said_to_be_there_and_not_for_long() {
    let now = Instant::now();
    let mut directory = directory(now);
    assert_eq!(directory.first_spacing(), LEAST_SPACING);
    for number in 0..150 {
        directory.on_record(made_up(record(1, 1, &format!("node-{number}"))), *SOURCE, now);
    }
    directory.on_tick(now, Duration::ZERO);
    assert_eq!(directory.spacing(), LEAST_SPACING, "nobody has heard anything of them");
    assert_eq!(directory.first_spacing(), Duration::from_millis(9_060));
    for number in 150..250 {
        directory.on_record(made_up(record(1, 1, &format!("node-{number}"))), *SOURCE, now);
    }
    assert!(directory.first_spacing() < LEAST_SPACING * 3, "{:?}", directory.first_spacing());
}
