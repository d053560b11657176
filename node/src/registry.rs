//! What is hosted here, with its limits: admits calls, keeps a queue of tells for each application.

use std::{
    any::Any,
    collections::HashMap,
    panic::AssertUnwindSafe,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use futures::{FutureExt, future::BoxFuture};
use multinodes_behaviour::{
    RecordError,
    lane::{Charge, Delivery, Refusal},
    quick_hash::QuickHash,
    wire::{ApplicationRecord, ErrorCode, MAX_NAME},
};
use serde_json::Value;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, mpsc::error::TrySendError},
    task::JoinSet,
};

use crate::{
    announcement::Announcement,
    application::{AppError, AppErrorKind, Application, Context, Hostable, Origin, Profile},
    core::Core,
    factories::Maker,
    node::Node,
    payload::Payload,
    permissions::Guards,
};

/// A cast to a full queue holds up its lane for so long at the most; then it is dropped and counted.
const CAST_PATIENCE: Duration = Duration::from_millis(100);

/// One part in so many of the queue for calls is kept for peers with few calls here, so that one that calls without end
/// keeps nobody else out.
const KEPT: usize = 8;

/// A peer may take one part in so many of what is kept: as a rule, 128 calls.
const SHARES: usize = 4;

/// Tells that are taken from a queue at once.
const BATCH: usize = 64;

/// The applications that a node hosts.
pub(crate) struct Registry {
    core: Weak<Core>,
    hosted: ArcSwap<HashMap<Arc<str>, Arc<Hosted>, QuickHash>>,
    /// Serialises changes; readers never wait.
    changing: Mutex<()>,
    draining: AtomicBool,
    running: Arc<AtomicUsize>,
    queues: Mutex<JoinSet<()>>,
    pub(crate) failed_tells: Arc<AtomicU64>,
    pub(crate) dropped_casts: Arc<AtomicU64>,
}

/// One hosted application.
pub(crate) struct Hosted {
    pub(crate) name: Arc<str>,
    pub(crate) profile: Profile,
    /// What it was installed by; `None` if the node's own program has registered it.
    pub(crate) maker: Maker,
    pub(crate) guards: Guards,
    shown: ArcSwap<Shown>,
    application: Arc<dyn Hostable>,
    slots: Arc<Semaphore>,
    admitted: AtomicUsize,
    running: Arc<AtomicUsize>,
    tells: mpsc::Sender<Told>,
    /// A cast has waited in vain: until there is room again, others are dropped without waiting.
    clogged: Arc<AtomicBool>,
    dropped_casts: Arc<AtomicU64>,
}

/// What others are told of an application, and may change while it is hosted.
#[derive(Debug, Clone)]
struct Shown {
    description: Value,
    version: Option<String>,
    actions: Vec<String>,
    idempotent: Vec<String>,
    trouble: Option<String>,
}

impl Shown {
    fn apply(&mut self, announcement: Announcement) {
        let Announcement { description, version, actions, idempotent, trouble } = announcement;
        self.description = description.unwrap_or_else(|| std::mem::take(&mut self.description));
        self.version = version.or_else(|| self.version.take());
        self.actions = actions.unwrap_or_else(|| std::mem::take(&mut self.actions));
        self.idempotent = idempotent.unwrap_or_else(|| std::mem::take(&mut self.idempotent));
        self.trouble = trouble.unwrap_or_else(|| self.trouble.take());
    }
}

/// A tell in an application's queue.
pub(crate) struct Told {
    pub(crate) origin: Origin,
    pub(crate) message: Payload,
    /// What it holds of the budgets for large messages.
    pub(crate) charge: Option<Charge>,
}

