//! Hosts that have just failed: set aside for a moment, longer each time, and back by themselves.
//!
//! One that cannot be reached is set aside for all applications, one that is busy or too slow for the one that was asked.
//! What is true of one action (it is forbidden, or not there) sets it aside for that action alone, and says nothing of the
//! host; that arguments are wrong says nothing even of the action.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use arc_swap::{ArcSwap, Guard};
use libp2p::PeerId;
use multinodes_behaviour::quick_hash::QuickHash;

use crate::call_error::CallError;

/// How long the first failure sets a host aside; each further one in a row doubles it.
const FIRST: Duration = Duration::from_millis(200);

/// The longest time for a host that cannot be reached, or lets everything time out: the swarm finds out by other means,
/// too.
const LONGEST: Duration = Duration::from_secs(30);

/// The longest time for one that is busy: it may have room at any moment. The same for an action that is forbidden or not
/// there: rules and applications change.
const LONGEST_BUSY: Duration = Duration::from_secs(2);

/// So many messages in a row, without any answer between them, must have timed out: a slow action is no dead host.
const SLOW_IN_A_ROW: u32 = 2;

/// How long a failure is remembered when nothing is heard of the host any more: for those who ask why.
const MEMORY: Duration = Duration::from_secs(600);

/// More peers than that are not remembered; the one that failed longest ago goes.
const MAX_PEERS: usize = 1024;

/// More failures of one peer than that are not remembered: of applications, and of actions. Those of an action go first.
const MAX_FAILURES: usize = 16;

/// Who has failed lately. Read on every message, without a lock; replaced as a whole when somebody fails or is back.
#[derive(Default)]
pub(crate) struct Asides {
    table: ArcSwap<Table>,
    changing: Mutex<()>,
}

/// What is asked of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked<'a> {
    /// To run this action.
    Action(&'a str),
    /// To take a message.
    Told,
    /// Nothing that an action has to do with.
    Nothing,
    /// Whatever it may be, for those who only look.
    Anything,
}

type Table = HashMap<PeerId, Vec<Failure>, QuickHash>;

/// The last failures of a host in a row.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    /// The application that was asked for.
    pub(crate) application: String,
    /// The action, of what concerns only that; empty for what was told.
    action: Option<String>,
    kind: Kind,
    pub(crate) node: String,
    pub(crate) error: String,
    /// When the first of them was.
    pub(crate) since: Instant,
    /// Until when nothing is sent to it if there is somebody else.
    pub(crate) until: Instant,
    times: u32,
}

/// What kind of failure it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// The node cannot be reached, or its connection broke.
    Unreachable,
    /// The application does not take anything there.
    Busy,
    /// It gives no answer in time.
    Slow,
    /// It does not let this node do that.
    Forbidden,
    /// It has no such action.
    Lacking,
}

impl Kind {
    fn of(error: &CallError) -> Option<(Self, &str)> {
        match error {
            CallError::Unreachable { node, .. } | CallError::ConnectionLost { node } => Some((Self::Unreachable, node)),
            CallError::Busy { node, .. } | CallError::NoSuchApplication { node: Some(node), .. } => {
                Some((Self::Busy, node))
            }
            CallError::TimedOut { node, .. } => Some((Self::Slow, node)),
            CallError::Forbidden => Some((Self::Forbidden, "")),
            CallError::NoSuchAction { node, .. } => Some((Self::Lacking, node)),
            _ => None,
        }
    }

    /// Whether it is true of the action that was asked for, and of nothing else.
    fn is_of_action(self) -> bool {
        matches!(self, Self::Forbidden | Self::Lacking)
    }

