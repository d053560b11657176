//! `multinodes completion SHELL`.

use std::{io::Write, process::ExitCode};

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::{Cli, failure::Failure, streams};

/// Print the completion script of a shell
#[derive(Debug, Args)]
#[command(after_help = "For bash: multinodes completion bash > ~/.local/share/bash-completion/completions/multinodes")]
pub(crate) struct Completion {
    /// The shell
    shell: Shell,
}

impl Completion {
    pub(crate) fn run(self) -> Result<ExitCode, Failure> {
        // Into memory first: `generate` panics when a pipe is closed.
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "multinodes", &mut script);
        let mut stdout = streams::stdout()?;
        stdout.write_all(&script)?;
        stdout.flush()?;
        Ok(ExitCode::SUCCESS)
    }
}
