//! What is hosted here: which application under which name, and what others are told of all of them.

mod hosted;
mod refusals;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use multinodes_behaviour::{
    RecordError, names,
    quick_hash::QuickHash,
    wire::{ApplicationRecord, MAX_NAME},
};
use tokio::{
    task::JoinSet,
    time::{timeout, timeout_at},
};

use self::hosted::Tally;
pub(crate) use self::{
    hosted::{Admission, Hosted, Told},
    refusals::{draining, expired, forbidden, panic_text, unknown},
};
use crate::{announcement::Announcement, application::Application, core::Core, factories::Maker};

/// How long queues may take to let go what they have when the time for it is over.
const ABORT: Duration = Duration::from_secs(1);

/// The applications that a node hosts.
pub(crate) struct Registry {
    core: Weak<Core>,
    hosted: ArcSwap<HashMap<Arc<str>, Arc<Hosted>, QuickHash>>,
    /// Serialises changes; readers never wait.
    changing: Mutex<()>,
    draining: AtomicBool,
    queues: Mutex<JoinSet<()>>,
    pub(crate) tally: Tally,
}

/// Why an application is not registered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RegisterError {
    /// The name is empty, too long, or breaks the [rule for names](multinodes_behaviour::names::check).
    #[error("`{name}` cannot name an application: {reason}; 1 to {MAX_NAME} bytes of {} can", names::RULE)]
    Name {
        /// The name, shortened.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Something is registered under that name already.
    #[error("an application `{name}` is registered already")]
    Taken {
        /// The name.
        name: String,
    },
    /// What it says of itself cannot be told to others: usually it is too long.
    #[error("`{name}` cannot be announced to others: {reason}")]
    Unannounceable {
        /// The application's name.
        name: String,
        /// Which part is over which limit.
        reason: String,
    },
    /// Nothing is registered under that name.
    #[error("no application `{name}` is registered")]
    Unknown {
        /// The name.
        name: String,
    },
    /// The node hosts it by itself and keeps it.
    #[error("`{name}` belongs to the node itself")]
    BuiltIn {
        /// The name.
        name: String,
    },
    /// Passive nodes host nothing.
    #[error("a passive node hosts nothing")]
    Passive,
}

impl Registry {
    pub(crate) fn new(core: Weak<Core>) -> Self {
        Self {
            core,
            hosted: ArcSwap::default(),
            changing: Mutex::default(),
            draining: AtomicBool::new(false),
            queues: Mutex::default(),
            tally: Tally::default(),
        }
    }

    /// Hosts `application`. `check` says whether what is hosted then can be told to others.
    pub(crate) fn register(
        &self,
        name: &str,
        application: impl Application,
        maker: Maker,
        check: impl FnOnce(&[ApplicationRecord]) -> Result<(), RecordError>,
    ) -> Result<(), RegisterError> {
        let name = &*names::normal(name);
        check_name(name)?;
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut hosted = HashMap::clone(&self.hosted.load());
        if hosted.contains_key(name) {
            return Err(RegisterError::Taken { name: name.to_owned() });
        }
        let new = self.host(name.into(), application, maker);
        hosted.insert(new.name.clone(), Arc::new(new));
        check(&records(&hosted)).map_err(|error| unannounceable(name, &error))?;
        self.hosted.store(Arc::new(hosted));
        Ok(())
    }

    /// Hosts it no longer, if it is one that is meant. What runs is finished, and what is in its queue is processed.
    pub(crate) fn unregister(&self, name: &str, is_meant: impl FnOnce(&Hosted) -> bool) -> Result<(), RegisterError> {
        let name = &*names::normal(name);
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut hosted = HashMap::clone(&self.hosted.load());
        hosted
            .remove(name)
            .filter(|hosted| is_meant(hosted))
            .ok_or_else(|| RegisterError::Unknown { name: name.to_owned() })?;
        self.hosted.store(Arc::new(hosted));
        Ok(())
    }

