//! Whose code this node runs: nobody's, unless a rule says so.

mod text;

use std::{
    collections::BTreeMap,
    fmt,
    str::FromStr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use libp2p::PeerId;

use super::{allowance::Allowance, limits::Limits, rate::Rate};
use crate::permissions::{Caller, Permissions, Proof, Rule, RuleError};

/// Whose code this node takes, what for, and how much that may take of it.
///
/// It is asked when code comes, at each use that a guest makes of the node, and for guests that stay once a second and at
/// each start: they are stopped when no rule gives what they have any more, and are back when one does. Labels that an
/// installer had proven count until their ticket expires, also while it is gone. Whoever may install may also replace and
/// uninstall what others have installed under the same name: a condition on `application`, which is that name, says which
/// names are meant.
///
/// What a guest does is done by this node: applications here see the sender of the code as their caller, and their rules
/// are asked about it, but applications on other nodes see this node. So with `app=GLOB` a sender reaches whatever these
/// let this node do: name no applications that trust this node more than the sender.
///
/// A publisher signs the code, its name and its version. Neither the application's name, nor the configuration, nor the
/// arguments are signed: whoever has signed code chooses them. Who may install only what a publisher has signed brings no
/// version back that is older than one that was here, under any name, also after it was uninstalled and after a start; and
/// whoever installs the same version anew, with another configuration, may not uninstall it for that: whoever brought the
/// version may. What a publisher signs without a name of its own counts as one program, whatever it is: give code a name.
///
/// As a text, as in `multinodes start --allow-code`, it says who, and after a colon, separated by commas, what and within
/// which limits: `12D3KooW...:run,app=calculator,cpu=1s`. Who is any [`Rule`] (`any`, a peer id, `@FILE`, a condition on
/// `peer.labels`), or `publisher=PEER` for code that this peer has signed, whoever sends it.
///
/// | option | means |
/// |---|---|
/// | `run`, `install` | only what is named; both without either of them |
/// | `app=GLOB` | the guest may use these applications, and run in them; none without it. `*` stands for anything. Repeatable |
/// | `wall=10s`, `cpu=5s` | the time of one request, waiting included, and the time that it computes |
/// | `cpu=30s/min` | how much all guests of one sender may compute, whatever they are asked; without it `any` has this rate, and others have none |
/// | `compile=1m/10min` | how long the code of one sender may occupy the compiler |
/// | `memory=64MiB`, `size=2MiB`, `output=4MiB` | of an instance with all that is in it, of the code, and of what a guest hands out at once |
/// | `instances=16`, `complexity=1000000` | how many instances at once, and what the code may cost the compiler |
///
/// ```
/// use multinodes::CodeRule;
///
/// let rule: CodeRule = "any:run,app=calc*,cpu=500ms,memory=16MiB".parse()?;
/// assert!("any:fly".parse::<CodeRule>().is_err());
/// # drop(rule);
/// # Ok::<(), multinodes::CodeRuleError>(())
/// ```
#[derive(Clone)]
pub struct CodeRule {
    text: Arc<str>,
    who: Who,
    run: bool,
    install: bool,
    applications: Vec<String>,
    limits: Limits,
}

/// How much the guests of anybody may compute: half a core, and some seconds at once.
const ANY_RATE: Rate = Rate::new(Duration::from_secs(30), Duration::from_secs(60));

/// How long the code of one sender may occupy the compiler: the largest interpreters take 13 s.
const COMPILE_RATE: Rate = Rate::new(Duration::from_secs(60), Duration::from_secs(600));

#[derive(Debug, Clone)]
enum Who {
    Peers(Rule),
    Publisher(PeerId),
}

impl CodeRule {
    /// Code that these peers send, with the usual limits; it may use no applications.
    pub fn of(rule: impl Into<Rule>) -> Self {
        let rule = rule.into();
        Self::who(format!("{rule:?}"), Who::Peers(rule))
    }

    /// Code that this peer has signed, whoever sends it.
    #[must_use]
    pub fn publisher(publisher: PeerId) -> Self {
        Self::who(format!("publisher={publisher}"), Who::Publisher(publisher))
    }

    /// Its guests may use the applications whose names match, and run in them; `*` stands for anything. Repeatable.
    #[must_use]
    pub fn applications(mut self, glob: impl Into<String>) -> Self {
        let glob = glob.into();
        self.text = format!("{},app={glob}", self.text).into();
        self.applications.push(glob);
        self
    }

    /// Its code is run, but not installed.
    #[must_use]
    pub fn only_run(mut self) -> Self {
        self.install = false;
        self
    }

    /// Its code is installed, but not run otherwise.
    #[must_use]
    pub fn only_install(mut self) -> Self {
        self.run = false;
        self
    }

    /// How much of the node its guests may take. All that the rule admits share the number of instances.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    fn who(text: String, who: Who) -> Self {
        let (run, install, applications) = (true, true, Vec::new());
        Self { text: text.into(), who, run, install, applications, limits: Limits::default() }
    }

    /// The rule for peers in it, so that its file is read again.
    pub(crate) fn rule(&self) -> Option<&Rule> {
        if let Who::Peers(rule) = &self.who { Some(rule) } else { None }
    }

    fn admits(&self, permissions: &Permissions, request: &Request<'_>) -> bool {
        let (allowed, action, application) = match request.wish {
            Wish::Run => (self.run, "run", ""),
            Wish::RunIn(application) => (self.run && self.reaches(application), "run", application),
            Wish::Install(name) => (self.install, "install", name),
        };
        allowed
            && match &self.who {
                Who::Publisher(publisher) => request.publisher == Some(publisher),
                Who::Peers(rule) => {
                    let takes = |labels: &BTreeMap<String, String>| {
                        rule.takes(&Caller { peer_id: request.sender, labels, application, action })
                    };
                    takes(&permissions.proofs.labels(request.sender))
                        || request.proof.and_then(|proof| proof.labels(SystemTime::now())).is_some_and(takes)
                }
            }
    }

    /// Its limits, with the rates that hold where it says nothing of them.
    fn bounded(&self) -> Limits {
        let rate = if matches!(&self.who, Who::Peers(rule) if rule.is_any()) { Some(ANY_RATE) } else { None };
        let Limits { rate: given, compile, .. } = self.limits;
        Limits { rate: given.or(rate), compile: compile.or(Some(COMPILE_RATE)), ..self.limits.clone() }
    }

    /// Whether it may say another thing later on of the same request.
    fn may_change(&self) -> bool {
        self.rule().is_some_and(|rule| rule.looks_at_labels() || rule.is_file())
    }

    fn reaches(&self, application: &str) -> bool {
        self.applications.iter().any(|glob| matches(glob, application))
    }
}

