//! What came of it all, by worker: on stderr, for stdout has the outcomes.

use std::{
    io::Write,
    time::{Duration, Instant},
};

use multinodes::{ItemErrorKind, MapStatus, Outcome, WorkerStatus};
use serde::Serialize;

use crate::cli::{
    bar::number,
    duration::milliseconds,
    output::shown,
    style,
    table::{Column, Table},
};

/// What was counted so far.
#[derive(Debug)]
pub(crate) struct Tally {
    pub(crate) begin: Instant,
    pub(crate) items: u64,
    pub(crate) failed: u64,
    pub(crate) poisoned: u64,
    /// Failed items that may have run, where none may run twice.
    pub(crate) may_have_run: u64,
    pub(crate) recorded: u64,
    /// Items that were run more than once.
    pub(crate) repeated: u64,
}

/// The summary as JSON.
#[derive(Debug, Serialize)]
struct Summary<'a> {
    event: &'static str,
    complete: bool,
    items: u64,
    succeeded: u64,
    failed: u64,
    poisoned: u64,
    may_have_run: u64,
    repeated: u64,
    recorded: u64,
    seconds: f64,
    per_second: f64,
    workers: Vec<WorkerRow<'a>>,
}

/// One worker of a summary as JSON.
#[derive(Debug, Serialize)]
pub(crate) struct WorkerRow<'a> {
    node: &'a str,
    peer_id: String,
    slots: u32,
    done: u64,
    failed: u64,
    lost: u64,
    share: f64,
    mean_ms: Option<f64>,
}

impl Tally {
    pub(crate) fn new() -> Self {
        Self { begin: Instant::now(), items: 0, failed: 0, poisoned: 0, may_have_run: 0, recorded: 0, repeated: 0 }
    }

    pub(crate) fn count<R>(&mut self, outcome: &Outcome<R>) {
        self.items += 1;
        self.recorded += u64::from(outcome.recorded);
        self.repeated += u64::from(outcome.attempts > 1 && !outcome.recorded);
        if let Err(error) = &outcome.result {
            self.failed += 1;
            self.poisoned += u64::from(error.kind == ItemErrorKind::Poisoned);
            self.may_have_run += u64::from(error.kind == ItemErrorKind::MayHaveRun);
        }
    }

    /// Prints the summary. `complete`: all items of the input have their outcomes.
    pub(super) fn print(&self, status: &MapStatus, complete: bool, json: bool, width: Option<usize>) {
        let mut stderr = anstream::stderr().lock();
        // Nobody is hurt if nobody reads it.
        let _ = if json {
            serde_json::to_string(&self.summary(status, complete))
                .map_or(Ok(()), |line| writeln!(stderr, "{}", shown(&line)))
        } else if status.workers.is_empty() {
            writeln!(stderr, "{}", self.line())
        } else {
            writeln!(stderr, "{}\n{}", table(&status.workers).render(width, 0), self.line())
        };
    }

    fn summary<'a>(&self, status: &'a MapStatus, complete: bool) -> Summary<'a> {
        let seconds = self.begin.elapsed().as_secs_f64();
        Summary {
            event: "summary",
            complete,
            items: self.items,
            succeeded: self.items - self.failed,
            failed: self.failed,
            poisoned: self.poisoned,
            may_have_run: self.may_have_run,
            repeated: self.repeated,
            recorded: self.recorded,
            seconds: round(seconds),
            per_second: round(self.run() as f64 / seconds.max(f64::EPSILON)),
            workers: rows(&status.workers),
        }
    }

    /// How many were run now.
    fn run(&self) -> u64 {
        self.items.saturating_sub(self.recorded)
    }

    /// The whole in one line.
    fn line(&self) -> String {
        let time = self.begin.elapsed();
        let rate = number(self.run() as f64 / time.as_secs_f64().max(f64::EPSILON));
        let items = if self.items == 1 { "item" } else { "items" };
        let mut line = format!("{} {items} in {} ({rate}/s), {} failed", self.items, took(time), self.failed);
        let more = [
            (self.poisoned, "of them poisoned"),
            (self.may_have_run, "of them may have run"),
            (self.repeated, "run again"),
            (self.recorded, "recorded before"),
        ];
        for (count, what) in more {
            if count > 0 {
                line += &format!(", {count} {what}");
            }
        }
        line
    }
}

/// Who did how much.
pub(crate) fn table(workers: &[WorkerStatus]) -> Table {
    let mut table = Table::new([
        Column::elastic("WORKER", 8),
        Column::number("SLOTS"),
        Column::number("DONE"),
        Column::number("FAILED"),
        Column::number("LOST"),
        Column::number("SHARE"),
        Column::number("MEAN TIME"),
    ]);
    for row in rows(workers) {
        let marked = |count: u64, mark| (if count > 0 { mark } else { style::DIM }, count.to_string());
        table.row([
            (style::NODE, row.node.to_owned()),
            (style::PLAIN, row.slots.to_string()),
            (style::PLAIN, row.done.to_string()),
            marked(row.failed, style::BAD),
            marked(row.lost, style::WARN),
            (style::PLAIN, format!("{:.0}%", row.share * 100.0)),
            (style::DIM, row.mean_ms.map_or_else(|| "-".to_owned(), |mean| format!("{mean:.1} ms"))),
        ]);
    }
    table
}

/// The workers in order of their names, those that have done nothing as well.
pub(crate) fn rows(workers: &[WorkerStatus]) -> Vec<WorkerRow<'_>> {
    let all: u64 = workers.iter().map(|worker| worker.done).sum();
    let mut workers: Vec<_> = workers.iter().collect();
    workers.sort_by(|a, b| (&a.node, a.peer_id).cmp(&(&b.node, b.peer_id)));
    workers.into_iter().map(|worker| row(worker, all)).collect()
}

fn row(worker: &WorkerStatus, all: u64) -> WorkerRow<'_> {
    let answered = worker.done + worker.failed;
    WorkerRow {
        node: &worker.node,
        peer_id: worker.peer_id.to_string(),
        slots: worker.slots,
        done: worker.done,
        failed: worker.failed,
        lost: worker.lost,
        share: round(worker.done as f64 / all.max(1) as f64),
        mean_ms: (answered > 0).then(|| round(milliseconds(worker.busy) / answered as f64)),
    }
}

fn took(time: Duration) -> String {
    if time < Duration::from_secs(1) {
        format!("{} ms", time.as_millis())
    } else {
        format!("{:.1} s", time.as_secs_f64())
    }
}

fn round(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}
