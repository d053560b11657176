//! Applications that are commands: child processes that are served requests (`--serve`) or started for each (`--exec`).
//!
//! ```text
//!  Node ── calls ──▶ Serve ──▶ Pool (a queue) ──▶ Conversation ◀── JSON lines ──▶ process    one for each slot
//!                                                 Slot: starts it, and starts it again
//!       ── calls ──▶ Exec ── arguments ──▶ process ── stdout ──▶ result             one for each message
//! ```
//!
//! A slot is never blocked for ever: a process that does not answer a request that was cancelled is killed and started
//! again. Every process has a group of its own, and the whole group ends with it. Nothing here runs a shell.

mod command_line;
mod conversation;
mod describer;
mod exec;
mod keeper;
mod lines;
mod options;
mod outbox;
mod own;
mod pool;
mod process;
mod protocol;
mod said;
mod serve;
mod slot;
mod stderr;
mod unreadable;

use std::{sync::Arc, time::Duration};

use multinodes::{AppError, Node, Payload, Profile, json::Json};
use tokio::{sync::watch, task::JoinSet, time::timeout};

pub(crate) use keeper::KeepGroups;
pub(crate) use options::{Options, slots};

use self::{
    exec::Exec,
    options::{Kind, Spec},
    pool::Pool,
    process::Groups,
    serve::Serve,
    slot::Served,
};
use super::{config, failure::Failure};

/// What children say and what becomes of them is logged under this name, visible without any `-v`.
pub(crate) const LOG: &str = "worker";

/// How long children may take to end: the grace periods of a conversation, and a little more.
const STOP: Duration = Duration::from_secs(8);

/// The applications that are commands, checked and not started yet.
pub(crate) struct Commands(Vec<Spec>);

impl Options {
    /// Reads the flags over the file. Whatever cannot work is found before the node is started.
    pub(crate) fn commands(&self, file: &config::Applications) -> Result<Commands, Failure> {
        self.settle(file).map(Commands)
    }
}

/// The children of a node: they are started again as long as this lives, and killed when it is dropped.
pub(crate) struct Children {
    stopping: watch::Sender<bool>,
    tasks: tokio::sync::Mutex<JoinSet<()>>,
    watching: JoinSet<()>,
    groups: Groups,
}

impl Commands {
    /// Makes the node host them.
    ///
    /// Fails if a process cannot be started or a name cannot be registered; then nothing is left running.
    pub(crate) fn start(self, node: &Node) -> Result<Children, Failure> {
        let groups = if self.0.is_empty() { Groups::default() } else { Groups::kept() };
        let mut children = Children {
            stopping: watch::Sender::new(false),
            tasks: tokio::sync::Mutex::default(),
            watching: JoinSet::new(),
            groups,
        };
        self.0.into_iter().try_for_each(|spec| children.host(node, spec))?;
        Ok(children)
    }
}

impl Children {
    fn host(&mut self, node: &Node, spec: Spec) -> Result<(), Failure> {
        let mut profile = Profile::default();
        profile.description = spec.description.clone();
        profile.version = spec.version.clone();
        profile.actions = spec.actions.clone();
        profile.idempotent = spec.idempotent.clone();
        profile.slots = Some(spec.slots);
        profile.concurrency = spec.slots as usize;
        match spec.kind {
            Kind::Serve => self.serve(node, &spec, profile),
            Kind::Exec => {
                let exec = Exec::new(spec.name.as_str().into(), spec.command, self.groups.clone(), profile);
                node.register(&spec.name, exec).map_err(Failure::own)
            }
        }
    }

    fn serve(&mut self, node: &Node, spec: &Spec, profile: Profile) -> Result<(), Failure> {
        let (name, text) = (&spec.name, spec.command.text());
        let application: Arc<str> = name.as_str().into();
        let started: Vec<_> = (0..spec.slots)
            .map(|_| slot::spawn(&spec.command, &application, &self.groups))
            .collect::<Result<_, _>>()
            .map_err(|error| Failure::own(format!("application `{name}`: `{text}` cannot be started: {error}")))?;
        let pool = Pool::new(started.len());
        node.register(name, Serve { pool: pool.clone(), profile }).map_err(Failure::own)?;
        let served = Arc::new(Served {
            name: application,
            command: spec.command.clone(),
            groups: self.groups.clone(),
            node: node.clone(),
            pool,
            describer: Default::default(),
            description: spec.description.clone(),
        });
        for process in started {
            self.tasks.get_mut().spawn(slot::run(served.clone(), process, self.stopping.subscribe()));
        }
        self.watching.spawn(describer::watch(served));
        Ok(())
    }

    /// Ends all children: closes their stdin, then SIGTERM, then SIGKILL. For after the node was stopped: until then
    /// they may have something to finish.
    pub(crate) async fn stop(&self) {
        self.stopping.send_replace(true);
        let mut tasks = self.tasks.lock().await;
        let _ = timeout(STOP, async { while tasks.join_next().await.is_some() {} }).await;
        self.groups.kill();
    }

    /// Ends all children at once.
    pub(crate) fn kill(&self) {
        self.groups.kill();
    }
}

impl Drop for Children {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The arguments of a call as JSON.
fn list(arguments: &Payload) -> Result<Json<'_>, AppError> {
    let is_list = arguments.as_bytes().first().is_some_and(|head| head >> 5 == 4);
    if !is_list {
        return Err(AppError::bad_arguments("arguments are a list"));
    }
    arguments.json().map_err(AppError::bad_arguments)
}
