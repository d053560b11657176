use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_bytes::ByteBuf;
use serde_json::json;

use super::*;

fn record() -> Record {
    let address: Multiaddr = "/ip4/10.0.0.1/tcp/4000".parse().unwrap();
    Record {
        name: "alpha".into(),
        incarnation: 1_700_000_000_000,
        revision: 3,
        software: "0.1.0".into(),
        addresses: vec![ByteBuf::from(address.to_vec())],
        host: Some(ByteBuf::from(vec![1; 16])),
        applications: vec![ApplicationRecord {
            name: "calculator".into(),
            version: Some("1.2.3".into()),
            description: json!({"precision": 64, "modes": ["fast", "exact", null]}),
            actions: vec!["add".into(), "div".into()],
            slots: Some(4),
            idempotent: vec!["add".into()],
            trouble: Some("it is just starting".into()),
        }],
        labels: BTreeMap::from([("zone".into(), "north".into())]),
        left: false,
        process: None,
    }
}

fn swarm(name: &str) -> SwarmName {
    name.parse().unwrap()
}

#[test]
fn a_signed_record_opens_to_the_same_and_names_its_signer() {
    let keypair = Keypair::generate_ed25519();
    let signed = SignedRecord::sign(&keypair, &swarm("one"), record()).unwrap();
    let opened = SignedRecord::open(&swarm("one"), signed.envelope()).unwrap();
    assert_eq!(opened, signed);
    assert_eq!(opened.peer_id, keypair.public().to_peer_id());
    assert_eq!(opened.addresses(), ["/ip4/10.0.0.1/tcp/4000".parse().unwrap()]);
    assert_eq!(opened.version(), Version { incarnation: 1_700_000_000_000, revision: 3 });
}

#[test]
fn a_record_of_another_swarm_is_refused() {
    let signed = SignedRecord::sign(&Keypair::generate_ed25519(), &swarm("one"), record()).unwrap();
    let error = SignedRecord::open(&swarm("two"), signed.envelope()).unwrap_err();
    assert!(matches!(error, RecordError::Signature(_)), "{error}");
}

#[test]
fn a_beat_is_no_record_and_a_record_no_beat() {
    let (keypair, swarm) = (Keypair::generate_ed25519(), swarm("one"));
    let beat = SignedBeat::sign(&keypair, &swarm, Beat { incarnation: 1, revision: 2, beat: 3, load: 4 }).unwrap();
    assert_eq!(SignedBeat::open(&swarm, beat.envelope()).unwrap(), beat);
    assert!(matches!(SignedRecord::open(&swarm, beat.envelope()), Err(RecordError::Signature(_))));
    let record = SignedRecord::sign(&keypair, &swarm, record()).unwrap();
    assert!(matches!(SignedBeat::open(&swarm, record.envelope()), Err(RecordError::Signature(_))));
}

#[test]
fn an_envelope_with_something_added_is_refused() {
    let signed = SignedRecord::sign(&Keypair::generate_ed25519(), &swarm("one"), record()).unwrap();
    let mut envelope = signed.envelope().to_vec();
    // Protobuf field 15, a number: unknown, and so ignored by the decoder.
    envelope.extend_from_slice(&[0x78, 0x01]);
    assert!(matches!(SignedRecord::open(&swarm("one"), &envelope), Err(RecordError::NotCanonical)));
}

#[test]
fn limits_hold_on_both_sides_and_errors_name_them() {
    let (keypair, swarm) = (Keypair::generate_ed25519(), swarm("one"));
    let mut large = record();
    large.applications[0].description = json!("x".repeat(MAX_RECORD));
    let error = SignedRecord::sign(&keypair, &swarm, large).unwrap_err().to_string();
    assert!(error.contains("`record`") && error.contains("49152"), "{error}");

    let many = Record { addresses: vec![ByteBuf::from(vec![1]); MAX_ADDRESSES + 1], ..record() };
    let error = SignedRecord::sign(&keypair, &swarm, many.clone()).unwrap_err().to_string();
    assert_eq!(error, "there are 33 `addresses`, the limit is 32");
    let envelope = RECORD.seal(&keypair, &swarm, &many).unwrap();
    assert!(matches!(SignedRecord::open(&swarm, &envelope), Err(RecordError::TooMany { what: "addresses", .. })));

    let long = Record { name: "n".repeat(MAX_NODE_NAME + 1), ..record() };
    assert_eq!(
        SignedRecord::sign(&keypair, &swarm, long).unwrap_err().to_string(),
        format!("`{}` cannot name a node: it has 129 bytes, the limit is 128", "n".repeat(80))
    );
    let empty = Record { name: String::new(), ..record() };
    assert_eq!(
        SignedRecord::sign(&keypair, &swarm, empty).unwrap_err().to_string(),
        "`` cannot name a node: it is empty"
    );
}

