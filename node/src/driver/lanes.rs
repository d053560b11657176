//! Opens streams for lanes, and dials for them; the lanes themselves run elsewhere.

use std::time::{Duration, Instant};

use libp2p::PeerId;
use multinodes_behaviour::lanes::{self, LaneStream, OpenError};
use tokio::sync::oneshot;

use super::{Done, Driver, Due, connections::Standing};
use crate::core::{OPEN_LIMIT, OpenFailure};

/// Requests for lanes that wait for a dial, over all peers.
const MAX_WAITING: usize = 1_024;

/// Streams being negotiated at once.
const MAX_OPENING: usize = 4_096;

pub(super) type RespondTo = oneshot::Sender<Result<LaneStream, OpenFailure>>;

/// Requests for lanes to one peer that is not connected yet, or does not serve us yet.
pub(super) struct Waiting {
    requests: Vec<(Instant, RespondTo)>,
    looked_up: bool,
    /// Why it cannot be dialled where it was said to be: the LAN may know better.
    missed: Option<OpenFailure>,
}

impl Driver {
    pub(super) fn open_lane(&mut self, peer_id: PeerId, respond_to: RespondTo) {
        if self.stopping.is_some() {
            let _ = respond_to.send(Err(OpenFailure::Stopping));
        } else if self.is_stranger(&peer_id) {
            let reason = "it does not belong to this swarm".to_owned();
            let _ = respond_to.send(Err(OpenFailure::Unreachable(reason)));
        } else if let Some(failure) = self.shunned(&peer_id).or_else(|| self.misbehaved(&peer_id)) {
            let _ = respond_to.send(Err(failure));
        } else if self.is_admitted(&peer_id) {
            self.open_stream(peer_id, respond_to);
        } else if self.waiting.values().map(|waiting| waiting.requests.len()).sum::<usize>() >= MAX_WAITING {
            let reason = "too many lanes are being opened".to_owned();
            let _ = respond_to.send(Err(OpenFailure::Unreachable(reason)));
        } else {
            self.wait_for_dial(peer_id, respond_to);
        }
    }

    fn wait_for_dial(&mut self, peer_id: PeerId, respond_to: RespondTo) {
        let deadline = Instant::now() + OPEN_LIMIT;
        let waiting = self.waiting.entry(peer_id).or_insert_with(|| Waiting {
            requests: Vec::new(),
            looked_up: false,
            missed: None,
        });
        waiting.requests.push((deadline, respond_to));
        self.timers.at(deadline, Due::LaneLimit(peer_id));
        if self.peers.contains_key(&peer_id) {
            // It is connected, and opened as soon as the peer is admitted.
        } else if self.has_address(&peer_id) {
            self.dial(peer_id);
        } else if !self.look_up_once(peer_id) && !self.await_lan(peer_id, &OpenFailure::Unknown) {
            self.fail_waiting(&peer_id, &OpenFailure::Unknown);
        }
    }

    fn open_stream(&mut self, peer_id: PeerId, respond_to: RespondTo) {
        if let Some(peer) = self.peers.get_mut(&peer_id) {
            peer.active = Instant::now();
        }
        if self.tasks.len() >= MAX_OPENING {
            let reason = "too many lanes are being opened".to_owned();
            let _ = respond_to.send(Err(OpenFailure::Unreachable(reason)));
            return;
        }
        let (opened, stream) = oneshot::channel();
        self.swarm.behaviour_mut().lanes.open(peer_id, opened);
        let serves = self.peers.get(&peer_id).is_some_and(|peer| peer.serves);
        self.tasks.spawn(async move {
            let result = match tokio::time::timeout(OPEN_LIMIT, stream).await {
                // It may be waiting for what we show.
                Ok(Ok(Err(OpenError::Unsupported))) if !serves => return Done::NotServed { peer_id, respond_to },
                Ok(Ok(result)) => result.map_err(|error| OpenFailure::Unreachable(error.to_string())),
                // Perhaps because nothing was heard on it; a dial shows it.
                Ok(Err(_)) => Err(OpenFailure::Silent("the connection was closed".to_owned())),
                Err(_) => Err(OpenFailure::Silent(format!("no answer within {OPEN_LIMIT:?}"))),
            };
            // Whoever asked may have lost interest.
            let _ = respond_to.send(result);
            Done::Lane
        });
    }

    /// A peer has refused a lane: once it serves us it is asked again.
    pub(super) fn on_not_served(&mut self, peer_id: PeerId, respond_to: RespondTo) {
        match self.peers.get(&peer_id) {
            Some(peer) if peer.serves && peer.admitted => self.open_stream(peer_id, respond_to),
            Some(peer) if peer.standing != Standing::Stranger => self.wait_for_dial(peer_id, respond_to),
            _ => drop(respond_to.send(Err(OpenFailure::Unreachable(OpenError::Unsupported.to_string())))),
        }
    }

