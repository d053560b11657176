use std::task::{Context, Poll};

use futures::FutureExt;
use proptest::{prelude::*, sample::Index};

use super::*;

const LIMIT: usize = 2 * CHARGED_FROM;

/// A stream that gives its bytes in pieces of chosen sizes, over and over the same ones, and then ends.
struct Pieces {
    bytes: Bytes,
    sizes: Vec<usize>,
    turn: usize,
}

impl Pieces {
    fn new(bytes: Vec<u8>, sizes: &[usize]) -> Self {
        Self { bytes: bytes.into(), sizes: sizes.to_vec(), turn: 0 }
    }
}

impl AsyncRead for Pieces {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        assert!(!buffer.is_empty(), "an empty read looks like the end");
        let size = self.sizes[self.turn % self.sizes.len()].min(buffer.len()).min(self.bytes.len());
        self.turn += 1;
        buffer[..size].copy_from_slice(&self.bytes.split_to(size));
        Poll::Ready(Ok(size))
    }
}

/// A frame of `size` bytes that differs from its neighbours.
fn frame(number: usize, size: usize) -> Vec<u8> {
    (0..size).map(|at| (at + number) as u8).collect()
}

fn stream(frames: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for frame in frames {
        bytes.extend(u32::try_from(frame.len()).unwrap().to_be_bytes());
        bytes.extend(frame);
    }
    bytes
}

/// Reads to the end, and gives the frames and how it ended.
fn read_all(bytes: Vec<u8>, sizes: &[usize]) -> (Vec<Bytes>, Option<LaneEnd>) {
    let budget = Arc::new(Semaphore::new(LIMIT.div_ceil(PERMIT)));
    let mut reader = FrameReader::new(LIMIT, budget.clone(), &Limits::new(1 << 20));
    let mut io = Pieces::new(bytes, sizes);
    let mut frames = Vec::new();
    let run = async {
        loop {
            match reader.next(&mut io).await {
                Ok(Some(RawFrame { bytes, charge, .. })) => {
                    assert_eq!(charge.is_some(), bytes.len() > CHARGED_FROM);
                    frames.push(bytes);
                }
                Ok(None) => return None,
                Err(end) => return Some(end),
            }
        }
    };
    // The stream is always ready, and each charge is given back at once, so nothing ever waits.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let end = runtime.block_on(async { run.now_or_never().expect("nothing to wait for") });
    assert_eq!(budget.available_permits(), LIMIT.div_ceil(PERMIT), "every charge was given back");
    (frames, end)
}

fn sizes_of_pieces() -> impl Strategy<Value = Vec<usize>> {
    let size = prop_oneof![Just(1), 1..8_usize, 1..5_000_usize, Just(usize::MAX)];
    proptest::collection::vec(size, 1..6)
}

fn frames(most: usize) -> impl Strategy<Value = Vec<Vec<u8>>> {
    let size = prop_oneof![
        4 => 0..300_usize,
        2 => 0..10_000_usize,
        1 => BLOCK - 10..BLOCK + 10,
        1 => CHARGED_FROM - 10..CHARGED_FROM + 10,
        1 => 0..=LIMIT,
    ];
    proptest::collection::vec(size, 0..most)
        .prop_map(|sizes| sizes.into_iter().enumerate().map(|(number, size)| frame(number, size)).collect())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn a_stream_is_cut_into_the_same_frames_however_it_comes(frames in frames(12), sizes in sizes_of_pieces()) {
        let (read, end) = read_all(stream(&frames), &sizes);
        prop_assert!(end.is_none(), "{end:?}");
        prop_assert!(read == frames);
    }

    #[test]
    fn a_stream_that_breaks_off_gives_whole_frames_only(
        frames in frames(6),
        sizes in sizes_of_pieces(),
        cut in any::<Index>(),
    ) {
        let mut bytes = stream(&frames);
        bytes.truncate(cut.index(bytes.len() + 1));
        let mut whole = 0;
        let mut used = 0;
        while let Some(frame) = frames.get(whole).filter(|frame| used + PREFIX + frame.len() <= bytes.len()) {
            used += PREFIX + frame.len();
            whole += 1;
        }
        let between = used == bytes.len();
        let (read, end) = read_all(bytes, &sizes);
        prop_assert!(read == frames[..whole]);
        prop_assert_eq!(matches!(end, Some(LaneEnd::CutOff)), !between, "{:?}", end);
        prop_assert_eq!(end.is_none(), between);
    }

    #[test]
    fn a_frame_over_the_limit_is_refused_by_its_length_alone(
        frames in frames(4),
        length in LIMIT + 1..u32::MAX as usize,
        sizes in sizes_of_pieces(),
    ) {
        let mut bytes = stream(&frames);
        bytes.extend(u32::try_from(length).unwrap().to_be_bytes());
        let (read, end) = read_all(bytes, &sizes);
        prop_assert!(read == frames);
        match end {
            Some(LaneEnd::FrameTooLong { length: told, limit: LIMIT }) => prop_assert_eq!(told, length),
            end => prop_assert!(false, "{:?}", end),
        }
    }
}

#[test]
fn one_byte_at_a_time_is_enough() {
    let frames = [frame(1, 0), frame(2, 1), frame(3, 5_000), frame(4, CHARGED_FROM + 1), frame(5, 7)];
    let (read, end) = read_all(stream(&frames), &[1]);
    assert!(end.is_none() && read == frames);
}
