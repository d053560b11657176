//! What a record says of its node, for users, and what it weighs.

use multinodes_behaviour::{SignedRecord, wire::ApplicationRecord};
use serde_json::Value;

use crate::{
    addresses,
    description::{ApplicationInfo, NodeInfo},
};

/// About what one value in a record takes in memory, as a text or a list of its own.
const VALUE: usize = 64;

/// About what a record takes in memory beside its fixed part, which [`MAX_NODES`](super::MAX_NODES) limits: the bytes, which are held, and
/// every value in it, which may be a single byte on the wire.
pub(super) fn weight(signed: &SignedRecord) -> usize {
    let record = &signed.record;
    let applications = record.applications.iter().map(|application| {
        1 + application.actions.len() + application.idempotent.len() + values(&application.description)
    });
    let values = applications.sum::<usize>() + record.labels.len() + record.addresses.len();
    signed.envelope().len() + values * VALUE
}

/// How many values there are in one, itself included.
fn values(value: &Value) -> usize {
    match value {
        Value::Array(inner) => 1 + inner.iter().map(values).sum::<usize>(),
        Value::Object(inner) => 1 + inner.values().map(|inner| 1 + values(inner)).sum::<usize>(),
        _ => 1,
    }
}

/// Whether two descriptions of one node differ in nothing that its users see.
pub(super) fn says_the_same(one: &NodeInfo, other: &NodeInfo) -> bool {
    let key = |info: &NodeInfo| NodeInfo { revision: 0, load: 0, conflict: false, ..info.clone() };
    key(one) == key(other)
}

pub(super) fn describe(signed: &SignedRecord, local: bool, same_host: bool) -> NodeInfo {
    let record = &signed.record;
    let mut applications: Vec<ApplicationInfo> = record.applications.iter().map(application).collect();
    applications.sort_by(|one, other| one.name.cmp(&other.name));
    let usable = signed.addresses().into_iter().filter(|address| addresses::usable(address, same_host));
    NodeInfo {
        name: record.name.clone(),
        peer_id: signed.peer_id,
        incarnation: record.incarnation,
        revision: record.revision,
        software: record.software.clone(),
        addresses: addresses::in_order(usable),
        applications,
        labels: record.labels.clone(),
        load: 0,
        local,
        conflict: false,
    }
}

fn application(record: &ApplicationRecord) -> ApplicationInfo {
    ApplicationInfo {
        name: record.name.clone(),
        version: record.version.clone(),
        description: record.description.clone(),
        actions: record.actions.clone(),
        slots: record.slots,
        idempotent: record.idempotent.clone(),
        trouble: record.trouble.clone(),
    }
}
