//! Which hosts of an application match, kept for each record: evaluating takes microseconds, looking up does not.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
};

use arc_swap::ArcSwapOption;
use libp2p::PeerId;
use multinodes_behaviour::quick_hash::QuickHash;

use super::{Predicate, values::Subject};
use crate::description::Host;

/// The hosts of an application as the directory gives them: another list after each change.
pub(crate) type Hosts = Arc<[Arc<Host>]>;

/// The predicates of a target. All of them must be true.
pub(crate) struct Matching {
    application: String,
    predicates: Vec<Predicate>,
    /// What they give changes only with the record.
    lasting: bool,
    /// The verdicts on the records of the last list, and of no others: as many as it has hosts.
    verdicts: Mutex<HashMap<PeerId, Verdict, QuickHash>>,
    last: ArcSwapOption<Selected>,
}

/// What came out for one record.
#[derive(Clone, Copy)]
struct Verdict {
    incarnation: u64,
    revision: u64,
    fits: bool,
}

/// A list, and those of it that match.
struct Selected {
    from: Hosts,
    fitting: Hosts,
}

impl Matching {
    pub(crate) fn new(application: &str, predicates: Vec<Predicate>) -> Arc<Self> {
        Arc::new(Self {
            application: application.to_owned(),
            lasting: !predicates.iter().any(Predicate::looks_at_load),
            predicates,
            verdicts: Mutex::default(),
            last: ArcSwapOption::empty(),
        })
    }

    /// The same ones and another one.
    pub(crate) fn and(&self, predicate: Predicate) -> Arc<Self> {
        Self::new(&self.application, self.predicates.iter().cloned().chain([predicate]).collect())
    }

    /// Whether a host matches, found out anew.
    pub(crate) fn takes(&self, host: &Host) -> bool {
        let subject = Subject::of_host(host, &self.application);
        self.predicates.iter().all(|predicate| predicate.is_true_of(&subject))
    }

    /// The first predicate that is not true of a host, found out anew.
    pub(crate) fn first_false(&self, host: &Host) -> Option<String> {
        let subject = Subject::of_host(host, &self.application);
        self.predicates.iter().find(|predicate| !predicate.is_true_of(&subject)).map(ToString::to_string)
    }

    /// Those of a list that match, if that is known or can be kept; nothing if it may be another one at any time.
    pub(crate) fn select(&self, hosts: &Hosts) -> Option<Hosts> {
        if !self.lasting {
            return None;
        }
        if let Some(last) = &*self.last.load()
            && Arc::ptr_eq(&last.from, hosts)
        {
            return Some(last.fitting.clone());
        }
        let fitting = self.judge(hosts);
        self.last.store(Some(Arc::new(Selected { from: hosts.clone(), fitting: fitting.clone() })));
        Some(fitting)
    }

    /// Lets those of `hosts` go that do not match. `known` is the directory's list of them, without what is new here.
    pub(crate) fn retain(&self, hosts: &mut Vec<Arc<Host>>, known: Option<&Hosts>) {
        match known.and_then(|known| self.select(known)) {
            Some(fitting) => {
                let fitting: HashSet<PeerId, QuickHash> = fitting.iter().map(|host| host.peer_id).collect();
                hosts.retain(|host| if host.local { self.takes(host) } else { fitting.contains(&host.peer_id) });
            }
            None => hosts.retain(|host| self.takes(host)),
        }
    }

    /// Evaluates only what is said of records that were not in the last list.
    fn judge(&self, hosts: &Hosts) -> Hosts {
        let mut verdicts = self.verdicts.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::take(&mut *verdicts);
        let mut fits = |host: &&Arc<Host>| {
            let (incarnation, revision) = (host.info.incarnation, host.info.revision);
            let known = before.get(&host.peer_id).filter(|known| {
                // What is hosted here can be newer than the record that others have of it.
                !host.local && (known.incarnation, known.revision) == (incarnation, revision)
            });
            let fits = known.map_or_else(|| self.takes(host), |known| known.fits);
            verdicts.insert(host.peer_id, Verdict { incarnation, revision, fits });
            fits
        };
        hosts.iter().filter(|host| fits(host)).cloned().collect()
    }
}
