//! A map under way: outcomes are written as they come, whoever watches is told how far it is.

use std::{
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{FutureExt, StreamExt};
use multinodes::{CallError, MapError, MapStatus, Outcome, Payload};
use tokio::{
    sync::{oneshot, watch},
    time::MissedTickBehavior,
};

use super::{input::Reading, output::Outcomes, summary::Tally};
use crate::cli::{
    bar::{Bar, Position},
    failure::Failure,
    output::Output,
    session::Session,
    style,
};

/// What becomes of the failures that a journal has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Recorded {
    /// They stay.
    Kept,
    /// They are run again.
    RunAgain,
}

/// A map under way.
pub(super) struct Work {
    map: multinodes::Map<Payload>,
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
    pub(super) fn new(
        map: multinodes::Map<Payload>,
        reading: Arc<Reading>,
        outcomes: Outcomes,
        bar: Option<Bar>,
        timeout: Duration,
    ) -> Self {
        let (status, tally) = (map.status(), Tally::new());
        Self { map, status, reading, outcomes, bar, tally, timeout, searching: None, told: Instant::now() }
    }

    /// Does it all, until the exit code is known. With a `journal` there is a way to go on.
    pub(super) async fn run(
        mut self,
        interrupt: oneshot::Receiver<u8>,
        session: &Session,
        output: Output,
        journal: Option<Recorded>,
    ) -> Result<ExitCode, Failure> {
        let result = self.take_outcomes(interrupt, session).await;
        self.end(result, output, journal)
    }

    /// Writes the outcomes as they come, until there are no more.
    async fn take_outcomes(&mut self, mut interrupt: oneshot::Receiver<u8>, session: &Session) -> Result<(), Failure> {
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

    fn on_outcome(&mut self, outcome: &Outcome<Payload>) -> Result<(), Failure> {
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
            let Position { done, total, failed, workers, .. } = position;
            tracing::info!(done, total, failed, workers, "under way");
        }
        let searches = self.tally.items == 0 && self.reading.items() > 0 && self.status.borrow().workers.is_empty();
        let since = searches.then(|| *self.searching.get_or_insert(now));
        if since.is_some_and(|since| now.saturating_duration_since(since) > self.timeout) {
            let reason = format!("no worker was found within {}", humantime::format_duration(self.timeout));
            return Err(Failure::negative(format_args!("{reason}; {}", session.hint())));
        }
        Ok(())
    }

    fn position(&self) -> Position {
        let status = self.status.borrow();
        let workers = status.workers.iter().filter(|worker| worker.present).count();
        let Tally { items: done, recorded, failed, .. } = self.tally;
        Position { done, recorded, total: self.reading.total(), failed, workers }
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
    fn end(
        mut self,
        result: Result<(), Failure>,
        output: Output,
        journal: Option<Recorded>,
    ) -> Result<ExitCode, Failure> {
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
        if let (Err(Failure::Interrupted(_)), Some(_)) = (&result, journal) {
            style::note(style::WARN, "interrupted:", "the same command goes on from the journal");
        }
        if let (Ok(()), Some(Recorded::Kept), 1..) = (&result, journal, self.tally.failed) {
            let text = "the journal has them as failed; the same command with --retry-failed runs these again";
            style::note(style::WARN, &format!("{} failed:", self.tally.failed), text);
        }
        result.map(|()| match &self.tally {
            tally if tally.may_have_run > 0 => ExitCode::from(MAY_HAVE_RUN),
            tally if tally.failed > 0 => ExitCode::FAILURE,
            _ => ExitCode::SUCCESS,
        })
    }
}

/// Why a map has ended, with the exit code that its cause has: out of time is none of them, unless nothing is heard any more
/// of those who might have said something.
fn failure(error: &MapError, session: &Session) -> Failure {
    match error {
        MapError::NoWorker(CallError::NotReady { .. }) => Failure::negative(session.hint()),
        MapError::NoWorker(CallError::CutOff { .. }) => Failure::TimedOut(error.to_string()),
        MapError::NoWorker(_) => Failure::negative(format_args!("{error}; {}", session.hint())),
        error => Failure::own(error),
    }
}

/// The exit code if it is not known of an item whether it ran, and it must not run twice.
const MAY_HAVE_RUN: u8 = 3;

/// How often the bar is drawn.
const TICK: Duration = Duration::from_millis(100);

/// How often the log is told how far it is.
const TELL: Duration = Duration::from_secs(10);

/// Outcomes that lie ready at the most when it is interrupted: four batches of 256, and one that is read.
const READY: usize = 5 * 256;
