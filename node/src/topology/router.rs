//! Where tuples go: which hosts a stage has, which of them gets a tuple, and the outlets to them.

use std::{
    collections::HashMap,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::FutureExt;
use libp2p::PeerId;
use rand::Rng;
use tokio::{sync::watch, task::JoinSet, time::timeout_at};

use super::{
    emitter::EmitError,
    outlet::{self, Outlet},
    owner,
    plan::{Edge, Grouping, Plan, StageIndex},
    queue::{Room, units},
    wire::{Failure, OVERHEAD, TUPLES, Tuple},
};
use crate::{
    call_error::CallError, description::Host, node::Node, payload::Payload, registry::panic_text, route::Route,
    selection,
};

/// A tuple that waits for one host looks again so often whether another one has room.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// Who is told that a tree cannot be completed.
pub(crate) trait Report: Send + Sync {
    fn fail(&self, failure: Failure);
}

/// The way of a tuple through the plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Way {
    /// One of the source's own edges.
    First(usize),
    /// One of the edges of a stage.
    Edge(StageIndex, usize),
    /// From a last stage back to the source.
    Output(StageIndex),
}

/// One node's part of the ways of a run.
pub(crate) struct Router {
    pub(crate) node: Node,
    pub(crate) plan: Plan,
    /// As it travels: signed by the source.
    pub(crate) encoded: Bytes,
    pub(crate) report: Arc<dyn Report>,
    /// Whose flow it is.
    pub(crate) source: PeerId,
    /// Whether it goes on while the node stops: what was taken is finished.
    finishes: bool,
    hosts: Vec<Mutex<Known>>,
    /// One for each way and host that got something lately.
    outlets: Mutex<HashMap<(Way, PeerId), Arc<Outlet>>>,
    tasks: Mutex<JoinSet<()>>,
    ended: watch::Sender<bool>,
}

/// The hosts of a stage, as far as the directory knew them in that version.
#[derive(Default)]
struct Known {
    version: Option<u64>,
    hosts: Hosts,
}

/// The hosts of a stage.
#[derive(Clone, Default)]
struct Hosts {
    all: Arc<[StageHost]>,
    /// Those that get what may go to any of them, if there are very many others to which this node was never connected:
    /// anybody can make those up.
    preferred: Option<Arc<[StageHost]>>,
}

#[derive(Debug, Clone, Copy)]
struct StageHost {
    peer_id: PeerId,
    hash: u64,
    local: bool,
}

impl StageHost {
    fn of(host: &Host) -> Self {
        Self { peer_id: host.peer_id, hash: owner::hash_of_host(&host.peer_id), local: host.local }
    }
}

impl Router {
    /// `node` is a handle that does not keep the node; `source` has signed the plan.
    pub(crate) fn new(
        node: Node,
        source: PeerId,
        plan: Plan,
        encoded: Bytes,
        report: Arc<dyn Report>,
        finishes: bool,
    ) -> Arc<Self> {
        let hosts = plan.stages.iter().map(|_| Mutex::default()).collect();
        Arc::new(Self {
            node,
            plan,
            encoded,
            report,
            source,
            finishes,
            hosts,
            outlets: Mutex::default(),
            tasks: Mutex::default(),
            ended: watch::Sender::new(false),
        })
    }

    /// The ways of what a stage emits.
    pub(crate) fn ways(&self, stage: StageIndex) -> impl Iterator<Item = Way> {
        let plan = &self.plan.stages[usize::from(stage)];
        let edges = (0..plan.edges.len()).map(move |edge| Way::Edge(stage, edge));
        edges.chain(plan.outputs.then_some(Way::Output(stage)))
    }

    /// The edge that a way is; none leads back to the source.
    pub(crate) fn edge(&self, way: Way) -> Option<&Edge> {
        match way {
            Way::First(edge) => self.plan.first.get(edge),
            Way::Edge(stage, edge) => self.plan.stages[usize::from(stage)].edges.get(edge),
            Way::Output(_) => None,
        }
    }

