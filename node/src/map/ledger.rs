//! The engine's side of the journal: what was recorded before, and what is on its way to being durable: outcomes, and at
//! most once that an item is begun.

mod begun;

use std::{collections::VecDeque, time::Duration};

use libp2p::PeerId;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use sha2::{Digest, Sha256};

use self::begun::Begun;
use super::{
    durable::Durable,
    journal::{Entry, Hash, Job, Journal, JournalError, Recorded, Recorder, Refused, State},
    outcome::{Attempt, ItemError, ItemErrorKind, MapError, Outcome},
    plan::Plan,
};
use crate::payload::Payload;

/// What may wait to be durable before no more items are taken. More than one batch of the journal, so that the
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
    recorder: Recorder<Durable>,
    recorded: Recorded<Durable>,
    /// That for which the recorder had no room.
    queue: VecDeque<(u64, Option<Entry>, Durable)>,
    /// How much it has that is not known to be durable.
    under_way: usize,
    /// What all that is not known to be durable holds.
    bytes: usize,
    /// At most once: which items are begun, as the file has it.
    begun: Option<Begun>,
    retry: Retry,
}

/// Which items are run again although something is recorded of them.
#[derive(Clone, Copy, Default)]
struct Retry {
    failed: bool,
    unknown: bool,
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
        let (path, at_most_once) = (plan.journal.clone(), plan.at_most_once);
        let retry = Retry { failed: plan.retry_failed, unknown: plan.retry_unknown };
        async move {
            let Some(path) = path else { return Ok(Self(None)) };
            let open = blocking(move || {
                let job = Job { application: &application, action: &action, at_most_once };
                Open::over(Journal::open(&path, &job)?, at_most_once, retry)
            })
            .await?;
            tracing::debug!(recorded = open.journal.recorded(), "journal opened");
            Ok(Self(Some(open)))
        }
    }

    /// Whether something may be recorded of this item: then it is taken although nobody has room for it.
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
        let again = match entry.state {
            State::Done => false,
            State::Failed => open.retry.failed,
            State::Unknown => open.retry.unknown,
        };
        if again {
            if let Some(begun) = &mut open.begun {
                begun.keep(index, entry);
            }
            return Ok(None);
        }
        if entry.has_only_begun() {
            return Ok(Some(may_have_run(index, item)));
        }
        let kept: Kept = multinodes_behaviour::codec::decode(&entry.outcome, usize::MAX)
            .map_err(|_| MapError::from(open.journal.damaged()))?;
        Ok(Some(kept.outcome(index, item)))
    }

    /// Whether an item may be sent now. If not, that it is begun is recorded first: then it comes back from
    /// [`next`](Self::next).
    pub(super) fn begin(&mut self, index: u64, item: &Payload) -> bool {
        let Some(open) = &mut self.0 else { return true };
        let Some(begun) = &mut open.begun else { return true };
        if begun.is_durable(index) {
            return true;
        }
        begun.ask(index);
        open.queue(index, Some(Entry::begun(hash(item))), Durable::Begun(index));
        false
    }

    /// Says of those items that they were not begun after all, which [surely were not sent](Self::begin), or did not run.
    /// Whether there were any.
    pub(super) fn withdraw(&mut self, surely_not: impl Fn(u64) -> bool) -> bool {
        let Some(open) = &mut self.0 else { return false };
        let withdrawn = open.begun.as_mut().map_or_else(Vec::new, |begun| begun.withdraw(surely_not));
        let any = !withdrawn.is_empty();
        for (index, before) in withdrawn {
            open.queue(index, before, Durable::Withdrawn);
        }
        any
    }

    /// Has an outcome recorded; it comes back from [`next`](Self::next). Without a journal it comes back at once.
    pub(super) fn record(&mut self, outcome: Outcome<Payload>) -> Option<Outcome<Payload>> {
        let Some(open) = &mut self.0 else { return Some(outcome) };
        let state = match &outcome.result {
            Ok(_) => State::Done,
            Err(error) if error.kind == ItemErrorKind::MayHaveRun => State::Unknown,
            Err(_) => State::Failed,
        };
        let entry = Entry { input: hash(&outcome.input), outcome: Kept::of(&outcome), state };
        if let Some(begun) = &mut open.begun {
            begun.end(outcome.index);
        }
        open.queue(outcome.index, Some(entry), Durable::Outcome(outcome));
        None
    }

    /// Whether anything is not known to be durable yet.
    pub(super) fn is_behind(&self) -> bool {
        self.0.as_ref().is_some_and(|open| open.under_way + open.queue.len() > 0)
    }

    /// Whether more items may be taken.
    pub(super) fn has_room(&self) -> bool {
        self.0.as_ref().is_none_or(|open| open.under_way + open.queue.len() < BEHIND && open.bytes < BEHIND_BYTES)
    }

    /// Waits for what is durable now. Cancelling loses nothing.
    pub(super) async fn next(&mut self) -> Result<Vec<Durable>, MapError> {
        let Some(open) = &mut self.0 else { return std::future::pending().await };
        let durable = open.recorded.recv().await.ok_or(MapError::Stopped)??;
        open.under_way = open.under_way.saturating_sub(durable.len());
        open.bytes = open.bytes.saturating_sub(durable.iter().map(Durable::weight).sum());
        if let Some(begun) = &mut open.begun {
            durable.iter().for_each(|durable| begun.on_durable(durable));
        }
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
    fn over(journal: Journal, at_most_once: bool, retry: Retry) -> Result<Self, JournalError> {
        let (recorder, recorded) = journal.writer()?;
        let begun = at_most_once.then(Begun::default);
        Ok(Self { journal, recorder, recorded, queue: VecDeque::new(), under_way: 0, bytes: 0, begun, retry })
    }

    fn queue(&mut self, index: u64, entry: Option<Entry>, durable: Durable) {
        self.bytes += durable.weight();
        self.queue.push_back((index, entry, durable));
        self.pass_on();
    }

    /// Says what the first item is, before any is run.
    async fn begin(&mut self, first: Hash) -> Result<(), MapError> {
        let journal = self.journal.clone();
        blocking(move || journal.begin(first)).await
    }

    fn pass_on(&mut self) {
        while let Some((index, entry, durable)) = self.queue.pop_front() {
            match self.recorder.try_record(index, entry, durable) {
                Ok(()) => self.under_way += 1,
                Err(Refused::Full(index, entry, durable)) => return self.queue.push_front((index, entry, durable)),
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

/// The outcome of an item that was begun by a map which has ended since, with nothing known of it.
fn may_have_run(index: u64, item: &Payload) -> Outcome<Payload> {
    let message = "it was begun, and the map that ran it ended before it had an outcome: it may have run";
    Outcome {
        index,
        input: item.clone(),
        result: Err(ItemError::new(ItemErrorKind::MayHaveRun, "no_outcome", message)),
        node: None,
        peer_id: None,
        attempts: 1,
        duration: Duration::ZERO,
        failures: Vec::new(),
        recorded: true,
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
    use std::path::Path;

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

    fn ledger(path: &Path, at_most_once: bool, retry: Retry) -> Ledger {
        let job = Job { application: "a", action: "b", at_most_once };
        Ledger(Some(Open::over(Journal::open(path, &job).unwrap(), at_most_once, retry).unwrap()))
    }

    /// Waits until all is on disk, and gives the items that are begun there since the last time.
    async fn settle(ledger: &mut Ledger) -> Vec<u64> {
        let mut begun = Vec::new();
        while ledger.is_behind() {
            begun.extend(ledger.next().await.unwrap().into_iter().filter_map(|durable| match durable {
                Durable::Begun(index) => Some(index),
                _ => None,
            }));
        }
        begun
    }

    /// What is recorded of an item: nothing, a result, or a kind of error.
    async fn found(ledger: &mut Ledger, index: u64) -> Option<Result<(), ItemErrorKind>> {
        let outcome = ledger.find(index, &Payload::default()).await.unwrap()?;
        Some(outcome.result.map(drop).map_err(|error| error.kind))
    }

    fn failed(index: u64, kind: ItemErrorKind) -> Outcome<Payload> {
        Outcome { result: Err(ItemError::new(kind, "code", "message")), ..outcome(index, 0) }
    }

    #[tokio::test]
    async fn an_item_may_be_sent_only_when_it_is_on_disk_that_it_is_begun_and_once_is_enough() {
        let folder = tempfile::tempdir().unwrap();
        let mut ledger = ledger(&folder.path().join("journal"), true, Retry::default());
        assert!(found(&mut ledger, 0).await.is_none() && !ledger.begin(0, &Payload::default()));
        assert_eq!(settle(&mut ledger).await, [0]);
        // Whoever got it has refused it: another one may get it at once.
        assert!(ledger.begin(0, &Payload::default()) && !ledger.is_behind());
    }

    #[tokio::test]
    async fn what_was_begun_and_has_no_outcome_may_have_run_until_it_is_asked_for_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let mut first = ledger(&path, true, Retry::default());
        for index in 0..4 {
            assert!(found(&mut first, index).await.is_none());
            first.begin(index, &Payload::default());
        }
        first.record(outcome(1, 8));
        first.record(failed(2, ItemErrorKind::Failed));
        first.record(failed(3, ItemErrorKind::MayHaveRun));
        settle(&mut first).await;
        drop(first);
        let (may_have_run, done) = (Some(Err(ItemErrorKind::MayHaveRun)), Some(Ok(())));
        let failed = Some(Err(ItemErrorKind::Failed));
        for (retry, expected) in [
            (Retry::default(), [may_have_run, done, failed, may_have_run]),
            (Retry { failed: true, unknown: false }, [may_have_run, done, None, may_have_run]),
            (Retry { failed: false, unknown: true }, [None, done, failed, None]),
        ] {
            let mut again = ledger(&path, true, retry);
            for (index, expected) in expected.into_iter().enumerate() {
                assert_eq!(found(&mut again, index as u64).await, expected, "{index}");
            }
        }
    }

    #[tokio::test]
    async fn what_was_not_sent_after_all_is_as_it_was_before() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let mut first = ledger(&path, true, Retry::default());
        first.begin(0, &Payload::default());
        first.begin(1, &Payload::default());
        first.record(failed(1, ItemErrorKind::Failed));
        settle(&mut first).await;
        drop(first);
        let mut second = ledger(&path, true, Retry { failed: true, unknown: true });
        for index in 0..3 {
            assert!(found(&mut second, index).await.is_none());
            second.begin(index, &Payload::default());
        }
        // One of them is withdrawn before it is on disk.
        assert!(second.withdraw(|index| index == 2));
        settle(&mut second).await;
        assert!(second.withdraw(|_| true) && !second.withdraw(|_| true));
        settle(&mut second).await;
        drop(second);
        let mut third = ledger(&path, true, Retry::default());
        assert_eq!(found(&mut third, 0).await, Some(Err(ItemErrorKind::MayHaveRun)));
        assert_eq!(found(&mut third, 1).await, Some(Err(ItemErrorKind::Failed)));
        assert_eq!(found(&mut third, 2).await, None);
    }

    #[tokio::test]
    async fn large_outcomes_that_wait_for_the_disk_are_bounded_by_their_bytes() {
        const SIZE: usize = 1024 * 1024;
        let folder = tempfile::tempdir().unwrap();
        let mut ledger = ledger(&folder.path().join("journal"), false, Retry::default());
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
