//! Nodes that exist only in the test's own process.
#![allow(unreachable_pub, reason = "each test program includes it as a module of its own")]
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::{
    future::Future,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use multinodes::{Builder, Node};
use tokio::time::timeout;

/// No test takes anywhere near so long.
pub const LIMIT: Duration = Duration::from_secs(30);

pub async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(LIMIT, future).await.expect("in time")
}

/// A node that exists only in this process, at a memory address of its own.
pub fn in_process(name: &str) -> (Builder, String) {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = u64::from(std::process::id()) * 1000 + NEXT.fetch_add(1, Relaxed) + 1;
    let address = format!("/memory/{number}");
    (Node::builder().name(name).listen(&address), address)
}

/// Two nodes linked inside this process: each knows the other.
pub async fn pair(one: &str, other: &str) -> (Node, Node) {
    let (first, address) = in_process(one);
    let first = first.start().await.unwrap();
    let second = in_process(other).0.join(&address).start().await.unwrap();
    within(first.wait_for_node(other)).await.unwrap();
    within(second.wait_for_node(one)).await.unwrap();
    (first, second)
}

/// Waits until `node` knows so many hosts of an application.
pub async fn hosts(node: &Node, application: &str, count: usize) {
    let mut events = node.events();
    within(async {
        while node.hosts(application).len() != count {
            events.next().await.unwrap();
        }
    })
    .await;
}
