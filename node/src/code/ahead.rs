//! Instances that are made before somebody asks for them: each is used once, and is as fresh as if it were made then.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore},
};
use wasmtime::{
    Func, Store,
    component::{Instance, InstancePre},
};

use super::{
    guest::{Binding, Callers, Guest, begin, instantiate},
    guest_error::GuestError,
    limits::Limits,
    runtime::metered,
    surroundings::Alone,
};

/// The most memory of an instance that waits, in bytes.
const MEMORY: usize = 4 * 1024 * 1024;

/// The next instance of some code.
#[derive(Default)]
pub(crate) struct Ahead {
    next: Mutex<Option<Next>>,
    /// It cannot be had ahead: it is large, or does something before it is asked for anything.
    never: AtomicBool,
}

struct Next {
    store: Store<Guest>,
    instance: Instance,
    _room: OwnedSemaphorePermit,
}

impl Ahead {
    /// The instance, bound to a request; the binding back if there is none that may be used for it.
    pub(crate) fn take(&self, binding: Binding) -> Result<(Store<Guest>, Instance), Binding> {
        let next = self.next().take();
        match next {
            Some(Next { mut store, instance, .. }) if store.data().fits(&binding.limits) => {
                begin(&mut store, binding);
                Ok((store, instance))
            }
            _ => Err(binding),
        }
    }

    /// Makes the next instance, if there is none and there is room. Code that computes for long before it is asked for
    /// anything, or wants something of the node, is left alone: that is for a request to pay, and for its sender to be
    /// allowed.
    pub(crate) async fn prepare(&self, ready: &InstancePre<Guest>, home: Handle, room: Arc<Semaphore>) {
        if self.never.load(Relaxed) || self.next().is_some() {
            return;
        }
        let Ok(room) = room.try_acquire_owned() else { return };
        let limits = Limits { cpu: Duration::ZERO, memory: MEMORY, host_calls: 0, ..Limits::default() };
        let (limits, surroundings) = (Arc::new(limits), Arc::new(Alone));
        let binding = Binding { limits, surroundings, home, callers: Callers::default() };
        let made = async {
            let (mut store, instance) = instantiate(ready, binding).await?;
            // The store keeps the stack for its next call: this one is the host's, and no guest runs on it yet.
            let nothing = Func::wrap(&mut store, || {}).typed::<(), ()>(&store);
            let stacked = match nothing {
                Ok(nothing) => nothing.call_async(&mut store, ()).await,
                Err(error) => Err(error),
            };
            stacked.map_err(|error| store.data().explain(&error))?;
            Ok::<_, GuestError>((store, instance))
        };
        match metered(made).await {
            Ok((store, instance)) => *self.next() = Some(Next { store, instance, _room: room }),
            Err(error) => {
                tracing::debug!(%error, "instances of this code are made when they are asked for");
                self.never.store(true, Relaxed);
            }
        }
    }

    fn next(&self) -> MutexGuard<'_, Option<Next>> {
        self.next.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