    /// Changes what others know of it.
    pub(crate) fn describe(
        &self,
        name: &str,
        announcement: Announcement,
        check: impl FnOnce(&[ApplicationRecord]) -> Result<(), RecordError>,
    ) -> Result<(), RegisterError> {
        let name = &*names::normal(name);
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let hosted = self.hosted.load();
        let described = hosted.get(name).ok_or_else(|| RegisterError::Unknown { name: name.to_owned() })?;
        let before = described.announce(announcement);
        check(&records(&hosted)).map_err(|error| {
            described.show(before);
            unannounceable(name, &error)
        })
    }

    /// Finds what is hosted under a name.
    pub(crate) fn find(&self, name: &str) -> Option<Arc<Hosted>> {
        self.hosted.load().get(name).cloned()
    }

    /// How many of the hosted applications factories have made for others.
    pub(crate) fn made_by_factories(&self) -> usize {
        self.hosted.load().values().filter(|hosted| matches!(hosted.maker, Maker::Factory(_))).count()
    }

    /// What is hosted, in order of the names, as others are told: nothing more once the node is stopping.
    pub(crate) fn records(&self) -> Vec<ApplicationRecord> {
        if self.is_draining() { Vec::new() } else { records(&self.hosted.load()) }
    }

    /// Calls that run now.
    pub(crate) fn running(&self) -> usize {
        self.tally.running.load(SeqCst)
    }

    /// Work that goes on without a call: a node that stops waits for it, too.
    pub(crate) fn busy(&self) -> Busy {
        self.tally.running.fetch_add(1, SeqCst);
        Busy(self.tally.running.clone())
    }

    /// From now on nothing new is begun.
    pub(crate) fn drain(&self) {
        self.draining.store(true, SeqCst);
        for hosted in self.hosted.load().values() {
            hosted.close();
        }
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(SeqCst)
    }

    /// Forgets everything and waits until what is in the queues is processed, or until then. What is not is counted.
    pub(crate) async fn clear(&self, until: Instant) {
        self.hosted.store(Arc::default());
        let mut queues = std::mem::take(&mut *self.queues.lock().unwrap_or_else(PoisonError::into_inner));
        let finish = async { while queues.join_next().await.is_some() {} };
        if timeout_at(until.into(), finish).await.is_err() {
            // One that blocks its thread cannot be stopped, and is not waited for.
            let _ = timeout(ABORT, queues.shutdown()).await;
        }
    }

    fn host(&self, name: Arc<str>, application: impl Application, maker: Maker) -> Hosted {
        let guards = self.core.upgrade().map(|core| core.permissions.guards(&name, application.guard()));
        let guards = guards.unwrap_or_default();
        let (hosted, work) = Hosted::new(&self.core, name, application, maker, guards, self.tally.clone());
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        while queues.try_join_next().is_some() {}
        queues.spawn(work);
        hosted
    }
}

fn records(hosted: &HashMap<Arc<str>, Arc<Hosted>, QuickHash>) -> Vec<ApplicationRecord> {
    let listed = hosted.values().filter(|hosted| !is_hidden(&hosted.name));
    let mut records: Vec<_> = listed.map(|hosted| hosted.record()).collect();
    records.sort_by(|one, other| one.name.cmp(&other.name));
    records
}

/// Counts as a call that runs, as long as it lives; so does each clone.
#[derive(Debug)]
pub(crate) struct Busy(Arc<AtomicUsize>);

impl Clone for Busy {
    fn clone(&self) -> Self {
        self.0.fetch_add(1, SeqCst);
        Self(self.0.clone())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

/// Whether a name can be an application's, or a factory's.
pub(crate) fn check_name(name: &str) -> Result<(), RegisterError> {
    let wrong =
        |error: names::BadName| RegisterError::Name { name: error.name().into(), reason: error.reason().into() };
    names::check("an application", name, MAX_NAME).map_err(wrong)
}

fn unannounceable(name: &str, error: &RecordError) -> RegisterError {
    RegisterError::Unannounceable { name: name.to_owned(), reason: error.to_string() }
}

/// What nodes ask of each other stands in no directory.
#[cfg(feature = "wasm")]
fn is_hidden(name: &str) -> bool {
    name == crate::code::service::NAME
}

#[cfg(not(feature = "wasm"))]
fn is_hidden(_: &str) -> bool {
    false
}
