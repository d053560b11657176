//! What the parts of one node share: the handles, the driver and the lanes all hold the same core.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use libp2p::{Multiaddr, PeerId, identity::Keypair};
use multinodes_behaviour::{
    Grant, Privacy, RecordError, SignedRecord, SwarmName,
    lanes::LaneStream,
    record::MAX_ADDRESSES,
    wire::{ApplicationRecord, Record},
};
use tokio::sync::{mpsc, oneshot, watch};

use crate::{
    addresses::Resolver,
    crew::Crew,
    description::{ApplicationInfo, Description, Host, NodeInfo, Snapshot, Status},
    events::Teller,
    links::Links,
    payload::Payload,
    permissions::{Permissions, Wishes},
    registry::{Hosted, Registry},
    secret::Secret,
    selection::Selection,
    shared_keys::{SharedKey, SharedKeys},
    topics::{PublishError, Published, Topics},
};

/// How long opening a lane may take, dialling and all.
pub(crate) const OPEN_LIMIT: Duration = Duration::from_secs(5);

/// Commands that may wait for the driver: lanes being opened, mostly.
pub(crate) const COMMANDS: usize = 1024;

/// Room that a record keeps for each address that the node may get later, in bytes.
const TYPICAL_ADDRESS: usize = 64;

/// Everything that was asked of the builder, checked and complete.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) name: String,
    /// Checked to be what a record may have.
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) swarm: SwarmName,
    /// Of a private swarm.
    pub(crate) secret: Option<Secret>,
    /// Its keys.
    pub(crate) privacy: Option<Privacy>,
    pub(crate) listen: Vec<Multiaddr>,
    pub(crate) join: Vec<String>,
    /// For names among them.
    pub(crate) resolver: Resolver,
    pub(crate) mdns: bool,
    /// On which to look by mDNS; those behind which others may be if there are none.
    pub(crate) interfaces: Vec<String>,
    pub(crate) kademlia: bool,
    /// The folder in which nodes of this host leave their addresses (one folder per user and swarm).
    pub(crate) rendezvous: Option<PathBuf>,
    pub(crate) passive: bool,
    pub(crate) low_mark: usize,
    pub(crate) high_mark: usize,
    pub(crate) max_message: usize,
    pub(crate) drain_timeout: Duration,
    /// Labels that were signed into the ticket with which the node joins.
    #[cfg_attr(not(feature = "cli"), allow(dead_code, reason = "a diagnosis shows it for keys of its own"))]
    pub(crate) grant: Option<Grant>,
    /// What proves the labels that were signed into the ticket with which the node joins.
    pub(crate) credential: Option<String>,
}

impl Settings {
    /// What the swarm is called where strangers can look: an open one by its name.
    pub(crate) fn mark(&self) -> &str {
        self.privacy.as_ref().map_or(self.swarm.as_str(), Privacy::mark)
    }
}

/// The shared core of one node.
pub(crate) struct Core {
    pub(crate) settings: Settings,
    pub(crate) keypair: Keypair,
    pub(crate) peer_id: PeerId,
    pub(crate) started: Instant,
    /// The node's life, as in its record.
    pub(crate) incarnation: AtomicU64,
    pub(crate) registry: Registry,
    pub(crate) permissions: Arc<Permissions>,
    #[cfg(feature = "wasm")]
    pub(crate) workshop: crate::code::workshop::Workshop,
    pub(crate) crew: Crew,
    pub(crate) links: Links,
    pub(crate) selection: Selection,
    /// The directory as readers see it. Only the driver stores; it bumps `changed` afterwards.
    pub(crate) snapshot: ArcSwap<Snapshot>,
    pub(crate) changed: watch::Sender<u64>,
    pub(crate) events: Teller,
    pub(crate) topics: Topics,
    pub(crate) status: watch::Sender<Status>,
    /// Where the node listens, loopback included.
    pub(crate) addresses: watch::Sender<Vec<Multiaddr>>,
    /// Nodes whose key is used by several processes at once.
    pub(crate) shared_keys: Mutex<SharedKeys>,
    pub(crate) commands: mpsc::Sender<Command>,
    pub(crate) counters: Counters,
}

