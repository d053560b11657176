//! `multinodes events`.

use std::process::ExitCode;

use clap::Args;

use super::{
    failure::Failure, feed::Feed, options::Settings, output::Output, session::Session, signals::Signals, style,
};

/// Show who joins, changes and leaves, as it happens
#[derive(Debug, Args)]
#[command(after_help = "Runs until it is interrupted. With --json one object a line, as `start --json` has them.")]
pub(crate) struct Events {}

impl Events {
    pub(crate) async fn run(self, settings: Settings, output: Output) -> Result<ExitCode, Failure> {
        output.check()?;
        let mut signals = Signals::take()?;
        let session = Session::open(settings).await?;
        session
            .with(async |session| {
                tokio::select! {
                    result = watch(session, output) => result,
                    _ = signals.next() => Ok(()),
                }
            })
            .await?;
        Ok(ExitCode::SUCCESS)
    }
}

async fn watch(session: &Session, output: Output) -> Result<(), Failure> {
    let mut events = session.node.events();
    let mut feed = Feed::new(&session.node, output);
    feed.on_known(&session.node)?;
    let mut settling = std::pin::pin!(session.settle());
    let mut settled = false;
    loop {
        tokio::select! {
            event = events.next() => match event {
                Some(event) => feed.on_event(&event)?,
                None => return Err(Failure::own("the node has stopped by itself")),
            },
            () = &mut settling, if !settled => {
                settled = true;
                if session.others() == 0 {
                    style::note(style::WARN, "waiting:", &session.nobody());
                }
            }
        }
    }
}
