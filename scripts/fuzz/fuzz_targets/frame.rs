//! Frames: whatever is read can be written again, and reads as the same; except kinds of later versions.

#![no_main]

use libfuzzer_sys::fuzz_target;
use multinodes_behaviour::wire::Frame;

const LENGTH_PREFIX: usize = 4;

fuzz_target!(|bytes: &[u8]| {
    let Ok(frame) = Frame::decode(bytes) else { return };
    if matches!(frame, Frame::Unknown { .. }) {
        return;
    }
    let mut written = b"before".to_vec();
    frame.encode(&mut written).expect("a frame that was read is within all limits");
    let (before, encoded) = written.split_at(b"before".len());
    assert_eq!(before, b"before");
    let (length, body) = encoded.split_at(LENGTH_PREFIX);
    assert_eq!(length, u32::try_from(body.len()).expect("a short frame").to_be_bytes());
    assert_eq!(Frame::decode(body).expect("a frame that was written can be read"), frame);
});