/// Why an application is not registered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RegisterError {
    /// The name is empty, too long, or has control characters.
    #[error("`{name}` cannot name an application: 1 to {MAX_NAME} bytes without control characters can")]
    Name {
        /// The name, shortened.
        name: String,
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
            running: Arc::default(),
            queues: Mutex::default(),
            failed_tells: Arc::default(),
            dropped_casts: Arc::default(),
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
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let hosted = self.hosted.load();
        let described = hosted.get(name).ok_or_else(|| RegisterError::Unknown { name: name.to_owned() })?;
        let before = described.shown.load_full();
        let mut shown = Shown::clone(&before);
        shown.apply(announcement);
        described.shown.store(Arc::new(shown));
        check(&records(&hosted)).map_err(|error| {
            described.shown.store(before);
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
        self.running.load(SeqCst)
    }

    /// Work that goes on without a call: a node that stops waits for it, too.
    pub(crate) fn busy(&self) -> Busy {
        self.running.fetch_add(1, SeqCst);
        Busy(self.running.clone())
    }

    /// From now on nothing new is begun.
    pub(crate) fn drain(&self) {
        self.draining.store(true, SeqCst);
        for hosted in self.hosted.load().values() {
            hosted.slots.close();
        }
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(SeqCst)
    }

    /// Forgets everything and waits until what is in the queues is processed.
    pub(crate) async fn clear(&self) {
        self.hosted.store(Arc::default());
        let mut queues = std::mem::take(&mut *self.queues.lock().unwrap_or_else(PoisonError::into_inner));
        while queues.join_next().await.is_some() {}
    }

    fn host(&self, name: Arc<str>, application: impl Application, maker: Maker) -> Hosted {
        let (profile, guard) = (application.profile(), application.guard());
        let guards = self.core.upgrade().map(|core| core.permissions.guards(&name, guard)).unwrap_or_default();
        let application: Arc<dyn Hostable> = Arc::new(application);
        let (tells, queue) = mpsc::channel(profile.queue.max(1));
        let clogged = Arc::new(AtomicBool::new(false));
        let work = process_all(
            self.core.clone(),
            name.clone(),
            application.clone(),
            queue,
            clogged.clone(),
            self.failed_tells.clone(),
        );
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        while queues.try_join_next().is_some() {}
        queues.spawn(work);
        Hosted {
            name,
            shown: ArcSwap::from_pointee(Shown {
                description: profile.description.clone(),
                version: profile.version.clone(),
                actions: profile.actions.clone(),
                idempotent: profile.idempotent.clone(),
                trouble: None,
            }),
            slots: Arc::new(Semaphore::new(profile.concurrency.clamp(1, Semaphore::MAX_PERMITS))),
            profile,
            maker,
            guards,
            application,
            admitted: AtomicUsize::new(0),
            running: self.running.clone(),
            tells,
            clogged,
            dropped_casts: self.dropped_casts.clone(),
        }
    }
}

fn records(hosted: &HashMap<Arc<str>, Arc<Hosted>, QuickHash>) -> Vec<ApplicationRecord> {
    let listed = hosted.values().filter(|hosted| !is_hidden(&hosted.name));
    let mut records: Vec<_> = listed.map(|hosted| hosted.record()).collect();
    records.sort_by(|one, other| one.name.cmp(&other.name));
    records
}

impl Hosted {
    /// What others are told of it.
    pub(crate) fn record(&self) -> ApplicationRecord {
        let Shown { description, version, actions, idempotent, trouble } = Shown::clone(&self.shown.load());
        ApplicationRecord {
            name: self.name.to_string(),
            version,
            description,
            actions,
            slots: self.profile.slots,
            idempotent,
            trouble,
        }
    }

    /// Whether an action may run twice without harm.
    pub(crate) fn is_idempotent(&self, action: &str) -> bool {
        self.shown.load().idempotent.iter().any(|name| name == action)
    }

    /// Takes a call in, or says that there is too much to do.
    pub(crate) fn admit(self: &Arc<Self>) -> Result<Admission, Refusal> {
        self.running.fetch_add(1, SeqCst);
        let place = self.admitted.fetch_add(1, SeqCst) + 1;
        let admission = Admission(self.clone());
        if place > self.profile.concurrency.saturating_add(self.profile.queue) {
            let text = format!("`{}` has all the calls it takes", self.name);
            return Err(Refusal::new(ErrorCode::Busy, text));
        }
        Ok(admission)
    }

    /// Whether the room that is left is kept for peers with fewer calls here than one that has so many.
    pub(crate) fn is_crowded_for(&self, serving: usize) -> bool {
        let kept = self.profile.queue / KEPT;
        let all = self.profile.concurrency.saturating_add(self.profile.queue);
        kept > 0 && serving > kept / SHARES && self.admitted.load(SeqCst) >= all - kept
    }

    /// A place among the calls that run at once, if one is free.
    pub(crate) fn slot(&self) -> Option<OwnedSemaphorePermit> {
        self.slots.clone().try_acquire_owned().ok()
    }

    /// Waits for a place among the calls that run at once. There is none any more when the node stops: others may take
    /// the call.
    pub(crate) async fn wait_for_slot(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        self.slots.clone().acquire_owned().await.map_err(|_| draining())
    }

    /// Runs an action that has its place. A panic in it is an error of this call alone.
    pub(crate) fn call(
        self: &Arc<Self>,
        context: Context,
        action: String,
        arguments: Payload,
    ) -> BoxFuture<'static, Result<Payload, Refusal>> {
        let hosted = self.clone();
        async move {
            let application = hosted.application.clone();
            // A panic may leave the application's own state broken, never ours.
            let call = AssertUnwindSafe(async move { application.call(context, action, arguments).await });
            match call.catch_unwind().await {
                Ok(outcome) => outcome.map_err(refusal),
                Err(panic) => {
                    tracing::error!(application = %hosted.name, panic = panic_text(&*panic), "an action panicked");
                    Err(Refusal::new(ErrorCode::Panicked, format!("panicked: {}", panic_text(&*panic))))
                }
            }
        }
        .boxed()
    }

    /// Puts a tell into the queue. A cast to a full queue may wait a moment, anything else is refused as busy.
    pub(crate) fn tell(self: &Arc<Self>, told: Told, is_cast: bool) -> Delivery {
        if !self.profile.takes_tells {
            let text = format!("`{}` takes no tells", self.name);
            return Delivery::Refused(Refusal::new(ErrorCode::NoSuchAction, text));
        }
        match self.tells.try_send(told) {
            Ok(()) => Delivery::Accepted,
            Err(TrySendError::Full(told)) if is_cast && !self.clogged.load(SeqCst) => {
                Delivery::Later(self.clone().tell_soon(told))
            }
            Err(TrySendError::Full(_)) => Delivery::Refused(self.full(is_cast)),
            Err(TrySendError::Closed(_)) => Delivery::Refused(unknown(&self.name)),
        }
    }

    fn tell_soon(self: Arc<Self>, told: Told) -> BoxFuture<'static, Result<(), Refusal>> {
        async move {
            match self.tells.send_timeout(told, CAST_PATIENCE).await {
                Ok(()) => Ok(()),
                Err(_) => {
                    self.clogged.store(true, SeqCst);
                    Err(self.full(true))
                }
            }
        }
        .boxed()
    }

    fn full(&self, is_cast: bool) -> Refusal {
        if is_cast && self.dropped_casts.fetch_add(1, SeqCst).is_power_of_two() {
            tracing::warn!(application = %self.name, "casts are dropped: the queue is full");
        }
        Refusal::new(ErrorCode::Busy, format!("the queue of `{}` is full", self.name))
    }
}

