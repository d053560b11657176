//! What messages take in memory, counted by the allocator: nobody can make a node take much more than what was sent.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(unsafe_code, reason = "an allocator that counts has to be one")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use multinodes::{Actions, CallError, Node, Payload};
use serde_json::Value;

struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: everything is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.fetch_add(layout.size(), Relaxed) + layout.size();
        PEAK.fetch_max(now, Relaxed);
        // SAFETY: the caller keeps the contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller keeps the contract.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// One test at a time: they would count what the others take.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// What was taken at the most while something was done, beside what was there before.
fn peak<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = NOW.load(Relaxed);
    PEAK.store(before, Relaxed);
    let done = work();
    (done, PEAK.load(Relaxed) - before)
}

const MIB: usize = 1 << 20;

/// A list of as many times the same as fit.
fn list(element: &[u8], size: usize) -> Vec<u8> {
    let count = size / element.len();
    let mut bytes = vec![0x9a];
    bytes.extend(u32::try_from(count).unwrap().to_be_bytes());
    bytes.extend(element.repeat(count));
    bytes
}

/// A map of as many short keys as fit.
fn map(size: usize) -> Vec<u8> {
    let count = size / 5;
    let mut bytes = vec![0xba];
    bytes.extend(u32::try_from(count).unwrap().to_be_bytes());
    for number in 0..count {
        let letter = |shift: usize| u8::try_from(number >> shift & 0x7f).unwrap();
        bytes.extend([0x63, letter(0), letter(7), letter(14), 0xf6]);
    }
    bytes
}

#[test]
fn a_value_of_the_largest_message_is_refused_within_its_budget() {
    let _alone = alone();
    for element in [&b"\xa1\x60\xf6"[..], b"\x81\xf6", b"\xf6", b"\x61a"] {
        let payload = Payload::from_bytes(list(element, 16 * MIB));
        let (read, taken) = peak(|| payload.decode::<Value>().map(drop));
        let error = read.unwrap_err().to_string();
        assert!(error.contains("its budget of"), "{error}");
        assert!(taken <= 200 * MIB, "{element:02x?}: {} MiB", taken / MIB);
        let (read, taken) = peak(|| payload.to_json().map(drop));
        assert!(read.unwrap_err().to_string().contains("its budget of"));
        assert!(taken <= MIB, "{element:02x?}: {taken}: nothing was decoded");
    }
}

#[test]
fn what_is_within_the_budget_takes_no_more_than_it_says() {
    let _alone = alone();
    let payload = Payload::from_bytes(list(b"\xa1\x60\xf6", 400_000));
    let (value, taken) = peak(|| payload.decode::<Value>().unwrap());
    assert!(taken <= 192 * MIB, "{} MiB", taken / MIB);
    drop(value);
    let (value, taken) = peak(|| payload.to_json().unwrap());
    assert!(taken <= 128 * MIB, "{} MiB", taken / MIB);
    drop(value);
}

#[test]
fn cbor_becomes_json_in_eight_times_its_size() {
    let _alone = alone();
    for bytes in [
        list(b"\xf9\x80\x01", MIB),
        list(b"\xf4", MIB),
        list(b"\x61\x01", MIB),
        list(b"\xa1\x60\xf6", MIB),
        list(b"\x80", MIB),
        list(b"\x41\xff", MIB),
        [&[0x7a][..], &u32::try_from(MIB).unwrap().to_be_bytes(), &vec![1; MIB]].concat(),
        [&[0x5a][..], &u32::try_from(MIB).unwrap().to_be_bytes(), &vec![255; MIB]].concat(),
        map(MIB),
    ] {
        let payload = Payload::from_bytes(bytes);
        let (text, taken) = peak(|| payload.json().unwrap().to_text());
        let size = payload.as_bytes().len();
        assert!(taken <= 8 * size, "{:02x?}: {taken} for {size}", &payload.as_bytes()[..12]);
        drop(text);
    }
}

