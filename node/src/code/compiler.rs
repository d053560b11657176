//! Makes code ready to run: in a process of its own where that is possible, fairly among those who send it, and only once.
//!
//! A module of a few hundred kilobytes can take the compiler minutes and gigabytes, and a component of as many the validator.
//! [`vet`](super::vet) refuses the shapes that are known to; what holds against the others are the limits on the process, in
//! which code is looked at as well as compiled. The node itself looks at nothing but the size and the first bytes of code.

mod cache;
mod child;
mod here;
mod home;
mod load;
mod queue;
mod refusals;
mod seal;
mod verdict;

use std::{
    collections::HashMap,
    fmt,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::{Duration, Instant},
};

use bytes::Bytes;
use libp2p::PeerId;
use tokio::sync::Mutex as Waiting;
use wasmtime::component::InstancePre;

use super::{
    ahead::Ahead,
    allowance::Allowance,
    cid::Cid,
    code_error::CodeError,
    code_ref::World,
    engine::hash_of,
    guest::Guest,
    portable::Code,
    runtime::Runtime,
    timings::Timings,
    vetting::{Budget, Vetted, look},
};

pub use cache::forget_compiled;
use cache::{Cache, Loaded};
use here::Output;
use home::Home;
use queue::{Queue, WAITING_OF_ONE};
use refusals::Refusals;
pub(crate) use seal::SealKey;

pub use here::{CompileHereError, MAX_COMPILED, compile_here, restrict_here};
pub use home::CompilerHome;

/// How much the compiler may take for one piece of code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompileLimits {
    /// The most memory that the process may have, in bytes: address space, which its own program counts in.
    pub memory: u64,
    /// The most time it may compute. It may last four times as long where others compute, too.
    pub cpu: Duration,
}

impl Default for CompileLimits {
    /// 2 GiB and 30 s: SpiderMonkey, 12 MB, takes 320 MB and 13 s.
    fn default() -> Self {
        Self { memory: 2 * 1024 * 1024 * 1024, cpu: Duration::from_secs(30) }
    }
}

/// Compiles code, and keeps what was compiled. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Compiler(Arc<Inner>);

struct Inner {
    runtime: Arc<Runtime>,
    home: Home,
    limits: CompileLimits,
    engine: String,
    /// Compiled code on disk, for the next time the node starts.
    cache: Option<Cache>,
    /// Compiled code that is ready to run.
    loaded: Mutex<Loaded<Compiled>>,
    /// What was refused, so that asking again costs nothing.
    refused: Mutex<Refusals>,
    /// Whose code is next.
    queue: Queue,
    /// What is being made ready, by whom it was sent: others of the same sender who want the same wait for it.
    making: Mutex<Making>,
}

type Making = HashMap<(Cid, Option<PeerId>), Weak<Waiting<()>>>;

/// Code that is ready to run on the runtime it was compiled for. Cheap to clone.
#[derive(Clone)]
pub struct Compiled {
    pub(crate) cid: Cid,
    pub(crate) vetted: Vetted,
    pub(crate) ready: InstancePre<Guest>,
    /// Its next instance, shared by all clones.
    pub(crate) ahead: Arc<Ahead>,
    timings: Timings,
}

/// The records that the engine keeps of each thing that code lists, in bytes: beside the machine code.
const RECORD: usize = 128;

impl Compiled {
    /// What one instance takes besides its memories and tables, in bytes.
    pub(crate) fn own_memory(&self) -> usize {
        usize::try_from(self.vetted.instance).unwrap_or(usize::MAX)
    }

    /// The hash of the code.
    #[must_use]
    pub fn cid(&self) -> Cid {
        self.cid
    }

    /// What it is for.
    #[must_use]
    pub fn world(&self) -> World {
        self.vetted.world
    }

    /// What was found out when it was looked at: those who take less than whoever had it compiled have to ask.
    #[must_use]
    pub fn vetted(&self) -> Vetted {
        self.vetted
    }

    /// What it took this time: nothing if it was ready.
    #[must_use]
    pub fn timings(&self) -> Timings {
        self.timings
    }
}

