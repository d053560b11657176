//! The bytes of the wire, written down: what `PROTOCOL.md` says in words, and what an independent CBOR implementation
//! reads and writes. A change here is a change of the protocol.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{collections::BTreeMap, fmt::Debug};

use ciborium::Value;
use libp2p::identity::Keypair;
use multinodes_behaviour::{
    SignedBeat, SignedMessage, SwarmName, codec, sync,
    wire::{
        ApplicationRecord, Beat, Begun, Call, ErrorCode, ErrorFrame, Frame, Gossip, Options, Record, SyncRequest,
        SyncResponse, Tell, TopicMessage, Version,
    },
};
use proptest::prelude::*;
use serde::{Serialize, de::DeserializeOwned};
use serde_bytes::ByteBuf;
use serde_json::json;
use sha2::{Digest, Sha256};

const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const TRACE_HEX: &str = "7837\
    30302d30616637363531393136636434336464383434386562323131633830333139632d623761643662373136393230333333312d3031";
const MEBIBYTE: usize = 1024 * 1024;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

fn encoded(frame: &Frame<'_>) -> Vec<u8> {
    let mut buffer = Vec::new();
    frame.encode(&mut buffer).unwrap();
    buffer
}

fn call(trace: Option<&str>) -> Frame<'_> {
    Frame::Call(Call {
        id: 65_536,
        application: "calculator",
        action: "add",
        deadline_ms: 10_000,
        options: Options::IDEMPOTENT,
        trace,
        payload: &[0x82, 0x01, 0x02],
    })
}

fn tell(trace: Option<&str>, options: Options) -> Frame<'_> {
    Frame::Tell(Tell { id: 0, application: "log", deadline_ms: 500, options, trace, payload: &[0x62, b'h', b'i'] })
}

/// Every kind of frame, with its bytes, length prefix and all, and as another implementation would say it.
fn frames() -> Vec<(Frame<'static>, String, Value)> {
    let error = Frame::Error(ErrorFrame {
        id: 7,
        code: ErrorCode::Failed,
        name: "division_by_zero",
        message: "division by zero",
        data: &[0x18, 0x2a],
    });
    let busy = Frame::Error(ErrorFrame { id: 7, code: ErrorCode::Busy, name: "", message: "full", data: &[] });
    vec![
        (
            call(None),
            "0000001f88001a000100006a63616c63756c61746f726361646419271001f643820102".into(),
            Value::Array(vec![
                int(0),
                int(65_536),
                text("calculator"),
                text("add"),
                int(10_000),
                int(1),
                Value::Null,
                raw(&[0x82, 0x01, 0x02]),
            ]),
        ),
        (
            call(Some(TRACE)),
            format!("0000005788001a000100006a63616c63756c61746f726361646419271001{TRACE_HEX}43820102"),
            Value::Array(vec![
                int(0),
                int(65_536),
                text("calculator"),
                text("add"),
                int(10_000),
                int(1),
                text(TRACE),
                raw(&[0x82, 0x01, 0x02]),
            ]),
        ),
        (
            tell(None, Options::CAST),
            "00000010870100636c6f671901f402f643626869".into(),
            Value::Array(vec![int(1), int(0), text("log"), int(500), int(2), Value::Null, raw(&[0x62, b'h', b'i'])]),
        ),
        (
            tell(Some(TRACE), Options::default()),
            format!("00000048870100636c6f671901f400{TRACE_HEX}43626869"),
            Value::Array(vec![int(1), int(0), text("log"), int(500), int(0), text(TRACE), raw(&[0x62, b'h', b'i'])]),
        ),
        (
            Frame::Reply { id: 7, payload: &[0x03] },
            "000000058302074103".into(),
            Value::Array(vec![int(2), int(7), raw(&[3])]),
        ),
        (Frame::Reply { id: 7, payload: &[] }, "0000000483020740".into(), Value::Array(vec![int(2), int(7), raw(&[])])),
        (Frame::Accepted { id: 256 }, "000000058203190100".into(), Value::Array(vec![int(3), int(256)])),
        (
            error,
            "0000002986040700706469766973696f6e5f62795f7a65726f706469766973696f6e206279207a65726f42182a".into(),
            Value::Array(vec![
                int(4),
                int(7),
                int(0),
                text("division_by_zero"),
                text("division by zero"),
                raw(&[0x18, 0x2a]),
            ]),
        ),
        (
            busy,
            "0000000b86040704606466756c6c40".into(),
            Value::Array(vec![int(4), int(7), int(4), text(""), text("full"), raw(&[])]),
        ),
        (
            Frame::Cancel { id: u64::MAX },
            "0000000b82051bffffffffffffffff".into(),
            Value::Array(vec![int(5), int(u64::MAX)]),
        ),
        (Frame::Goodbye, "000000028106".into(), Value::Array(vec![int(6)])),
        (
            Frame::Progress { id: 7, waiting: false, payload: &[0x18, 0x2a] },
            "00000007840707f442182a".into(),
            Value::Array(vec![int(7), int(7), Value::Bool(false), raw(&[0x18, 0x2a])]),
        ),
    ]
}

