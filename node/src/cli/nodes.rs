//! `multinodes nodes`.

use std::process::ExitCode;

use clap::Args;

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
pub(crate) struct Nodes {}

impl Nodes {
    pub(crate) async fn run(self, settings: Settings, output: Output) -> Result<ExitCode, Failure> {
        Session::open(settings)
            .await?
            .with(async |session| {
                session.settle().await;
                let nodes = session.node.nodes();
                let rows: Vec<_> = nodes.iter().filter(|node| !node.local).map(|node| NodeRow::of(node)).collect();
                if rows.is_empty() {
                    style::note(style::WARN, "nothing found:", &session.nobody());
                }
                for (name, holders) in feed::conflicts(nodes.iter().map(|node| &**node)) {
                    style::note(style::WARN, "name conflict:", &feed::conflict_text(name, &holders));
                }
                if output.json { output.value(&rows) } else { output.text(&table(&rows).render(output.width, 0)) }
            })
            .await?;
        Ok(ExitCode::SUCCESS)
    }
}

/// The nodes as a table.
pub(crate) fn table(rows: &[NodeRow<'_>]) -> Table {
    let mut table = Table::new([
        Column::elastic("NAME", 8),
        Column::gives_way("PEER ID", 12),
        Column::text("VERSION"),
        Column::elastic("APPLICATIONS", 12),
        Column::elastic("ADDRESS", 12),
    ]);
    for row in rows {
        let address = row.addresses.first().map(|address| address.split("/p2p/").next().unwrap_or(address));
        table.row([
            (style::NODE, row.name.to_owned()),
            (style::DIM, row.peer_id.clone()),
            (style::PLAIN, row.version.to_owned()),
            (style::APPLICATION, row.applications.join(", ")),
            (style::DIM, address.unwrap_or_default().to_owned()),
        ]);
    }
    table
}
