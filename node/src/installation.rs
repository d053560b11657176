//! Brings applications to other nodes: to one, to all, or to each newcomer as well.

use std::{
    collections::HashMap,
    fmt,
    pin::Pin,
    sync::{Arc, Weak},
    task::{Context, Poll},
    time::Duration,
};

use futures::{Stream, StreamExt, stream};
use libp2p::PeerId;
use multinodes_behaviour::names;
use serde_json::Value;
use tokio::{
    sync::{Semaphore, mpsc, watch},
    task::{JoinHandle, JoinSet},
};

use crate::{
    app_ref::DEFAULT_TIMEOUT, built_in, call_error::CallError, core::Core, description::Host, factories::is_offered,
    node::Node,
};

/// Nodes that are asked at once.
const AT_ONCE: usize = 16;

/// Outcomes that are kept for a slow reader of [`Everywhere`].
const KEPT: usize = 1024;

/// The pause before a node that could not be asked is asked again; it doubles each time up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// An application that nodes are to host, made by a factory that they [offer](crate::Builder::installable): see
/// [`Node::install_from`].
///
/// Installing the same application twice does no harm: it is there already. If the name is taken by anything else, by
/// the same factory with another configuration too, the node refuses.
#[derive(Clone)]
#[must_use = "nothing is installed until it is said where"]
pub struct Installation {
    node: Node,
    order: Arc<Order>,
    timeout: Duration,
}

/// What is asked of a node.
struct Order {
    what: What,
    application: String,
    /// Only nodes that this takes.
    #[cfg(feature = "cel")]
    matching: Option<crate::predicate::Predicate>,
}

/// What the application is made of.
enum What {
    Factory {
        factory: String,
        config: Value,
    },
    #[cfg(feature = "wasm")]
    Code {
        code: crate::code::Code,
        config: crate::payload::Payload,
    },
}

impl fmt::Display for What {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Factory { factory, .. } => write!(formatter, "factory `{factory}`"),
            #[cfg(feature = "wasm")]
            Self::Code { code, .. } => write!(formatter, "code `{}`", code.cid()),
        }
    }
}

impl Installation {
    pub(crate) fn new(node: Node, factory: String, application: String, config: Value) -> Self {
        Self::of(node, What::Factory { factory: names::into_normal(factory), config }, application)
    }

    /// Of code, without a configuration.
    #[cfg(feature = "wasm")]
    pub(crate) fn of_code(node: Node, code: crate::code::Code, application: String) -> Self {
        let config = crate::payload::Payload::encode(&Value::Null).unwrap_or_default();
        Self::of(node, What::Code { code, config }, application)
    }

    fn of(node: Node, what: What, application: String) -> Self {
        let order = Order {
            what,
            application: names::into_normal(application),
            #[cfg(feature = "cel")]
            matching: None,
        };
        Self { node, order: Arc::new(order), timeout: DEFAULT_TIMEOUT }
    }

    /// Gives code its configuration, any value of at most 64 KiB encoded: it is started with it. A factory has been given
    /// its own already, and keeps it.
    ///
    /// # Errors
    ///
    /// [`CallError::Unsendable`]: it cannot be encoded.
    #[cfg(feature = "wasm")]
    pub fn config<T: serde::Serialize>(mut self, value: &T) -> Result<Self, CallError> {
        let encoded = crate::payload::Payload::encode(value).map_err(crate::route::unsendable)?;
        if let What::Code { code, .. } = &self.order.what {
            let what = What::Code { code: code.clone(), config: encoded };
            let order = Order {
                what,
                application: self.order.application.clone(),
                #[cfg(feature = "cel")]
                matching: self.order.matching.clone(),
            };
            self.order = Arc::new(order);
        }
        Ok(self)
    }

    /// Only on nodes that match a predicate in [CEL](https://cel.dev) about `node`, for [`all`](Self::all) and
    /// [`everywhere`](Self::everywhere).
    ///
    /// # Errors
    ///
    /// The text is no predicate, or looks at an application.
    #[cfg(feature = "cel")]
    pub fn matching(mut self, predicate: &str) -> Result<Self, crate::predicate::PredicateError> {
        let predicate = crate::predicate::Predicate::of_node(predicate)?;
        let what = match &self.order.what {
            What::Factory { factory, config } => What::Factory { factory: factory.clone(), config: config.clone() },
            #[cfg(feature = "wasm")]
            What::Code { code, config } => What::Code { code: code.clone(), config: config.clone() },
        };
        self.order = Arc::new(Order { what, application: self.order.application.clone(), matching: Some(predicate) });
        Ok(self)
    }

