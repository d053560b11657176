//! What the parts of one node share: the handles, the driver and the lanes all hold the same core.

use std::{
    path::PathBuf,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use arc_swap::ArcSwap;
use libp2p::{Multiaddr, PeerId, Stream, identity::Keypair};
use multinodes_behaviour::{SwarmName, wire::ApplicationRecord};
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use crate::description::{Event, Snapshot, Status};

/// How long opening a lane may take, dialling and all.
pub(crate) const OPEN_LIMIT: Duration = Duration::from_secs(5);

/// Everything that was asked of the builder, checked and complete.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) name: String,
    pub(crate) swarm: SwarmName,
    pub(crate) listen: Vec<Multiaddr>,
    pub(crate) join: Vec<String>,
    pub(crate) mdns: bool,
    pub(crate) kademlia: bool,
    /// The folder in which nodes of this host leave their addresses (one folder per user and swarm).
    pub(crate) rendezvous: Option<PathBuf>,
    pub(crate) passive: bool,
    pub(crate) low_mark: usize,
    pub(crate) high_mark: usize,
    pub(crate) max_message: usize,
}

/// The shared core of one node.
pub(crate) struct Core {
    pub(crate) settings: Settings,
    pub(crate) keypair: Keypair,
    pub(crate) peer_id: PeerId,
    /// The directory as readers see it. Only the driver stores; it bumps `changed` afterwards.
    pub(crate) snapshot: ArcSwap<Snapshot>,
    pub(crate) changed: watch::Sender<u64>,
    pub(crate) events: broadcast::Sender<Event>,
    pub(crate) status: watch::Sender<Status>,
    /// Where the node listens, loopback included.
    pub(crate) addresses: watch::Sender<Vec<Multiaddr>>,
    pub(crate) commands: mpsc::Sender<Command>,
    pub(crate) counters: Counters,
}

impl Core {
    /// Runs a lane on a stream that a peer has opened.
    pub(crate) fn accept(&self, peer_id: PeerId, stream: Stream) {
        let _ = (peer_id, stream);
    }

    /// What is hosted here, for the node's own record.
    pub(crate) fn applications(&self) -> Vec<ApplicationRecord> {
        Vec::new()
    }

    /// Calls running here now.
    pub(crate) fn load(&self) -> u32 {
        0
    }

    /// Whether calls to or from a peer are in flight: then its connection is not closed to save one.
    pub(crate) fn in_use(&self, peer_id: &PeerId) -> bool {
        let _ = peer_id;
        false
    }
}

/// Everything that was dropped or refused, counted: nothing is silent.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Records and beats whose signature, size or shape was wrong.
    pub(crate) bad_records: AtomicU64,
    /// Connections of programs that do not belong to this swarm.
    pub(crate) strangers: AtomicU64,
    /// Exchanges that a neighbour asked for too often.
    pub(crate) refused_requests: AtomicU64,
}

impl Counters {
    pub(crate) fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Relaxed);
    }
}

/// What the driver is asked to do. The channel to it is bounded; nobody waits on it with a lock held.
pub(crate) enum Command {
    /// Opens a stream for a lane, and dials the peer first if need be.
    OpenLane {
        /// To whom.
        peer_id: PeerId,
        /// Gets the negotiated stream within [`OPEN_LIMIT`].
        respond_to: oneshot::Sender<Result<Stream, OpenFailure>>,
    },
    /// What is hosted here has changed: the record is made anew and told to all.
    Announce,
    /// Another address to join through.
    Join {
        /// A multiaddress, or `host:port`.
        address: String,
    },
    /// Says goodbye to all and ends the driver.
    Stop {
        /// Told when all is done.
        respond_to: oneshot::Sender<()>,
    },
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
    /// This node is stopping.
    #[error("this node is stopping")]
    Stopping,
}