/// A call that was taken in; counts as long as it lives.
pub(crate) struct Admission(Arc<Hosted>);

impl Drop for Admission {
    fn drop(&mut self) {
        self.0.admitted.fetch_sub(1, SeqCst);
        self.0.running.fetch_sub(1, SeqCst);
    }
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
    if name.is_empty() || name.len() > MAX_NAME || name.chars().any(char::is_control) {
        return Err(RegisterError::Name { name: name.chars().take(80).collect() });
    }
    Ok(())
}

fn unannounceable(name: &str, error: &RecordError) -> RegisterError {
    RegisterError::Unannounceable { name: name.to_owned(), reason: error.to_string() }
}

/// The node takes nothing new.
pub(crate) fn draining() -> Refusal {
    Refusal::new(ErrorCode::Draining, "the node is stopping")
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

/// The caller may not do that, and is told nothing more.
pub(crate) fn forbidden() -> Refusal {
    Refusal::new(ErrorCode::Forbidden, "")
}

/// Nothing of that name is hosted here.
pub(crate) fn unknown(name: &str) -> Refusal {
    Refusal::new(ErrorCode::NoSuchApplication, format!("no application `{name}` is hosted here"))
}

/// Processes an application's tells one after the other, until it is unregistered and its queue is empty.
async fn process_all(
    core: Weak<Core>,
    name: Arc<str>,
    application: Arc<dyn Hostable>,
    mut queue: mpsc::Receiver<Told>,
    clogged: Arc<AtomicBool>,
    failed: Arc<AtomicU64>,
) {
    let mut batch = Vec::new();
    while queue.recv_many(&mut batch, BATCH).await > 0 {
        clogged.store(false, SeqCst);
        // Without its node an application has nothing to work on.
        let Some(core) = core.upgrade() else { return };
        for Told { origin, message, charge } in batch.drain(..) {
            let context = origin.context(Node::inner(core.clone()), name.clone());
            let processing = application.clone().process(context, message);
            let failure = match AssertUnwindSafe(processing).catch_unwind().await {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(error.to_string()),
                Err(panic) => Some(format!("panicked: {}", panic_text(&*panic))),
            };
            drop(charge);
            if let Some(reason) = failure {
                failed.fetch_add(1, SeqCst);
                tracing::warn!(application = %name, %reason, "a tell could not be processed");
            }
        }
    }
}

fn refusal(error: AppError) -> Refusal {
    Refusal {
        code: match error.kind {
            AppErrorKind::Failed => ErrorCode::Failed,
            AppErrorKind::NoSuchAction => ErrorCode::NoSuchAction,
            AppErrorKind::BadArguments => ErrorCode::BadArguments,
            AppErrorKind::Forbidden => ErrorCode::Forbidden,
            AppErrorKind::Crashed => ErrorCode::Panicked,
            AppErrorKind::Busy => ErrorCode::Busy,
        },
        name: error.code,
        message: error.message,
        data: error.data.map(Payload::into_bytes).unwrap_or_default(),
    }
}

pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("without a message")
}
