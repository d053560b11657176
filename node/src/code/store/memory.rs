//! Code that is kept in memory, where a node has no folder.

use std::{collections::HashMap, io, time::SystemTime};

use bytes::Bytes;

use super::Stored;
use crate::code::cid::Cid;

/// Transfers that were broken off and may go on.
const PARTIALS: usize = 16;

#[derive(Debug)]
pub(super) struct Memory {
    limit: u64,
    total: u64,
    whole: HashMap<Cid, (Bytes, SystemTime)>,
    partial: HashMap<Cid, Vec<u8>>,
}

impl Memory {
    pub(super) fn new(limit: u64) -> Self {
        Self { limit, total: 0, whole: HashMap::new(), partial: HashMap::new() }
    }

    pub(super) fn insert(&mut self, cid: Cid, bytes: Bytes) -> io::Result<()> {
        let size = bytes.len() as u64;
        self.check(size)?;
        while self.total + size > self.limit {
            let oldest = self.whole.iter().min_by_key(|(_, (_, used))| *used).map(|(cid, _)| *cid);
            let Some(oldest) = oldest else { break };
            self.remove(&oldest);
        }
        self.remove(&cid);
        self.total += size;
        self.whole.insert(cid, (bytes, SystemTime::now()));
        Ok(())
    }

    pub(super) fn find(&mut self, cid: &Cid) -> Option<Bytes> {
        let (bytes, used) = self.whole.get_mut(cid)?;
        *used = SystemTime::now();
        Some(bytes.clone())
    }

    pub(super) fn remove(&mut self, cid: &Cid) -> bool {
        let removed = self.whole.remove(cid);
        self.total -= removed.as_ref().map_or(0, |(bytes, _)| bytes.len() as u64);
        removed.is_some()
    }

    pub(super) fn ls(&self) -> Vec<Stored> {
        let stored = self.whole.iter();
        stored.map(|(cid, (bytes, used))| Stored { cid: *cid, size: bytes.len() as u64, used: *used }).collect()
    }

    /// What was received of some code by now.
    pub(super) fn resume(&mut self, cid: &Cid, size: u64) -> io::Result<Vec<u8>> {
        self.check(size)?;
        Ok(self.partial.remove(cid).unwrap_or_default())
    }

    /// A transfer was broken off.
    pub(super) fn suspend(&mut self, cid: Cid, bytes: Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        // Any other one may go: whoever sends it begins anew.
        while self.partial.len() >= PARTIALS || self.partial_total() + bytes.len() as u64 > self.limit {
            let Some(other) = self.partial.keys().next().copied() else { return };
            self.partial.remove(&other);
        }
        self.partial.insert(cid, bytes);
    }

    fn partial_total(&self) -> u64 {
        self.partial.values().map(|bytes| bytes.len() as u64).sum()
    }

    fn check(&self, size: u64) -> io::Result<()> {
        if size <= self.limit {
            return Ok(());
        }
        let reason = format!("{size} bytes are more than the limit of {}", self.limit);
        Err(io::Error::new(io::ErrorKind::QuotaExceeded, reason))
    }
}