fn int(number: u64) -> Value {
    number.into()
}

fn text(text: &str) -> Value {
    text.into()
}

fn raw(bytes: &[u8]) -> Value {
    Value::Bytes(bytes.to_vec())
}

fn written_by_others(value: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    ciborium::into_writer(value, &mut bytes).unwrap();
    bytes
}

#[test]
fn every_frame_has_the_bytes_that_are_written_down() {
    for (frame, golden, _) in frames() {
        assert_eq!(hex(&encoded(&frame)), golden, "{frame:?}");
        let read = bytes(&golden);
        let (prefix, body) = read.split_at(4);
        assert_eq!(prefix, u32::try_from(body.len()).unwrap().to_be_bytes());
        assert_eq!(Frame::decode(body).unwrap(), frame);
    }
}

#[test]
fn another_implementation_reads_our_frames_and_we_read_its() {
    for (frame, _, value) in frames() {
        let ours = encoded(&frame);
        assert_eq!(ciborium::from_reader::<Value, _>(&ours[4..]).unwrap(), value, "{frame:?}");
        assert_eq!(Frame::decode(&written_by_others(&value)).unwrap(), frame);
    }
}

#[test]
fn later_versions_may_add_elements_to_any_frame() {
    for (frame, _, value) in frames() {
        let Value::Array(mut elements) = value else { panic!("{value:?} is no array") };
        elements.push(Value::Map(vec![(text("later"), Value::Array(vec![Value::Null, Value::Float(0.5)]))]));
        elements.push(Value::Bool(true));
        assert_eq!(Frame::decode(&written_by_others(&Value::Array(elements))).unwrap(), frame);
    }
}

#[test]
fn a_frame_may_say_how_many_tells_are_begun_and_whatever_else_stands_there_is_read_over() {
    let begun = Begun { incarnation: 1_700_000_000_000, accepted: 300, begun: 7 };
    let said = bytes("831b0000018bcfe5680019012c07");
    let value: Value = ciborium::from_reader(&said[..]).unwrap();
    for (frame, _, whole) in frames() {
        let with = |value: &Value| {
            let Value::Array(mut elements) = whole.clone() else { panic!("{whole:?} is no array") };
            elements.extend([value.clone(), Value::Bool(true)]);
            written_by_others(&Value::Array(elements))
        };
        assert_eq!(Frame::decode_with_begun(&with(&value)).unwrap(), (frame.clone(), Some(begun)));
        let list = |numbers: &[u64]| Value::Array(numbers.iter().map(|number| int(*number)).collect());
        let strange = [
            Value::Null,
            Value::Bool(true),
            int(7),
            Value::from(-7),
            Value::Float(0.5),
            text("later"),
            raw(&[7]),
            list(&[]),
            list(&[1, 2]),
            Value::Array(vec![int(1), text("x"), int(3)]),
            Value::Array(vec![int(1), list(&[1]), int(3)]),
            Value::Array(vec![int(1), Value::Map(vec![(int(1), list(&[]))]), Value::from(-1)]),
            Value::Map(vec![(text("later"), list(&[1]))]),
        ];
        for strange in strange {
            assert_eq!(Frame::decode_with_begun(&with(&strange)).unwrap(), (frame.clone(), None), "{strange:?}");
        }
        // Later versions may add to it.
        assert_eq!(Frame::decode_with_begun(&with(&list(&[5, 2, 1, 9]))).unwrap().1.unwrap().accepted, 2);
    }
}

