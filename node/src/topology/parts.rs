//! The runs in which one stage takes part on one node: who has begun them, and whether they may.
//!
//! A stage sends on what it makes of tuples in its own name, so others may use it to get where they may not go
//! themselves. That is why each plan is signed by the node that runs the flow, its *originator*, and travels along: every
//! host asks its rules about the originator as well as about whoever brings the tuples.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Instant, SystemTime},
};

use bytes::Bytes;
use libp2p::PeerId;
use multinodes_behaviour::plan;

use super::{
    acker::Acker,
    plan::{Plan, StageIndex, Token},
    router::Router,
    wire::TUPLES,
};
use crate::{
    application::{AppError, Context},
    core::{Core, Counters},
    node::Node,
    permissions::Proof,
};

/// Runs in which a stage takes part at once on one node: each has some tables of its own. When there are more, those
/// of which nothing is here give way, and then those of whoever has brought the most.
pub(crate) const MAX_RUNS: usize = 256;

/// Hosts of earlier stages that are remembered for one run.
const MAX_SENDERS: usize = 256;

/// What a delivery is refused with when its plan's originator may not use the stage.
pub(crate) const NOT_FOR: &str = "not_for_originator";

/// A node's part in one run.
pub(crate) struct Part {
    pub(crate) router: Arc<Router>,
    pub(crate) acker: Arc<Acker>,
    /// The labels of the originator, if it has proven any in its plan.
    proof: Proof,
    senders: Mutex<Senders>,
}

/// Hosts of earlier stages that were seen as such, whether they have sent anything yet or not: they go on sending while they
/// stop, and by then the directory says that they host nothing.
#[derive(Default)]
struct Senders {
    seen: HashSet<PeerId>,
    /// At which state of the directory it was looked for them, for each stage.
    looked: HashMap<StageIndex, u64>,
}

/// The parts of one stage.
#[derive(Default)]
pub(crate) struct Parts(Mutex<Table>);

/// By the signed plan, byte for byte: so nobody gets into another one's run by its number.
type Table = HashMap<Bytes, Entry>;

struct Entry {
    part: Arc<Part>,
    /// Who has brought the first tuples.
    bringer: PeerId,
    used: Instant,
}

impl Part {
    fn open(context: &Context, envelope: &[u8]) -> Result<Arc<Self>, AppError> {
        let node = context.node();
        let settings = &node.core().settings;
        let (source, plan) = plan::open::<Plan>(&settings.swarm, envelope).map_err(AppError::bad_arguments)?;
        if !plan.is_sound() {
            return Err(AppError::bad_arguments("the plan leads nowhere"));
        }
        let trusts = |issuer: &PeerId| node.core().permissions.proofs.trusts(issuer);
        let credential = plan.credential.as_deref();
        let proof = Proof::of(&settings.swarm, &source, credential, trusts, SystemTime::now());
        let acker = Arc::new(Acker::default());
        let envelope = Bytes::copy_from_slice(envelope);
        let router = Router::new(node.unbounded(), source, plan, envelope, acker.clone(), true);
        Ok(Arc::new(Self { router, acker, proof, senders: Mutex::default() }))
    }

    /// Whether the originator may use the stage, by the rules as they are now. `None` if it is not hosted any more.
    fn is_permitted(&self, core: &Core, application: &str) -> Option<bool> {
        let hosted = core.registry.find(application)?;
        let (source, proof) = (&self.router.source, &self.proof);
        Some(core.permissions.permits_originator(&hosted.guards, application, TUPLES, source, proof))
    }

