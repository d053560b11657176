//! `multinodes map APP ACTION`.

mod files;
mod input;
mod output;
pub(super) mod summary;
mod work;

use std::{path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use clap::Args;
use multinodes::Payload;
use tokio::sync::oneshot;

use self::{
    files::Files,
    input::{Format, Input, Reading},
    output::Outcomes,
    work::{Recorded, Work},
};
use super::{
    bar::Bar,
    choice::{Choice, Chosen},
    duration::some_time,
    failure::Failure,
    options::Settings,
    output::Output,
    session::Session,
    signals::Signals,
    style,
};

/// Run an action on each line of an input, spread over all hosts of the application
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct Map {
    /// The application
    #[arg(value_name = "APP")]
    application: String,

    /// The action
    action: String,

    /// Where the items are, one a line [default: stdin, as with `-`]
    #[arg(long = "in", value_name = "FILE")]
    input: Option<PathBuf>,

    /// Where the outcomes go; what was in it is replaced [default: stdout, as with `-`]
    #[arg(long = "out", value_name = "FILE")]
    output: Option<PathBuf>,

    /// Each line is a text, not JSON
    #[arg(long, conflicts_with = "spread")]
    lines: bool,

    /// Each line is a JSON array: the arguments of the action
    #[arg(long)]
    spread: bool,

    /// Give the outcomes in the order of the items
    #[arg(long)]
    ordered: bool,

    /// Record each outcome in this file, and go on where it ends when it is run again
    #[arg(long, value_name = "FILE")]
    journal: Option<PathBuf>,

    /// Run those again that the journal has as failed, but not those that may have run
    #[arg(long, requires = "journal")]
    retry_failed: bool,

    /// Run those again that may have run, as the journal of a map with --at-most-once says
    #[arg(long, requires_all = ["journal", "at_most_once"])]
    retry_unknown: bool,

    /// How often an item is run again after its worker was lost
    #[arg(long, value_name = "N", default_value_t = multinodes::map::DEFAULT_RETRIES)]
    retries: u32,

    /// How often an item is run again after the application said that it failed
    #[arg(long, value_name = "N", default_value_t = 0)]
    retry_errors: u32,

    /// After so many workers that broke under an item it is set aside
    #[arg(long, value_name = "N", default_value_t = multinodes::map::DEFAULT_POISON_AFTER)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    poison_after: u32,

    /// How long a worker may be silent about an item before another one gets it [default: 60s]
    #[arg(long, value_name = "TIME", value_parser = some_time)]
    lease: Option<Duration>,

    /// How long one attempt at an item may take in all [default: no limit]
    #[arg(long, value_name = "TIME", value_parser = some_time)]
    item_timeout: Option<Duration>,

    /// How many items lie ready with each worker beside those it works on [default: work for 5ms]
    #[arg(long, value_name = "N")]
    prefetch: Option<usize>,

    /// How long to wait while no worker takes anything [default: 60s]
    #[arg(long, value_name = "TIME", value_parser = some_time)]
    patience: Option<Duration>,

    /// Running an item twice does no harm: those that take long near the end are begun a second time elsewhere
    #[arg(long, conflicts_with = "at_most_once")]
    idempotent: bool,

    /// Never run an item a second time that may have run; with --journal over all runs of the command, whatever ends them.
    /// Not together with --retry-errors, which runs items again that have run
    #[arg(long, conflicts_with = "retry_errors")]
    at_most_once: bool,

    #[command(flatten)]
    choice: Choice,
}

const HELP: &str = "\
Each line of the input is one item: a JSON value, the action's one argument. Empty lines are skipped, but are items with \
--lines. At a line that is not an item the input ends: what was read before is run, and the exit code is 2.

Each outcome is one line of JSON: {\"index\",\"input\",\"result\",\"node\",\"attempts\",\"ms\"}, or with \"error\" in \
place of \"result\": {\"kind\",\"code\",\"message\",\"data\",\"failures\"}. With --journal the same command goes on \
where it stopped, whatever had stopped it, and writes the whole output again: \"recorded\" says what was not run again.

With --at-most-once as well, that an item is begun is on disk before it is sent. What was under way when a worker or the \
command itself was lost fails with the kind \"may_have_run\", and is run again only with --retry-unknown. A journal is \
begun with --at-most-once or without it, and stays so.

stderr has a progress bar if it is a terminal, and a summary by worker; with --json the summary is one JSON object. \
--timeout is for finding the first worker. Exit codes: 0 all done, 1 an item failed or nobody takes them, 2 usage or a \
failure of our own, 3 an item may have run (--at-most-once).

  seq 1000 | multinodes map worker square > squares.jsonl
  multinodes map resize run --lines --in names.txt --out out.jsonl --journal j";

impl Map {
    pub(crate) async fn run(self, settings: Settings, output: Output) -> Result<ExitCode, Failure> {
        let chosen = self.choice.clone().settle()?;
        let interrupt = interrupts()?;
        let (input, output_file) = (self.input.as_deref(), self.output.as_deref());
        Files { input, output: output_file, journal: self.journal.as_deref() }.check()?;
        let input = Input::open(self.input.as_deref())?;
        let outcomes = Outcomes::open(self.output.as_deref(), self.spread)?;
        // Neither log lines nor what a person types go together with a bar.
        let typed = input.is_typed();
        if typed {
            style::note(style::DIM, "reading:", "items from this terminal, one a line; Ctrl-D ends them");
        }
        let bar = if settings.verbose == 0 && !typed { Bar::new() } else { None };
        let timeout = settings.timeout;
        Session::open(settings)
            .await?
            .with(async |session| {
                let (map, reading) = self.begin(session, &chosen, input);
                let work = Work::new(map, reading, outcomes, bar, timeout);
                let recorded = if self.retry_failed { Recorded::RunAgain } else { Recorded::Kept };
                work.run(interrupt, session, output, self.journal.as_ref().map(|_| recorded)).await
            })
            .await
    }

    fn begin(&self, session: &Session, chosen: &Chosen, input: Input) -> (multinodes::Map<Payload>, Arc<Reading>) {
        let format = match (self.lines, self.spread) {
            (true, _) => Format::Text,
            (_, true) => Format::Arguments,
            _ => Format::Json,
        };
        let mut target = chosen.target(&session.node, &self.application);
        if self.idempotent {
            target = target.idempotent();
        }
        let (items, reading) = input.read(format);
        let mut map = target.map_raw(&self.action, items).only_json();
        map = map.retries(self.retries).retry_errors(self.retry_errors).poison_after(self.poison_after);
        if self.ordered {
            map = map.ordered();
        }
        if self.at_most_once {
            map = map.at_most_once();
        }
        if let Some(lease) = self.lease {
            map = map.lease(lease);
        }
        if let Some(timeout) = self.item_timeout {
            map = map.item_timeout(timeout);
        }
        if let Some(items) = self.prefetch {
            map = map.prefetch(items);
        }
        if let Some(patience) = self.patience {
            map = map.patience(patience);
        }
        if let Some(journal) = &self.journal {
            map = map.journal(journal);
        }
        if self.retry_failed {
            map = map.retry_failed();
        }
        if self.retry_unknown {
            map = map.retry_unknown();
        }
        (map, reading)
    }
}

/// The first signal, told to who asks. The second one ends it at once, and so does time, even while nobody reads our
/// output and it is stuck there.
fn interrupts() -> Result<oneshot::Receiver<u8>, Failure> {
    let mut signals = Signals::take()?;
    let (respond_to, interrupt) = oneshot::channel();
    tokio::spawn(async move {
        let signal = signals.next().await;
        let _ = respond_to.send(signal);
        let signal = tokio::time::timeout(LAST_WORDS, signals.next()).await.unwrap_or(signal);
        std::process::exit(128 + i32::from(signal));
    });
    Ok(interrupt)
}

/// How long an interrupted map tries to get its last lines out.
const LAST_WORDS: Duration = Duration::from_secs(3);
