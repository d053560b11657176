//! `multinodes code VERB`.

mod inspect;
mod kept;
mod sign;
mod uninstall;

use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::{failure::Failure, options::Settings, output::Output};

/// See to code: what it is, who has signed it, where it is kept
#[derive(Debug, Args)]
#[command(subcommand_value_name = "VERB", subcommand_help_heading = "Verbs", disable_help_subcommand = true)]
#[command(after_help = HELP)]
pub(crate) struct Code {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Inspect(inspect::Inspect),
    Sign(sign::Sign),
    Ls(kept::Ls),
    Rm(kept::Rm),
    Uninstall(uninstall::Uninstall),
}

const HELP: &str = "\
Examples:
  multinodes code inspect task.wasm                    what it is, who signed it
  multinodes code sign task.wasm --identity me.key     makes task.wasm.sig
  multinodes code ls --identity alpha.key              what that node keeps
  multinodes code rm bafkrei... --data alpha.data
  multinodes code uninstall counter --node beta";

impl Code {
    pub(crate) async fn run(self, settings: Settings, output: Output) -> Result<ExitCode, Failure> {
        match self.verb {
            Verb::Inspect(verb) => verb.run(&settings, output),
            Verb::Sign(verb) => verb.run(output),
            Verb::Ls(verb) => verb.run(&settings, output),
            Verb::Rm(verb) => verb.run(&settings),
            Verb::Uninstall(verb) => verb.run(settings).await,
        }
    }
}
