//! What goes from JSON to CBOR and back is what it was, or is refused.

use multinodes_behaviour::codec;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{JsonProblem, members};
use crate::payload::{Budget, Payload};

fn back(text: &str) -> Result<String, String> {
    let payload = Payload::from_json(text.as_bytes()).map_err(|error| error.to_string())?;
    let text = payload.json().map_err(|error| error.to_string())?.to_text();
    Ok(String::from_utf8(text).unwrap())
}

fn problem(text: &str) -> JsonProblem {
    Payload::from_json(text.as_bytes()).unwrap_err().problem().clone()
}

fn cbor(bytes: &[u8]) -> Result<String, String> {
    let payload = Payload::from_bytes(bytes.to_vec());
    payload.json().map(|json| json.to_string()).map_err(|error| error.to_string())
}

#[test]
fn what_json_says_comes_back_in_the_same_words() {
    for text in [
        "null",
        "true",
        "false",
        "0",
        "-0",
        "-0.0",
        "1",
        "1.0",
        "-1",
        "23",
        "24",
        "255",
        "256",
        "65536",
        "4294967296",
        "18446744073709551615",
        "-9223372036854775808",
        "-9223372036854775809",
        "-18446744073709551616",
        "0.1",
        "0.30000000000000004",
        "1e+300",
        "5e-324",
        "\"\"",
        "\"Grüße\\n\\u0001\"",
        "[]",
        "[[],{}]",
        "{\"z\":1,\"a\":[-0,2.5]}",
        "{\"\":{\"\":0}}",
    ] {
        let text = text.replace("1e+300", &json!(1e300).to_string());
        assert_eq!(back(&text).as_ref(), Ok(&text));
    }
    assert_eq!(back(" [ 1 ,\t{ \"a\" : \"\\ud83d\\ude00\\u0041\" } ] "), Ok("[1,{\"a\":\"😀A\"}]".to_owned()));
}

#[test]
fn what_would_not_come_back_is_refused_by_name() {
    assert_eq!(problem("[18446744073709551617]"), JsonProblem::LargeInteger("18446744073709551617".into()));
    assert_eq!(problem("{\"a\": 1e400}"), JsonProblem::FloatRange("1e400".into()));
    assert_eq!(problem("\"\\ud800\""), JsonProblem::LoneSurrogate(0xd800));
    assert_eq!(problem("\"\\udc00\\ud800\""), JsonProblem::LoneSurrogate(0xdc00));
    assert_eq!(problem("\"\\ud800\\u0041\""), JsonProblem::LoneSurrogate(0xd800));
    assert_eq!(problem("{\"a\": 1, \"\\u0061\": 2}"), JsonProblem::SameKey("a".into()));
    assert_eq!(problem("NaN"), JsonProblem::NotFinite("NaN"));
    assert_eq!(problem("[-Infinity]"), JsonProblem::NotFinite("-Infinity"));
    assert_eq!(problem(&("[".repeat(128) + &"]".repeat(128))), JsonProblem::Depth);
    assert!(back(&("[".repeat(127) + &"]".repeat(127))).is_ok());
    let text = Payload::from_json(b"[1, 18446744073709551617]").unwrap_err().to_string();
    assert_eq!(text, "the integer `18446744073709551617`, which has more than 64 bits, at byte 5");
}

#[test]
fn many_keys_are_told_apart_and_the_same_is_found() {
    let object = |last: u32| {
        let entries = (0..1000).chain([last]).map(|key| format!("\"{key}\":{{\"{key}\":0}}"));
        format!("{{{}}}", entries.collect::<Vec<_>>().join(","))
    };
    assert_eq!(back(&object(1000)), Ok(object(1000)));
    assert_eq!(problem(&object(500)), JsonProblem::SameKey("500".into()));
}

#[test]
fn what_is_no_json_is_refused() {
    for text in [
        "",
        " ",
        "nul",
        "tru",
        "01",
        "1.",
        ".5",
        "1e",
        "-",
        "+1",
        "[1,]",
        "[1 2]",
        "{\"a\"}",
        "{\"a\":}",
        "{a:1}",
        "{'a':1}",
        "{\"a\":1,}",
        "\"",
        "\"\\x\"",
        "\"\\u12\"",
        "\"\\u+123\"",
        "\"\u{1}\"",
        "1 2",
        "[",
        "{",
        "]",
        "\"a\"b",
        "\u{feff}1",
    ] {
        let refused = Payload::from_json(text.as_bytes()).unwrap_err();
        assert!(matches!(refused.problem(), JsonProblem::Syntax(_)), "{text}: {refused}");
        assert!(serde_json::from_str::<Value>(text).is_err(), "{text}");
    }
    assert!(matches!(Payload::from_json(b"\"\xff\"").unwrap_err().problem(), JsonProblem::NotUtf8));
}

