//! Which of the candidates gets a message.

mod aside;
mod choose;
mod chooser;
mod narrowing;
mod round_trips;
mod versions;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use libp2p::PeerId;
use multinodes_behaviour::quick_hash::QuickHash;

use self::{aside::Asides, narrowing::Verifying, round_trips::RoundTrips};
pub(crate) use self::{
    aside::{Asked, Failure, Look},
    chooser::{Chooser, round_trip, work},
    narrowing::{narrow, narrow_or_here, verify_one},
    versions::Versions,
};
use crate::{
    call_error::CallError,
    core::Core,
    description::{Host, NodeInfo},
    directory::MAX_NAMED,
    predicate::matching::{Hosts, Matching},
    registry::Hosted,
    strategy::Strategy,
};

/// What a node remembers to choose hosts by.
pub(crate) struct Selection {
    pub(crate) asides: Asides,
    pub(crate) round_trips: RoundTrips,
    verifying: Verifying,
    /// What the user has said of single applications.
    preferred: ArcSwap<HashMap<String, Arc<Chooser>, QuickHash>>,
    preferring: Mutex<()>,
    usual: Chooser,
}

impl Selection {
    pub(crate) fn prefer(&self, application: String, strategy: Strategy) {
        let _preferring = self.preferring.lock().unwrap_or_else(PoisonError::into_inner);
        let mut preferred = HashMap::clone(&self.preferred.load());
        preferred.insert(application, Arc::new(Chooser::new(strategy)));
        self.preferred.store(Arc::new(preferred));
    }

    /// Lets whoever chooses for a target work: its own, else that of its application, else the usual one.
    pub(crate) fn with<T>(&self, application: &str, own: Option<&Chooser>, work: impl FnOnce(&Chooser) -> T) -> T {
        match own {
            Some(chooser) => work(chooser),
            None => work(self.preferred.load().get(application).map_or(&self.usual, |chooser| chooser)),
        }
    }
}

impl Default for Selection {
    fn default() -> Self {
        Self {
            asides: Asides::default(),
            round_trips: RoundTrips::default(),
            verifying: Verifying::default(),
            preferred: ArcSwap::default(),
            preferring: Mutex::default(),
            usual: Chooser::new(Strategy::default()),
        }
    }
}

/// Says of a host whether it may get a message.
pub(crate) type Filter = Arc<dyn Fn(&Host) -> bool + Send + Sync>;

/// Which hosts are wanted: all, unless something is said.
#[derive(Clone, Copy, Default)]
pub(crate) struct Wanted<'a> {
    pub(crate) filter: Option<&'a Filter>,
    pub(crate) matching: Option<&'a Matching>,
    /// Who chooses; else what is usual for the application.
    pub(crate) chooser: Option<&'a Chooser>,
    pub(crate) versions: Option<&'a Versions>,
    /// Not this node.
    pub(crate) remote: bool,
}

impl Wanted<'_> {
    fn is_anyone(&self) -> bool {
        self.filter.is_none() && self.matching.is_none() && self.versions.is_none() && !self.remote
    }

    fn takes(&self, host: &Host) -> bool {
        !(self.remote && host.local)
            && self.versions.is_none_or(|versions| versions.takes(host))
            && self.filter.is_none_or(|filter| filter(host))
            && self.matching.is_none_or(|matching| matching.takes(host))
    }
}

/// Who gets the message.
pub(crate) enum Target {
    /// The application that is hosted here.
    Here(Arc<Hosted>),
    /// The application that this remote node hosts.
    There(Arc<NodeInfo>),
}

impl Target {
    pub(crate) fn peer_id(&self, core: &Core) -> PeerId {
        match self {
            Self::Here(_) => core.peer_id,
            Self::There(info) => info.peer_id,
        }
    }
}

/// Nobody can get the message, as far as is known now.
pub(crate) enum Nobody {
    /// More may become known: say this if it does not.
    Yet(CallError),
    /// Knowing more does not help.
    Ever(CallError),
}

/// Picks one host of an application for what is asked of it, by the strategy for it. Hosts in `tried` are out.
pub(crate) fn pick(
    core: &Core,
    application: &str,
    asked: Asked<'_>,
    wanted: Wanted<'_>,
    tried: &[PeerId],
) -> Result<Target, Nobody> {
    core.selection
        .with(application, wanted.chooser, |chooser| pick_by(chooser, core, application, asked, wanted, tried))
}

