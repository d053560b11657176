//! What a record takes in memory. A single byte on the wire may become hundreds: a map with one pair has room for eleven.

use std::{collections::BTreeMap, mem::size_of, sync::Arc, time::Instant};

use libp2p::{Multiaddr, PeerId};
use serde_json::Value;

use super::{entry::Entry, lives::MAX_LIVES};
use crate::description::{ApplicationInfo, Host, NodeInfo};

/// While a new snapshot is made, readers still have the old one: what is not shared is there twice.
const SNAPSHOTS: usize = 2;

/// A table of hashes or an ordered set has room for up to so many times what is in it.
const SPARE: usize = 3;

/// So small a part is what the allocator cannot use again between the others.
const FRAGMENTS: usize = 16;

/// Each `Arc` has two counters.
const COUNTERS: usize = 2 * size_of::<usize>();

/// Pairs in a node of an ordered map, and what the node has beside them.
const PAIRS: usize = 11;
const NODE: usize = 16;

/// What a record takes in memory, in bytes, with all that is made of it.
pub(super) fn weight(info: &NodeInfo, envelope: usize) -> usize {
    let held = entry()
        + heap(MAX_LIVES * size_of::<u64>())
        + heap(envelope)
        + info.applications.iter().map(|application| shared(application)).sum::<usize>();
    let taken = held + SNAPSHOTS * (own(info) + indices(info));
    taken + taken / FRAGMENTS
}

/// Its places in the tables of the directory.
fn entry() -> usize {
    SPARE * (size_of::<(PeerId, Entry)>() + size_of::<(Instant, PeerId)>() + size_of::<(Arc<str>, Option<PeerId>)>())
}

/// What each version of the description has of its own.
fn own(info: &NodeInfo) -> usize {
    let addresses = info.addresses.iter().map(|address| heap(COUNTERS + size_of::<Vec<u8>>()) + heap(address.len()));
    let texts = info.labels.iter().map(|(key, value)| text(key) + text(value)).sum::<usize>();
    heap(COUNTERS + size_of::<NodeInfo>())
        + text(&info.name)
        + text(&info.software)
        + heap(info.addresses.capacity() * size_of::<Multiaddr>())
        + addresses.sum::<usize>()
        + heap(info.applications.capacity() * size_of::<Arc<ApplicationInfo>>())
        + map::<String, String>(&info.labels)
        + texts
}

/// Its places in a snapshot: by name, by peer id, and for each application.
fn indices(info: &NodeInfo) -> usize {
    let name = heap(info.name.len());
    let node = SPARE * (size_of::<(PeerId, Arc<NodeInfo>)>() + size_of::<(String, Vec<Arc<NodeInfo>>)>());
    let host = heap(COUNTERS + size_of::<Host>()) + SPARE * size_of::<Arc<Host>>() + name;
    let listed = |application: &Arc<ApplicationInfo>| {
        let list = SPARE * size_of::<(String, Arc<[Arc<Host>]>)>() + heap(COUNTERS) + text(&application.name);
        host + list
    };
    node + name + heap(size_of::<usize>()) + info.applications.iter().map(listed).sum::<usize>()
}

/// What is shared by all versions of the description, and by all readers.
fn shared(application: &ApplicationInfo) -> usize {
    let ApplicationInfo { name, version, description, actions, slots: _, idempotent, trouble } = application;
    heap(COUNTERS + size_of::<ApplicationInfo>())
        + text(name)
        + version.as_ref().map_or(0, text)
        + trouble.as_ref().map_or(0, text)
        + [actions, idempotent].into_iter().map(texts).sum::<usize>()
        + inner(description)
}

fn texts(texts: &Vec<String>) -> usize {
    heap(texts.capacity() * size_of::<String>()) + texts.iter().map(text).sum::<usize>()
}

/// What a value takes beside its place in its list or map. The decoder leaves descriptions at most 32 deep.
fn inner(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
        Value::String(value) => text(value),
        Value::Array(values) => heap(values.capacity() * size_of::<Value>()) + values.iter().map(inner).sum::<usize>(),
        Value::Object(values) => {
            let pairs = values.iter().map(|(key, value)| text(key) + inner(value));
            nodes(values.len(), size_of::<(String, Value)>()) + pairs.sum::<usize>()
        }
    }
}

fn map<K, V>(map: &BTreeMap<K, V>) -> usize {
    nodes(map.len(), size_of::<(K, V)>())
}

/// The nodes of an ordered map, each of which is nearly half full or more, and the way to them.
fn nodes(pairs: usize, pair: usize) -> usize {
    let leaves = pairs.div_ceil(PAIRS / 2);
    let way = if leaves > 1 { leaves.div_ceil(PAIRS / 2) * (PAIRS + 1) * size_of::<usize>() } else { 0 };
    leaves * heap(PAIRS * pair + NODE) + way
}

fn text(text: &String) -> usize {
    heap(text.capacity())
}

/// So much an allocation of `size` bytes takes: its own size before it, in steps of 16 bytes, and 32 at least.
fn heap(size: usize) -> usize {
    const STEP: usize = 16;
    const LEAST: usize = 32;
    if size == 0 { 0 } else { (size + size_of::<usize>()).next_multiple_of(STEP).max(LEAST) }
}
