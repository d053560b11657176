//! Who works: how much each worker has, how much it may have, and whether it is trusted just now.
//!
//! Pure: no clock and no network, the time is an argument.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use libp2p::PeerId;
use multinodes_behaviour::quick_hash::QuickHash;

use super::outcome::WorkerStatus;
use crate::description::Host;

/// Slots of a worker that says nothing of them.
pub const DEFAULT_SLOTS: u32 = 4;

/// More slots than this are not believed: it bounds what is outstanding with one worker.
const MAX_SLOTS: u32 = 4096;

/// So much work lies ready with a worker, so that it need not wait for the next item.
const AHEAD: Duration = Duration::from_millis(5);

/// Work for a longer time than this does not lie ready, however slow a disk is.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// Items that lie ready with one worker at the most.
const MAX_PREFETCH: usize = 1024;

/// How long a worker is left alone that was busy, at first and at the most: it is doubled each time.
const BUSY_REST: [Duration; 2] = [Duration::from_millis(20), Duration::from_millis(500)];

/// How long a worker is left alone that was lost, or silent for a whole lease, at first and at the most.
const LOST_REST: [Duration; 2] = [Duration::from_millis(250), Duration::from_secs(10)];

/// A worker that rests longer than that is not waited for if another one would do.
const SOON: Duration = Duration::from_secs(1);

/// Workers that are known at once. With more, the places of those that are gone are used again.
const MAX_WORKERS: usize = 16_384;

/// A worker's place in the table.
pub(super) type WorkerId = usize;

/// The newest time counts for so much: one in eight.
const WEIGHT: u32 = 8;

/// All workers, and in which order they get items.
pub(super) struct Workers {
    all: Vec<Worker>,
    by_peer: HashMap<PeerId, WorkerId, QuickHash>,
    /// Those that can take an item, in turn. May hold some that no longer can.
    free: VecDeque<WorkerId>,
    /// Items that lie ready with each worker, if it was said.
    prefetch: Option<usize>,
    /// How long an item waits between getting a worker's place and being sent.
    wait: Duration,
}

/// One worker.
pub(super) struct Worker {
    pub(super) host: Arc<Host>,
    slots: usize,
    /// Items with it now.
    outstanding: usize,
    /// Of these, the ones under which a worker has broken before: one at a time.
    suspects: usize,
    /// Smoothed time between two results, were it always busy.
    gap: Option<Duration>,
    present: bool,
    /// It has not got the action.
    lacking: bool,
    rest: Duration,
    resting_until: Option<Instant>,
    /// Silent for a lease: gets one item at a time until it gives a result.
    on_trial: bool,
    /// When anything was heard of its items last.
    pub(super) heard: Instant,
    listed: bool,
    done: u64,
    failed: u64,
    lost: u64,
    busy: Duration,
}

/// How an attempt went, as far as its worker is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Report {
    /// A result.
    Done,
    /// The application says that it failed.
    Failed,
    /// The worker broke, or its connection did.
    Lost,
    /// It was silent for a whole lease.
    Silent,
    /// It cannot be reached, or does not host the application.
    Away,
    /// It takes nothing just now.
    Busy,
    /// It does not know the action.
    Lacking,
    /// The attempt was called off.
    CalledOff,
}

impl Workers {
    pub(super) fn new(prefetch: Option<usize>) -> Self {
        Self {
            all: Vec::new(),
            by_peer: HashMap::default(),
            free: VecDeque::new(),
            prefetch: prefetch.map(|prefetch| prefetch.min(MAX_PREFETCH)),
            wait: Duration::ZERO,
        }
    }

    /// Takes over who is there now.
    pub(super) fn refresh(&mut self, hosts: &[Arc<Host>], now: Instant) {
        for worker in &mut self.all {
            worker.present = false;
        }
        for host in hosts {
            let known = self.by_peer.get(&host.peer_id).copied();
            let Some(id) = known.or_else(|| self.admit(host, now)) else { continue };
            let worker = &mut self.all[id];
            if version(&worker.host).0 != version(host).0 {
                // It was started again: nothing that was held against it counts.
                (worker.rest, worker.resting_until, worker.on_trial) = (Duration::ZERO, None, false);
            }
            if version(&worker.host) != version(host) {
                worker.lacking = false;
            }
            worker.slots = slots(host);
            worker.host = host.clone();
            worker.present = true;
            self.list(id, now);
        }
    }

    /// The next worker that can take an item; its place is taken.
    pub(super) fn take(&mut self, now: Instant) -> Option<WorkerId> {
        while let Some(id) = self.free.pop_front() {
            self.all[id].listed = false;
            if self.can_take(id, now) {
                self.all[id].outstanding += 1;
                self.list(id, now);
                return Some(id);
            }
        }
        None
    }

