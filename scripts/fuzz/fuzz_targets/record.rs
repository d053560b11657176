//! Records, beats, gossip, messages of topics and sync: as they come from a stranger, and as an insider would sign them.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use libp2p::identity::Keypair;
use multinodes_behaviour::{
    SignedBeat, SignedMessage, SignedRecord, SwarmName, codec, gossip,
    message::MAX_MESSAGE,
    record::MAX_RECORD,
    wire::{Beat, Gossip, Record, SyncRequest, SyncResponse, TopicMessage},
};

/// More than any of the limits, so that they are reached.
const LIMIT: usize = 1024 * 1024;

static SWARM: LazyLock<SwarmName> = LazyLock::new(SwarmName::default);

/// Always the same, so that a finding can be repeated.
static KEYPAIR: LazyLock<Keypair> =
    LazyLock::new(|| Keypair::ed25519_from_bytes([7; 32]).expect("any 32 bytes are a secret key"));

fuzz_target!(|bytes: &[u8]| {
    let _ = SignedRecord::open(&SWARM, bytes);
    let _ = SignedBeat::open(&SWARM, bytes);
    let _ = SignedMessage::open(&SWARM, bytes);
    if let Ok(record) = codec::decode::<Record>(bytes, LIMIT) {
        signed(record);
    }
    if let Ok(beat) = codec::decode::<Beat>(bytes, LIMIT) {
        let signed = SignedBeat::sign(&KEYPAIR, &SWARM, beat).expect("a beat can be signed");
        assert_eq!(SignedBeat::open(&SWARM, signed.envelope()).expect("it was just signed"), signed);
    }
    if let Ok(message) = gossip::decode(bytes) {
        let (Gossip::Record(envelope) | Gossip::Beat(envelope)) = &message;
        let _ = SignedRecord::open(&SWARM, envelope);
        let written = gossip::encode(&message).expect("what was read can be written");
        assert_eq!(gossip::decode(&written).expect("what was written can be read"), message);
    }
    if let Ok(message) = codec::decode::<TopicMessage>(bytes, LIMIT)
        && let Ok(signed) = SignedMessage::sign(&KEYPAIR, &SWARM, message)
    {
        assert!(signed.envelope().len() <= MAX_MESSAGE);
        assert_eq!(SignedMessage::open(&SWARM, signed.envelope()).expect("it was just signed"), signed);
    }
    read_again::<SyncRequest>(bytes);
    read_again::<SyncResponse>(bytes);
});

/// An insider may sign any record: it is refused by a limit, or everybody can open it.
fn signed(record: Record) {
    let Ok(signed) = SignedRecord::sign(&KEYPAIR, &SWARM, record) else { return };
    assert!(signed.envelope().len() <= MAX_RECORD);
    let opened = SignedRecord::open(&SWARM, signed.envelope()).expect("it was just signed");
    assert_eq!(opened, signed);
    let _ = opened.addresses();
}

fn read_again<T: serde::Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug>(bytes: &[u8]) {
    let Ok(message) = codec::decode::<T>(bytes, LIMIT) else { return };
    let written = codec::encode(&message).expect("what was read can be written");
    assert_eq!(codec::decode::<T>(&written, LIMIT).expect("what was written can be read"), message);
}