impl Core {
    pub(crate) fn new(settings: Settings, keypair: Keypair, wishes: Wishes) -> (Arc<Self>, mpsc::Receiver<Command>) {
        let (commands, receiver) = mpsc::channel(COMMANDS);
        let core = Arc::new_cyclic(|me: &Weak<Self>| Self {
            peer_id: keypair.public().to_peer_id(),
            started: Instant::now(),
            incarnation: AtomicU64::new(0),
            registry: Registry::new(me.clone()),
            #[cfg(feature = "wasm")]
            workshop: {
                let own = keypair.public().to_peer_id();
                crate::code::workshop::Workshop::new(own, wishes.code.clone())
            },
            permissions: Arc::new(Permissions::new(keypair.public().to_peer_id(), wishes)),
            crew: Crew::new(),
            links: Links::new(me.clone(), settings.max_message),
            selection: Selection::default(),
            snapshot: ArcSwap::default(),
            changed: watch::Sender::new(0),
            events: Teller::new(),
            topics: Topics::new(settings.passive),
            status: watch::Sender::default(),
            addresses: watch::Sender::default(),
            shared_keys: Mutex::default(),
            commands,
            counters: Counters::default(),
            settings,
            keypair,
        });
        (core, receiver)
    }

    /// Remembers a key that several processes use. True if that is news.
    pub(crate) fn note_shared_key(&self, peer_id: PeerId, name: &str) -> bool {
        self.shared_keys.lock().unwrap_or_else(PoisonError::into_inner).note(peer_id, name)
    }

    /// The keys that several processes use, as far as this node has seen.
    pub(crate) fn shared_keys(&self) -> Vec<SharedKey> {
        self.shared_keys.lock().unwrap_or_else(PoisonError::into_inner).all()
    }

    /// Runs a lane on a stream that a peer has opened.
    pub(crate) fn accept(&self, peer_id: PeerId, stream: LaneStream) {
        self.links.accept(peer_id, Box::new(stream));
    }

    /// The last connection to a peer is gone.
    pub(crate) fn disconnected(&self, peer_id: &PeerId) {
        let live = self.snapshot.load().by_peer.get(peer_id).map(|node| node.incarnation);
        self.links.forget(peer_id, live);
        self.permissions.proofs.forget(peer_id);
        self.selection.round_trips.forget(peer_id);
    }

    /// What is hosted here, for the node's own record.
    pub(crate) fn applications(&self) -> Vec<ApplicationRecord> {
        self.registry.records()
    }

    /// Whether this node has been in the swarm for long enough to say of others that they were there: one that only looks
    /// knows its neighbours for a moment.
    pub(crate) fn knows_neighbours(&self) -> bool {
        const PASSIVE: Duration = Duration::from_secs(30);
        !self.settings.passive || self.started.elapsed() >= PASSIVE
    }

    /// Calls running here now.
    pub(crate) fn load(&self) -> u32 {
        u32::try_from(self.registry.running()).unwrap_or(u32::MAX)
    }

    /// Whether calls to or from a peer are in flight: then its connection is not closed to save one.
    pub(crate) fn in_use(&self, peer_id: &PeerId) -> bool {
        self.links.in_use(peer_id)
    }

    /// What is hosted here has changed: the others are told.
    pub(crate) fn announce(&self) {
        // A full channel holds commands that come before an announcement anyway; the driver takes what is hosted at
        // the time it announces, so a later one must not be lost: it waits in a task.
        if let Err(mpsc::error::TrySendError::Full(command)) = self.commands.try_send(Command::Announce) {
            let commands = self.commands.clone();
            tokio::spawn(async move { commands.send(command).await });
        }
    }