    /// A worker for an item under which workers have broken: one that has no other such item, if possible one that is
    /// not in `tried`.
    pub(super) fn take_for_suspect(&mut self, tried: &[PeerId], now: Instant) -> Option<WorkerId> {
        let fits = |id: &WorkerId| self.all[*id].suspects == 0 && self.can_take(*id, now);
        let fresh = |id: &WorkerId| !tried.contains(&self.all[*id].host.peer_id);
        let ids = || 0..self.all.len();
        let untried = ids().find(|id| fresh(id) && fits(id));
        // Somebody who has not had it and is only busy now is worth the wait; who cannot be reached is not.
        let worth_waiting = ids().any(|id| fresh(&id) && self.all[id].is_back_soon(now));
        let id = untried.or_else(|| if worth_waiting { None } else { ids().find(fits) })?;
        self.all[id].outstanding += 1;
        self.all[id].suspects += 1;
        Some(id)
    }

    /// A worker for a second attempt beside the one at `first`.
    pub(super) fn take_beside(&mut self, first: WorkerId, now: Instant) -> Option<WorkerId> {
        let idle = |id: &WorkerId| {
            let worker = &self.all[*id];
            *id != first && worker.outstanding < worker.slots && self.can_take(*id, now)
        };
        let id = (0..self.all.len()).filter(idle).min_by_key(|id| self.all[*id].outstanding)?;
        self.all[id].outstanding += 1;
        Some(id)
    }

    /// Whether some worker could take an item.
    pub(super) fn has_room(&mut self, now: Instant) -> bool {
        while let Some(&id) = self.free.front() {
            if self.can_take(id, now) {
                return true;
            }
            self.all[id].listed = false;
            self.free.pop_front();
        }
        false
    }

    /// Whether anybody has an item.
    pub(super) fn any_outstanding(&self) -> bool {
        self.all.iter().any(|worker| worker.outstanding > 0)
    }

    /// Whether some worker has an idle slot.
    pub(super) fn has_idle_slot(&self, now: Instant) -> bool {
        (0..self.all.len()).any(|id| self.all[id].outstanding < self.all[id].slots && self.can_take(id, now))
    }

    /// Whether everybody who was ever there has said that it lacks the action, and nothing else.
    pub(super) fn all_lack(&self) -> bool {
        !self.all.is_empty() && self.all.iter().all(|worker| worker.lacking && worker.done + worker.failed == 0)
    }

    /// Whether anybody is there that has not said that it lacks the action.
    pub(super) fn any_present(&self) -> bool {
        self.all.iter().any(|worker| worker.present && !worker.lacking)
    }

    /// An item was sent so long after it got a worker's place. As much more lies ready with each of them, that they have work
    /// until the next ones come.
    pub(super) fn waited(&mut self, wait: Duration) {
        self.wait = (self.wait * (WEIGHT - 1) + wait.min(LONGEST_WAIT)) / WEIGHT;
    }

    /// Whether a worker whose place was taken is still there, and takes items.
    pub(super) fn still_takes(&self, id: WorkerId, now: Instant) -> bool {
        self.all[id].takes(now)
    }

    /// An attempt has ended. `was_suspect` as it was taken, `outstanding` as it was then.
    pub(super) fn end(&mut self, id: WorkerId, how: Report, took: Duration, was: Taken, now: Instant) {
        let worker = &mut self.all[id];
        worker.outstanding = worker.outstanding.saturating_sub(1);
        worker.suspects = worker.suspects.saturating_sub(usize::from(was.suspect));
        match how {
            Report::Done | Report::Failed => {
                worker.on_answer(took, was.outstanding, now);
                *(if how == Report::Done { &mut worker.done } else { &mut worker.failed }) += 1;
                worker.busy += took;
            }
            Report::Lost => {
                worker.lost += 1;
                worker.pause(LOST_REST, now);
            }
            Report::Silent => {
                worker.lost += 1;
                worker.on_trial = true;
                worker.pause(LOST_REST, now);
            }
            Report::Away => worker.pause(LOST_REST, now),
            Report::Busy => worker.pause(BUSY_REST, now),
            Report::Lacking => worker.lacking = true,
            Report::CalledOff => {}
        }
        self.list(id, now);
    }

    /// Lets those work again whose rest is over, and gives when the next one's is.
    pub(super) fn wake(&mut self, now: Instant) -> Option<Instant> {
        let mut next: Option<Instant> = None;
        for id in 0..self.all.len() {
            match self.all[id].resting_until {
                Some(until) if until <= now => {
                    self.all[id].resting_until = None;
                    self.list(id, now);
                }
                Some(until) => next = Some(next.map_or(until, |next| next.min(until))),
                None => {}
            }
        }
        next
    }