    /// The key of a tuple, where it goes by key; else 0.
    pub(crate) fn key(&self, way: Way, payload: &[u8]) -> Result<u64, EmitError> {
        match self.edge(way).map(|edge| &edge.grouping) {
            Some(Grouping::ByKey(key)) => key.hash_in(payload).ok_or_else(|| EmitError::NoKey { path: key.path() }),
            _ => Ok(0),
        }
    }

    /// Waits until there is a host, and room on the way to it; to every host where all get it. Waits for ever without
    /// `until`.
    pub(crate) async fn rooms(
        self: &Arc<Self>,
        way: Way,
        key: u64,
        payload: &Bytes,
        until: Option<Instant>,
    ) -> Result<Vec<Room<Tuple>>, EmitError> {
        let limit = self.node.core().settings.max_message.saturating_sub(OVERHEAD).max(1024);
        if payload.len() > limit {
            return Err(EmitError::TooLarge { size: payload.len(), limit });
        }
        let units = units(payload.len());
        if self.edge(way).is_some_and(|edge| edge.grouping == Grouping::All) {
            return self.room_at_all(way, units, until).await;
        }
        loop {
            let outlet = self.host_for(way, key, until).await?;
            if let Some(room) = outlet.queue.try_reserve(units) {
                return Ok(vec![room]);
            }
            let now = Instant::now();
            if until.is_some_and(|until| until <= now) {
                return Err(EmitError::Late);
            }
            let look = until.map_or(now + LOOK_AGAIN, |until| until.min(now + LOOK_AGAIN));
            match timeout_at(look.into(), outlet.queue.reserve(units)).await {
                Ok(Some(room)) => return Ok(vec![room]),
                Ok(None) => return Err(EmitError::Ended),
                Err(_) => {}
            }
        }
    }

    async fn room_at_all(
        self: &Arc<Self>,
        way: Way,
        units: u32,
        until: Option<Instant>,
    ) -> Result<Vec<Room<Tuple>>, EmitError> {
        let mut rooms = Vec::new();
        for host in self.wait_for_hosts(way, until).await?.all.iter() {
            let outlet = self.outlet(way, host.peer_id)?;
            let reserve = outlet.queue.reserve(units);
            let room = match until {
                Some(until) => timeout_at(until.into(), reserve).await.map_err(|_| EmitError::Late)?,
                None => reserve.await,
            };
            rooms.push(room.ok_or(EmitError::Ended)?);
        }
        Ok(rooms)
    }

    /// The outlet that gets a tuple, once there is a host.
    async fn host_for(self: &Arc<Self>, way: Way, key: u64, until: Option<Instant>) -> Result<Arc<Outlet>, EmitError> {
        if matches!(way, Way::Output(_)) {
            return self.outlet(way, self.source);
        }
        let hosts = self.wait_for_hosts(way, until).await?;
        let host = self.pick(way, key, &hosts).ok_or(EmitError::Ended)?;
        self.outlet(way, host)
    }

    /// Another host for a tuple whose host does not take it, if there is one with room.
    pub(crate) fn elsewhere(self: &Arc<Self>, way: Way, tuple: &Tuple, not: PeerId) -> Option<Room<Tuple>> {
        let hosts = self.hosts(usize::from(self.edge(way)?.to));
        let host = self.pick(way, tuple.key, &hosts).filter(|host| *host != not)?;
        self.outlet(way, host).ok()?.queue.try_reserve(units(tuple.payload.len()))
    }

    /// Whether the directory still has the host of an outlet.
    pub(crate) fn is_host(&self, way: Way, peer_id: PeerId) -> bool {
        match self.edge(way) {
            Some(edge) => self.hosts(usize::from(edge.to)).all.iter().any(|host| host.peer_id == peer_id),
            None => true,
        }
    }

    fn pick(&self, way: Way, key: u64, hosts: &Hosts) -> Option<PeerId> {
        let Edge { to, grouping } = self.edge(way)?;
        match grouping {
            // All nodes have to choose the same one, whomever they are connected to.
            Grouping::ByKey(_) => {
                owner::owner(key, hosts.all.iter().map(|host| host.hash)).map(|index| hosts.all[index].peer_id)
            }
            Grouping::LocalFirst => {
                let outlets = self.outlets();
                let fits = |host: &&StageHost| {
                    host.local && outlets.get(&(way, host.peer_id)).is_none_or(|outlet| outlet.is_free())
                };
                match hosts.all.iter().find(fits) {
                    Some(host) => Some(host.peer_id),
                    None => least_busy(&outlets, way, self.any_of(*to, hosts)),
                }
            }
            // All: whoever is not reached any more is no reason to go to another one twice.
            Grouping::All => None,
            Grouping::Shuffle => least_busy(&self.outlets(), way, self.any_of(*to, hosts)),
        }
    }

