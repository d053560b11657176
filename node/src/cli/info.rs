//! `multinodes info NODE`.

use std::{
    process::ExitCode,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use clap::Args;
use multinodes::{ApplicationInfo, NodeInfo};

use super::{
    failure::Failure,
    options::Settings,
    output::Output,
    session::Session,
    shapes::dialable,
    style::{self, paint},
    table::{Column, Table},
};

/// Show everything that one node says of itself
#[derive(Debug, Args)]
pub(crate) struct Info {
    /// The node's name or peer id
    node: String,
}

impl Info {
    pub(crate) async fn run(self, settings: Settings, output: Output) -> Result<ExitCode, Failure> {
        Session::open(settings)
            .await?
            .with(async |session| {
                let node = session.find(&self.node).await?;
                if output.json { output.value(&json(&node)?) } else { output.text(&text(&node, output.width)) }
            })
            .await?;
        Ok(ExitCode::SUCCESS)
    }
}

/// The record as it is, with addresses that can be pasted behind `--join`.
fn json(node: &NodeInfo) -> Result<serde_json::Value, Failure> {
    let mut value = serde_json::to_value(node).map_err(Failure::own)?;
    value["addresses"] = dialable(&node.addresses, node.peer_id).into();
    Ok(value)
}

fn text(node: &NodeInfo, width: Option<usize>) -> String {
    let mut facts = Table::new([Column::text(""), Column::text("")]);
    let mut fact = |label: &str, style, text: String| facts.row([(style::HEADER, label.to_owned()), (style, text)]);
    fact("name", style::NODE, node.name.clone());
    fact("peer id", style::PLAIN, node.peer_id.to_string());
    fact("version", style::PLAIN, node.software.clone());
    fact("started", style::PLAIN, started(node.incarnation));
    fact("revision", style::PLAIN, node.revision.to_string());
    fact("load", style::PLAIN, format!("{} calls running", node.load));
    for (label, text) in &node.labels {
        fact("label", style::PLAIN, format!("{label}={text}"));
    }
    for (index, address) in dialable(&node.addresses, node.peer_id).into_iter().enumerate() {
        fact(if index == 0 { "addresses" } else { "" }, style::PLAIN, address);
    }
    let mut text = facts.render(None, 0);
    if node.conflict {
        let warning = "another node holds the same name: address this one by its peer id";
        text += &format!("\n{} {warning}", paint(style::WARN, "!"));
    }
    if !node.applications.is_empty() {
        text += &format!("\n\n{}", applications(&node.applications, width));
    }
    text
}

fn applications(applications: &[Arc<ApplicationInfo>], width: Option<usize>) -> String {
    let mut table = Table::new([
        Column::elastic("APPLICATION", 8),
        Column::text("VERSION"),
        Column::wrapped("ACTIONS", 12),
        Column::number("SLOTS"),
        Column::wrapped("DESCRIPTION", 12),
    ]);
    for application in applications {
        let description = &application.description;
        table.row([
            (style::APPLICATION, application.name.clone()),
            (style::PLAIN, application.version.clone().unwrap_or_else(|| "-".to_owned())),
            (style::PLAIN, application.actions.join(", ")),
            (style::PLAIN, application.slots.map_or_else(|| "-".to_owned(), |slots| slots.to_string())),
            (
                style::DIM,
                match &application.trouble {
                    Some(trouble) => format!("in trouble: {trouble}"),
                    None if description.is_null() => String::new(),
                    None => description.to_string(),
                },
            ),
        ]);
    }
    table.render(width, 0)
}

/// The start of a node's life as people read it. Another host's clock may be ahead of ours, or nonsense.
fn started(incarnation: u64) -> String {
    let Some(time) = UNIX_EPOCH.checked_add(Duration::from_millis(incarnation)) else {
        return format!("{incarnation} ms after 1970");
    };
    let year_9999 = UNIX_EPOCH + Duration::from_secs(253_402_300_799);
    if time > year_9999 {
        return format!("{incarnation} ms after 1970");
    }
    let date = humantime::format_rfc3339_seconds(time);
    match SystemTime::now().duration_since(time) {
        Ok(age) => format!("{date}, {} ago", humantime::format_duration(Duration::from_secs(age.as_secs()))),
        Err(_) => date.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use multinodes_behaviour::wire::ApplicationRecord;

    use super::{applications, started};

    #[test]
    fn any_incarnation_can_be_shown() {
        assert!(started(0).starts_with("1970-01-01T00:00:00Z, "));
        assert_eq!(started(u64::MAX), format!("{} ms after 1970", u64::MAX));
    }

    #[test]
    fn actions_and_descriptions_are_whole_on_a_narrow_terminal() {
        let actions = ["accumulate", "interpolate", "normalise", "subtract", "transpose"];
        let record = ApplicationRecord {
            name: "matrix".to_owned(),
            version: Some("1.0.0".to_owned()),
            description: "computes with whatever somebody has put into it".into(),
            actions: actions.map(str::to_owned).into(),
            slots: Some(4),
            idempotent: Vec::new(),
            trouble: None,
        };
        let text = applications(&[Arc::new(record.into())], Some(60));
        assert!(text.lines().count() > 2 && !text.contains('…'), "{text}");
        for word in actions.iter().chain(&["computes", "whatever", "somebody", "into"]) {
            assert!(text.contains(word), "{word}: {text}");
        }
    }
}
