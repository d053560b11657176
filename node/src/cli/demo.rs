//! `multinodes demo`: a whole swarm of real processes, shown at work. `demo/story.rs` tells it.

pub(super) mod applications;
mod crowd;
mod processes;
mod story;

use std::{process::ExitCode, time::Duration};

use clap::Args;

use super::{failure::Failure, output::Output, signals::Signals};
use story::Story;

/// Show a whole swarm at work on this machine, in a few seconds
#[derive(Debug, Args)]
#[command(
    after_help = "Starts nodes as separate processes and shows how they find each other, call each other, share work, and lose none of it when one of them is killed. Needs no network and ends by itself; the exit code is 0 only if all of it happened."
)]
pub(crate) struct Demo {}

impl Demo {
    pub(crate) async fn run(self, output: Output) -> Result<ExitCode, Failure> {
        output.check()?;
        let mut signals = Signals::take()?;
        let mut story = Story::new(output)?;
        let result = tokio::select! {
            result = tokio::time::timeout(LIMIT, story.play()) => result,
            signal = signals.next() => return Err(Failure::Interrupted(signal)),
        };
        let result = result
            .unwrap_or_else(|_| Err(Failure::negative(format_args!("{} s were not enough for it", LIMIT.as_secs()))));
        match result {
            Err(Failure::Unread) => Err(Failure::Unread),
            result => story.end(result),
        }
    }
}

/// The most that the demo takes, whatever happens.
const LIMIT: Duration = Duration::from_secs(25);
