//! The examples run to their end, alone and as several processes, and what they say is right.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::{
    collections::HashSet,
    fs::File,
    io::BufReader,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Command,
};

use common::{LIMIT, Process, run};
use multinodes::Node;
use serde_json::json;
use tokio::{runtime::Runtime, time::timeout};

/// Cargo builds the examples for the tests, beside them.
fn example(name: &str) -> Command {
    let tests = std::env::current_exe().unwrap();
    let file: PathBuf =
        [tests.parent().unwrap().parent().unwrap().to_str().unwrap(), "examples", name].iter().collect();
    assert!(file.exists(), "{} is not there: `cargo build --examples` makes it", file.display());
    Command::new(file)
}

/// An address on loopback that was free a moment ago.
fn address() -> String {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    format!("/ip4/127.0.0.1/tcp/{port}")
}

#[test]
fn a_chat_shows_nothing_that_a_terminal_would_obey() {
    let folder = tempfile::tempdir().unwrap();
    let name = format!("ann-{}", std::process::id());
    let mut chat = example("chat");
    chat.arg(&name).env("XDG_RUNTIME_DIR", folder.path());
    let mut chat = Process::spawn("chat", chat);
    let says = |part: String| move |line: &common::Line| line.value.as_str().is_some_and(|text| text.contains(&part));
    chat.wait_for("its name", says(format!("You are `{name}`")));
    let runtime = Runtime::new().unwrap();
    let builder = Node::builder().swarm("chat-example").name("mallory").listen("/ip4/127.0.0.1/tcp/0");
    let builder = builder.mdns(false).runtime_folder(folder.path());
    let told = async {
        let node = builder.start().await.unwrap();
        let mut events = node.events();
        while !node.hosts("chat").iter().any(|host| host.node == name) {
            events.next().await.unwrap();
        }
        let line = json!({ "text": "hi\u{1b}[2J\u{9b}2J\u{202e}" });
        node.app("chat").on(&name).tell(line).await.unwrap();
        node
    };
    let node = runtime.block_on(async { timeout(LIMIT, told).await }).unwrap();
    let shown = chat.wait_for("the line", says("> hi".to_owned())).value;
    assert!(shown.as_str().unwrap().ends_with(r"> hi\u{1b}[2J\u{9b}2J\u{202e}"), "{shown:?}");
    runtime.block_on(node.stop());
}

#[cfg(feature = "wasm")]
#[test]
fn collatz_numbers_visit_every_node_and_come_to_1() {
    let mut collatz = example("collatz");
    collatz.arg("60");
    let outcome = run(collatz, "").expect(0);
    assert!(outcome.stdout.starts_with("the code has "), "{outcome:?}");
    for name in ["alpha", "beta", "gamma", "delta"] {
        assert!(outcome.stdout.contains(&format!("  {name} was brought `collatz`\n")), "{outcome:?}");
        assert!(outcome.stdout.contains(&format!(" visits to {name}\n")), "{outcome:?}");
    }
    assert!(outcome.stdout.contains("60 came to 1 in "), "{outcome:?}");
    assert!(outcome.stdout.contains("  54 took the longest way: 112 steps"), "{outcome:?}");
}

#[cfg(feature = "wasm")]
#[test]
fn collatz_runs_as_several_processes() {
    let address = address();
    let mut joins = example("collatz");
    joins.args(["join", &address]);
    let mut joining = Process::spawn("join", joins);
    let mut first = example("collatz");
    first.args(["first", &address, "60"]);
    let outcome = run(first, "").expect(0);
    assert!(outcome.stdout.contains("60 came to 1 in "), "{outcome:?}");
    assert_eq!(outcome.stdout.matches(" was brought `collatz`\n").count(), 2, "{outcome:?}");
    assert_eq!(outcome.stdout.matches(" visits to ").count(), 2, "{outcome:?}");
    assert_eq!(joining.end(), 0, "it ends when the first is gone");
}

#[test]
fn a_picture_that_the_swarm_renders_is_as_one_thread_renders_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("picture.png");
    let mut render = example("map_render");
    // Neither side is a multiple of a tile's.
    render.arg(&file).args(["--size", "101x75", "--check"]);
    let outcome = run(render, "").expect(0);
    assert!(outcome.stdout.contains("12 tiles of a picture of 101 x 75\n"), "{outcome:?}");
    assert!(outcome.stdout.contains("the same, pixel by pixel"), "{outcome:?}");
    assert!(distinct_colours(&file, (101, 75)) > 500);
}

#[test]
fn a_picture_is_rendered_by_worker_processes() {
    let (folder, address) = (tempfile::tempdir().unwrap(), address());
    let file = folder.path().join("picture.png");
    let mut worker = example("map_render");
    worker.args(["worker", "--join", &address]);
    let _worker = Process::spawn("worker", worker);
    let mut render = example("map_render");
    render.arg("render").arg(&file).args(["--listen", &address, "--size", "64x64", "--check"]);
    let outcome = run(render, "").expect(0);
    assert!(outcome.stdout.contains("  4 tiles by worker-"), "{outcome:?}");
    assert!(outcome.stdout.contains("the same, pixel by pixel"), "{outcome:?}");
    assert!(distinct_colours(&file, (64, 64)) > 500);
}

#[test]
fn a_picture_of_an_impossible_size_is_refused() {
    for size in ["0x10", "10", "x", "-1x5", "16385x1"] {
        let mut render = example("map_render");
        render.args(["unwritten.png", "--size", size]);
        let outcome = run(render, "").expect(1);
        assert!(outcome.stderr.contains("a size is such as 1280x960"), "{outcome:?}");
    }
}

/// Reads a picture by itself: a black one would be the same everywhere, too.
fn distinct_colours(file: &Path, size: (u32, u32)) -> usize {
    let mut reader = png::Decoder::new(BufReader::new(File::open(file).unwrap())).read_info().unwrap();
    assert_eq!(reader.info().size(), size);
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    reader.next_frame(&mut pixels).unwrap();
    pixels.chunks(3).collect::<HashSet<_>>().len()
}
