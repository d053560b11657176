//! The verbs for code in a build that knows nothing of it: they say which one does.

use std::process::ExitCode;

use clap::Args;

use super::{failure::Failure, options::Settings, output::Output};

/// Run code on another node, or install it there (not in this build)
#[derive(Debug, Args)]
pub(crate) struct Run {
    /// Whatever it would be
    #[arg(value_name = "ARGS", trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

/// See to code: what it is, who has signed it, where it is kept (not in this build)
#[derive(Debug, Args)]
pub(crate) struct Code {
    /// Whatever it would be
    #[arg(value_name = "ARGS", trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

impl Run {
    pub(crate) async fn run(self, _: Settings, _: Output) -> Result<ExitCode, Failure> {
        Err(refused("run"))
    }
}

impl Code {
    pub(crate) async fn run(self, _: Settings, _: Output) -> Result<ExitCode, Failure> {
        Err(refused("code"))
    }
}

/// What is not there, and how to get it.
pub(crate) fn refused(what: &str) -> Failure {
    Failure::own(format_args!(
        "`{what}` needs the feature `wasm`, which this build has not: `cargo install --locked --path node --features wasm` \
         installs one that has it"
    ))
}