fn pick_by(
    chooser: &Chooser,
    core: &Core,
    application: &str,
    asked: Asked<'_>,
    wanted: Wanted<'_>,
    tried: &[PeerId],
) -> Result<Target, Nobody> {
    let aside = core.selection.asides.look();
    let is_aside = |peer_id: &PeerId| aside.as_ref().is_some_and(|aside| aside.is_aside(peer_id, application, asked));
    let here = core.registry.find(application);
    let open_here = here.as_ref().filter(|hosted| {
        let fits = || wanted.is_anyone() || wanted.takes(&core.local_host(hosted));
        !wanted.remote && !tried.contains(&core.peer_id) && fits()
    });
    if let Some(hosted) = open_here
        && chooser.prefers_here()
        && !is_aside(&core.peer_id)
    {
        return Ok(Target::Here(hosted.clone()));
    }
    let snapshot = core.snapshot.load();
    let chosen = snapshot.by_application.get(application).and_then(|hosts| {
        // This node's own application takes part only if it has not been passed over already.
        let takes_here = open_here.is_some() && !chooser.prefers_here();
        let fits = |host: &Host| (!host.local || takes_here) && !tried.contains(&host.peer_id);
        let has_other = open_here.is_some() && !takes_here;
        let aside = aside.is_some().then_some(&is_aside);
        let among = |hosts| one_of(chooser, core, hosts, wanted, aside, has_other, fits);
        match snapshot.narrowed.get(application).filter(|_| chooser.prefers_verified(!tried.is_empty())) {
            None => among(hosts),
            Some(verified) => {
                verify_one(core, hosts);
                among(verified).or_else(|| if has_other { None } else { among(hosts) })
            }
        }
    });
    match (chosen, open_here) {
        (Some(host), Some(hosted)) if host.local => Ok(Target::Here(hosted.clone())),
        (Some(host), _) => Ok(Target::There(host)),
        // Those that have no preference have not seen it if others do not know of it yet.
        (None, Some(hosted)) if chooser.prefers_here() || !snapshot.by_application.contains_key(application) => {
            Ok(Target::Here(hosted.clone()))
        }
        (None, _) => {
            let hosts = snapshot.by_application.get(application);
            let remote = hosts.map_or(0, |hosts| hosts.iter().filter(|host| !host.local).count());
            Err(Nobody::Yet(nobody(application, remote + usize::from(here.is_some()))))
        }
    }
}

/// One of the hosts that are wanted and fit: of those that are not set aside if there is one.
fn one_of(
    chooser: &Chooser,
    core: &Core,
    hosts: &Hosts,
    mut wanted: Wanted<'_>,
    is_aside: Option<&impl Fn(&PeerId) -> bool>,
    has_other: bool,
    fits: impl Fn(&Host) -> bool,
) -> Option<Arc<NodeInfo>> {
    let selected = wanted.matching.and_then(|matching| matching.select(hosts));
    if selected.is_some() {
        wanted.matching = None;
    }
    let hosts = selected.as_ref().unwrap_or(hosts);
    let right = wanted.versions.take().map(|versions| versions.select(hosts));
    let hosts = right.as_ref().unwrap_or(hosts);
    let fits = |host: &Host| fits(host) && wanted.takes(host);
    let chosen = match is_aside {
        None => chooser.choose(core, hosts, fits),
        Some(is_aside) => {
            let ready = chooser.choose(core, hosts, |host| !is_aside(&host.peer_id) && fits(host));
            // All that are left are set aside: better one of them than nobody.
            ready.or_else(|| if has_other { None } else { chooser.choose(core, hosts, fits) })
        }
    };
    chosen.map(|host| host.info.clone())
}

/// The application on the node that has this peer id.
pub(crate) fn at(core: &Core, application: &str, peer_id: PeerId) -> Result<Target, CallError> {
    let target = if peer_id == core.peer_id {
        here(core, application)
    } else {
        match core.snapshot.load().by_peer.get(&peer_id) {
            Some(info) => Ok(Target::There(info.clone())),
            None => {
                let node = peer_id.to_base58();
                let cut_off = is_cut_off(core, application, Some(&node), Wanted::default());
                Err(Nobody::Yet(if cut_off {
                    CallError::CutOff { application: application.to_owned(), node: Some(node) }
                } else {
                    CallError::NoSuchNode { node }
                }))
            }
        }
    };
    target.map_err(|(Nobody::Yet(error) | Nobody::Ever(error))| error)
}

