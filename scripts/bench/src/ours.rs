//! MultiNodes by its public API: an application that decodes and answers, and a node that calls it.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use multinodes::{Actions, Host, Node, Ticket};
use tokio::task::JoinSet;

use crate::{
    Error,
    contestant::{Blob, Client},
    load, process,
};

pub(crate) const APPLICATION: &str = "bench";

/// Tasks that cast: one for each worker of the runtime.
const CASTERS: usize = 2;

/// Hosts the application until the process ends.
pub(crate) async fn serve(swarm: &str) -> Result<(), Error> {
    let node = Node::builder().swarm(swarm).start().await?;
    host(&node)?;
    process::say_ready(&loopback(&node)?);
    std::future::pending().await
}

/// Hosts the application.
pub(crate) fn host(node: &Node) -> Result<(), Error> {
    let arrived = Arc::new(AtomicU64::new(0));
    let (counter, begin) = (arrived.clone(), Instant::now());
    let application = Actions::new()
        .action("echo", |payload: Blob| async move { payload.answer() })
        .action("arrived", move |(): ()| {
            let so_far = (arrived.load(Relaxed), begin.elapsed().as_secs_f64());
            async move { so_far }
        })
        .on_tell(move |_: Blob| {
            counter.fetch_add(1, Relaxed);
            async {}
        });
    node.register(APPLICATION, application)?;
    Ok(())
}

/// Where it can be reached without leaving the machine.
pub(crate) fn loopback(node: &Node) -> Result<String, Error> {
    let addresses = node.addresses();
    let loopback = addresses.iter().map(ToString::to_string).find(|address| address.starts_with("/ip4/127."));
    Ok(loopback.ok_or("the node does not listen on the loopback address")?)
}

/// Starts with nothing configured, calls once, and goes.
pub(crate) async fn first_call(swarm: &str) -> Result<(), Error> {
    let node = Node::builder().swarm(swarm).start().await?;
    let _: Blob = node.call(APPLICATION, "echo", Blob(Bytes::from_static(&[7; 64]))).await?;
    println!("answered");
    node.stop().await;
    Ok(())
}

/// Casts per second.
pub(crate) struct Casts {
    pub(crate) arrived: f64,
    pub(crate) sent: f64,
}

/// The calling side.
#[derive(Clone)]
pub(crate) struct MultiNodes(Node);

impl MultiNodes {
    /// Joins through the one address, so that nothing but the loopback interface is used.
    pub(crate) async fn connect(address: &str, swarm: &str) -> Result<Self, Error> {
        let node = Node::builder().swarm(swarm).mdns(false).rendezvous(false).join(address).start().await?;
        node.wait_for(APPLICATION).await?;
        Ok(Self(node))
    }

    /// Joins with a ticket.
    pub(crate) async fn joining(ticket: Ticket) -> Result<Self, Error> {
        let node = Node::builder().ticket(ticket).mdns(false).rendezvous(false).start().await?;
        node.wait_for(APPLICATION).await?;
        Ok(Self(node))
    }

    /// The node that calls.
    #[cfg(feature = "wasm")]
    pub(crate) fn node(&self) -> &Node {
        &self.0
    }

    /// Casts per second: as the receiver counts them by its own clock, so that what is dropped on the way does not
    /// count, and as they were sent.
    pub(crate) async fn casts(&self, payload: Bytes, length: Duration) -> Result<Casts, Error> {
        let sent = Arc::new(AtomicU64::new(0));
        let mut casters = JoinSet::new();
        for _ in 0..CASTERS {
            let (node, payload, sent) = (self.0.clone(), payload.clone(), sent.clone());
            casters.spawn(async move {
                loop {
                    node.cast(APPLICATION, Blob(payload.clone())).await?;
                    sent.fetch_add(1, Relaxed);
                }
                #[allow(unreachable_code, reason = "gives the loop above its error type")]
                Ok::<(), Error>(())
            });
        }
        let measured = async {
            tokio::time::sleep(load::warm_up(length)).await;
            let (sent_before, begin, (arrived_before, before)) =
                (sent.load(Relaxed), Instant::now(), self.arrived().await?);
            tokio::time::sleep(length).await;
            let sent = (sent.load(Relaxed) - sent_before) as f64 / begin.elapsed().as_secs_f64();
            let (arrived, after) = self.arrived().await?;
            Ok(Casts { arrived: (arrived - arrived_before) as f64 / (after - before), sent })
        };
        tokio::select! {
            rate = measured => rate,
            Some(ended) = casters.join_next() => Err(ended?.err().unwrap_or_else(|| "a caster has ended".into())),
        }
    }

    /// What the one node that hosts the application has dropped or refused.
    pub(crate) async fn counters(&self) -> Result<BTreeMap<String, u64>, Error> {
        let host = self.host()?.peer_id.to_string();
        Ok(self.0.app("node").on(host).call("counters", ()).await?)
    }

    /// Its address with its peer id.
    pub(crate) fn address_of(&self, address: &str) -> Result<String, Error> {
        let bare = address.split("/p2p/").next().unwrap_or(address);
        Ok(format!("{bare}/p2p/{}", self.host()?.peer_id))
    }

    pub(crate) fn host(&self) -> Result<Arc<Host>, Error> {
        Ok(self.0.hosts(APPLICATION).into_iter().next().ok_or("nobody hosts the application")?)
    }

    async fn arrived(&self) -> Result<(u64, f64), Error> {
        Ok(self.0.call(APPLICATION, "arrived", ()).await?)
    }
}

impl Client for MultiNodes {
    async fn call(&self, payload: Bytes) -> Result<usize, Error> {
        let answer: Blob = self.0.call(APPLICATION, "echo", Blob(payload)).await?;
        Ok(answer.0.len())
    }
}
