//! Instances that are made before somebody asks for them: each is used once, and is as fresh as if it were made then.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::runtime::Handle;
use wasmtime::{Func, Store, component::Instance};

use super::{
    compiler::Compiled,
    guest::{Binding, Callers, Guest, begin, instantiate_in},
    guest_error::GuestError,
    limits::Limits,
    memory::Memory,
    rate::Account,
    runtime::metered,
    surroundings::Alone,
};

/// The most memory of an instance that waits, in bytes, with all that is in it.
const MEMORY: usize = 4 * 1024 * 1024;

/// Instances that wait, of all code. The one that has waited for longest goes first.
const MOST: usize = 16;

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
}

impl Ahead {
    /// The instance, bound to a request; the binding back if there is none that may be used for it.
    pub(crate) fn take(&self, binding: Binding) -> Result<(Store<Guest>, Instance), Binding> {
        let next = self.next().take();
        match next {
            Some(Next { mut store, instance }) if store.data().fits(&binding.limits) => {
                begin(&mut store, binding);
                Ok((store, instance))
            }
            _ => Err(binding),
        }
    }

    /// Makes the next instance, if there is none and there is memory for it. Code that computes for long before it is asked
    /// for anything, is large, or wants something of the node, is left alone: that is for a request to pay, and for its
    /// sender to be allowed.
    pub(crate) async fn prepare(compiled: &Compiled, home: Handle, memory: &Memory) {
        let this = &compiled.ahead;
        if this.never.load(Relaxed) || this.is_ready() {
            return;
        }
        if compiled.own_memory() > MEMORY {
            return this.never.store(true, Relaxed);
        }
        let Some(share) = memory.spare_share(compiled.own_memory()) else { return };
        let limits = Limits { cpu: Duration::ZERO, memory: MEMORY, host_calls: 0, ..Limits::default() };
        let (limits, surroundings) = (Arc::new(limits), Arc::new(Alone));
        let account = Arc::new(Account::new(None, None));
        let binding = Binding { limits, account: account.clone(), surroundings, home, callers: Callers::default() };
        let made = async {
            let (mut store, instance) = instantiate_in(share, compiled, binding).await?;
            // The store keeps the stack for its next call: this one is the host's, and no guest runs on it yet.
            let nothing = Func::wrap(&mut store, || {}).typed::<(), ()>(&store);
            let stacked = match nothing {
                Ok(nothing) => nothing.call_async(&mut store, ()).await,
                Err(error) => Err(error),
            };
            stacked.map_err(|error| store.data().explain(&error))?;
            Ok::<_, GuestError>((store, instance))
        };
        match metered(&account, made).await {
            Ok((store, instance)) => {
                *this.next() = Some(Next { store, instance });
                memory.keep_ahead(this, MOST);
            }
            Err(GuestError::NodeMemory { .. }) => {}
            Err(error) => {
                tracing::debug!(%error, "instances of this code are made when they are asked for");
                this.never.store(true, Relaxed);
            }
        }
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.next().is_some()
    }

    /// Gives the instance up; false if there is none.
    pub(crate) fn give_up(&self) -> bool {
        // Not while others wait for the lock.
        let given_up = self.next().take();
        given_up.is_some()
    }

    fn next(&self) -> MutexGuard<'_, Option<Next>> {
        self.next.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