#[test]
fn a_frame_that_lacks_an_element_is_refused() {
    for (_, _, value) in frames() {
        let Value::Array(mut elements) = value else { panic!("{value:?} is no array") };
        elements.pop();
        assert!(Frame::decode(&written_by_others(&Value::Array(elements))).is_err());
    }
}

#[test]
fn a_kind_that_is_not_known_is_read_over_and_bytes_behind_the_frame_are_refused() {
    assert_eq!(Frame::decode(&bytes("820800")).unwrap(), Frame::Unknown { kind: 8 });
    assert!(Frame::Unknown { kind: 8 }.encode(&mut Vec::new()).is_err());
    assert!(Frame::decode(&bytes("810600")).is_err());
    assert!(Frame::decode(&bytes("06")).is_err());
    assert!(Frame::decode(&bytes("a0")).is_err());
}

#[test]
fn frames_may_be_lists_of_unknown_length_but_their_strings_may_not() {
    assert_eq!(Frame::decode(&bytes("9f0307ff")).unwrap(), Frame::Accepted { id: 7 });
    assert_eq!(Frame::decode(&bytes("8302074103")).unwrap(), Frame::Reply { id: 7, payload: &[3] });
    assert!(Frame::decode(&bytes("8302075f4103ff")).is_err());
}

#[test]
fn error_codes_have_the_numbers_that_are_written_down() {
    let codes = [
        (ErrorCode::Failed, false),
        (ErrorCode::NoSuchApplication, true),
        (ErrorCode::NoSuchAction, true),
        (ErrorCode::BadArguments, true),
        (ErrorCode::Busy, true),
        (ErrorCode::Draining, true),
        (ErrorCode::Expired, true),
        (ErrorCode::Panicked, false),
        (ErrorCode::TooLarge, false),
        (ErrorCode::Forbidden, true),
        (ErrorCode::TimedOut, false),
        (ErrorCode::Other(11), false),
    ];
    for (number, (code, surely_did_not_run)) in codes.into_iter().enumerate() {
        assert_eq!(ErrorCode::from(number as u64), code);
        assert_eq!(code.surely_did_not_run(), surely_did_not_run, "{code:?}");
        let frame = encoded(&Frame::Error(ErrorFrame { id: 1, code, name: "", message: "", data: &[] }));
        assert_eq!(hex(&frame), format!("00000007860401{number:02x}606040"));
    }
}

#[test]
fn limits_of_a_frame_are_those_that_are_written_down() {
    let fits = |application: usize, action: usize, trace: usize| {
        let (application, action, trace) = ("a".repeat(application), "b".repeat(action), "c".repeat(trace));
        let call = Call {
            id: 1,
            application: &application,
            action: &action,
            deadline_ms: 1,
            options: Options::default(),
            trace: Some(&trace),
            payload: &[],
        };
        let value = Value::Array(vec![
            int(0),
            int(1),
            text(&application),
            text(&action),
            int(1),
            int(0),
            text(&trace),
            raw(&[]),
        ]);
        let sent = Frame::Call(call).encode(&mut Vec::new()).is_ok();
        assert_eq!(Frame::decode(&written_by_others(&value)).is_ok(), sent, "both sides keep the same limits");
        sent
    };
    assert!(fits(256, 256, 512));
    assert!(!fits(257, 0, 0) && !fits(0, 257, 0) && !fits(0, 0, 513));
    let long = "x".repeat(65_537);
    let error = |name, message| Frame::Error(ErrorFrame { id: 1, code: ErrorCode::Failed, name, message, data: &[] });
    assert!(error(&long[..256], &long[..65_536]).encode(&mut Vec::new()).is_ok());
    assert!(error(&long[..257], "").encode(&mut Vec::new()).is_err());
    assert!(error("", &long).encode(&mut Vec::new()).is_err());
}

