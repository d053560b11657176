//! The live feed of the swarm, for `start` and `events`.

use std::collections::{BTreeMap, HashMap, HashSet};

use multinodes::{Event, LeftReason, Node, NodeInfo, PeerId};

use super::{
    failure::Failure,
    output::Output,
    shapes::{Line, NodeRow},
    style::{self, paint, printable},
};

/// Names whose holders were shown are remembered, so that nothing is shown twice: anybody can make up more of them.
const MAX_CONFLICTS: usize = 1024;

/// So many of the nodes with one name are named.
const MAX_NAMED: usize = 8;

/// Prints what happens in the swarm. Every node is shown as joined once before anything else is said of it.
pub(crate) struct Feed {
    output: Output,
    local: PeerId,
    shown: HashSet<PeerId>,
    /// Who was said to hold one name.
    conflicts: HashMap<String, Vec<PeerId>>,
}

impl Feed {
    /// A feed as `node` sees it.
    pub(crate) fn new(node: &Node, output: Output) -> Self {
        Self { output, local: node.peer_id(), shown: HashSet::new(), conflicts: HashMap::new() }
    }

    /// Shows the nodes that are known already. To miss none, take `node.events()` before.
    pub(crate) fn on_known(&mut self, node: &Node) -> Result<(), Failure> {
        let nodes = node.nodes();
        nodes.iter().try_for_each(|node| self.on_joined(node))?;
        for (name, holders) in conflicts(nodes.iter().map(|node| &**node)) {
            let named = &holders[..holders.len().min(MAX_NAMED)];
            self.on_name_conflict(name, named, holders.len() - named.len())?;
        }
        Ok(())
    }

    pub(crate) fn on_event(&mut self, event: &Event) -> Result<(), Failure> {
        match event {
            Event::Joined(node) => self.on_joined(node),
            Event::Updated(node) => self.on_updated(node),
            Event::Left { node, reason } => self.on_left(node, *reason),
            Event::NameConflict { name, peer_ids, more } => self.on_name_conflict(name, peer_ids, *more),
            Event::Degraded { reason } => self.on_trouble(&Line::Degraded { reason }, reason),
            Event::JoinFailed { address, reason } => {
                let text = format!("cannot join through `{address}` yet: {reason}; it is tried again");
                self.on_trouble(&Line::JoinFailed { address, reason }, &text)
            }
            Event::NetworkRestarted { reason } => {
                let text = format!("the network part was started again: {reason}");
                self.on_trouble(&Line::NetworkRestarted { reason }, &text)
            }
            Event::NetworkFailed { reason } => {
                let text = format!("the network part failed again and again, and the node ends: {reason}");
                self.on_trouble(&Line::NetworkFailed { reason }, &text)?;
                Err(Failure::own(text))
            }
            Event::Missed(count) => {
                let text = format!("{count} events were missed, as they are read too slowly");
                self.on_trouble(&Line::Missed { count: *count }, &text)
            }
            _ => Ok(()),
        }
    }

    fn on_joined(&mut self, node: &NodeInfo) -> Result<(), Failure> {
        if node.peer_id == self.local || !self.shown.insert(node.peer_id) {
            return Ok(());
        }
        self.show(&Line::Joined(NodeRow::of(node)), || {
            format!("{} {} joined{}", paint(style::GOOD, "+"), name(node), hosts(node))
        })
    }

    fn on_updated(&mut self, node: &NodeInfo) -> Result<(), Failure> {
        if node.peer_id == self.local {
            return Ok(());
        }
        if !self.shown.contains(&node.peer_id) {
            return self.on_joined(node);
        }
        self.show(&Line::Updated(NodeRow::of(node)), || {
            format!("{} {} changed{}", paint(style::WARN, "~"), name(node), hosts(node))
        })
    }

    fn on_left(&mut self, node: &NodeInfo, reason: LeftReason) -> Result<(), Failure> {
        self.conflicts.remove(&node.name);
        if !self.shown.remove(&node.peer_id) {
            return Ok(());
        }
        self.show(&Line::Left { name: &node.name, peer_id: node.peer_id.to_string(), reason }, || {
            let how = match reason {
                LeftReason::Stopped => "stopped",
                _ => "is lost: it cannot be reached any more",
            };
            format!("{} {} {how}", paint(style::BAD, "-"), name(node))
        })
    }

    fn on_name_conflict(&mut self, name: &str, peer_ids: &[PeerId], more: usize) -> Result<(), Failure> {
        if self.conflicts.len() >= MAX_CONFLICTS {
            self.conflicts.clear();
        }
        let mut holders = peer_ids.to_vec();
        holders.sort_unstable();
        if self.conflicts.insert(name.to_owned(), holders.clone()).is_some_and(|told| told == holders) {
            return Ok(());
        }
        let text = conflict_text(name, peer_ids, more);
        let peer_ids = peer_ids.iter().map(PeerId::to_string).collect();
        self.on_trouble(&Line::NameConflict { name, peer_ids, more }, &text)
    }

    fn on_trouble(&self, line: &Line<'_>, text: &str) -> Result<(), Failure> {
        self.show(line, || format!("{} {}", paint(style::WARN, "!"), printable(text)))
    }

    fn show(&self, line: &Line<'_>, text: impl FnOnce() -> String) -> Result<(), Failure> {
        if self.output.json { self.output.line(line) } else { self.output.text(&text()) }
    }
}

/// The names that several of `nodes` hold, and who does.
pub(crate) fn conflicts<'a>(nodes: impl Iterator<Item = &'a NodeInfo>) -> BTreeMap<&'a str, Vec<PeerId>> {
    let mut conflicts: BTreeMap<&str, Vec<PeerId>> = BTreeMap::new();
    for node in nodes.filter(|node| node.conflict) {
        conflicts.entry(&node.name).or_default().push(node.peer_id);
    }
    conflicts
}

/// Says so of all holders, or of some and how many more there are.
pub(crate) fn conflict_text(name: &str, peer_ids: &[PeerId], more: usize) -> String {
    let named: Vec<String> = peer_ids.iter().take(MAX_NAMED).map(PeerId::to_string).collect();
    let count = peer_ids.len() + more;
    let others = if count > named.len() { format!(" and {} more", count - named.len()) } else { String::new() };
    format!(
        "{count} nodes are called `{}`: messages to that name are refused until one is left; address them by peer id: {}{others}",
        printable(name),
        named.join(", ")
    )
}

fn name(node: &NodeInfo) -> String {
    paint(style::NODE, &node.name)
}

/// What a node hosts beyond what every node does.
fn hosts(node: &NodeInfo) -> String {
    let names: Vec<_> = node.applications.iter().map(|application| application.name.as_str()).collect();
    let names: Vec<_> = names.into_iter().filter(|name| *name != BUILT_IN).map(printable).collect();
    if names.is_empty() { String::new() } else { format!(", hosts {}", paint(style::APPLICATION, names.join(", "))) }
}

/// The application that every node hosts.
pub(crate) const BUILT_IN: &str = "node";
