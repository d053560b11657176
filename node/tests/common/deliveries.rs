//! Tuples for a stage, as they travel: for those who send them by themselves.
#![allow(unreachable_pub, reason = "each test program includes it as a module of its own")]
#![allow(dead_code, reason = "each test program uses a part of it")]

use multinodes::{CallError, Node};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::in_process::within;

/// What a stage gets.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Delivery {
    pub run: u64,
    pub token: (u64, u64),
    pub stage: u16,
    pub patience: u32,
    pub plan: ByteBuf,
    pub tuples: Vec<(u64, (u64, u32), u32, ByteBuf)>,
}

impl Delivery {
    /// Brings it to a stage on a node, and gives how many of its tuples were taken.
    pub async fn send(&self, from: &Node, application: &str, to: &Node) -> Result<usize, CallError> {
        let target = from.app(application).on(to.peer_id().to_base58());
        within(target.call("topology.tuples", self)).await
    }
}
