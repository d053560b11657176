//! Describes a flow and runs it.

use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use multinodes_behaviour::{names, plan, wire::MAX_NAME};
use serde::Serialize;
use tokio::sync::mpsc;

use super::{
    plan::{DESK, Edge, Grouping, MAX_STAGES, Plan, StageIndex, StagePlan},
    router::Router,
    run::Run,
    source::{Desk, Source},
    trees::Limits,
};
use crate::{node::Node, payload::Payload, registry::RegisterError};

/// How long a tree may take unless it is said otherwise.
pub const DEFAULT_ACK_TIMEOUT: Duration = Duration::from_secs(30);

/// Items that are under way at once unless it is said otherwise.
pub const DEFAULT_MAX_PENDING: usize = 1024;

/// How often an item is replayed unless it is said otherwise.
pub const DEFAULT_MAX_REPLAYS: u32 = 10;

/// The longest name of a flow, in bytes.
const MAX_FLOW_NAME: usize = 64;

/// What becomes of the items of a source: through which stages they go, and how they are spread over their hosts.
///
/// Each stage is an application, a [`Stage`](super::Stage), on any number of nodes. The stages form a graph without
/// circles: a stage takes the tuples of the source or of stages that were named before it. What the last stages emit
/// comes back as [outputs](super::Event::Output). To go round, feed outputs into the source, as `web_crawler` among the
/// examples does.
///
/// ```
/// use multinodes::topology::{Flow, Grouping};
///
/// let flow = Flow::new("words").stage("split", Grouping::Shuffle).stage("count", Grouping::by_key(""));
/// ```
#[derive(Debug, Clone)]
#[must_use = "a flow does nothing until it runs"]
pub struct Flow {
    name: String,
    first: Vec<Edge>,
    stages: Vec<StagePlan>,
    limits: Limits,
    outputs: bool,
    /// The first thing that is wrong with it.
    error: Option<FlowError>,
}

impl Flow {
    /// A flow without stages. The name, 1 to 64 bytes of visible characters without blanks, is for people.
    pub fn new(name: impl Into<String>) -> Self {
        let name = names::into_normal(name.into());
        let fits = names::check("a flow", &name, MAX_FLOW_NAME).is_ok();
        let error = (!fits).then(|| FlowError::Name { name: name.chars().take(80).collect() });
        let limits = Limits {
            ack_timeout: DEFAULT_ACK_TIMEOUT,
            max_pending: DEFAULT_MAX_PENDING,
            max_replays: DEFAULT_MAX_REPLAYS,
        };
        Self { name, first: Vec::new(), stages: Vec::new(), limits, outputs: true, error }
    }

    /// Sends the tuples of the stage that was named last to `application`; the source's items if there is none yet.
    pub fn stage(self, application: impl Into<String>, grouping: Grouping) -> Self {
        let input = self.stages.len().checked_sub(1);
        self.add(input, application.into(), grouping)
    }

    /// Sends the source's items to `application`.
    pub fn stage_after_source(self, application: impl Into<String>, grouping: Grouping) -> Self {
        self.add(None, application.into(), grouping)
    }

    /// Sends the tuples of the stage `input` to `application`. A stage may have several inputs, and give its tuples to
    /// several others: each gets all of them, unless it is chosen by
    /// [`emit_to`](super::Emitter::emit_to).
    pub fn stage_after(mut self, input: &str, application: impl Into<String>, grouping: Grouping) -> Self {
        let (application, input) = (names::into_normal(application.into()), &*names::normal(input));
        match self.find(input) {
            Some(input) => self.add(Some(input), application, grouping),
            None => {
                self.error.get_or_insert(FlowError::NoInput { application, input: input.to_owned() });
                self
            }
        }
    }

    /// How long everything that comes of an item may take, 30 s by default; then it is replayed. At least as long as
    /// [`max_pending`](Self::max_pending) items take: time in queues counts.
    pub fn ack_timeout(mut self, time: Duration) -> Self {
        self.limits.ack_timeout = time;
        self
    }

    /// How many items are under way at once, 1024 by default and at least 1; fewer if they have
    /// [`MAX_PENDING_BYTES`](super::MAX_PENDING_BYTES) together. The source is asked for no more, and they are kept in
    /// memory for replays.
    pub fn max_pending(mut self, items: usize) -> Self {
        self.limits.max_pending = items.max(1);
        self
    }

    /// How often an item is replayed, 10 times by default, before it is given up.
    pub fn max_replays(mut self, replays: u32) -> Self {
        self.limits.max_replays = replays;
        self
    }

    /// Whether the tuples that the last stages emit come back to the source. They do by default.
    pub fn outputs(mut self, come_back: bool) -> Self {
        self.outputs = come_back;
        self
    }

    /// Runs the flow with these items; they are sent as soon as the first stages have hosts. Each run is on its own,
    /// and several may run at once.
    ///
    /// The node takes acknowledgements in an application `flow:NAME:NUMBER` that exists as long as the run.
    ///
    /// # Errors
    ///
    /// See [`FlowError`].
    pub fn run<T: Serialize>(
        &self,
        node: &Node,
        items: impl Stream<Item = T> + Send + 'static,
    ) -> Result<Run, FlowError> {
        let (plan, encoded) = self.plan(node)?;
        // Bounded by what goes into it: see `Inner::events` of the source.
        let (events, receiver) = mpsc::unbounded_channel();
        let source = Source::new(&plan, self.limits, events);
        let desk = plan.desk.clone();
        let inner = Node::inner(node.core().clone());
        let router = Router::new(inner, node.peer_id(), plan, encoded, source.clone(), false);
        node.register(&desk, Desk(source.clone()))?;
        let items = items.map(|item| Payload::encode(&item));
        Ok(Run::start(node.unbounded(), source, router, receiver, items))
    }

