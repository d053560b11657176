//! The guests of `examples/guests/` do what their sources say, as they lie there.
//!
//! `examples/guests/build.sh --check` runs this with guests that it has built just now, in the folder `MULTINODES_GUESTS`.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod code;
#[path = "common/in_process.rs"]
mod in_process;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use code::{Engine, Recorder, limits, within};
use futures::{FutureExt, future::BoxFuture};
use in_process::in_process;
use multinodes::{
    Actions, CallError, Code, GuestError, GuestLimits, Node, Profile, World,
    code::{Allowance, Alone, GuestApplication, Surroundings, run},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_cbor::Value;
use tokio::sync::mpsc;

/// One of them, as it lies there.
fn file(name: &str) -> PathBuf {
    let folder = std::env::var_os("MULTINODES_GUESTS").map(PathBuf::from);
    folder.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/guests")).join(name)
}

fn guest(name: &str) -> Code {
    Code::from_file(file(name)).unwrap()
}

fn cbor(value: &impl Serialize) -> Vec<u8> {
    serde_cbor::to_vec(value).unwrap()
}

/// Runs a task with these arguments where it can ask for the name of what it is bound to: `node`.
async fn run_with<T: DeserializeOwned>(name: &str, arguments: &impl Serialize) -> Result<T, GuestError> {
    let outcome = run_within(name, arguments, GuestLimits::default()).await?;
    Ok(serde_cbor::from_slice(&outcome).unwrap())
}

async fn run_within(name: &str, arguments: &impl Serialize, limits: GuestLimits) -> Result<Vec<u8>, GuestError> {
    let engine = Engine::new();
    let compiled = engine.compile(&guest(name)).await.unwrap();
    let (allowance, surroundings) = (Allowance::new(limits), Arc::new(Recorder::default()));
    let outcome = within(run(&engine.runtime, &compiled, cbor(arguments), &allowance, surroundings)).await?;
    Ok(outcome.result)
}

#[test]
fn each_guest_is_small_and_says_nothing_of_where_it_was_built() {
    let worlds = BTreeMap::from([("collatz.wasm", World::Application), ("hello.wat", World::Task)]);
    let mut count = 0;
    for entry in std::fs::read_dir(file("")).unwrap() {
        let path = entry.unwrap().path();
        if !path.extension().is_some_and(|extension| extension == "wasm" || extension == "wat") {
            continue;
        }
        let code = Code::from_file(&path).unwrap();
        let name = path.file_name().unwrap().to_str().unwrap();
        assert_eq!(code.world(), *worlds.get(name).unwrap_or(&World::Task), "{name}");
        // It rides along with the first request.
        assert!(code.size() < 64 * 1024, "{name} has {} bytes", code.size());
        let text = String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned();
        for telling in ["/home/", "/root/", "/Users/", "/tmp/", "index.crates.io", ".rustup"] {
            assert!(!text.contains(telling), "{name} has a path with `{telling}` in it");
        }
        count += 1;
    }
    assert_eq!(count, 6);
}

#[tokio::test]
async fn sum_adds_up_and_says_what_is_wrong_with_its_arguments() {
    assert_eq!(run_with::<i64>("sum.wasm", &[1, -2, 43]).await.unwrap(), 42);
    assert_eq!(run_with::<i64>("sum.wasm", &[0; 0]).await.unwrap(), 0);
    let error = run_with::<i64>("sum.wasm", &[i64::MAX, 1]).await.unwrap_err();
    assert_eq!(error, GuestError::Failed("the sum is too large".to_owned()));
    let error = run_with::<i64>("sum.wasm", &["one"]).await.unwrap_err();
    assert!(matches!(&error, GuestError::Failed(text) if text.starts_with("whole numbers are expected")), "{error:?}");
}

#[tokio::test]
async fn hello_greets_from_where_it_runs() {
    assert_eq!(run_with::<String>("hello.wat", &[0; 0]).await.unwrap(), "hello from node");
}

#[tokio::test]
async fn image_renders_its_tile() {
    let tile = run_with::<serde_bytes::ByteBuf>("image.wasm", &(640, 320, 129, 7, 100)).await.unwrap();
    assert_eq!(tile.len(), 129 * 7);
    // 0 is within the set. 0.5 goes to 0.75, 1.06, 1.63, 3.15, and is known to leave after the fifth.
    assert_eq!((tile[0], tile[128]), (0, 5));
    let whole = run_with::<serde_bytes::ByteBuf>("image.wasm", &(0, 0, 896, 640, 100)).await.unwrap();
    assert_eq!((whole.len(), whole[0]), (896 * 640, 1));
    for row in 0..7 {
        assert_eq!(whole[(320 + row) * 896 + 640..][..129], tile[row * 129..][..129], "row {row}");
    }
    let pixels = (0..640).flat_map(|y| (0..896).map(move |x| colour(x, y, 100)));
    assert!(pixels.eq(whole.iter().copied()), "a pixel differs");
    let within_the_set = whole.iter().filter(|pixel| **pixel == 0).count() as f64 / f64::from(256 * 256);
    // The area of the set, from the literature: 1.5066. With so few iterations a little more counts as within.
    assert!((1.50..1.60).contains(&within_the_set), "{within_the_set}");
}

/// A pixel, as a plain computation has it.
fn colour(x: u32, y: u32, max_iterations: u8) -> u8 {
    let (re, im) = (f64::from(x) / 256.0 - 2.5, f64::from(y) / 256.0 - 1.25);
    let orbit = std::iter::successors(Some((0.0, 0.0)), |(x, y)| Some((x * x - y * y + re, 2.0 * x * y + im)));
    let leaves = |(x, y): (f64, f64)| x * x + y * y > 4.0;
    orbit.take(max_iterations.into()).position(leaves).map_or(0, |step| step as u8)
}

#[tokio::test]
async fn image_refuses_what_is_no_tile() {
    let expected = "x, y, width, height and max_iterations are expected, whole numbers up to a million";
    let failed = |text: &str| GuestError::Failed(text.to_owned());
    let refused =
        async |arguments: Value| run_within("image.wasm", &arguments, GuestLimits::default()).await.unwrap_err();
    let list = |numbers: &[i128]| Value::Array(numbers.iter().copied().map(Value::Integer).collect());
    assert_eq!(refused(list(&[0, 0, 1, 1])).await, failed(expected));
    assert_eq!(refused(list(&[0, 0, 1, 1, 1, 1])).await, failed(expected));
    assert_eq!(refused(list(&[0, 0, 1, 1, -1])).await, failed(expected));
    assert_eq!(refused(list(&[0, 0, 1, 1, u64::MAX.into()])).await, failed(expected));
    assert_eq!(refused(Value::Text("tile".to_owned())).await, failed(expected));
    assert_eq!(refused(list(&[0, 0, 10_000, 10_000, 1])).await, failed("a tile has at most 2 million pixels"));
}

#[tokio::test]
async fn forever_ends_at_the_time_limit() {
    let wall = Duration::from_millis(200);
    let error = run_within("forever.wasm", &[0; 0], limits(|limits| limits.wall = wall)).await.unwrap_err();
    assert_eq!(error, GuestError::TimeLimit { limit: wall });
}

#[tokio::test]
async fn memory_ends_at_the_memory_limit() {
    let error = run_within("memory.wasm", &[0; 0], GuestLimits::default()).await.unwrap_err();
    assert_eq!(error, GuestError::MemoryLimit { limit: 64 << 20 });
}

/// A number on its way, as `examples/collatz.rs` has it.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Number {
    start: u64,
    value: u64,
    steps: u64,
    visits: BTreeMap<String, u64>,
    origin: String,
}