#[test]
fn json_becomes_cbor_in_eight_times_its_size() {
    let _alone = alone();
    let list = |element: &str| format!("[{}0]", element.repeat(MIB / element.len()));
    let keys: Vec<_> = (0..MIB / 8).map(|number| format!("\"{number:x}\":1")).collect();
    for text in [
        list("0.1,"),
        list("[],"),
        list("{},"),
        list("{\"\":0},"),
        list("\"\","),
        list("\"\\n\","),
        format!("\"{}\"", "\\u0001".repeat(MIB / 6)),
        format!("{{{}}}", keys.join(",")),
    ] {
        let (payload, taken) = peak(|| Payload::from_json(text.as_bytes()).unwrap());
        assert!(taken <= 8 * text.len(), "{}: {taken} for {}", &text[..12], text.len());
        drop(payload);
    }
}

#[test]
fn many_calls_together_take_no_more_than_a_few_of_the_largest() {
    let _alone = alone();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let node = Node::builder().mdns(false).rendezvous(false).listen("/ip4/127.0.0.1/tcp/0").start().await.unwrap();
        let holder = Actions::new().action("hold", |value: Value| async move {
            std::future::pending::<()>().await;
            drop(value);
        });
        node.register("holder", holder).unwrap();
        let one = Payload::from_bytes([&[0x81][..], &list(b"\xa1\x60\xf6", 256 * 1024)].concat());
        let target = node.app("holder").timeout(std::time::Duration::from_secs(60));
        let before = NOW.load(Relaxed);
        let mut calls = tokio::task::JoinSet::new();
        for _ in 0..24 {
            let (target, one) = (target.clone(), one.clone());
            calls.spawn(async move { target.call_raw("hold", one).await });
        }
        // Nine of them take all that there is.
        let mut refused = Vec::new();
        while refused.len() < 15 {
            refused.push(calls.join_next().await.unwrap().unwrap().unwrap_err());
        }
        let taken = NOW.load(Relaxed) - before;
        assert!(taken <= 768 * MIB, "{} MiB", taken / MIB);
        let refused = refused.remove(0);
        assert!(matches!(&refused, CallError::Busy { reason, .. } if reason.contains("512 MiB")), "{refused:?}");
        drop(calls);
    });
}

#[test]
fn a_node_that_is_sent_values_by_the_hundredfold_takes_little_and_says_why() {
    let _alone = alone();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (node, other) = runtime.block_on(async {
        let start = || Node::builder().mdns(false).rendezvous(false).listen("/ip4/127.0.0.1/tcp/0").start();
        let node = start().await.unwrap();
        node.register("taker", Actions::new().action("take", |value: Value| async move { drop(value) })).unwrap();
        let address = node.addresses()[0].to_string();
        let other = Node::builder().mdns(false).rendezvous(false).join(&address).passive(true).start().await.unwrap();
        other.wait_for("taker").await.unwrap();
        (node, other)
    });
    let one = [&[0x81][..], &list(b"\xa1\x60\xf6", 8 * MIB)].concat();
    let arguments = Payload::from_bytes(one.clone());
    let call = |application: &str, action: &str, arguments: &Payload| {
        let target = other.app(application).on(node.name());
        runtime.block_on(async { target.call_raw(action, arguments.clone()).await })
    };
    let (echoed, taken) = peak(|| call("node", "echo", &arguments));
    assert_eq!(echoed.unwrap().as_bytes(), &one[1..]);
    assert!(taken <= 10 * one.len(), "{} MiB for an echo", taken / MIB);
    let (refused, taken) = peak(|| call("taker", "take", &arguments).unwrap_err());
    assert!(
        matches!(&refused, CallError::BadArguments { reason, .. } if reason.contains("its budget of")),
        "{refused:?}"
    );
    assert!(taken <= 230 * MIB, "{} MiB", taken / MIB);
    let order = Payload::from_bytes([&b"\x83\x61f\x61n"[..], &list(b"\xa1\x60\xf6", 8 * MIB)].concat());
    let (refused, taken) = peak(|| call("node", "install", &order).unwrap_err());
    assert!(matches!(refused, CallError::BadArguments { .. }), "{refused:?}");
    assert!(taken <= 10 * one.len(), "{} MiB for an installation that is refused", taken / MIB);
}
