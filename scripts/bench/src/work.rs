//! What workers do with items, and the node that gives them some.

use std::time::{Duration, Instant};

use futures::TryStreamExt;
use multinodes::{Actions, Map, Node};
use serde::de::DeserializeOwned;

use crate::{Error, contestant::Blob, ours, process};

/// The application that gives back what it gets.
pub(crate) const NOTHING: &str = "nothing";

/// The application that takes [`PAUSE`] for each item, and says how long it really was.
pub(crate) const SLEEPING: &str = "sleeping";

/// The one action of both.
pub(crate) const RUN: &str = "run";

pub(crate) const SLOTS: u32 = 4;

pub(crate) const PAUSE: Duration = Duration::from_millis(10);

/// How long a submitter may take to hear of all workers.
const PATIENCE: Duration = Duration::from_secs(15);

/// Is a worker until the process ends.
pub(crate) async fn serve(swarm: String) -> Result<(), Error> {
    let node = Node::builder().swarm(swarm).start().await?;
    node.register(NOTHING, Actions::new().slots(SLOTS).action(RUN, |number: u64| async move { number }))?;
    node.register(SLEEPING, Actions::new().slots(SLOTS).action(RUN, |_: Blob| pause()))?;
    process::say_ready(&ours::loopback(&node)?);
    std::future::pending().await
}

/// Seconds that it took. A thread sleeps, for tokio's own timer counts in whole milliseconds, so 10 would be 11.
async fn pause() -> f64 {
    let begin = Instant::now();
    // The runtime is never shut down while it waits.
    let _ = tokio::task::spawn_blocking(|| std::thread::sleep(PAUSE)).await;
    begin.elapsed().as_secs_f64()
}

/// A node that knows all workers at `addresses`, and has nothing to do with any other.
pub(crate) async fn submitter(swarm: &str, addresses: &[String]) -> Result<Node, Error> {
    let builder = Node::builder().swarm(swarm).mdns(false).rendezvous(false);
    let node = addresses.iter().fold(builder, |builder, address| builder.join(address)).start().await?;
    let give_up = Instant::now() + PATIENCE;
    while node.hosts(SLEEPING).len() < addresses.len() {
        if Instant::now() > give_up {
            return Err("the workers never got to know the submitter".into());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(node)
}

/// Goes through the outcomes, and hands each result on; an item that failed is an error.
pub(crate) async fn read<R: DeserializeOwned>(mut map: Map<R>, mut take: impl FnMut(R)) -> Result<(), Error> {
    while let Some(outcome) = map.try_next().await? {
        take(outcome.result?);
    }
    Ok(())
}
