//! `multinodes code uninstall NAME`.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;

use crate::cli::{
    failure::Failure,
    guest::{Asked, Wish},
    options::Settings,
    run::sender,
    session::Session,
};

/// Take away from a node what was installed there
#[derive(Debug, Args)]
pub(super) struct Uninstall {
    /// The name of the application
    name: String,

    /// The node, by name or peer id
    #[arg(long, value_name = "NODE")]
    node: String,

    /// Ask with the key in this file, made at first use, so that others can allow it by its peer id
    #[arg(long, value_name = "KEY")]
    identity: Option<PathBuf>,
}

impl Uninstall {
    pub(super) async fn run(self, settings: Settings) -> Result<ExitCode, Failure> {
        let session = Session::open_as(settings, self.identity.as_deref()).await?;
        let sender = sender(self.identity.as_deref())?;
        let asked = Asked { wish: Wish::Install, node: Some(&self.node), sender, publisher: None };
        session
            .with(async |session| {
                let node = session.find(&self.node).await?.peer_id.to_string();
                let done = session.node.uninstall(&self.name, &node);
                match tokio::time::timeout(session.left(), done).await {
                    Ok(done) => done.map_err(|error| asked.failed(&error, &session.hint())),
                    Err(_) => Err(Failure::TimedOut("no answer in time; `--timeout TIME` allows more".to_owned())),
                }
            })
            .await?;
        Ok(ExitCode::SUCCESS)
    }
}
