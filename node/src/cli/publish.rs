//! `multinodes publish TOPIC JSON`.

use std::process::ExitCode;

use clap::Args;
use multinodes::PublishError;

use super::{failure::Failure, json, options::Settings, output::Output, session::Session};

/// Publish a message to all who have subscribed to a topic
#[derive(Debug, Args)]
#[command(
    after_help = "Done means that neighbours have it, which pass it on; who has subscribed is not known. --json prints {\"neighbours\": how many}. Exit code 1: there is nobody to pass it on."
)]
pub(crate) struct Publish {
    /// The topic
    topic: String,

    /// The message, as JSON; `-` reads it from stdin
    #[arg(value_name = "JSON", allow_negative_numbers = true)]
    message: String,
}

impl Publish {
    pub(crate) async fn run(self, settings: Settings, output: Output) -> Result<ExitCode, Failure> {
        if output.json {
            output.check()?;
        }
        let payload = json::message(&self.message)?;
        Session::open(settings)
            .await?
            .with(async |session| {
                let published = tokio::time::timeout(session.left(), session.node.publish_raw(&self.topic, payload));
                let published = published
                    .await
                    .map_err(|_| Failure::TimedOut("not published in time; `--timeout TIME` allows more".into()))?;
                let published = published.map_err(|error| match error {
                    PublishError::Busy => Failure::negative(error),
                    error => Failure::own(error),
                })?;
                if output.json {
                    output.line(&serde_json::json!({"neighbours": published.neighbours}))?;
                }
                if published.neighbours == 0 { Err(Failure::negative(session.nobody())) } else { Ok(()) }
            })
            .await?;
        Ok(ExitCode::SUCCESS)
    }
}