    /// How long a node may take to install it: 10 s by default.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Installs it on one node, given by its name or its peer id; this one is as good as any other.
    ///
    /// `Ok` means that the node hosts it, and a message to it on that node arrives. All others learn of it a moment
    /// later.
    ///
    /// # Errors
    ///
    /// See [`CallError`]: [`Failed`](CallError::Failed) with the code `no_such_factory`, `name_taken` or
    /// `too_many_installed`, or whatever the factory itself says; [`BadArguments`](CallError::BadArguments) if the
    /// factory does not take the configuration, or the name cannot be an application's. For code
    /// [`Forbidden`](CallError::Forbidden) if no rule of that node lets this one install it; [`Failed`](CallError::Failed)
    /// with what the guest says at its start, or with the code `superseded` (a later version is there), `name_taken`,
    /// `too_many_installed`, `not_kept` (no room on its disk), `bad_code`, `no_code`, `trapped`, or that of a limit.
    pub async fn on(&self, node: impl Into<String>) -> Result<(), CallError> {
        let Order { what, application, .. } = &*self.order;
        match what {
            What::Factory { factory, config } => {
                let target = self.node.app(built_in::NAME).on(node).timeout(self.timeout);
                target.call("install", (factory, application, config)).await
            }
            #[cfg(feature = "wasm")]
            What::Code { code, config } => {
                let on = node.into();
                crate::code::sending::install_on(&self.node, code, application, config, &on, self.timeout).await
            }
        }
    }

    /// Installs it on all nodes that are known now and offer the factory, this one included if it does. Gives what
    /// came of it on each, in order of their names; nothing if nobody offers it.
    pub async fn all(&self) -> Vec<Installed> {
        let on_each = self.offers().into_iter().map(|host| async move {
            let result = self.on(host.peer_id.to_string()).await;
            Installed { node: host.node.clone(), peer_id: host.peer_id, result }
        });
        stream::iter(on_each).buffered(AT_ONCE).collect().await
    }

    /// Installs it on all nodes that offer the factory, and on each that joins later, once in its life: until what
    /// this gives is dropped. Where it is installed by then, it stays.
    ///
    /// A node that cannot be reached or is busy is asked again as long as it is known. A node that refuses is not.
    pub fn everywhere(&self) -> Everywhere {
        let (outcomes, kept) = mpsc::channel(KEPT);
        let core = self.node.core();
        let spread = Spread {
            core: Arc::downgrade(core),
            order: self.order.clone(),
            timeout: self.timeout,
            permits: Arc::new(Semaphore::new(AT_ONCE)),
            outcomes,
        };
        let changed = core.changed.subscribe();
        let commands = core.commands.clone();
        let run = async move {
            tokio::select! {
                () = spread.run(changed) => {}
                // The node has stopped, even if somebody still holds a handle of it.
                () = commands.closed() => {}
            }
        };
        Everywhere { outcomes: kept, task: tokio::spawn(run) }
    }

    /// The nodes that are known and offer the factory, in order of their names: hosts of the application `node`.
    #[must_use]
    pub fn offers(&self) -> Vec<Arc<Host>> {
        self.order.offers(&self.node)
    }
}

impl Order {
    fn offers(&self, node: &Node) -> Vec<Arc<Host>> {
        let mut hosts = node.hosts(built_in::NAME);
        hosts.retain(|host| match &self.what {
            What::Factory { factory, .. } => is_offered(factory, &host.description),
            #[cfg(feature = "wasm")]
            What::Code { .. } => crate::code::sending::is_open(host),
        });
        #[cfg(feature = "cel")]
        if let Some(predicate) = &self.matching {
            hosts.retain(|host| predicate.takes_node(&host.info));
        }
        hosts
    }
}

