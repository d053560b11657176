//! Guests that run once.

use std::{sync::Arc, time::Instant};

use tokio::sync::oneshot;
use wasmtime::Store;

use super::{
    ahead::Ahead,
    allowance::Allowance,
    code_ref::World,
    compiler::Compiled,
    guest::{Binding, Callers, Guest, instantiate},
    guest_error::GuestError,
    memory::Memory,
    runtime::{Runtime, metered, sheltered, within},
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
    let (limits, account) = (allowance.shared_limits(), allowance.account());
    account.may_compute()?;
    let places = (runtime.instance()?, allowance.instance()?);
    let binding =
        Binding { limits, account: account.clone(), surroundings, home: runtime.home(), callers: Callers::current() };
    let (wall, home, memory) = (binding.limits.wall, runtime.home(), runtime.memory());
    let compiled = compiled.clone();
    let work = |answer: oneshot::Sender<_>| async move {
        let mut spent = None;
        let work = run_here(&memory, &compiled, arguments, binding, &mut spent);
        let outcome = within(wall, metered(&account, sheltered(work))).await;
        // It runs no more. To clear it away takes as long as a small task, and nobody has to wait for that.
        drop(places);
        // Nobody may wait any more.
        _ = answer.send(outcome);
        drop(spent);
        Ahead::prepare(&compiled, home, &memory).await;
    };
    runtime.run(work).await
}

/// Leaves what is left of the instance in `spent`.
async fn run_here(
    memory: &Memory,
    compiled: &Compiled,
    arguments: Vec<u8>,
    binding: Binding,
    spent: &mut Option<Store<Guest>>,
) -> Result<Outcome, GuestError> {
    let begun = Instant::now();
    let ((store, instance), ahead) = match compiled.ahead.take(binding) {
        Ok(fresh) => (fresh, true),
        Err(binding) => (instantiate(memory, compiled, binding).await?, false),
    };
    let store = spent.insert(store);
    let instantiated = begun.elapsed();
    let called = async {
        let function = instance.get_typed_func::<(&[u8],), (Result<Vec<u8>, String>,)>(&mut *store, "run")?;
        function.call_async(&mut *store, (&arguments,)).await
    };
    match called.await {
        Ok((Ok(result),)) => {
            let run = begun.elapsed() - instantiated;
            let timings = Timings { instantiate: instantiated, ahead, run, ..compiled.timings() };
            Ok(Outcome { result, timings })
        }
        Ok((Err(text),)) => Err(GuestError::Failed(text)),
        Err(error) => Err(store.data().explain(&error)),
    }
}
