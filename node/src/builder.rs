//! Describes a node and starts it: the builder collects, `resolve` checks, `start` runs.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use libp2p::{Multiaddr, PeerId, identity::Keypair, multiaddr::Protocol};
use multinodes_behaviour::{Grant, NameError, Privacy, RecordError, SwarmName, record};
use serde::de::DeserializeOwned;

#[cfg(feature = "wasm")]
use crate::code::{CodeRule, installed, service};
use crate::{
    addresses::{self, JoinError},
    application::{AppError, Application},
    built_in,
    core::{Core, Settings},
    driver::{self, DriverError},
    factories::{Factories, Factory, FactoryError, Maker},
    identity::{Identity, IdentityError},
    node::{Guard, Node},
    permissions::{self, Rule, RuleError, TargetError, Wishes},
    random_name::random_name,
    rendezvous,
    secret::Secret,
    ticket::Ticket,
};

/// The largest message unless it is said otherwise: 16 MiB.
pub const DEFAULT_MAX_MESSAGE: usize = 16 * 1024 * 1024;

/// A largest message above this would not fit a frame.
const LARGEST_MAX_MESSAGE: usize = 1024 * 1024 * 1024;

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
    /// of two with one key the later counts. Key and value have at most 256 bytes, all labels together 8 KiB. A key has
    /// no white space and no `=`.
    pub fn label(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.insert(key.into(), value.into());
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
    /// If labels are signed into it, the node proves them to its peers, and trusts who has signed them.
    pub fn ticket(mut self, ticket: Ticket) -> Self {
        self.grant = ticket.grant().cloned();
        self.wishes.trusted.extend(ticket.issuer());
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

    /// Below `low` connections the node looks for more, above `high` it lets the idlest go. 32 and 96 by default.
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

    /// Where the node keeps the code that was sent to it, what was compiled of it, and what is installed, for its next
    /// start: in a folder for this user alone. With an [identity](Self::identity) file it is beside that file, with `.data`
    /// behind its name, unless said otherwise; without both it is in memory.
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

    /// The largest message that is sent or taken, in bytes; 16 MiB by default.
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
        let driver = driver::start(core.clone(), commands).await?;
        let guard = Guard::new(core.clone(), driver, identity);
        #[cfg(feature = "wasm")]
        if !passive {
            installed::restore(core.clone()).await;
        }
        Ok(Node::new(core, guard))
    }

    pub(crate) fn resolve(self) -> Result<(Settings, Identity, Factories), StartError> {
        let name = self.name.unwrap_or_else(random_name);
        let fits = (1..=MAX_NODE_NAME).contains(&name.len())
            && !name.chars().any(|character| character.is_control() || character.is_whitespace())
            && name.parse::<libp2p::PeerId>().is_err();
        if !fits {
            return Err(StartError::Name { name: name.chars().take(80).collect() });
        }
        check_labels(&self.labels)?;
        if let Some(rule) = self.wishes.allow.iter().chain(&self.wishes.deny).find(|rule| rule.is_about_requests()) {
            return Err(StartError::Rule(RuleError::Request { rule: format!("{rule:?}") }));
        }
        let swarm: SwarmName = self.swarm.parse()?;
        let listen = match (&self.listen[..], self.passive) {
            ([], true) => Vec::new(),
            ([], false) => vec![any_port(Protocol::Ip4([0; 4].into())), any_port(Protocol::Ip6([0; 16].into()))],
            (given, _) => given.iter().map(|address| listen_address(address)).collect::<Result<_, _>>()?,
        };
        for address in &self.join {
            addresses::parse_join(address).map_err(StartError::Join)?;
        }
        let privacy = self.secret.as_ref().map(|secret| secret.privacy(&swarm));
        if privacy.is_some() {
            let joins = self.join.iter().filter_map(|text| text.trim().parse().ok());
            if let Some(address) = joins.chain(listen.iter().cloned()).find(|address| !is_guarded(address)) {
                return Err(StartError::Unguarded { address });
            }
        }
        let (low_mark, high_mark) = self.marks;
        if low_mark == 0 || high_mark <= low_mark {
            return Err(StartError::Marks { low: low_mark, high: high_mark });
        }
        if !(1024..=LARGEST_MAX_MESSAGE).contains(&self.max_message) {
            return Err(StartError::MaxMessage { size: self.max_message });
        }
        let factories = Factories::new(self.factories, self.passive)?;
        let identity = match (self.identity, self.keypair) {
            (_, Some(keypair)) => Identity::given(keypair),
            (Some(path), None) => Identity::from_file(&path)?,
            (None, None) => Identity::ephemeral(),
        };
        let peer_id = identity.keypair.public().to_peer_id();
        let credential = self.grant.as_ref().map(|grant| grant.claim(&swarm, &peer_id));
        // Who listens only within the process is found by nobody else.
        let within = !listen.is_empty() && listen.iter().all(is_memory);
        let mark = privacy.as_ref().map_or(swarm.as_str(), Privacy::mark);
        let rendezvous = self.rendezvous.then(|| match (self.rendezvous_folder, &self.runtime_folder) {
            (Some(folder), _) => folder,
            (None, Some(below)) => rendezvous::folder_in(below, mark),
            (None, None) => rendezvous::default_folder(mark),
        });
        let settings = Settings {
            name,
            labels: self.labels,
            swarm,
            secret: self.secret,
            privacy,
            listen,
            join: self.join,
            mdns: self.mdns && !within,
            kademlia: self.kademlia,
            rendezvous: rendezvous.filter(|_| !within),
            passive: self.passive,
            low_mark,
            high_mark,
            max_message: self.max_message,
            drain_timeout: self.drain_timeout,
            grant: self.grant,
            credential: credential.transpose().map_err(StartError::Credential)?,
        };
        Ok((settings, identity, factories))
    }
}