/// Finds the node that is meant by a name or a peer id; its application must be wanted.
pub(crate) fn resolve(core: &Core, application: &str, node: &str, wanted: Wanted<'_>) -> Result<Target, Nobody> {
    let target = find(core, application, node)?;
    if wanted.is_anyone() {
        return Ok(target);
    }
    let host = match &target {
        Target::Here(hosted) => Some(core.local_host(hosted)),
        Target::There(info) => {
            let hosted = info.applications.iter().find(|hosted| hosted.name == application);
            hosted.map(|hosted| Host::new(info, hosted))
        }
    };
    match host {
        Some(host) if wanted.takes(&host) => Ok(target),
        Some(_) => Err(Nobody::Yet(nobody(application, 1))),
        None => {
            let (application, node) = (application.to_owned(), Some(node.to_owned()));
            Err(Nobody::Yet(CallError::NoSuchApplication { application, node }))
        }
    }
}

fn find(core: &Core, application: &str, node: &str) -> Result<Target, Nobody> {
    if let Ok(peer_id) = node.parse::<PeerId>() {
        if peer_id == core.peer_id {
            return here(core, application);
        }
        let snapshot = core.snapshot.load();
        return match snapshot.by_peer.get(&peer_id) {
            Some(info) => Ok(Target::There(info.clone())),
            None => Err(Nobody::Yet(CallError::NoSuchNode { node: node.to_owned() })),
        };
    }
    let snapshot = core.snapshot.load();
    let known = snapshot.by_name.get(node).map(Vec::as_slice).unwrap_or_default();
    // This node's own name counts before the directory has it.
    let own =
        core.settings.name == node && !core.settings.passive && !known.iter().any(|info| info.peer_id == core.peer_id);
    match (known, own) {
        ([], false) => Err(Nobody::Yet(CallError::NoSuchNode { node: node.to_owned() })),
        ([], true) => here(core, application),
        ([info], false) if info.peer_id == core.peer_id => here(core, application),
        ([info], false) => Ok(Target::There(info.clone())),
        _ => {
            // The own one first: there may be more than are named.
            let mut holders = own.then_some(core.peer_id).into_iter().chain(known.iter().map(|info| info.peer_id));
            let peer_ids: Vec<PeerId> = holders.by_ref().take(MAX_NAMED).collect();
            Err(Nobody::Ever(CallError::AmbiguousName { name: node.to_owned(), peer_ids, more: holders.count() }))
        }
    }
}

fn here(core: &Core, application: &str) -> Result<Target, Nobody> {
    match core.registry.find(application) {
        Some(hosted) => Ok(Target::Here(hosted)),
        None => Err(Nobody::Ever(CallError::NoSuchApplication {
            application: application.to_owned(),
            node: Some(core.settings.name.clone()),
        })),
    }
}

/// So long a host that fell silent is remembered: until then nobody knows that it is gone.
const SILENCE_MEMORY: Duration = Duration::from_secs(5 * 60);

/// Whether nobody can say that something is not there, because nothing is heard any more of those who had it, or of anybody.
pub(crate) fn is_cut_off(core: &Core, application: &str, on: Option<&str>, wanted: Wanted<'_>) -> bool {
    if !core.knows_neighbours() {
        return false;
    }
    if core.status.borrow().cut_off {
        return true;
    }
    let is_meant = |node: &Arc<NodeInfo>| match on {
        Some(on) => node.name == on || node.peer_id.to_base58() == on,
        None => {
            let mut hosted = node.applications.iter().filter(|hosted| hosted.name == application);
            hosted.any(|hosted| wanted.takes(&Host::new(node, hosted)))
        }
    };
    let snapshot = core.snapshot.load();
    snapshot.silent.iter().any(|silent| silent.since.elapsed() < SILENCE_MEMORY && is_meant(&silent.node))
}

fn nobody(application: &str, hosts: usize) -> CallError {
    let application = application.to_owned();
    if hosts > 0 {
        CallError::NoMatch { application, hosts }
    } else {
        CallError::NoSuchApplication { application, node: None }
    }
}
