//! Code that travels: WebAssembly guests, named by the hash of their bytes, run within limits that hold.
//!
//! This is the engine: it knows neither a network nor who may do what. For those who change it, in the order in which
//! code meets them: `portable.rs` and `componentize.rs` (what is sent), `cid.rs` and `code_ref.rs` (how it is named),
//! `data.rs` and `store.rs` (where its bytes are kept), `vetting.rs` (what is refused unseen by the compiler), `compiler.rs` (in a
//! process of its own, with a cache), `runtime.rs`, `guest.rs` and `ahead.rs` (the threads, the limits, instances), `memory.rs` and `rate.rs` (what they take together), `host.rs` and
//! `surroundings.rs` (what a guest can reach), `task.rs` and `application.rs` (the two worlds).
//!
//! Invariants: nothing compiled ever comes from another node; no guest runs on the runtime that called; an instance
//! whose call did not end by itself is never entered again.

mod ahead;
mod allowance;
mod application;
mod cid;
mod code_error;
mod code_ref;
mod compiler;
mod componentize;
mod data;
mod engine;
mod folder;
mod guest;
mod guest_error;
mod host;
pub(crate) mod installed;
mod limits;
mod memory;
mod policy;
mod portable;
mod rate;
mod reach;
mod runtime;
pub(crate) mod sending;
pub(crate) mod service;
mod shipping;
mod store;
mod surroundings;
mod task;
mod timings;
mod vetting;
pub(crate) mod workshop;

pub use allowance::Allowance;
pub use application::GuestApplication;
pub use cid::{Cid, CidError};
pub use code_error::CodeError;
pub use code_ref::{CodeRef, MAX_CODE_NAME, World};
pub(crate) use compiler::SealKey;
pub use compiler::{
    CompileHereError, CompileLimits, Compiled, Compiler, CompilerHome, MAX_COMPILED, compile_here, forget_compiled,
    restrict_here,
};
pub use data::DataFolderError;
pub use engine::engine_hash;
pub use guest_error::GuestError;
pub use installed::{Record, read_records};
pub use limits::Limits;
pub use policy::{CodeRule, CodeRuleError};
pub use portable::{Code, MAX_CODE};
pub use rate::{Rate, RateError};
pub use runtime::Runtime;
pub use sending::Run;
pub use store::{Partial, Store, StoreError, Stored};
pub use surroundings::{Alone, Surroundings};
pub use task::{Outcome, run};
pub use timings::Timings;
pub use vetting::{Budget, Vetted, imports, vet};
