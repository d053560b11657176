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
        assert!(same(&serde_json::from_slice::<Value>(&text).expect("it is JSON"), &value));
    }
});

/// Floats are compared as far as `serde_json` reads them: not to the last digit.
fn same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| same(one, other))
        }
        (Value::Object(one), Value::Object(other)) => {
            one.len() == other.len()
                && one.iter().all(|(key, one)| other.get(key).is_some_and(|other| same(one, other)))
        }
        (Value::Number(one), Value::Number(other)) if one.is_f64() && other.is_f64() => {
            let (one, other) = (one.as_f64().unwrap_or_default(), other.as_f64().unwrap_or_default());
            one == other || (one - other).abs() <= 1e-14 * one.abs().max(other.abs()) + 1e-320
        }
        (one, other) => one == other,
    }
}
