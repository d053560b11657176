//! The engine's side of the journal: what was recorded before, and outcomes on their way to being durable.

use std::{collections::VecDeque, time::Duration};

use libp2p::PeerId;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use sha2::{Digest, Sha256};

use super::{
    journal::{Entry, Hash, Job, Journal, JournalError, Recorded, Recorder, Refused},
    outcome::{Attempt, ItemError, MapError, Outcome},
    plan::Plan,
    reports::weight,
};
use crate::payload::Payload;

/// Outcomes that may wait to be durable before no more items are taken. More than one batch of the journal, so that the
/// workers do not wait for the disk.
const BEHIND: usize = 16 * 1024;

/// Bytes of them: with large results a slow disk must not be a matter of memory.
const BEHIND_BYTES: usize = 32 * 1024 * 1024;

/// Bytes of an encoded outcome with a small result: a buffer of this size need not grow.
const USUAL: usize = 256;

/// The journal, if there is one.
pub(super) struct Ledger(Option<Open>);

struct Open {
    journal: Journal,
    recorder: Recorder<Outcome<Payload>>,
    recorded: Recorded<Outcome<Payload>>,
    /// Outcomes for which the recorder had no room.
    queue: VecDeque<(u64, Entry, Outcome<Payload>)>,
    /// Those that it has, and that are not known to be durable.
    under_way: usize,
    /// What all that is not known to be durable holds.
    bytes: usize,
    retry_failed: bool,
}

/// An outcome as the journal keeps it.
#[derive(Serialize, Deserialize)]
struct Kept {
    result: Result<ByteBuf, ItemError>,
    node: Option<String>,
    /// Its bytes: as text it would be most of the work.
    peer_id: Option<ByteBuf>,
    attempts: u32,
    duration: Duration,
    failures: Vec<Attempt>,
}

impl Ledger {
    /// Opens the journal that was asked for, if any.
    pub(super) fn open(plan: &Plan) -> impl Future<Output = Result<Self, MapError>> + use<> {
        let (application, action) = (plan.target.application().to_owned(), plan.action.clone());
        let (path, retry_failed) = (plan.journal.clone(), plan.retry_failed);
        async move {
            let Some(path) = path else { return Ok(Self(None)) };
            let open = blocking(move || {
                let journal = Journal::open(&path, &Job { application: &application, action: &action })?;
                let (recorder, recorded) = journal.writer()?;
                Ok(Open { journal, recorder, recorded, queue: VecDeque::new(), under_way: 0, bytes: 0, retry_failed })
            })
            .await?;
            tracing::debug!(recorded = open.journal.recorded(), "journal opened");
            Ok(Self(Some(open)))
        }
    }

    /// Whether an outcome of this item may be recorded: then it is taken although nobody has room for it.
    pub(super) fn has(&self, index: u64) -> bool {
        self.0.as_ref().is_some_and(|open| open.journal.highest().is_some_and(|highest| index <= highest))
    }

    /// What is recorded of an item, if it counts.
    pub(super) async fn find(&mut self, index: u64, item: &Payload) -> Result<Option<Outcome<Payload>>, MapError> {
        let Some(open) = &mut self.0 else { return Ok(None) };
        if index == 0 {
            open.begin(hash(item)).await?;
        }
        let Some(entry) = open.journal.find(index)? else { return Ok(None) };
        if entry.input != hash(item) {
            return Err(open.journal.other_input(index).into());
        }
        if entry.failed && open.retry_failed {
            return Ok(None);
        }
        let kept: Kept = multinodes_behaviour::codec::decode(&entry.outcome, usize::MAX)
            .map_err(|_| MapError::from(open.journal.damaged()))?;
        Ok(Some(kept.outcome(index, item)))
    }

    /// Has an outcome recorded; it comes back from [`next`](Self::next). Without a journal it comes back at once.
    pub(super) fn record(&mut self, outcome: Outcome<Payload>) -> Option<Outcome<Payload>> {
        let Some(open) = &mut self.0 else { return Some(outcome) };
        let entry = Entry { input: hash(&outcome.input), failed: outcome.result.is_err(), outcome: Kept::of(&outcome) };
        open.bytes += weight(&outcome);
        open.queue.push_back((outcome.index, entry, outcome));
        open.pass_on();
        None
    }

    /// Whether an outcome is not known to be durable yet.
    pub(super) fn is_behind(&self) -> bool {
        self.0.as_ref().is_some_and(|open| open.under_way + open.queue.len() > 0)
    }

    /// Whether more items may be taken.
    pub(super) fn has_room(&self) -> bool {
        self.0.as_ref().is_none_or(|open| open.under_way + open.queue.len() < BEHIND && open.bytes < BEHIND_BYTES)
    }