#[test]
fn a_frame_written_apart_from_its_payload_has_the_same_bytes() {
    for size in [0, 1, 23, 24, 255, 256, 65_535, 65_536, 300_000] {
        let payload: Vec<u8> = (0..size).map(|at: usize| (at % 251) as u8).collect();
        let data = ErrorFrame { id: 1, code: ErrorCode::Failed, name: "n", message: "m", data: &[] };
        let (Frame::Call(call), Frame::Tell(tell)) = (call(Some(TRACE)), tell(None, Options::CAST)) else { panic!() };
        same_apart(
            Frame::Call(Call { payload: &[], ..call }),
            Frame::Call(Call { payload: &payload, ..call }),
            &payload,
        );
        same_apart(
            Frame::Tell(Tell { payload: &[], ..tell }),
            Frame::Tell(Tell { payload: &payload, ..tell }),
            &payload,
        );
        same_apart(Frame::Reply { id: 9, payload: &[] }, Frame::Reply { id: 9, payload: &payload }, &payload);
        same_apart(Frame::Error(data), Frame::Error(ErrorFrame { data: &payload, ..data }), &payload);
    }
}

fn same_apart(head: Frame<'_>, whole: Frame<'_>, payload: &[u8]) {
    let mut apart = b"before".to_vec();
    head.encode_apart(&mut apart, payload.len()).unwrap();
    apart.extend_from_slice(payload);
    assert!(apart[6..] == encoded(&whole), "{} bytes", payload.len());
    assert!(Frame::decode(&apart[10..]).unwrap() == whole);
}

/// The bytes written down are what we write, and are read by us and by another implementation as the same.
fn golden<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T, golden: &str, other: Value) {
    let ours = codec::encode(value).unwrap();
    assert_eq!(hex(&ours), golden, "{value:?}");
    assert_eq!(&codec::decode::<T>(&bytes(golden), MEBIBYTE).unwrap(), value);
    assert_eq!(ciborium::from_reader::<Value, _>(ours.as_slice()).unwrap(), other);
    assert_eq!(&codec::decode::<T>(&written_by_others(&other), MEBIBYTE).unwrap(), value);
    if let Value::Map(mut entries) = other {
        entries.reverse();
        assert_eq!(&codec::decode::<T>(&written_by_others(&Value::Map(entries)), MEBIBYTE).unwrap(), value);
    }
}

fn map(entries: Vec<(&str, Value)>) -> Value {
    Value::Map(entries.into_iter().map(|(key, value)| (text(key), value)).collect())
}

#[test]
fn a_record_has_the_bytes_that_are_written_down() {
    let application = ApplicationRecord {
        name: "calculator".into(),
        version: Some("1.0.0".into()),
        description: json!({"precision": 64}),
        actions: vec!["add".into()],
        slots: Some(4),
        idempotent: vec!["add".into()],
        trouble: None,
    };
    let record = Record {
        name: "alpha".into(),
        incarnation: 1_700_000_000_000,
        revision: 2,
        software: "0.1.0".into(),
        addresses: vec![ByteBuf::from(bytes("040a000001060fa0"))],
        host: Some(ByteBuf::from(vec![1; 4])),
        applications: vec![application],
        labels: BTreeMap::from([("zone".into(), "north".into())]),
        left: true,
        process: None,
    };
    let other = map(vec![
        ("name", text("alpha")),
        ("incarnation", int(1_700_000_000_000)),
        ("revision", int(2)),
        ("software", text("0.1.0")),
        ("addresses", Value::Array(vec![raw(&bytes("040a000001060fa0"))])),
        ("host", raw(&[1; 4])),
        (
            "applications",
            Value::Array(vec![map(vec![
                ("name", text("calculator")),
                ("version", text("1.0.0")),
                ("description", map(vec![("precision", int(64))])),
                ("actions", Value::Array(vec![text("add")])),
                ("slots", int(4)),
                ("idempotent", Value::Array(vec![text("add")])),
            ])]),
        ),
        ("labels", map(vec![("zone", text("north"))])),
        ("left", Value::Bool(true)),
    ]);
    golden(&record, RECORD, other);
}

const RECORD: &str = "\
    a9646e616d6565616c7068616b696e6361726e6174696f6e1b0000018bcfe56800687265766973696f6e0268736f66747761726565302e\
    312e30696164647265737365738148040a000001060fa064686f737444010101016c6170706c69636174696f6e7381a6646e616d656a63\
    616c63756c61746f726776657273696f6e65312e302e306b6465736372697074696f6ea169707265636973696f6e184067616374696f6e\
    73816361646465736c6f7473046a6964656d706f74656e748163616464666c6162656c73a1647a6f6e65656e6f727468646c656674f5";

