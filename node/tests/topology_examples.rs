//! The examples that are made of flows run to their end, alone and as several processes, and find what there is.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::{
    fmt::Write,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Command,
};

use common::{Process, run};

/// Cargo builds the examples for the tests, beside them.
fn example(name: &str) -> Command {
    let tests = std::env::current_exe().unwrap();
    let file: PathBuf = tests.parent().and_then(Path::parent).unwrap().join("examples").join(name);
    assert!(file.exists(), "{} is not there: `cargo build --examples` makes it", file.display());
    Command::new(file)
}

/// An address on loopback that was free a moment ago.
fn address() -> String {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    format!("/ip4/127.0.0.1/tcp/{port}")
}

fn worker(name: &str, address: &str) -> Process {
    let mut worker = example(name);
    worker.args(["worker", address]);
    Process::spawn("worker", worker)
}

#[track_caller]
fn until_it_says(process: &mut Process, text: &str) {
    process.wait_for(text, |line| line.value == text);
}

#[test]
fn words_are_counted_as_a_plain_count_does() {
    let mut count = example("word_count");
    count.arg("2");
    let outcome = run(count, "").expect(0);
    assert!(outcome.stdout.contains("  the\n"), "{outcome:?}");
    assert!(outcome.stdout.contains("a plain count says the same: "), "{outcome:?}");
    for name in ["alpha", "beta", "gamma"] {
        assert!(outcome.stdout.contains(&format!(" of the words belong to {name}\n")), "{outcome:?}");
    }
}

#[test]
fn words_are_counted_right_although_a_worker_is_killed_and_another_one_comes() {
    let (folder, address) = (tempfile::tempdir().unwrap(), address());
    let mut text = String::new();
    for line in 0..15_000 {
        writeln!(text, "once upon a time there were {} bears and {} wolves", line % 97, line % 31).unwrap();
    }
    let file = folder.path().join("text");
    std::fs::write(&file, text).unwrap();
    let mut count = example("word_count");
    count.arg("count").arg(&file).arg(&address);
    let mut counter = Process::spawn("counter", count);
    let (mut one, _other) = (worker("word_count", &address), worker("word_count", &address));
    until_it_says(&mut counter, "  500 times 10 lines are done");
    one.signal("KILL");
    assert_eq!(one.end(), 137);
    let _newcomer = worker("word_count", &address);
    until_it_says(&mut counter, "a plain count says the same: 165000 words in all");
    assert_eq!(counter.end(), 0);
    let counted =
        counter.heard.iter().filter_map(|line| line.value.as_str()).find(|line| line.starts_with("counted in"));
    assert!(!counted.unwrap().contains("\"replayed\":0,"), "it had nothing in its hands: {counted:?}");
}

#[test]
fn the_crawler_finds_what_the_site_holds() {
    let mut crawler = example("web_crawler");
    crawler.arg("60");
    let outcome = run(crawler, "").expect(0);
    assert!(outcome.stdout.contains("60 pages, 6 that have moved, 7 dead links\n"), "{outcome:?}");
    assert!(outcome.stdout.contains("the site holds the same\n"), "{outcome:?}");
}

#[test]
fn the_crawler_runs_as_several_processes() {
    let address = address();
    let _workers = [worker("web_crawler", &address), worker("web_crawler", &address)];
    let mut crawler = example("web_crawler");
    crawler.args(["crawl", "own", &address]);
    let outcome = run(crawler, "").expect(0);
    assert!(outcome.stdout.contains("200 pages, 20 that have moved, 25 dead links\n"), "{outcome:?}");
    assert!(outcome.stdout.contains("the site holds the same\n"), "{outcome:?}");
}
