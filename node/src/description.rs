//! What is known of nodes, applications and hosts: the types that readers of the directory see.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Deref,
    sync::Arc,
    time::Instant,
};

use libp2p::{Multiaddr, PeerId};
use multinodes_behaviour::{quick_hash::QuickHash, wire::ApplicationRecord};
use serde::{Serialize, Serializer, ser::SerializeStruct};
use serde_json::Value;

use crate::selection::narrow;

/// One node of the swarm, as its own signed record describes it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct NodeInfo {
    /// Its name: a claim. Two nodes may hold the same one, see [`conflict`](Self::conflict).
    pub name: String,
    /// Its peer id: proven by the key that signed the record.
    #[serde(serialize_with = "as_text")]
    pub peer_id: PeerId,
    /// When this life of the node began, in milliseconds since 1970.
    pub incarnation: u64,
    /// Grows with each change of the record within an incarnation.
    pub revision: u64,
    /// The version of the software that runs there.
    #[serde(rename = "version")]
    pub software: String,
    /// Where it can be dialled, without its peer id.
    #[serde(serialize_with = "all_as_text")]
    pub addresses: Vec<Multiaddr>,
    /// What it hosts, in order of the names.
    pub applications: Vec<Arc<ApplicationInfo>>,
    /// Labels given to it by whoever runs it.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Calls running there when it last gave a sign of life.
    pub load: u32,
    /// It is this very node.
    pub local: bool,
    /// This node was connected to it. Of others only their signed records are known, which anybody can make up.
    pub verified: bool,
    /// Another live node holds the same name, so the name alone does not address it.
    pub conflict: bool,
}

/// One application that a node hosts.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ApplicationInfo {
    /// Its name.
    pub name: String,
    /// Its version, if it has one.
    pub version: Option<String>,
    /// Whatever its author wants others to know; `null` if nothing.
    pub description: Value,
    /// The actions that can be called.
    pub actions: Vec<String>,
    /// How many calls it works on at once, if it says so.
    pub slots: Option<u32>,
    /// The actions that may run twice without harm, as the application says.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub idempotent: Vec<String>,
    /// What is wrong with it just now; absent while it is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

impl From<ApplicationRecord> for ApplicationInfo {
    fn from(record: ApplicationRecord) -> Self {
        let ApplicationRecord { name, version, description, actions, slots, idempotent, trouble } = record;
        Self { name, version, description, actions, slots, idempotent, trouble }
    }
}

/// One node that hosts a given application. What the application says of itself there, such as its
/// [`description`](ApplicationInfo::description), is read as if it were a field: `host.description["gpu"]`.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Host {
    /// The node.
    pub info: Arc<NodeInfo>,
    /// The application as the node describes it, shared by all who know of it.
    pub application: Arc<ApplicationInfo>,
    /// The node's name.
    pub node: String,
    /// The node's peer id.
    pub peer_id: PeerId,
    /// Calls running on the node when it last gave a sign of life.
    pub load: u32,
    /// It is this very node.
    pub local: bool,
}

impl Host {
    /// The host of `application` on `info`'s node.
    pub(crate) fn new(info: &Arc<NodeInfo>, application: &Arc<ApplicationInfo>) -> Self {
        Self {
            info: info.clone(),
            application: application.clone(),
            node: info.name.clone(),
            peer_id: info.peer_id,
            load: info.load,
            local: info.local,
        }
    }
}

impl Deref for Host {
    type Target = ApplicationInfo;

    fn deref(&self) -> &ApplicationInfo {
        &self.application
    }
}