impl Compiler {
    /// Compiles for this runtime. What is compiled is kept in `folder`, below a folder for this engine, sealed with a key
    /// that lies beside it; without a folder it is kept in memory only.
    ///
    /// # Errors
    ///
    /// [`CodeError::Compiler`] if the folder cannot be made, belongs to another user, or can be written by others.
    pub fn new(
        runtime: Arc<Runtime>,
        home: CompilerHome,
        folder: Option<PathBuf>,
        limits: CompileLimits,
    ) -> Result<Self, CodeError> {
        Self::sealing(runtime, home, folder, limits, None)
    }

    /// The same with a key of the node's own.
    pub(crate) fn sealing(
        runtime: Arc<Runtime>,
        home: CompilerHome,
        folder: Option<PathBuf>,
        limits: CompileLimits,
        key: Option<SealKey>,
    ) -> Result<Self, CodeError> {
        let engine = hash_of(runtime.engine());
        let cache = folder.map(|folder| Cache::open(&folder, &engine, key)).transpose().map_err(CodeError::compiler)?;
        let inner = Inner {
            runtime,
            home: Home::find(home),
            limits,
            engine,
            cache,
            loaded: Mutex::default(),
            refused: Mutex::default(),
            queue: Queue::default(),
            making: Mutex::default(),
        };
        Ok(Self(Arc::new(inner)))
    }

    /// The code if it is ready to run. Does not block.
    pub(crate) fn at_hand(&self, cid: &Cid) -> Option<Compiled> {
        self.0.loaded().find(cid)
    }

    /// The code if it is ready to run, or was compiled before: then its bytes need not be looked for. May read a file.
    #[must_use]
    pub fn find(&self, cid: &Cid) -> Option<Compiled> {
        if let Some(compiled) = self.0.loaded().find(cid) {
            return Some(compiled);
        }
        let begun = Instant::now();
        let (vetted, bytes) = self.0.cache.as_ref()?.read(cid)?;
        match self.0.load(*cid, vetted, &bytes) {
            Ok(compiled) => {
                let timings = Timings { compile: begun.elapsed(), ..Timings::default() };
                Some(Compiled { timings, ..compiled })
            }
            Err(error) => {
                tracing::warn!(%cid, %error, "compiled code cannot be loaded, and is compiled anew");
                None
            }
        }
    }

    /// Makes code ready to run: looks at it and compiles it when its turn comes. Dropping the future stops that. It is the
    /// node's own, as far as turns and rates go.
    ///
    /// # Errors
    ///
    /// What [`vet`](super::vet) finds, [`CodeError::CompileLimit`], [`CodeError::Compile`], [`CodeError::Compiler`],
    /// [`CodeError::Misdescribed`].
    pub async fn compile(&self, code: &Code, budget: &Budget) -> Result<Compiled, CodeError> {
        self.compile_for(code, budget, &Allowance::default()).await
    }

    /// The same for whoever has sent it: senders take turns, and each has the compiler as long as its
    /// [rate](super::Limits::compile) says.
    ///
    /// # Errors
    ///
    /// As [`compile`](Self::compile), and [`CodeError::CompileRate`] and [`CodeError::CompilerBusy`].
    pub async fn compile_for(
        &self,
        code: &Code,
        budget: &Budget,
        allowance: &Allowance,
    ) -> Result<Compiled, CodeError> {
        let (cid, expected) = (code.cid(), code.world());
        let compiled = match self.find(&cid) {
            Some(compiled) => compiled,
            None => self.compile_anew(cid, code.bytes(), budget, allowance).await?,
        };
        // Others may take more than this budget, and have had it compiled.
        compiled.vetted.check(budget)?;
        match compiled.world() {
            actual if actual == expected => Ok(compiled),
            actual => Err(CodeError::Misdescribed { expected, actual }),
        }
    }