    /// Whether the node's record with these applications is one that others take, whatever addresses it gets.
    pub(crate) fn announceable(&self, applications: &[ApplicationRecord]) -> Result<(), RecordError> {
        let longest = serde_bytes::ByteBuf::from(vec![0; TYPICAL_ADDRESS]);
        let record = Record {
            name: self.settings.name.clone(),
            incarnation: u64::MAX,
            revision: u64::MAX,
            software: env!("CARGO_PKG_VERSION").to_owned(),
            addresses: vec![longest; MAX_ADDRESSES],
            host: None,
            applications: applications.to_vec(),
            labels: self.settings.labels.clone(),
            left: false,
            process: Some(vec![0; 8].into()),
        };
        SignedRecord::sign(&self.keypair, &self.settings.swarm, record).map(drop)
    }

    /// What this node knows of itself and of the others.
    pub(crate) fn description(&self) -> Description {
        let snapshot = self.snapshot.load();
        Description {
            name: self.settings.name.clone(),
            peer_id: self.peer_id,
            swarm: self.settings.swarm.to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            addresses: self.addresses.borrow().clone(),
            applications: self.applications().into_iter().map(ApplicationInfo::from).collect(),
            nodes: snapshot.nodes.iter().filter(|node| !node.local).map(|node| node.name.clone()).collect(),
        }
    }

    /// This node as the host of one of its applications, up to date even before the directory is.
    pub(crate) fn local_host(&self, hosted: &Hosted) -> Host {
        Host::new(&self.local_info(), &Arc::new(hosted.record().into()))
    }

    /// This node as others see it, up to date even before the directory is.
    pub(crate) fn local_info(&self) -> Arc<NodeInfo> {
        let known = self.snapshot.load().by_peer.get(&self.peer_id).cloned();
        Arc::new(NodeInfo {
            name: self.settings.name.clone(),
            peer_id: self.peer_id,
            incarnation: known.as_ref().map_or(0, |known| known.incarnation),
            revision: known.as_ref().map_or(0, |known| known.revision),
            software: env!("CARGO_PKG_VERSION").to_owned(),
            addresses: known.as_ref().map_or_else(Vec::new, |known| known.addresses.clone()),
            applications: self.applications().into_iter().map(|record| Arc::new(record.into())).collect(),
            labels: self.settings.labels.clone(),
            load: self.load(),
            local: true,
            verified: true,
            conflict: known.is_some_and(|known| known.conflict),
        })
    }
}

/// Everything that was dropped or refused, counted: nothing is silent. And what code has cost the network.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Records and beats whose signature, size or shape was wrong.
    pub(crate) bad_records: AtomicU64,
    /// Connections of programs that do not belong to this swarm.
    pub(crate) strangers: AtomicU64,
    /// Incoming connections that ended before it was known whose they are.
    pub(crate) failed_handshakes: watch::Sender<u64>,
    /// Panics inside of connections, each of which has cost its connection.
    pub(crate) connection_panics: multinodes_behaviour::Panics,
    /// Incoming connections beyond the limits.
    pub(crate) refused_connections: AtomicU64,
    /// Records for which the directory had no room, and gossip and records beyond what a neighbour may send.
    pub(crate) refused_records: AtomicU64,
    /// Exchanges that a neighbour asked for too often.
    pub(crate) refused_requests: AtomicU64,
    /// Requests and answers of exchanges that could not be read.
    pub(crate) malformed_exchanges: AtomicU64,
    /// Questions of Kademlia, and packets of gossip, that were not looked at.
    pub(crate) refused_control: AtomicU64,
    /// Lanes that peers opened more often than they may.
    pub(crate) refused_lanes: AtomicU64,
    /// Peers that have sent what no node should, and were kept away for a while.
    pub(crate) kept_away: AtomicU64,
    /// The longest turn of the driver, in microseconds.
    pub(crate) longest_turn: AtomicU64,
    /// Messages of topics whose signature, size or shape was wrong.
    pub(crate) bad_messages: AtomicU64,
    /// Messages of topics that were here before.
    pub(crate) repeated_messages: AtomicU64,
    /// Messages of topics beyond what a sender may send.
    pub(crate) refused_messages: AtomicU64,
    /// Subscriptions of peers to what is no topic of the swarm.
    pub(crate) refused_subscriptions: Arc<AtomicU64>,
    /// Calls and messages that their senders were not allowed to send.
    pub(crate) forbidden_messages: AtomicU64,
    /// Calls, and tuples of flows, that were given up when the node stopped.
    pub(crate) unfinished_calls: AtomicU64,
    /// Tells that other nodes had accepted, and had not begun, as far as was heard, when they were lost.
    pub(crate) lost_tells: AtomicU64,
    /// Connections with peers that are not allowed to connect, ended or refused.
    pub(crate) forbidden_connections: watch::Sender<u64>,
    /// How often code was fetched from other nodes, or was tried to.
    #[cfg(feature = "wasm")]
    pub(crate) code_fetches: AtomicU64,
    /// Bytes of code that came from other nodes, fetched or with a request.
    #[cfg(feature = "wasm")]
    pub(crate) code_bytes: AtomicU64,
}

