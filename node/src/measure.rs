//! What benchmarks need to see of the inside. No part of what is promised.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use libp2p::PeerId;
use serde_json::json;

use crate::{
    builder::{Builder, StartError},
    core::Core,
    description::{ApplicationInfo, NodeInfo, Snapshot},
    permissions::Wishes,
    predicate::{Predicate, PredicateError, matching::Matching},
    selection::{self, Asked, Chooser, Wanted},
    strategy::Strategy,
};

const APPLICATION: &str = "render";

/// A directory with many hosts of one application, out of which one is picked again and again.
#[derive(Clone)]
pub struct Picks {
    core: Arc<Core>,
    matching: Option<Arc<Matching>>,
    chooser: Option<Arc<Chooser>>,
    nodes: Vec<Arc<NodeInfo>>,
}

impl Picks {
    /// So many hosts, all of them connected, at distances of 1 ms and more. Their descriptions are `{"gpu": 0}` to `{"gpu": 7}`, the same number of each, and their labels
    /// `region=eu` or `region=us`.
    ///
    /// # Errors
    ///
    /// The settings of the node are wrong: they are not.
    pub fn new(hosts: usize) -> Result<Self, StartError> {
        let (settings, identity, _) = Builder::default().name("caller").listen("/memory/1").resolve()?;
        let (core, _) = Core::new(settings, identity.keypair.clone(), Wishes::default());
        let nodes: Vec<_> = (0..hosts).map(host).collect();
        for (node, millis) in nodes.iter().zip(1..) {
            core.selection.round_trips.measured(node.peer_id, Duration::from_millis(millis));
        }
        let picks = Self { core, matching: None, chooser: None, nodes };
        picks.change();
        Ok(picks)
    }

    /// The same hosts, of which only those that match are picked.
    ///
    /// # Errors
    ///
    /// The text is no predicate.
    pub fn matching(&self, predicate: &str) -> Result<Self, PredicateError> {
        let matching = Matching::new(APPLICATION, vec![Predicate::new(predicate)?]);
        Ok(Self { matching: Some(matching), ..self.clone() })
    }

    /// The same hosts, of which one is picked by this strategy.
    #[must_use]
    pub fn by(&self, strategy: Strategy) -> Self {
        Self { chooser: Some(Arc::new(Chooser::new(strategy))), ..self.clone() }
    }

    /// Picks a host; false if there is none.
    #[must_use]
    pub fn pick(&self) -> bool {
        let (matching, chooser) = (self.matching.as_deref(), self.chooser.as_deref());
        let wanted = Wanted { matching, chooser, ..Wanted::default() };
        selection::pick(&self.core, APPLICATION, Asked::Action("run"), wanted, &[]).is_ok()
    }

    /// Replaces the directory as after signs of life: the same records, in another list.
    pub fn change(&self) {
        self.core.snapshot.store(Arc::new(Snapshot::new(self.nodes.clone())));
    }
}

impl std::fmt::Debug for Picks {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Picks").field("hosts", &self.nodes.len()).finish_non_exhaustive()
    }
}

fn host(number: usize) -> Arc<NodeInfo> {
    let region = if number.is_multiple_of(2) { "eu" } else { "us" };
    let application = ApplicationInfo {
        name: APPLICATION.to_owned(),
        version: None,
        description: json!({"gpu": number % 8, "models": ["a", "b", "c"]}),
        actions: vec!["draw".to_owned()],
        slots: Some(4),
        idempotent: Vec::new(),
        trouble: None,
    };
    Arc::new(NodeInfo {
        name: format!("node-{number}"),
        peer_id: PeerId::random(),
        incarnation: 1,
        revision: 1,
        software: env!("CARGO_PKG_VERSION").to_owned(),
        addresses: Vec::new(),
        applications: vec![Arc::new(application)],
        labels: BTreeMap::from([("region".to_owned(), region.to_owned())]),
        load: u32::try_from(number % 5).unwrap_or(0),
        local: false,
        verified: true,
        conflict: false,
    })
}