    async fn compile_anew(
        &self,
        cid: Cid,
        bytes: &Bytes,
        budget: &Budget,
        allowance: &Allowance,
    ) -> Result<Compiled, CodeError> {
        look(bytes, budget)?;
        let key = (cid, *budget);
        let making = self.0.making((cid, allowance.sender()));
        // Each of those who wait for it has its bytes in memory.
        if allowance.sender().is_some() && Arc::strong_count(&making) > WAITING_OF_ONE {
            return Err(CodeError::CompilerBusy { waiting: WAITING_OF_ONE, own: true });
        }
        let begun = Instant::now();
        let _alone = making.lock().await;
        if let Some(error) = self.0.refused().find(&key) {
            return Err(error);
        }
        match self.0.clone().compile(cid, bytes.clone(), *budget, allowance).await {
            Ok(mut compiled) => {
                let Timings { vetting, compile, waiting, .. } = &mut compiled.timings;
                *waiting = begun.elapsed().saturating_sub(*vetting + *compile);
                tracing::debug!(%cid, timings = ?compiled.timings, "code is ready");
                Ok(compiled)
            }
            Err(error) => {
                if error.is_lasting() {
                    self.0.refused().insert(key, error.clone());
                }
                Err(error)
            }
        }
    }
}

impl Inner {
    /// The turn to make some code of some sender ready.
    fn making(&self, key: (Cid, Option<PeerId>)) -> Arc<Waiting<()>> {
        let mut making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        making.retain(|_, turn| turn.strong_count() > 0);
        making.get(&key).and_then(Weak::upgrade).unwrap_or_else(|| {
            let turn = Arc::default();
            making.insert(key, Arc::downgrade(&turn));
            turn
        })
    }

    async fn compile(
        self: Arc<Self>,
        cid: Cid,
        bytes: Bytes,
        budget: Budget,
        allowance: &Allowance,
    ) -> Result<Compiled, CodeError> {
        if let Some(compiled) = self.loaded().find(&cid) {
            return Ok(compiled);
        }
        let turn = self.queue.turn(allowance).await?;
        // Somebody else may have sent it.
        if let Some(compiled) = self.loaded().find(&cid) {
            return Ok(compiled);
        }
        let (output, turn) = self.home.compile(bytes, &self.engine, &budget, self.limits, turn).await?;
        let Output { vetted, vetting, native } = output;
        let this = self.clone();
        let compiled = tokio::task::spawn_blocking(move || -> Result<Compiled, CodeError> {
            if let Some(Err(error)) = this.cache.as_ref().map(|cache| cache.write(&cid, &vetted, &native)) {
                // It runs all the same, and is compiled again after the next start.
                tracing::warn!(%cid, %error, "compiled code cannot be kept");
            }
            let compiled = this.load(cid, vetted, &native)?;
            // The turn is not over before this, whoever waits for it.
            let timings = Timings { vetting, compile: turn.held().saturating_sub(vetting), ..Timings::default() };
            Ok(Compiled { timings, ..compiled })
        });
        compiled.await.map_err(CodeError::compiler)?
    }

    /// Loads what our own compiler has made.
    fn load(&self, cid: Cid, vetted: Vetted, native: &[u8]) -> Result<Compiled, CodeError> {
        let component = load::load(self.runtime.engine(), native)?;
        let ready = self.runtime.link(&component)?;
        let compiled = Compiled { cid, vetted, ready, ahead: Arc::default(), timings: Timings::default() };
        // Which import of which instance is what is written down once, in about as many bytes as an instance has for it.
        let records = usize::try_from(vetted.items).unwrap_or(usize::MAX).saturating_mul(RECORD);
        let all = native.len().saturating_add(records).saturating_add(compiled.own_memory());
        self.loaded().insert(cid, compiled.clone(), all);
        Ok(compiled)
    }

    fn loaded(&self) -> std::sync::MutexGuard<'_, Loaded<Compiled>> {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn refused(&self) -> std::sync::MutexGuard<'_, Refusals> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Compiler")
            .field("home", &self.home)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Compiled {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Compiled").field("cid", &self.cid).field("vetted", &self.vetted).finish_non_exhaustive()
    }
}
