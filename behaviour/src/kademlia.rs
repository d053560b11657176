//! Finds addresses of peers that this node is not connected to, in swarms beyond a LAN. It stores nothing but the
//! routing table: what a node hosts is in the directory.

use std::num::NonZeroUsize;

use libp2p::{
    PeerId,
    kad::{
        self, BucketInserts, Caching, Mode, StoreInserts,
        store::{MemoryStore, MemoryStoreConfig},
    },
};

use crate::{SwarmName, ration::Rate};

/// Kademlia with a store that holds next to nothing.
pub type Behaviour = kad::Behaviour<MemoryStore>;

/// Half the default: a look-up then tells of fewer nodes, and no swarm of ours loses ten at once.
const REPLICATION: NonZeroUsize = NonZeroUsize::new(10).expect("ten is not zero");

/// What a peer may ask or answer. Nobody asks another one more than a few questions for a look-up, and few look-ups are
/// begun: each question costs a walk over the routing table.
const QUESTIONS: Rate = Rate { burst: 64.0, per_second: 8.0 };

/// The same, and what all peers of a host may: hundreds of its nodes may start at once.
pub(crate) const RATIONS: [Rate; 2] = [QUESTIONS, QUESTIONS.times(QUESTIONERS)];
const QUESTIONERS: f64 = 64.0;

/// Nothing is stored on purpose; what arrives is filtered out before the store sees it.
const STORE: MemoryStoreConfig =
    MemoryStoreConfig { max_records: 0, max_value_bytes: 0, max_providers_per_key: 1, max_provided_keys: 0 };

/// Creates the behaviour under the swarm's own protocol name, else it would join the public network.
#[must_use]
pub fn new(peer_id: PeerId, swarm: &SwarmName, passive: bool) -> Behaviour {
    let mut config = kad::Config::new(swarm.kademlia_protocol());
    config
        .set_replication_factor(REPLICATION)
        // Who is dialled may be a stranger; the driver adds peers once identify has shown them as ours.
        .set_kbucket_inserts(BucketInserts::Manual)
        // Each bootstrap dials towards everybody: in a small swarm it would make a full mesh every five minutes.
        .set_periodic_bootstrap_interval(None)
        .set_record_filtering(StoreInserts::FilterBoth)
        .set_replication_interval(None)
        .set_publication_interval(None)
        .set_provider_publication_interval(None)
        .set_caching(Caching::Disabled);
    let mut behaviour = Behaviour::with_config(peer_id, MemoryStore::with_config(peer_id, STORE), config);
    // Without a word, Kademlia stays a client until some address is confirmed from outside, on a LAN for ever.
    behaviour.set_mode(Some(if passive { Mode::Client } else { Mode::Server }));
    behaviour
}
