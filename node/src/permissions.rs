//! Who may connect, and who may call what.
//!
//! A [`Rule`] says whether a peer is meant: by its peer id, or by labels that somebody whom this node trusts has signed
//! into the ticket with which the peer has joined. Rules for connections are asked when a connection is established
//! (by the [gate](multinodes_behaviour::gate)), those for calls before a call is taken in. This node itself may do
//! everything.

mod caller;
mod guard;
mod proofs;
mod rule;
mod rule_file;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::SystemTime,
};

use libp2p::PeerId;
use multinodes_behaviour::gate::{Admission, Doorkeeper};

use self::rule_file::RuleFile;
pub use self::{
    caller::Caller,
    guard::{Guard, TargetError},
    rule::{Rule, RuleError},
    rule_file::{MAX_RULE_FILE, RuleFileError},
};
pub(crate) use self::{
    guard::{Guards, Part, target},
    proofs::{Proof, Proofs},
};

/// What was asked of the builder.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wishes {
    pub(crate) allow: Vec<Rule>,
    pub(crate) deny: Vec<Rule>,
    /// By application.
    pub(crate) calls: BTreeMap<String, Guard>,
    pub(crate) trusted: Vec<PeerId>,
    #[cfg(feature = "wasm")]
    pub(crate) code: crate::code::workshop::CodeWishes,
}

impl Wishes {
    fn rules(&self) -> impl Iterator<Item = &Rule> {
        let rules = self.allow.iter().chain(&self.deny).chain(self.calls.values().flat_map(Guard::rules));
        #[cfg(feature = "wasm")]
        let rules = rules.chain(self.code.rules.iter().filter_map(crate::code::CodeRule::rule));
        rules
    }
}

/// The permissions of one node.
pub(crate) struct Permissions {
    own: PeerId,
    wishes: Wishes,
    pub(crate) proofs: Proofs,
    /// Some rule looks at labels: peers have to show what they have before they are served.
    needs_proof: AtomicBool,
    /// The files in the rules of applications, as long as these are hosted.
    files: Mutex<Vec<Weak<RuleFile>>>,
}

impl Permissions {
    pub(crate) fn new(own: PeerId, wishes: Wishes) -> Self {
        let needs_proof = wishes.rules().any(Rule::looks_at_labels);
        let trusted = wishes.trusted.iter().copied().chain([own]).collect();
        let needs_proof = AtomicBool::new(needs_proof);
        Self { own, wishes, proofs: Proofs::new(trusted), needs_proof, files: Mutex::default() }
    }

    /// What guards an application that is registered under a name: its own rules and those of the node's operator.
    pub(crate) fn guards(&self, application: &str, own: Guard) -> Guards {
        if own.rules().any(Rule::looks_at_labels) {
            self.needs_proof.store(true, SeqCst);
        }
        let mut files = self.files();
        files.retain(|file| file.strong_count() > 0);
        files.extend(own.rules().filter_map(Rule::as_file).map(Arc::downgrade));
        let mut operators = self.wishes.calls.get(application).cloned().unwrap_or_default();
        // A name with a `/` in it is read as an action of another application: it is meant either way.
        if let Some((other, action)) = application.rsplit_once('/')
            && let Some(guard) = self.wishes.calls.get(other)
        {
            operators = guard.of_action(action).iter().fold(operators, |guard, rule| guard.application(rule.clone()));
        }
        Guards::new(own, operators)
    }

    /// Whether a peer may call an action of an application, or tell it something if no action is named.
    pub(crate) fn permits(&self, guards: &Guards, application: &str, action: Option<&str>, peer_id: &PeerId) -> bool {
        *peer_id == self.own || guards.permit(self, application, action, peer_id)
    }

    /// Whether somebody on whose behalf another peer asks may call an action: by what it has proven on a connection of
    /// its own, or by the proof that came along with what it has signed.
    pub(crate) fn permits_originator(
        &self,
        guards: &Guards,
        application: &str,
        action: &str,
        peer_id: &PeerId,
        proof: &Proof,
    ) -> bool {
        if self.permits(guards, application, Some(action), peer_id) {
            return true;
        }
        let labels = proof.labels(SystemTime::now()).filter(|labels| !labels.is_empty());
        labels.is_some_and(|labels| guards.judge(&Caller { peer_id, labels, application, action }, Some(action)))
    }

    /// Whether a peer may be connected, by what is known of it.
    pub(crate) fn admits(&self, peer_id: &PeerId) -> bool {
        let labels = self.proofs.labels(peer_id);
        let caller = Caller { peer_id, labels: &labels, application: "", action: "" };
        let Wishes { allow, deny, .. } = &self.wishes;
        (allow.is_empty() || allow.iter().any(|rule| rule.takes(&caller)))
            && !deny.iter().any(|rule| rule.may_take(&caller))
    }

    /// Whether a peer may surely not be connected, whatever it proves.
    pub(crate) fn shuns(&self, peer_id: &PeerId) -> bool {
        let Wishes { allow, deny, .. } = &self.wishes;
        (!allow.is_empty() || !deny.is_empty()) && self.decide(peer_id) == Admission::Denied
    }

    /// Reads the files with rules that have changed. Takes the disk's time.
    ///
    /// Whether one of them is another now.
    pub(crate) fn reload(&self) -> bool {
        let own: Vec<Arc<RuleFile>> = self.files().iter().filter_map(Weak::upgrade).collect();
        let files = || self.wishes.rules().filter_map(Rule::as_file).chain(&own);
        // All of them, not only up to the first that has changed.
        let changed = files().filter(|file| file.reload()).count() > 0;
        if changed {
            if files().any(|file| file.rules().look_at_labels()) {
                self.needs_proof.store(true, SeqCst);
            }
            self.proofs.renew();
        }
        changed
    }

    /// Whether there are files that may change.
    pub(crate) fn has_files(&self) -> bool {
        self.wishes.rules().any(|rule| rule.as_file().is_some()) || !self.files().is_empty()
    }

    fn files(&self) -> MutexGuard<'_, Vec<Weak<RuleFile>>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Doorkeeper for Permissions {
    fn decide(&self, peer_id: &PeerId) -> Admission {
        let Wishes { allow, deny, .. } = &self.wishes;
        if self.proofs.has_shown(peer_id) {
            return if self.admits(peer_id) { Admission::Admitted } else { Admission::Denied };
        }
        // By the peer id alone: labels are not known yet.
        let labels = BTreeMap::new();
        let caller = Caller { peer_id, labels: &labels, application: "", action: "" };
        let (by_proof, by_id): (Vec<&Rule>, Vec<&Rule>) = deny.iter().partition(|rule| rule.looks_at_labels());
        let hopeless = !allow.is_empty() && !allow.iter().any(|rule| rule.looks_at_labels() || rule.takes(&caller));
        if hopeless || by_id.iter().any(|rule| rule.may_take(&caller)) {
            return Admission::Denied;
        }
        let sure = allow.is_empty() || allow.iter().any(|rule| !rule.looks_at_labels() && rule.takes(&caller));
        if sure && by_proof.is_empty() && !self.needs_proof.load(SeqCst) {
            return Admission::Admitted;
        }
        Admission::Pending
    }
}

impl std::fmt::Debug for Permissions {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Permissions").field("wishes", &self.wishes).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
