//! Dynamic values: whatever was decoded within a small budget takes no more than that, and is the same once it was written.

#![no_main]

use libfuzzer_sys::fuzz_target;
use multinodes_behaviour::codec::{self, Budget};
use serde_json::Value;

const SMALL: Budget = Budget { values: 4096, bytes: 256 * 1024 };

fuzz_target!(|bytes: &[u8]| {
    let Ok(value) = codec::decode_within::<Value>(bytes, SMALL) else { return };
    let size = size(&value);
    assert!(size <= SMALL.bytes, "{size} bytes");
    let written = codec::encode(&value).expect("what was read can be written");
    assert_eq!(codec::decode::<Value>(&written, usize::MAX).expect("what was written can be read"), value);
});

/// What it holds at the least, in bytes beside itself.
fn size(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len(),
        Value::Array(values) => values.iter().map(|value| size_of::<Value>() + size(value)).sum(),
        Value::Object(entries) => {
            entries.iter().map(|(key, value)| size_of::<(String, Value)>() + key.len() + size(value)).sum()
        }
        _ => 0,
    }
}
