//! A passive node for the time of one verb: it hosts nothing, is announced to nobody and leaves no trace.

use std::{
    collections::BTreeMap,
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::FutureExt;
use multinodes::{Builder, CallError, Event, Node, NodeInfo, PeerId, diagnosis, diagnosis::Diagnosis};
use multinodes_behaviour::{names, record::MAX_NODE_NAME};

use super::{descriptors, failure::Failure, options::Settings};

/// A passive node, and how long its verb may take.
pub(crate) struct Session {
    pub(crate) node: Node,
    settings: Settings,
    deadline: Instant,
}

impl Session {
    /// Starts the node. The verb's time begins here.
    pub(crate) async fn open(settings: Settings) -> Result<Self, Failure> {
        let builder = settings.builder();
        Self::start(settings, builder).await
    }

    /// Starts it with a key that is kept, by which others can tell who asks.
    #[cfg(feature = "wasm")]
    pub(crate) async fn open_as(settings: Settings, identity: Option<&std::path::Path>) -> Result<Self, Failure> {
        let mut builder = settings.builder();
        if let Some(file) = identity {
            builder = builder.identity(file);
        }
        Self::start(settings, builder).await
    }

    async fn start(settings: Settings, builder: Builder) -> Result<Self, Failure> {
        let deadline = Instant::now() + settings.timeout.min(FOR_EVER);
        let node = builder.passive(true).start().await.map_err(Failure::own)?;
        Ok(Self { node, settings, deadline })
    }

    /// Waits until what is not known by now is probably not there, for a bounded time.
    pub(crate) async fn settle(&self) {
        let joins = !self.settings.join.is_empty() || self.settings.entry.has_addresses();
        let limit = if joins { JOINING } else { DISCOVERY };
        let limit = self.left().min(limit);
        if tokio::time::timeout(limit, self.node.settled()).await.is_err() {
            tracing::debug!(?limit, "not settled in time, showing what is known");
        }
    }

    /// The one node that `name` means: a name or a peer id. Waits for it as long as it may still turn up.
    pub(crate) async fn find(&self, name: &str) -> Result<Arc<NodeInfo>, Failure> {
        let name = &*names::normal(name);
        names::check_node(name, MAX_NODE_NAME).map_err(Failure::own)?;
        if name.parse::<PeerId>().is_ok() {
            tokio::select! {
                biased;
                _ = self.node.wait_for_node(name) => {}
                () = self.settle() => {}
            }
        } else {
            // The first one of that name need not be the only one.
            self.settle().await;
        }
        let mut found: Vec<_> = self.node.nodes();
        found.retain(|node| node.name == name || node.peer_id.to_string() == name);
        match found.as_slice() {
            [node] => Ok(node.clone()),
            [] => Err(Failure::negative(self.unknown_node(name))),
            several => {
                let peer_ids: Vec<_> = several.iter().map(|node| format!("`{}`", node.peer_id)).collect();
                let count = several.len();
                Err(Failure::negative(format!(
                    "{count} nodes are called `{name}`; say which: {}",
                    peer_ids.join(" or ")
                )))
            }
        }
    }

    /// What is left of the verb's time.
    pub(crate) fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// The same error with the time that the user has given, and not what was left of it when the message was sent.
    pub(crate) fn given(&self, error: CallError) -> CallError {
        error.within(self.settings.timeout)
    }

    /// Runs `work`, stops the node, and gives what came out.
    pub(crate) async fn with<T>(self, work: impl AsyncFnOnce(&Self) -> Result<T, Failure>) -> Result<T, Failure> {
        let result = work(&self).await;
        brief(self.node.stop()).await;
        result
    }

    /// What to do when something is not there.
    pub(crate) fn hint(&self) -> String {
        if self.others() == 0 {
            self.nobody()
        } else {
            format!("`{}` and `{}` list what is there", self.command(&["apps"]), self.command(&["nodes"]))
        }
    }

    /// Says that no node was found, where was looked, and what to do.
    pub(crate) fn nobody(&self) -> String {
        self.absent().unwrap_or_else(|| self.unfound())
    }

    /// That nodes are on this host, by their notes, and have not answered.
    fn absent(&self) -> Option<String> {
        let inspection = Diagnosis::of(self.settings.builder().passive(true)).ok()?.rendezvous()?;
        let there = inspection.notes.iter().filter(|note| note.is_of_this_host && note.is_running == Some(true));
        let pids: Vec<u32> = there.map(|note| note.pid).collect();
        let shown: Vec<String> = pids.iter().take(SHOWN).map(|pid| self.silence(*pid)).collect();
        let more = pids.len().saturating_sub(SHOWN);
        let more = if more > 0 { format!("; {more} more do not either") } else { String::new() };
        let own = descriptors::shortage(std::process::id());
        let own = own.map_or_else(String::new, |shortage| format!("; of this command itself, {shortage}"));
        (!pids.is_empty()).then(|| {
            let (swarm, folder) = (self.swarm(), inspection.folder.display());
            format!("no node of {swarm} has answered: {}{more}{own} (notes in `{folder}`)", shown.join("; "))
        })
    }

    /// What is true of a process that has left a note, and does not answer.
    fn silence(&self, pid: u32) -> String {
        match descriptors::shortage(pid) {
            Some(shortage) => format!(
                "process {pid} is a node by its note, and takes no connection: {shortage}; start it with a higher limit \
                 (ulimit -n)"
            ),
            None => format!(
                "process {pid} is a node by its note, and has not let this command in: it may be full, hang, or allow \
                 others only; `{}` says more",
                self.command(&["doctor"])
            ),
        }
    }

    fn unfound(&self) -> String {
        let mut tried = Vec::new();
        if self.settings.rendezvous {
            tried.push(match &self.settings.runtime_dir {
                Some(folder) => {
                    format!("on this host (below `{}`)", folder.display())
                }
                None => match diagnosis::unusable_runtime() {
                    Some(fault) => format!("on this host ({fault})"),
                    None => "on this host (rendezvous folder)".to_owned(),
                },
            });
        }
        if self.settings.mdns {
            tried.push("on the LAN (mDNS)".to_owned());
        }
        let mut answers = self.answers();
        let joins: Vec<_> =
            self.settings.join.iter().map(|address| (address, answers.remove(address.trim()))).collect();
        if self.settings.entry.has_addresses() {
            let answers: Vec<_> = answers.iter().map(|(address, answer)| format!("`{address}`: {answer}")).collect();
            let answers = if answers.is_empty() { String::new() } else { format!(" ({})", answers.join("; ")) };
            tried.push(format!("where the ticket says{answers}"));
        }
        for (address, answer) in joins {
            tried.push(match answer {
                Some(answer) => format!("at `{address}` ({answer})"),
                None => format!("at `{address}`"),
            });
        }
        let looked =
            if tried.is_empty() { "everything is switched off".into() } else { format!("looked {}", tried.join(", ")) };
        let swarm = self.swarm();
        format!(
            "no node of {swarm} was found ({looked}); start one with `{}`, or name one with `--join ADDR`",
            self.command(&["start"])
        )
    }

    /// What came instead of an answer at addresses to join through.
    fn answers(&self) -> BTreeMap<String, String> {
        // What was found not to work comes first; nothing has to be waited for.
        let mut events = self.node.events();
        let mut answers = BTreeMap::new();
        while let Some(Some(event)) = events.next().now_or_never() {
            if let Event::JoinFailed { address, reason } = event {
                answers.insert(address, reason);
            }
        }
        answers
    }

    /// How many nodes are known, this one aside.
    pub(crate) fn others(&self) -> usize {
        self.node.nodes().iter().filter(|node| !node.local).count()
    }

    /// A command for people to paste.
    fn command(&self, words: &[&str]) -> String {
        self.settings.command(words)
    }

    fn swarm(&self) -> String {
        let entry = &self.settings.entry;
        // Nobody answers with another secret either, and nothing can tell the two apart.
        let kind = if entry.is_private() { "private swarm" } else { "swarm" };
        format!("{kind} `{}`", entry.swarm())
    }

    fn unknown_node(&self, name: &str) -> String {
        match self.others() {
            0 => self.nobody(),
            _ => format!("no node `{name}` in {}; `{}` lists them", self.swarm(), self.command(&["nodes"])),
        }
    }
}

/// So many processes are named.
const SHOWN: usize = 3;

/// Waits for `work`, but not for long: a verb that has its answer does not keep people waiting.
async fn brief(work: impl Future) {
    let _ = tokio::time::timeout(Duration::from_millis(500), work).await;
}

/// No verb runs longer than this, and no clock overflows.
const FOR_EVER: Duration = Duration::from_secs(365 * 86_400);

/// How long to look for nodes at most. Rendezvous takes milliseconds, mDNS well below a second.
const DISCOVERY: Duration = Duration::from_secs(2);

/// The same where there are addresses to join through: what each of them answers, or that it does not, is known by then.
const JOINING: Duration = Duration::from_millis(2_500);
