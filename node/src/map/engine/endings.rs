//! What an attempt that is over means for its item: an outcome, or another attempt.

use std::time::Instant;

use super::{
    super::{
        durable::Durable,
        items::{Item, Running},
        outcome::{Attempt, ItemError, ItemErrorKind, MapError, Outcome},
        verdict::{Failure, Verdict},
        workers::{Report, WorkerId},
    },
    Engine,
};
use crate::{call_error::CallError, payload::Payload};

impl Engine {
    pub(super) fn on_outcome(&mut self, index: u64, running: Running, outcome: Result<Payload, CallError>) {
        match outcome {
            Ok(payload) => {
                let now = Instant::now();
                let took = now - running.sent;
                (self.active, self.refused) = (now, None);
                self.workers.end(running.worker, Report::Done, took, running.taken, now);
                self.stragglers.note(took);
                self.end_item(index, Ok(payload), running.worker);
            }
            Err(error) => {
                // A worker that breaks at once may not have said any more that an item's turn had come: who is suspected
                // already does not get the benefit of the doubt.
                let suspect = self.items.find(index).is_some_and(|item| item.is_suspect());
                let waiting = running.pulse.last().1 && !suspect;
                self.on_failure(index, &running, Failure::Call(error), waiting);
            }
        }
    }

    pub(super) fn on_failure(&mut self, index: u64, running: &Running, failure: Failure, waiting: bool) {
        let now = Instant::now();
        let took = now - running.sent;
        let (verdict, report) = failure.verdict(waiting);
        self.workers.end(running.worker, report, took, running.taken, now);
        let Some(item) = self.items.find(index) else { return };
        item.may_have_run |= failure.may_have_run();
        if let Failure::Call(error) = &failure {
            self.last_failure = Some(error.clone());
        }
        if verdict == Verdict::Return {
            item.attempts = item.attempts.saturating_sub(1);
            // To have an item for a while and refuse it is not to work on it.
            let since = *self.refused.get_or_insert(running.sent);
            if now.saturating_duration_since(since) > self.plan.patience && !self.workers.any_outstanding() {
                return self.give_up();
            }
        } else {
            self.refused = None;
            let host = &self.workers.worker(running.worker).host;
            item.note(Attempt {
                node: host.node.clone(),
                peer_id: host.peer_id,
                code: failure.code().to_owned(),
                message: failure.to_string(),
                duration: took,
            });
        }
        // Another attempt is under way: what becomes of the item is for that one to say.
        let goes_on = !item.running.is_empty();
        match verdict {
            Verdict::Stop => self.end = Some(MapError::Stopped),
            Verdict::Final(kind) => self.fail(index, kind, &failure, running.worker),
            Verdict::Error => {
                item.errors += 1;
                let errors = item.errors;
                if errors > self.plan.retry_errors {
                    self.fail(index, ItemErrorKind::Failed, &failure, running.worker);
                } else if !goes_on {
                    self.items.return_later(index, errors, now);
                }
            }
            Verdict::Return if goes_on => {}
            Verdict::Return if self.workers.any_present() || report != Report::Lacking => {
                self.items.return_soon(index);
            }
            Verdict::Return => self.fail(index, ItemErrorKind::Failed, &failure, running.worker),
            Verdict::Crash | Verdict::Retry => {
                item.losses += 1;
                item.crashes += u32::from(verdict == Verdict::Crash);
                let (losses, crashes) = (item.losses, item.crashes);
                if !self.may_retry(index, losses, crashes, &failure, running.worker) || goes_on {
                } else if losses == 1 {
                    self.items.return_soon(index);
                } else {
                    self.items.return_later(index, losses - 1, now);
                }
            }
        }
    }

    /// Whether an item that was lost may be tried again; if not, it has its outcome.
    fn may_retry(&mut self, index: u64, losses: u32, crashes: u32, failure: &Failure, worker: WorkerId) -> bool {
        let plan = &self.plan;
        let (at_most_once, poison_after, retries) = (plan.at_most_once, plan.poison_after, plan.retries);
        if at_most_once && failure.may_have_run() {
            self.fail(index, ItemErrorKind::MayHaveRun, failure, worker);
        } else if crashes >= poison_after {
            let message = format!("set aside as poisoned: workers broke under it {crashes} times, at last: {failure}");
            let error = ItemError::new(ItemErrorKind::Poisoned, failure.code(), message);
            self.end_item(index, Err(error), worker);
        } else if losses > retries {
            let message = format!("lost {losses} times, at last: {failure}");
            let error = ItemError::new(ItemErrorKind::Exhausted, failure.code(), message);
            self.end_item(index, Err(error), worker);
        } else {
            return true;
        }
        false
    }

    fn fail(&mut self, index: u64, kind: ItemErrorKind, failure: &Failure, worker: WorkerId) {
        let error = match failure {
            Failure::Call(error) => ItemError::of(kind, error),
            failure => ItemError::new(kind, failure.code(), failure),
        };
        self.end_item(index, Err(error), worker);
    }

    /// The item has its outcome; whoever else works on it may stop.
    fn end_item(&mut self, index: u64, result: Result<Payload, ItemError>, worker: WorkerId) {
        let Some(mut item) = self.items.remove(index) else { return };
        // Those that are called off may have run it, too.
        item.may_have_run |= !item.running.is_empty();
        for other in item.running.drain(..) {
            let now = Instant::now();
            self.workers.end(other.worker, Report::CalledOff, now - other.sent, other.taken, now);
        }
        self.conclude(index, item, result, Some(worker));
    }

    pub(super) fn conclude(
        &mut self,
        index: u64,
        item: Item,
        result: Result<Payload, ItemError>,
        worker: Option<WorkerId>,
    ) {
        let host = worker.map(|worker| &self.workers.worker(worker).host);
        let may_have_run = item.may_have_run;
        let result = result.map_err(|error| ItemError { may_have_run: error.may_have_run || may_have_run, ..error });
        let outcome = Outcome {
            index,
            result,
            node: host.map(|host| host.node.clone()),
            peer_id: host.map(|host| host.peer_id),
            attempts: item.attempts,
            duration: item.begun.map(|begun| begun.elapsed()).unwrap_or_default(),
            failures: item.failures,
            recorded: false,
            input: item.payload,
        };
        if let Some(outcome) = self.ledger.record(outcome) {
            self.report(outcome);
        }
    }

    pub(super) fn on_recorded(&mut self, recorded: Result<Vec<Durable>, MapError>) {
        let durable = match recorded {
            Ok(durable) => durable,
            Err(error) => return self.end = Some(error),
        };
        for durable in durable {
            match durable {
                Durable::Outcome(outcome) => self.report(outcome),
                Durable::Begun(index) => self.on_begun(index),
                Durable::Withdrawn => {}
            }
        }
    }

    pub(super) fn report(&mut self, outcome: Outcome<Payload>) {
        self.counts.done += 1;
        self.counts.failed += u64::from(outcome.result.is_err());
        let may_have_run = outcome.result.as_ref().is_err_and(|error| error.kind == ItemErrorKind::MayHaveRun);
        self.counts.may_have_run += u64::from(may_have_run);
        self.counts.recorded += u64::from(outcome.recorded);
        self.reports.push(outcome);
    }
}