impl FromStr for CodeRule {
    type Err = CodeRuleError;

    fn from_str(text: &str) -> Result<Self, CodeRuleError> {
        text::parse(text)
    }
}

/// As it is written, and the rates that hold.
impl fmt::Display for CodeRule {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Limits { rate, compile, .. } = self.bounded();
        formatter.write_str(&self.text)?;
        if let Some(rate) = rate {
            write!(formatter, ", computing {rate} for each sender")?;
        }
        compile.map_or(Ok(()), |rate| write!(formatter, ", compiling {rate} for each sender"))
    }
}

impl fmt::Debug for CodeRule {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("CodeRule").field(&self.text).finish()
    }
}

/// What somebody wants.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Wish<'a> {
    Run,
    /// Bound to this application.
    RunIn(&'a str),
    /// Under this name.
    Install(&'a str),
}

/// Who wants it, and whose code it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request<'a> {
    pub(crate) sender: &'a PeerId,
    pub(crate) publisher: Option<&'a PeerId>,
    /// What the sender had proven earlier. It could show that again at any time, so it counts as long as it is good,
    /// wherever the sender is.
    pub(crate) proof: Option<&'a Proof>,
    pub(crate) wish: Wish<'a>,
}

/// All rules of a node, each with what is taken of its limits.
pub(crate) struct Policy {
    own: PeerId,
    rules: Vec<(CodeRule, Allowance)>,
    own_allowance: Allowance,
}

/// The rule that has admitted some code; none for the node's own.
#[derive(Debug, Clone)]
pub(crate) struct Admitted {
    rule: Option<usize>,
    pub(crate) allowance: Allowance,
}

impl Policy {
    pub(crate) fn new(own: PeerId, rules: Vec<CodeRule>) -> Self {
        let rules = rules.into_iter().map(|rule| {
            let allowance = Allowance::new(rule.bounded());
            tracing::info!(%rule, "code is taken");
            (rule, allowance)
        });
        Self { own, rules: rules.collect(), own_allowance: Allowance::default() }
    }

    /// The first rule that admits it. A node may do everything with itself.
    pub(crate) fn admit(&self, permissions: &Permissions, request: &Request<'_>) -> Option<Admitted> {
        if *request.sender == self.own {
            return Some(Admitted { rule: None, allowance: self.own_allowance.clone() });
        }
        let admits = |(rule, _): &(CodeRule, Allowance)| rule.admits(permissions, request);
        let index = self.rules.iter().position(admits)?;
        Some(Admitted { rule: Some(index), allowance: self.rules[index].1.of(*request.sender) })
    }

    /// Whether anybody may bring what this peer has signed.
    pub(crate) fn trusts_publisher(&self, publisher: &PeerId) -> bool {
        self.rules.iter().any(|(rule, _)| matches!(&rule.who, Who::Publisher(named) if named == publisher))
    }

