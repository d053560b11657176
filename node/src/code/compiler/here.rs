//! The compiler itself, and what a process that runs nothing else does for it.

use std::{
    io::{self, Read, Write},
    time::Duration,
};

use super::CompileLimits;
use crate::code::{
    code_error::{CodeError, shorten},
    engine::{engine, hash_of},
    portable::MAX_CODE,
};

/// The most machine code that is taken, in bytes: it is a few times as long as what it was compiled from.
pub const MAX_COMPILED: u64 = 512 * 1024 * 1024;

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

/// Compiles the component that it reads, for the node whose [`engine_hash`](crate::code::engine_hash) it is given: what the
/// verb `compile-code` does.
///
/// # Errors
///
/// See [`CompileHereError`].
pub fn compile_here(engine_hash: &str, input: impl Read, mut output: impl Write) -> Result<(), CompileHereError> {
    let engine = engine().map_err(CompileHereError::Refused)?;
    if hash_of(&engine) != engine_hash {
        return Err(CompileHereError::OtherEngine);
    }
    let mut component = Vec::new();
    input.take(MAX_CODE + 1).read_to_end(&mut component)?;
    let native = precompile(&engine, &component).map_err(CompileHereError::Refused)?;
    output.write_all(&native)?;
    Ok(output.flush()?)
}

/// Compiles in this process.
pub(super) fn compile(component: &[u8]) -> Result<Vec<u8>, CodeError> {
    precompile(&engine()?, component)
}

/// Limits on computing come in whole seconds.
pub(super) fn whole_seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

fn precompile(engine: &wasmtime::Engine, component: &[u8]) -> Result<Vec<u8>, CodeError> {
    let native = engine.precompile_component(component);
    native.map_err(|error| CodeError::Compile { reason: shorten(format_args!("{error:#}")) })
}
