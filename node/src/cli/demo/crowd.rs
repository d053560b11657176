//! Many items over all workers of the demo, one of whom does not survive it.

use std::time::{Duration, Instant};

use futures::StreamExt;
use multinodes::{Map, Outcome, WorkerStatus};
use serde::{Serialize, Serializer};

use crate::cli::{
    bar::{Bar, Position},
    duration::milliseconds,
    failure::Failure,
    map::summary::{Tally, rows},
};

/// What came of it, as `demo --json` has it.
#[derive(Debug, Serialize)]
pub(super) struct Crowd {
    pub(super) items: u64,
    /// Items that were lost with the one that was killed, and run again.
    pub(super) run_again: u64,
    pub(super) milliseconds: f64,
    #[serde(serialize_with = "by_name")]
    pub(super) workers: Vec<WorkerStatus>,
}

/// Has the squares of the first `items` numbers computed, and does something bad when half of them are there. Each must
/// be there in the end, right and once.
pub(super) async fn crowd(
    mut map: Map<u64>,
    items: u64,
    mut bar: Option<Bar>,
    in_the_middle: impl AsyncFnOnce() -> Result<(), Failure>,
) -> Result<Crowd, Failure> {
    let status = map.status();
    let mut in_the_middle = Some(in_the_middle);
    let mut there: Vec<bool> = (0..items).map(|_| false).collect();
    let mut tally = Tally::new();
    let mut ticks = tokio::time::interval(TICK);
    loop {
        let outcome = tokio::select! {
            outcome = map.next() => match outcome {
                Some(outcome) => outcome.map_err(Failure::negative)?,
                None => break,
            },
            _ = ticks.tick() => {
                if let Some(bar) = &mut bar {
                    let workers = status.borrow().workers.iter().filter(|worker| worker.present).count();
                    let position = Position { done: tally.items, recorded: 0, total: Some(items), failed: tally.failed, workers };
                    bar.draw(position, Instant::now());
                }
                continue;
            }
        };
        check(&outcome, &mut there)?;
        tally.count(&outcome);
        if let Some(in_the_middle) = in_the_middle.take_if(|_| tally.items * 2 >= items) {
            in_the_middle().await?;
        }
    }
    if tally.items != items {
        return Err(Failure::negative(format_args!("{} of {items} items have an outcome", tally.items)));
    }
    let workers = status.borrow().workers.clone();
    let milliseconds = milliseconds(tally.begin.elapsed());
    Ok(Crowd { items, run_again: tally.repeated, milliseconds, workers })
}

/// Holds an outcome against what it must be.
fn check(outcome: &Outcome<u64>, there: &mut [bool]) -> Result<(), Failure> {
    let index = outcome.index;
    let place = usize::try_from(index).ok().and_then(|index| there.get_mut(index));
    let place = place.ok_or_else(|| Failure::negative(format_args!("there is no item {index}")))?;
    if std::mem::replace(place, true) {
        return Err(Failure::negative(format_args!("item {index} has two outcomes")));
    }
    match &outcome.result {
        Ok(square) if *square == index * index => Ok(()),
        Ok(wrong) => Err(Failure::negative(format_args!("the square of {index} is not {wrong}"))),
        Err(error) => Err(Failure::negative(format_args!("item {index} failed: {error}"))),
    }
}

fn by_name<S: Serializer>(workers: &[WorkerStatus], serializer: S) -> Result<S::Ok, S::Error> {
    rows(workers).serialize(serializer)
}

/// How often the bar is drawn.
const TICK: Duration = Duration::from_millis(50);
