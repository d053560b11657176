//! The one place of this package that has to be trusted by the compiler.

use wasmtime::{Engine, component::Component};

use crate::code::code_error::CodeError;

/// Loads what [`compile_here`](super::compile_here) has made, in this process or in a child.
#[allow(unsafe_code, reason = "machine code cannot be checked by looking at it")]
pub(super) fn load(engine: &Engine, native: &[u8]) -> Result<Component, CodeError> {
    // SAFETY: `native` must be what this version of wasmtime has made of a component. It comes from our own compiler: just
    // now out of the pipe from a child that we have started, or from a file in a folder that only this user can write
    // to, with a seal under a key of this node that was checked on these very bytes, this engine and this code. No byte of
    // it ever comes from another node.
    // wasmtime itself refuses what another version, or another configuration, has made.
    let component = unsafe { Component::deserialize(engine, native) };
    component.map_err(|error| CodeError::compiler(format_args!("{error:#}")))
}
