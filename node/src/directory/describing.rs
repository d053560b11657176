//! What a record says of its node, for users.

use std::sync::Arc;

use bytes::Bytes;
use libp2p::Multiaddr;
use multinodes_behaviour::{SignedRecord, wire::Version};

use super::weight::weight;
use crate::{
    addresses,
    description::{ApplicationInfo, NodeInfo},
};

/// A record as it is held: the bytes to pass on, and what they say, once.
pub(super) struct Described {
    pub(super) envelope: Bytes,
    pub(super) version: Version,
    pub(super) info: NodeInfo,
    /// All that it takes, in bytes.
    pub(super) weight: usize,
}

pub(super) fn describe(signed: SignedRecord, local: bool, same_host: bool) -> Described {
    let version = signed.version();
    let usable = signed.addresses().into_iter().flat_map(|address| match local {
        true => vec![address],
        false => addresses::places(&address, same_host),
    });
    let mut addresses: Vec<Multiaddr> = addresses::in_order(usable);
    addresses.shrink_to_fit();
    let (peer_id, record, envelope) = signed.into_parts();
    let mut applications: Vec<Arc<ApplicationInfo>> =
        record.applications.into_iter().map(|application| Arc::new(application.into())).collect();
    applications.sort_by(|one, other| one.name.cmp(&other.name));
    let info = NodeInfo {
        name: record.name,
        peer_id,
        incarnation: record.incarnation,
        revision: record.revision,
        software: record.software,
        addresses,
        applications,
        labels: record.labels,
        load: 0,
        local,
        verified: local,
        conflict: false,
    };
    Described { weight: weight(&info, envelope.len()), envelope, version, info }
}

/// Whether two descriptions of one node differ in nothing that its users see.
pub(super) fn says_the_same(one: &NodeInfo, other: &NodeInfo) -> bool {
    let NodeInfo { name, peer_id, incarnation, revision: _, software, addresses, applications, labels, .. } = one;
    *name == other.name
        && *peer_id == other.peer_id
        && *incarnation == other.incarnation
        && *software == other.software
        && *addresses == other.addresses
        && *applications == other.applications
        && *labels == other.labels
}
