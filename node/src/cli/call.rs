//! `multinodes call APP ACTION [JSON...]`.

use std::{io::Write, process::ExitCode};

use clap::Args;
use multinodes::{All, AppRef, Payload};
use serde_bytes::ByteBuf;

use super::{
    choice::Choice, everyone, failure::Failure, json, options::Settings, output::Output, session::Session, streams,
};

/// Call an action of an application and print its result as JSON
#[derive(Debug, Args)]
#[command(
    after_help = "Arguments are JSON, one value each: multinodes call calculator add 1 2\n\nA byte string in the result is printed as an array of numbers; --raw writes its bytes."
)]
pub(crate) struct Call {
    /// The application
    #[arg(value_name = "APP")]
    application: String,

    /// The action
    action: String,

    /// The arguments, as JSON; `-` reads one from stdin
    #[arg(value_name = "JSON", allow_negative_numbers = true)]
    arguments: Vec<String>,

    #[command(flatten)]
    choice: Choice,

    /// Call every host, and print a line of JSON for each as it answers: {"node","peer_id","ms","result" or "error"}
    #[arg(long)]
    all: bool,

    /// Write the bytes of a result that is a byte string or a text as they are, for a file or another program
    #[arg(long, conflicts_with = "all")]
    raw: bool,

    /// Running it twice does no harm: if its host is lost, call another one
    #[arg(long)]
    idempotent: bool,

    /// Call another host as well if there is no answer after TIME, and take the first answer; with --idempotent, unless
    /// the application declares the action idempotent
    #[arg(long, value_name = "TIME", conflicts_with = "all", value_parser = super::duration::some_time)]
    hedge: Option<std::time::Duration>,
}

impl Call {
    pub(crate) async fn run(self, settings: Settings, output: Output) -> Result<ExitCode, Failure> {
        output.check()?;
        let chosen = self.choice.clone().settle()?;
        let payload = json::arguments(&self.arguments)?;
        if self.all {
            let call = async |all: All| all.call_raw(&self.action, payload).await;
            return everyone::ask(settings, output, &chosen, &self.application, call).await;
        }
        let named = chosen.named(&format!("{}/{}", self.application, self.action));
        Session::open(settings)
            .await?
            .with(async |session| {
                let mut target = chosen.target(&session.node, &self.application).timeout(session.left());
                if self.idempotent {
                    target = target.idempotent();
                }
                if let Some(after) = self.hedge {
                    self.check_hedge(&target, session).await?;
                    target = target.hedge(after);
                }
                let answer = target.call_raw(&self.action, payload).await;
                let answer = answer.map_err(|error| Failure::asked(&named, &session.given(error), &session.hint()))?;
                print(&answer, self.raw, output)
            })
            .await?;
        Ok(ExitCode::SUCCESS)
    }

    /// Fails if no host allows a second attempt: it would never be made.
    async fn check_hedge(&self, target: &AppRef, session: &Session) -> Result<(), Failure> {
        if self.idempotent {
            return Ok(());
        }
        session.settle().await;
        let hosts = target.hosts();
        if hosts.is_empty() || hosts.iter().any(|host| host.idempotent.contains(&self.action)) {
            // Who hosts nothing of it is told so by the call itself.
            return Ok(());
        }
        let Self { application, action, .. } = self;
        Err(Failure::own(format_args!(
            "--hedge: no host of `{application}` declares that `{action}` may run twice without harm; --idempotent does"
        )))
    }
}

/// Prints a result: as JSON, or, if it is to be raw, what is in it and nothing else.
pub(super) fn print(answer: &Payload, is_raw: bool, output: Output) -> Result<(), Failure> {
    if is_raw {
        return raw(answer);
    }
    let answer = answer.json().map_err(json::unwritable)?;
    if output.json { output.line(&answer) } else { output.value(&answer) }
}

/// Writes what is in a byte string or a text to stdout.
fn raw(answer: &Payload) -> Result<(), Failure> {
    let bytes = match answer.decode::<ByteBuf>() {
        Ok(bytes) => bytes.into_vec(),
        Err(_) => answer.decode::<String>().map(String::into_bytes).map_err(|_| {
            Failure::own("--raw: the result is neither a byte string nor a text; without it, it is printed as JSON")
        })?,
    };
    let mut stdout = streams::stdout()?;
    stdout.write_all(&bytes)?;
    Ok(stdout.flush()?)
}
