//! One place for a served process: starts it, lets it work, and starts it again when it ends.

use std::{io, sync::Arc, time::Duration};

use multinodes::Node;
use serde_json::Value;
use tokio::{
    process::{ChildStdin, ChildStdout},
    sync::watch,
    time::{Instant, sleep},
};

use super::{
    command_line::CommandLine,
    conversation::{Conversation, Ended},
    describer::Describer,
    pool::Pool,
    process::{Groups, Process},
};

/// The first wait before a process that has ended is started again; doubled each time.
const FIRST_WAIT: Duration = Duration::from_millis(100);

/// The longest one: a worker that was repaired is back within that.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// A process that has lived so long was well: the waits begin anew.
const HEALTHY: Duration = Duration::from_secs(10);

/// What all slots of an application share.
pub(super) struct Served {
    pub(super) name: Arc<str>,
    pub(super) command: CommandLine,
    pub(super) groups: Groups,
    pub(super) node: Node,
    pub(super) pool: Arc<Pool>,
    pub(super) describer: Describer,
    /// What the operator says of it on this node.
    pub(super) description: Value,
}

/// A process with its pipes.
pub(super) type Started = (Process, ChildStdin, ChildStdout);

impl Served {
    /// Starts one more process.
    pub(super) fn spawn(&self) -> io::Result<Started> {
        spawn(&self.command, &self.name, &self.groups)
    }
}

/// Starts a process that serves an application.
pub(super) fn spawn(command: &CommandLine, name: &Arc<str>, groups: &Groups) -> io::Result<Started> {
    Process::spawn(command, name, &[], groups)
}

/// Keeps one process alive until the node stops.
pub(super) async fn run(served: Arc<Served>, first: Started, mut stopping: watch::Receiver<bool>) {
    let mut started = Some(first);
    let mut wait = FIRST_WAIT;
    loop {
        let begin = Instant::now();
        let ended = match started.take().map_or_else(|| served.spawn(), Ok) {
            Ok(started) => Conversation::new(&served, started).run(stopping.clone()).await,
            Err(error) => Ended { reason: format!("it cannot be started: {error}"), at_will: false },
        };
        if *stopping.borrow_and_update() {
            return;
        }
        if begin.elapsed() >= HEALTHY || ended.at_will {
            wait = FIRST_WAIT;
        }
        served.pool.ended(&ended.reason);
        tracing::warn!(
            target: super::LOG,
            application = %served.name,
            reason = %ended.reason.replace('\n', " | "),
            again_in = ?wait,
            "a process has ended"
        );
        tokio::select! {
            () = sleep(wait) => {}
            _ = stopping.wait_for(|stopping| *stopping) => return,
        }
        wait = (wait * 2).min(LONGEST_WAIT);
    }
}
