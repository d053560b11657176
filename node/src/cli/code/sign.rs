//! `multinodes code sign FILE`.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;
use multinodes::{Payload, files, read_identity};
use serde::Serialize;

use crate::cli::{
    failure::Failure,
    guest,
    output::Output,
    same_file::{Used, check_apart},
    style,
};

/// Sign code, so that nodes can allow it by who has published it
#[derive(Debug, Args)]
#[command(
    after_help = "The signature covers the code, its name and its version. It lies beside the code: `multinodes run FILE` takes it from FILE.sig. Nodes allow it with `--allow-code publisher=PEER`."
)]
pub(super) struct Sign {
    /// The code
    file: PathBuf,

    /// The identity file whose key signs
    #[arg(long, value_name = "KEY")]
    identity: PathBuf,

    /// Where the signature goes [default: FILE.sig]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,

    /// The name of the code [default: that of the file]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,

    /// Its version, such as 1.2.3
    #[arg(long, value_name = "VERSION")]
    version: Option<String>,
}

/// What `--json` says of it.
#[derive(Serialize)]
struct Row {
    cid: String,
    publisher: Option<String>,
    file: String,
}

impl Sign {
    pub(super) fn run(self, output: Output) -> Result<ExitCode, Failure> {
        if output.json {
            output.check()?;
        }
        let from_stdin = self.file.as_os_str() == "-";
        let out = match self.out {
            Some(out) => out,
            None if from_stdin => {
                return Err(Failure::own("code from stdin has no place beside it: `--out FILE` names one"));
            }
            None => guest::signature_file(&self.file),
        };
        let code = if from_stdin { Used::stdin() } else { Used::named("the code", &self.file) };
        check_apart(&[code, Used::named("--identity", &self.identity), Used::named("--out", &out)])?;
        let keypair = read_identity(&self.identity).map_err(Failure::own)?;
        let mut code = guest::read(&self.file)?;
        if let Some(name) = self.name {
            code = code.named(name).map_err(Failure::own)?;
        }
        if let Some(version) = self.version {
            code = code.versioned(version).map_err(Failure::own)?;
        }
        let code = code.sign(&keypair).map_err(Failure::own)?;
        let signature = Payload::encode(code.reference()).map_err(Failure::own)?;
        let failed = |error| Failure::own(format_args!("`{}` cannot be written: {error}", out.display()));
        files::write_output(&out, signature.as_bytes()).map_err(failed)?;
        let publisher = code.publisher().map(|publisher| publisher.to_string());
        if output.json {
            output.value(&Row { cid: code.cid().to_string(), publisher, file: out.display().to_string() })?;
        } else {
            style::note(style::DIM, "written:", &format!("`{}`", out.display()));
            let text = format!("nodes that are started with --allow-code publisher={}", publisher.unwrap_or_default());
            style::note(style::DIM, "taken by:", &text);
        }
        Ok(ExitCode::SUCCESS)
    }
}
