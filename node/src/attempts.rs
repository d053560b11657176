//! What becomes of a message that was tried on several hosts.
//!
//! An attempt's error says what is true of that attempt: "surely not delivered" of the last one says nothing of those before
//! it. So an attempt gives a [`Failed`], and nothing makes an error of the message of it but the sum of all attempts.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use libp2p::PeerId;

use crate::call_error::CallError;

/// So many failed attempts of one message are listed: the last ones, and the one that says most.
const MAX_LISTED: usize = 16;

/// Hosts that were only silent are asked again after this pause, when there is nobody else and time is left.
const AGAIN: Duration = Duration::from_millis(200);

/// Why the attempts at one message have failed, of which there were several: see [`CallError::Several`].
#[derive(Debug, Clone)]
pub struct FailedAttempts(Arc<Sum>);

#[derive(Debug, Clone)]
struct Sum {
    listed: Vec<CallError>,
    /// Where the one that says most stands.
    strongest: usize,
    /// Attempts beyond those.
    more: usize,
    may_have_run: bool,
    is_retryable: bool,
}

impl FailedAttempts {
    /// Each attempt's error, in the order in which they failed: of many the last 16, and the strongest.
    #[must_use]
    pub fn listed(&self) -> &[CallError] {
        &self.0.listed
    }

    /// How many there were.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.listed.len() + self.0.more
    }

    /// The error that says most: of those after which the message may have run if there are any, else of those after which
    /// it may succeed later, the last one.
    #[must_use]
    pub fn strongest(&self) -> &CallError {
        &self.0.listed[self.0.strongest]
    }

    /// The same with each of those that are listed changed.
    pub(crate) fn each(self, change: impl Fn(&mut CallError)) -> Self {
        let mut sum = Arc::unwrap_or_clone(self.0);
        sum.listed.iter_mut().for_each(change);
        Self(Arc::new(sum))
    }

    pub(crate) fn may_have_run(&self) -> bool {
        self.0.may_have_run
    }

    pub(crate) fn is_retryable(&self) -> bool {
        self.0.is_retryable
    }
}

impl fmt::Display for FailedAttempts {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Sum { listed, strongest, more, .. } = &*self.0;
        write!(formatter, "{}", self.strongest())?;
        let mut lead = "; other attempts: ";
        for (_, error) in listed.iter().enumerate().filter(|(place, _)| place != strongest) {
            write!(formatter, "{lead}{error}")?;
            lead = "; ";
        }
        if *more > 0 {
            write!(formatter, "; and {more} more")?;
        }
        Ok(())
    }
}

/// Why one attempt has failed, or why there is none. What it means for the message only [`Attempts::sum`] says.
#[derive(Debug)]
pub(crate) struct Failed(CallError);

impl From<CallError> for Failed {
    fn from(error: CallError) -> Self {
        Self(error)
    }
}

impl Failed {
    pub(crate) fn error(&self) -> &CallError {
        &self.0
    }

    /// Of a message for which there is one attempt and no other.
    pub(crate) fn only(self) -> CallError {
        self.0
    }

    /// Whether the application has worked on the message: what it said is its answer, whatever became of other attempts.
    pub(crate) fn is_answer(&self) -> bool {
        matches!(
            self.0,
            CallError::Failed { .. } | CallError::ResultTooLarge { .. } | CallError::UnexpectedResult { .. }
        )
    }
}

/// The attempts at one message so far. Several may be under way at once, so it is shared among them.
#[derive(Debug, Default)]
pub(crate) struct Attempts(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Hosts that do not get it again.
    tried: Vec<PeerId>,
    /// Some have failed, all of them because nothing was heard of them.
    is_only_silence: bool,
    failed: Vec<CallError>,
    more: usize,
    /// Of those that are not listed any more, too.
    may_have_run: bool,
    is_retryable: bool,
    /// An application has broken under it.
    broken: bool,
}

impl Attempts {
    /// Picks a host among those that have not been tried.
    pub(crate) fn pick<T>(&self, pick: impl FnOnce(&[PeerId]) -> T) -> T {
        pick(&self.state().tried)
    }

    /// The same, and nobody else picks that host meanwhile.
    pub(crate) fn claim<T, E>(
        &self,
        pick: impl FnOnce(&[PeerId]) -> Result<T, E>,
        peer_id: impl FnOnce(&T) -> PeerId,
    ) -> Option<T> {
        let mut state = self.state();
        let picked = pick(&state.tried).ok()?;
        let peer_id = peer_id(&picked);
        state.tried.push(peer_id);
        Some(picked)
    }

    /// Nobody picks this host meanwhile.
    pub(crate) fn take(&self, peer_id: PeerId) {
        self.state().tried.push(peer_id);
    }

    /// This host may be picked again: nothing was sent to it.
    pub(crate) fn release(&self, peer_id: &PeerId) {
        self.state().tried.retain(|tried| tried != peer_id);
    }

    /// Whether another host may be tried. Always, if nothing was delivered; if it may run twice, also when it was lost with
    /// the connection, and once when the application broke: a message that breaks it everywhere must not break them all.
    /// A host that did not begin it because its time was over may be wrong about the time: it stood still.
    pub(crate) fn allow(&self, failed: &Failed, may_run_twice: bool) -> bool {
        match &failed.0 {
            CallError::ConnectionLost { .. } => may_run_twice,
            CallError::Panicked { .. } => may_run_twice && !std::mem::replace(&mut self.state().broken, true),
            error => error.concerns_host_only(),
        }
    }