    /// Those of which any one will do. The others are dialled aside, one after the other.
    fn any_of<'a>(&self, stage: StageIndex, hosts: &'a Hosts) -> &'a [StageHost] {
        let Some(preferred) = &hosts.preferred else { return &hosts.all };
        let (core, application) = (self.node.core(), &self.plan.stages[usize::from(stage)].application);
        if let Some(hosts) = core.snapshot.load().by_application.get(application.as_str()) {
            selection::verify_one(core, hosts);
        }
        preferred
    }

    async fn wait_for_hosts(&self, way: Way, until: Option<Instant>) -> Result<Hosts, EmitError> {
        let stage = usize::from(self.edge(way).ok_or(EmitError::Ended)?.to);
        let hosts = self.hosts(stage);
        if !hosts.all.is_empty() {
            return Ok(hosts);
        }
        let mut changed = self.node.core().changed.subscribe();
        let wait = async {
            loop {
                let hosts = self.hosts(stage);
                if !hosts.all.is_empty() {
                    return Ok(hosts);
                }
                changed.changed().await.map_err(|_| EmitError::Ended)?;
            }
        };
        match until {
            Some(until) => timeout_at(until.into(), wait).await.unwrap_or_else(|_| {
                Err(EmitError::NoHost { application: self.plan.stages[stage].application.clone() })
            }),
            None => wait.await,
        }
    }

    /// Calls an application of this node, or of another one that is known. Also while this node stops, if the router
    /// is to finish what it has.
    pub(crate) async fn call(
        &self,
        application: &str,
        on: PeerId,
        action: &str,
        arguments: &Payload,
        timeout: Duration,
    ) -> Result<Payload, CallError> {
        let core = self.node.core();
        if core.registry.is_draining() && !self.finishes {
            return Err(CallError::Stopped);
        }
        let target = selection::at(core, application, on)?;
        let route = Route { timeout, ..Route::new(&self.node, application) };
        route.call_at(&target, action, arguments).await
    }

    /// The hosts of a stage that the directory has now.
    fn hosts(&self, stage: usize) -> Hosts {
        let version = *self.node.core().changed.borrow();
        let mut known = self.hosts[stage].lock().unwrap_or_else(PoisonError::into_inner);
        if known.version != Some(version) {
            let hosts = self.node.hosts(&self.plan.stages[stage].application);
            let stops = self.node.core().registry.is_draining();
            let takes = |host: &Host| !(host.local && stops) && host.actions.iter().any(|action| action == TUPLES);
            let all: Vec<Arc<Host>> = hosts.iter().filter(|host| takes(host)).cloned().collect();
            let of = |hosts: &[Arc<Host>]| hosts.iter().map(|host| StageHost::of(host)).collect();
            known.hosts = Hosts { all: of(&all), preferred: selection::narrow_or_here(&all).as_deref().map(of) };
            // A stage without any is looked for every time: what is registered here shows before it is announced.
            known.version = (!all.is_empty()).then_some(version);
        }
        known.hosts.clone()
    }

    /// Those that may have work of this run: applications, and on which nodes.
    pub(crate) fn all_hosts(&self) -> Vec<(String, PeerId)> {
        let mut all = Vec::new();
        for (index, stage) in self.plan.stages.iter().enumerate() {
            all.extend(self.hosts(index).all.iter().map(|host| (stage.application.clone(), host.peer_id)));
        }
        all
    }

    fn outlet(self: &Arc<Self>, way: Way, peer_id: PeerId) -> Result<Arc<Outlet>, EmitError> {
        if self.has_ended() {
            return Err(EmitError::Ended);
        }
        let mut outlets = self.outlets();
        if let Some(outlet) = outlets.get(&(way, peer_id)) {
            return Ok(outlet.clone());
        }
        let outlet = Arc::new(Outlet::new(way, peer_id));
        outlets.insert((way, peer_id), outlet.clone());
        drop(outlets);
        self.supervise(outlet::run(self.clone(), outlet.clone()));
        Ok(outlet)
    }

    /// Forgets an outlet that has nothing to do, unless somebody is about to use it.
    pub(crate) fn retire(&self, outlet: &Arc<Outlet>) -> bool {
        let mut outlets = self.outlets();
        // Here and in its own task; the queue in the outlet alone. Whoever gets more does so under the lock.
        let unused = Arc::strong_count(outlet) == 2 && Arc::strong_count(&outlet.queue) == 1;
        let retires = unused && outlet.queue.used() == 0;
        if retires {
            outlets.remove(&(outlet.way, outlet.peer_id));
        }
        retires
    }

    /// Whether another host of an edge may take what this one refuses to: not where each host has tuples of its own.
    pub(crate) fn has_choice(&self, outlet: &Outlet) -> bool {
        let Some(edge) = self.edge(outlet.way) else { return false };
        if !matches!(edge.grouping, Grouping::Shuffle | Grouping::LocalFirst) {
            return false;
        }
        let Hosts { all, preferred } = self.hosts(usize::from(edge.to));
        let outlets = self.outlets();
        let takes = |host: &StageHost| outlets.get(&(outlet.way, host.peer_id)).is_none_or(|other| !other.is_refused());
        preferred.unwrap_or(all).iter().any(|host| host.peer_id != outlet.peer_id && takes(host))
    }

    /// Whether nothing is on its way from here.
    pub(crate) fn is_idle(&self) -> bool {
        self.outlets().is_empty()
    }

    /// Runs something until the run ends.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        if !self.has_ended() {
            tasks.spawn(task);
        }
    }

    /// Runs something without which the run cannot go on: when that panics the run ends here, instead of standing
    /// still.
    pub(crate) fn supervise(self: &Arc<Self>, task: impl Future<Output = ()> + Send + 'static) {
        let router = Arc::downgrade(self);
        self.spawn(async move {
            if let Err(panic) = AssertUnwindSafe(task).catch_unwind().await
                && let Some(router) = router.upgrade()
            {
                tracing::error!(run = router.plan.run, panic = panic_text(&*panic), "a flow broke: it ends here");
                router.end();
            }
        });
    }

    /// The run is over: nothing more is sent, and what runs here is stopped.
    pub(crate) fn end(&self) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        self.ended.send_replace(true);
        tasks.abort_all();
        drop(tasks);
        // Whoever waits for room is told.
        for (_, outlet) in self.outlets().drain() {
            outlet.queue.close();
        }
    }

    pub(crate) fn has_ended(&self) -> bool {
        *self.ended.borrow()
    }

    /// Waits until the run is over.
    pub(crate) async fn over(&self) {
        // An error would mean that the sender is gone, and it is here.
        let _ = self.ended.subscribe().wait_for(|ended| *ended).await;
    }

    fn outlets(&self) -> MutexGuard<'_, HashMap<(Way, PeerId), Arc<Outlet>>> {
        self.outlets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The less busy one of two that are picked at random: nearly as good as the least busy of all, and never a stampede.
/// When neither can take it, the least busy of all.
fn least_busy(outlets: &HashMap<(Way, PeerId), Arc<Outlet>>, way: Way, hosts: &[StageHost]) -> Option<PeerId> {
    if hosts.is_empty() {
        return None;
    }
    let outlet = |host: &StageHost| outlets.get(&(way, host.peer_id));
    let load = |host: &StageHost| outlet(host).map_or(0, |outlet| outlet.load());
    let mut random = rand::rng();
    let [one, other] = [0; 2].map(|_| &hosts[random.random_range(0..hosts.len())]);
    let better = if load(one) <= load(other) { one } else { other };
    if outlet(better).is_none_or(|outlet| outlet.is_free()) {
        return Some(better.peer_id);
    }
    hosts.iter().min_by_key(|host| load(host)).map(|host| host.peer_id)
}