    /// How long the last of so many failures in a row sets a host aside.
    fn time(self, times: u32) -> Duration {
        let (before, longest) = match self {
            Self::Unreachable => (1, LONGEST),
            Self::Busy | Self::Forbidden | Self::Lacking => (1, LONGEST_BUSY),
            Self::Slow => (SLOW_IN_A_ROW, LONGEST),
        };
        let doubled = times.checked_sub(before).map(|times| FIRST.saturating_mul(1 << times.min(16)));
        doubled.unwrap_or_default().min(longest)
    }

    /// After so long without another failure a host begins anew. One that is slow does so when it answers.
    fn patience(self) -> Duration {
        match self {
            Self::Unreachable => LONGEST,
            Self::Busy | Self::Forbidden | Self::Lacking => LONGEST_BUSY,
            Self::Slow => MEMORY,
        }
    }
}

impl Failure {
    /// Whether the host itself has said that this node may not.
    pub(crate) fn is_refusal(&self) -> bool {
        self.kind == Kind::Forbidden
    }

    /// What was asked for, if it is true of nothing else: an action, or nothing for what was told.
    pub(crate) fn action(&self) -> Option<&str> {
        self.action.as_deref()
    }

    fn concerns(&self, application: &str, asked: Asked<'_>) -> bool {
        let is_asked = |action: &String| match asked {
            Asked::Action(asked) => action == asked,
            Asked::Told => action.is_empty(),
            Asked::Nothing => false,
            Asked::Anything => true,
        };
        self.kind == Kind::Unreachable || (self.application == application && self.action.as_ref().is_none_or(is_asked))
    }

    fn is_remembered(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.until) < MEMORY
    }
}

/// The table as it was when it was looked at.
pub(crate) struct Look(Guard<Arc<Table>>, Instant);

impl Look {
    /// Whether a host is set aside now.
    pub(crate) fn is_aside(&self, peer_id: &PeerId, application: &str, asked: Asked<'_>) -> bool {
        self.failure(peer_id, application, asked).is_some_and(|failure| self.1 < failure.until)
    }

    /// The failure of a host that sets it aside the longest, or has done so.
    pub(crate) fn failure(&self, peer_id: &PeerId, application: &str, asked: Asked<'_>) -> Option<&Failure> {
        let concerns = |failure: &&Failure| failure.concerns(application, asked) && failure.is_remembered(self.1);
        let failures = self.0.get(peer_id)?.iter().filter(concerns);
        failures.max_by_key(|failure| failure.until)
    }

    /// Nodes that could not be reached for an application, with what went wrong.
    pub(crate) fn unreachable(&self, application: &str) -> impl Iterator<Item = (&PeerId, &Failure)> {
        self.0.iter().filter_map(move |(peer_id, failures)| {
            let is_meant = |failure: &&Failure| {
                failure.kind == Kind::Unreachable && failure.application == application && failure.is_remembered(self.1)
            };
            Some((peer_id, failures.iter().find(is_meant)?))
        })
    }

    /// When it was looked at.
    pub(crate) fn now(&self) -> Instant {
        self.1
    }
}

impl Asides {
    /// Who is set aside now; `None` if nobody has failed lately.
    pub(crate) fn look(&self) -> Option<Look> {
        let table = self.table.load();
        if table.is_empty() { None } else { Some(Look(table, Instant::now())) }
    }

    /// What came of a message to a host.
    pub(crate) fn heard<T>(
        &self,
        peer_id: PeerId,
        application: &str,
        asked: Asked<'_>,
        outcome: &Result<T, CallError>,
    ) {
        match outcome {
            Err(error) if !is_answer(error) => {
                if let Some((kind, node)) = Kind::of(error) {
                    if kind.is_of_action() && !self.table.load().is_empty() {
                        // The host itself is well.
                        self.forget_over(&peer_id, Instant::now(), |failure| {
                            failure.action.is_none() && failure.concerns(application, asked)
                        });
                    }
                    self.failed(peer_id, node, application, asked, kind, error, Instant::now());
                }
            }
            _ if !self.table.load().is_empty() => self.answered(&peer_id, application, asked, Instant::now()),
            _ => {}
        }
    }