    fn plan(&self, node: &Node) -> Result<(Plan, Bytes), FlowError> {
        if let Some(error) = &self.error {
            return Err(error.clone());
        }
        if self.stages.is_empty() {
            return Err(FlowError::Empty);
        }
        let mut stages = self.stages.clone();
        for stage in &mut stages {
            stage.outputs = self.outputs && stage.edges.is_empty();
        }
        let run = rand::random();
        let plan = Plan {
            run,
            token: rand::random(),
            desk: format!("{DESK}{}:{run:016x}", self.name),
            credential: node.core().settings.credential.clone(),
            first: self.first.clone(),
            stages,
        };
        let core = node.core();
        let signed = plan::sign(&core.keypair, &core.settings.swarm, &plan);
        let signed = signed.map_err(|error| FlowError::Plan { reason: error.to_string() })?;
        Ok((plan, signed))
    }

    fn add(mut self, input: Option<usize>, application: String, grouping: Grouping) -> Self {
        let application = names::into_normal(application);
        if let Err(error) = names::check("an application", &application, MAX_NAME) {
            self.error.get_or_insert(FlowError::Stage(error));
            return self;
        }
        let to = match self.find(&application) {
            Some(stage) => stage,
            None if self.stages.len() == MAX_STAGES => {
                self.error.get_or_insert(FlowError::TooManyStages);
                return self;
            }
            None => {
                self.stages.push(StagePlan { application: application.clone(), edges: Vec::new(), outputs: false });
                self.stages.len() - 1
            }
        };
        let edges = match input {
            Some(input) if input >= to => {
                let input = self.stages[input].application.clone();
                self.error.get_or_insert(FlowError::Circle { application, input });
                return self;
            }
            Some(input) => &mut self.stages[input].edges,
            None => &mut self.first,
        };
        let to = StageIndex::try_from(to).unwrap_or(StageIndex::MAX);
        if edges.iter().any(|edge| edge.to == to) {
            self.error.get_or_insert(FlowError::Twice { application });
            return self;
        }
        edges.push(Edge { to, grouping });
        self
    }

    fn find(&self, application: &str) -> Option<usize> {
        self.stages.iter().position(|stage| stage.application == application)
    }
}

/// Why a flow does not run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FlowError {
    /// The name is empty, too long, or has control characters.
    #[error("`{name}` cannot name a flow: 1 to {MAX_FLOW_NAME} bytes without control characters can")]
    Name {
        /// The name, shortened.
        name: String,
    },
    /// What a stage is called cannot name an application.
    #[error(transparent)]
    Stage(names::BadName),
    /// It has no stage.
    #[error("the flow has no stage")]
    Empty,
    /// It has too many stages.
    #[error("the flow has more than {MAX_STAGES} stages")]
    TooManyStages,
    /// The input of a stage was not named before it.
    #[error("the stage `{application}` comes after `{input}`, which was not named before it")]
    NoInput {
        /// The stage's application.
        application: String,
        /// Its input.
        input: String,
    },
    /// The flow goes round.
    #[error("the stage `{application}` cannot come after `{input}`, which comes after it")]
    Circle {
        /// The stage's application.
        application: String,
        /// Its input.
        input: String,
    },
    /// A stage was given the same input twice.
    #[error("the stage `{application}` has this input already")]
    Twice {
        /// The stage's application.
        application: String,
    },
    /// It cannot be sent to others.
    #[error("the plan of the flow cannot be sent: {reason}")]
    Plan {
        /// Why not.
        reason: String,
    },
    /// The node cannot take acknowledgements: it is passive, for example.
    #[error("the node cannot take acknowledgements: {0}")]
    Register(#[from] RegisterError),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(flow: Flow) -> FlowError {
        flow.error.unwrap()
    }

    #[test]
    fn a_flow_that_goes_round_or_hangs_in_the_air_is_refused() {
        let flow = || Flow::new("f").stage("a", Grouping::Shuffle).stage("b", Grouping::All);
        let (a, b) = ("a".to_owned(), "b".to_owned());
        let circle = error(flow().stage_after("b", "a", Grouping::Shuffle));
        assert_eq!(circle, FlowError::Circle { application: a.clone(), input: b.clone() });
        let itself = error(flow().stage_after("a", "a", Grouping::Shuffle));
        assert_eq!(itself, FlowError::Circle { application: a.clone(), input: a });
        let unknown = error(flow().stage_after("c", "b", Grouping::Shuffle));
        assert_eq!(unknown, FlowError::NoInput { application: b.clone(), input: "c".to_owned() });
        assert_eq!(error(flow().stage_after("a", "b", Grouping::Shuffle)), FlowError::Twice { application: b });
        assert_eq!(error(Flow::new("")), FlowError::Name { name: String::new() });
        assert!(
            flow().stage_after("a", "c", Grouping::LocalFirst).stage_after_source("b", Grouping::All).error.is_none()
        );
    }

    #[test]
    fn the_number_of_stages_is_bounded() {
        let flow = |stages: usize| {
            (0..stages).fold(Flow::new("f"), |flow, stage| flow.stage(stage.to_string(), Grouping::Shuffle))
        };
        assert!(flow(MAX_STAGES).error.is_none());
        assert_eq!(error(flow(MAX_STAGES + 1)), FlowError::TooManyStages);
    }
}
