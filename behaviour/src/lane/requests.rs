//! What is open between two peers: the calls and tells this side has sent, and those it works on for the other.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use slab::Slab;
use tokio::{sync::oneshot, task::AbortHandle};

use super::{Answers, LaneError, MAX_ASKED, MAX_SERVED, Mark, Pulse};
use crate::quick_hash::QuickHash;

/// Bits of an id that say the place in the table; the others count its uses, so that a late answer meets nobody else.
const PLACE_BITS: u32 = 16;

/// What came of something that was asked.
pub(super) type Answer = Result<Bytes, LaneError>;

/// Calls and tells that this side has sent and that are not answered yet.
#[derive(Default)]
pub(super) struct Asked {
    table: Mutex<AskedTable>,
    /// As many as the table holds, to be read without its lock.
    count: AtomicUsize,
}

#[derive(Default)]
struct AskedTable {
    open: Slab<Open>,
    uses: u64,
}

struct Open {
    id: u64,
    lane: u64,
    deadline: Instant,
    asker: Asker,
    /// Where reports go, if they were asked for.
    pulse: Option<Arc<Pulse>>,
}

/// Who gets an answer.
pub(super) enum Asker {
    /// Somebody who waits for this one.
    One(oneshot::Sender<Answer>),
    /// Somebody who reads those of many calls.
    Many(Answers, Mark),
}

impl Asker {
    /// `false` if nobody waits for it any more.
    fn answer(self, answer: Answer) -> bool {
        match self {
            Self::One(respond_to) => respond_to.send(answer).is_ok(),
            Self::Many(answers, mark) => answers.send((mark, answer)).is_ok(),
        }
    }
}

impl Asked {
    /// Opens a place for one answer, and gives its id.
    pub(super) fn open(
        &self,
        lane: u64,
        deadline: Instant,
        pulse: Option<Arc<Pulse>>,
    ) -> Result<(u64, oneshot::Receiver<Answer>), LaneError> {
        let (respond_to, answer) = oneshot::channel();
        Ok((self.open_for(Asker::One(respond_to), lane, deadline, pulse)?, answer))
    }

    /// The same for this asker.
    pub(super) fn open_for(
        &self,
        asker: Asker,
        lane: u64,
        deadline: Instant,
        pulse: Option<Arc<Pulse>>,
    ) -> Result<u64, LaneError> {
        let mut table = self.lock();
        if table.open.len() >= MAX_ASKED {
            return Err(LaneError::TooManyOpen { limit: MAX_ASKED });
        }
        table.uses = table.uses.wrapping_add(1) & (u64::MAX >> PLACE_BITS);
        let uses = table.uses;
        let place = table.open.vacant_entry();
        let id = (uses << PLACE_BITS) | place.key() as u64;
        place.insert(Open { id, lane, deadline, asker, pulse });
        self.count.store(table.open.len(), Relaxed);
        Ok(id)
    }

    /// Ends `id` with an answer. `false` if nobody waits for it.
    pub(super) fn answer(&self, id: u64, answer: Answer) -> bool {
        match self.remove(id) {
            Some(open) => open.asker.answer(answer),
            None => false,
        }
    }

    /// Who watches `id`, if it is open and watched.
    pub(super) fn pulse(&self, id: u64) -> Option<Arc<Pulse>> {
        let open = self.lock();
        open.open.get(place(id)?).filter(|open| open.id == id)?.pulse.clone()
    }

    /// Forgets `id`. `false` if it was not open.
    pub(super) fn forget(&self, id: u64) -> bool {
        self.remove(id).is_some()
    }

    pub(super) fn len(&self) -> usize {
        self.count.load(Relaxed)
    }

    /// How many were ever opened.
    pub(super) fn opened(&self) -> u64 {
        self.lock().uses
    }

    /// Ends everything that was sent over a lane which is gone.
    pub(super) fn fail_lane(&self, lane: u64) {
        self.fail(|open| open.lane == lane, || LaneError::Lost);
    }

    /// Ends everything sent over `lane` whose deadline has passed, and gives the ids so that the other side can be told.
    pub(super) fn expire(&self, lane: u64, now: Instant) -> Vec<u64> {
        self.fail(|open| open.lane == lane && open.deadline <= now, || LaneError::TimedOut)
    }

    fn fail(&self, which: impl Fn(&Open) -> bool, why: impl Fn() -> LaneError) -> Vec<u64> {
        let mut table = self.lock();
        let places: Vec<usize> = table.open.iter().filter(|(_, open)| which(open)).map(|(place, _)| place).collect();
        let failed: Vec<Open> = places.into_iter().map(|place| table.open.remove(place)).collect();
        self.count.store(table.open.len(), Relaxed);
        drop(table);
        failed
            .into_iter()
            .map(|open| {
                // Nobody waiting any more is as good as told.
                let _ = open.asker.answer(Err(why()));
                open.id
            })
            .collect()
    }

