//! Where guests run: threads of their own, and a clock that takes them off these threads.
//!
//! A guest that computes gives way only when the clock ticks. On the node's own runtime four of them delayed a timer of
//! 2 ms by 60 ms; beside it, they do not.

mod meter;
mod pace;
mod ticker;

use std::{fmt, io, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures::FutureExt;
use tokio::{
    runtime::{Builder, Handle},
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    time::timeout,
};
use wasmtime::{
    Engine,
    component::{Component, InstancePre, Linker},
};

use super::{
    code_error::{CodeError, shorten},
    engine::engine,
    guest::{Guest, Owned},
    guest_error::GuestError,
    host,
    memory::{self, Memory},
};
use crate::registry::panic_text;

pub(crate) use meter::{computed, metered};
use pace::at_its_pace;
pub(super) use ticker::Clock;
use ticker::Ticker;

/// How much later than to the node's own threads the system gives a core to those of guests that compute for long: whoever
/// calls the node does not wait for them. Only Linux has that for a single thread.
#[cfg(target_os = "linux")]
const NICE: i32 = 10;

/// The timer of a guest that waits is looked at after so many turns of others, each of a tick at most.
const TURNS: u32 = 8;

/// Runs guests, apart from everything else. Dropped, it ends them all, without waiting for it: that is possible in
/// asynchronous code, too.
pub struct Runtime {
    engine: Engine,
    linker: Linker<Guest>,
    /// Both are there until it is dropped: for short work, and for guests that compute for long.
    threads: Option<tokio::runtime::Runtime>,
    patient: Option<tokio::runtime::Runtime>,
    home: Handle,
    ticker: Ticker,
    instances: Arc<Semaphore>,
    memory: Memory,
    limit: usize,
}

impl Runtime {
    /// Starts so many threads, at least one, and as many for guests that compute for long. No more than `instances` guests
    /// run or are kept at once, whoever asks, and together they have no more than half of the memory of the machine, or of
    /// what this process may have of it. What guests ask of the node is done on the tokio runtime that this is called on.
    ///
    /// # Errors
    ///
    /// [`CodeError::Compiler`] if this machine has no engine or no threads for it, or outside a tokio runtime.
    pub fn new(threads: usize, instances: usize) -> Result<Arc<Self>, CodeError> {
        Self::with_memory(threads, instances, memory::usual())
    }

    /// The same with another limit for all guests together, in bytes: those that run, those that stay, and those that are
    /// made ahead of their use, each with its stack. What is made ahead goes first; whoever finds no room then has
    /// [`GuestError::NodeMemory`].
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn with_memory(threads: usize, instances: usize, memory: usize) -> Result<Arc<Self>, CodeError> {
        let home = Handle::try_current().map_err(CodeError::compiler)?;
        let engine = engine()?;
        let linker = host::linker(&engine).map_err(|error| CodeError::compiler(format_args!("{error:#}")))?;
        let ticker = Ticker::start(engine.clone()).map_err(CodeError::compiler)?;
        let (short, long) = (start("guest", threads, || {}), start("guest-long", threads, step_back));
        let (threads, patient) = (short.map_err(CodeError::compiler)?, long.map_err(CodeError::compiler)?);
        let limit = instances.min(Semaphore::MAX_PERMITS);
        let instances = Arc::new(Semaphore::new(limit));
        Ok(Arc::new(Self {
            engine,
            linker,
            threads: Some(threads),
            patient: Some(patient),
            home,
            ticker,
            instances,
            memory: Memory::new(memory),
            limit,
        }))
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The runtime of those who are not guests.
    pub(crate) fn home(&self) -> Handle {
        self.home.clone()
    }

    /// Links a component with what it can call. What it imports of WASI traps; vetting has seen that there is nothing else.
    pub(crate) fn link(&self, component: &Component) -> Result<InstancePre<Guest>, CodeError> {
        let failed = |error| CodeError::Compile { reason: format!("{error:#}") };
        let mut linker = self.linker.clone();
        linker.define_unknown_imports_as_traps(component).map_err(failed)?;
        linker.instantiate_pre(component).map_err(failed)
    }

    /// A place for one instance, if there is one.
    pub(crate) fn instance(&self) -> Result<OwnedSemaphorePermit, GuestError> {
        let place = self.instances.clone().try_acquire_owned();
        place.map_err(|_| GuestError::InstanceLimit { limit: self.limit })
    }

    /// The memory of all guests.
    pub(crate) fn memory(&self) -> Memory {
        self.memory.clone()
    }

    pub(crate) fn clock(&self) -> Clock {
        self.ticker.clock().clone()
    }

    /// Runs something on the guests' threads, while the clock ticks. It answers as soon as it can, and may clear up
    /// afterwards. Dropping the future before ends it at the next tick.
    pub(crate) async fn run<T: Send + 'static, F: Future<Output = ()> + Send + 'static>(
        &self,
        work: impl FnOnce(oneshot::Sender<Result<T, GuestError>>) -> F,
    ) -> Result<T, GuestError> {
        let (Some(threads), Some(patient)) = (&self.threads, &self.patient) else { return Err(GuestError::Stopped) };
        let (sender, answer) = oneshot::channel();
        let (ticking, work) = (self.ticker.clock().tick(), work(sender));
        let work = async move {
            work.await;
            drop(ticking);
        };
        let _task = Owned(threads.spawn(at_its_pace(work, patient.handle().clone())));
        answer.await.unwrap_or(Err(GuestError::Stopped))
    }

    /// Has something stay on the guests' threads. It sees to the clock by itself.
    pub(crate) fn keep(&self, work: impl Future<Output = ()> + Send + 'static) {
        if let (Some(threads), Some(patient)) = (&self.threads, &self.patient) {
            threads.spawn(at_its_pace(work, patient.handle().clone()));
        }
    }
}

fn start(name: &str, threads: usize, begin: fn()) -> io::Result<tokio::runtime::Runtime> {
    Builder::new_multi_thread()
        .worker_threads(threads.max(1))
        .thread_name(name)
        .enable_time()
        .event_interval(TURNS)
        .on_thread_start(begin)
        .build()
}

/// Lets the threads that are not those of guests go first.
fn step_back() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::nice(NICE) {
        tracing::debug!(%error, "guests are as urgent as the node itself");
    }
}

/// Ends what takes longer than the limit, whatever it waits for.
pub(crate) async fn within<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, GuestError>>,
) -> Result<T, GuestError> {
    timeout(limit, work).await.unwrap_or(Err(GuestError::TimeLimit { limit }))
}

/// Does what a guest asks for; a panic in that is an error of this request alone, and of no thread.
pub(crate) async fn sheltered<T>(work: impl Future<Output = Result<T, GuestError>>) -> Result<T, GuestError> {
    AssertUnwindSafe(work).catch_unwind().await.unwrap_or_else(|panic| {
        let reason = shorten(panic_text(&*panic));
        tracing::error!(panic = reason, "what a guest asked for panicked");
        Err(GuestError::Panicked { reason })
    })
}

impl Drop for Runtime {
    fn drop(&mut self) {
        for threads in [self.threads.take(), self.patient.take()].into_iter().flatten() {
            threads.shutdown_background();
        }
    }
}

impl fmt::Debug for Runtime {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = formatter.debug_struct("Runtime");
        text.field("instances", &self.limit).field("memory", &self.memory).finish_non_exhaustive()
    }
}