impl Number {
    fn new(start: u64) -> Self {
        Self { start, value: start, steps: 0, visits: BTreeMap::new(), origin: "12D3".to_owned() }
    }
}

/// What the guest tells goes through its node.
struct Through(Node);

impl Surroundings for Through {
    fn call(&self, _: String, _: String, _: Vec<u8>) -> BoxFuture<'static, Result<Vec<u8>, String>> {
        Alone.this_call(String::new(), Vec::new())
    }

    fn tell(&self, application: String, message: Vec<u8>) -> BoxFuture<'static, Result<(), String>> {
        let node = self.0.clone();
        let message: Value = serde_cbor::from_slice(&message).unwrap();
        async move { node.tell(&application, message).await.map_err(|error| error.to_string()) }.boxed()
    }

    fn describe_node(&self) -> Vec<u8> {
        // More than the guest looks at.
        cbor(&(self.0.description()))
    }

    fn log(&self, _: String) {}

    fn this_name(&self) -> String {
        "collatz".to_owned()
    }

    fn this_call(&self, _: String, _: Vec<u8>) -> BoxFuture<'static, Result<Vec<u8>, String>> {
        Alone.this_call(String::new(), Vec::new())
    }

    fn this_tell(&self, _: Vec<u8>) -> BoxFuture<'static, Result<(), String>> {
        Alone.this_tell(Vec::new())
    }
}

