//! Describes a node and starts it: the builder collects, `resolve` checks, `start` runs.

mod resolve;
mod start_error;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use libp2p::{PeerId, identity::Keypair};
use multinodes_behaviour::{Grant, SwarmName, names, record};
use serde::de::DeserializeOwned;

pub use self::start_error::StartError;
#[cfg(feature = "wasm")]
use crate::code::{CodeRule, DataFolderError, SealKey, installed, service};
use crate::{
    application::{AppError, Application},
    built_in,
    core::Core,
    driver,
    factories::{Factory, Maker},
    node::{Guard, Node},
    permissions::{self, Rule, TargetError, Wishes},
    secret::Secret,
    ticket::Ticket,
};

/// The largest message unless it is said otherwise: 16 MiB.
pub const DEFAULT_MAX_MESSAGE: usize = 16 * 1024 * 1024;

/// Below so many connections a node looks for more of them.
pub const DEFAULT_LOW_MARK: usize = 32;

/// Above so many it lets the idlest go.
pub const DEFAULT_HIGH_MARK: usize = 96;

/// How long a node that stops lets calls run on unless it is said otherwise.
pub const DEFAULT_DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// The most labels of a node.
pub const MAX_LABELS: usize = record::MAX_LABELS;

/// The longest key, and the longest value, of a label, in bytes.
pub const MAX_LABEL: usize = record::MAX_TEXT;

/// All labels of a node together, in bytes: its record has 48 KiB, and its applications want most of it.
pub const MAX_ALL_LABELS: usize = 8 * 1024;

/// The longest name of a node, in bytes.
pub const MAX_NODE_NAME: usize = 128;

/// The most network interfaces that can be named.
const MAX_INTERFACES: usize = 64;

/// The longest name of one, in bytes.
const MAX_INTERFACE_NAME: usize = 255;

/// Everything that can be said about a node before it starts. All of it has a sensible default.
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until `start`"]
pub struct Builder {
    name: Option<String>,
    labels: BTreeMap<String, String>,
    swarm: String,
    secret: Option<Secret>,
    listen: Vec<String>,
    join: Vec<String>,
    identity: Option<PathBuf>,
    keypair: Option<Keypair>,
    mdns: bool,
    interfaces: Vec<String>,
    kademlia: bool,
    rendezvous: bool,
    rendezvous_folder: Option<PathBuf>,
    runtime_folder: Option<PathBuf>,
    passive: bool,
    marks: (usize, usize),
    max_message: usize,
    drain_timeout: Duration,
    factories: Vec<Factory>,
    wishes: Wishes,
    grant: Option<Grant>,
    /// A ticket would take the place of a secret.
    torn: bool,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            name: None,
            labels: BTreeMap::new(),
            swarm: SwarmName::default().to_string(),
            secret: None,
            listen: Vec::new(),
            join: Vec::new(),
            identity: None,
            keypair: None,
            mdns: true,
            interfaces: Vec::new(),
            kademlia: true,
            rendezvous: true,
            rendezvous_folder: None,
            runtime_folder: None,
            passive: false,
            marks: (DEFAULT_LOW_MARK, DEFAULT_HIGH_MARK),
            max_message: DEFAULT_MAX_MESSAGE,
            drain_timeout: DEFAULT_DRAIN_TIMEOUT,
            factories: Vec::new(),
            wishes: Wishes::default(),
            grant: None,
            torn: false,
        }
    }
}

impl Builder {
    /// The node's name, 1 to 128 bytes without white space. A random one by default.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// A label, by which others choose nodes: see [`AppRef::matching`](crate::AppRef::matching). Repeatable, at most 64;
    /// of two with one key the later counts. Key and value have at most 256 bytes in the normal form NFC, into which they are
    /// brought, all labels together 8 KiB. A key has no white space and no `=`.
    pub fn label(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.insert(names::into_normal(key.into()), names::into_normal(value.into()));
        self
    }

