//! One instance of a guest, and what it has taken.

use std::{sync::Arc, time::Instant};

use tokio::{runtime::Handle, task::JoinHandle};
use wasmtime::{ResourceLimiter, Store, StoreContextMut, Trap, UpdateDeadline, component::Instance};

use super::{
    code_error::shorten,
    compiler::Compiled,
    engine::STACK,
    guest_error::GuestError,
    limits::Limits,
    memory::{Memory, Share},
    rate::Account,
    runtime::computed,
    surroundings::Surroundings,
    vetting::MAX_PARTS,
};

tokio::task_local! {
    /// The guests that wait for what this task does.
    pub(crate) static CALLERS: Callers;
}

/// A table's element takes so many bytes at the most.
const ELEMENT: usize = 16;

/// Handles to resources that one instance may hold, some dozen bytes each. Only those that it makes itself can be told apart.
const HANDLES: usize = 10_000;

/// What one instance may take and has taken, and what it can reach: the data of its store.
pub(crate) struct Guest {
    limits: Arc<Limits>,
    pub(super) surroundings: Arc<dyn Surroundings>,
    /// The runtime on which what it asks for is done.
    home: Handle,
    pub(super) callers: Callers,
    account: Arc<Account>,
    /// Bytes of all that it has.
    memory: usize,
    /// The same, of what all guests may have.
    share: Share,
    wanted_more: bool,
    /// Others have what it wanted.
    starved: bool,
    host_calls: u64,
    /// What it was stopped for.
    stopped: Option<GuestError>,
}

/// The applications that wait for a request, in this process, the newest first.
#[derive(Debug, Clone, Default)]
pub(crate) struct Callers(Option<Arc<(u64, Callers)>>);

impl Callers {
    /// Those that wait for the present task.
    pub(crate) fn current() -> Self {
        CALLERS.try_with(Clone::clone).unwrap_or_default()
    }

    pub(crate) fn with(self, id: u64) -> Self {
        Self(Some(Arc::new((id, self))))
    }

    pub(crate) fn has(&self, id: u64) -> bool {
        let mut callers = self;
        while let Some(link) = &callers.0 {
            if link.0 == id {
                return true;
            }
            callers = &link.1;
        }
        false
    }
}

/// What a request of a guest is bound to.
#[derive(Clone)]
pub(crate) struct Binding {
    pub(crate) limits: Arc<Limits>,
    pub(crate) account: Arc<Account>,
    pub(crate) surroundings: Arc<dyn Surroundings>,
    pub(crate) home: Handle,
    pub(crate) callers: Callers,
}

/// Makes an instance. Its own code may run already.
pub(crate) async fn instantiate(
    memory: &Memory,
    compiled: &Compiled,
    binding: Binding,
) -> Result<(Store<Guest>, Instance), GuestError> {
    let (needed, limit) = (compiled.own_memory(), binding.limits.memory);
    if needed > limit {
        return Err(GuestError::MemoryLimit { limit });
    }
    instantiate_in(memory.share(needed)?, compiled, binding).await
}

/// The same, where there is memory for it.
pub(crate) async fn instantiate_in(
    share: Share,
    compiled: &Compiled,
    binding: Binding,
) -> Result<(Store<Guest>, Instance), GuestError> {
    let ready = &compiled.ready;
    let mut store = Store::new(ready.engine(), Guest::new(share, compiled.own_memory(), binding));
    store.limiter(|guest| guest);
    store.set_max_component_handles(HANDLES);
    store.set_hostcall_fuel(store.data().limits.output);
    store.epoch_deadline_callback(|mut store| store.data_mut().tick());
    store.set_epoch_deadline(1);
    match ready.instantiate_async(&mut store).await {
        Ok(instance) => Ok((store, instance)),
        Err(error) => Err(store.data().explain(&error)),
    }
}

/// Lets an instance begin a request: its time starts anew.
pub(crate) fn begin(store: &mut Store<Guest>, binding: Binding) {
    let guest = store.data_mut();
    let Binding { limits, account, surroundings, home, callers } = binding;
    (guest.limits, guest.account, guest.surroundings) = (limits, account, surroundings);
    (guest.home, guest.callers) = (home, callers);
    (guest.host_calls, guest.wanted_more, guest.starved, guest.stopped) = (0, false, false, None);
    store.set_hostcall_fuel(store.data().limits.output);
    store.set_epoch_deadline(1);
}

