//! Why a host is taken or passed over.

use std::{sync::Arc, time::Instant};

use libp2p::PeerId;
use multinodes_behaviour::names;
use serde::Serialize;

use crate::{
    app_ref::AppRef,
    description::Host,
    selection::{Asked, Failure, Look, Target},
    strategy::{Candidate, Strategy},
};

/// A host of an application, and what would become of it if a message was sent now. See [`AppRef::explain`].
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Considered {
    /// The node's name.
    pub node: String,
    /// Its peer id.
    pub peer_id: String,
    /// The application's version there, if it has one.
    pub version: Option<String>,
    /// Calls running on the node when it last gave a sign of life.
    pub load: u32,
    /// How many calls the application works on at once there, if it says so.
    pub slots: Option<u32>,
    /// What this node has sent there and what is not answered yet.
    pub in_flight: usize,
    /// The smoothed time of a round trip in milliseconds, if it is connected.
    pub round_trip: Option<f64>,
    /// Whether it would be taken.
    pub verdict: Verdict,
    /// Why, for people.
    pub reason: String,
    /// What came of the last message of this node to it that failed because of the host, unless it has answered since.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<LastError>,
}

/// Why a host has given no answer.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct LastError {
    /// The error, for people.
    pub error: String,
    /// How long it has been so, in seconds: since the first failure in a row.
    pub since: f64,
    /// For how many seconds more it is set aside; 0 if it is not.
    pub aside: f64,
}

/// Whether a host would be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Verdict {
    /// It would get the message. Whether its rules allow what is asked is known only when it is.
    Taken,
    /// It fits, but another one would get the message.
    Possible,
    /// It fits, but has just failed, was busy or too slow: it is taken only if there is nobody else.
    Aside,
    /// It fits, but has lately refused this node for want of permission, or the rules of this node do not let it connect.
    Forbidden,
    /// It is not what is wanted.
    PassedOver,
    /// It hosted the application, and is not in the swarm any more.
    Gone,
}

impl AppRef {
    /// All known hosts of the application, whether wanted or not, with the reason why each would be taken or passed over
    /// by a message sent now; and those that were lost under messages of this node in the last 10 minutes. Which one of
    /// those that fit is taken may be a matter of chance. Nothing is sent: it says what is known here.
    ///
    /// It is said for whatever may be asked of the application: what a host has lately refused of single actions is in the
    /// reason, and decides nothing. [`explain_call`](Self::explain_call) says it for one action.
    #[must_use]
    pub fn explain(&self) -> Vec<Considered> {
        self.explain_asked(Asked::Nothing)
    }

    /// As [`explain`](Self::explain), for a call of this action: a host that has just said that it forbids it, or lacks it, is
    /// passed over as a call would.
    #[must_use]
    pub fn explain_call(&self, action: &str) -> Vec<Considered> {
        self.explain_asked(Asked::Action(&names::normal(action)))
    }

    fn explain_asked(&self, asked: Asked<'_>) -> Vec<Considered> {
        let core = self.node().core();
        let aside = core.selection.asides.look();
        let hosts = self.node().hosts(self.application());
        // A message that cannot get to one host goes on to the next.
        let out_of_reach = hosts.iter().filter(|host| self.is_out_of_reach(&Candidate::alone(core, host)));
        let out_of_reach: Vec<PeerId> = out_of_reach.map(|host| host.peer_id).collect();
        let taken = self.route().pick(core, asked, &out_of_reach).ok().map(|target: Target| target.peer_id(core));
        let mut all: Vec<_> = hosts.iter().map(|host| self.consider(host, taken, aside.as_ref(), asked)).collect();
        all.extend(aside.as_ref().map(|aside| self.gone(aside, &hosts)).into_iter().flatten());
        all
    }