    /// How many are with a worker now.
    pub(super) fn outstanding(&self, id: WorkerId) -> usize {
        self.all[id].outstanding
    }

    pub(super) fn worker(&self, id: WorkerId) -> &Worker {
        &self.all[id]
    }

    pub(super) fn worker_mut(&mut self, id: WorkerId) -> &mut Worker {
        &mut self.all[id]
    }

    pub(super) fn status(&self) -> Vec<WorkerStatus> {
        self.all.iter().map(Worker::status).collect()
    }

    fn can_take(&self, id: WorkerId, now: Instant) -> bool {
        let worker = &self.all[id];
        worker.takes(now) && worker.outstanding < worker.limit(self.prefetch, AHEAD + self.wait)
    }

    fn list(&mut self, id: WorkerId, now: Instant) {
        if !self.all[id].listed && self.can_take(id, now) {
            self.all[id].listed = true;
            self.free.push_back(id);
        }
    }

    /// A place for one more; there is none if as many as can be known are all there.
    fn admit(&mut self, host: &Arc<Host>, now: Instant) -> Option<WorkerId> {
        let worker = Worker::new(host.clone(), now);
        let id = if self.all.len() < MAX_WORKERS {
            self.all.push(worker);
            self.all.len() - 1
        } else {
            let gone = |worker: &Worker| !worker.present && worker.outstanding == 0 && !worker.listed;
            let id = self.all.iter().position(gone)?;
            let gone = std::mem::replace(&mut self.all[id], worker);
            self.by_peer.remove(&gone.host.peer_id);
            id
        };
        self.by_peer.insert(host.peer_id, id);
        Some(id)
    }
}

/// What an attempt was when its place was taken.
#[derive(Debug, Clone, Copy)]
pub(super) struct Taken {
    /// Items with the worker, this one included.
    pub(super) outstanding: usize,
    /// Workers have broken under it.
    pub(super) suspect: bool,
}

impl Worker {
    fn new(host: Arc<Host>, now: Instant) -> Self {
        Self {
            slots: slots(&host),
            host,
            outstanding: 0,
            suspects: 0,
            gap: None,
            present: true,
            lacking: false,
            rest: Duration::ZERO,
            resting_until: None,
            on_trial: false,
            heard: now,
            listed: false,
            done: 0,
            failed: 0,
            lost: 0,
            busy: Duration::ZERO,
        }
    }

    /// It takes items, as many as it has room for.
    fn takes(&self, now: Instant) -> bool {
        self.present && !self.lacking && self.resting_until.is_none_or(|until| until <= now)
    }

    /// It takes items, or will do so soon.
    fn is_back_soon(&self, now: Instant) -> bool {
        self.present && !self.lacking && self.resting_until.is_none_or(|until| until <= now + SOON)
    }

    /// How much it may have: its slots, and work for so long beside, so that it need not wait for the next item.
    fn limit(&self, prefetch: Option<usize>, ahead: Duration) -> usize {
        if self.on_trial {
            return 1;
        }
        let ahead = || match self.gap {
            None => 1,
            Some(gap) => usize::try_from(ahead.as_nanos() / gap.as_nanos().max(1)).unwrap_or(MAX_PREFETCH) + 1,
        };
        self.slots + prefetch.unwrap_or_else(ahead).min(MAX_PREFETCH)
    }

    fn on_answer(&mut self, took: Duration, outstanding: usize, now: Instant) {
        self.heard = now;
        self.rest = Duration::ZERO;
        self.on_trial = false;
        // With n items before it an item waits for n results.
        let gap = took / u32::try_from(outstanding.max(1)).unwrap_or(u32::MAX);
        self.gap = Some(self.gap.map_or(gap, |before| (before * (WEIGHT - 1) + gap) / WEIGHT));
    }

    fn pause(&mut self, [least, most]: [Duration; 2], now: Instant) {
        let still = self.resting_until.is_some_and(|until| until > now);
        if !still {
            self.rest = (self.rest * 2).clamp(least, most);
            self.resting_until = Some(now + self.rest);
        }
    }

    fn status(&self) -> WorkerStatus {
        WorkerStatus {
            node: self.host.node.clone(),
            peer_id: self.host.peer_id,
            slots: u32::try_from(self.slots).unwrap_or(u32::MAX),
            running: self.outstanding,
            done: self.done,
            failed: self.failed,
            lost: self.lost,
            busy: self.busy,
            present: self.present,
        }
    }
}

/// Which life of its node, and which record of that life.
fn version(host: &Host) -> (u64, u64) {
    (host.info.incarnation, host.info.revision)
}

fn slots(host: &Host) -> usize {
    host.slots.unwrap_or(DEFAULT_SLOTS).clamp(1, MAX_SLOTS) as usize
}

#[cfg(test)]
mod tests;
