//! What is looked at before the compiler sees any of it: pure, over bytes, in time and memory that grow with their number.
//!
//! A validator is a decoder of foreign bytes like any other, and not ours: so nodes do this where they compile, in the
//! process that can be stopped.

mod names;
mod shape;
mod types;
mod weight;

use std::time::Instant;

use serde::{Deserialize, Serialize};
use wasmparser::{FuncValidatorAllocations, Parser, ValidPayload, Validator, WasmFeatures};

use super::{
    code_error::{CodeError, counted},
    code_ref::World,
    limits::Limits,
};

pub use types::imports;
pub(super) use weight::MAX_PARTS;

/// The most that one function may cost the compiler. SpiderMonkey's has 410 000; at 16 times that number the compiler took
/// 12.8 GB.
const FUNCTION_COST: u64 = 500_000;

/// How much code is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Budget {
    /// In bytes.
    pub size: u64,
    /// What one function may cost the compiler, in local variables times branches.
    pub function: u64,
    /// What all of them together may cost.
    pub total: u64,
    /// What one instance may take besides its memories and tables, in bytes.
    pub instance: u64,
}

impl Budget {
    /// Everything goes: what is left is the compiler's own limits.
    #[must_use]
    pub fn unlimited() -> Self {
        Self { size: u64::MAX, function: u64::MAX, total: u64::MAX, instance: u64::MAX }
    }
}

impl From<&Limits> for Budget {
    fn from(limits: &Limits) -> Self {
        let instance = limits.memory as u64;
        Self { size: limits.code_size, function: FUNCTION_COST, total: limits.complexity, instance }
    }
}

impl Default for Budget {
    fn default() -> Self {
        Self::from(&Limits::default())
    }
}

/// What was found out about a component that is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Vetted {
    /// What it is for.
    pub world: World,
    /// In bytes.
    pub size: u64,
    /// What its functions cost the compiler, in local variables times branches.
    pub cost: u64,
    /// The most that one of them costs.
    pub largest: u64,
    /// What one instance takes besides its memories and tables, in bytes: for its globals, functions and segments, each as
    /// often as their module is instantiated.
    pub instance: u64,
    /// How many things it lists: the engine keeps a record of each.
    pub items: u64,
}

impl Vetted {
    /// Whether it is taken within another budget, too.
    ///
    /// # Errors
    ///
    /// [`CodeError::TooLarge`], [`CodeError::TooComplex`], [`CodeError::TooHeavy`].
    pub fn check(&self, budget: &Budget) -> Result<(), CodeError> {
        check_size(self.size, budget)?;
        within(counted::ONE_FUNCTION, self.largest, budget.function)?;
        within(counted::ALL_FUNCTIONS, self.cost, budget.total)?;
        check_weight(self.instance, budget)
    }
}

/// Looks whether a component may go to the compiler: its size, its shape, what an instance takes, what it imports and exports.
///
/// # Errors
///
/// [`CodeError::NotWasm`], [`TooLarge`](CodeError::TooLarge), [`TooComplex`](CodeError::TooComplex),
/// [`TooManyParts`](CodeError::TooManyParts), [`TooHeavy`](CodeError::TooHeavy),
/// [`UnknownImport`](CodeError::UnknownImport), [`WrongWorld`](CodeError::WrongWorld).
pub fn vet(component: &[u8], budget: &Budget) -> Result<Vetted, CodeError> {
    let begun = Instant::now();
    let size = component.len() as u64;
    look(component, budget)?;
    let weighed = weight::weigh(component)?;
    check_weight(weighed.instance, budget)?;
    let (types, cost, largest) = validate(component, budget)?;
    types::check_imports(component, types.as_ref())?;
    let world = types::world(component, types.as_ref())?;
    tracing::debug!(size, cost, %world, elapsed = ?begun.elapsed(), "code vetted");
    Ok(Vetted { world, size, cost, largest, instance: weighed.instance, items: weighed.items })
}

/// Looks at no more than the size and the first bytes: what a node itself does with foreign code.
pub(super) fn look(component: &[u8], budget: &Budget) -> Result<(), CodeError> {
    check_size(component.len() as u64, budget)?;
    if Parser::is_component(component) { Ok(()) } else { Err(CodeError::not_wasm("a component was expected")) }
}

/// What guests may be made of: what the engine takes.
fn features() -> WasmFeatures {
    let refused = WasmFeatures::THREADS
        | WasmFeatures::SHARED_EVERYTHING_THREADS
        | WasmFeatures::MEMORY64
        | WasmFeatures::EXCEPTIONS
        | WasmFeatures::GC
        | WasmFeatures::CM_ASYNC;
    WasmFeatures::default().difference(refused)
}

/// Validates all of it in one pass. Gives what its functions cost together, and what the costliest of them does.
fn validate(component: &[u8], budget: &Budget) -> Result<(wasmparser::types::Types, u64, u64), CodeError> {
    let mut validator = Validator::new_with_features(features());
    let mut allocations = FuncValidatorAllocations::default();
    let (mut total, mut largest) = (0_u64, 0);
    let mut last = None;
    for payload in Parser::new(0).parse_all(component) {
        let payload = payload.map_err(CodeError::not_wasm)?;
        match validator.payload(&payload).map_err(CodeError::not_wasm)? {
            ValidPayload::Func(function, body) => {
                let mut function = function.into_validator(allocations);
                let cost = shape::cost(&mut function, &body).map_err(CodeError::not_wasm)?;
                allocations = function.into_allocations();
                within(counted::ONE_FUNCTION, cost, budget.function)?;
                total = total.saturating_add(cost);
                largest = largest.max(cost);
                within(counted::ALL_FUNCTIONS, total, budget.total)?;
            }
            ValidPayload::End(types) => last = Some(types),
            ValidPayload::Ok | ValidPayload::Parser(_) => {}
        }
    }
    let types = last.ok_or_else(|| CodeError::not_wasm("it ends too early"))?;
    Ok((types, total, largest))
}

fn check_size(size: u64, budget: &Budget) -> Result<(), CodeError> {
    if size > budget.size { Err(CodeError::TooLarge { size, limit: budget.size }) } else { Ok(()) }
}

fn check_weight(bytes: u64, budget: &Budget) -> Result<(), CodeError> {
    if bytes > budget.instance { Err(CodeError::TooHeavy { bytes, limit: budget.instance }) } else { Ok(()) }
}

fn within(what: &'static str, cost: u64, limit: u64) -> Result<(), CodeError> {
    if cost > limit { Err(CodeError::TooComplex { what, cost, limit }) } else { Ok(()) }
}
