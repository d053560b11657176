//! Guests that run once.

use std::{sync::Arc, time::Instant};

use super::{
    allowance::Allowance,
    code_ref::World,
    compiler::Compiled,
    guest::{Binding, Callers, instantiate},
    guest_error::GuestError,
    runtime::{Runtime, within},
    surroundings::Surroundings,
    timings::Timings,
};

/// What a task has given.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Outcome {
    /// Its result, CBOR if the guest keeps to the rules.
    pub result: Vec<u8>,
    /// Where the time went.
    pub timings: Timings,
}

/// Runs a task in an instance of its own, with CBOR arguments. Dropping the future ends the guest within a millisecond or two.
///
/// # Errors
///
/// See [`GuestError`].
pub async fn run(
    runtime: &Runtime,
    compiled: &Compiled,
    arguments: Vec<u8>,
    allowance: &Allowance,
    surroundings: Arc<dyn Surroundings>,
) -> Result<Outcome, GuestError> {
    if compiled.world() != World::Task {
        return Err(GuestError::WrongWorld { actual: compiled.world() });
    }
    let places = (runtime.instance()?, allowance.instance()?);
    let limits = Arc::new(allowance.limits().clone());
    let binding = Binding { limits, surroundings, home: runtime.home(), callers: Callers::current() };
    let wall = binding.limits.wall;
    let compiled = compiled.clone();
    let work = async move {
        let outcome = within(wall, run_here(compiled, arguments, binding)).await;
        drop(places);
        outcome
    };
    runtime.run(work).await
}

async fn run_here(compiled: Compiled, arguments: Vec<u8>, binding: Binding) -> Result<Outcome, GuestError> {
    let begun = Instant::now();
    let (mut store, instance) = instantiate(&compiled, binding).await?;
    let instantiated = begun.elapsed();
    let called = async {
        let function = instance.get_typed_func::<(&[u8],), (Result<Vec<u8>, String>,)>(&mut store, "run")?;
        function.call_async(&mut store, (&arguments,)).await
    };
    match called.await {
        Ok((Ok(result),)) => {
            let run = begun.elapsed() - instantiated;
            Ok(Outcome { result, timings: Timings { instantiate: instantiated, run, ..compiled.timings() } })
        }
        Ok((Err(text),)) => Err(GuestError::Failed(text)),
        Err(error) => Err(store.data().explain(&error)),
    }
}
