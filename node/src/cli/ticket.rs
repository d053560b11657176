//! `multinodes ticket`.

use std::{collections::BTreeMap, path::PathBuf, process::ExitCode, time::Duration};

use clap::Args;
use multinodes::read_identity;
use serde::Serialize;

use super::{failure::Failure, options::Settings, output::Output, permissions, session::Session, streams, style};

/// Make a ticket, with which others join the swarm
#[derive(Debug, Args)]
#[command(
    after_help = "Elsewhere: `multinodes start --ticket FILE`, or `--ticket -` to read it from stdin. Who has a ticket to a private swarm has its secret."
)]
pub(crate) struct Ticket {
    /// How long it is good for, such as 12h or 7d, or `never` for no end
    #[arg(long, value_name = "TIME", default_value = "7d", value_parser = lifetime)]
    expires: Lifetime,

    /// A file to be made, which only its owner may read [default: print it, as with `-`]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,

    /// A label that whoever joins with it has proven; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_delimiter = ',', requires = "signed_by")]
    label: Vec<String>,

    /// The identity file whose key signs the labels, such as that of a node; nodes that `--trust` its peer id believe them
    #[arg(long, value_name = "FILE", requires = "label")]
    signed_by: Option<PathBuf>,
}

/// None if it never ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Lifetime(Option<Duration>);

/// What `ticket --json` says of it.
#[derive(Serialize)]
struct Row<'a> {
    swarm: &'a str,
    private: bool,
    addresses: Vec<String>,
    expires: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    labels: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    issuer: Option<String>,
    file: String,
}

impl Ticket {
    pub(crate) async fn run(self, settings: Settings, output: Output) -> Result<ExitCode, Failure> {
        let out = self.out.as_deref().filter(|file| !streams::is_stdout(file));
        if output.json && out.is_none() {
            return Err(Failure::own(NO_JSON));
        }
        if output.json || out.is_none() {
            output.check()?;
        }
        let Lifetime(lifetime) = self.expires;
        let labels = permissions::labels(&self.label)?;
        let issuer = self.signed_by.as_ref().map(read_identity).transpose().map_err(Failure::own)?;
        let make = async |session: &Session| {
            session.settle().await;
            if session.others() == 0 {
                return Err(Failure::negative(session.nobody()));
            }
            let ticket = session.node.ticket(lifetime).map_err(Failure::negative)?;
            match issuer {
                Some(issuer) => ticket.labelled(&issuer, labels).map_err(Failure::own),
                None => Ok(ticket),
            }
        };
        let ticket = Session::open(settings).await?.with(make).await?;
        let expires = ticket.expires().map(|time| humantime::format_rfc3339_seconds(time).to_string());
        let Some(file) = out else {
            output.text(&ticket.reveal())?;
            if ticket.is_private() {
                style::note(style::WARN, "keep it safe:", "whoever has this ticket has the swarm's secret");
            }
            return Ok(ExitCode::SUCCESS);
        };
        ticket.create(file).map_err(Failure::own)?;
        if output.json {
            let addresses = ticket.addresses().iter().map(ToString::to_string).collect();
            output.value(&Row {
                swarm: ticket.swarm(),
                private: ticket.is_private(),
                addresses,
                expires,
                labels: ticket.labels(),
                issuer: ticket.issuer().map(|issuer| issuer.to_string()),
                file: file.display().to_string(),
            })?;
        } else {
            let count = ticket.addresses().len();
            let until = expires.map_or_else(|| "for ever".to_owned(), |time| format!("until {time}"));
            style::note(
                style::DIM,
                "written:",
                &format!("good {until}, with {count} address{}", if count == 1 { "" } else { "es" }),
            );
            if let Some(issuer) = ticket.issuer() {
                style::note(
                    style::DIM,
                    "believed by:",
                    &format!("nodes that are started with it, or with --trust {issuer}"),
                );
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Its end can still be written as a date, which has a year of four digits.
const LONGEST: Duration = Duration::from_secs(1000 * 365 * 86_400);

fn lifetime(text: &str) -> Result<Lifetime, String> {
    if text == "never" {
        return Ok(Lifetime(None));
    }
    match humantime::parse_duration(text) {
        Ok(length) if length.as_secs() == 0 => Err("a ticket is good for at least 1s".to_owned()),
        Ok(length) if length > LONGEST => Err("a ticket is good for at most 1000 years, or `never` expires".to_owned()),
        Ok(length) => Ok(Lifetime(Some(length))),
        Err(error) => Err(error.to_string()),
    }
}

const NO_JSON: &str =
    "a ticket has the secret in it, which is never shown as JSON: name a file for it with `--out FILE`";