    fn consider(&self, host: &Arc<Host>, taken: Option<PeerId>, aside: Option<&Look>, asked: Asked<'_>) -> Considered {
        let candidate = Candidate::alone(self.node().core(), host);
        let last = aside.and_then(|aside| Last::of(aside, &host.peer_id, self.application(), asked));
        let (verdict, reason) = self.judge(&candidate, taken, last.as_ref());
        let last_error = last.map(|last| last.error);
        Considered {
            node: host.node.clone(),
            peer_id: host.peer_id.to_base58(),
            version: host.version.clone(),
            load: host.load,
            slots: host.slots,
            in_flight: candidate.in_flight(),
            round_trip: candidate.round_trip().map(|time| time.as_secs_f64() * 1000.0),
            verdict,
            reason,
            last_error,
        }
    }

    fn judge(&self, candidate: &Candidate<'_>, taken: Option<PeerId>, last: Option<&Last>) -> (Verdict, String) {
        let host = candidate.host;
        if self.is_out_of_reach(candidate) {
            return (Verdict::Possible, with_last("no address of it is known".to_owned(), last));
        }
        if taken == Some(host.peer_id) {
            return (Verdict::Taken, with_last(self.why_taken(host), last));
        }
        if let Some(reason) = self.not_wanted(host) {
            return (Verdict::PassedOver, reason);
        }
        if !host.local && self.node().core().permissions.shuns(&host.peer_id) {
            return (Verdict::Forbidden, "the rules of this node do not let it connect".to_owned());
        }
        if let Some(last) = last.filter(|last| last.decides) {
            let LastError { error, since, aside } = &last.error;
            if last.is_refusal {
                return (Verdict::Forbidden, last.text());
            }
            if *aside > 0.0 {
                let since = if *since < 1.0 { String::new() } else { format!(", failing for {since:.0} s") };
                return (Verdict::Aside, format!("set aside for {:.0} ms more{since}: {error}", aside * 1000.0));
            }
        }
        let reason = match (taken, self.route().on) {
            (None, Some(on)) => format!("`{on}` is the name of several nodes"),
            (None, None) => "the strategy takes nobody".to_owned(),
            (Some(_), _) if candidate.is_full() => "its slots are full".to_owned(),
            (Some(_), _) => "another one is taken".to_owned(),
        };
        let reason = host.trouble.iter().fold(reason, |reason, trouble| format!("{reason}; in trouble: {trouble}"));
        (Verdict::Possible, with_last(reason, last))
    }

    /// Whether a message could not get there: it is not connected, and nobody has said where it can be dialled.
    fn is_out_of_reach(&self, candidate: &Candidate<'_>) -> bool {
        let host = candidate.host;
        let core = self.node().core();
        let is_known =
            || core.snapshot.load().nodes.iter().any(|node| node.peer_id == host.peer_id && !node.addresses.is_empty());
        !host.local && candidate.round_trip().is_none() && !core.links.in_use(&host.peer_id) && !is_known()
    }

    fn why_taken(&self, host: &Host) -> String {
        let (core, route) = (self.node().core(), self.route());
        if route.on.is_some() {
            return "it is asked for".to_owned();
        }
        core.selection.with(self.application(), route.wanted.chooser, |chooser| match &chooser.strategy {
            Strategy::Custom(_) => "by the user's own strategy".to_owned(),
            _ if host.local && chooser.prefers_here() => "it is here".to_owned(),
            strategy => format!("by `{strategy:?}`"),
        })
    }

    /// Why a host is out, whatever else there is.
    fn not_wanted(&self, host: &Host) -> Option<String> {
        let route = self.route();
        let wanted = route.wanted;
        if route.on.is_some_and(|on| host.node != on && host.peer_id.to_base58() != on) {
            return Some("another node is asked for".to_owned());
        }
        if wanted.remote && host.local {
            return Some("only other nodes are asked for".to_owned());
        }
        if let Some(versions) = wanted.versions.filter(|versions| !versions.takes(host)) {
            let wanted = versions.wanted();
            return Some(match &host.version {
                Some(version) => format!("version `{version}` does not match `{wanted}`"),
                None => format!("it has no version, `{wanted}` is wanted"),
            });
        }
        if let Some(predicate) = wanted.matching.and_then(|matching| matching.first_false(host)) {
            return Some(format!("the predicate is false: `{predicate}`"));
        }
        wanted.filter.is_some_and(|filter| !filter(host)).then(|| "the filter is false".to_owned())
    }