    /// Whether tuples for a stage come from where the plan lets them come from: else anybody who has seen a plan could
    /// have tuples of its own passed on with the rights of its originator.
    fn is_sender(&self, node: &Node, peer_id: PeerId, stage: StageIndex) -> bool {
        let plan = &self.router.plan;
        if peer_id == self.router.source && plan.begins_with(stage) {
            return true;
        }
        let mut senders = self.senders.lock().unwrap_or_else(PoisonError::into_inner);
        senders.look(node.core(), plan, stage);
        let is_sender =
            senders.seen.contains(&peer_id) || plan.inputs(stage).any(|input| is_host(node, peer_id, input));
        if is_sender {
            senders.note(peer_id);
        }
        is_sender
    }

    /// Whether something of the run is here. One reference is the table's.
    fn is_used(self: &Arc<Self>) -> bool {
        Arc::strong_count(self) > 1 || !self.router.is_idle() || !self.acker.is_idle()
    }
}

impl Senders {
    /// Notes who hosts what a stage gets its tuples from, unless that was done since the directory has changed: first the nodes that
    /// this one was connected to, for the others may be made up.
    fn look(&mut self, core: &Core, plan: &Plan, stage: StageIndex) {
        let version = *core.changed.borrow();
        if self.looked.insert(stage, version) == Some(version) {
            return;
        }
        let snapshot = core.snapshot.load();
        for input in plan.inputs(stage) {
            let hosts = snapshot.by_application.get(input).map_or(&[][..], |hosts| &hosts[..]);
            let (verified, others): (Vec<_>, Vec<_>) = hosts.iter().partition(|host| host.info.verified);
            verified.into_iter().chain(others).for_each(|host| self.note(host.peer_id));
        }
    }

    fn note(&mut self, peer_id: PeerId) {
        if self.seen.len() < MAX_SENDERS {
            self.seen.insert(peer_id);
        }
    }
}

impl Parts {
    /// This node's part in a run, which begins with its first tuples. `None` if it takes nothing of it now.
    pub(crate) fn find(
        self: &Arc<Self>,
        context: &Context,
        envelope: &[u8],
        stage: StageIndex,
        (run, token): (u64, Token),
    ) -> Result<Option<Arc<Part>>, AppError> {
        let part = self.known(envelope).map_or_else(|| Part::open(context, envelope), Ok)?;
        let (core, plan) = (context.node().core(), &part.router.plan);
        if plan.run != run || plan.token != token {
            return Err(AppError::bad_arguments("the plan is of another run"));
        }
        let application = context.application();
        if plan.stages.get(usize::from(stage)).is_none_or(|stage| stage.application != application) {
            return Err(AppError::bad_arguments(format!("`{application}` is not stage {stage}")));
        }
        match part.is_permitted(core, application) {
            Some(true) => {}
            Some(false) => {
                Counters::add(&core.counters.forbidden_messages);
                return Err(not_for(context, &part.router.source));
            }
            None => return Ok(None),
        }
        // What the directory does not know yet it will know when they ask again.
        let source = part.router.source;
        if !part.is_sender(context.node(), context.caller(), stage) || !is_known(core, &source) {
            return Ok(None);
        }
        Ok(self.enter(part, context.caller()))
    }

    /// Ends a run if it is the caller's own.
    pub(crate) fn end(&self, caller: PeerId, (run, token): (u64, Token)) -> Result<(), AppError> {
        let mut result = Ok(());
        self.table().retain(|_, Entry { part, .. }| {
            let router = &part.router;
            if router.plan.run != run {
                return true;
            }
            if router.source != caller || router.plan.token != token {
                result = Err(AppError::forbidden());
                return true;
            }
            router.end();
            false
        });
        result
    }

    fn known(&self, envelope: &[u8]) -> Option<Arc<Part>> {
        let mut table = self.table();
        let entry = table.get_mut(envelope).filter(|entry| !entry.part.router.has_ended())?;
        entry.used = Instant::now();
        Some(entry.part.clone())
    }

