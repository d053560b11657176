//! What a node has dropped or refused, and how much code has come to it.

use std::sync::atomic::Ordering::Relaxed;

use serde::Serialize;
use tokio::sync::watch;

use crate::node::Node;

impl Node {
    /// How many incoming connections have ended before it was known whose they are, from now on as it grows: in a private
    /// swarm somebody without its secret may be knocking. See [`Counters::failed_handshakes`].
    #[must_use]
    pub fn failed_handshakes(&self) -> watch::Receiver<u64> {
        self.core().counters.failed_handshakes.subscribe()
    }

    /// Counts the connections with peers that may not connect, and says so each time. See
    /// [`Counters::forbidden_connections`].
    #[must_use]
    pub fn forbidden_connections(&self) -> watch::Receiver<u64> {
        self.core().counters.forbidden_connections.subscribe()
    }

    /// What was dropped or refused since the start, and how much code has come.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let oddities = self.core().links.oddities();
        Counters {
            bad_records: self.core().counters.bad_records.load(Relaxed),
            strangers: self.core().counters.strangers.load(Relaxed),
            failed_handshakes: *self.core().counters.failed_handshakes.borrow(),
            failed_tells: self.core().registry.tally.failed_tells.load(Relaxed),
            dropped_casts: self.core().registry.tally.dropped_casts.load(Relaxed),
            unfinished_calls: self.core().counters.unfinished_calls.load(Relaxed),
            unfinished_tells: self.core().registry.tally.unfinished_tells.load(Relaxed),
            lost_tells: self.core().counters.lost_tells.load(Relaxed),
            unasked_answers: oddities.unasked,
            malformed_frames: oddities.malformed,
            stalled_lanes: oddities.stalled,
            refused_lanes: oddities.refused_lanes + self.core().counters.refused_lanes.load(Relaxed),
            refused_calls: oddities.refused_calls,
            connection_panics: self.core().counters.connection_panics.count(),
            refused_connections: self.core().counters.refused_connections.load(Relaxed),
            refused_records: self.core().counters.refused_records.load(Relaxed),
            refused_requests: self.core().counters.refused_requests.load(Relaxed),
            malformed_exchanges: self.core().counters.malformed_exchanges.load(Relaxed),
            refused_control: self.core().counters.refused_control.load(Relaxed),
            kept_away: self.core().counters.kept_away.load(Relaxed),
            longest_turn_us: self.core().counters.longest_turn.load(Relaxed),
            bad_messages: self.core().counters.bad_messages.load(Relaxed),
            repeated_messages: self.core().counters.repeated_messages.load(Relaxed),
            refused_messages: self.core().counters.refused_messages.load(Relaxed),
            missed_messages: self.core().topics.missed.load(Relaxed),
            refused_subscriptions: self.core().counters.refused_subscriptions.load(Relaxed),
            forbidden_messages: self.core().counters.forbidden_messages.load(Relaxed),
            forbidden_connections: *self.core().counters.forbidden_connections.borrow(),
            #[cfg(feature = "wasm")]
            code_fetches: self.core().counters.code_fetches.load(Relaxed),
            #[cfg(feature = "wasm")]
            code_bytes: self.core().counters.code_bytes.load(Relaxed),
        }
    }
}

/// What was dropped or refused since the node started, and how much code has come here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[non_exhaustive]
pub struct Counters {
    /// Records and signs of life whose signature, size or shape was wrong.
    pub bad_records: u64,
    /// Connections of programs that do not belong to this swarm.
    pub strangers: u64,
    /// Incoming connections that ended before it was known whose they are: in a private swarm, those without its secret.
    pub failed_handshakes: u64,
    /// Tells that applications here could not process.
    pub failed_tells: u64,
    /// Casts to applications here whose queue was full.
    pub dropped_casts: u64,
    /// Calls, and tuples of flows, that ran or waited here when the time to drain was over: known once the node was stopped.
    pub unfinished_calls: u64,
    /// Tells that were accepted here and given up when the node stopped.
    pub unfinished_tells: u64,
    /// Tells of this node that another one had accepted, and had not begun when it was lost or stopped. So many at the most:
    /// exactly so many of a host that has stopped in good order; of one that was killed, or cut off, those are counted of
    /// which this node has not heard that they were begun, and it hears that with answers alone.
    pub lost_tells: u64,
    /// Answers that came too late, or that nobody had asked for.
    pub unasked_answers: u64,
    /// Frames that could not be read.
    pub malformed_frames: u64,
    /// Lanes of peers that sent half a frame and no more, or did not read, for 30 s.
    pub stalled_lanes: u64,
    /// Lanes that peers opened beyond the limit, or too often.
    pub refused_lanes: u64,
    /// Calls and tells of other nodes that were answered with `Busy`.
    pub refused_calls: u64,
    /// Panics inside of connections: each has cost its connection, and is an error of this software.
    pub connection_panics: u64,
    /// Incoming connections beyond the limits, and those whose handshake was ended to leave room for others.
    pub refused_connections: u64,
    /// Records for which there was no room, and records and gossip beyond what a neighbour may send.
    pub refused_records: u64,
    /// Exchanges of directories that a neighbour, or its host, asked for too often, or for which there was no room.
    pub refused_requests: u64,
    /// Requests and answers of such exchanges that could not be read.
    pub malformed_exchanges: u64,
    /// Questions about the addresses of others, and packets of gossip, of a neighbour, or its host, that came too often or
    /// took too much time, and were not looked at.
    pub refused_control: u64,
    /// Peers that have sent what no node should (bad records, bad gossip, more than they may), and were kept away for a
    /// while.
    pub kept_away: u64,
    /// The longest turn of the task that owns the network so far, in microseconds: so long whatever it had to do next has
    /// waited.
    pub longest_turn_us: u64,
    /// Messages of topics whose signature, size or shape was wrong.
    pub bad_messages: u64,
    /// Messages of topics that had been here before, or came out of an earlier life of their sender.
    pub repeated_messages: u64,
    /// Messages of topics beyond what a sender may send.
    pub refused_messages: u64,
    /// Messages of topics that subscriptions here have lost, because they are read too slowly.
    pub missed_messages: u64,
    /// Subscriptions of peers to gossip that this swarm does not have.
    pub refused_subscriptions: u64,
    /// Calls and messages that their senders were not allowed to send.
    pub forbidden_messages: u64,
    /// Connections, in either direction, with peers that are not allowed to connect: refused, or ended when a rule
    /// changed or a label expired.
    pub forbidden_connections: u64,
    /// How often this node fetched code that it had not, or tried to. What came along with a request is not fetched.
    #[cfg(feature = "wasm")]
    pub code_fetches: u64,
    /// Bytes of code that have come here from other nodes, fetched or along with a request.
    #[cfg(feature = "wasm")]
    pub code_bytes: u64,
}
