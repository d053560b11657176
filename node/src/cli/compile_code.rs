//! `multinodes compile-code`: the compiler for code that travels, in a process that can be stopped. Nodes start it.

use std::{io, process::ExitCode, time::Duration};

use clap::Args;
use multinodes::code::{Budget, CompileHereError, CompileLimits, compile_here, restrict_here};

/// Compile a component from stdin to stdout, within limits
#[derive(Debug, Args)]
pub(crate) struct CompileCode {
    /// The engine of the node that asks
    #[arg(long)]
    engine: String,
    /// The most memory, in bytes
    #[arg(long)]
    memory: u64,
    /// The most time to compute, in seconds
    #[arg(long)]
    cpu: u64,
    /// The most bytes of code
    #[arg(long)]
    size: u64,
    /// The most that one function may cost
    #[arg(long)]
    function: u64,
    /// The most that all functions may cost
    #[arg(long)]
    total: u64,
    /// The most memory that an instance may take besides its own, in bytes
    #[arg(long)]
    instance: u64,
}

impl CompileCode {
    pub(crate) fn run(self) -> ExitCode {
        let limits = CompileLimits { memory: self.memory, cpu: Duration::from_secs(self.cpu) };
        let mut budget = Budget::unlimited();
        (budget.size, budget.function, budget.total, budget.instance) =
            (self.size, self.function, self.total, self.instance);
        let compiled = restrict_here(limits).map_err(CompileHereError::Io);
        match compiled.and_then(|()| compile_here(&self.engine, &budget, io::stdin().lock(), io::stdout().lock())) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                // For the node that asks, not for people.
                super::style::note(super::style::BAD, "error:", &error.to_string());
                ExitCode::from(error.exit_code())
            }
        }
    }
}
