//! The rules of an application, and what came out of them for whom.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
};

use libp2p::PeerId;
use multinodes_behaviour::{names, quick_hash::QuickHash, wire::MAX_NAME};

use super::{Caller, Permissions, Rule};
use crate::built_in;

/// Verdicts that are remembered for an application; beyond that it begins anew. They are worked out in microseconds.
const MAX_VERDICTS: usize = 4096;

/// What stands for the tells of an application in the text of a target.
const TELLS: &str = "tell()";

/// Who may call an application, or one of its actions, or tell it something.
///
/// The rules for an action decide about that action, those for tells about tells, and those for the application about
/// whatever has none of its own. Whom one of the rules that decide takes may; without any everybody may. What was decided
/// for a peer is remembered until its labels or a file of rules change, unless a rule looks at what is asked for, as
/// every function may.
#[derive(Debug, Clone, Default)]
pub struct Guard {
    application: Vec<Rule>,
    actions: BTreeMap<String, Vec<Rule>>,
    tells: Vec<Rule>,
}

/// What rules are about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Part {
    /// Whatever has no rules of its own.
    Application,
    Action(String),
    Tells,
}

impl Guard {
    /// One that lets everybody pass.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a rule for all that has none of its own.
    #[must_use]
    pub fn application(self, rule: impl Into<Rule>) -> Self {
        self.with(Part::Application, rule.into())
    }

    /// Adds a rule for an action, be there one of that name or not.
    #[must_use]
    pub fn action(self, action: impl Into<String>, rule: impl Into<Rule>) -> Self {
        self.with(Part::Action(names::into_normal(action.into())), rule.into())
    }

    /// Adds a rule for what is told.
    #[must_use]
    pub fn tells(self, rule: impl Into<Rule>) -> Self {
        self.with(Part::Tells, rule.into())
    }

    pub(crate) fn with(mut self, part: Part, rule: Rule) -> Self {
        match part {
            Part::Application => self.application.push(rule),
            Part::Action(action) => self.actions.entry(action).or_default().push(rule),
            Part::Tells => self.tells.push(rule),
        }
        self
    }

    pub(crate) fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.application.iter().chain(self.actions.values().flatten()).chain(&self.tells)
    }

    /// The rules for one action.
    pub(crate) fn of_action(&self, action: &str) -> &[Rule] {
        self.actions.get(action).map_or(&[], Vec::as_slice)
    }

    fn is_empty(&self) -> bool {
        self.rules().next().is_none()
    }

    /// The rules that decide.
    fn deciding(&self, action: Option<&str>) -> &[Rule] {
        let own = match action {
            Some(action) => self.actions.get(action).map_or(&[][..], Vec::as_slice),
            None => &self.tells,
        };
        if own.is_empty() { &self.application } else { own }
    }

    fn has_own(&self, action: &str) -> bool {
        self.actions.contains_key(action)
    }
}

/// What guards a hosted application: its own rules, and those of the node's operator. Both have to be met.
#[derive(Default)]
pub(crate) struct Guards {
    own: Guard,
    operators: Guard,
    guarded: bool,
    verdicts: Mutex<Verdicts>,
}

/// What a verdict is about. An action may be called anything, so none of its names stands for something else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Subject<S> {
    /// All actions without rules of their own have one verdict, so that nobody fills the table with names.
    Rest,
    Action(S),
    Tells,
}

impl Subject<&str> {
    fn is(self, other: &Subject<Box<str>>) -> bool {
        match (self, other) {
            (Self::Rest, Subject::Rest) | (Self::Tells, Subject::Tells) => true,
            (Self::Action(one), Subject::Action(other)) => *one == **other,
            _ => false,
        }
    }

    fn to_owned(self) -> Subject<Box<str>> {
        match self {
            Self::Rest => Subject::Rest,
            Self::Action(action) => Subject::Action(action.into()),
            Self::Tells => Subject::Tells,
        }
    }
}

type Known = (Subject<Box<str>>, bool);

/// What came out for whom since the last change.
#[derive(Default)]
struct Verdicts {
    epoch: u64,
    /// Some rule gives another answer for each action, so that none is remembered.
    by_request: bool,
    count: usize,
    by_peer: HashMap<PeerId, Vec<Known>, QuickHash>,
}

impl Guards {
    pub(super) fn new(own: Guard, operators: Guard) -> Self {
        let guarded = !own.is_empty() || !operators.is_empty();
        Self { own, operators, guarded, verdicts: Mutex::default() }
    }

