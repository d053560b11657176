//! `publish` and `subscribe`, with real processes.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{
    io::{BufRead, BufReader},
    process::Stdio,
    sync::mpsc,
    thread,
    time::Instant,
};

use common::{LIMIT, Swarm};
use serde_json::{Value, json};

#[test]
fn what_is_published_is_a_line_of_json_for_each_subscriber() {
    let swarm = Swarm::new();
    let mut alpha = swarm.start("alpha", &[]);
    alpha.started();
    let mut subscriber = swarm
        .command(&["subscribe", "news", "--count", "1"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let (sender, heard) = mpsc::channel();
    let output = subscriber.stdout.take().unwrap();
    let reader = thread::spawn(move || {
        BufReader::new(output).lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
    });
    let begun = Instant::now();
    // Nobody can know when the subscriber is there: it is told until it has heard.
    let line = loop {
        assert!(begun.elapsed() < LIMIT, "nothing was heard");
        let published = swarm.run(&["publish", "news", "{\"wind\": 7}", "--json"]).expect(0).json();
        assert!(published["neighbours"].as_u64().unwrap() >= 1, "{published}");
        if let Ok(line) = heard.try_recv() {
            break line;
        }
    };
    let line: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(line["value"], json!({"wind": 7}));
    assert!(line["from"].as_str().unwrap().starts_with("12D3") && line["node"].is_null(), "{line}");
    assert!(subscriber.wait().unwrap().success());
    reader.join().unwrap().unwrap();
}

#[test]
fn a_message_that_nobody_passes_on_is_a_negative_answer_and_a_large_one_is_refused() {
    let swarm = Swarm::new();
    let alone = swarm.run(&["publish", "news", "1"]).expect(1);
    assert!(alone.stderr.contains("no node of swarm"), "{alone:?}");
    let large = swarm.run(&["publish", "news", &format!("\"{}\"", "x".repeat(50_000))]).expect(2);
    assert!(large.stderr.contains("the `value` has 50003 bytes, the limit is 49152"), "{large:?}");
    let word = swarm.run(&["publish", "news", "hello"]).expect(2);
    assert!(word.stderr.contains("is not JSON"), "{word:?}");
}
