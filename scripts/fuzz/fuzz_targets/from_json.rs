//! JSON to CBOR: what is taken is JSON, comes back in the same words the second time, and says what `serde_json` reads.

#![no_main]

use libfuzzer_sys::fuzz_target;
use multinodes::{Payload, json};
use serde_json::Value;

fuzz_target!(|text: &[u8]| {
    let _ = json::members(text, |_, value| assert!(value.len() < text.len()));
    let Ok(payload) = Payload::from_json(text) else { return };
    let written = payload.json().expect("what JSON said JSON can say").to_text();
    let again = Payload::from_json(&written).expect("it is JSON");
    assert_eq!(again, payload, "{}", String::from_utf8_lossy(&written));
    let read: Value = serde_json::from_slice(text).expect("it was JSON");
    assert_eq!(read, serde_json::from_slice::<Value>(&written).expect("it is JSON"));
});
