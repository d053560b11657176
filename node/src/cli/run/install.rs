//! `multinodes run FILE --install NAME`.

use std::process::ExitCode;

use clap::Args;
use multinodes::{CallError, Code, Installation, Installed, Payload, PeerId, Predicate};
use serde::Serialize;

use crate::cli::{
    failure::Failure,
    guest::Asked,
    json,
    output::Output,
    session::Session,
    signals::Signals,
    style::{self, paint, printable},
    table::{Column, Table},
};

/// Where it is installed, and what it is started with.
#[derive(Debug, Clone, Args)]
pub(super) struct Where {
    /// On all nodes that take code now
    #[arg(long, requires = "install")]
    all: bool,

    /// On all nodes that take code, and on each that joins later, until it is interrupted
    #[arg(long, requires = "install", conflicts_with = "all")]
    everywhere: bool,

    /// Only on nodes for which EXPR, in CEL, is true; alone on all of these: "node.labels.region == 'eu'"
    #[arg(id = "condition", long = "where", value_name = "EXPR", requires = "install")]
    condition: Option<String>,

    /// What it is started with, as JSON: its configuration [default: null]
    #[arg(long = "with", value_name = "JSON", requires = "install", allow_negative_numbers = true)]
    with: Option<String>,
}

/// The same, checked.
pub(super) struct Place {
    all: bool,
    everywhere: bool,
    condition: Option<String>,
    config: Payload,
}

impl Where {
    /// Checks the flags. To be done before anything is begun.
    pub(super) fn settle(self) -> Result<Place, Failure> {
        let Self { all, everywhere, condition, with } = self;
        if let Some(condition) = &condition {
            Predicate::of_node(condition).map_err(|error| Failure::predicate(&error))?;
        }
        let config = json::message(with.as_deref().unwrap_or("null"))?;
        let all = all || condition.is_some() && !everywhere;
        Ok(Place { all, everywhere, condition, config })
    }
}

/// What is to be installed, and where.
pub(super) struct Order<'a> {
    pub(super) name: &'a str,
    pub(super) code: &'a Code,
    pub(super) place: Place,
    pub(super) asked: Asked<'a>,
    pub(super) output: Output,
}

/// What `--json` says of each node.
#[derive(Serialize)]
struct Row {
    node: String,
    peer_id: String,
    installed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Reason>,
}

#[derive(Serialize)]
struct Reason {
    code: &'static str,
    message: String,
}

impl Order<'_> {
    pub(super) async fn run(&self, session: &Session) -> Result<ExitCode, Failure> {
        let installation =
            session.node.install(self.name, self.code).config(&self.place.config.json().map_err(Failure::own)?);
        let installation = installation.map_err(Failure::own)?;
        let installation = match &self.place.condition {
            Some(condition) => installation.matching(condition).map_err(|error| Failure::predicate(&error))?,
            None => installation,
        };
        if self.place.everywhere {
            return self.everywhere(installation).await;
        }
        if self.place.all {
            session.settle().await;
            return self.all(installation.timeout(session.left()), session).await;
        }
        let node = match self.asked.node {
            Some(node) => session.find(node).await?.peer_id,
            None => self.somewhere(&installation, session).await?,
        };
        let done = installation.timeout(session.left()).on(node.to_string()).await;
        done.map_err(|error| self.asked.failed(&session.given(error), &session.hint()))?;
        let nodes = session.node.nodes();
        let name = nodes.iter().find(|info| info.peer_id == node).map_or_else(String::new, |info| info.name.clone());
        self.said(&name, node, &Ok(()))?;
        Ok(ExitCode::SUCCESS)
    }

    /// Any node that takes code, but where it is already before any other: a later version belongs there.
    async fn somewhere(&self, installation: &Installation, session: &Session) -> Result<PeerId, Failure> {
        session.settle().await;
        let hosts = session.node.hosts(self.name);
        let offers = installation.offers();
        let there = offers.iter().find(|offer| hosts.iter().any(|host| host.peer_id == offer.peer_id));
        let chosen = there.or(offers.first()).map(|host| host.peer_id);
        chosen.ok_or_else(|| self.asked.nobody(session, None))
    }

    async fn all(&self, installation: Installation, session: &Session) -> Result<ExitCode, Failure> {
        let mut outcomes = installation.all().await;
        for outcome in &mut outcomes {
            outcome.result = outcome.result.clone().map_err(|error| session.given(error));
        }
        if outcomes.is_empty() {
            return Err(self.asked.nobody(session, self.place.condition.as_deref()));
        }
        if self.output.json {
            let rows = outcomes.iter().map(|outcome| row(&outcome.node, outcome.peer_id, &outcome.result));
            let rows: Vec<Row> = rows.collect();
            self.output.value(&rows)?;
        } else {
            self.output.text(&table(&outcomes).render(self.output.width, 0))?;
        }
        let mut failed = outcomes.iter().filter_map(|outcome| outcome.result.as_ref().err());
        match failed.next() {
            None => Ok(ExitCode::SUCCESS),
            // One reason is enough to go on with; the others are in the table.
            Some(error) => {
                let (count, all) = (failed.count() + 1, outcomes.len());
                let reason = self.asked.failed(error, &session.hint());
                Err(Failure::negative(format_args!("{count} of {all} nodes have not installed it; {reason}")))
            }
        }
    }

    /// Until a signal comes.
    async fn everywhere(&self, installation: Installation) -> Result<ExitCode, Failure> {
        let mut signals = Signals::take()?;
        let mut everywhere = installation.everywhere();
        let text = format!(
            "`{}` to all nodes that take code, newcomers too; Ctrl-C ends that, what is installed stays",
            self.name
        );
        style::note(style::DIM, "bringing:", &text);
        loop {
            tokio::select! {
                biased;
                _ = signals.next() => return Ok(ExitCode::SUCCESS),
                outcome = everywhere.next() => match outcome {
                    Some(outcome) => self.said(&outcome.node, outcome.peer_id, &outcome.result)?,
                    None => return Err(Failure::own("the node has stopped")),
                },
            }
        }
    }

    /// A line about one node.
    fn said(&self, node: &str, peer_id: PeerId, result: &Result<(), CallError>) -> Result<(), Failure> {
        if self.output.json {
            return self.output.line(&row(node, peer_id, result));
        }
        let node = paint(style::NODE, node);
        match result {
            Ok(()) => {
                let name = paint(style::APPLICATION, self.name);
                self.output.text(&format!("{name} is installed on {node}"))
            }
            Err(error) => self.output.text(&format!("{node} does not install it: {}", printable(&error.to_string()))),
        }
    }
}

fn row(node: &str, peer_id: PeerId, result: &Result<(), CallError>) -> Row {
    let error = result.as_ref().err();
    Row {
        node: node.to_owned(),
        peer_id: peer_id.to_string(),
        installed: error.is_none(),
        error: error.map(|error| Reason { code: error.code(), message: error.to_string() }),
    }
}

fn table(outcomes: &[Installed]) -> Table {
    let mut table = Table::new([Column::elastic("NODE", 8), Column::wrapped("OUTCOME", 20)]);
    for outcome in outcomes {
        let (style, text) = match &outcome.result {
            Ok(()) => (style::GOOD, "installed".to_owned()),
            Err(error) => (style::BAD, error.to_string()),
        };
        table.row([(style::NODE, outcome.node.clone()), (style, text)]);
    }
    table
}