    #[allow(clippy::too_many_arguments, reason = "all of them are what is known of one failure")]
    fn failed(
        &self,
        peer_id: PeerId,
        node: &str,
        application: &str,
        asked: Asked<'_>,
        kind: Kind,
        error: &CallError,
        now: Instant,
    ) {
        let is_same = |failure: &Failure| failure.kind == kind && failure.concerns(application, asked);
        let known = |table: &Table| table.get(&peer_id)?.iter().find(|failure| is_same(failure)).cloned();
        let is_aside = |table: &Table| known(table).is_some_and(|failure| now < failure.until);
        // Many messages that are lost at once are one failure.
        if is_aside(&self.table.load()) {
            return;
        }
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut table = Table::clone(&self.table.load());
        if is_aside(&table) {
            return;
        }
        table.retain(|_, failures| {
            failures.retain(|failure| failure.is_remembered(now));
            !failures.is_empty()
        });
        // Whoever was well for long begins anew.
        let before = known(&table).filter(|failure| now.saturating_duration_since(failure.until) < kind.patience());
        let times = before.as_ref().map_or(1, |before| before.times.saturating_add(1));
        let time = kind.time(times);
        let action = match asked {
            Asked::Action(action) => action,
            Asked::Told | Asked::Nothing | Asked::Anything => "",
        };
        let failure = Failure {
            application: application.to_owned(),
            action: kind.is_of_action().then(|| action.to_owned()),
            kind,
            node: node.to_owned(),
            error: error.to_string(),
            since: before.map_or(now, |before| before.since),
            until: now + time,
            times,
        };
        let Failure { node, error, .. } = &failure;
        tracing::debug!(%peer_id, %node, %application, %error, ?time, times, "a host has failed and is set aside");
        make_room(&mut table, &peer_id);
        let failures = table.entry(peer_id).or_default();
        failures.retain(|failure| !is_same(failure));
        if failures.len() >= MAX_FAILURES {
            let of_action = failures.iter().position(|failure| failure.action.is_some());
            failures.remove(of_action.unwrap_or(0));
        }
        failures.push(failure);
        self.table.store(Arc::new(table));
    }

    /// Forgets the failures of a host that has come back and answers. What it answers while it is set aside had been
    /// sent before.
    fn answered(&self, peer_id: &PeerId, application: &str, asked: Asked<'_>, now: Instant) {
        self.forget_over(peer_id, now, |failure| failure.concerns(application, asked));
    }

    /// Forgets failures of a host that do not set it aside any more.
    fn forget_over(&self, peer_id: &PeerId, now: Instant, which: impl Fn(&Failure) -> bool) {
        let is_over = |failure: &Failure| which(failure) && failure.until <= now;
        if !self.table.load().get(peer_id).is_some_and(|failures| failures.iter().any(is_over)) {
            return;
        }
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut table = Table::clone(&self.table.load());
        if let Some(failures) = table.get_mut(peer_id) {
            failures.retain(|failure| !is_over(failure));
            if failures.is_empty() {
                table.remove(peer_id);
            }
        }
        self.table.store(Arc::new(table));
    }
}

/// Whether the host has worked on the message: what it said is its answer.
fn is_answer(error: &CallError) -> bool {
    matches!(
        error,
        CallError::Failed { .. }
            | CallError::Panicked { .. }
            | CallError::BadArguments { .. }
            | CallError::ResultTooLarge { .. }
            | CallError::UnexpectedResult { .. }
    )
}