fn check_labels(labels: &BTreeMap<String, String>) -> Result<(), StartError> {
    let unfit = |character: char| character.is_control() || character.is_whitespace() || character == '=';
    for (key, value) in labels {
        let fits = (1..=MAX_LABEL).contains(&key.len()) && !key.contains(unfit) && value.len() <= MAX_LABEL;
        if !fits {
            return Err(StartError::Label { key: key.chars().take(80).collect() });
        }
    }
    let size = labels.iter().map(|(key, value)| key.len() + value.len()).sum();
    if labels.len() > MAX_LABELS || size > MAX_ALL_LABELS {
        return Err(StartError::Labels { count: labels.len(), size });
    }
    Ok(())
}

fn any_port(host: Protocol<'static>) -> Multiaddr {
    Multiaddr::from(host).with(Protocol::Tcp(0))
}

fn listen_address(text: &str) -> Result<Multiaddr, StartError> {
    text.parse().map_err(|error: libp2p::multiaddr::Error| StartError::Listen {
        address: text.to_owned(),
        reason: error.to_string(),
    })
}

fn is_memory(address: &Multiaddr) -> bool {
    matches!(address.iter().next(), Some(Protocol::Memory(_)))
}

/// Whether a secret can guard what is said there: memory, or TCP with nothing on top.
fn is_guarded(address: &Multiaddr) -> bool {
    let (address, _) = addresses::without_peer(address.clone());
    let parts: Vec<_> = address.iter().collect();
    matches!(parts[..], [Protocol::Memory(_)] | [_, Protocol::Tcp(_)])
}

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The name cannot be a node's.
    #[error("`{name}` cannot name a node: 1 to {MAX_NODE_NAME} bytes without white space can, but no peer id")]
    Name {
        /// The name, shortened.
        name: String,
    },
    /// A label is too long, or its key is of no use.
    #[error(
        "`{key}` cannot be a label: a key of 1 to {MAX_LABEL} bytes without white space and `=`, and a value of at most {MAX_LABEL} bytes can"
    )]
    Label {
        /// Its key, shortened.
        key: String,
    },
    /// There are too many labels.
    #[error("{count} labels with {size} bytes are too many: {MAX_LABELS} with {MAX_ALL_LABELS} bytes are allowed")]
    Labels {
        /// How many.
        count: usize,
        /// Keys and values, in bytes.
        size: usize,
    },
    /// The name cannot be a swarm's.
    #[error(transparent)]
    Swarm(#[from] NameError),
    /// An address to listen on is malformed.
    #[error("`{address}` is no multiaddress to listen on, such as /ip4/0.0.0.0/tcp/4001: {reason}")]
    Listen {
        /// As it was given.
        address: String,
        /// What is wrong with it.
        reason: String,
    },
    /// In a private swarm, an address is of a kind that no secret can guard.
    #[error(
        "`{address}` cannot be used in a private swarm: its secret guards plain TCP only, such as /ip4/0.0.0.0/tcp/4001"
    )]
    Unguarded {
        /// The address to listen on or to join through.
        address: Multiaddr,
    },
    /// The labels of the ticket cannot be shown to peers.
    #[error("the labels of the ticket cannot be shown to peers: {0}")]
    Credential(RecordError),
    /// A rule for connections is none.
    #[error(transparent)]
    Rule(RuleError),
    /// An address to join through is malformed.
    #[error(transparent)]
    Join(JoinError),
    /// The marks make no sense.
    #[error("{low} and {high} cannot be the low and the high mark of connections: 1 <= low < high is needed")]
    Marks {
        /// The low mark.
        low: usize,
        /// The high mark.
        high: usize,
    },
    /// The largest message is too small or too large.
    #[error("{size} bytes cannot be the largest message: 1 KiB to 1 GiB can")]
    MaxMessage {
        /// In bytes.
        size: usize,
    },
    /// A factory cannot be offered.
    #[error(transparent)]
    Factory(#[from] FactoryError),
    /// The identity file cannot be used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The network cannot be started, for example because a port is taken.
    #[error(transparent)]
    Network(#[from] DriverError),
}