    /// The name of the swarm, `default` by default. Nodes of different swarms never meet.
    pub fn swarm(mut self, swarm: impl Into<String>) -> Self {
        self.swarm = swarm.into();
        self
    }

    /// Makes the swarm a private one: nodes that have not the same secret and the same name connect to none of its nodes,
    /// and see no name, no record and no size of it. It speaks TCP only; with QUIC or WebSocket among the addresses, the
    /// node does not start.
    pub fn secret(mut self, secret: Secret) -> Self {
        self.secret = Some(secret);
        self
    }

    /// Joins with a ticket: sets the swarm's name and secret, and adds the ticket's addresses to those to join through.
    /// If labels are signed into it, the node proves them to its peers, and trusts who has signed them. With a
    /// [`secret`](Self::secret) that was given before and is not that of the ticket, the node does not start: it would be
    /// in another swarm than one of the two says, maybe in an open one.
    pub fn ticket(mut self, ticket: Ticket) -> Self {
        self.grant = ticket.grant().cloned();
        self.wishes.trusted.extend(ticket.issuer());
        self.torn |= self.secret.is_some() && self.secret.as_ref() != ticket.secret();
        self.secret = ticket.secret().cloned();
        self.join.extend(ticket.addresses().iter().map(ToString::to_string));
        self.swarm(ticket.swarm())
    }

    /// An address to listen on, such as `/ip4/0.0.0.0/tcp/4001`. Repeatable. By default any free port on all
    /// interfaces.
    pub fn listen(mut self, address: impl Into<String>) -> Self {
        self.listen.push(address.into());
        self
    }

    /// The address of a node to join through: a multiaddress, or `host:port`. Repeatable; retried for ever.
    pub fn join(mut self, address: impl Into<String>) -> Self {
        self.join.push(address.into());
        self
    }

    /// Keeps the node's key in a file, which is made if there is none. By default each run has a new key.
    pub fn identity(mut self, file: impl AsRef<Path>) -> Self {
        self.identity = Some(file.as_ref().to_owned());
        self
    }

    /// Uses this key.
    pub fn keypair(mut self, keypair: Keypair) -> Self {
        self.keypair = Some(keypair);
        self
    }

    /// Whether nodes of the LAN are found by mDNS. On by default.
    pub fn mdns(mut self, on: bool) -> Self {
        self.mdns = on;
        self
    }

    /// A network interface on which nodes of the LAN are looked for by mDNS, such as `eth0`. Repeatable, at most 64; it may
    /// come and go. Without any those are used behind which others may be: not those without a carrier, the ports of a
    /// bridge, and bridges without a default route behind them, such as those of containers, unless there are no others.
    /// Within a container all are used.
    pub fn interface(mut self, name: impl Into<String>) -> Self {
        self.interfaces.push(name.into());
        self
    }

    /// Whether addresses of nodes beyond the LAN are found by Kademlia. On by default.
    pub fn kademlia(mut self, on: bool) -> Self {
        self.kademlia = on;
        self
    }

    /// Whether nodes of the same host and user are found through a folder. On by default.
    pub fn rendezvous(mut self, on: bool) -> Self {
        self.rendezvous = on;
        self
    }

    /// The folder in which nodes of the same host find each other, instead of one for each user and swarm.
    pub fn rendezvous_folder(mut self, folder: impl AsRef<Path>) -> Self {
        self.rendezvous_folder = Some(folder.as_ref().to_owned());
        self
    }

    /// Where the rendezvous folder is, one for each swarm: `multinodes` and the swarm's name (or
    /// [mark](Secret::mark)) below `folder`, instead of below `$XDG_RUNTIME_DIR`.
    pub fn runtime_folder(mut self, folder: impl AsRef<Path>) -> Self {
        self.runtime_folder = Some(folder.as_ref().to_owned());
        self
    }

    /// A passive node sends messages and sees the swarm, but hosts nothing, is not announced and leaves no trace.
    pub fn passive(mut self, passive: bool) -> Self {
        self.passive = passive;
        self
    }

