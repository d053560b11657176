//! What the command takes and prints is JSON: the same goes in and comes out, or it is refused and named.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{Swarm, run};
use multinodes::{Actions, Payload};
use serde_json::Value;

const KEPT: [&str; 12] = [
    "18446744073709551615",
    "-9223372036854775808",
    "-18446744073709551616",
    "-0",
    "-0.0",
    "1.0",
    "1",
    "0.30000000000000004",
    "5e-324",
    "\"Grüße \\\\ \\u0001\"",
    "{\"z\":[null,true],\"a\":{\"\":-0}}",
    "[[],{}]",
];

const REFUSED: [(&str, &str); 9] = [
    ("18446744073709551617", "the integer `18446744073709551617`"),
    ("[-18446744073709551617]", "more than 64 bits"),
    ("1e400", "the number `1e400`"),
    ("3.14159265358979323846264338", "would round to `3.141592653589793`"),
    ("\"\\ud800\"", "the lone surrogate `\\ud800`"),
    ("{\"a\":1,\"a\":2}", "the key `a`"),
    ("NaN", "the number `NaN`"),
    ("[-Infinity]", "the number `-Infinity`"),
    ("{\"a\":[1,2}", "not JSON"),
];

#[test]
fn a_value_comes_back_in_the_same_words() {
    let swarm = Swarm::new();
    let mut alpha = swarm.start("alpha", &[]);
    alpha.started();
    for text in KEPT {
        let outcome = swarm.run(&["call", "node", "echo", text, "--node", "alpha"]).expect(0);
        assert_eq!(outcome.stdout.trim_end(), text);
    }
    let all = swarm.run(&["call", "node", "echo", "-0", "--all"]).expect(0);
    assert!(all.stdout.contains("\"result\":-0}"), "{}", all.stdout);
    let items = KEPT.join("\n");
    let map = swarm.command(&["map", "node", "echo", "--node", "alpha", "--ordered"]);
    let lines = run(map, &items).expect(0).stdout;
    for (line, text) in lines.lines().zip(KEPT) {
        assert!(line.contains(&format!("\"input\":{text},\"result\":{text},")), "{line}");
    }
    assert_eq!(lines.lines().count(), KEPT.len());
}

#[test]
fn what_would_be_changed_is_refused_by_name_before_it_is_sent() {
    let swarm = Swarm::new();
    let mut alpha = swarm.start("alpha", &[]);
    alpha.started();
    for (text, named) in REFUSED {
        for verb in [&["call", "node", "echo"][..], &["tell", "node"], &["publish", "topic"]] {
            let outcome = swarm.run(&[verb, &[text]].concat()).expect(2);
            assert!(outcome.stderr.contains(named), "{verb:?} {text}: {}", outcome.stderr);
        }
        let outcome = run(swarm.command(&["map", "node", "echo", "--node", "alpha"]), text).expect(2);
        assert!(outcome.stderr.contains("line 1 of stdin") && outcome.stderr.contains(named), "{}", outcome.stderr);
    }
}

#[test]
fn a_result_that_json_cannot_say_is_named_and_not_printed_as_something_else() {
    let swarm = Swarm::new();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _entered = runtime.enter();
    let strange = Actions::new()
        .action("nan", |item: Option<u64>| async move { vec![item.map_or(0.0, |item| item as f64), f64::NAN] })
        .action("fine", |()| async { 1 });
    let node = runtime.block_on(swarm.builder().name("strange").start()).unwrap();
    node.register("strange", strange).unwrap();
    let outcome = swarm.run(&["call", "strange", "nan", "1"]).expect(2);
    assert!(outcome.stderr.contains("the number `NaN`") && outcome.stdout.is_empty(), "{outcome:?}");
    let all = swarm.run(&["call", "strange", "nan", "1", "--all"]).expect(1);
    let line: Value = serde_json::from_str(&all.stdout).unwrap();
    assert_eq!(line["error"]["code"], "unexpected_result");
    let map = run(swarm.command(&["map", "strange", "nan"]), "1\n").expect(1);
    let line: Value = serde_json::from_str(&map.stdout).unwrap();
    assert!(line["error"]["message"].as_str().unwrap().contains("NaN"), "{line}");
    // A number of more than 64 bits, as other languages write it.
    let echoed = Payload::from_bytes(b"\x81\xc2\x49\x01\0\0\0\0\0\0\0\0".to_vec());
    let echoed = runtime.block_on(node.app("node").on("strange").call_raw("echo", echoed)).unwrap();
    assert!(echoed.json().unwrap_err().to_string().contains("tag 2"));
}

#[test]
fn what_a_terminal_would_obey_or_not_show_is_printed_as_json_can_write_it() {
    let swarm = Swarm::new();
    let mut alpha = swarm.start("alpha", &[]);
    alpha.started();
    let (text, shown) = ("\"a\u{202e}\u{9b}2J\u{7f}b\"", r#""a\u202e\u009b2J\u007fb""#);
    let map = run(swarm.command(&["map", "node", "echo"]), text).expect(0);
    let call = swarm.run(&["call", "node", "echo", text]).expect(0);
    let all = swarm.run(&["call", "node", "echo", text, "--all"]).expect(0);
    for outcome in [map, call, all] {
        assert!(outcome.stdout.contains(shown), "{outcome:?}");
        assert!(!outcome.stdout.contains(['\u{202e}', '\u{9b}', '\u{7f}']), "{outcome:?}");
    }
}

#[test]
fn bytes_are_printed_as_numbers_or_as_they_are() {
    let swarm = Swarm::new();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _entered = runtime.enter();
    let files = Actions::new()
        .action("bytes", |()| async { serde_bytes::ByteBuf::from(*b"\0\x01hi") })
        .action("text", |()| async { "hi\n" })
        .action("number", |()| async { 7 });
    let node = runtime.block_on(swarm.builder().name("files").start()).unwrap();
    node.register("files", files).unwrap();
    assert_eq!(swarm.run(&["call", "files", "bytes"]).expect(0).stdout, "[0,1,104,105]\n");
    assert_eq!(swarm.run(&["call", "files", "bytes", "--raw"]).expect(0).stdout, "\0\x01hi");
    assert_eq!(swarm.run(&["call", "files", "text", "--raw"]).expect(0).stdout, "hi\n");
    let neither = swarm.run(&["call", "files", "number", "--raw"]).expect(2);
    assert!(neither.stderr.contains("neither a byte string nor a text"), "{neither:?}");
    let help = swarm.run(&["call", "--help"]).expect(0).stdout;
    assert!(help.contains("byte string") && help.contains("array of numbers") && help.contains("--raw"), "{help}");
}
