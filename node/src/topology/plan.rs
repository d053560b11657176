//! What a flow looks like. It travels along with the tuples, so no host has to be told beforehand.

use multinodes_behaviour::{names, wire::MAX_NAME};
use serde::{Deserialize, Serialize};

use super::owner::Key;

/// Stages of one flow at the most. The plan goes with every batch of tuples, and nobody draws more boxes than this.
pub const MAX_STAGES: usize = 64;

/// What the names of desks begin with.
pub(crate) const DESK: &str = "flow:";

/// The place of a stage in the plan.
pub(crate) type StageIndex = u16;

/// How tuples are spread over the hosts of a stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Grouping {
    /// Each tuple goes to any host: the less busy one of two that are picked at random.
    Shuffle,
    /// Tuples with the same key go to the same host as long as it lives. When a host is lost only its keys move, and
    /// a newcomer takes an equal share from each.
    ByKey(Key),
    /// Each tuple goes to every host that is known then.
    All,
    /// This node if it hosts the stage, and has room; else as [`Shuffle`](Self::Shuffle). Saves the way over the
    /// network.
    LocalFirst,
}

impl Grouping {
    /// By a part of the tuple: names of fields or places in a list, with dots between them, such as `url`, `page.url`
    /// or `0`. An empty path takes the whole tuple.
    ///
    /// A path, not a closure: any host must be able to find it.
    #[must_use]
    pub fn by_key(path: &str) -> Self {
        Self::ByKey(Key::new(path))
    }
}

/// One run of a flow, as its hosts know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Plan {
    /// The run. Everybody may know it.
    pub(crate) run: u64,
    /// Only those who got tuples of the run know it.
    pub(crate) token: Token,
    /// The application at the source that takes acknowledgements and outputs.
    pub(crate) desk: String,
    /// What proves the labels of the source's node, for hosts that are not connected with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) credential: Option<String>,
    /// Where the source's own tuples go.
    pub(crate) first: Vec<Edge>,
    pub(crate) stages: Vec<StagePlan>,
}

/// The secret of one run.
pub(crate) type Token = (u64, u64);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StagePlan {
    pub(crate) application: String,
    /// Where the tuples go that it emits.
    pub(crate) edges: Vec<Edge>,
    /// What it emits goes back to the source.
    pub(crate) outputs: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Edge {
    pub(crate) to: StageIndex,
    pub(crate) grouping: Grouping,
}

impl Plan {
    /// Whether the source itself sends tuples to a stage.
    pub(crate) fn begins_with(&self, stage: StageIndex) -> bool {
        self.first.iter().any(|edge| edge.to == stage)
    }

    /// The applications whose hosts send tuples to a stage.
    pub(crate) fn inputs(&self, stage: StageIndex) -> impl Iterator<Item = &str> {
        let inputs = self.stages.iter().filter(move |other| other.edges.iter().any(|edge| edge.to == stage));
        inputs.map(|other| other.application.as_str())
    }

    /// Whether a plan from elsewhere can be followed: every edge leads on to a later stage, so tuples cannot go round,
    /// acknowledgements go to a desk, so nothing else is called in the name of whoever sends them, and what it names are
    /// names, in the form in which they are compared.
    pub(crate) fn is_sound(&self) -> bool {
        let leads_on = |from: Option<usize>, edge: &Edge| {
            let to = usize::from(edge.to);
            to < self.stages.len() && from.is_none_or(|from| from < to)
        };
        let is_name = |name: &str| names::check("an application", name, MAX_NAME).is_ok();
        self.desk.starts_with(DESK)
            && is_name(&self.desk)
            && self.stages.iter().all(|stage| is_name(&stage.application))
            && self.stages.len() <= MAX_STAGES
            && self.first.len() <= MAX_STAGES
            && self.first.iter().all(|edge| leads_on(None, edge))
            && self.stages.iter().enumerate().all(|(index, stage)| {
                stage.edges.len() <= MAX_STAGES && stage.edges.iter().all(|edge| leads_on(Some(index), edge))
            })
    }
}