    fn remove(&self, id: u64) -> Option<Open> {
        let place = place(id)?;
        let mut table = self.lock();
        if table.open.get(place)?.id != id {
            return None;
        }
        let open = table.open.try_remove(place);
        self.count.store(table.open.len(), Relaxed);
        open
    }

    fn lock(&self) -> MutexGuard<'_, AskedTable> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The place in the table that an id stands for.
fn place(id: u64) -> Option<usize> {
    usize::try_from(id & ((1 << PLACE_BITS) - 1)).ok()
}

/// Calls that this side works on for the other one. Ids are the other side's, so they are not trusted.
#[derive(Default)]
pub(super) struct Served {
    open: Mutex<HashMap<u64, Work, QuickHash>>,
    /// As many as the table holds, to be read without its lock.
    count: AtomicUsize,
    tokens: AtomicU64,
}

struct Work {
    lane: u64,
    deadline: Instant,
    /// So much the clock of the deadline had missed when it began: what it misses later makes the deadline come sooner.
    slept: Duration,
    task: Option<AbortHandle>,
    /// Tells this work from a later one under the same id, which the other side may use again after a cancel.
    token: u64,
    /// Cancelled before its task was known.
    cancelled: bool,
}

/// Why a call is not begun.
pub(super) enum NotBegun {
    /// The other side uses an id that it has not given free.
    Duplicate,
    /// It has more calls running here than one peer may.
    TooMany,
}

impl Served {
    pub(super) fn begin(&self, id: u64, lane: u64, deadline: Instant, slept: Duration) -> Result<u64, NotBegun> {
        let mut open = self.lock();
        if open.len() >= MAX_SERVED {
            return Err(NotBegun::TooMany);
        }
        if open.contains_key(&id) {
            return Err(NotBegun::Duplicate);
        }
        let token = self.tokens.fetch_add(1, Relaxed);
        open.insert(id, Work { lane, deadline, slept, task: None, token, cancelled: false });
        self.count.store(open.len(), Relaxed);
        Ok(token)
    }

    /// Names the task that works on `id`. If `id` has been cancelled meanwhile, the task is stopped.
    pub(super) fn assign(&self, id: u64, token: u64, task: AbortHandle) {
        let mut open = self.lock();
        match open.get_mut(&id).filter(|work| work.token == token) {
            Some(work) if work.cancelled => {
                open.remove(&id);
                self.count.store(open.len(), Relaxed);
                task.abort();
            }
            Some(work) => work.task = Some(task),
            // It has answered already.
            None => {}
        }
    }

    /// Whether the answer to `id` is still wanted.
    pub(super) fn is_open(&self, id: u64, token: u64) -> bool {
        self.lock().get(&id).is_some_and(|work| work.token == token && !work.cancelled)
    }

    /// Takes `id` off the list; `false` if it was cancelled or has expired, so that its answer is not wanted.
    pub(super) fn end(&self, id: u64, token: u64) -> bool {
        let mut open = self.lock();
        let wanted = match open.entry(id) {
            Entry::Occupied(work) if work.get().token == token => !work.remove().cancelled,
            _ => false,
        };
        self.count.store(open.len(), Relaxed);
        wanted
    }

    /// Stops the work on `id`.
    pub(super) fn cancel(&self, id: u64) {
        let mut open = self.lock();
        if let Some(work) = open.get_mut(&id) {
            match work.task.take() {
                Some(task) => {
                    open.remove(&id);
                    self.count.store(open.len(), Relaxed);
                    task.abort();
                }
                None => work.cancelled = true,
            }
        }
    }

    /// Stops everything that came over a lane which is gone.
    pub(super) fn cancel_lane(&self, lane: u64) {
        for id in self.ids(|work| work.lane == lane) {
            self.cancel(id);
        }
    }

    /// Stops everything whose deadline has passed, and gives the ids of what came over `lane`.
    pub(super) fn expire(&self, lane: u64, now: Instant, slept: Duration) -> Vec<u64> {
        let is_over = |work: &Work| work.deadline <= now + slept.saturating_sub(work.slept);
        let expired = self.ids(|work| work.lane == lane && !work.cancelled && is_over(work));
        for id in &expired {
            self.cancel(*id);
        }
        expired
    }

    pub(super) fn len(&self) -> usize {
        self.count.load(Relaxed)
    }

    fn ids(&self, which: impl Fn(&Work) -> bool) -> Vec<u64> {
        self.lock().iter().filter(|(_, work)| which(work)).map(|(id, _)| *id).collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Work, QuickHash>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
