//! Many **logical nodes** on many machines, one **swarm**: applications that find each other and talk.
//!
//! A [`Node`] hosts named applications, each with a free-form description. Nodes find each other by themselves, tell
//! each other what they host, and send messages to an application *wherever it is*: here if it is hosted here, else on
//! a remote node.
//!
//! ```text
//!   your code                        one node                              other nodes
//!  ┌─────────────┐        ┌──────────────────────────────────┐
//!  │ Node, AppRef│ reads  │ directory: who is in the swarm,  │  gossip, sync, heartbeats
//!  │ (handles)   │───────▶│ and what they host               │◀────────────────────────▶
//!  │             │ frames ├──────────────────────────────────┤
//!  │             │───────▶│ lanes: many calls in flight over │  call, tell, cast
//!  └─────────────┘        │ one stream for each peer         │◀────────────────────────▶
//!  ┌─────────────┐ spawns ├──────────────────────────────────┤
//!  │ Application │◀───────│ driver: finds peers, keeps       │  mDNS, same-host folder,
//!  └─────────────┘        │ connections                      │  known addresses, Kademlia
//!                         └──────────────────────────────────┘
//! ```
//!
//! # A swarm in one page
//!
//! ```no_run
//! use multinodes::{Actions, Node, json};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // On two machines of a LAN, or in one process: no address, no server, no configuration.
//! let alpha = Node::builder().name("alpha").start().await?;
//! let beta = Node::builder().name("beta").start().await?;
//!
//! let calculator = Actions::new()
//!     .description(json!({"precision": 64}))
//!     .action("add", |(a, b): (i64, i64)| async move { a + b })
//!     .try_action("div", |(a, b): (i64, i64)| async move { a.checked_div(b).ok_or("division by zero") });
//! alpha.register("calculator", calculator)?;
//!
//! for host in beta.wait_for("calculator").await? {
//!     println!("{} on {}: {}", "calculator", host.node, host.description);
//! }
//! let sum: i64 = beta.call("calculator", "add", (1, 2)).await?;
//! assert_eq!(sum, 3);
//! # beta.stop().await;
//! # alpha.stop().await;
//! # Ok(())
//! # }
//! ```
//!
//! # What is promised
//!
//! | | what `Ok` means | on failure |
//! |---|---|---|
//! | [`call`](Node::call) | the application ran the action and this is its answer | an error that says whether it [may have run](CallError::may_have_run) |
//! | [`tell`](Node::tell) | the remote node has the message in the application's queue, in memory: it is begun unless that node is lost or stopped before, which is [counted](Counters::lost_tells) here | not accepted, or unknown |
//! | [`cast`](Node::cast) | it is in the write queue | what is dropped on the other side is counted there; what is lost with its connection is not |
//!
//! At most once, unless the caller or the [application](Actions::idempotent) declares it
//! [`idempotent`](AppRef::idempotent): then what was lost with its host is repeated on another one, and a call that broke its
//! application on one other. What surely was not delivered is always tried on another host, unless one node
//! [is named](AppRef::on). One deadline covers the whole call and travels with it: when it is over nothing is repeated.
//! Dropping the future cancels the work on the other side. Messages of one task to one application on one node arrive in
//! order; only one of more than 256 KiB may overtake casts before it.
//!
//! What holds when the caller, the host, a worker process, the link or the disk fails is said for each kind of message in
//! `node/docs/promises.md`, beside the sources.
//!
//! Work is spread by [`AppRef::map`] (many items, one action, exactly one outcome for each, a journal if it is to survive
//! its own process) and by [`topology`] (flows through stages, at least once).
//!
//! # What it stands on
//!
//! A tokio runtime: start a node within one. Two nodes in one process are as good as two in two processes. The library
//! never prints; it logs with `tracing`. A panic in an application is an error of that one message.
//!
//! # Reading order
//!
//! For users: [`Node`], [`Builder`], [`Actions`], [`AppRef`], [`CallError`], [`Event`], [`Map`], [`topology`]. For those
//! who change it:
//! `node.rs` and `builder.rs` (what users see), `application.rs`, `actions.rs`, `registry.rs` (what is hosted),
//! `factories.rs` and `installation.rs` (what others may have hosted here, and how), `payload.rs` and `json.rs` (how values
//! travel), `app_ref.rs`, `strategy.rs`,
//! `selection.rs` and `predicate.rs` (where a message goes), `one_to_many.rs` and `topics.rs` (to many), `secret.rs` and
//! `ticket.rs` (who may join), `permissions.rs` (who may do what), `links.rs` (how it gets there: the lanes are in
//! `multinodes-behaviour`), `directory.rs` (what is known of the swarm, without any clock or network), `driver.rs` and
//! the files beside it (the one task that owns the network). `map/engine.rs` spreads items, `topology.rs` begins with a
//! reading order of its own. `core.rs` is what all of them share.
//!
//! # Cargo features
//!
//! `cli` (default) is the `multinodes` command: the library alone wants `default-features = false`. `cel` (in `cli`) is
//! what chooses hosts by predicates, `journal` (in `cli`) what lets a map go on where it stopped. `wan` adds QUIC, DNS and
//! WebSocket, `wasm` adds code that travels, `full` is everything.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test may panic"))]