    /// Puts a part into the table, if it is not there yet.
    fn enter(self: &Arc<Self>, part: Arc<Part>, bringer: PeerId) -> Option<Arc<Part>> {
        let mut table = self.table();
        table.retain(|_, entry| !entry.part.router.has_ended());
        if let Some(entry) = table.get(&part.router.encoded) {
            // Another delivery may have been faster.
            return Some(entry.part.clone());
        }
        if table.len() >= MAX_RUNS && !make_room(&mut table, bringer, part.router.source) {
            return None;
        }
        let (router, acker) = (part.router.clone(), part.acker.clone());
        let key = router.encoded.clone();
        table.insert(key.clone(), Entry { part: part.clone(), bringer, used: Instant::now() });
        drop(table);
        let weak = Arc::downgrade(self);
        let forget = move || weak.upgrade().is_none_or(|parts| parts.forget(&key));
        router.supervise(super::acker::run(router.clone(), acker, forget));
        Some(part)
    }

    /// Forgets a run unless some of its tuples are still here.
    fn forget(&self, key: &Bytes) -> bool {
        let mut table = self.table();
        let is_unused = table.get(key).is_none_or(|entry| Arc::strong_count(&entry.part) == 1);
        if is_unused {
            table.remove(key);
        }
        is_unused
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends a run to make room for another one. Nothing is lost: one that goes on comes back with its next tuples, and what
/// was here of it is replayed.
fn make_room(table: &mut Table, bringer: PeerId, source: PeerId) -> bool {
    let unused = table.values().filter(|entry| !entry.part.is_used()).min_by_key(|entry| entry.used);
    let victim = unused.map(|entry| entry.part.clone()).or_else(|| {
        let (busiest, count) = most(table.values().map(|entry| entry.bringer))?;
        let own = table.values().filter(|entry| entry.bringer == bringer).count();
        // Among the runs that one peer brings, those who have begun them take turns in the same way.
        let in_way: Box<dyn Fn(&&Entry) -> bool> = if busiest == bringer || count <= own + 1 {
            let sources = table.values().filter(|entry| entry.bringer == bringer).map(|entry| entry.part.router.source);
            let (busiest, count) = most(sources.clone())?;
            if count <= sources.filter(|other| *other == source).count() + 1 {
                return None;
            }
            Box::new(move |entry| entry.bringer == bringer && entry.part.router.source == busiest)
        } else {
            Box::new(move |entry| entry.bringer == busiest)
        };
        table.values().filter(in_way).min_by_key(|entry| entry.used).map(|entry| entry.part.clone())
    });
    let Some(victim) = victim else { return false };
    tracing::debug!(run = victim.router.plan.run, source = %victim.router.source, "a run gives way to another one");
    victim.router.end();
    table.remove(&victim.router.encoded);
    true
}

/// Who is among these most often, and how often.
fn most(peers: impl Iterator<Item = PeerId>) -> Option<(PeerId, usize)> {
    let mut counts = HashMap::<PeerId, usize>::new();
    for peer_id in peers {
        *counts.entry(peer_id).or_default() += 1;
    }
    counts.into_iter().max_by_key(|(_, count)| *count)
}

/// Whether a node hosts an application, as far as it is known here.
fn is_host(node: &Node, peer_id: PeerId, application: &str) -> bool {
    let core = node.core();
    if peer_id == core.peer_id {
        return core.registry.find(application).is_some();
    }
    let snapshot = core.snapshot.load();
    let info = snapshot.by_peer.get(&peer_id);
    info.is_some_and(|info| info.applications.iter().any(|hosted| hosted.name == application))
}

/// Whether a node is in the directory: nothing could be told to one that is not.
fn is_known(core: &Core, peer_id: &PeerId) -> bool {
    *peer_id == core.peer_id || core.snapshot.load().by_peer.contains_key(peer_id)
}

fn not_for(context: &Context, source: &PeerId) -> AppError {
    let (application, node) = (context.application(), context.node().name());
    AppError::new(NOT_FOR, format!("`{application}` on node `{node}` is not for node `{source}`, whose flow it is"))
}
