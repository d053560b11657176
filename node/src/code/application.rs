//! Guests that stay: applications like any other.

mod live;
mod turns;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use tokio::{
    sync::{mpsc, oneshot},
    time::sleep,
};

use super::{
    allowance::Allowance, code_ref::World, compiler::Compiled, guest::Callers, guest_error::GuestError,
    runtime::Runtime, surroundings::Surroundings,
};
use crate::{
    application::{AppError, Application, Context, Profile},
    payload::Payload,
};

use live::{Request, State};
use turns::{Job, Turns};

/// Calls that may wait for the instance. More wait in the node's own queue.
const WAITING: usize = 256;

/// What a guest is told waits for so long until its sender may have it compute again.
const PATIENCE: Duration = Duration::from_secs(120);

/// Makes what a request can reach; without a context that of the start.
type Surround = Box<dyn Fn(Option<&Context>) -> Arc<dyn Surroundings> + Send + Sync>;

/// How much a guest may take, and what it can reach: both are those of whoever has installed it.
pub(crate) struct Terms {
    allowance: Allowance,
    surround: Surround,
}

impl Terms {
    pub(crate) fn new(
        allowance: Allowance,
        surround: impl Fn(Option<&Context>) -> Arc<dyn Surroundings> + Send + Sync + 'static,
    ) -> Self {
        Self { allowance, surround: Box::new(surround) }
    }
}

/// A guest that is hosted as an application: one live instance, which takes one request at a time.
///
/// An instance that breaks or goes over a limit is thrown away, and so is one whose request was dropped in the middle. The
/// next request gets a new one, which is started anew with the same configuration. After it broke by itself, that is
/// 100 ms later, or twice as long each time, up to 10 s: until then it answers `Busy`, and what it is told waits. Cheap to
/// clone; all clones are the same application.
#[derive(Clone)]
pub struct GuestApplication(Arc<Inner>);

struct Inner {
    id: u64,
    /// It lasts as long as its applications do.
    _runtime: Arc<Runtime>,
    profile: Profile,
    jobs: mpsc::Sender<Job>,
}

impl GuestApplication {
    /// Starts the first instance, with a configuration in CBOR. `surround` makes what a request can reach, from the message
    /// that it comes with.
    ///
    /// # Errors
    ///
    /// See [`GuestError`]: it does not start.
    pub async fn start(
        runtime: Arc<Runtime>,
        compiled: Compiled,
        configuration: Vec<u8>,
        allowance: Allowance,
        profile: Profile,
        surround: impl Fn(Option<&Context>) -> Arc<dyn Surroundings> + Send + Sync + 'static,
    ) -> Result<Self, GuestError> {
        let terms = Terms::new(allowance, surround);
        Self::start_within(runtime, compiled, configuration, terms, profile).await
    }

    /// The same, within terms.
    pub(crate) async fn start_within(
        runtime: Arc<Runtime>,
        compiled: Compiled,
        configuration: Vec<u8>,
        terms: Terms,
        profile: Profile,
    ) -> Result<Self, GuestError> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        check_world(&compiled)?;
        let places = Arc::new((runtime.instance()?, terms.allowance.instance()?));
        let state = State::new(compiled, configuration, runtime.memory(), places, Arc::new(terms));
        let id = NEXT.fetch_add(1, Relaxed);
        let jobs = Turns::begin(&runtime, id, state, WAITING);
        let profile = Profile { concurrency: WAITING, slots: profile.slots.or(Some(1)), ..profile };
        let application = Self(Arc::new(Inner { id, _runtime: runtime, profile, jobs }));
        application.0.request(None, Request::Start).await?;
        Ok(application)
    }

    /// Puts other code in its place: requests wait, and none is lost. If the new code does not start, the old one goes on as
    /// it was.
    ///
    /// # Errors
    ///
    /// See [`GuestError`]: the new code does not start.
    pub async fn upgrade(&self, compiled: Compiled, configuration: Vec<u8>) -> Result<(), GuestError> {
        self.put(compiled, configuration, None).await
    }

    /// The same for code of somebody else: it runs within the terms of that one, from its start on.
    pub(crate) async fn take_over(
        &self,
        compiled: Compiled,
        configuration: Vec<u8>,
        terms: Terms,
    ) -> Result<(), GuestError> {
        self.put(compiled, configuration, Some(terms)).await
    }

    async fn put(&self, compiled: Compiled, configuration: Vec<u8>, terms: Option<Terms>) -> Result<(), GuestError> {
        check_world(&compiled)?;
        self.0.ask(|answer| Job::Replace { compiled, configuration, terms, answer }).await.map(drop)
    }
}

impl Inner {
    async fn request(&self, context: Option<Context>, request: Request) -> Result<Vec<u8>, GuestError> {
        let callers = Callers::current();
        if callers.has(self.id) {
            return Err(GuestError::Reentrant);
        }
        self.ask(|answer| Job::Serve { request, context, callers, answer }).await
    }

    /// Dropped, the job is not begun any more, or ends at the next tick.
    async fn ask(
        &self,
        job: impl FnOnce(oneshot::Sender<Result<Vec<u8>, GuestError>>) -> Job,
    ) -> Result<Vec<u8>, GuestError> {
        let (sender, answer) = oneshot::channel();
        self.jobs.send(job(sender)).await.map_err(|_| GuestError::Stopped)?;
        answer.await.unwrap_or(Err(GuestError::Stopped))
    }
}

impl Application for GuestApplication {
    fn profile(&self) -> Profile {
        self.0.profile.clone()
    }

    async fn call(&self, context: Context, action: &str, arguments: Payload) -> Result<Payload, AppError> {
        let request = Request::Handle(action.to_owned(), arguments.into_bytes());
        let result = self.0.request(Some(context), request).await;
        Ok(Payload::from_bytes(result.map_err(told)?))
    }

    async fn process(&self, context: Context, message: Payload) -> Result<(), AppError> {
        let request = || self.0.request(Some(context.clone()), Request::Process(message.bytes().clone()));
        let mut result = request().await;
        // Nobody could repeat it: it waits, and those behind it with it. Once for a guest that broke, so that what is left
        // when the node stops is over soon.
        if let Err(GuestError::Resting { remaining, .. }) = result {
            sleep(remaining).await;
            result = request().await;
        }
        // What a guest tells itself goes no faster than its sender's rate; others may use up what was waited for.
        let patience = Instant::now() + PATIENCE;
        while let Err(GuestError::RateLimit { wait, begun: false, .. }) = result
            && Instant::now() + wait <= patience
        {
            sleep(wait).await;
            result = request().await;
        }
        result.map_err(told)?;
        Ok(())
    }
}

fn check_world(compiled: &Compiled) -> Result<(), GuestError> {
    match compiled.world() {
        World::Application => Ok(()),
        actual => Err(GuestError::WrongWorld { actual }),
    }
}

/// As its callers are told.
fn told(error: GuestError) -> AppError {
    use GuestError as E;
    match error {
        E::Failed(text) => AppError::of(text),
        E::InstanceLimit { .. }
        | E::Resting { .. }
        | E::RateLimit { begun: false, .. }
        | E::NodeMemory { begun: false, .. } => AppError::busy(error),
        E::Reentrant => AppError::new("reentrant", error.to_string()),
        error => AppError::crashed(format_args!("broke: {error}")),
    }
}

impl fmt::Debug for GuestApplication {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("GuestApplication").field("profile", &self.0.profile).finish_non_exhaustive()
    }
}