mod actions;
mod addresses;
mod announcement;
mod app_ref;
mod application;
mod attempts;
mod builder;
mod built_in;
mod call_error;
#[cfg(feature = "wasm")]
#[doc(hidden)]
pub mod code;
mod core;
mod counters;
mod crew;
mod description;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod diagnosis;
mod directory;
mod driver;
mod events;
mod explain;
mod factories;
#[doc(hidden)]
pub mod files;
mod identity;
mod installation;
pub mod json;
mod later;
mod length;
mod links;
pub mod map;
#[cfg(feature = "measure")]
#[doc(hidden)]
pub mod measure;
mod node;
mod one_to_many;
mod payload;
mod permissions;
#[cfg(feature = "cel")]
mod predicate;
#[cfg(not(feature = "cel"))]
#[path = "no_predicate.rs"]
mod predicate;
mod private_file;
mod quoting;
mod random_name;
mod registry;
mod rendezvous;
mod route;
mod secret;
mod selection;
mod shared_keys;
mod strategy;
mod ticket;
mod topics;
pub mod topology;
mod waiting;

pub use actions::Actions;
pub use addresses::JoinError;
pub use announcement::Announcement;
pub use app_ref::{AppRef, DEFAULT_TIMEOUT};
pub use application::{AppError, Application, Context, DEFAULT_CONCURRENCY, DEFAULT_QUEUE, Profile};
pub use attempts::FailedAttempts;
pub use builder::{
    Builder, DEFAULT_DRAIN_TIMEOUT, DEFAULT_HIGH_MARK, DEFAULT_LOW_MARK, DEFAULT_MAX_MESSAGE, MAX_ALL_LABELS,
    MAX_LABEL, MAX_LABELS, MAX_NODE_NAME, StartError,
};
pub use call_error::CallError;
#[cfg(feature = "wasm")]
pub use code::{
    Cid, CidError, Code, CodeError, CodeRef, CodeRule, CodeRuleError, GuestError, Limits as GuestLimits, Rate, Run,
    World,
};
pub use counters::Counters;
pub use description::{ApplicationInfo, Description, Event, Host, LeftReason, NodeInfo, Status};
pub use driver::DriverError;
pub use events::Events;
pub use explain::{Considered, LastError, Verdict};
pub use factories::FactoryError;
pub use identity::{IdentityError, read_identity};
pub use installation::{Everywhere, Installation, Installed};
pub use libp2p::{Multiaddr, PeerId, identity::Keypair};
#[cfg(feature = "journal")]
pub use map::JournalError;
pub use map::{Attempt, ItemError, ItemErrorKind, Map, MapError, MapStatus, Outcome, WorkerStatus};
#[doc(hidden)]
pub use multinodes_behaviour::names::is_hidden;
pub use multinodes_behaviour::{MAX_SWARM_NAME, NameError, SwarmName, names::printable};
pub use node::Node;
pub use one_to_many::{All, HOSTS_AT_ONCE, HostAnswer, HostOutcome, Outcomes, Quorum, QuorumError};
pub use payload::{ArgumentsError, Budget, DecodeError, EncodeError, Overspent, Payload};
pub use permissions::{Caller, Guard, MAX_RULE_FILE, Rule, RuleError, RuleFileError, TargetError};
#[cfg(feature = "cel")]
pub use predicate::{MAX_PREDICATE, Predicate, PredicateError, PredicateFault};
pub use private_file::PrivateFileError;
#[doc(hidden)]
pub use quoting::{quoted, quoted_path};
pub use registry::RegisterError;
pub use secret::{Secret, SecretError};
pub use semver::VersionReq;
pub use serde_json::json;
pub use shared_keys::SharedKey;
pub use strategy::{Candidate, Candidates, Strategy, VersionError};
pub use ticket::{Ticket, TicketError};
pub use topics::{
    Heard, MAX_SUBSCRIPTIONS, MAX_TOPIC, MAX_TOPIC_VALUE, PublishError, Published, SubscribeError, Subscription,
    TopicMessage,
};
pub use waiting::WaitError;

/// The README's own program compiles, too.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