    /// Below `low` connections the node looks for more, above `high` it lets the idlest go. 32 and 96 by default; `low` is at
    /// least 1, and less than `high`.
    pub fn connections(mut self, low: usize, high: usize) -> Self {
        self.marks = (low, high);
        self
    }

    /// Lets those peers connect whom one of these rules takes, and nobody else. Repeatable. Without it everybody may who
    /// is not [denied](Self::deny_peer). One that looks at labels is asked when the peer has shown its credential, before
    /// anything of the swarm is told to it.
    pub fn allow_peer(mut self, rule: impl Into<Rule>) -> Self {
        self.wishes.allow.push(rule.into());
        self
    }

    /// Does not let those peers connect whom one of these rules takes, allowed or not. Repeatable.
    pub fn deny_peer(mut self, rule: impl Into<Rule>) -> Self {
        self.wishes.deny.push(rule.into());
        self
    }

    /// Lets those peers use a hosted application whom one of its rules takes, and nobody else: `target` is its name, or
    /// `NAME/ACTION` for an action (after the last `/`), or `NAME/tell()` for what is told to it. The more specific rules
    /// decide. The application's own rules, see [`Actions::allow`](crate::Actions::allow), have to be met as well.
    /// Repeatable. Works for the application `node` that every node has, too.
    ///
    /// # Errors
    ///
    /// `target` names nothing.
    pub fn allow(mut self, target: &str, rule: impl Into<Rule>) -> Result<Self, TargetError> {
        let (application, part) = permissions::target(target)?;
        let guard = self.wishes.calls.remove(&application).unwrap_or_default();
        self.wishes.calls.insert(application, guard.with(part, rule.into()));
        Ok(self)
    }

    /// Runs or installs code of others as this rule says; without one, nobody's. Repeatable: the first rule that admits
    /// counts, with its limits.
    #[cfg(feature = "wasm")]
    pub fn allow_code(mut self, rule: CodeRule) -> Self {
        self.wishes.code.rules.push(rule);
        self
    }

    /// How much memory all guests of the node may have together, in bytes: those that run, those that stay, and those that are
    /// made ahead of their use. Whoever finds no room gets the error `node_memory`. Half of what the machine has, or of
    /// what this process may have of it, unless said otherwise.
    #[cfg(feature = "wasm")]
    pub fn guest_memory(mut self, bytes: usize) -> Self {
        self.wishes.code.memory = Some(bytes);
        self
    }

    /// Where the node keeps the code that was sent to it, what was compiled of it, and what is installed, for its next
    /// start: in a folder for this user alone. With an [identity](Self::identity) file it is beside that file, with `.data`
    /// behind its name, unless said otherwise; without both it is in memory. Two nodes cannot have the same: the second
    /// does not start.
    #[cfg(feature = "wasm")]
    pub fn data_folder(mut self, folder: impl AsRef<Path>) -> Self {
        self.wishes.code.folder = Some(folder.as_ref().to_owned());
        self
    }

    /// Which `multinodes` command compiles code, in a process of its own. By default one that is beside the program, or
    /// in the folder above, or in `PATH`; without any, code is compiled in this process, which a bad one can exhaust.
    #[cfg(feature = "wasm")]
    pub fn compiler(mut self, command: impl AsRef<Path>) -> Self {
        self.wishes.code.home = Some(command.as_ref().to_owned());
        self
    }

    /// Trusts the labels that this peer has signed into tickets. Repeatable. A node always trusts itself, and the issuer
    /// of the ticket with which it has joined.
    pub fn trust(mut self, issuer: PeerId) -> Self {
        self.wishes.trusted.push(issuer);
        self
    }

    /// The largest message that is sent or taken, in bytes: 1 KiB to 1 GiB, 16 MiB by default.
    pub fn max_message(mut self, bytes: usize) -> Self {
        self.max_message = bytes;
        self
    }

    /// How long [`Node::stop`] lets calls run on that run here, 10 s by default. Those that only wait for their turn are
    /// given back at once.
    pub fn drain_timeout(mut self, timeout: Duration) -> Self {
        self.drain_timeout = timeout;
        self
    }