    pub(super) fn permit(
        &self,
        permissions: &Permissions,
        application: &str,
        action: Option<&str>,
        peer_id: &PeerId,
    ) -> bool {
        if !self.guarded {
            return true;
        }
        let subject = match action {
            Some(action) if self.own.has_own(action) || self.operators.has_own(action) => Subject::Action(action),
            Some(_) => Subject::Rest,
            None => Subject::Tells,
        };
        let epoch = permissions.proofs.epoch();
        if let Some(verdict) = self.current(epoch).of(peer_id, subject) {
            return verdict;
        }
        // Not under the lock: a rule may be the user's function.
        let labels = permissions.proofs.labels(peer_id);
        let verdict =
            self.judge(&Caller { peer_id, labels: &labels, application, action: action.unwrap_or_default() }, action);
        self.current(epoch).remember(peer_id, subject, verdict);
        verdict
    }

    /// What comes out for a caller with these labels, whoever is connected. Nothing is remembered.
    pub(super) fn judge(&self, caller: &Caller<'_>, action: Option<&str>) -> bool {
        let passes = |rules: &[Rule]| rules.is_empty() || rules.iter().any(|rule| rule.takes(caller));
        passes(self.own.deciding(action)) && passes(self.operators.deciding(action))
    }

    fn current(&self, epoch: u64) -> MutexGuard<'_, Verdicts> {
        let mut verdicts = self.verdicts.lock().unwrap_or_else(PoisonError::into_inner);
        if verdicts.epoch != epoch || verdicts.count >= MAX_VERDICTS {
            let by_request = self.own.rules().chain(self.operators.rules()).any(Rule::looks_at_request);
            *verdicts = Verdicts { epoch, by_request, ..Verdicts::default() };
        }
        verdicts
    }
}

impl Verdicts {
    fn of(&self, peer_id: &PeerId, subject: Subject<&str>) -> Option<bool> {
        let verdicts = self.by_peer.get(peer_id)?;
        verdicts.iter().find(|(other, _)| subject.is(other)).map(|(_, verdict)| *verdict)
    }

    fn remember(&mut self, peer_id: &PeerId, subject: Subject<&str>, verdict: bool) {
        if !self.by_request && self.of(peer_id, subject).is_none() {
            self.by_peer.entry(*peer_id).or_default().push((subject.to_owned(), verdict));
            self.count += 1;
        }
    }
}

impl fmt::Debug for Guards {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Guards").field("own", &self.own).field("operators", &self.operators).finish()
    }
}

/// Reads what rules are about: `APPLICATION`, `APPLICATION/ACTION`, or `APPLICATION/tell()`.
pub(crate) fn target(text: &str) -> Result<(String, Part), TargetError> {
    let text = &*names::normal(text);
    let (application, part) = match text.rsplit_once('/') {
        None => (text, Part::Application),
        Some((application, TELLS)) => (application, Part::Tells),
        Some((application, action)) => (application, Part::Action(action.to_owned())),
    };
    if application.is_empty() || part == Part::Action(String::new()) {
        return Err(TargetError::Nothing { text: text.chars().take(SHOWN).collect() });
    }
    if let Err(error) = names::check("what a rule is about", text, 2 * MAX_NAME + 1) {
        return Err(TargetError::Name(error));
    }
    if let (built_in::NAME, Part::Action(action)) = (application, &part)
        && !built_in::ACTIONS.contains(&action.as_str())
    {
        return Err(TargetError::BuiltIn { action: action.chars().take(SHOWN).collect() });
    }
    Ok((application.to_owned(), part))
}

/// So much of a text that is wrong is shown, in characters.
const SHOWN: usize = 80;

/// A text does not name an application or an action of one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TargetError {
    /// It is not of that form.
    #[error("`{text}` names neither an application nor, as APPLICATION/ACTION or APPLICATION/{TELLS}, a part of one")]
    Nothing {
        /// The text, shortened.
        text: String,
    },
    /// It is no name.
    #[error(transparent)]
    Name(names::BadName),
    /// The application `node`, which every node hosts, has no such action, so that the rule would protect nothing.
    #[error("the application `{}` has no action `{action}`, only {}", built_in::NAME, built_in::ACTIONS.join(", "))]
    BuiltIn {
        /// The action, shortened.
        action: String,
    },
}

#[cfg(test)]
impl Guards {
    pub(super) fn remembered(&self) -> usize {
        self.verdicts.lock().unwrap_or_else(PoisonError::into_inner).count
    }
}
