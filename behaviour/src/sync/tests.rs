use futures::io::Cursor;
use libp2p::request_response::Codec as _;
use proptest::prelude::*;

use super::*;

fn version(revision: u64) -> Version {
    Version { incarnation: 1, revision }
}

fn protocol() -> StreamProtocol {
    SwarmName::default().sync_protocol()
}

#[test]
fn the_digest_does_not_depend_on_the_order_but_on_every_version() {
    let (one, two) = (PeerId::random(), PeerId::random());
    let held = digest([(one, version(1)), (two, version(2))]);
    assert_eq!(held.len(), 16);
    assert_eq!(held, digest([(two, version(2)), (one, version(1))]));
    assert_ne!(held, digest([(one, version(2)), (two, version(1))]));
    assert_ne!(held, digest([(one, version(1))]));
}

#[test]
fn the_difference_says_what_each_side_lacks() {
    let [same, older, newer, only_here, only_there] = std::array::from_fn(|_| PeerId::random());
    let here = [(same, version(1)), (older, version(1)), (newer, version(2)), (only_here, version(1))];
    let mut there = versions([(same, version(1)), (older, version(2)), (newer, version(1)), (only_there, version(1))]);
    there.push((ByteBuf::from(b"no peer id".to_vec()), version(9)));
    let difference = compare(here, &there);
    assert_eq!(difference.newer_here, [newer, only_here]);
    assert_eq!(difference.newer_there, [older, only_there]);
}

#[test]
fn records_are_taken_as_long_as_they_fit() {
    let large = Bytes::from(vec![0; 48 * 1024]);
    let (taken, more) = fill(std::iter::repeat_n(&large, 1000));
    assert!(more);
    let size: usize = taken.iter().map(|record| record.len()).sum();
    assert!(size <= RECORDS_BUDGET && size > RECORDS_BUDGET - 2 * large.len());
    assert!(!fill([&large]).1);
    let response = SyncResponse { records: taken, ..SyncResponse::default() };
    assert!(codec::encode(&response).unwrap().len() <= MAX_RESPONSE);
}

#[tokio::test]
async fn a_request_that_is_written_is_read_as_the_same() {
    let request = SyncRequest::Offer {
        digest: digest([]),
        versions: Some(versions([(PeerId::random(), version(7))])),
        records: vec![ByteBuf::from(vec![1, 2, 3])],
    };
    let mut written = Cursor::new(Vec::new());
    Codec::default().write_request(&protocol(), &mut written, request.clone()).await.unwrap();
    let mut bytes = Cursor::new(written.into_inner());
    assert_eq!(Codec::default().read_request(&protocol(), &mut bytes).await.unwrap(), request);
}

#[tokio::test]
async fn what_is_over_the_limit_is_neither_written_nor_read() {
    let request = SyncRequest::Push { records: vec![ByteBuf::from(vec![0; MAX_REQUEST])] };
    let error =
        Codec::default().write_request(&protocol(), &mut Cursor::new(Vec::new()), request.clone()).await.unwrap_err();
    assert!(error.to_string().contains("over the limit of 4194304"), "{error}");
    let bytes = codec::encode(&request).unwrap();
    let outcome = Codec::default().read_request(&protocol(), &mut bytes.as_slice()).await.unwrap();
    assert!(matches!(&outcome, SyncRequest::Malformed(reason) if reason.contains("limit of 4194304")), "{outcome:?}");
}

/// A stream that is closed without an answer, or in the middle of one, is nobody's fault.
#[tokio::test]
async fn what_is_cut_off_is_no_fault_and_what_makes_no_sense_is() {
    let request = SyncRequest::Push { records: vec![ByteBuf::from(vec![7; 100])] };
    let bytes = codec::encode(&request).unwrap();
    for length in 0..bytes.len() {
        let error = Codec::default().read_request(&protocol(), &mut &bytes[..length]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "after {length} bytes");
    }
    let outcome = Codec::default().read_request(&protocol(), &mut &b"\xff\xff"[..]).await.unwrap();
    assert!(matches!(outcome, SyncRequest::Malformed(_)), "{outcome:?}");
}

/// Reads a request of the largest size that never comes to its end.
fn unfinished(codec: &Codec) -> impl Future<Output = io::Result<SyncRequest>> + use<> {
    let mut codec = codec.clone();
    async move {
        let endless = futures::io::repeat(0).take(MAX_REQUEST as u64).chain(Never);
        codec.read_request(&protocol(), &mut Box::pin(endless)).await
    }
}

/// Nothing more comes.
struct Never;

impl AsyncRead for Never {
    fn poll_read(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
        _: &mut [u8],
    ) -> std::task::Poll<io::Result<usize>> {
        std::task::Poll::Pending
    }
}

#[tokio::test]
async fn what_is_being_read_has_a_bound_on_each_connection_and_on_all_together() {
    const CONNECTIONS: usize = 4;
    let root = Codec { room: Room::of(CONNECTIONS * SHARE), share: None };
    let parts = |room: &Room| room.0.available_permits();
    let mut all = Vec::new();
    for connections in 1..=CONNECTIONS + 2 {
        let connection = root.clone();
        for _ in 0..MAX_STREAMS {
            let mut reading = Box::pin(tokio::task::unconstrained(unfinished(&connection)));
            assert!(futures::poll!(&mut reading).is_pending());
            all.push(reading);
        }
        let left = CONNECTIONS.saturating_sub(connections) * SHARE / PART;
        assert_eq!(parts(&root.room), left, "{connections} connections");
        let share = connection.share.as_ref().unwrap();
        assert!(left == 0 || parts(share) == 0);
        // What is small is read all the same.
        let small = codec::encode(&SyncRequest::Release).unwrap();
        assert!(connection.clone().read_request(&protocol(), &mut small.as_slice()).await.is_ok());
    }
    drop(all);
    assert_eq!(parts(&root.room), CONNECTIONS * SHARE / PART);
}

#[test]
fn a_list_without_end_is_refused_before_it_fills_the_memory() {
    let request = SyncRequest::Push { records: vec![ByteBuf::new(); MAX_RECORDS + 1] };
    let bytes = codec::encode(&request).unwrap();
    let error = codec::decode::<SyncRequest>(&bytes, MAX_REQUEST).unwrap_err().to_string();
    assert!(error.contains("a list of more than 16384"), "{error}");
    let most = SyncRequest::Push { records: vec![ByteBuf::new(); MAX_RECORDS] };
    assert_eq!(codec::decode::<SyncRequest>(&codec::encode(&most).unwrap(), MAX_REQUEST).unwrap(), most);
}

#[test]
fn the_largest_offer_is_within_the_limit() {
    let (peer_id, most) = (PeerId::random(), Version { incarnation: u64::MAX, revision: u64::MAX });
    let versions = versions(std::iter::repeat_n((peer_id, most), 2 * MAX_VERSIONS));
    let (records, _) = fill(std::iter::repeat_n(&Bytes::from_static(&[0; 1000]), 10_000));
    let request = SyncRequest::Offer { digest: digest([]), versions: Some(versions), records };
    let size = codec::encode(&request).unwrap().len();
    assert!(size <= MAX_REQUEST, "{size}");
}

proptest! {
    #[test]
    fn random_bytes_are_refused_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        let outcome = futures::executor::block_on(Codec::default().read_request(&protocol(), &mut bytes.as_slice()));
        match outcome {
            Ok(outcome) => prop_assert!(matches!(outcome, SyncRequest::Release | SyncRequest::Malformed(_))),
            Err(error) => prop_assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof),
        }
    }
}
