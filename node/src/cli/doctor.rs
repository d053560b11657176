//! `multinodes doctor`.

mod addresses;
mod clock;
mod dialling;
mod folder;
mod host;
mod identity;
mod multicast;
mod report;
mod versions;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::Args;
use multinodes::diagnosis::{self, Diagnosis, Overheard};

use self::{
    dialling::Dialled,
    report::{Check, Finding, Report},
};
use super::{
    failure::Failure,
    options::{Settings, given},
    output::Output,
    session::Session,
};

/// Look for what does not work, and say what to do about it
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Doctor {
    /// Where a node is to listen: is it free? May be repeated
    #[arg(long, value_name = "MULTIADDR", env = "MULTINODES_LISTEN", hide_env = true, value_delimiter = ',')]
    listen: Vec<String>,

    /// The file with a node's key: can it be used?
    #[arg(long, value_name = "FILE", env = "MULTINODES_IDENTITY", hide_env = true)]
    identity: Option<PathBuf>,
}

impl Doctor {
    pub(crate) async fn run(self, settings: Settings, output: Output) -> Result<ExitCode, Failure> {
        let mut report = Report::new(output);
        report.tell(host::open_files())?;
        report.tell(host::entry(&settings.entry))?;
        let diagnosis = match Diagnosis::of(settings.builder().passive(true)) {
            Ok(diagnosis) => diagnosis,
            Err(error) => {
                report.tell([unusable(&error.to_string())])?;
                return report.finish();
            }
        };
        // Before a node starts: it would make the folder.
        let inspection = diagnosis.rendezvous();
        if settings.runtime_dir.is_none() && inspection.is_some() {
            report.tell(folder::elsewhere(diagnosis::unusable_runtime()))?;
        }
        report.tell(folder::state(inspection.as_ref()))?;
        match Session::open(settings.clone()).await {
            Ok(session) => {
                let patient = Patient { settings, diagnosis, inspection };
                session.with(async |session| self.examine(session, &patient, &mut report).await).await?;
            }
            Err(failure) => report.tell([unusable(&failure.to_string())])?,
        }
        report.finish()
    }

    /// Says what is wrong with the settings: without them nothing else can be looked at.
    pub(crate) fn on_bad_settings(failure: &Failure, output: Output) -> Result<ExitCode, Failure> {
        let mut report = Report::new(output);
        report.tell([unusable(&failure.to_string())])?;
        report.finish()
    }

    async fn examine(&self, session: &Session, patient: &Patient, report: &mut Report) -> Result<(), Failure> {
        let settings = &patient.settings;
        let (multicast, overheard, ()) = tokio::join!(
            multicast::findings(settings.mdns, &settings.interfaces),
            overhear(settings),
            session.settle()
        );
        report.tell(multicast)?;
        report.tell(multicast::answers(settings.mdns, &overheard))?;

        let nodes: Vec<_> = session.node.nodes().into_iter().filter(|node| !node.local).collect();
        report.tell([addresses::nodes(session, &nodes)])?;
        report.tell(addresses::advertised(&nodes))?;
        let notes = patient.inspection.as_ref().map(|inspection| &inspection.notes[..]).unwrap_or_default();
        let listen = given(self.listen.clone()).or_else(|| settings.start.listen.clone()).unwrap_or_default();
        report.tell(addresses::wanted(&listen, &nodes, notes))?;

        let limit = settings.timeout.min(DIAL_LIMIT);
        let joins = patient.diagnosis.joins().await;
        let (targets, left_out) = dialling::targets(&nodes, notes, &overheard.found, &joins);
        let dialled = dialling::dial(&patient.diagnosis, targets, limit).await;
        let Dialled { findings, answers } = dialling::judge(dialled, settings.entry.is_private(), nodes.is_empty());
        report.tell(dialling::unresolved(&joins))?;
        report.tell(findings)?;
        report.tell(dialling::unfinished(left_out))?;

        let file = self.identity.as_ref().or(settings.start.identity.as_ref());
        report.tell(file.map(|path| identity::file(path, &nodes)))?;
        report.tell(identity::names(&nodes))?;
        let shared = identity::shared(session, &nodes, limit).await;
        // A node may have been started again since.
        let fresh = patient.diagnosis.rendezvous().map(|inspection| inspection.notes).unwrap_or_default();
        report.tell(identity::clashes(&answers, &nodes, &fresh, &shared))?;
        report.tell(shared)?;
        report.tell(clock::findings(session, &nodes, limit).await)?;
        report.tell(versions::findings(&nodes))
    }
}

/// What is looked at.
struct Patient {
    settings: Settings,
    diagnosis: Diagnosis,
    inspection: Option<diagnosis::Inspection>,
}

fn unusable(reason: &str) -> Finding {
    let remedy = "correct what is named, on the command line, in the environment or in `multinodes.toml`";
    Finding::failure(Check::Settings, "settings", reason, remedy)
}

async fn overhear(settings: &Settings) -> Overheard {
    match settings.mdns {
        true => diagnosis::overhear(LISTENING, settings.interfaces.clone()).await,
        false => Overheard::default(),
    }
}

/// Somebody on the LAN answers within milliseconds, or after one repeated question.
const LISTENING: Duration = Duration::from_millis(1_500);

/// What takes longer to dial is of no use for calls: one lost packet is made good for by then.
const DIAL_LIMIT: Duration = Duration::from_secs(3);

const EXAMPLES: &str = "\
Examples:
  multinodes doctor                                  this host, and every node
  multinodes doctor --join 192.0.2.7:4001            why joining does not work
  multinodes doctor --listen /ip4/0.0.0.0/tcp/4001   can a node listen there?
  multinodes doctor --json | jq 'select(.verdict != \"ok\")'

Looked at: settings, limits, the rendezvous folder, which interfaces are used, multicast out and in on each of them, where nodes \
listen, each address of each node by a dial of its own, identities, clocks, versions. Each line is ok, a warning or a failure, with \
the remedy below. With --json one object per line: check, subject, verdict, text, remedy.

Exit codes: 0 all is ok, 1 there are warnings, 3 there are failures, 2 usage or a failure of our own.";