#[test]
fn what_json_cannot_say_is_refused_by_name() {
    for (bytes, wanted) in [
        (&b"\xf9\x7e\x00"[..], "the number `NaN`"),
        (b"\xf9\xfc\x00", "the number `-Infinity`"),
        (b"\xc2\x49\x01\0\0\0\0\0\0\0\0", "more than 64 bits (tag 2)"),
        (b"\xa1\x01\x02", "a key that is an integer"),
        (b"\xa1\x41\x61\x02", "a key that is a byte string"),
        (b"\xa2\x61\x61\x01\x61\x61\x02", "the key `a`, which stands twice"),
        (b"\x61\xff", "not UTF-8"),
        (b"\x82\x01", "it ends too early"),
        (b"\x01\x01", "bytes after the value"),
        (b"\x9b\xff\xff\xff\xff\xff\xff\xff\xff\x01", "it ends too early"),
        (b"\x1c", "a reserved length"),
        (b"\xff", "an end without a beginning"),
        (b"\xf0", "a simple value"),
        (&[0x81; 128], "nested deeper than 127"),
    ] {
        let text = cbor(bytes).unwrap_err();
        assert!(text.contains(wanted), "{bytes:02x?}: {text}");
        assert!(Payload::from_bytes(bytes.to_vec()).to_json().is_err());
    }
}

#[test]
fn what_only_cbor_has_is_written_as_json_has_it() {
    for (bytes, text) in [
        (&b"\x42\x01\xff"[..], "[1,255]"),
        (b"\x5f\x41\x01\x41\x02\xff", "[1,2]"),
        (b"\x7f\x61\x61\x61\x62\xff", "\"ab\""),
        (b"\x9f\x01\xbf\x61\x61\xf7\xff\xff", "[1,{\"a\":null}]"),
        (b"\xd9\xd9\xf7\xc1\x1a\x51\x4b\x67\xb0", "1363896240"),
        (b"\xf9\x3e\x00", "1.5"),
        (b"\xf9\x00\x01", "5.960464477539063e-8"),
        (b"\xfa\x80\x00\x00\x00", "-0"),
        (b"\xf9\x80\x00", "-0.0"),
        (b"\xfb\x80\0\0\0\0\0\0\0", "-0.0"),
    ] {
        assert_eq!(cbor(bytes).as_deref(), Ok(text));
    }
}

#[test]
fn values_have_a_budget_of_which_the_error_speaks() {
    let payload = Payload::from_bytes([b"\x9a\x00\x00\x03\xe8".to_vec(), b"\xa1\x60\xf6".repeat(1000)].concat());
    let budget = |bytes| Budget { values: 10_000, bytes };
    assert!(payload.to_json_within(budget(1 << 20)).is_ok());
    let error = payload.to_json_within(budget(1 << 16)).unwrap_err().to_string();
    assert!(error.contains("budget of 65536 bytes"), "{error}");
    let error = payload.to_json_within(Budget { values: 2999, bytes: 1 << 20 }).unwrap_err().to_string();
    assert!(error.contains("budget of 2999 values"), "{error}");
}

#[test]
fn values_cost_the_same_whichever_way_they_are_made() {
    let keys: serde_json::Map<String, Value> = (0..40).map(|key| (key.to_string(), json!([key]))).collect();
    for value in [json!(null), json!("text"), json!([[], {}, ""]), json!(vec![1; 100]), json!({"a": keys})] {
        let payload = Payload::encode(&value).unwrap();
        let agree = |budget: Budget| {
            let decoded = codec::decode_within::<Value>(payload.as_bytes(), budget).is_ok();
            assert_eq!(payload.to_json_within(budget).is_ok(), decoded, "{value} in {budget:?}");
            decoded
        };
        let by_values = (0..200).filter(|values| agree(Budget { values: *values, bytes: 1 << 20 })).count();
        let by_bytes = (0..2_000).filter(|part| agree(Budget { values: 1_000, bytes: part * 16 })).count();
        assert!((1..200).contains(&by_values) && (1..=2_000).contains(&by_bytes), "{value}");
    }
}

#[test]
fn arguments_are_told_by_their_place() {
    let arguments = Payload::arguments_from_json(&["1", "[2]"]).unwrap();
    assert_eq!(arguments.decode_arguments::<(u8, Vec<u8>)>().unwrap(), (1, vec![2]));
    assert_eq!(Payload::arguments_from_json(&["1", "x"]).unwrap_err().0, 1);
    let many: Vec<_> = (0..300).map(|number| number.to_string()).collect();
    let many = Payload::arguments_from_json(&many).unwrap();
    assert_eq!(many.to_json().unwrap().as_array().map(Vec::len), Some(300));
}