    pub(super) fn open_waiting_lanes(&mut self, peer_id: PeerId) {
        let Some(waiting) = self.waiting.remove(&peer_id) else { return };
        for (_, respond_to) in waiting.requests {
            if !respond_to.is_closed() {
                self.open_stream(peer_id, respond_to);
            }
        }
    }

    /// The peer cannot be dialled: Kademlia, or the LAN, may know other addresses.
    pub(super) fn on_lane_dial_failed(&mut self, peer_id: PeerId, failure: &OpenFailure) {
        if self.waiting.contains_key(&peer_id) && !self.look_up_once(peer_id) && !self.await_lan(peer_id, failure) {
            self.fail_waiting(&peer_id, failure);
        }
    }

    /// Waits for what is said on the LAN, if that may still come; once.
    fn await_lan(&mut self, peer_id: PeerId, failure: &OpenFailure) -> bool {
        self.ask_lan();
        let Some(answered) = self.lan_answered().filter(|answered| *answered > Instant::now()) else { return false };
        match self.waiting.get_mut(&peer_id) {
            Some(waiting) if waiting.missed.is_none() => waiting.missed = Some(failure.clone()),
            _ => return false,
        }
        self.timers.at(answered, Due::Unheard(peer_id));
        true
    }

    /// Whether somebody wants a lane to a peer that was not found where it was said to be.
    pub(super) fn is_awaited(&self, peer_id: &PeerId) -> bool {
        self.waiting.get(peer_id).is_some_and(|waiting| waiting.missed.is_some())
    }

    /// Nobody has said on the LAN where the peer is, or it is being dialled there.
    pub(super) fn on_unheard(&mut self, peer_id: &PeerId) {
        if self.peers.contains_key(peer_id) || self.dials.contains_key(peer_id) {
            return;
        }
        if let Some(failure) = self.waiting.get(peer_id).and_then(|waiting| waiting.missed.clone()) {
            self.fail_waiting(peer_id, &failure);
        }
    }

    fn look_up_once(&mut self, peer_id: PeerId) -> bool {
        match self.waiting.get_mut(&peer_id) {
            Some(waiting) if !waiting.looked_up => waiting.looked_up = true,
            _ => return false,
        }
        self.look_up(peer_id)
    }

    /// Kademlia has said what it knows of a peer.
    pub(super) fn on_looked_up(&mut self, peer_id: PeerId) {
        if !self.waiting.contains_key(&peer_id) {
            return;
        }
        if self.has_address(&peer_id) {
            self.dial(peer_id);
        } else if !self.await_lan(peer_id, &OpenFailure::Unknown) {
            self.fail_waiting(&peer_id, &OpenFailure::Unknown);
        }
    }

    pub(super) fn on_lane_limit(&mut self, peer_id: &PeerId, now: Instant) {
        let Some(waiting) = self.waiting.get_mut(peer_id) else { return };
        let late = now + Duration::from_millis(1);
        let (over, left) = waiting.requests.drain(..).partition(|(deadline, _)| *deadline <= late);
        waiting.requests = left;
        match waiting.requests.iter().map(|(deadline, _)| *deadline).min() {
            Some(next) => self.timers.at(next, Due::LaneLimit(*peer_id)),
            None => drop(self.waiting.remove(peer_id)),
        }
        let over: Vec<(Instant, RespondTo)> = over;
        for (_, respond_to) in over {
            let _ = respond_to.send(Err(OpenFailure::Silent(format!("no connection within {OPEN_LIMIT:?}"))));
        }
    }

    pub(super) fn fail_lane(&mut self, peer_id: &PeerId, reason: &str) {
        self.fail_waiting(peer_id, &OpenFailure::Unreachable(reason.to_owned()));
    }

    fn fail_waiting(&mut self, peer_id: &PeerId, failure: &OpenFailure) {
        if !self.directory.is_live(peer_id) {
            self.forget_link(peer_id);
        }
        for (_, respond_to) in self.waiting.remove(peer_id).into_iter().flat_map(|waiting| waiting.requests) {
            let _ = respond_to.send(Err(failure.clone()));
        }
    }

    pub(super) fn fail_lanes(&mut self, failure: &OpenFailure) {
        let peer_ids: Vec<PeerId> = self.waiting.keys().copied().collect();
        for peer_id in peer_ids {
            self.fail_waiting(&peer_id, failure);
        }
    }

    pub(super) fn on_lane(&mut self, event: lanes::Event) {
        let lanes::Event { peer_id, stream, .. } = event;
        if self.is_stranger(&peer_id) || !self.admits_lane(peer_id, Instant::now()) {
            return;
        }
        self.welcome(peer_id);
        if let Some(peer) = self.peers.get_mut(&peer_id) {
            peer.active = Instant::now();
        }
        self.core.accept(peer_id, stream);
    }
}