    /// Offers to make applications: any node of the swarm may then let this one host an application that `make` makes,
    /// under a free name, and take away again what was installed so. Repeatable, at most 64. Without it nobody can.
    ///
    /// `make` gets the configuration that the other node sends, read as its own type (`()` for none, JSON's `Value` for
    /// anything); one of another type is refused before it runs. It must not block for long.
    ///
    /// Others use [`Node::install_from`], or call the actions of the application `node`: `install` with the factory's
    /// name, the application's name and the configuration, `uninstall` with the application's name, `installable`.
    ///
    /// ```
    /// use multinodes::{Actions, Node};
    ///
    /// let builder = Node::builder().installable("multiplier", |factor: i64| {
    ///     if factor == 0 {
    ///         return Err("what is multiplied by 0 is lost");
    ///     }
    ///     Ok(Actions::new().action("run", move |number: i64| async move { factor * number }))
    /// });
    /// ```
    pub fn installable<C, A, E>(
        mut self,
        factory: impl Into<String>,
        make: impl Fn(C) -> Result<A, E> + Send + Sync + 'static,
    ) -> Self
    where
        C: DeserializeOwned,
        A: Application,
        E: Into<AppError>,
    {
        self.factories.push(Factory::new(factory.into(), make));
        self
    }

    /// Starts the node. When it returns the node listens, and has begun to look for others.
    ///
    /// # Errors
    ///
    /// See [`StartError`]. That multicast or another way of finding others does not work is no error: it is told by
    /// [`Event::Degraded`](crate::Event::Degraded).
    pub async fn start(self) -> Result<Node, StartError> {
        #[cfg_attr(not(feature = "wasm"), allow(unused_mut, reason = "only code has a folder"))]
        let mut wishes = self.wishes.clone();
        #[cfg(feature = "wasm")]
        {
            let beside = self.identity.as_ref().map(|file| {
                let mut folder = file.clone().into_os_string();
                folder.push(".data");
                folder.into()
            });
            wishes.code.folder = wishes.code.folder.or(beside).map(|folder: PathBuf| folder.join("code"));
        }
        #[cfg(feature = "wasm")]
        let takes_code = !wishes.code.rules.is_empty();
        #[cfg(not(feature = "wasm"))]
        let takes_code = false;
        let (settings, identity, factories) = self.resolve()?;
        let passive = settings.passive;
        #[cfg(feature = "wasm")]
        {
            // One that is made anew at each start would know nothing that it has compiled.
            let kept = identity.is_kept().then(|| SealKey::of_identity(&identity.keypair));
            wishes.code.seal = kept.flatten();
        }
        let (core, commands) = Core::new(settings, identity.keypair.clone(), wishes);
        if !passive {
            // Only a name that is too long or taken is refused, and a record without anything else is small.
            let registered =
                core.registry.register(built_in::NAME, built_in::node(factories, takes_code), Maker::User, |_| Ok(()));
            debug_assert!(registered.is_ok(), "the first application of a node");
        }
        #[cfg(feature = "wasm")]
        {
            // Passive nodes have it, too: what they send is fetched from them.
            let registered = core.registry.register(service::NAME, service::CodeService, Maker::User, |_| Ok(()));
            debug_assert!(registered.is_ok(), "a name that nothing else can have");
        }
        #[cfg(feature = "wasm")]
        if !passive {
            let core = core.clone();
            let claimed = tokio::task::spawn_blocking(move || core.workshop.claim()).await;
            claimed.unwrap_or(Err(DataFolderError::Released))?;
        }
        #[cfg(feature = "wasm")]
        let has_guests = !passive && installed::load(&core).await?;
        let driver = driver::start(core.clone(), commands).await?;
        let guard = Guard::new(core.clone(), driver, identity);
        #[cfg(feature = "wasm")]
        if has_guests {
            installed::restore(core.clone()).await;
        }
        Ok(Node::new(core, guard))
    }
}
