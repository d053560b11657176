//! `multinodes subscribe TOPIC`.

use std::process::ExitCode;

use clap::Args;
use multinodes::{Heard, Subscription, TopicMessage, json::Json};
use serde::Serialize;

use super::{failure::Failure, options::Settings, output::Output, session::Session, signals::Signals, style};

/// Show what is published on a topic, as it comes
#[derive(Debug, Args)]
#[command(
    after_help = "A line of JSON for each message: {\"from\",\"node\",\"value\"}. \"from\" is the proven peer id of its sender, \"node\" the name that it claims, if it is known. {\"missed\": N} says that so many were lost, as they are read too slowly. Runs until it is interrupted."
)]
pub(crate) struct Subscribe {
    /// The topic
    topic: String,

    /// End after so many messages
    #[arg(long, value_name = "N")]
    count: Option<u64>,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Line<'a> {
    Message {
        from: String,
        node: Option<String>,
        value: Json<'a>,
    },
    /// The value is no JSON.
    Strange {
        from: String,
        node: Option<String>,
        error: String,
    },
    Missed {
        missed: u64,
    },
}

impl Subscribe {
    pub(crate) async fn run(self, settings: Settings, output: Output) -> Result<ExitCode, Failure> {
        output.check()?;
        let mut signals = Signals::take()?;
        let session = Session::open(settings).await?;
        session
            .with(async |session| {
                let mut subscription = session.node.subscribe(&self.topic).map_err(Failure::own)?;
                let mut settling = std::pin::pin!(async {
                    session.settle().await;
                    if session.others() == 0 {
                        style::note(style::WARN, "waiting:", &session.nobody());
                    }
                    std::future::pending::<()>().await;
                });
                tokio::select! {
                    result = show(&mut subscription, self.count, output) => result,
                    () = &mut settling => Ok(()),
                    _ = signals.next() => Ok(()),
                }
            })
            .await?;
        Ok(ExitCode::SUCCESS)
    }
}

async fn show(subscription: &mut Subscription, count: Option<u64>, output: Output) -> Result<(), Failure> {
    let mut left = count.unwrap_or(u64::MAX);
    while left > 0 {
        match subscription.next().await {
            Some(Heard::Message(message)) => {
                left -= 1;
                output.line(&line(&message))?;
            }
            Some(Heard::Missed(missed)) => output.line(&Line::Missed { missed })?,
            Some(_) => {}
            None => return Err(Failure::own("the node has stopped by itself")),
        }
    }
    Ok(())
}

fn line(message: &TopicMessage) -> Line<'_> {
    let (from, node) = (message.from.to_string(), message.node.clone());
    match message.value.json() {
        Ok(value) => Line::Message { from, node, value },
        Err(error) => Line::Strange { from, node, error: error.to_string() },
    }
}