    /// Whether the rule would admit it still.
    pub(crate) fn holds(&self, permissions: &Permissions, admitted: &Admitted, request: &Request<'_>) -> bool {
        let rule = admitted.rule.and_then(|index| self.rules.get(index));
        admitted.rule.is_none() || rule.is_some_and(|(rule, _)| rule.admits(permissions, request))
    }

    /// Whether what was admitted once may not be any more without a start in between.
    pub(crate) fn may_change(&self) -> bool {
        self.rules.iter().any(|(rule, _)| rule.may_change())
    }

    /// Whether anybody but the node itself may send code.
    pub(crate) fn is_open(&self) -> bool {
        !self.rules.is_empty()
    }

    /// Whether a guest may use an application.
    pub(crate) fn reaches(&self, admitted: &Admitted, application: &str) -> bool {
        let rule = admitted.rule.and_then(|index| self.rules.get(index));
        admitted.rule.is_none() || rule.is_some_and(|(rule, _)| rule.reaches(application))
    }

    /// The rule as it is written, for people; empty for the node's own code.
    pub(crate) fn text(&self, admitted: &Admitted) -> String {
        let rule = admitted.rule.and_then(|index| self.rules.get(index));
        rule.map_or_else(String::new, |(rule, _)| rule.text.to_string())
    }
}

/// Whether a name is as the pattern says, in which `*` stands for anything.
fn matches(glob: &str, name: &str) -> bool {
    let mut parts = glob.split('*');
    let (Some(first), last) = (parts.next(), glob.rsplit('*').next().unwrap_or_default()) else { return false };
    if !glob.contains('*') {
        return glob == name;
    }
    let Some(mut rest) = name.strip_prefix(first) else { return false };
    let between: Vec<&str> = parts.collect();
    for part in &between[..between.len().saturating_sub(1)] {
        match rest.find(part) {
            Some(place) => rest = &rest[place + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

/// Why a text is no rule for code.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CodeRuleError {
    /// Who is meant cannot be read.
    #[error(transparent)]
    Rule(#[from] RuleError),
    /// The publisher is no peer id.
    #[error("`{text}` is no peer id of a publisher")]
    Publisher {
        /// As it was written.
        text: String,
    },
    /// The value of an option cannot be read.
    #[error("`{option}` is no option of a rule for code: {reason}")]
    Option {
        /// As it was written.
        option: String,
        /// What is wrong with it.
        reason: &'static str,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_anything() {
        for (glob, name, outcome) in [
            ("calculator", "calculator", true),
            ("calculator", "calculators", false),
            ("*", "", true),
            ("calc*", "calculator", true),
            ("*tor", "calculator", true),
            ("c*l*r", "calculator", true),
            ("c*x*r", "calculator", false),
            ("ab*ba", "aba", false),
            ("a*", "b", false),
        ] {
            assert_eq!(matches(glob, name), outcome, "{glob} {name}");
        }
    }

    #[test]
    fn anybody_has_half_a_core_and_peers_that_are_named_have_what_they_like_unless_a_rule_says_otherwise() {
        let shown = |text: &str| text.parse::<CodeRule>().unwrap().to_string();
        let compiling = "compiling 60s in each 10m for each sender";
        assert_eq!(shown("any:run"), format!("any:run, computing 30s in each 60s for each sender, {compiling}"));
        assert_eq!(
            shown("any:cpu=1s/min"),
            format!("any:cpu=1s/min, computing 1s in each 60s for each sender, {compiling}")
        );
        let friend = PeerId::random();
        assert_eq!(shown(&friend.to_string()), format!("{friend}, {compiling}"));
        let own = Policy::new(friend, Vec::new()).own_allowance;
        assert_eq!((own.limits().rate, own.limits().compile), (None, None));
    }

    #[test]
    fn nobody_is_admitted_unless_a_rule_says_so() {
        let (own, friend, stranger) = (PeerId::random(), PeerId::random(), PeerId::random());
        let permissions = Permissions::new(own, crate::permissions::Wishes::default());
        let rule = CodeRule::of(friend).applications("calc*").only_run();
        let policy = Policy::new(own, vec![rule, CodeRule::publisher(stranger)]);
        let admit = |sender: &PeerId, publisher: Option<&PeerId>, wish| {
            policy.admit(&permissions, &Request { sender, publisher, proof: None, wish }).is_some()
        };
        assert!(admit(&own, None, Wish::RunIn("x")) && admit(&friend, None, Wish::Run));
        assert!(admit(&friend, None, Wish::RunIn("calculator")) && !admit(&friend, None, Wish::RunIn("store")));
        assert!(!admit(&friend, None, Wish::Install("x")) && !admit(&stranger, None, Wish::Run));
        assert!(admit(&friend, Some(&stranger), Wish::Install("x")), "it is signed by a publisher");
    }
}
