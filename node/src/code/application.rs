//! Guests that stay: applications like any other.

mod live;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use tokio::{
    sync::{Mutex, OwnedMutexGuard},
    time::sleep,
};

use super::{
    allowance::Allowance,
    code_ref::World,
    compiler::Compiled,
    guest::{Binding, Callers},
    guest_error::GuestError,
    runtime::Runtime,
    surroundings::Surroundings,
};
use crate::{
    application::{AppError, Application, Context, Profile},
    payload::Payload,
};

use live::{Request, State};

/// Calls that may wait for the instance. More wait in the node's own queue.
const WAITING: usize = 256;

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
/// 100 ms later, or twice as long each time, up to 10 s: until then it answers `Busy`, and what it is told waits. Cheap to clone; all clones are the
/// same application.
#[derive(Clone)]
pub struct GuestApplication(Arc<Inner>);

struct Inner {
    id: u64,
    runtime: Arc<Runtime>,
    profile: Profile,
    state: Arc<Mutex<State>>,
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
        let application = Self(Arc::new(Inner {
            id: NEXT.fetch_add(1, Relaxed),
            runtime,
            profile: Profile { concurrency: WAITING, slots: profile.slots.or(Some(1)), ..profile },
            state: Arc::new(Mutex::new(State::new(compiled, configuration, places, Arc::new(terms)))),
        }));
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
        check_world(&compiled)?;
        let state = self.0.state.clone().lock_owned().await;
        let new = state.successor(compiled, configuration);
        self.put(state, new).await
    }

    /// The same for code of somebody else: it runs within the terms of that one, from its start on.
    pub(crate) async fn take_over(
        &self,
        compiled: Compiled,
        configuration: Vec<u8>,
        terms: Terms,
    ) -> Result<(), GuestError> {
        check_world(&compiled)?;
        let state = self.0.state.clone().lock_owned().await;
        let mut new = state.successor(compiled, configuration);
        if !terms.allowance.is(&state.terms().allowance) {
            new = new.at(Arc::new((self.0.runtime.instance()?, terms.allowance.instance()?)));
        }
        self.put(state, new.within(Arc::new(terms))).await
    }

    async fn put(&self, mut state: OwnedMutexGuard<State>, mut new: State) -> Result<(), GuestError> {
        let binding = self.0.binding(new.terms(), None);
        let started = self.0.runtime.run(async move {
            new.serve(Request::Start, binding).await?;
            Ok(new)
        });
        *state = started.await?;
        Ok(())
    }
}

impl Inner {
    async fn request(&self, context: Option<&Context>, request: Request) -> Result<Vec<u8>, GuestError> {
        if Callers::current().has(self.id) {
            return Err(GuestError::Reentrant);
        }
        let mut state: OwnedMutexGuard<State> = self.state.clone().lock_owned().await;
        let binding = self.binding(state.terms(), context);
        // The state goes along: dropped in the middle, it comes back without its instance.
        self.runtime.run(async move { state.serve(request, binding).await }).await
    }

    fn binding(&self, terms: &Terms, context: Option<&Context>) -> Binding {
        Binding {
            limits: Arc::new(terms.allowance.limits().clone()),
            surroundings: (terms.surround)(context),
            home: self.runtime.home(),
            callers: Callers::current().with(self.id),
        }
    }
}

impl Application for GuestApplication {
    fn profile(&self) -> Profile {
        self.0.profile.clone()
    }

    async fn call(&self, context: Context, action: &str, arguments: Payload) -> Result<Payload, AppError> {
        let request = Request::Handle(action.to_owned(), arguments.into_bytes());
        let result = self.0.request(Some(&context), request).await;
        Ok(Payload::from_bytes(result.map_err(told)?))
    }

    async fn process(&self, context: Context, message: Payload) -> Result<(), AppError> {
        let request = || Request::Process(message.bytes().clone());
        let mut result = self.0.request(Some(&context), request()).await;
        // Nobody could repeat it: it waits, and those behind it with it. Once, so that what is left when the node stops
        // is over soon.
        if let Err(GuestError::Resting { remaining, .. }) = result {
            sleep(remaining).await;
            result = self.0.request(Some(&context), request()).await;
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
        E::InstanceLimit { .. } | E::Resting { .. } => AppError::busy(error),
        E::Reentrant => AppError::new("reentrant", error.to_string()),
        error => AppError::crashed(format_args!("broke: {error}")),
    }
}

impl fmt::Debug for GuestApplication {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("GuestApplication").field("profile", &self.0.profile).finish_non_exhaustive()
    }
}
