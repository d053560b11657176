//! CBOR to JSON: what is written is JSON, and says the same when it comes back.

#![no_main]

use libfuzzer_sys::fuzz_target;
use multinodes::Payload;
use serde_json::Value;

fuzz_target!(|bytes: &[u8]| {
    let payload = Payload::from_bytes(bytes.to_vec());
    let _ = payload.decode_arguments::<(Value,)>();
    let value = payload.to_json();
    let Ok(json) = payload.json() else {
        assert!(value.is_err());
        return;
    };
    let text = json.to_text();
    assert!(text.len() <= 8 * bytes.len());
    let again = Payload::from_json(&text).expect("what was written is JSON");
    assert_eq!(again.json().expect("it came from JSON").to_text(), text);
    if let Ok(value) = value {
        assert_eq!(serde_json::from_slice::<Value>(&text).expect("it is JSON"), value);
    }
});
