//! Whose code the node of `start` takes, and where it keeps it.

use std::path::PathBuf;

use clap::Args;
use multinodes::Builder;

use super::{failure::Failure, options::Settings, origin::Written};

/// The flags of `start` for code.
#[derive(Debug, Args)]
pub(crate) struct CodeRules {
    /// Run or install code that comes from whom RULE takes, WHO[:OPTION,...]: a peer id, `any`, `@FILE`, a condition, or
    /// `publisher=PEER`; options are run, install, app=GLOB and limits such as cpu=1s,memory=16MiB; may be repeated
    // No delimiter: the rule has commas of its own.
    #[arg(long, value_name = "RULE", env = "MULTINODES_ALLOW_CODE", hide_env = true)]
    allow_code: Vec<String>,

    /// The folder for code that is sent to the node, and what is installed of it [default: with --identity, FILE.data]
    #[arg(long, value_name = "DIR", env = "MULTINODES_DATA", hide_env = true)]
    data: Option<PathBuf>,
}

impl CodeRules {
    /// Gives a node its rules and its folder: those of the flags, or else those of the file.
    pub(crate) fn apply(&self, builder: Builder, settings: &Settings) -> Result<Builder, Failure> {
        let file = &settings.start;
        // An empty list is nobody, as no list is.
        let listed = file.allow_code.as_ref().filter(|rules| !rules.is_empty());
        let rules = settings.written("allow-code", &self.allow_code, listed)?;
        apply(builder, rules, self.data.clone().or_else(|| file.data.clone()))
    }
}

#[cfg(feature = "wasm")]
fn apply(mut builder: Builder, rules: Vec<Written>, data: Option<PathBuf>) -> Result<Builder, Failure> {
    for Written { place, value } in rules {
        let rule = value.parse().map_err(|error| Failure::own(format_args!("{place}: {error}")))?;
        builder = builder.allow_code(rule);
    }
    Ok(match data {
        Some(folder) => builder.data_folder(folder),
        None => builder,
    })
}

#[cfg(not(feature = "wasm"))]
fn apply(builder: Builder, rules: Vec<Written>, data: Option<PathBuf>) -> Result<Builder, Failure> {
    match (rules.is_empty(), data) {
        (false, _) => Err(super::no_code::refused("--allow-code")),
        (true, Some(_)) => Err(super::no_code::refused("--data")),
        (true, None) => Ok(builder),
    }
}