impl fmt::Debug for Installation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Installation")
            .field("what", &format_args!("{}", self.order.what))
            .field("application", &self.order.application)
            .finish_non_exhaustive()
    }
}

/// What came of installing an application on one node.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Installed {
    /// The node's name.
    pub node: String,
    /// The node's peer id.
    pub peer_id: PeerId,
    /// `Ok` means that the node hosts it.
    pub result: Result<(), CallError>,
}

/// Installs an application on all nodes, newcomers included, as long as it is kept: see [`Installation::everywhere`].
///
/// Tells what came of it on each node. Nobody has to listen; of more than 1024 that nobody has taken, the newest are
/// only logged.
#[must_use = "nothing more is installed when it is dropped"]
pub struct Everywhere {
    outcomes: mpsc::Receiver<Installed>,
    task: JoinHandle<()>,
}

impl Everywhere {
    /// What came of it on the next node, or `None` when this node has stopped.
    pub async fn next(&mut self) -> Option<Installed> {
        self.outcomes.recv().await
    }
}

impl Stream for Everywhere {
    type Item = Installed;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Installed>> {
        self.outcomes.poll_recv(cx)
    }
}

impl Drop for Everywhere {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl fmt::Debug for Everywhere {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Everywhere").finish_non_exhaustive()
    }
}

/// The work of [`Everywhere`]. Does not keep the node.
#[derive(Clone)]
struct Spread {
    core: Weak<Core>,
    order: Arc<Order>,
    timeout: Duration,
    /// To ask a node; nobody holds one while it pauses.
    permits: Arc<Semaphore>,
    outcomes: mpsc::Sender<Installed>,
}

impl Spread {
    async fn run(self, mut changed: watch::Receiver<u64>) {
        // Both hold one entry for each node that is known, at the most, and the directory is bounded.
        let mut seen: HashMap<PeerId, u64> = HashMap::new();
        let mut tasks = JoinSet::new();
        loop {
            while tasks.try_join_next().is_some() {}
            changed.mark_unchanged();
            let Some(offers) = self.core.upgrade().map(|core| self.order.offers(&Node::inner(core))) else { return };
            let known: HashMap<_, _> = offers.iter().map(|host| (host.peer_id, life(host))).collect();
            for host in offers {
                if seen.get(&host.peer_id) != Some(&life(&host)) {
                    tasks.spawn(self.clone().bring(host));
                }
            }
            seen = known;
            if changed.changed().await.is_err() {
                return;
            }
        }
    }

    /// Installs it on one node, however often that has to be tried, as long as the node is there.
    async fn bring(self, host: Arc<Host>) {
        let mut pause = FIRST_PAUSE;
        while let Some(core) = self.core.upgrade().filter(|core| is_there(core, &host)) {
            let installation =
                Installation { node: Node::inner(core), order: self.order.clone(), timeout: self.timeout };
            let permit = self.permits.acquire().await;
            let result = installation.on(host.peer_id.to_string()).await;
            drop((permit, installation));
            match result {
                Err(CallError::Stopped) => return,
                Err(error) if error.is_retryable() => {
                    tracing::debug!(node = %host.node, %error, "a node will be asked again to install an application");
                    tokio::time::sleep(pause).await;
                    pause = LONGEST_PAUSE.min(pause * 2);
                }
                result => return self.report(&host, result),
            }
        }
    }

    fn report(&self, host: &Host, result: Result<(), CallError>) {
        let Order { what, application, .. } = &*self.order;
        match &result {
            Ok(()) => tracing::info!(node = %host.node, %application, %what, "an application was brought to a node"),
            Err(error) => tracing::warn!(node = %host.node, %application, %what, %error, "a node installs nothing"),
        }
        // It is logged; nobody has to read it here.
        let _ = self.outcomes.try_send(Installed { node: host.node.clone(), peer_id: host.peer_id, result });
    }
}

/// Tells two lives of a node apart. This node has only one, which the directory learns of a little later.
fn life(host: &Host) -> u64 {
    if host.local { 0 } else { host.info.incarnation }
}

fn is_there(core: &Core, host: &Host) -> bool {
    let snapshot = core.snapshot.load();
    host.local || snapshot.by_peer.get(&host.peer_id).is_some_and(|info| info.incarnation == host.info.incarnation)
}
