//! How guests are compiled and run: one set of settings, the same in the node and in the process that compiles.

use std::hash::{Hash, Hasher};

use sha2::{Digest, Sha256};
use wasmtime::{Config, Engine};

use super::code_error::CodeError;

/// The stack of a guest, in bytes. wasmtime's own default.
pub(crate) const STACK: usize = 512 * 1024;

/// Makes an engine. Costs about a millisecond.
pub(crate) fn engine() -> Result<Engine, CodeError> {
    let mut config = Config::new();
    config
        .epoch_interruption(true)
        .max_wasm_stack(STACK)
        // A guest's own addresses say nothing to anybody but its author, and cost time at each trap.
        .wasm_backtrace_max_frames(None)
        // What vetting does not take either.
        .wasm_memory64(false);
    Engine::new(&config).map_err(|error| CodeError::compiler(format_args!("{error:#}")))
}

/// Two engines with the same hash understand what the other has compiled. Hexadecimal.
///
/// # Errors
///
/// [`CodeError::Compiler`] if this machine has no engine.
pub fn engine_hash() -> Result<String, CodeError> {
    Ok(hash_of(&engine()?))
}

pub(crate) fn hash_of(engine: &Engine) -> String {
    let mut hasher = Sha(Sha256::new());
    engine.precompile_compatibility_hash().hash(&mut hasher);
    data_encoding::HEXLOWER.encode(&hasher.0.finalize()[..16])
}

/// The standard library's own hashers may change from one release to the next.
struct Sha(Sha256);

impl Hasher for Sha {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        let digest = self.0.clone().finalize();
        digest[..8].iter().fold(0, |hash, byte| hash << 8 | u64::from(*byte))
    }
}
