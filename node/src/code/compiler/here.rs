//! Looking at code and compiling it, and what a process that runs nothing else does for that.

use std::{
    io::{self, Read, Write},
    time::{Duration, Instant},
};

use super::{CompileLimits, verdict};
use crate::code::{
    code_error::{CodeError, shorten},
    engine::{engine, hash_of},
    portable::MAX_CODE,
    vetting::{Budget, Vetted, vet},
};

/// What has become of code.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Output {
    pub(super) vetted: Vetted,
    /// How long it took to look at it.
    pub(super) vetting: Duration,
    pub(super) native: Vec<u8>,
}

/// The most machine code that is taken, in bytes.
pub const MAX_COMPILED: u64 = 512 * 1024 * 1024;

/// The most machine code that is taken for each byte of code, beyond what even the smallest becomes. Guests of all
/// languages have 12 times as much as code, and less the more of it there is.
const BECOMES: u64 = 32;
const SMALLEST: u64 = 1024 * 1024;

/// The most machine code that is taken of code of this size, in bytes: the node reads it into its memory.
pub(super) fn most_native(size: u64) -> u64 {
    size.saturating_mul(BECOMES).saturating_add(SMALLEST).min(MAX_COMPILED)
}

/// Why a process has not compiled what it was given.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CompileHereError {
    /// It would make machine code that the node cannot use.
    #[error("this command has another engine")]
    OtherEngine,
    /// The compiler does not take the code.
    #[error("{0}")]
    Refused(CodeError),
    /// It cannot read the code or write the result.
    #[error("cannot pass it on: {0}")]
    Io(#[from] io::Error),
}

impl CompileHereError {
    /// The exit code that tells the node.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Refused(_) => REFUSED,
            Self::OtherEngine => OTHER_ENGINE,
            Self::Io(_) => NO_IO,
        }
    }
}

/// Exit codes of the verb. Those of an older command are others: it knows no such verb.
pub(super) const REFUSED: u8 = 93;
pub(super) const OTHER_ENGINE: u8 = 94;
const NO_IO: u8 = 95;

/// Limits this whole process, for good: call it in one that does nothing but [`compile_here`]. Does nothing where there
/// are no such limits.
///
/// # Errors
///
/// When the system refuses.
pub fn restrict_here(limits: CompileLimits) -> io::Result<()> {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, Rlimit, setrlimit};
        let set = |resource, most: u64, spare: u64| {
            setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most + spare) })
        };
        set(Resource::As, limits.memory, 0)?;
        // The first limit ends it with a signal of its own, the second one with SIGKILL.
        set(Resource::Cpu, whole_seconds(limits.cpu), 1)?;
        // What it dies of is known without a picture of its memory.
        set(Resource::Core, 0, 0)?;
    }
    #[cfg(not(unix))]
    let _ = limits;
    Ok(())
}

/// Looks at the component that it reads and compiles it, for the node whose [`engine_hash`](crate::code::engine_hash) it is given: what the
/// verb `compile-code` does.
///
/// # Errors
///
/// See [`CompileHereError`].
pub fn compile_here(
    engine_hash: &str,
    budget: &Budget,
    input: impl Read,
    mut output: impl Write,
) -> Result<(), CompileHereError> {
    let engine = engine().map_err(CompileHereError::Refused)?;
    if hash_of(&engine) != engine_hash {
        return Err(CompileHereError::OtherEngine);
    }
    let mut component = Vec::new();
    input.take(MAX_CODE + 1).read_to_end(&mut component)?;
    let compiled = precompile(&engine, &component, budget);
    output.write_all(&verdict::write(compiled.as_ref().map(|output| (output.vetted, output.vetting))))?;
    if let Ok(compiled) = &compiled {
        output.write_all(&compiled.native)?;
    }
    output.flush()?;
    compiled.map(drop).map_err(CompileHereError::Refused)
}

/// Looks and compiles in this process.
pub(super) fn compile(component: &[u8], budget: &Budget) -> Result<Output, CodeError> {
    precompile(&engine()?, component, budget)
}

/// Limits on computing come in whole seconds.
pub(super) fn whole_seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

fn precompile(engine: &wasmtime::Engine, component: &[u8], budget: &Budget) -> Result<Output, CodeError> {
    let begun = Instant::now();
    let vetted = vet(component, budget)?;
    let vetting = begun.elapsed();
    let native = engine.precompile_component(component);
    let native = native.map_err(|error| CodeError::Compile { reason: shorten(format_args!("{error:#}")) })?;
    check_native(&native, component.len() as u64)?;
    Ok(Output { vetted, vetting, native })
}

pub(super) fn check_native(native: &[u8], size: u64) -> Result<(), CodeError> {
    let most = most_native(size);
    if native.len() as u64 <= most {
        return Ok(());
    }
    Err(CodeError::Compile { reason: format!("it becomes more than {most} bytes of machine code") })
}
