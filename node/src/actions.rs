//! An application made of closures.

use std::{
    collections::BTreeMap,
    fmt,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use futures::{FutureExt, future::BoxFuture};
use multinodes_behaviour::names;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{
    application::{AppError, Application, Context, Profile},
    payload::{Budget, Payload},
    permissions::{Guard, Part, Rule},
};

type Outcome<T> = BoxFuture<'static, Result<T, AppError>>;
type Handler<T> = Arc<dyn Fn(Context, Payload) -> Outcome<T> + Send + Sync>;

/// An application made of closures, one for each action.
///
/// A closure takes its arguments as one value: a tuple for several, `()` for none. Arguments of another number or type
/// are refused before it runs.
///
/// ```
/// use multinodes::Actions;
///
/// let calculator = Actions::new()
///     .action("add", |(a, b): (i64, i64)| async move { a + b })
///     .try_action("div", |(a, b): (i64, i64)| async move { a.checked_div(b).ok_or("division by zero") })
///     .on_tell(|note: String| async move { drop(note) });
/// ```
#[derive(Clone)]
#[must_use = "an application does nothing until it is registered"]
pub struct Actions {
    profile: Profile,
    /// As it was said; else as many as there are slots.
    concurrency: Option<usize>,
    actions: BTreeMap<String, Handler<Payload>>,
    on_tell: Option<Handler<()>>,
    /// What the arguments of running calls take.
    decoded: Decoded,
    guard: Guard,
    /// What was added last.
    last: Part,
}

impl Actions {
    /// An application without any action.
    pub fn new() -> Self {
        let profile = Profile { takes_tells: false, ..Profile::default() };
        Self {
            profile,
            concurrency: None,
            actions: BTreeMap::new(),
            on_tell: None,
            decoded: Decoded::default(),
            guard: Guard::new(),
            last: Part::Application,
        }
    }

    /// What others should know of it: anything that JSON can say.
    pub fn description(mut self, description: Value) -> Self {
        self.profile.description = description;
        self
    }

    /// Its version.
    pub fn version(mut self, version: impl Into<String>) -> Self {
        self.profile.version = Some(version.into());
        self
    }

    /// How many calls it works on at once, at least 1, and tells others so: those who spread work send each host as much
    /// as it can take. Further calls wait for their turn.
    pub fn slots(mut self, slots: u32) -> Self {
        self.profile.slots = Some(slots.max(1));
        self
    }

    /// How many calls it works on at once, at least 1, whatever is advertised: as many as there are
    /// [`slots`](Self::slots) by default, or 1024 if nothing is said of those.
    pub fn concurrency(mut self, calls: usize) -> Self {
        self.concurrency = Some(calls.max(1));
        self
    }

    /// How many calls may wait behind those, and how many tells in its queue (4096 by default). Beyond that it answers
    /// `Busy`.
    pub fn queue(mut self, length: usize) -> Self {
        self.profile.queue = length;
        self
    }

    /// Adds an action that always has a result.
    pub fn action<A, R, F, Fut>(self, name: impl Into<String>, run: F) -> Self
    where
        A: DeserializeOwned,
        R: Serialize,
        F: Fn(A) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = R> + Send + 'static,
    {
        self.action_with(name, move |_, arguments| run(arguments))
    }

    /// Adds an action that always has a result and wants to know who calls.
    pub fn action_with<A, R, F, Fut>(self, name: impl Into<String>, run: F) -> Self
    where
        A: DeserializeOwned,
        R: Serialize,
        F: Fn(Context, A) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = R> + Send + 'static,
    {
        let decoded = self.decoded.clone();
        self.add(name, move |context, arguments: Payload| {
            let running = decoded.read(&arguments).map(|(arguments, held)| (run(context, arguments), held));
            async move {
                let (running, _held) = running?;
                result(&running.await)
            }
            .boxed()
        })
    }

    /// Adds an action that may fail.
    pub fn try_action<A, R, E, F, Fut>(self, name: impl Into<String>, run: F) -> Self
    where
        A: DeserializeOwned,
        R: Serialize,
        E: Into<AppError>,
        F: Fn(A) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<R, E>> + Send + 'static,
    {
        self.try_action_with(name, move |_, arguments| run(arguments))
    }

    /// Adds an action that may fail and wants to know who calls.
    pub fn try_action_with<A, R, E, F, Fut>(self, name: impl Into<String>, run: F) -> Self
    where
        A: DeserializeOwned,
        R: Serialize,
        E: Into<AppError>,
        F: Fn(Context, A) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<R, E>> + Send + 'static,
    {
        let decoded = self.decoded.clone();
        self.add(name, move |context, arguments: Payload| {
            let running = decoded.read(&arguments).map(|(arguments, held)| (run(context, arguments), held));
            async move {
                let (running, _held) = running?;
                result(&running.await.map_err(Into::into)?)
            }
            .boxed()
        })
    }

    /// Adds an action that always has a result, and may run twice without harm, see [`idempotent`](Self::idempotent).
    pub fn idempotent_action<A, R, F, Fut>(self, name: impl Into<String>, run: F) -> Self
    where
        A: DeserializeOwned,
        R: Serialize,
        F: Fn(A) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = R> + Send + 'static,
    {
        let name = name.into();
        self.action(name.clone(), run).idempotent(name)
    }

    /// Declares that an action may run twice without harm, and tells others so: whoever calls it, a call that was lost
    /// with its connection is repeated on another host, within its time, and one under which the application broke on one
    /// other host. See [`AppRef::idempotent`](crate::AppRef::idempotent).
    pub fn idempotent(mut self, action: impl Into<String>) -> Self {
        let action = names::into_normal(action.into());
        if let Err(place) = self.profile.idempotent.binary_search(&action) {
            self.profile.idempotent.insert(place, action);
        }
        self
    }

    /// Takes tells. They are processed one after the other, in the order in which they came.
    pub fn on_tell<M, F, Fut>(self, process: F) -> Self
    where
        M: DeserializeOwned,
        F: Fn(M) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.on_tell_with(move |_, message| process(message))
    }

    /// Takes tells, and wants to know who sends them.
    pub fn on_tell_with<M, F, Fut>(mut self, process: F) -> Self
    where
        M: DeserializeOwned,
        F: Fn(Context, M) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.profile.takes_tells = true;
        self.last = Part::Tells;
        self.on_tell = Some(Arc::new(move |context, message| {
            let running = message.decode().map(|message| process(context, message));
            async move {
                running.map_err(AppError::bad_arguments)?.await;
                Ok(())
            }
            .boxed()
        }));
        self
    }

    /// Says who may use what was added just before, an action or the tells; before the first of them, who may use
    /// everything that has no rules of its own. Repeatable: whom one of several rules takes may. Others get
    /// [`CallError::Forbidden`](crate::CallError::Forbidden), and nothing more. Without a rule everybody may; the node
    /// itself always may.
    ///
    /// **Where it stands decides what it guards.** Behind the last action it guards that one only, and leaves all others
    /// open to everybody. To guard all of them, say it first, before any action:
    ///
    /// ```
    /// # use multinodes::{Actions, PeerId};
    /// # let admin = PeerId::random();
    /// // `size` is open to everybody, only `clear` is guarded:
    /// let open = Actions::new().action("size", |()| async { 7 }).action("clear", |()| async {}).allow(admin);
    /// // Both are guarded:
    /// let closed = Actions::new().allow(admin).action("size", |()| async { 7 }).action("clear", |()| async {});
    /// ```
    ///
    /// ```
    /// use multinodes::{Actions, Rule};
    ///
    /// # #[cfg(feature = "cel")] {
    /// let store = Actions::new()
    ///     .allow(Rule::new("peer.labels.role in ['reader', 'admin']")?)
    ///     .action("size", |()| async { 7 })
    ///     .action("clear", |()| async {})
    ///     .allow(Rule::new("peer.labels.role == 'admin'")?);
    /// # }
    /// # Ok::<(), multinodes::RuleError>(())
    /// ```
    pub fn allow(mut self, rule: impl Into<Rule>) -> Self {
        self.guard = self.guard.with(self.last.clone(), rule.into());
        self
    }

    /// Adds an action that reads its arguments itself, and whose result is encoded already.
    pub(crate) fn raw_action<F, Fut>(self, name: impl Into<String>, run: F) -> Self
    where
        F: Fn(Context, Payload) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Payload, AppError>> + Send + 'static,
    {
        self.add(name, move |context, arguments| run(context, arguments).boxed())
    }

    fn add(
        mut self,
        name: impl Into<String>,
        handler: impl Fn(Context, Payload) -> Outcome<Payload> + Send + Sync + 'static,
    ) -> Self {
        let name = names::into_normal(name.into());
        self.last = Part::Action(name.clone());
        self.actions.insert(name, Arc::new(handler));
        self
    }
}