#[test]
fn the_least_record_needs_neither_host_nor_labels() {
    let least = map(vec![
        ("name", text("a")),
        ("incarnation", int(1)),
        ("revision", int(1)),
        ("software", text("")),
        ("addresses", Value::Array(vec![])),
        ("applications", Value::Array(vec![map(vec![("name", text("b"))])])),
        ("later", Value::Null),
    ]);
    let record: Record = codec::decode(&written_by_others(&least), MEBIBYTE).unwrap();
    assert_eq!((record.host, record.labels.len(), record.left), (None, 0, false));
    assert_eq!((&record.applications[0].description, record.applications[0].actions.len()), (&json!(null), 0));
}

#[test]
fn beats_and_gossip_have_the_bytes_that_are_written_down() {
    golden(
        &Beat { incarnation: 1, revision: 2, beat: 3, load: 4 },
        "a46b696e6361726e6174696f6e01687265766973696f6e02646265617403646c6f616404",
        map(vec![("incarnation", int(1)), ("revision", int(2)), ("beat", int(3)), ("load", int(4))]),
    );
    golden(&Gossip::Record(ByteBuf::from(vec![1, 2])), "a1667265636f7264420102", map(vec![("record", raw(&[1, 2]))]));
    golden(&Gossip::Beat(ByteBuf::from(vec![3])), "a164626561744103", map(vec![("beat", raw(&[3]))]));
}

fn topic_message() -> TopicMessage {
    TopicMessage { topic: "news".into(), incarnation: 1, sequence: 2, value: ByteBuf::from(vec![0x62, b'h', b'i']) }
}

#[test]
fn a_message_of_a_topic_has_the_bytes_that_are_written_down() {
    golden(
        &topic_message(),
        "a465746f706963646e6577736b696e6361726e6174696f6e016873657175656e6365026576616c756543626869",
        map(vec![
            ("topic", text("news")),
            ("incarnation", int(1)),
            ("sequence", int(2)),
            ("value", raw(&[0x62, b'h', b'i'])),
        ]),
    );
}

#[test]
fn sync_requests_have_the_bytes_that_are_written_down() {
    let (digest, records) = (ByteBuf::from(vec![9; 2]), vec![ByteBuf::from(vec![1, 2])]);
    let (digest_value, records_value) = (raw(&[9; 2]), Value::Array(vec![raw(&[1, 2])]));
    golden(
        &SyncRequest::Offer { digest: digest.clone(), versions: None, records: records.clone() },
        "a1656f66666572a266646967657374420909677265636f72647381420102",
        map(vec![("offer", map(vec![("digest", digest_value.clone()), ("records", records_value.clone())]))]),
    );
    let version = Version { incarnation: 5, revision: 6 };
    golden(
        &SyncRequest::Offer { digest, versions: Some(vec![(ByteBuf::from(vec![7]), version)]), records: vec![] },
        "a1656f66666572a3666469676573744209096876657273696f6e7381824107a26b696e6361726e6174696f6e05687265766973696f6e06\
         677265636f72647380",
        map(vec![(
            "offer",
            map(vec![
                ("digest", digest_value),
                (
                    "versions",
                    Value::Array(vec![Value::Array(vec![
                        raw(&[7]),
                        map(vec![("incarnation", int(5)), ("revision", int(6))]),
                    ])]),
                ),
                ("records", Value::Array(vec![])),
            ]),
        )]),
    );
    golden(
        &SyncRequest::Push { records },
        "a16470757368a1677265636f72647381420102",
        map(vec![("push", map(vec![("records", records_value)]))]),
    );
    golden(&SyncRequest::Release, "6772656c65617365", text("release"));
}

#[test]
fn sync_responses_have_the_bytes_that_are_written_down() {
    let response = SyncResponse {
        same: false,
        needs_versions: false,
        records: vec![ByteBuf::from(vec![1])],
        wanted: vec![ByteBuf::from(vec![7])],
        more: true,
    };
    golden(
        &response,
        "a56473616d65f46e6e656564735f76657273696f6e73f4677265636f7264738141016677616e746564814107646d6f7265f5",
        map(vec![
            ("same", Value::Bool(false)),
            ("needs_versions", Value::Bool(false)),
            ("records", Value::Array(vec![raw(&[1])])),
            ("wanted", Value::Array(vec![raw(&[7])])),
            ("more", Value::Bool(true)),
        ]),
    );
    let least: SyncResponse = codec::decode(&bytes("a16473616d65f5"), MEBIBYTE).unwrap();
    assert_eq!(least, SyncResponse { same: true, ..SyncResponse::default() });
}