impl Guest {
    fn new(share: Share, memory: usize, binding: Binding) -> Self {
        let Binding { limits, account, surroundings, home, callers } = binding;
        let (wanted_more, starved, host_calls, stopped) = (false, false, 0, None);
        Self { limits, surroundings, home, callers, account, memory, share, wanted_more, starved, host_calls, stopped }
    }

    /// Whether what it has is within these limits.
    pub(super) fn fits(&self, limits: &Limits) -> bool {
        self.memory <= limits.memory
    }

    /// The clock has ticked, once or more: one instruction may last longer than that. Others have their turn.
    fn tick(&mut self) -> wasmtime::Result<UpdateDeadline> {
        if computed() > self.limits.cpu {
            return self.stop(GuestError::CpuLimit { limit: self.limits.cpu });
        }
        let computing = &self.account.computing;
        if let Some(rate) = computing.rate() {
            let now = Instant::now();
            if computing.is_used_up(now) {
                let wait = computing.wait(now).unwrap_or_default();
                return self.stop(GuestError::RateLimit { rate, wait, begun: true });
            }
        }
        Ok(UpdateDeadline::Yield(1))
    }

    /// It asks for something.
    pub(super) fn ask(&mut self) -> wasmtime::Result<()> {
        self.host_calls += 1;
        if self.host_calls > self.limits.host_calls {
            return self.stop(GuestError::HostCallLimit { limit: self.limits.host_calls });
        }
        Ok(())
    }

    fn stop<T>(&mut self, error: GuestError) -> wasmtime::Result<T> {
        let text = error.to_string();
        self.stopped = Some(error);
        Err(wasmtime::Error::msg(text))
    }

    /// Does something where the node lives. Dropped, it is not done any further.
    pub(super) fn away<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, String>> + Send + 'static,
    ) -> impl Future<Output = Result<T, String>> + Send + 'static {
        let task = Owned(self.home.spawn(CALLERS.scope(self.callers.clone(), work)));
        async move { task.join().await.unwrap_or_else(|| Err("the node has dropped it".to_owned())) }
    }

    /// Why it has ended.
    pub(crate) fn explain(&self, error: &wasmtime::Error) -> GuestError {
        if let Some(stopped) = &self.stopped {
            return stopped.clone();
        }
        if error.downcast_ref::<Trap>() == Some(&Trap::StackOverflow) {
            return GuestError::StackLimit { limit: STACK };
        }
        // The only sign that there is: a type of wasmtime's own, which it does not show.
        let reason = error.root_cause().to_string();
        if reason.contains("fuel allocated for hostcalls has been exhausted") {
            return GuestError::OutputTooLarge { limit: self.limits.output };
        }
        if self.starved {
            return GuestError::NodeMemory { limit: self.share.limit(), begun: true };
        }
        if self.wanted_more {
            return GuestError::MemoryLimit { limit: self.limits.memory };
        }
        GuestError::Trapped { reason: shorten(reason) }
    }

    fn grow(&mut self, bytes: usize) -> bool {
        let grown = self.memory.saturating_add(bytes);
        if grown > self.limits.memory {
            self.wanted_more = true;
            return false;
        }
        if !self.share.grow(bytes) {
            self.starved = true;
            return false;
        }
        self.memory = grown;
        true
    }
}

/// Refused growth is no trap: some languages tell their program of it, which may go on.
impl ResourceLimiter for Guest {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        Ok(self.grow(desired.saturating_sub(current)))
    }

    fn table_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        Ok(self.grow(desired.saturating_sub(current).saturating_mul(ELEMENT)))
    }

    fn instances(&self) -> usize {
        MAX_PARTS
    }

    fn tables(&self) -> usize {
        MAX_PARTS
    }

    fn memories(&self) -> usize {
        MAX_PARTS
    }
}

/// What a host function gets.
pub(super) type Caller<'a> = StoreContextMut<'a, Guest>;

/// A task that ends with whoever waits for it.
pub(crate) struct Owned<T>(pub(crate) JoinHandle<T>);

impl<T> Owned<T> {
    /// Its result; `None` if it has panicked, or its runtime has stopped.
    pub(crate) async fn join(mut self) -> Option<T> {
        (&mut self.0).await.ok()
    }
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