    fn gone(&self, aside: &Look, hosts: &[Arc<Host>]) -> Vec<Considered> {
        let lost = aside.unreachable(self.application());
        let lost = lost.filter(|(peer_id, _)| !hosts.iter().any(|host| host.peer_id == **peer_id));
        lost.map(|(peer_id, failure)| {
            let last_error = LastError::of(failure, aside.now());
            Considered {
                node: failure.node.clone(),
                peer_id: peer_id.to_base58(),
                version: None,
                load: 0,
                slots: None,
                in_flight: 0,
                round_trip: None,
                verdict: Verdict::Gone,
                reason: format!("lost {:.0} s ago: {}", last_error.since, last_error.error),
                last_error: Some(last_error),
            }
        })
        .collect()
    }
}

impl LastError {
    fn of(failure: &Failure, now: Instant) -> Self {
        Self {
            error: failure.error.clone(),
            since: now.saturating_duration_since(failure.since).as_secs_f64(),
            aside: failure.until.saturating_duration_since(now).as_secs_f64(),
        }
    }
}

/// The last failure of a host, and what it means for what is asked.
struct Last {
    error: LastError,
    /// What was asked for, where it concerns only that: an action, or nothing for what was told.
    action: Option<String>,
    is_refusal: bool,
    /// It is true of what is asked now.
    decides: bool,
}

impl Last {
    fn of(aside: &Look, peer_id: &PeerId, application: &str, asked: Asked<'_>) -> Option<Self> {
        let deciding = aside.failure(peer_id, application, asked);
        let failure = deciding.or_else(|| aside.failure(peer_id, application, Asked::Anything))?;
        Some(Self {
            error: LastError::of(failure, aside.now()),
            action: failure.action().map(str::to_owned),
            is_refusal: failure.is_refusal(),
            decides: deciding.is_some(),
        })
    }

    /// What a host has answered is its answer; else it has given none.
    fn text(&self) -> String {
        let LastError { error, since, .. } = &self.error;
        match &self.action {
            Some(action) => {
                let asked = if action.is_empty() { "a tell".to_owned() } else { format!("`{action}`") };
                let said = if self.is_refusal { "`forbidden`" } else { error };
                format!("it said {said} to {asked}, first {since:.0} s ago")
            }
            None => format!("no answer since {since:.0} s ago: {error}"),
        }
    }
}

fn with_last(reason: String, last: Option<&Last>) -> String {
    match last {
        Some(last) => format!("{reason}; {}", last.text()),
        None => reason,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::{
        description::{NodeInfo, Snapshot, tests::node},
        node::Node,
    };

    #[tokio::test]
    async fn a_host_without_an_address_is_not_taken_and_another_one_is() {
        let asking = Node::builder().mdns(false).rendezvous(false).passive(true).start().await.unwrap();
        let addresses = vec!["/ip4/127.0.0.1/tcp/9".parse().unwrap()];
        let near = Arc::new(NodeInfo { addresses, ..NodeInfo::clone(&node("near", Value::Null)) });
        asking.core().snapshot.store(Arc::new(Snapshot::new(vec![near, node("far", Value::Null)])));
        // Which of two equals is taken is a matter of chance.
        for _ in 0..20 {
            let considered = asking.app("test").explain();
            let of = |name: &str| considered.iter().find(|host| host.node == name).unwrap();
            assert_eq!((of("near").verdict, of("far").verdict), (Verdict::Taken, Verdict::Possible));
            assert_eq!(of("far").reason, "no address of it is known");
        }
        let only = asking.app("test").on("far").explain();
        assert!(only.iter().all(|host| host.verdict != Verdict::Taken), "{only:?}");
        asking.stop().await;
    }
}
