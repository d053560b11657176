//! What this crate writes, an independent CBOR implementation reads as the same, and the other way round.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{collections::BTreeMap, fmt::Debug};

use multinodes_behaviour::{
    codec,
    wire::{ApplicationRecord, Beat, Gossip, Record, SyncRequest, SyncResponse, TopicMessage, Version},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_bytes::ByteBuf;
use serde_json::json;

const VERSION: Version = Version { incarnation: 1_700_000_000_000, revision: 2 };

fn both_ways<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T) {
    let ours = codec::encode(value).unwrap();
    assert_eq!(&ciborium::from_reader::<T, _>(ours.as_slice()).unwrap(), value);
    let mut theirs = Vec::new();
    ciborium::into_writer(value, &mut theirs).unwrap();
    assert_eq!(&codec::decode::<T>(&theirs, theirs.len()).unwrap(), value);
    assert_eq!(ours, theirs, "the bytes are the same");
}

fn golden<T: Serialize>(value: &T, hex: &str) {
    let bytes = codec::encode(value).unwrap();
    assert_eq!(bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>(), hex);
}

#[test]
fn records_are_read_by_others() {
    let application = ApplicationRecord {
        name: "calculator".into(),
        version: Some("1.2.3".into()),
        description: json!({"precision": 64, "exact": true, "factor": 1.5, "modes": ["fast", null]}),
        actions: vec!["add".into(), "div".into()],
        slots: Some(4),
        idempotent: vec!["add".into()],
        trouble: None,
    };
    let bare = ApplicationRecord {
        version: None,
        description: json!(null),
        slots: None,
        idempotent: Vec::new(),
        ..application.clone()
    };
    let record = Record {
        name: "alpha".into(),
        incarnation: VERSION.incarnation,
        revision: VERSION.revision,
        software: "0.1.0".into(),
        addresses: vec![ByteBuf::from(vec![4, 10, 0, 0, 1, 6, 15, 160])],
        host: Some(ByteBuf::from(vec![1; 16])),
        applications: vec![application, bare],
        labels: BTreeMap::from([("zone".into(), "north".into())]),
        left: true,
        process: None,
    };
    both_ways(&record);
    both_ways(&Record { host: None, labels: BTreeMap::new(), left: false, ..record });
}

#[test]
fn beats_and_gossip_are_read_by_others() {
    let beat = Beat { incarnation: 1, revision: 2, beat: 3, load: 4 };
    both_ways(&beat);
    both_ways(&Gossip::Record(ByteBuf::from(vec![1, 2, 3])));
    both_ways(&Gossip::Beat(ByteBuf::from(vec![4])));
    golden(&beat, "a46b696e6361726e6174696f6e01687265766973696f6e02646265617403646c6f616404");
}

#[test]
fn messages_of_topics_are_read_by_others() {
    let message = TopicMessage {
        topic: "news".into(),
        incarnation: VERSION.incarnation,
        sequence: u64::MAX,
        value: ByteBuf::from(codec::encode(&json!({"wind": 7.5})).unwrap()),
    };
    both_ways(&message);
    both_ways(&TopicMessage { value: ByteBuf::new(), ..message });
}

#[test]
fn sync_messages_are_read_by_others() {
    let digest = ByteBuf::from(vec![9; 16]);
    let records = vec![ByteBuf::from(vec![1, 2]), ByteBuf::new()];
    let versions = Some(vec![(ByteBuf::from(vec![7; 38]), VERSION)]);
    both_ways(&SyncRequest::Offer { digest: digest.clone(), versions, records: records.clone() });
    both_ways(&SyncRequest::Offer { digest, versions: None, records: records.clone() });
    both_ways(&SyncRequest::Push { records: records.clone() });
    both_ways(&SyncRequest::Release);
    both_ways(&SyncResponse { records, wanted: vec![ByteBuf::from(vec![7; 38])], more: true, ..Default::default() });
    golden(&SyncRequest::Release, "6772656c65617365");
}

#[test]
fn keys_that_are_not_known_are_ignored_and_missing_ones_have_a_default() {
    let response: SyncResponse =
        codec::decode(&codec::encode(&json!({"same": true, "later": [1]})).unwrap(), 64).unwrap();
    assert_eq!(response, SyncResponse { same: true, ..SyncResponse::default() });
}