/// What the arguments of the calls that run take in memory, beyond what is usual.
#[derive(Debug, Clone, Default)]
struct Decoded(Arc<AtomicUsize>);

/// Arguments of so many bytes, once decoded, are not counted: what most calls have costs nothing here.
const UNCOUNTED: usize = 64 * 1024;

/// What the arguments of all calls of one application may take at once: four of those that take the most. Small messages
/// can say values of a hundred times their size, and many calls may run.
const DECODED_AT_ONCE: usize = 4 * Budget::DEFAULT.bytes;

/// Arguments that a call still has.
struct Held(Arc<AtomicUsize>, usize);

impl Decoded {
    fn read<A: DeserializeOwned>(&self, arguments: &Payload) -> Result<(A, Option<Held>), AppError> {
        let (arguments, size) = arguments.weigh_arguments().map_err(AppError::bad_arguments)?;
        if size <= UNCOUNTED {
            return Ok((arguments, None));
        }
        let before = self.0.fetch_add(size, Relaxed);
        let held = Held(self.0.clone(), size);
        // One of them alone has had its own budget.
        if before > 0 && before + size > DECODED_AT_ONCE {
            let limit = DECODED_AT_ONCE >> 20;
            return Err(AppError::busy(format!("the arguments of its calls take more than {limit} MiB")));
        }
        Ok((arguments, Some(held)))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.fetch_sub(self.1, Relaxed);
    }
}

fn result<R: Serialize>(value: &R) -> Result<Payload, AppError> {
    Payload::encode(value).map_err(|error| AppError::new("unencodable_result", error.to_string()))
}

impl Application for Actions {
    fn profile(&self) -> Profile {
        let slots = self.profile.slots.and_then(|slots| usize::try_from(slots).ok());
        let concurrency = self.concurrency.or(slots).unwrap_or(self.profile.concurrency);
        Profile { actions: self.actions.keys().cloned().collect(), concurrency, ..self.profile.clone() }
    }

    fn guard(&self) -> Guard {
        self.guard.clone()
    }

    async fn call(&self, context: Context, action: &str, arguments: Payload) -> Result<Payload, AppError> {
        match self.actions.get(action) {
            Some(run) => run(context, arguments).await,
            None => Err(AppError::no_such_action(action)),
        }
    }

    async fn process(&self, context: Context, message: Payload) -> Result<(), AppError> {
        match &self.on_tell {
            Some(process) => process(context, message).await,
            None => Err(AppError::unsupported("it takes no tells")),
        }
    }
}

impl Default for Actions {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Actions {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Actions").field("profile", &Application::profile(self)).finish_non_exhaustive()
    }
}
