//! `multinodes secret new`.

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Subcommand};
use multinodes::Secret as SwarmSecret;

use super::{failure::Failure, output::Output, paste, streams, style};

/// Make the secret of a private swarm
#[derive(Debug, Args)]
pub(crate) struct Secret {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Make a new secret, and write it to FILE or print it
    #[command(after_help = "Give the file to every node of the swarm with --secret, or make a ticket from it.")]
    New {
        /// A file to be made, which only its owner may read [default: print it, as with `-`]
        file: Option<PathBuf>,
    },
}

impl Secret {
    pub(crate) fn run(self, json: bool, typed: &[String]) -> Result<ExitCode, Failure> {
        let What::New { file } = self.what;
        let secret = SwarmSecret::generate();
        match file.filter(|file| !streams::is_stdout(file)) {
            Some(file) => {
                secret.create(&file).map_err(Failure::own)?;
                let file = file.to_string_lossy();
                let words = [vec!["start".to_owned()], paste::flag("secret", &file), typed.to_vec()].concat();
                style::note(style::DIM, "try next:", &paste::command(words.iter().map(String::as_str)));
            }
            None if json => return Err(Failure::own(NO_JSON)),
            None => Output::new(false).text(&secret.reveal())?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

const NO_JSON: &str =
    "a secret is never shown as JSON, which ends up in logs: name a file, or leave `--json` out to print it";
