//! `multinodes nodes`.

use std::process::ExitCode;

use clap::Args;
use multinodes::{NodeInfo, Predicate};

use super::{
    failure::Failure,
    feed,
    options::Settings,
    output::Output,
    session::Session,
    shapes::NodeRow,
    style,
    table::{Column, Table},
};

/// List the nodes of the swarm
#[derive(Debug, Args)]
pub(crate) struct Nodes {
    /// Only nodes for which EXPR, in CEL, is true: "node.labels.region == 'eu' && node.load < 4"
    #[arg(long = "where", value_name = "EXPR")]
    condition: Option<String>,
}

impl Nodes {
    pub(crate) async fn run(self, settings: Settings, output: Output) -> Result<ExitCode, Failure> {
        let predicate = self.condition.as_deref().map(Predicate::of_node).transpose();
        let predicate = predicate.map_err(|error| Failure::predicate(&error))?;
        Session::open(settings)
            .await?
            .with(async |session| {
                session.settle().await;
                let nodes = session.node.nodes();
                let wanted = |node: &NodeInfo| predicate.as_ref().is_none_or(|predicate| predicate.takes_node(node));
                let others: Vec<_> = nodes.iter().filter(|node| !node.local).collect();
                let rows: Vec<_> = others.iter().filter(|node| wanted(node)).map(|node| NodeRow::of(node)).collect();
                if others.is_empty() {
                    style::note(style::WARN, "nothing found:", &session.nobody());
                }
                for (name, holders) in feed::conflicts(nodes.iter().map(|node| &**node)) {
                    style::note(style::WARN, "name conflict:", &feed::conflict_text(name, &holders, 0));
                }
                output.rows(&rows, || table(&rows))?;
                match &predicate {
                    Some(predicate) if rows.is_empty() && !others.is_empty() => {
                        let count = others.len();
                        Err(Failure::negative(format_args!("none of the {count} nodes matches `{predicate}`")))
                    }
                    _ => Ok(()),
                }
            })
            .await?;
        Ok(ExitCode::SUCCESS)
    }
}

/// The nodes as a table.
pub(crate) fn table(rows: &[NodeRow<'_>]) -> Table {
    let labelled = rows.iter().any(|row| !row.labels.is_empty());
    let mut columns = vec![
        Column::elastic("NAME", 8),
        Column::gives_way("PEER ID", 12),
        Column::text("VERSION"),
        Column::elastic("APPLICATIONS", 12),
        Column::elastic("ADDRESS", 12),
    ];
    if labelled {
        columns.insert(LABELS, Column::elastic("LABELS", 12));
    }
    let mut table = Table::new(columns);
    for row in rows {
        let address = row.addresses.first().map(|address| address.split("/p2p/").next().unwrap_or(address));
        let mut cells = vec![
            (style::NODE, row.name.to_owned()),
            (style::DIM, row.peer_id.clone()),
            (style::PLAIN, row.version.to_owned()),
            (style::APPLICATION, row.applications.join(", ")),
            (style::DIM, address.unwrap_or_default().to_owned()),
        ];
        if labelled {
            let labels: Vec<_> = row.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
            cells.insert(LABELS, (style::PLAIN, labels.join(", ")));
        }
        table.row(cells);
    }
    table
}

/// Where the column of labels is, if any node has one.
const LABELS: usize = 4;