/// A field of a protobuf message, short enough for a length of one byte.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let length = u8::try_from(content.len()).unwrap();
    assert!(length < 128);
    [&[number << 3 | 2, length], content].concat()
}

#[test]
fn an_envelope_is_signed_as_it_is_written_down() {
    let keypair = Keypair::ed25519_from_bytes([7; 32]).unwrap();
    let swarm = "garden".parse().unwrap();
    let beat = Beat { incarnation: 1, revision: 2, beat: 3, load: 4 };
    let payload = codec::encode(&beat).unwrap();
    let with_length = |part: &[u8]| [&[u8::try_from(part.len()).unwrap()], part].concat();
    let signed = [&b"multinodes/garden/beat"[..], b"/multinodes/beat/1", &payload].map(with_length).concat();
    let envelope = [
        field(1, &keypair.public().encode_protobuf()),
        field(2, b"/multinodes/beat/1"),
        field(3, &payload),
        field(5, &keypair.sign(&signed).unwrap()),
    ]
    .concat();
    assert_eq!(SignedBeat::sign(&keypair, &swarm, beat).unwrap().envelope(), &envelope);
    assert_eq!(SignedBeat::open(&swarm, &envelope).unwrap().beat, beat);
    assert_eq!(hex(&envelope), ENVELOPE);
}

#[test]
fn a_message_of_a_topic_is_signed_as_it_is_written_down() {
    let keypair = Keypair::ed25519_from_bytes([7; 32]).unwrap();
    let swarm = "garden".parse().unwrap();
    let payload = codec::encode(&topic_message()).unwrap();
    let with_length = |part: &[u8]| [&[u8::try_from(part.len()).unwrap()], part].concat();
    let signed = [&b"multinodes/garden/message"[..], b"/multinodes/message/1", &payload].map(with_length).concat();
    let envelope = [
        field(1, &keypair.public().encode_protobuf()),
        field(2, b"/multinodes/message/1"),
        field(3, &payload),
        field(5, &keypair.sign(&signed).unwrap()),
    ]
    .concat();
    assert_eq!(SignedMessage::sign(&keypair, &swarm, topic_message()).unwrap().envelope(), &envelope);
    assert_eq!(SignedMessage::open(&swarm, &envelope).unwrap().message, topic_message());
    assert_eq!(hex(&envelope), MESSAGE);
}

const MESSAGE: &str = "\
    0a2408011220ea4a6c63e29c520abef5507b132ec5f9954776aebebe7b92421eea691446d22c12152f6d756c74696e6f6465732f6d6573\
    736167652f311a2da465746f706963646e6577736b696e6361726e6174696f6e016873657175656e6365026576616c7565436268692a40\
    9b6e86a2e16299f348209de7c676fb0dc4171073338dbaf56b8483eaacc3eed789f3cf67c52bedc213a59ecec7b72bced0acc5ac1d092a\
    26ebca9ae1e616e50e";

const ENVELOPE: &str = "\
    0a2408011220ea4a6c63e29c520abef5507b132ec5f9954776aebebe7b92421eea691446d22c12122f6d756c74696e6f6465732f626561\
    742f311a24a46b696e6361726e6174696f6e01687265766973696f6e02646265617403646c6f6164042a40ba88fabb1ff75201bcbadb81\
    6dcfdc5ff00b3b28760ad9ad4fbb201af14979357601b717a7845c1666d47399f8ef1c4da6d2c66794143d55f0579a6f66a2ce04";

