//! Why a host is taken or passed over.

use std::{sync::Arc, time::Instant};

use serde::Serialize;

use crate::{
    app_ref::AppRef,
    description::Host,
    selection::{Look, Target},
    strategy::Candidate,
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
}

/// Whether a host would be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Verdict {
    /// It would get the message.
    Taken,
    /// It fits, but another one would get the message.
    Possible,
    /// It fits, but has just failed or was busy: it is taken only if there is nobody else.
    Aside,
    /// It is not what is wanted.
    PassedOver,
    /// It hosted the application, and is not in the swarm any more.
    Gone,
}

impl AppRef {
    /// All known hosts of the application, whether wanted or not, with the reason why each would be taken or passed over
    /// by a message sent now; and those that were lost under messages of this node in the last minutes. Which one of
    /// those that fit is taken may be a matter of chance.
    #[must_use]
    pub fn explain(&self) -> Vec<Considered> {
        let (core, route) = (self.node().core(), self.route());
        let aside = core.selection.asides.look();
        let taken = route.pick(core, &[]).ok().map(|target: Target| target.peer_id(core));
        let strategy =
            core.selection.with(self.application(), route.wanted.chooser, |chooser| format!("{:?}", chooser.strategy));
        let hosts = self.node().hosts(self.application());
        let mut all: Vec<_> = hosts
            .iter()
            .map(|host| {
                let (verdict, reason) = if taken == Some(host.peer_id) {
                    (Verdict::Taken, if host.local { "it is here".to_owned() } else { format!("by `{strategy}`") })
                } else {
                    self.passed_over(host, aside.as_ref())
                };
                let candidate = Candidate::alone(core, host);
                Considered {
                    node: host.node.clone(),
                    peer_id: host.peer_id.to_base58(),
                    version: host.version.clone(),
                    load: host.load,
                    slots: host.slots,
                    in_flight: candidate.in_flight(),
                    round_trip: candidate.round_trip().map(|time| time.as_secs_f64() * 1000.0),
                    verdict,
                    reason: if verdict == Verdict::Possible && candidate.is_full() {
                        "its slots are full".to_owned()
                    } else {
                        reason
                    },
                }
            })
            .collect();
        all.extend(aside.as_ref().map(|aside| self.gone(aside, &hosts)).into_iter().flatten());
        all
    }

    fn passed_over(&self, host: &Host, aside: Option<&Look>) -> (Verdict, String) {
        let route = self.route();
        let wanted = route.wanted;
        let not_wanted = if route.on.is_some_and(|on| host.node != on && host.peer_id.to_base58() != on) {
            Some("another node is asked for".to_owned())
        } else if wanted.remote && host.local {
            Some("only other nodes are asked for".to_owned())
        } else if wanted.versions.is_some_and(|versions| !versions.takes(host)) {
            let version = host.version.as_deref();
            let why = |version| format!("version `{version}` does not match");
            Some(version.map_or_else(|| "it has no version".to_owned(), why))
        } else if wanted.matching.is_some_and(|matching| !matching.takes(host)) {
            Some("the predicate is false".to_owned())
        } else if wanted.filter.is_some_and(|filter| !filter(host)) {
            Some("the filter is false".to_owned())
        } else {
            None
        };
        if let Some(reason) = not_wanted {
            return (Verdict::PassedOver, reason);
        }
        let failure = aside.and_then(|aside| {
            let failure = aside.failure(&host.peer_id, self.application())?;
            (aside.now() < failure.until).then(|| {
                let left = failure.until.saturating_duration_since(aside.now()).as_millis();
                format!("set aside for {left} ms more: {}", failure.error)
            })
        });
        match failure {
            Some(reason) => (Verdict::Aside, reason),
            None => (Verdict::Possible, "another one is taken".to_owned()),
        }
    }

    fn gone(&self, aside: &Look, hosts: &[Arc<Host>]) -> Vec<Considered> {
        let lost = aside.unreachable(self.application());
        let lost = lost.filter(|(peer_id, _)| !hosts.iter().any(|host| host.peer_id == **peer_id));
        lost.map(|(peer_id, failure)| Considered {
            node: failure.node.clone(),
            peer_id: peer_id.to_base58(),
            version: None,
            load: 0,
            slots: None,
            in_flight: 0,
            round_trip: None,
            verdict: Verdict::Gone,
            reason: format!("lost {} s ago: {}", seconds_since(failure.since), failure.error),
        })
        .collect()
    }
}

fn seconds_since(then: Instant) -> u64 {
    then.elapsed().as_secs()
}
