//! What takes too long: leases that are over, and stragglers.

use std::time::Instant;

use super::{super::verdict::Failure, Engine};

impl Engine {
    // What takes too long.

    /// Calls off what nothing was heard of for a whole lease.
    pub(super) fn end_silent(&mut self, now: Instant) {
        let lease = self.plan.lease;
        let mut looked = Vec::new();
        for (index, item) in self.items.iter() {
            for running in &item.running {
                let (when, waiting) = running.pulse.last();
                looked.push((index, running.serial, running.worker, when, waiting));
            }
        }
        for &(_, _, worker, when, _) in &looked {
            let worker = self.workers.worker_mut(worker);
            worker.heard = worker.heard.max(when);
        }
        for (index, serial, worker, when, waiting) in looked {
            // What waits for its turn is not to blame as long as its worker goes on with others.
            let heard = if waiting { when.max(self.workers.worker(worker).heard) } else { when };
            if self.pauses.since(heard, now) > lease {
                self.call_off(index, serial, Failure::Silent(lease), waiting);
            }
        }
    }

    fn call_off(&mut self, index: u64, serial: u64, failure: Failure, waiting: bool) {
        if let Some(running) = self.items.take_running((index, serial)) {
            self.on_failure(index, &running, failure, waiting);
        }
    }

    /// Begins what takes much longer than the others a second time, on workers that have nothing else to do.
    pub(super) fn double_stragglers(&mut self, now: Instant) {
        if self.items.any_waits() || !self.workers.has_idle_slot(now) {
            return;
        }
        for (index, first) in self.stragglers.find(&self.items, now) {
            let Some(worker) = self.workers.take_beside(first, now) else { return };
            self.begin(index, worker, false, now);
        }
    }
}