    /// Waits for outcomes that are durable now. Cancelling loses none.
    pub(super) async fn next(&mut self) -> Result<Vec<Outcome<Payload>>, MapError> {
        let Some(open) = &mut self.0 else { return std::future::pending().await };
        let durable = open.recorded.recv().await.ok_or(MapError::Stopped)??;
        open.under_way = open.under_way.saturating_sub(durable.len());
        open.bytes = open.bytes.saturating_sub(durable.iter().map(weight).sum());
        open.pass_on();
        Ok(durable)
    }

    /// The input has ended before item `count`: the journal must not know of later ones.
    pub(super) fn check_end(&self, count: u64) -> Result<(), MapError> {
        match &self.0 {
            Some(open) if open.journal.highest().is_some_and(|highest| highest >= count) => {
                Err(open.journal.other_input(count).into())
            }
            _ => Ok(()),
        }
    }
}

impl Open {
    /// Says what the first item is, before any is run.
    async fn begin(&mut self, first: Hash) -> Result<(), MapError> {
        let journal = self.journal.clone();
        blocking(move || journal.begin(first)).await
    }

    fn pass_on(&mut self) {
        while let Some((index, entry, outcome)) = self.queue.pop_front() {
            match self.recorder.try_record(index, entry, outcome) {
                Ok(()) => self.under_way += 1,
                Err(Refused::Full(index, entry, outcome)) => return self.queue.push_front((index, entry, outcome)),
                // The receiver says why.
                Err(Refused::Ended) => return self.under_way += 1,
            }
        }
    }
}

impl Kept {
    fn of(outcome: &Outcome<Payload>) -> Vec<u8> {
        let kept = Self {
            result: outcome.result.as_ref().map(|result| ByteBuf::from(result.as_bytes())).map_err(Clone::clone),
            node: outcome.node.clone(),
            peer_id: outcome.peer_id.map(|peer_id| ByteBuf::from(peer_id.to_bytes())),
            attempts: outcome.attempts,
            duration: outcome.duration,
            failures: outcome.failures.clone(),
        };
        let mut bytes = Vec::with_capacity(USUAL);
        // It has nothing that could fail to be encoded: strings, numbers and bytes.
        let _ = multinodes_behaviour::codec::append(&kept, &mut bytes);
        bytes
    }

    fn outcome(self, index: u64, item: &Payload) -> Outcome<Payload> {
        Outcome {
            index,
            input: item.clone(),
            result: self.result.map(|result| Payload::from_bytes(result.into_vec())),
            node: self.node,
            peer_id: self.peer_id.and_then(|peer_id| PeerId::from_bytes(&peer_id).ok()),
            attempts: self.attempts,
            duration: self.duration,
            failures: self.failures,
            recorded: true,
        }
    }
}

fn hash(item: &Payload) -> Hash {
    let digest = Sha256::digest(item.as_bytes());
    std::array::from_fn(|at| digest[at])
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, JournalError> + Send + 'static,
) -> Result<T, MapError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => Ok(done?),
        // The runtime is being shut down.
        Err(_) => Err(MapError::Stopped),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(index: u64, size: usize) -> Outcome<Payload> {
        Outcome {
            index,
            input: Payload::default(),
            result: Ok(Payload::from_bytes(vec![0; size])),
            node: None,
            peer_id: None,
            attempts: 1,
            duration: Duration::ZERO,
            failures: Vec::new(),
            recorded: false,
        }
    }

    #[tokio::test]
    async fn large_outcomes_that_wait_for_the_disk_are_bounded_by_their_bytes() {
        const SIZE: usize = 1024 * 1024;
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::open(&folder.path().join("j"), &Job { application: "a", action: "b" }).unwrap();
        let (recorder, recorded) = journal.writer().unwrap();
        let open =
            Open { journal, recorder, recorded, queue: VecDeque::new(), under_way: 0, bytes: 0, retry_failed: false };
        let mut ledger = Ledger(Some(open));
        // Nobody asks for what is durable, as if nothing ever were.
        let taken = (0..100).take_while(|index| {
            let has_room = ledger.has_room();
            if has_room {
                assert!(ledger.record(outcome(*index, SIZE)).is_none());
            }
            has_room
        });
        assert_eq!(taken.count(), BEHIND_BYTES / SIZE);
        let mut durable = 0;
        while ledger.is_behind() {
            durable += ledger.next().await.unwrap().len();
        }
        assert!(durable == BEHIND_BYTES / SIZE && ledger.has_room());
    }
}