    /// An attempt has failed, and is not the last one.
    pub(crate) fn failed(&self, peer_id: PeerId, failed: Failed) {
        let mut state = self.state();
        state.tried.push(peer_id);
        state.is_only_silence = false;
        state.add(failed);
    }

    /// Nothing was heard of a host, and nothing was sent to it.
    pub(crate) fn silent(&self, peer_id: PeerId, failed: Failed) {
        let mut state = self.state();
        state.tried.push(peer_id);
        state.is_only_silence |= state.failed.is_empty();
        state.add(failed);
    }

    /// With nobody left: if nobody has refused it, and some were only silent, waits a moment and allows those again.
    /// `false` if that is not so, or if no time is left.
    pub(crate) async fn again(&self, deadline: Instant) -> bool {
        if !self.state().is_only_silence || Instant::now() + AGAIN >= deadline {
            return false;
        }
        tokio::time::sleep(AGAIN).await;
        self.state().tried.clear();
        true
    }

    /// The last one that has failed, when there is no further one.
    pub(crate) fn last(&self) -> Option<Failed> {
        self.state().failed.pop().map(Failed)
    }

    /// What the message comes to when the last attempt has failed: it surely did not run only if that is sure of every
    /// attempt.
    pub(crate) fn sum(self, last: Failed) -> CallError {
        let mut state = self.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        if last.is_answer() || (state.failed.is_empty() && state.more == 0) {
            return last.0;
        }
        state.add(last);
        let State { failed, more, may_have_run, is_retryable, .. } = state;
        let strongest = failed.iter().enumerate().max_by_key(|(place, error)| (strength(error), *place));
        let strongest = strongest.map_or(0, |(place, _)| place);
        CallError::Several(FailedAttempts(Arc::new(Sum {
            strongest,
            listed: failed,
            more,
            may_have_run,
            is_retryable,
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn add(&mut self, Failed(error): Failed) {
        self.may_have_run |= error.may_have_run();
        self.is_retryable |= error.is_retryable();
        if self.failed.len() == MAX_LISTED {
            // The weakest of those before it goes, and of equal ones the oldest.
            let weakest = self.failed.iter().enumerate().min_by_key(|(place, error)| (strength(error), *place));
            if let Some((place, _)) = weakest {
                self.failed.remove(place);
                self.more += 1;
            }
        }
        self.failed.push(error);
    }
}

/// What is to be known of an error in the first place.
fn strength(error: &CallError) -> (bool, bool) {
    (error.may_have_run(), error.is_retryable())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lost(node: &str) -> CallError {
        CallError::ConnectionLost { node: node.into() }
    }

    fn unreachable(node: &str) -> CallError {
        CallError::Unreachable { node: node.into(), reason: "refused".into() }
    }

    fn sum(mut errors: Vec<CallError>) -> CallError {
        let (attempts, last) = (Attempts::default(), errors.pop().unwrap());
        for error in errors {
            attempts.failed(PeerId::random(), error.into());
        }
        attempts.sum(last.into())
    }

    #[test]
    fn it_surely_did_not_run_only_if_that_is_sure_of_every_attempt() {
        for errors in [
            vec![lost("alpha"), unreachable("beta")],
            vec![unreachable("alpha"), lost("beta")],
            vec![lost("alpha"), CallError::Stopped],
            vec![lost("alpha"), CallError::Forbidden, unreachable("gamma")],
        ] {
            let count = errors.len();
            let error = sum(errors);
            assert!(error.may_have_run() && error.is_retryable(), "{error:?}");
            assert_eq!((error.code(), error.attempts().len()), ("connection_lost", count));
        }
        let error = sum(vec![unreachable("alpha"), CallError::Forbidden]);
        assert!(!error.may_have_run() && error.is_retryable() && error.code() == "unreachable", "{error:?}");
        assert_eq!(error.to_string(), "node `alpha` cannot be reached: refused; other attempts: forbidden");
    }

    #[test]
    fn one_attempt_is_its_own_error_and_an_answer_is_an_answer() {
        let error = sum(vec![unreachable("alpha")]);
        assert!(matches!(error, CallError::Unreachable { .. }) && error.attempts().len() == 1, "{error:?}");
        let (application, node, message) = ("a".into(), "n".into(), "m".into());
        let answer = CallError::Failed { application, node, code: "full".into(), message, data: None };
        let error = sum(vec![lost("alpha"), answer]);
        assert!(matches!(&error, CallError::Failed { code, .. } if code == "full"), "{error:?}");
    }

    #[test]
    fn the_time_that_was_given_is_said_of_each_attempt() {
        let slow = |node: &str| CallError::TimedOut {
            application: "a".into(),
            node: node.into(),
            after: Duration::from_micros(2_998_276),
        };
        let error = sum(vec![slow("alpha"), lost("beta"), slow("gamma")]).within(Duration::from_secs(3));
        let text = error.to_string();
        assert_eq!(text.matches("within 3s").count(), 2, "{text}");
        assert!(slow("alpha").within(Duration::from_secs(3)).to_string().contains("within 3s"));
    }

    #[test]
    fn of_many_attempts_a_few_are_listed_and_nothing_is_forgotten_that_counts() {
        let mut errors = vec![lost("first")];
        errors.extend((0..1_000).map(|number| unreachable(&format!("n{number}"))));
        let error = sum(errors);
        assert!(error.may_have_run() && error.attempts().len() == MAX_LISTED, "{error:?}");
        assert!(error.to_string().ends_with("and 985 more") && error.to_string().contains("first"), "{error}");
        let CallError::Several(attempts) = &error else { panic!("{error:?}") };
        assert_eq!(attempts.count(), 1_001);
    }
}
