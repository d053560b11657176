//! The way to a host that may be silent: while another one could take the message, nobody waits long for a lane.

use std::{
    convert::Infallible,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{StreamExt, stream::FuturesUnordered};
use libp2p::PeerId;
use multinodes_behaviour::lane::{Exchange, LaneError};

use super::{Kind, Route, Time};
use crate::{
    attempts::Attempts, call_error::CallError, core::Core, description::NodeInfo, payload::Payload, selection::Target,
};

/// To dial a host and to open a lane takes about so many round trips, with some to spare.
const ROUND_TRIPS: u32 = 8;

/// A host whose distance is not known has so long before another one is tried beside it.
const UNKNOWN: Duration = Duration::from_secs(1);

/// Not sooner: any host may be busy for so long.
const LEAST: Duration = Duration::from_millis(200);

/// One host may take up one part in so many of the time that is left.
const SHARE: u32 = 3;

/// How long a host may be silent before another one is tried beside it.
fn patience(round_trip: Option<Duration>, left: Duration) -> Duration {
    round_trip.map_or(UNKNOWN, |time| time * ROUND_TRIPS).min(left / SHARE).max(LEAST)
}

/// How a message gets to its target.
pub(super) enum Way {
    /// A lane of this exchange is open.
    Open(Arc<Exchange>),
    /// It has to be found, if there is one to be found.
    Any,
}

impl Route<'_> {
    /// The way to this target, if a message needs to wait for no lane.
    pub(super) fn way(&self, core: &Core, target: &Target, payload: &Payload) -> Option<Way> {
        let size = payload.as_bytes().len();
        match target {
            // What is too large is refused before anything is opened.
            _ if size > core.settings.max_message => Some(Way::Any),
            Target::Here(_) => Some(Way::Any),
            Target::There(info) => core.links.open(&info.peer_id, size).map(Way::Open),
        }
    }

    /// Gives a host to which a message can go at once: `first`, or, if that is silent, whoever's lane is open first of it
    /// and others that are tried beside it. Nothing is sent by this, so nothing can be sent twice. `None` if none of them
    /// can be reached; why is noted in `attempts`.
    pub(super) async fn opened(
        &self,
        first: Target,
        kind: Kind<'_>,
        payload: &Payload,
        time: Time,
        attempts: &Attempts,
    ) -> Option<Target> {
        let core = self.node.core();
        let size = payload.as_bytes().len();
        let open = |info: Arc<NodeInfo>| async move {
            let opened = self.open(core, &info, size, time.deadline).await;
            (info, opened)
        };
        let next = || attempts.claim(|tried| self.pick(core, kind.asked(), tried), |target| target.peer_id(core));
        attempts.take(first.peer_id(core));
        let mut opening = FuturesUnordered::new();
        let mut waiting = Waiting { attempts, peers: Vec::new() };
        let mut target = Some(first);
        let mut until = Instant::now();
        loop {
            match target.take() {
                Some(Target::There(info)) => {
                    let left = time.deadline.saturating_duration_since(Instant::now());
                    until = Instant::now() + patience(core.selection.round_trips.of(&info.peer_id), left);
                    waiting.peers.push(info.peer_id);
                    opening.push(open(info));
                }
                Some(here) => return Some(here),
                None if opening.is_empty() => return None,
                None => {}
            }
            tokio::select! {
                biased;
                Some((info, opened)) = opening.next() => {
                    waiting.peers.retain(|peer_id| *peer_id != info.peer_id);
                    let Err(error) = opened else { return Some(Target::There(info)) };
                    self.unopened(core, &info, error, kind, time, attempts);
                    target = if Instant::now() < time.deadline { next() } else { None };
                }
                () = tokio::time::sleep_until(until.into()) => {
                    target = next();
                    if target.is_some() {
                        self.set_aside(core, &waiting.peers, kind);
                    }
                    until = Instant::now() + LEAST;
                }
            }
        }
    }

    /// Has a lane opened to this host, if there is none. A host of which nothing is heard is not waited for any longer than while
    /// another one could take the message: whoever asks has others, or asks again.
    pub(crate) async fn reach(&self, info: &NodeInfo, kind: Kind<'_>, payload: &Payload) -> Result<(), CallError> {
        let (core, time) = (self.node.core(), self.time()?);
        let now = Instant::now();
        let patience =
            patience(core.selection.round_trips.of(&info.peer_id), time.deadline.saturating_duration_since(now));
        let until = time.deadline.min(now + patience);
        let opened = self.open(core, info, payload.as_bytes().len(), until).await;
        opened.map_err(|error| self.unreachable(core, info, error, kind, time))
    }

    async fn open(&self, core: &Core, info: &NodeInfo, size: usize, deadline: Instant) -> Result<(), LaneError> {
        match core.links.with(info.peer_id) {
            Some(exchange) => exchange.open(size, deadline).await,
            None => Err(LaneError::NotOpened("this node is stopping".to_owned())),
        }
    }

    /// Notes a host that cannot be reached.
    fn unopened(
        &self,
        core: &Core,
        info: &NodeInfo,
        error: LaneError,
        kind: Kind<'_>,
        time: Time,
        attempts: &Attempts,
    ) {
        let peer_id = info.peer_id;
        let silent = matches!(error, LaneError::Silent(_));
        let error = self.unreachable(core, info, error, kind, time);
        tracing::debug!(%peer_id, %error, silent, "no lane to a host");
        if silent { attempts.silent(peer_id, error.into()) } else { attempts.failed(peer_id, error.into()) }
    }

    /// What a lane that was not opened comes to, also for whoever chooses among hosts.
    fn unreachable(&self, core: &Core, info: &NodeInfo, error: LaneError, kind: Kind<'_>, time: Time) -> CallError {
        let outcome = Err::<Infallible, _>(CallError::of_lane(error, &self.attempt(kind, &info.name, time)));
        core.selection.asides.heard(info.peer_id, self.application, kind.asked(), &outcome);
        let Err(error) = outcome;
        error
    }

    /// Hosts of which nothing is heard are set aside while they are waited for.
    fn set_aside(&self, core: &Core, peers: &[PeerId], kind: Kind<'_>) {
        let snapshot = core.snapshot.load();
        for info in peers.iter().filter_map(|peer_id| snapshot.by_peer.get(peer_id)) {
            let reason = "nothing is heard of it while a lane is being opened".to_owned();
            let silent = Err::<(), _>(CallError::Unreachable { node: info.name.clone(), reason });
            core.selection.asides.heard(info.peer_id, self.application, kind.asked(), &silent);
        }
    }
}

/// Hosts whose lanes are being opened. When it is dropped nothing was sent to those that are left, so that they may be tried
/// again.
struct Waiting<'a> {
    attempts: &'a Attempts,
    peers: Vec<PeerId>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        for peer_id in &self.peers {
            self.attempts.release(peer_id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_host_gets_a_share_of_the_time_and_no_less_than_a_busy_one_needs() {
        let (seconds, millis) = (Duration::from_secs, Duration::from_millis);
        assert_eq!(patience(None, seconds(10)), seconds(1));
        assert_eq!(patience(Some(millis(1)), seconds(10)), LEAST);
        assert_eq!(patience(Some(millis(50)), seconds(10)), millis(400));
        assert_eq!(patience(Some(seconds(1)), seconds(3)), seconds(1));
        assert_eq!(patience(None, millis(1_500)), millis(500));
        assert_eq!(patience(None, millis(90)), LEAST);
    }
}
