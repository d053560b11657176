//! `multinodes map APP ACTION`.

mod input;
mod output;
pub(super) mod summary;
mod value;

use std::{
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use clap::Args;
use futures::{FutureExt, StreamExt};
use multinodes::{CallError, MapError, MapStatus, Outcome};
use tokio::{
    sync::{oneshot, watch},
    time::MissedTickBehavior,
};

use self::{
    input::{Format, Input, Reading, resolved},
    output::Outcomes,
    summary::Tally,
    value::Json,
};
use super::{
    bar::{Bar, Position},
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

    /// Run those again that the journal has as failed
    #[arg(long, requires = "journal")]
    retry_failed: bool,

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
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    lease: Option<Duration>,

    /// How long one attempt at an item may take in all [default: no limit]
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    item_timeout: Option<Duration>,

    /// How many items lie ready with each worker beside those it works on [default: work for 5ms]
    #[arg(long, value_name = "N")]
    prefetch: Option<usize>,

    /// How long to wait while no worker takes anything [default: 60s]
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    patience: Option<Duration>,

    /// Running an item twice does no harm: those that take long near the end are begun a second time elsewhere
    #[arg(long, conflicts_with = "at_most_once")]
    idempotent: bool,

    /// Never run an item a second time that may have run
    #[arg(long)]
    at_most_once: bool,

    /// Only on this node, by name or peer id
    #[arg(long, value_name = "NODE")]
    node: Option<String>,
}

const HELP: &str = "\
Each line of the input is one item: a JSON value, the action's one argument. Empty lines are skipped, but are items with \
--lines. At a line that is not an item the input ends: what was read before is run, and the exit code is 2.

Each outcome is one line of JSON: {\"index\",\"input\",\"result\",\"node\",\"attempts\",\"ms\"}, or with \"error\" in \
place of \"result\": {\"kind\",\"code\",\"message\",\"data\",\"failures\"}. With --journal the same command goes on \
where it stopped, whatever had stopped it, and writes the whole output again: \"recorded\" says what was not run again.

stderr has a progress bar if it is a terminal, and a summary by worker; with --json the summary is one JSON object. \
--timeout is for finding the first worker. Exit codes: 0 all done, 1 an item failed or nobody takes them, 2 usage or a \
failure of our own.

  seq 1000 | multinodes map worker square > squares.jsonl
  multinodes map resize run --lines --in pictures.txt --out sizes.jsonl --journal sizes.journal";

impl Map {
    pub(crate) async fn run(self, settings: Settings, output: Output) -> Result<ExitCode, Failure> {
        let interrupt = interrupts()?;
        self.check_files()?;
        let input = Input::open(self.input.as_deref())?;
        let outcomes = Outcomes::open(self.output.as_deref(), self.spread)?;
        // Log lines and a bar do not go together.
        let bar = if settings.verbose == 0 { Bar::new() } else { None };
        let timeout = settings.timeout;
        Session::open(settings)
            .await?
            .with(async |session| {
                let (map, reading) = self.begin(session, input);
                let status = map.status();
                let tally = Tally::new();
                let mut work =
                    Work { map, status, reading, outcomes, bar, tally, timeout, searching: None, told: Instant::now() };
                let result = work.run(interrupt, session).await;
                work.end(result, output, self.journal.is_some())
            })
            .await
    }

    /// An input that is emptied before it is read would be lost, and so would a journal.
    fn check_files(&self) -> Result<(), Failure> {
        let files = [("--in", &self.input), ("--out", &self.output), ("--journal", &self.journal)];
        let files = files.map(|(flag, path)| (flag, path.as_deref().filter(|path| path.is_file()).map(resolved)));
        for (index, (flag, path)) in files.iter().enumerate() {
            let same = files[..index].iter().find(|(_, other)| path.is_some() && other == path);
            if let (Some((other, _)), Some(path)) = (same, path) {
                return Err(Failure::own(format_args!("{other} and {flag} are the same file, `{}`", path.display())));
            }
        }
        Ok(())
    }

    fn begin(&self, session: &Session, input: Input) -> (multinodes::Map<Json>, Arc<Reading>) {
        let format = match (self.lines, self.spread) {
            (true, _) => Format::Text,
            (_, true) => Format::Arguments,
            _ => Format::Json,
        };
        let mut target = session.node.app(&self.application);
        if let Some(node) = &self.node {
            target = target.on(node.as_str());
        }
        if self.idempotent {
            target = target.idempotent();
        }
        let (items, reading) = input.read(format);
        let mut map = target.map(&self.action, items);
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
        (if self.retry_failed { map.retry_failed() } else { map }, reading)
    }
}

/// A map under way.
struct Work {
    map: multinodes::Map<Json>,
    status: watch::Receiver<MapStatus>,
    reading: Arc<Reading>,
    outcomes: Outcomes,
    bar: Option<Bar>,
    tally: Tally,
    /// How long the first worker may be looked for.
    timeout: Duration,
    /// Since when it is.
    searching: Option<Instant>,
    /// When the log was told last how far it is.
    told: Instant,
}

impl Work {
    /// Writes the outcomes as they come, until there are no more.
    async fn run(&mut self, mut interrupt: oneshot::Receiver<u8>, session: &Session) -> Result<(), Failure> {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let outcome = match self.map.next().now_or_never() {
                Some(outcome) => outcome,
                None => {
                    // Nothing more is ready: whoever watches the output sees what there is.
                    self.write()?;
                    tokio::select! {
                        outcome = self.map.next() => outcome,
                        Ok(signal) = &mut interrupt => return self.on_interrupt(signal).await,
                        _ = ticks.tick() => {
                            self.on_tick(session)?;
                            continue;
                        }
                    }
                }
            };
            match outcome {
                Some(Ok(outcome)) => self.on_outcome(&outcome)?,
                // A journal that misses what follows a broken line is not of another input.
                Some(Err(error)) => return Err(self.reading.failure().unwrap_or_else(|| failure(&error, session))),
                None => return self.reading.failure().map_or(Ok(()), Err),
            }
        }
    }

    fn on_outcome(&mut self, outcome: &Outcome<Json>) -> Result<(), Failure> {
        self.tally.count(outcome);
        if self.outcomes.push(outcome)? { self.write() } else { Ok(()) }
    }

    /// What is ready is written; what runs is called off when the map is dropped.
    async fn on_interrupt(&mut self, signal: u8) -> Result<(), Failure> {
        // The summary shows the workers as they are now, not as they were a while ago.
        self.status.mark_unchanged();
        let _ = tokio::time::timeout(2 * TICK, self.status.changed()).await;
        for _ in 0..READY {
            match self.map.next().now_or_never() {
                Some(Some(Ok(outcome))) => self.on_outcome(&outcome)?,
                _ => break,
            }
        }
        Err(Failure::Interrupted(signal))
    }

    fn on_tick(&mut self, session: &Session) -> Result<(), Failure> {
        let (now, position) = (Instant::now(), self.position());
        if let Some(bar) = &mut self.bar {
            bar.draw(position, now);
        }
        if now > self.told + TELL {
            self.told = now;
            let Position { done, total, failed, workers } = position;
            tracing::info!(done, total, failed, workers, "under way");
        }
        let searches = self.tally.items == 0 && self.reading.items() > 0 && self.status.borrow().workers.is_empty();
        let since = searches.then(|| *self.searching.get_or_insert(now));
        if since.is_some_and(|since| now > since + self.timeout) {
            let reason = format!("no worker was found within {:?}", self.timeout);
            return Err(Failure::negative(format_args!("{reason}; {}", session.hint())));
        }
        Ok(())
    }

    fn position(&self) -> Position {
        let status = self.status.borrow();
        let workers = status.workers.iter().filter(|worker| worker.present).count();
        Position { done: self.tally.items, total: self.reading.total(), failed: self.tally.failed, workers }
    }

    /// Writes what there is, and not into the bar if that is on the same terminal.
    fn write(&mut self) -> Result<(), Failure> {
        if !self.outcomes.has_something() {
            return Ok(());
        }
        let Some(bar) = self.bar.as_mut().filter(|_| self.outcomes.is_stdout()) else { return self.outcomes.flush() };
        bar.clear();
        self.outcomes.flush()?;
        bar.redraw();
        Ok(())
    }

    /// The last lines, the summary, and what the exit code is.
    fn end(mut self, result: Result<(), Failure>, output: Output, journal: bool) -> Result<ExitCode, Failure> {
        // An output that has failed once is not tried again.
        let result = match result {
            Err(Failure::Unread) => Err(Failure::Unread),
            Ok(()) => self.outcomes.flush(),
            Err(failure) => self.write().and(Err(failure)),
        };
        drop(self.bar.take());
        if matches!(result, Err(Failure::Unread)) {
            return Err(Failure::Unread);
        }
        if result.is_ok() || self.tally.items > 0 {
            let width = terminal_size::terminal_size_of(std::io::stderr()).map(|(width, _)| usize::from(width.0));
            self.tally.print(&self.status.borrow(), result.is_ok(), output.json, width);
        }
        if let (Err(Failure::Interrupted(_)), true) = (&result, journal) {
            style::note(style::WARN, "interrupted:", "the same command goes on from the journal");
        }
        result.map(|()| if self.tally.failed > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }
}

/// Why a map has ended, with the exit code that its cause has: out of time is none of them.
fn failure(error: &MapError, session: &Session) -> Failure {
    match error {
        MapError::NoWorker(CallError::NotReady { .. }) => Failure::negative(session.hint()),
        MapError::NoWorker(_) => Failure::negative(format_args!("{error}; {}", session.hint())),
        error => Failure::own(error),
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

/// How often the bar is drawn.
const TICK: Duration = Duration::from_millis(100);

/// How often the log is told how far it is.
const TELL: Duration = Duration::from_secs(10);

/// Outcomes that lie ready at the most when it is interrupted: four batches of 256, and one that is read.
const READY: usize = 5 * 256;

/// How long an interrupted map tries to get its last lines out.
const LAST_WORDS: Duration = Duration::from_secs(3);