#[test]
fn an_object_is_taken_apart_without_being_read() {
    let mut seen = Vec::new();
    let text = b" {\"id\": 7.0, \"r\\u0065sult\" : [1e999, {\"a\": \"}\"}] } ";
    members(text, |key, value| seen.push((key.to_owned(), std::str::from_utf8(value).unwrap()))).unwrap();
    assert_eq!(seen, [("id".to_owned(), "7.0"), ("result".to_owned(), "[1e999, {\"a\": \"}\"}]")]);
    for text in ["[]", "{} x", "{\"a\":1,\"a\":2}", "{\"a\":[}", ""] {
        assert!(members(text.as_bytes(), |_, _| {}).is_err(), "{text}");
    }
}

/// Any JSON, with numbers of all sizes, and the same as CBOR that others may write.
fn any_json() -> impl Strategy<Value = String> {
    let number = prop_oneof![
        any::<i64>().prop_map(|number| number.to_string()),
        any::<u64>().prop_map(|number| number.to_string()),
        any::<i128>().prop_map(|number| number.to_string()),
        any::<f64>().prop_filter("finite", |number| number.is_finite()).prop_map(|number| json!(number).to_string()),
        "-?(0|[1-9][0-9]{0,20})(\\.[0-9]{1,20})?([eE][+-]?[0-9]{1,3})?",
    ];
    let leaf = prop_oneof![
        Just("null".to_owned()),
        any::<bool>().prop_map(|value| value.to_string()),
        number,
        any::<String>().prop_map(|text| json!(text).to_string()),
        "\"(\\\\u[0-9a-f]{4}|[a-z]){0,3}\"",
    ];
    leaf.prop_recursive(6, 64, 6, |inner| {
        let key = prop_oneof!["\"[ab]{0,2}\"", any::<String>().prop_map(|text| json!(text).to_string())];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(|items| format!("[{}]", items.join(" , "))),
            prop::collection::vec((key, inner), 0..6).prop_map(|entries| {
                let entries: Vec<_> = entries.into_iter().map(|(key, value)| format!("{key} :{value}")).collect();
                format!("{{{}}}", entries.join(","))
            }),
        ]
    })
}

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

/// The number of JSON's grammar without what does not count: sign, digits, and the power of ten behind them.
fn decimal(text: &str) -> (bool, String, i64) {
    let (significand, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (whole, fraction) = significand.split_once('.').unwrap_or((significand, ""));
    let exponent = exponent.parse::<i64>().unwrap() - fraction.len() as i64;
    let digits = format!("{}{fraction}", whole.trim_start_matches('-'));
    let digits = digits.trim_start_matches('0');
    let short = digits.trim_end_matches('0');
    let exponent = if short.is_empty() { 0 } else { exponent + (digits.len() - short.len()) as i64 };
    (text.starts_with('-'), short.to_owned(), exponent)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_text_comes_back_or_is_refused(text in any_json()) {
        let Ok(payload) = Payload::from_json(text.as_bytes()) else { return Ok(()) };
        let once = payload.json().unwrap().to_string();
        prop_assert_eq!(back(&once).unwrap(), once.clone(), "what was written is stable");
        if let (Ok(before), Ok(after)) = (serde_json::from_str::<Value>(&text), serde_json::from_str::<Value>(&once)) {
            prop_assert!(same(&before, &after), "{} became {}", before, after);
        }
        prop_assert_eq!(payload.decode::<serde::de::IgnoredAny>().is_ok(), true);
    }

    #[test]
    fn any_number_keeps_its_value_or_is_refused(
        text in "-?(0|[1-9][0-9]{0,24})(\\.[0-9]{1,24})?([eE][+-]?[0-9]{1,2})?"
    ) {
        let Ok(once) = back(&text) else { return Ok(()) };
        let is_float = |text: &str| text.contains(['.', 'e', 'E']);
        prop_assert_eq!(is_float(&text), is_float(&once), "{} became {}", text, once);
        if !is_float(&text) || decimal(&text).1.len() <= 15 {
            prop_assert_eq!(decimal(&text), decimal(&once));
        }
    }

    #[test]
    fn what_json_says_of_any_bytes_says_the_same(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let payload = Payload::from_bytes(bytes);
        let Ok(json) = payload.json() else { return Ok(()) };
        let again = Payload::from_json(&json.to_text()).unwrap();
        prop_assert_eq!(again.json().unwrap().to_string(), json.to_string());
        let _ = payload.to_json();
    }
}
