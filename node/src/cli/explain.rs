//! `multinodes explain APP`.

use std::process::ExitCode;

use clap::Args;
use multinodes::{Considered, Verdict};

use super::{
    choice::Choice,
    failure::Failure,
    options::Settings,
    output::Output,
    session::Session,
    style,
    table::{Column, Table},
};

/// Say of each host of an application why it would be taken or passed over
#[derive(Debug, Args)]
pub(crate) struct Explain {
    /// The application
    #[arg(value_name = "APP")]
    application: String,

    /// The action that would be called: a host that lacks it, or forbids it, says so only when it is called
    #[arg(value_name = "ACTION")]
    action: Option<String>,

    #[command(flatten)]
    choice: Choice,
}

impl Explain {
    pub(crate) async fn run(self, settings: Settings, output: Output) -> Result<ExitCode, Failure> {
        let chosen = self.choice.settle()?;
        let taken = Session::open(settings)
            .await?
            .with(async |session| {
                session.settle().await;
                let target = chosen.target(&session.node, &self.application);
                let considered = match &self.action {
                    Some(action) => target.explain_call(action),
                    None => target.explain(),
                };
                if considered.is_empty() {
                    let name = &self.application;
                    return Err(Failure::negative(format_args!("nobody hosts `{name}`; {}", session.hint())));
                }
                if output.json {
                    output.value(&considered)
                } else {
                    output.text(&table(&considered).render(output.width, 0))
                }?;
                style::note(
                    style::DIM,
                    "not asked:",
                    "whether its rules allow a call, a host says only when it is called",
                );
                Ok(considered.iter().any(|host| host.verdict == Verdict::Taken))
            })
            .await?;
        Ok(if taken { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

fn table(considered: &[Considered]) -> Table {
    let mut table = Table::new([
        Column::elastic("NODE", 8),
        Column::text("VERSION"),
        Column::number("LOAD"),
        Column::number("SLOTS"),
        Column::text("VERDICT"),
        Column::wrapped("REASON", 16),
    ]);
    for host in considered {
        let verdict = match host.verdict {
            Verdict::Taken => "taken",
            Verdict::Possible => "possible",
            Verdict::Aside => "set aside",
            Verdict::Forbidden => "forbidden",
            Verdict::Gone => "gone",
            _ => "passed over",
        };
        table.row([
            (style::NODE, host.node.clone()),
            (style::PLAIN, host.version.clone().unwrap_or_else(|| "-".to_owned())),
            (style::PLAIN, host.load.to_string()),
            (style::PLAIN, host.slots.map_or_else(|| "-".to_owned(), |slots| slots.to_string())),
            (style::PLAIN, verdict.to_owned()),
            (style::PLAIN, host.reason.clone()),
        ]);
    }
    table
}
