//! The handle of a node.

use std::{
    fmt,
    sync::atomic::Ordering::Relaxed,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use libp2p::{Multiaddr, PeerId};
use multinodes_behaviour::names;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use tokio::{sync::oneshot, task::JoinHandle, time::timeout};

#[cfg(feature = "cel")]
use crate::predicate::{Predicate, PredicateError};
use crate::{
    announcement::Announcement,
    app_ref::AppRef,
    application::Application,
    builder::{Builder, StartError},
    built_in,
    call_error::CallError,
    core::{Command, Core},
    description::{Description, Host, NodeInfo, Status},
    events::Events,
    factories::Maker,
    identity::Identity,
    installation::Installation,
    registry::RegisterError,
    route::Route,
    shared_keys::SharedKey,
};

/// How often `stop` looks whether they are done.
const DRAIN_LOOK: Duration = Duration::from_millis(5);

/// How long a node that stops waits until its peers have sent their last requests.
const PARTING: Duration = Duration::from_millis(300);

/// How long the last goodbyes may take.
const GOODBYE: Duration = Duration::from_secs(3);

/// A longer time to drain than that is as good as for ever, and no clock overflows.
const LONGEST_DRAIN: Duration = Duration::from_secs(365 * 86_400);

/// A node of the swarm: hosts applications, knows the other nodes, and sends messages to applications wherever they
/// are.
///
/// A handle: cheap to clone, every clone is the same node. Dropping the last one stops the node;
/// [`stop`](Self::stop) does it in good order.
#[derive(Clone)]
pub struct Node {
    core: Arc<Core>,
    /// Absent in the handles that applications get.
    guard: Option<Arc<Guard>>,
    /// Nothing that is sent through this handle takes longer: it belongs to a call that ends then.
    deadline: Option<Instant>,
    /// How many calls within calls led to this handle.
    depth: u8,
    /// On whose behalf this node sends through this handle; none on its own.
    principal: Option<PeerId>,
}

/// Lives as long as a handle of the user does.
pub(crate) struct Guard {
    core: Arc<Core>,
    driver: Mutex<Option<JoinHandle<()>>>,
    /// Nobody else's as long as the node runs.
    identity: Mutex<Option<Identity>>,
}

impl Guard {
    pub(crate) fn new(core: Arc<Core>, driver: JoinHandle<()>, identity: Identity) -> Arc<Self> {
        Arc::new(Self { core, driver: Mutex::new(Some(driver)), identity: Mutex::new(Some(identity)) })
    }

    fn take_driver(&self) -> Option<JoinHandle<()>> {
        self.driver.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Lets another node have the files of this one.
    fn release_files(&self) {
        #[cfg(feature = "wasm")]
        self.core.workshop.release();
        drop(self.identity.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.release_files();
        if self.take_driver().is_some() {
            self.core.registry.drain();
            drop(self.core.links.close());
            // The driver says goodbye and ends by itself; with a full channel it ends with the runtime.
            let _ = self.core.commands.try_send(Command::Stop { respond_to: oneshot::channel().0 });
        }
    }
}

impl Node {
    pub(crate) fn new(core: Arc<Core>, guard: Arc<Guard>) -> Self {
        Self { core, guard: Some(guard), deadline: None, depth: 0, principal: None }
    }

    /// A handle for an application: it does not keep the node.
    pub(crate) fn inner(core: Arc<Core>) -> Self {
        Self { core, guard: None, deadline: None, depth: 0, principal: None }
    }

    /// Lets whatever is sent through this handle end at `deadline` at the latest.
    pub(crate) fn limit(&mut self, deadline: Option<Instant>) {
        self.deadline = deadline;
    }

    /// Says how many calls within calls led to this handle.
    pub(crate) fn deepen(&mut self, depth: u8) {
        self.depth = depth;
    }

    /// Says on whose behalf this node sends: applications here see that peer as their caller.
    #[cfg(feature = "wasm")]
    pub(crate) fn act_for(&mut self, principal: PeerId) {
        self.principal = Some(principal);
    }

    /// Whom applications here see as their caller.
    pub(crate) fn principal(&self) -> PeerId {
        self.principal.unwrap_or(self.core.peer_id)
    }

    /// How many calls within calls led to this handle.
    pub(crate) fn depth(&self) -> u8 {
        self.depth
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.core
    }

    /// The end of the call that this handle belongs to.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Begins to describe a node that is to be started.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Starts a node with a random name in the swarm `default`, found by all others on this LAN without configuration.
    ///
    /// # Errors
    ///
    /// See [`StartError`].
    pub async fn start() -> Result<Self, StartError> {
        Self::builder().start().await
    }

    /// The same node without the deadline that its handle has inside a call, see
    /// [`Context::node`](crate::Context::node): for work that goes on after the call is answered.
    #[must_use]
    pub fn unbounded(&self) -> Self {
        Self { deadline: None, ..self.clone() }
    }

    /// The node's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.core.settings.name
    }

    /// The node's peer id: the proof of who it is.
    #[must_use]
    pub fn peer_id(&self) -> PeerId {
        self.core.peer_id
    }

    /// The keys that several living processes use, such as those of a machine and its clone, as far as this node has seen;
    /// at most 64. What is sent to such a peer id reaches now one and now the other.
    #[must_use]
    pub fn shared_keys(&self) -> Vec<SharedKey> {
        self.core.shared_keys()
    }

    /// Where the node listens, loopback included, without its peer id.
    #[must_use]
    pub fn addresses(&self) -> Vec<Multiaddr> {
        self.core.addresses.borrow().clone()
    }

    /// What this node knows of itself and of the others: name, applications, known nodes.
    #[must_use]
    pub fn description(&self) -> Description {
        self.core.description()
    }

    /// All nodes of the swarm that are known, in order of their names; this one included, unless it is passive.
    #[must_use]
    pub fn nodes(&self) -> Vec<Arc<NodeInfo>> {
        let mut nodes = self.core.snapshot.load().nodes.clone();
        if let Some(local) = nodes.iter_mut().find(|node| node.local) {
            // What was registered a moment ago is in it, even before the directory has it.
            *local = self.core.local_info();
        }
        nodes
    }

    /// The nodes for which a predicate is true, in order of their names; see [`Predicate`] for its language. It may look
    /// at `node` only.
    ///
    /// # Errors
    ///
    /// The text is no predicate, or looks at an application.
    #[cfg(feature = "cel")]
    pub fn nodes_matching(&self, predicate: &str) -> Result<Vec<Arc<NodeInfo>>, PredicateError> {
        let predicate = Predicate::of_node(predicate)?;
        let mut nodes = self.nodes();
        nodes.retain(|node| predicate.takes_node(node));
        Ok(nodes)
    }

    /// All known hosts of an application, in order of their names; this node included if it hosts it.
    #[must_use]
    pub fn hosts(&self, application: &str) -> Vec<Arc<Host>> {
        let application = &*names::normal(application);
        let snapshot = self.core.snapshot.load();
        let remote = snapshot.by_application.get(application).map(|hosts| &hosts[..]).unwrap_or_default();
        let mut hosts: Vec<_> = remote.iter().filter(|host| !host.local).cloned().collect();
        if let Some(hosted) = self.core.registry.find(application) {
            hosts.push(Arc::new(self.core.local_host(&hosted)));
            hosts.sort_by(|one, other| (&one.node, one.peer_id).cmp(&(&other.node, other.peer_id)));
        }
        hosts
    }

    /// How far this node has come in finding others.
    #[must_use]
    pub fn status(&self) -> Status {
        *self.core.status.borrow()
    }

    /// Hosts an application under a name. All other nodes are told, those that join later as well.
    ///
    /// A node hosts one application of a name. Several versions of one live side by side on different nodes, which may be
    /// nodes of one program: [`AppRef::version`] chooses among them.
    ///
    /// # Errors
    ///
    /// The name is of no use or taken, or the node's record would become too large, see [`RegisterError`].
    pub fn register(&self, name: &str, application: impl Application) -> Result<(), RegisterError> {
        self.host(name, application, Maker::User)
    }

    /// Hosts what somebody has made.
    pub(crate) fn host(&self, name: &str, application: impl Application, maker: Maker) -> Result<(), RegisterError> {
        if self.core.settings.passive {
            return Err(RegisterError::Passive);
        }
        self.core.registry.register(name, application, maker, |records| self.core.announceable(records))?;
        self.core.announce();
        Ok(())
    }

    /// Hosts an application no longer. Calls that run are finished, and so is what is in its queue.
    ///
    /// # Errors
    ///
    /// Nothing is registered under that name, or it belongs to the node itself.
    pub fn unregister(&self, name: &str) -> Result<(), RegisterError> {
        if name == built_in::NAME {
            return Err(RegisterError::BuiltIn { name: name.to_owned() });
        }
        self.core.registry.unregister(name, |_| true)?;
        self.core.announce();
        Ok(())
    }

    /// Hosts no longer what one of these has made; whatever others have made is not touched.
    pub(crate) fn unhost(&self, name: &str, is_meant: impl FnOnce(&Maker) -> bool) -> Result<(), RegisterError> {
        self.core.registry.unregister(name, |hosted| is_meant(&hosted.maker))?;
        self.core.announce();
        Ok(())
    }

    /// Brings an application to other nodes: lets those that [offer](Builder::installable) `factory` make one with
    /// `config` (`null` for none) and host it as `application`. Say where: [`on`](Installation::on) one,
    /// on [`all`](Installation::all), or [`everywhere`](Installation::everywhere).
    pub fn install_from(
        &self,
        factory: impl Into<String>,
        application: impl Into<String>,
        config: Value,
    ) -> Installation {
        Installation::new(self.clone(), factory.into(), application.into(), config)
    }

    /// Brings code to other nodes, which host it as the application `name`: sandboxed, within limits, and only where a
    /// [rule](crate::CodeRule) allows it. Say where: [`on`](Installation::on) one, on [`all`](Installation::all) that take
    /// code, or [`everywhere`](Installation::everywhere). It is an application like any other, and started anew with its node
    /// if that has a [data folder](Builder::data_folder). It is stopped while no rule gives its sender the right to it:
    /// labels of a ticket count until that expires, and installing it again with a new one renews them.
    ///
    /// Installing it where it is does no harm. Of two versions under one name the later one stays, and of one version that with
    /// the larger hash; it takes the place of the other without losing a message.
    #[cfg(feature = "wasm")]
    pub fn install(&self, name: impl Into<String>, code: &crate::code::Code) -> Installation {
        Installation::of_code(self.clone(), code.clone(), name.into())
    }

    /// Lets a node host no longer what was [installed](Self::install) there under a name. `node` is its name or its peer id.
    ///
    /// # Errors
    ///
    /// See [`CallError`]: [`Forbidden`](CallError::Forbidden) if it does not let this node install;
    /// [`Failed`](CallError::Failed) with the code `not_installed`.
    #[cfg(feature = "wasm")]
    pub async fn uninstall(&self, name: &str, node: &str) -> Result<(), CallError> {
        crate::code::sending::uninstall_on(self, name, node).await
    }

    /// Changes what others know of an application that is registered here.
    ///
    /// # Errors
    ///
    /// Nothing is registered under that name, or the description is too large.
    pub fn describe(&self, name: &str, description: Value) -> Result<(), RegisterError> {
        self.announce(name, Announcement::new().description(description))
    }

    /// Changes more of what others know of an application that is registered here. What `announcement` leaves open stays
    /// as it is.
    ///
    /// # Errors
    ///
    /// Nothing is registered under that name, or what it says is too large.
    pub fn announce(&self, name: &str, announcement: Announcement) -> Result<(), RegisterError> {
        self.core.registry.describe(name, announcement, |records| self.core.announceable(records))?;
        self.core.announce();
        Ok(())
    }

    /// Names an application, wherever it is: to say more about which host is meant and how long it may take.
    pub fn app(&self, application: impl Into<String>) -> AppRef {
        AppRef::new(self.clone(), application.into())
    }

    /// Runs an action of an application, and gives its result: here if it is hosted here, else on the host that the
    /// [strategy](crate::Strategy) for it takes, by default the less loaded of two.
    ///
    /// `Ok` means that the application ran the action and this is its answer. Dropping the future cancels the action.
    /// Takes at most 10 s; see [`app`](Self::app) for other limits.
    ///
    /// # Errors
    ///
    /// See [`CallError`].
    pub async fn call<R: DeserializeOwned>(
        &self,
        application: &str,
        action: &str,
        arguments: impl Serialize + Send,
    ) -> Result<R, CallError> {
        Route::new(self, &names::normal(application)).call(action, arguments).await
    }

    /// Hands a message to an application: here if it is hosted here, else on the host that the
    /// [strategy](crate::Strategy) for it takes.
    ///
    /// `Ok` means that the node has accepted it into the application's queue, not that it was processed. It is begun in its
    /// turn unless that node is killed, or stopped with too little time: then it is
    /// [counted](crate::Counters::lost_tells) here.
    ///
    /// # Errors
    ///
    /// See [`CallError`].
    pub async fn tell(&self, application: &str, message: impl Serialize + Send) -> Result<(), CallError> {
        Route::new(self, &names::normal(application)).tell(message).await
    }

    /// Like [`tell`](Self::tell), without waiting for a confirmation: `Ok` means that it is in the write queue.
    ///
    /// # Errors
    ///
    /// See [`CallError`].
    pub async fn cast(&self, application: &str, message: impl Serialize + Send) -> Result<(), CallError> {
        Route::new(self, &names::normal(application)).cast(message).await
    }

    /// How long a known node takes to answer a call of its application `node`. `Ok` says that it has answered, be it that
    /// it hosts no such application, which is so for other implementations, or that it forbids the action.
    ///
    /// # Errors
    ///
    /// It cannot be reached, or does not answer within `timeout`.
    pub async fn ping(&self, node: &NodeInfo, timeout: Duration) -> Result<Duration, CallError> {
        if node.local {
            return Ok(Duration::ZERO);
        }
        Route { timeout, ..Route::new(self, built_in::NAME) }.round_trip(node).await
    }

    /// What changes in the swarm from now on. What was found not to work before comes first.
    pub fn events(&self) -> Events {
        self.core.events.subscribe()
    }

    /// Tries to join the swarm through another address: a multiaddress, or `host:port`. Retried for ever.
    ///
    /// # Errors
    ///
    /// The text is no address.
    pub async fn join(&self, address: &str) -> Result<(), StartError> {
        crate::addresses::parse_join(address).map_err(StartError::Join)?;
        // A node that has stopped joins nothing; it is known by then.
        let _ = self.core.commands.send(Command::Join { address: address.to_owned() }).await;
        Ok(())
    }

    /// Stops the node in good order: takes nothing new, finishes the calls that run here (for 10 s at the most, or as
    /// long as [`drain_timeout`](Builder::drain_timeout) says) and processes the tells that were accepted, says goodbye to
    /// all, so that every node knows at once. What cannot be finished in that time is given up, logged and counted:
    /// [`unfinished_calls`](crate::Counters::unfinished_calls) and [`unfinished_tells`](crate::Counters::unfinished_tells).
    pub async fn stop(&self) {
        let core = &self.core;
        core.registry.drain();
        core.links.say_goodbye();
        let is_running = || core.links.serving() > 0 || core.registry.running() > 0;
        if is_running() {
            // It may take a while: nobody should try meanwhile.
            core.announce();
        }
        let now = Instant::now();
        let until = now.checked_add(core.settings.drain_timeout).unwrap_or(now + LONGEST_DRAIN);
        while is_running() && Instant::now() < until {
            tokio::time::sleep(DRAIN_LOOK.min(until.saturating_duration_since(Instant::now()))).await;
        }
        // Calls of other nodes are counted in both places.
        let left = core.links.serving().max(core.registry.running());
        core.counters.unfinished_calls.store(left as u64, Relaxed);
        if left > 0 {
            tracing::warn!(calls = left, "calls, or tuples of flows, are given up: the node stops");
        }
        core.registry.clear(until).await;
        // What peers had sent before they heard the goodbye is refused, not lost.
        let _ = timeout(PARTING, async {
            while !core.links.have_parted() {
                tokio::time::sleep(DRAIN_LOOK).await;
            }
        })
        .await;
        // What is queued on the lanes, answers and casts, is written before the connections are closed.
        let _ = timeout(GOODBYE, core.links.close()).await;
        let (respond_to, done) = oneshot::channel();
        if core.commands.send(Command::Stop { respond_to }).await.is_ok() {
            let _ = timeout(GOODBYE, done).await;
        }
        let driver = self.guard.as_ref().and_then(|guard| guard.take_driver());
        if let Some(mut driver) = driver
            && timeout(GOODBYE, &mut driver).await.is_err()
        {
            driver.abort();
        }
        if let Some(guard) = &self.guard {
            guard.release_files();
        }
        core.topics.close();
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Node")
            .field("name", &self.core.settings.name)
            .field("peer_id", &self.core.peer_id)
            .finish_non_exhaustive()
    }
}
