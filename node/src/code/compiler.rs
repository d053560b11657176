//! Makes code ready to run: one at a time, in a process of its own where that is possible, and only once.
//!
//! A module of a few hundred kilobytes can take the compiler minutes and gigabytes. [`vet`](super::vet) refuses the shapes
//! that are known to; what holds against the others are the limits on the process, which the node survives.

mod cache;
mod child;
mod here;
mod home;
mod load;
mod refusals;
mod seal;

use std::{
    fmt,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::sync::Semaphore;
use wasmtime::component::InstancePre;

use super::{
    ahead::Ahead,
    cid::Cid,
    code_error::CodeError,
    code_ref::World,
    engine::hash_of,
    guest::Guest,
    portable::Code,
    runtime::Runtime,
    timings::Timings,
    vetting::{Budget, Vetted, vet},
};

pub use cache::forget_compiled;
use cache::{Cache, Loaded};
use home::Home;
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
    /// One at a time.
    turn: Arc<Semaphore>,
}

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

impl Compiled {
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
            turn: Arc::new(Semaphore::new(1)),
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

    /// Makes code ready to run: looks at it, and compiles it when its turn comes. Dropping the future stops the compiler.
    ///
    /// # Errors
    ///
    /// What [`vet`] finds, [`CodeError::CompileLimit`], [`CodeError::Compile`], [`CodeError::Compiler`],
    /// [`CodeError::Misdescribed`].
    pub async fn compile(&self, code: &Code, budget: &Budget) -> Result<Compiled, CodeError> {
        let (cid, expected) = (code.cid(), code.world());
        let compiled = match self.find(&cid) {
            Some(compiled) => compiled,
            None => self.compile_anew(cid, code.bytes(), budget).await?,
        };
        // Others may take more than this budget, and have had it compiled.
        compiled.vetted.check(budget)?;
        match compiled.world() {
            actual if actual == expected => Ok(compiled),
            actual => Err(CodeError::Misdescribed { expected, actual }),
        }
    }

    async fn compile_anew(&self, cid: Cid, bytes: &Bytes, budget: &Budget) -> Result<Compiled, CodeError> {
        let key = (cid, *budget);
        if let Some(error) = self.0.refused().find(&key) {
            return Err(error);
        }
        let result = self.0.clone().compile(cid, bytes.clone(), *budget).await;
        if let Err(error) = &result
            && error.is_lasting()
        {
            self.0.refused().insert(key, error.clone());
        }
        result
    }
}

impl Inner {
    async fn compile(self: Arc<Self>, cid: Cid, bytes: Bytes, budget: Budget) -> Result<Compiled, CodeError> {
        // Never closed.
        let turn = Arc::new(self.turn.clone().acquire_owned().await.map_err(CodeError::compiler)?);
        if let Some(compiled) = self.loaded().find(&cid) {
            return Ok(compiled);
        }
        let begun = Instant::now();
        let looked_at = bytes.clone();
        let vetted = tokio::task::spawn_blocking(move || vet(&looked_at, &budget)).await;
        let vetted = vetted.map_err(CodeError::compiler)??;
        let vetting = begun.elapsed();
        let native = self.home.compile(bytes, &self.engine, self.limits, &turn).await?;
        let this = self.clone();
        let compiled = tokio::task::spawn_blocking(move || {
            if let Some(Err(error)) = this.cache.as_ref().map(|cache| cache.write(&cid, &vetted, &native)) {
                // It runs all the same, and is compiled again after the next start.
                tracing::warn!(%cid, %error, "compiled code cannot be kept");
            }
            this.load(cid, vetted, &native)
        });
        let compiled = compiled.await.map_err(CodeError::compiler)??;
        let timings = Timings { vetting, compile: begun.elapsed() - vetting, ..Timings::default() };
        tracing::debug!(%cid, ?timings, "code compiled");
        drop(turn);
        Ok(Compiled { timings, ..compiled })
    }

    /// Loads what our own compiler has made.
    fn load(&self, cid: Cid, vetted: Vetted, native: &[u8]) -> Result<Compiled, CodeError> {
        let component = load::load(self.runtime.engine(), native)?;
        let ready = self.runtime.link(&component)?;
        let compiled = Compiled { cid, vetted, ready, ahead: Arc::default(), timings: Timings::default() };
        self.loaded().insert(cid, compiled.clone(), native.len());
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
