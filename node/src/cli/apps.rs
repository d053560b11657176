//! `multinodes apps`.

use std::process::ExitCode;

use clap::Args;

use super::{
    choice::Condition,
    failure::Failure,
    options::Settings,
    output::Output,
    session::Session,
    shapes::{self, ApplicationRow, HostRow},
    style,
    table::{Column, Table},
};

/// List the applications of the swarm, their actions and their hosts
#[derive(Debug, Args)]
pub(crate) struct Apps {
    #[command(flatten)]
    condition: Condition,
}

impl Apps {
    pub(crate) async fn run(self, settings: Settings, output: Output) -> Result<ExitCode, Failure> {
        let predicate = self.condition.settle()?;
        Session::open(settings)
            .await?
            .with(async |session| {
                session.settle().await;
                let nodes = session.node.nodes();
                let others = || nodes.iter().filter(|node| !node.local).map(|node| &**node);
                let rows = shapes::applications(others(), |node, application| {
                    predicate.as_ref().is_none_or(|predicate| predicate.takes(node, application))
                });
                if session.others() == 0 {
                    style::note(style::WARN, "nothing found:", &session.nobody());
                }
                output.rows(&rows, || table(&rows))?;
                let hosts: usize = others().map(|node| node.applications.len()).sum();
                match &predicate {
                    Some(predicate) if rows.is_empty() && hosts > 0 => {
                        let reason = format!("none of the {hosts} hosts of applications matches `{predicate}`");
                        Err(Failure::negative(reason))
                    }
                    _ => Ok(()),
                }
            })
            .await?;
        Ok(ExitCode::SUCCESS)
    }
}

/// The applications as a table.
pub(crate) fn table(rows: &[ApplicationRow<'_>]) -> Table {
    let mut table = Table::new([
        Column::elastic("APPLICATION", 8),
        Column::text("VERSION"),
        Column::wrapped("ACTIONS", 12),
        Column::number("HOSTS"),
        Column::wrapped("NODES", 12),
        Column::gives_way("DESCRIPTION", 12),
    ]);
    for row in rows {
        let actions: Vec<&str> = row.actions.iter().copied().collect();
        let nodes: Vec<String> = row.hosts.iter().map(host).collect();
        let description = if row.description.is_null() { String::new() } else { row.description.to_string() };
        table.row([
            (style::APPLICATION, row.name.to_owned()),
            (style::PLAIN, row.version.unwrap_or("-").to_owned()),
            (style::PLAIN, actions.join(", ")),
            (style::PLAIN, row.hosts.len().to_string()),
            (style::NODE, nodes.join(", ")),
            (style::DIM, description),
        ]);
    }
    table
}

fn host(host: &HostRow<'_>) -> String {
    match host.trouble {
        Some(trouble) => format!("{} (in trouble: {trouble})", host.node),
        None => host.node.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn actions_and_nodes_are_whole_on_a_narrow_terminal() {
        let actions = ["accumulate", "interpolate", "normalise", "subtract", "transpose"];
        let nodes = ["copenhagen", "edinburgh", "ljubljana", "manchester", "reykjavik"];
        let hosted = |node| HostRow {
            node,
            peer_id: String::new(),
            version: None,
            description: &Value::Null,
            slots: None,
            trouble: None,
        };
        let row = ApplicationRow {
            name: "matrix",
            version: Some("1.0.0"),
            description: &Value::Null,
            actions: actions.into(),
            hosts: nodes.map(hosted).into(),
        };
        let text = table(&[row]).render(Some(80), 0);
        assert!(text.lines().count() > 2 && !text.contains('…'), "{text}");
        for word in actions.iter().chain(&nodes) {
            assert!(text.contains(word), "{word}: {text}");
        }
    }
}
