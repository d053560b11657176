//! The JSON of the command: promised to scripts, so it has types of its own.

use std::collections::{BTreeMap, BTreeSet};

use libp2p::multiaddr::Protocol;
use multinodes::{ApplicationInfo, LeftReason, Multiaddr, NodeInfo, PeerId};
use serde::Serialize;
use serde_json::Value;

/// One line of `start --json` and `events --json`.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum Line<'a> {
    Started {
        name: &'a str,
        peer_id: String,
        addresses: Vec<String>,
    },
    Joined(NodeRow<'a>),
    Updated(NodeRow<'a>),
    Left {
        name: &'a str,
        peer_id: String,
        reason: LeftReason,
    },
    NameConflict {
        name: &'a str,
        peer_ids: Vec<String>,
        /// How many more there are.
        #[serde(skip_serializing_if = "is_zero")]
        more: usize,
    },
    Degraded {
        reason: &'a str,
    },
    JoinFailed {
        address: &'a str,
        reason: &'a str,
    },
    NetworkRestarted {
        reason: &'a str,
    },
    NetworkFailed {
        reason: &'a str,
    },
    Missed {
        count: u64,
    },
    Stopped {
        name: &'a str,
        peer_id: String,
    },
}

fn is_zero(count: &usize) -> bool {
    *count == 0
}

/// One entry of `nodes --json`.
#[derive(Debug, Serialize)]
pub(crate) struct NodeRow<'a> {
    pub(crate) name: &'a str,
    pub(crate) peer_id: String,
    pub(crate) addresses: Vec<String>,
    pub(crate) applications: Vec<&'a str>,
    pub(crate) version: &'a str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) labels: &'a BTreeMap<String, String>,
}

impl<'a> NodeRow<'a> {
    pub(crate) fn of(node: &'a NodeInfo) -> Self {
        Self {
            name: &node.name,
            peer_id: node.peer_id.to_string(),
            addresses: dialable(&node.addresses, node.peer_id),
            applications: node.applications.iter().map(|application| application.name.as_str()).collect(),
            version: &node.software,
            labels: &node.labels,
        }
    }
}

/// One entry of `apps --json`: an application and all its hosts.
#[derive(Debug, Serialize)]
pub(crate) struct ApplicationRow<'a> {
    pub(crate) name: &'a str,
    /// The version that all hosts agree on.
    pub(crate) version: Option<&'a str>,
    /// The description that all hosts agree on.
    pub(crate) description: &'a Value,
    /// Every action that some host has.
    pub(crate) actions: BTreeSet<&'a str>,
    pub(crate) hosts: Vec<HostRow<'a>>,
}

/// One host of an application.
#[derive(Debug, Serialize)]
pub(crate) struct HostRow<'a> {
    pub(crate) node: &'a str,
    pub(crate) peer_id: String,
    pub(crate) version: Option<&'a str>,
    pub(crate) description: &'a Value,
    pub(crate) slots: Option<u32>,
    /// What is wrong with it there just now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) trouble: Option<&'a str>,
}

/// The applications of `nodes` on the hosts that are wanted, in order of their names.
pub(crate) fn applications<'a>(
    nodes: impl IntoIterator<Item = &'a NodeInfo>,
    wanted: impl Fn(&NodeInfo, &ApplicationInfo) -> bool,
) -> Vec<ApplicationRow<'a>> {
    let mut rows: BTreeMap<&str, ApplicationRow<'a>> = BTreeMap::new();
    for node in nodes {
        for application in node.applications.iter().filter(|application| wanted(node, application)) {
            let row = rows.entry(&application.name).or_insert_with(|| ApplicationRow {
                name: &application.name,
                version: application.version.as_deref(),
                description: &application.description,
                actions: BTreeSet::new(),
                hosts: Vec::new(),
            });
            row.version = row.version.filter(|version| Some(*version) == application.version.as_deref());
            if *row.description != application.description {
                row.description = &Value::Null;
            }
            row.actions.extend(application.actions.iter().map(String::as_str));
            row.hosts.push(HostRow {
                node: &node.name,
                peer_id: node.peer_id.to_string(),
                version: application.version.as_deref(),
                description: &application.description,
                slots: application.slots,
                trouble: application.trouble.as_deref(),
            });
        }
    }
    rows.into_values().collect()
}

/// Addresses that can be pasted behind `--join`: they end in the peer id, and those that mean something on other hosts
/// come first.
pub(crate) fn dialable(addresses: &[Multiaddr], peer_id: PeerId) -> Vec<String> {
    let mut addresses: Vec<_> = addresses.iter().collect();
    addresses.sort_by_key(|address| reach(address));
    addresses
        .into_iter()
        .map(|address| {
            let text = address.to_string();
            if text.contains("/p2p/") { text } else { format!("{text}/p2p/{peer_id}") }
        })
        .collect()
}

/// The lower, the further away an address can be used; what most people can read goes before the rest.
fn reach(address: &Multiaddr) -> u8 {
    match address.iter().next() {
        Some(Protocol::Ip4(ip)) if ip.is_loopback() => 4,
        Some(Protocol::Ip6(ip)) if ip.is_loopback() => 5,
        Some(Protocol::Ip4(ip)) if ip.is_link_local() => 2,
        Some(Protocol::Ip6(ip)) if ip.is_unicast_link_local() => 3,
        Some(Protocol::Ip6(_)) => 1,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_to_paste_elsewhere_comes_first() {
        let texts = [
            "/ip4/127.0.0.1/tcp/1",
            "/ip6/::1/tcp/1",
            "/ip6/fe80::1/tcp/1",
            "/ip6/fd00::2/tcp/1",
            "/ip4/10.0.0.2/tcp/1",
        ];
        let addresses: Vec<Multiaddr> = texts.iter().map(|text| text.parse().unwrap()).collect();
        let peer_id = PeerId::random();
        let sorted = dialable(&addresses, peer_id);
        assert_eq!(sorted[0], format!("/ip4/10.0.0.2/tcp/1/p2p/{peer_id}"));
        assert!(sorted[1].starts_with("/ip6/fd00::2/") && sorted[4].starts_with("/ip6/::1/"), "{sorted:?}");
    }
}
