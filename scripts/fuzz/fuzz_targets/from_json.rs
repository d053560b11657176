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
    assert!(same(&read, &serde_json::from_slice::<Value>(&written).expect("it is JSON")));
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