impl Counters {
    pub(crate) fn add(counter: &AtomicU64) {
        Self::add_many(counter, 1);
    }

    pub(crate) fn add_many(counter: &AtomicU64, count: usize) {
        counter.fetch_add(count as u64, Relaxed);
    }

    /// So long has a turn of the driver taken.
    pub(crate) fn took(&self, turn: Duration) {
        let turn = u64::try_from(turn.as_micros()).unwrap_or(u64::MAX);
        // Hardly ever more than the longest so far, and looking costs less than writing.
        if turn > self.longest_turn.load(Relaxed) {
            self.longest_turn.fetch_max(turn, Relaxed);
        }
    }
}

/// What the driver is asked to do. The channel to it is bounded; nobody waits on it with a lock held.
pub(crate) enum Command {
    /// Opens a stream for a lane, and dials the peer first if need be.
    OpenLane {
        /// To whom.
        peer_id: PeerId,
        /// Gets the negotiated stream within [`OPEN_LIMIT`].
        respond_to: oneshot::Sender<Result<LaneStream, OpenFailure>>,
    },
    /// Dials a node that is only said to be there, to see whether it is.
    Verify {
        /// Which one.
        peer_id: PeerId,
    },
    /// What is hosted here has changed: the record is made anew and told to all.
    Announce,
    /// Publishes a message; both parts are checked.
    Publish {
        /// The topic.
        topic: String,
        /// The value.
        value: Payload,
        /// Told when it is on its way.
        respond_to: oneshot::Sender<Result<Published, PublishError>>,
    },
    /// Another address to join through.
    Join {
        /// A multiaddress, or `host:port`.
        address: String,
    },
    /// A peer has gone too far, and is not spoken with for a while.
    KeepAway {
        /// Who.
        peer_id: PeerId,
    },
    /// Says goodbye to all and ends the driver.
    Stop {
        /// Told when all is done.
        respond_to: oneshot::Sender<()>,
    },
    /// As if multicast had named a peer.
    #[cfg(test)]
    Find { peer_id: PeerId, address: Multiaddr },
    /// Panics in the driver, to test its supervision.
    #[cfg(test)]
    Panic,
}

/// Why no lane could be opened: in every case nothing was delivered.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum OpenFailure {
    /// No address of the peer is known.
    #[error("no address is known")]
    Unknown,
    /// It could not be dialled, or does not speak with us.
    #[error("{0}")]
    Unreachable(String),
    /// Nothing was heard of it so far: it may answer later.
    #[error("{0}")]
    Silent(String),
    /// This node is stopping.
    #[error("this node is stopping")]
    Stopping,
}