/// A node that hosts `collatz`.
async fn with_collatz(engine: &Engine) -> Node {
    let compiled = engine.compile(&guest("collatz.wasm")).await.unwrap();
    let node = in_process("alpha").0.start().await.unwrap();
    let surround = {
        let node = node.clone();
        move |_: Option<&_>| Arc::new(Through(node.clone())) as Arc<dyn Surroundings>
    };
    let (allowance, profile) = (Allowance::default(), Profile::default());
    let started =
        GuestApplication::start(engine.runtime.clone(), compiled, cbor(&Value::Null), allowance, profile, surround);
    node.register("collatz", within(started).await.unwrap()).unwrap();
    node
}

#[tokio::test]
async fn collatz_says_how_many_steps_a_number_takes_and_how_high_it_goes() {
    #[derive(Debug, PartialEq, Deserialize)]
    struct Way {
        steps: u64,
        highest: u64,
    }
    let engine = Engine::new();
    let node = with_collatz(&engine).await;
    let steps = async |start: u64| within(node.call::<Way>("collatz", "steps", start)).await;
    assert_eq!(steps(27).await.unwrap(), Way { steps: 111, highest: 9232 });
    assert_eq!(steps(1).await.unwrap(), Way { steps: 0, highest: 1 });
    assert_eq!(steps(1 << 40).await.unwrap(), Way { steps: 40, highest: 1 << 40 });
    let failed = |error: CallError| match error {
        CallError::Failed { message, .. } => message,
        error => panic!("{error:?}"),
    };
    assert_eq!(
        failed(steps(u64::MAX).await.unwrap_err()),
        format!("{} climbs higher than 64 bits can count", u64::MAX)
    );
    assert_eq!(failed(steps(0).await.unwrap_err()), "0 never comes to 1");
    let error = within(node.call::<Way>("collatz", "steps", (1, 2))).await.unwrap_err();
    assert_eq!(failed(error), "one whole number is expected");
    let error = within(node.call::<Way>("collatz", "stop", ())).await.unwrap_err();
    assert_eq!(failed(error), "no such action as `stop`: there is `steps`");
}

#[tokio::test]
async fn a_number_that_collatz_is_told_hops_until_it_is_1_and_goes_to_results() {
    let engine = Engine::new();
    let node = with_collatz(&engine).await;
    let (sender, mut back) = mpsc::channel(8);
    let results = Actions::new().on_tell(move |number: Number| {
        let sender = sender.clone();
        async move { sender.send(number).await.unwrap() }
    });
    node.register("results", results).unwrap();
    within(node.tell("collatz", Number::new(27))).await.unwrap();
    let arrived = within(back.recv()).await.unwrap();
    let visits = BTreeMap::from([("alpha".to_owned(), 112)]);
    assert_eq!(arrived, Number { value: 1, steps: 111, visits, ..Number::new(27) });
    // What makes no sense stops nothing.
    within(node.tell("collatz", "no number")).await.unwrap();
    within(node.tell("collatz", Number::new(0))).await.unwrap();
    within(node.tell("collatz", Number::new(u64::MAX))).await.unwrap();
    within(node.tell("collatz", Number::new(2))).await.unwrap();
    assert_eq!(within(back.recv()).await.unwrap().start, 2);
}