fn make_room(table: &mut Table, newcomer: &PeerId) {
    if table.len() < MAX_PEERS || table.contains_key(newcomer) {
        return;
    }
    let last = |failures: &Vec<Failure>| failures.iter().map(|failure| failure.until).max();
    if let Some(oldest) = table.iter().min_by_key(|(_, failures)| last(failures)).map(|(peer_id, _)| *peer_id) {
        table.remove(&oldest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: Asked<'_> = Asked::Action("run");

    fn is_aside(asides: &Asides, peer_id: &PeerId, application: &str, now: Instant) -> bool {
        Look(asides.table.load(), now).is_aside(peer_id, application, RUN)
    }

    #[test]
    fn a_host_that_fails_again_is_set_aside_for_longer_and_comes_back_by_itself() {
        let (asides, peer_id, begin) = (Asides::default(), PeerId::random(), Instant::now());
        let error = CallError::ConnectionLost { node: "beta".into() };
        let fail = |now| asides.failed(peer_id, "beta", "test", RUN, Kind::Unreachable, &error, now);
        let aside = |now| is_aside(&asides, &peer_id, "other", now);
        fail(begin);
        // Others that are lost with it are the same failure.
        fail(begin + FIRST / 2);
        assert!(aside(begin + FIRST / 2) && !aside(begin + FIRST));
        fail(begin + FIRST);
        assert!(aside(begin + FIRST * 2) && !aside(begin + FIRST * 3));
        // What it answers while it is set aside was sent before; an answer after that clears it.
        asides.answered(&peer_id, "test", RUN, begin + FIRST * 2);
        assert!(aside(begin + FIRST * 2));
        asides.answered(&peer_id, "test", RUN, begin + FIRST * 3);
        assert!(asides.look().is_none());
        let mut now = begin;
        for _ in 0..40 {
            fail(now);
            assert!(aside(now) && !aside(now + LONGEST));
            now += LONGEST;
        }
    }

    #[test]
    fn who_is_busy_with_one_application_may_have_room_for_another() {
        let (asides, peer_id, now) = (Asides::default(), PeerId::random(), Instant::now());
        let (application, node) = ("test".to_owned(), "beta".to_owned());
        let busy = Err::<(), _>(CallError::Busy { application, node, reason: "full".into() });
        asides.heard(peer_id, "test", RUN, &busy);
        assert!(is_aside(&asides, &peer_id, "test", now) && !is_aside(&asides, &peer_id, "other", now));
        let failed = Err::<(), _>(CallError::Stopped);
        asides.heard(PeerId::random(), "test", RUN, &failed);
        assert_eq!(asides.table.load().len(), 1);
    }

    #[test]
    fn what_is_true_of_one_action_says_nothing_of_the_host_and_nothing_of_its_other_actions() {
        let (asides, peer_id) = (Asides::default(), PeerId::random());
        let aside =
            |application: &str, asked| Look(asides.table.load(), Instant::now()).is_aside(&peer_id, application, asked);
        let (application, node, reason) = ("test".to_owned(), "beta".to_owned(), String::new());
        let lacking = CallError::NoSuchAction { application: application.clone(), node: node.clone(), reason };
        for error in [CallError::Forbidden, lacking] {
            asides.heard(peer_id, "test", RUN, &Err::<(), _>(error));
            assert!(aside("test", RUN) && aside("test", Asked::Anything));
            for other in [Asked::Action("other"), Asked::Told] {
                assert!(!aside("test", other), "{other:?}");
            }
            assert!(!aside("other", RUN));
            asides.table.store(Arc::default());
        }
        asides.heard(peer_id, "test", Asked::Told, &Err::<(), _>(CallError::Forbidden));
        assert!(aside("test", Asked::Told) && !aside("test", RUN));
        let (action, reason) = ("run".to_owned(), String::new());
        let wrong = CallError::BadArguments { application, action, node, reason };
        asides.heard(peer_id, "test", RUN, &Err::<(), _>(wrong));
        assert!(!aside("test", RUN));
        // However many actions are forbidden, the failures of the host itself are kept.
        let lost = CallError::ConnectionLost { node: "beta".into() };
        asides.heard(peer_id, "test", RUN, &Err::<(), _>(lost));
        for number in 0..100 {
            let action = format!("action{number}");
            asides.heard(peer_id, "test", Asked::Action(&action), &Err::<(), _>(CallError::Forbidden));
        }
        assert_eq!(asides.table.load()[&peer_id].len(), MAX_FAILURES);
        assert!(aside("other", RUN), "it cannot be reached");
    }

    #[test]
    fn who_lets_two_in_a_row_time_out_is_set_aside_and_who_answers_between_them_is_not() {
        let (asides, peer_id, begin) = (Asides::default(), PeerId::random(), Instant::now());
        let (application, node, after) = ("test".to_owned(), "beta".to_owned(), Duration::from_secs(10));
        let error = CallError::TimedOut { application, node, after };
        let time_out = |now| asides.failed(peer_id, "beta", "test", RUN, Kind::Slow, &error, now);
        let aside = |now| is_aside(&asides, &peer_id, "test", now);
        time_out(begin);
        assert!(!aside(begin));
        asides.answered(&peer_id, "test", RUN, begin + after);
        time_out(begin + after);
        assert!(!aside(begin + after), "it has answered");
        // However long the next one had.
        time_out(begin + after * 20);
        assert!(aside(begin + after * 20) && !aside(begin + after * 20 + FIRST));
        assert!(!is_aside(&asides, &peer_id, "other", begin + after * 20), "another application may be quick");
        time_out(begin + after * 21);
        assert!(aside(begin + after * 21 + FIRST) && !aside(begin + after * 21 + FIRST * 2));
        // That it fails is an answer too.
        let now = Instant::now();
        let failed = CallError::Panicked { application: "test".into(), node: "beta".into(), reason: "p".into() };
        let slow = PeerId::random();
        asides.heard(slow, "test", RUN, &Err::<(), _>(error.clone()));
        asides.heard(slow, "test", RUN, &Err::<(), _>(failed));
        asides.heard(slow, "test", RUN, &Err::<(), _>(error.clone()));
        assert!(!is_aside(&asides, &slow, "test", Instant::now()));
        asides.heard(slow, "test", RUN, &Err::<(), _>(error));
        assert!(is_aside(&asides, &slow, "test", now));
    }

    #[test]
    fn a_failure_of_long_ago_is_told_to_nobody() {
        let (asides, peer_id, begin) = (Asides::default(), PeerId::random(), Instant::now());
        let error = CallError::ConnectionLost { node: "beta".into() };
        asides.failed(peer_id, "beta", "test", RUN, Kind::Unreachable, &error, begin);
        let told = |now| {
            let look = Look(asides.table.load(), now);
            (look.failure(&peer_id, "test", RUN).is_some(), look.unreachable("test").count())
        };
        assert_eq!(told(begin + FIRST + MEMORY / 2), (true, 1));
        // Nothing has failed since that would have made room.
        assert_eq!(told(begin + FIRST + MEMORY), (false, 0));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (asides, begin) = (Asides::default(), Instant::now());
        for number in 0..MAX_PEERS + 10 {
            let now = begin + Duration::from_millis(number as u64);
            asides.failed(PeerId::random(), "n", "test", RUN, Kind::Unreachable, &CallError::Forbidden, now);
        }
        assert_eq!(asides.table.load().len(), MAX_PEERS);
        let peer_id = PeerId::random();
        for number in 0..40 {
            asides.failed(
                peer_id,
                "n",
                &format!("app{number}"),
                RUN,
                Kind::Busy,
                &CallError::Forbidden,
                begin + MEMORY,
            );
        }
        assert_eq!(asides.table.load()[&peer_id].len(), MAX_FAILURES);
        asides.failed(
            peer_id,
            "n",
            "test",
            RUN,
            Kind::Unreachable,
            &CallError::Forbidden,
            begin + MEMORY * 2 + LONGEST,
        );
        assert_eq!(asides.table.load().len(), 1);
    }
}