#[test]
fn a_digest_is_made_as_it_is_written_down() {
    let keypair = |byte| Keypair::ed25519_from_bytes([byte; 32]).unwrap().public().to_peer_id();
    let version = Version { incarnation: 1_700_000_000_000, revision: 2 };
    let mut held = [(keypair(1), version), (keypair(2), Version { revision: 9, ..version })];
    let digest = sync::digest(held);
    held.sort_by_key(|(peer_id, _)| peer_id.to_bytes());
    let mut hash = Sha256::new();
    for (peer_id, version) in held {
        hash.update([0, 0, 0, 0, 0, 0, 0, 38]);
        hash.update(peer_id.to_bytes());
        hash.update(version.incarnation.to_be_bytes());
        hash.update(version.revision.to_be_bytes());
    }
    assert_eq!(*digest, hash.finalize()[..16]);
    assert_eq!(hex(&digest), "9003d75ef285c5b8579595efc7ff0252");
    assert_eq!(hex(&sync::digest([])), "e3b0c44298fc1c149afbf4c8996fb924");
}

#[test]
fn protocols_and_topics_have_the_names_that_are_written_down() {
    let swarm: SwarmName = "garden".parse().unwrap();
    assert_eq!(swarm.lane_protocol(), "/multinodes/garden/lane/1");
    assert_eq!(swarm.sync_protocol(), "/multinodes/garden/sync/1");
    assert_eq!(swarm.kademlia_protocol(), "/multinodes/garden/kad/1");
    assert_eq!(swarm.gossip_protocol_prefix(), "/multinodes/garden/gossip");
    assert_eq!(swarm.identify_version(), "/multinodes/garden/1");
    assert_eq!(swarm.gossip_topic().hash().as_str(), "multinodes/garden/1");
    assert_eq!(swarm.message_topic().hash().as_str(), "multinodes/garden/message/1");
}

/// A frame that owns its parts.
#[derive(Debug, Clone)]
struct Parts {
    kind: u8,
    id: u64,
    application: String,
    action: String,
    number: u64,
    options: u64,
    trace: Option<String>,
    payload: Vec<u8>,
}

impl Parts {
    fn frame(&self) -> Frame<'_> {
        let (id, application, payload) = (self.id, &self.application[..], &self.payload[..]);
        let (options, trace, deadline_ms) = (Options(self.options), self.trace.as_deref(), self.number);
        match self.kind {
            0 => Frame::Call(Call { id, application, action: &self.action, deadline_ms, options, trace, payload }),
            1 => Frame::Tell(Tell { id, application, deadline_ms, options, trace, payload }),
            2 => Frame::Reply { id, payload },
            3 => Frame::Accepted { id },
            4 => {
                let code = ErrorCode::from(self.number);
                Frame::Error(ErrorFrame { id, code, name: application, message: &self.action, data: payload })
            }
            5 => Frame::Cancel { id },
            6 => Frame::Progress { id, waiting: self.number.is_multiple_of(2), payload },
            _ => Frame::Goodbye,
        }
    }
}

fn parts() -> impl Strategy<Value = Parts> {
    let number = || prop_oneof![any::<u64>(), 0..30_u64];
    let bytes = proptest::collection::vec(any::<u8>(), 0..300);
    let trace = proptest::option::of("[0-9a-f-]{0,60}");
    (0..8_u8, number(), "\\PC{0,60}", "\\PC{0,60}", number(), number(), trace, bytes).prop_map(
        |(kind, id, application, action, number, options, trace, payload)| Parts {
            kind,
            id,
            application,
            action,
            number,
            options,
            trace,
            payload,
        },
    )
}

proptest! {
    #[test]
    fn any_frame_is_read_as_it_was_written(parts in parts()) {
        let frame = parts.frame();
        let written = encoded(&frame);
        prop_assert_eq!(u32::from_be_bytes(written[..4].try_into().unwrap()) as usize, written.len() - 4);
        prop_assert_eq!(Frame::decode(&written[4..]).unwrap(), frame);
    }

    #[test]
    fn random_bytes_are_refused_or_read_but_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Frame::decode(&bytes);
    }

    #[test]
    fn a_frame_that_was_changed_on_its_way_never_panics(
        parts in parts(),
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..6),
        cut in proptest::option::of(any::<proptest::sample::Index>()),
    ) {
        let mut bytes = encoded(&parts.frame()).split_off(4);
        for (index, byte) in changes {
            let at = index.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let Ok(frame) = Frame::decode(&bytes)
            && !matches!(frame, Frame::Unknown { .. })
        {
            let again = encoded(&frame);
            prop_assert_eq!(&Frame::decode(&again[4..]).unwrap(), &frame);
        }
    }
}