/// The node's name and peer id, what the application says of itself there but for its name, and the load.
impl Serialize for Host {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (idempotent, trouble) = (!self.idempotent.is_empty(), self.trouble.is_some());
        let fields = 8 + usize::from(idempotent) + usize::from(trouble);
        let mut host = serializer.serialize_struct("Host", fields)?;
        host.serialize_field("node", &self.node)?;
        host.serialize_field("peer_id", &self.peer_id.to_base58())?;
        host.serialize_field("description", &self.description)?;
        host.serialize_field("version", &self.version)?;
        host.serialize_field("actions", &self.actions)?;
        if idempotent {
            host.serialize_field("idempotent", &self.idempotent)?;
        }
        host.serialize_field("slots", &self.slots)?;
        if trouble {
            host.serialize_field("trouble", &self.trouble)?;
        }
        host.serialize_field("load", &self.load)?;
        host.serialize_field("local", &self.local)?;
        host.end()
    }
}

/// What a node knows of itself and of the others.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Description {
    /// Its name.
    pub name: String,
    /// Its peer id.
    #[serde(serialize_with = "as_text")]
    pub peer_id: PeerId,
    /// The name of its swarm.
    pub swarm: String,
    /// The version of the software.
    pub version: String,
    /// Where it listens.
    #[serde(serialize_with = "all_as_text")]
    pub addresses: Vec<Multiaddr>,
    /// What it hosts.
    pub applications: Vec<ApplicationInfo>,
    /// The names of the other nodes it knows.
    pub nodes: Vec<String>,
}

/// A change in the swarm, as one node sees it.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// A node is there that was not.
    Joined(Arc<NodeInfo>),
    /// A node has changed what it says of itself, for example its applications.
    Updated(Arc<NodeInfo>),
    /// A node is gone.
    Left {
        /// As it was known.
        node: Arc<NodeInfo>,
        /// How it went.
        reason: LeftReason,
    },
    /// Several live nodes claim one name: messages to that name are refused until one is left. Told again when another one
    /// comes, as long as there are no more than 8; changes that come together are told once.
    NameConflict {
        /// The name.
        name: String,
        /// Who claims it: of many only the first 8.
        peer_ids: Vec<PeerId>,
        /// How many more claim it.
        more: usize,
    },
    /// Something does not work as it should, mostly a way of finding others; said once, with what to do.
    Degraded {
        /// What does not work, and the remedy.
        reason: String,
    },
    /// Nobody of the swarm answers at an address to join through. It is tried again, for ever; told again when something
    /// else comes of it.
    JoinFailed {
        /// The address, as it was given.
        address: String,
        /// What came instead of an answer; of a name, at each of its addresses.
        reason: String,
    },
    /// The network part failed and was started again with the same identity.
    NetworkRestarted {
        /// What had happened.
        reason: String,
    },
    /// The network part failed more than eight times within ten minutes, and is not started again: this node has left the
    /// swarm, and everything that needs others fails. Stop it and start another one.
    NetworkFailed {
        /// What had happened last.
        reason: String,
    },
    /// This reader was too slow: so many events were dropped for it.
    Missed(u64),
}

/// How a node went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum LeftReason {
    /// It stopped and said goodbye.
    Stopped,
    /// It cannot be reached any more.
    Lost,
}

/// How far this node has come in finding others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[non_exhaustive]
pub struct Status {
    /// Peers of this swarm that are connected.
    pub connected: usize,
    /// The directory has been levelled with at least one of them.
    pub synced: bool,
    /// Every source was asked and had its time, and no dial or first sync is under way: what is not known by now is
    /// probably not there.
    pub settled: bool,
    /// No peer is connected any more, and nothing is heard of some that were not refused and did not say goodbye: this node
    /// may be cut off, and what it knows of the swarm be out of date. Until a peer is back, calls without a known host wait,
    /// and end as [`CallError::CutOff`](crate::CallError::CutOff).
    pub cut_off: bool,
}

