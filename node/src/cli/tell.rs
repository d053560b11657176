//! `multinodes tell APP JSON`.

use std::process::ExitCode;

use clap::Args;
use multinodes::All;

use super::{choice::Choice, everyone, failure::Failure, json, options::Settings, output::Output, session::Session};

/// Send a message to an application
#[derive(Debug, Args)]
#[command(
    after_help = "Done means that a host has accepted the message into the application's queue: it is begun in its turn unless that host is killed or stopped before. The message is JSON: multinodes tell journal '\"a line\"'"
)]
pub(crate) struct Tell {
    /// The application
    #[arg(value_name = "APP")]
    application: String,

    /// The message, as JSON; `-` reads it from stdin
    #[arg(value_name = "JSON", allow_negative_numbers = true)]
    message: String,

    #[command(flatten)]
    choice: Choice,

    /// Do not wait until it is accepted
    #[arg(long)]
    cast: bool,

    /// Tell every host, and print a line of JSON for each as it accepts: {"node","peer_id","ms","accepted" or "error"}
    #[arg(long, conflicts_with = "cast")]
    all: bool,
}

impl Tell {
    pub(crate) async fn run(self, settings: Settings, output: Output) -> Result<ExitCode, Failure> {
        let chosen = self.choice.settle()?;
        let payload = json::message(&self.message)?;
        if self.all {
            let tell = async |all: All| all.tell_raw(payload).await;
            return everyone::ask(settings, output, &chosen, &self.application, tell).await;
        }
        let named = chosen.named(&self.application);
        Session::open(settings)
            .await?
            .with(async |session| {
                let target = chosen.target(&session.node, &self.application).timeout(session.left());
                let sent = if self.cast { target.cast_raw(payload).await } else { target.tell_raw(payload).await };
                sent.map_err(|error| Failure::asked(&named, &session.given(error), &session.hint()))
            })
            .await?;
        Ok(ExitCode::SUCCESS)
    }
}