/// `record` with descriptions of its own.
fn described(descriptions: &[Value]) -> Record {
    let application = record().applications[0].clone();
    let describe = |description: &Value| ApplicationRecord { description: description.clone(), ..application.clone() };
    Record { applications: descriptions.iter().map(describe).collect(), ..record() }
}

#[test]
fn what_is_small_on_the_wire_and_large_in_memory_is_refused_on_both_sides() {
    let (keypair, swarm) = (Keypair::generate_ed25519(), swarm("one"));
    // A list of maps with one pair each: a map, a key and a value.
    let maps = |count| Value::Array(vec![json!({"": null}); count]);
    let most = (MAX_VALUES - 2) / 3;
    SignedRecord::sign(&keypair, &swarm, described(&[maps(most)])).unwrap();
    for many in [described(&[maps(most + 1)]), described(&[maps(most / 2), maps(most / 2 + 1)])] {
        let error = SignedRecord::sign(&keypair, &swarm, many.clone()).unwrap_err().to_string();
        assert!(error.ends_with("`values in descriptions`, the limit is 2048"), "{error}");
        let envelope = RECORD.seal(&keypair, &swarm, &many).unwrap();
        let refused = SignedRecord::open(&swarm, &envelope).unwrap_err();
        assert!(refused.to_string().ends_with("budget of 2048 values"), "{refused}");
    }

    let nested = |depth| (0..depth).fold(Value::Null, |inner, _| json!([inner]));
    SignedRecord::sign(&keypair, &swarm, described(&[nested(MAX_DEPTH)])).unwrap();
    let deep = described(&[nested(MAX_DEPTH + 1)]);
    let error = SignedRecord::sign(&keypair, &swarm, deep.clone()).unwrap_err().to_string();
    assert_eq!(error, "the `description` nests 33 deep, the limit is 32");
    let envelope = RECORD.seal(&keypair, &swarm, &deep).unwrap();
    assert!(matches!(SignedRecord::open(&swarm, &envelope), Err(RecordError::TooDeep { .. })));
}

#[test]
fn what_is_too_large_is_refused_before_it_is_decoded() {
    let error = SignedRecord::open(&swarm("one"), &vec![0; MAX_RECORD + 1]).unwrap_err();
    assert!(
        matches!(error, RecordError::TooLarge { what: "record", size, limit: MAX_RECORD } if size == MAX_RECORD + 1)
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_record_survives_the_round_trip(
        name in "[a-zA-Zäöü]{1,40}",
        incarnation: u64,
        revision: u64,
        actions in prop::collection::vec("[a-z]{1,20}", 0..20),
        labels in prop::collection::btree_map("[a-z]{1,8}", ".{0,20}", 0..8),
        host in prop::option::of(prop::collection::vec(any::<u8>(), 0..MAX_HOST)),
        left: bool,
    ) {
        let mut record = Record { name, incarnation, revision, labels, left, host: host.map(ByteBuf::from), ..record() };
        record.applications[0].actions = actions;
        let signed = SignedRecord::sign(&Keypair::generate_ed25519(), &swarm("one"), record).unwrap();
        prop_assert_eq!(SignedRecord::open(&swarm("one"), signed.envelope()).unwrap(), signed);
    }

    #[test]
    fn a_flipped_bit_is_noticed(at: prop::sample::Index, bit in 0..8_u8) {
        let signed = SignedRecord::sign(&Keypair::generate_ed25519(), &swarm("one"), record()).unwrap();
        let mut envelope = signed.envelope().to_vec();
        let at = at.index(envelope.len());
        envelope[at] ^= 1 << bit;
        prop_assert!(SignedRecord::open(&swarm("one"), &envelope).is_err());
    }

    #[test]
    fn a_shortened_envelope_is_refused(at: prop::sample::Index) {
        let signed = SignedRecord::sign(&Keypair::generate_ed25519(), &swarm("one"), record()).unwrap();
        let envelope = &signed.envelope()[..at.index(signed.envelope().len())];
        prop_assert!(SignedRecord::open(&swarm("one"), envelope).is_err());
    }

    #[test]
    fn random_bytes_are_refused_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..2048)) {
        prop_assert!(SignedRecord::open(&swarm("one"), &bytes).is_err());
        prop_assert!(SignedBeat::open(&swarm("one"), &bytes).is_err());
    }

    #[test]
    fn signed_random_bytes_are_refused_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        let swarm = swarm("one");
        let keypair = Keypair::generate_ed25519();
        let envelope = SignedEnvelope::new(&keypair, RECORD.domain(&swarm), RECORD.payload_type(), bytes).unwrap();
        prop_assert!(SignedRecord::open(&swarm, &envelope.into_protobuf_encoding()).is_err());
    }
}
