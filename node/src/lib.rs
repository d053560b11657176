//! Many logical nodes, one swarm.

mod actions;
mod addresses;
mod app_ref;
mod application;
mod builder;
mod built_in;
mod call_error;
mod core;
mod description;
mod directory;
mod driver;
mod events;
mod identity;
mod links;
mod node;
mod payload;
mod random_name;
mod registry;
mod rendezvous;
mod selection;

pub use actions::Actions;
pub use addresses::JoinError;
pub use app_ref::{AppRef, DEFAULT_TIMEOUT};
pub use application::{AppError, Application, Context, DEFAULT_CONCURRENCY, DEFAULT_QUEUE, Profile};
pub use builder::{Builder, DEFAULT_HIGH_MARK, DEFAULT_LOW_MARK, DEFAULT_MAX_MESSAGE, MAX_NODE_NAME, StartError};
pub use call_error::CallError;
pub use description::{ApplicationInfo, Description, Event, Host, LeftReason, NodeInfo, Status};
pub use driver::DriverError;
pub use events::Events;
pub use identity::IdentityError;
pub use libp2p::{Multiaddr, PeerId, identity::Keypair};
pub use multinodes_behaviour::{MAX_SWARM_NAME, NameError, SwarmName};
pub use node::{Counters, Node, WaitError};
pub use payload::{ArgumentsError, DecodeError, EncodeError, Payload};
pub use registry::RegisterError;
pub use serde_json::json;
