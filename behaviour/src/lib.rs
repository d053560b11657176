//! What MultiNodes speaks on the wire: a libp2p behaviour for finding, knowing and talking.
//!
//! ```text
//!              finding                         knowing                          talking
//!  ┌───────────────────────────────┐ ┌─────────────────────────────┐ ┌─────────────────────────────┐
//!  │ local      mDNS, v4 and v6    │ │ gossip   changes, beats     │ │ lanes    long-lived streams │
//!  │ kademlia   addresses beyond   │ │ sync     what I missed      │ │          for calls, tells   │
//!  │ identify   who are you        │ │                             │ │                             │
//!  │ ping       are you there      │ │ record   signed by its node │ │ wire     frames             │
//!  └───────────────────────────────┘ └─────────────────────────────┘ └─────────────────────────────┘
//!                gate     who gets in
//!                limits   how many connections, how much memory      places   whose handshakes
//!                ration   how much of whom                          rationed   the same for the protocols of libp2p
//!                transport   TCP · noise · yamux, corked      wan: QUIC, DNS, WebSocket
//!                privacy     the keys of a private swarm, below and inside of noise
//! ```
//!
//! This crate decides *how* nodes speak; *when* they do (whom to dial, what to publish, which connection to close) is
//! for the owner of the swarm. The `multinodes` crate is one; [`Behaviour`] can also be a part of a behaviour of one's
//! own:
//!
//! ```
//! use libp2p::{Swarm, futures::StreamExt, identity::Keypair, ping, swarm};
//! use multinodes_behaviour::{Behaviour, Config, transport};
//!
//! #[derive(libp2p::swarm::NetworkBehaviour)]
//! struct Mine {
//!     multinodes: Behaviour,
//!     other: ping::Behaviour,
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let config = Config {
//!     swarm: "garden".parse()?,
//!     keypair: Keypair::generate_ed25519(),
//!     passive: false,
//!     mdns: false,
//!     kademlia: false,
//!     high_mark: 96,
//!     refused_subscriptions: Default::default(),
//!     privacy: None,
//!     doorkeeper: None,
//!     credential: None,
//!     interfaces: Vec::new(),
//! };
//! let mine = Mine { multinodes: Behaviour::new(&config)?, other: ping::Behaviour::default() };
//! let peer_id = config.keypair.public().to_peer_id();
//! let transport = transport::new(&config.keypair)?;
//! let mut swarm = Swarm::new(transport, mine, peer_id, swarm::Config::with_tokio_executor());
//!
//! swarm.listen_on("/ip4/127.0.0.1/tcp/0".parse()?)?;
//! let event = swarm.select_next_some().await;
//! assert!(matches!(event, libp2p::swarm::SwarmEvent::NewListenAddr { .. }));
//! # Ok(())
//! # }
//! ```
//!
//! # Where to read on
//!
//! 1. [`SwarmName`]: it is in every protocol id, so that swarms never mix.
//! 2. [`wire`]: every type that crosses the wire; [`codec`] turns them into CBOR and back, within limits.
//! 3. [`record`]: what a node says of itself, signed.
//! 4. [`gossip`] and [`sync`]: how that reaches the others. [`message`]: what users publish, signed as well.
//! 5. [`local`], [`kademlia`], [`identity`]: how nodes find each other. [`limits`]: when that is enough.
//! 6. [`lanes`] and [`lane`]: the streams on which calls travel, and how. [`transport`], [`corked`]: how fast. [`frames`]: in what pieces.
//!    [`ping`], [`pulse`]: whether peers are still there.
//! 7. [`privacy`]: how a private swarm keeps to itself. [`gate`]: who gets in. [`shelter`]: where a panic ends.
//!
//! Whatever a peer sends is parsed within a limit and without a panic; a limit is a constant beside its reason.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test may panic"))]

mod behaviour;
pub mod codec;
pub mod corked;
pub mod credential;
mod delegate;
mod door;
mod ended;
pub mod frames;
pub mod gate;
pub mod gossip;
pub mod identity;
pub mod kademlia;
pub mod lane;
pub mod lanes;
pub mod limits;
pub mod local;
pub mod message;
pub mod names;
pub mod ping;
pub mod places;
pub mod plan;
pub mod privacy;
pub mod pulse;
pub mod quick_hash;
pub mod ration;
pub mod rationed;
pub mod read_ahead;
pub mod record;
pub mod shelter;
pub mod sync;
pub mod transport;
pub mod wire;
mod zoned;

use std::{
    pin::Pin,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use libp2p::{Swarm, identity::Keypair, swarm};

pub use behaviour::{Behaviour, Protocols, ProtocolsEvent as BehaviourEvent};
pub use credential::{Credential, Grant};
pub use gate::{Admission, Doorkeeper};
pub use message::SignedMessage;
pub use names::{MAX_SWARM_NAME, NameError, SwarmName};
pub use privacy::Privacy;
use pulse::Pulses;
pub use record::{MAX_RECORD, RecordError, SignedBeat, SignedRecord};
pub use shelter::Panics;

/// What the protocols of a node depend on.
#[derive(Debug, Clone)]
pub struct Config {
    /// The name of the swarm.
    pub swarm: SwarmName,
    /// The node's key: its public half is the peer id.
    pub keypair: Keypair,
    /// The node does not listen and is not announced, as a one-shot command.
    pub passive: bool,
    /// Find nodes of the LAN by mDNS.
    pub mdns: bool,
    /// Find addresses beyond the LAN by Kademlia.
    pub kademlia: bool,
    /// From how many connections on the owner of the swarm closes some; hard limits are derived from it.
    pub high_mark: usize,
    /// Counts subscriptions of peers to gossip topics that this swarm does not have.
    pub refused_subscriptions: Arc<AtomicU64>,
    /// The keys of a private swarm; `None` for one that is open to everybody.
    pub privacy: Option<Privacy>,
    /// Decides who gets in; `None` lets everybody in.
    pub doorkeeper: Option<Arc<dyn Doorkeeper>>,
    /// What identify shows for doorkeepers of others to look at: at most [`identity::MAX_CREDENTIAL`] bytes of printable
    /// ASCII without blanks.
    pub credential: Option<String>,
    /// The network interfaces on which nodes of the LAN are looked for, by name. If there are none, those are used behind
    /// which others may be.
    pub interfaces: Vec<String>,
}

/// Builds a libp2p swarm that speaks all protocols of a node. Call it within a tokio runtime: connections are its tasks.
///
/// # Errors
///
/// The key cannot be used for encryption, or the credential cannot be shown.
pub fn build(config: &Config) -> Result<Swarm<Behaviour>, BuildError> {
    build_with_executor(config, tokio_executor)
}

/// The same with an executor of one's own for the tasks of connections, for example one that notices panics.
///
/// # Errors
///
/// As those of [`build`].
pub fn build_with_executor(
    config: &Config,
    executor: impl swarm::Executor + Send + 'static,
) -> Result<Swarm<Behaviour>, BuildError> {
    build_counting(config, executor, Panics::default())
}

/// The same, and counts what panics inside of a connection, which costs that connection alone. What the executor notices
/// beyond that is a panic in libp2p's own task: its connection never ends, and only a new swarm helps.
///
/// # Errors
///
/// As those of [`build`].
pub fn build_counting(
    config: &Config,
    executor: impl swarm::Executor + Send + 'static,
    panics: Panics,
) -> Result<Swarm<Behaviour>, BuildError> {
    let pulses = Pulses::default();
    let transport = match &config.privacy {
        None => transport::with_pulses(&config.keypair, Some(&pulses))?,
        Some(privacy) => transport::private_with_pulses(&config.keypair, privacy, Some(&pulses))?,
    };
    let transport = shelter::transport(transport, panics.clone());
    let behaviour = Behaviour::counting(config, panics, pulses)?;
    let peer_id = config.keypair.public().to_peer_id();
    Ok(Swarm::new(transport, behaviour, peer_id, swarm_config(executor)))
}

/// The owner of the swarm decides which idle connections are closed, not a timer in each of them.
const IDLE: Duration = Duration::from_secs(60 * 60 * 24 * 365);

fn tokio_executor(task: Pin<Box<dyn Future<Output = ()> + Send>>) {
    tokio::spawn(task);
}

/// Streams are not negotiated lazily: with a round trip at its opening, a lane to a peer that does not speak our
/// protocol fails as just that, not as a broken stream, and lanes are opened once and kept.
fn swarm_config(executor: impl swarm::Executor + Send + 'static) -> swarm::Config {
    swarm::Config::with_executor(executor).with_idle_connection_timeout(IDLE)
}

/// A swarm that cannot be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// There is no transport.
    #[error(transparent)]
    Transport(#[from] transport::TransportError),
    /// There is no gossip.
    #[error(transparent)]
    Gossip(#[from] gossip::GossipError),
    /// The credential cannot be shown.
    #[error(transparent)]
    Credential(#[from] identity::CredentialError),
}