/// The directory as readers see it: replaced as a whole after each change, so reading takes no lock.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    /// All live nodes in order of name and peer id, this one included unless it is passive.
    pub(crate) nodes: Vec<Arc<NodeInfo>>,
    /// The same by peer id.
    pub(crate) by_peer: HashMap<PeerId, Arc<NodeInfo>>,
    /// The same by name; more than one entry is a conflict.
    pub(crate) by_name: HashMap<String, Vec<Arc<NodeInfo>>>,
    /// The hosts of each application.
    pub(crate) by_application: HashMap<String, Arc<[Arc<Host>]>, QuickHash>,
    /// Those that come first, of applications with very many hosts that this node was never connected to.
    pub(crate) narrowed: HashMap<String, Arc<[Arc<Host>]>, QuickHash>,
    /// Nodes of which nothing is heard any more, as long as they are remembered.
    pub(crate) silent: Vec<Silent>,
}

/// A node that was lost because nothing was heard of it any more.
#[derive(Debug, Clone)]
pub(crate) struct Silent {
    pub(crate) node: Arc<NodeInfo>,
    pub(crate) since: Instant,
}

impl Snapshot {
    /// Builds the indices over `nodes`.
    pub(crate) fn new(mut nodes: Vec<Arc<NodeInfo>>) -> Self {
        nodes.sort_by(|one, other| (&one.name, one.peer_id).cmp(&(&other.name, other.peer_id)));
        let mut by_name: HashMap<String, Vec<Arc<NodeInfo>>> = HashMap::new();
        let mut by_application: HashMap<String, Vec<Arc<Host>>> = HashMap::new();
        for node in &nodes {
            by_name.entry(node.name.clone()).or_default().push(node.clone());
            for application in &node.applications {
                by_application
                    .entry(application.name.clone())
                    .or_default()
                    .push(Arc::new(Host::new(node, application)));
            }
        }
        let narrowed = by_application.iter().filter_map(|(name, hosts)| Some((name.clone(), narrow(hosts)?.into())));
        Self {
            narrowed: narrowed.collect(),
            by_peer: nodes.iter().map(|node| (node.peer_id, node.clone())).collect(),
            by_application: by_application.into_iter().map(|(name, hosts)| (name, hosts.into())).collect(),
            by_name,
            nodes,
            silent: Vec::new(),
        }
    }
}

/// Addresses are bytes in CBOR, which JSON does not have: those who read descriptions want text.
fn all_as_text<S: Serializer>(addresses: &[Multiaddr], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(addresses.iter().map(ToString::to_string))
}

fn as_text<S: Serializer>(peer_id: &PeerId, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(peer_id)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A node of some name that hosts `test`.
    pub(crate) fn node(name: &str, description: Value) -> Arc<NodeInfo> {
        let application = ApplicationInfo {
            name: "test".into(),
            version: None,
            description,
            actions: Vec::new(),
            slots: None,
            idempotent: Vec::new(),
            trouble: None,
        };
        Arc::new(NodeInfo {
            name: name.into(),
            peer_id: PeerId::random(),
            incarnation: 1,
            revision: 1,
            software: String::new(),
            addresses: Vec::new(),
            applications: vec![Arc::new(application)],
            labels: BTreeMap::new(),
            load: 0,
            local: false,
            verified: false,
            conflict: false,
        })
    }

    /// The host of `test` on a node of some name.
    pub(crate) fn host(name: &str, description: Value) -> Host {
        let node = node(name, description);
        Host::new(&node, &node.applications[0])
    }

    #[test]
    fn a_snapshot_finds_nodes_by_name_and_hosts_by_application() {
        let snapshot =
            Snapshot::new(vec![node("beta", Value::Null), node("alpha", Value::Null), node("alpha", Value::Null)]);
        assert_eq!(snapshot.nodes.iter().map(|node| &node.name[..]).collect::<Vec<_>>(), ["alpha", "alpha", "beta"]);
        assert_eq!(snapshot.by_name["alpha"].len(), 2);
        assert_eq!(snapshot.by_application["test"].len(), 3);
        assert_eq!(snapshot.by_peer.len(), 3);
    }
}
