//! The one instance of an application, thrown away and made anew.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;
use wasmtime::{
    Store,
    component::{Instance, TypedFunc},
};

use super::Terms;
use crate::code::{
    compiler::Compiled,
    guest::{Binding, Guest, begin, instantiate},
    guest_error::GuestError,
    memory::Memory,
    runtime::within,
};

/// After an instance broke the next one waits for so long, and twice as long each time.
const REST: Duration = Duration::from_millis(100);

/// But no longer than this.
const LONGEST_REST: Duration = Duration::from_secs(10);

/// Room among the instances of the runtime and of the rule.
pub(super) type Places = Arc<(OwnedSemaphorePermit, OwnedSemaphorePermit)>;

/// What is asked of an application.
pub(super) enum Request {
    /// Nothing but to be there.
    Start,
    Handle(String, Bytes),
    Process(Bytes),
}

/// What there is of an application.
pub(super) struct State {
    compiled: Compiled,
    configuration: Vec<u8>,
    live: Option<Live>,
    memory: Memory,
    /// Room for one instance, also while there is none: nobody else takes it meanwhile.
    places: Places,
    terms: Arc<Terms>,
    /// How often it broke since something went well.
    failures: u32,
    rest: Option<Rest>,
}

struct Rest {
    until: Instant,
    reason: String,
}

/// An instance that has started. It is taken out for each request, and put back if it is whole.
struct Live {
    store: Store<Guest>,
    handle: TypedFunc<(String, Vec<u8>), Answer>,
    process: TypedFunc<(Vec<u8>,), Done>,
}

type Answer = (Result<Vec<u8>, String>,);
type Done = (Result<(), String>,);

impl State {
    pub(super) fn new(
        compiled: Compiled,
        configuration: Vec<u8>,
        memory: Memory,
        places: Places,
        terms: Arc<Terms>,
    ) -> Self {
        Self { compiled, configuration, live: None, memory, places, terms, failures: 0, rest: None }
    }

    pub(super) fn terms(&self) -> &Terms {
        &self.terms
    }

    /// In another place.
    pub(super) fn at(self, places: Places) -> Self {
        Self { places, ..self }
    }

    /// Within other terms.
    pub(super) fn within(self, terms: Arc<Terms>) -> Self {
        Self { terms, ..self }
    }

    /// What comes in its place if it starts: for that moment there are two in one place.
    pub(super) fn successor(&self, compiled: Compiled, configuration: Vec<u8>) -> Self {
        Self::new(compiled, configuration, self.memory.clone(), self.places.clone(), self.terms.clone())
    }

    /// Serves a request, with a new instance if there is none.
    pub(super) async fn serve(&mut self, request: Request, binding: Binding) -> Result<Vec<u8>, GuestError> {
        self.check_rest(Instant::now())?;
        binding.account.may_compute()?;
        let mut live = match self.live.take() {
            Some(live) => live,
            None => {
                let started = within(binding.limits.wall, self.start(binding.clone())).await;
                started.map_err(|error| if error.may_have_run() { self.failed(error) } else { error })?
            }
        };
        let wall = binding.limits.wall;
        begin(&mut live.store, binding);
        match within(wall, live.serve(request)).await {
            Err(error) if !error.leaves_it_whole() => Err(self.failed(error)),
            result => {
                self.live = Some(live);
                self.failures = 0;
                result
            }
        }
    }

    async fn start(&self, binding: Binding) -> Result<Live, GuestError> {
        let (mut store, instance) = instantiate(&self.memory, &self.compiled, binding).await?;
        let started = async {
            let start = function::<(&[u8],), Done>(&mut store, &instance, "start")?;
            let (started,) = start.call_async(&mut store, (&self.configuration,)).await?;
            let handle = function(&mut store, &instance, "handle")?;
            let process = function(&mut store, &instance, "process")?;
            Ok((started, handle, process))
        };
        match started.await {
            Ok((Ok(()), handle, process)) => Ok(Live { store, handle, process }),
            Ok((Err(text), ..)) => Err(GuestError::Failed(text)),
            Err(error) => Err(store.data().explain(&error)),
        }
    }

    fn check_rest(&self, now: Instant) -> Result<(), GuestError> {
        match &self.rest {
            Some(Rest { until, reason }) if *until > now => {
                Err(GuestError::Resting { remaining: *until - now, reason: reason.clone() })
            }
            _ => Ok(()),
        }
    }

    /// It broke: it rests.
    fn failed(&mut self, error: GuestError) -> GuestError {
        let rest = rest(self.failures);
        self.failures = self.failures.saturating_add(1);
        self.rest = Some(Rest { until: Instant::now() + rest, reason: error.to_string() });
        tracing::debug!(cid = %self.compiled.cid(), %error, ?rest, "a guest broke, and rests");
        error
    }
}

impl Live {
    async fn serve(&mut self, request: Request) -> Result<Vec<u8>, GuestError> {
        let Self { store, handle, process, .. } = self;
        let served = match request {
            Request::Start => return Ok(Vec::new()),
            Request::Handle(action, arguments) => {
                handle.call_async(&mut *store, (action, arguments.into())).await.map(|(result,)| result)
            }
            Request::Process(message) => {
                let done = process.call_async(&mut *store, (message.into(),)).await;
                done.map(|(done,)| done.map(|()| Vec::new()))
            }
        };
        match served {
            Ok(result) => result.map_err(GuestError::Failed),
            Err(error) => Err(store.data().explain(&error)),
        }
    }
}

fn function<P, R>(store: &mut Store<Guest>, instance: &Instance, name: &str) -> wasmtime::Result<TypedFunc<P, R>>
where
    P: wasmtime::component::ComponentNamedList + wasmtime::component::Lower,
    R: wasmtime::component::ComponentNamedList + wasmtime::component::Lift,
{
    instance.get_typed_func(store, name)
}

fn rest(failures: u32) -> Duration {
    REST.saturating_mul(2_u32.saturating_pow(failures)).min(LONGEST_REST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_that_breaks_again_and_again_rests_longer_each_time_and_never_for_ever() {
        let rests: Vec<_> = (0..9).map(|failures| rest(failures).as_millis()).collect();
        assert_eq!(rests, [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
        assert_eq!(rest(u32::MAX), LONGEST_REST);
    }
}
