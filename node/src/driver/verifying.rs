//! Records of exchanges are verified beside the loop, a slice at a time, and the neighbours that have sent them take turns:
//! neither the loop nor another neighbour waits for the longest list.

use std::{collections::HashMap, time::Instant};

use libp2p::PeerId;
use multinodes_behaviour::{RecordError, SignedRecord, SwarmName, sync, wire::Version};
use serde_bytes::ByteBuf;

use super::{Done, Driver, syncing::Asker};
use crate::{core::Counters, crew::turns::Turns, directory::Merged};

/// Records that are verified at a time, some 5 ms of a thread for blocking work, and then merged in one turn of the loop,
/// which takes about a millisecond.
const SLICE: usize = 64;

/// The first records of a message tell whether the others are worth it: of a peer that forges them no more are looked at.
const FIRST_SLICE: usize = 8;

/// So few are verified where they come in, in a tenth of a millisecond each.
const AT_ONCE: usize = 4;

/// Bytes that wait for it: of one neighbour two of the largest messages, and of all as many as of eight. What is beyond
/// that is not taken; the exchange fails, and is repeated later.
const MAX_WAITING_OF_PEER: usize = 2 * sync::MAX_REQUEST;
const MAX_WAITING: usize = 8 * MAX_WAITING_OF_PEER;

/// About what a version weighs in memory.
const VERSION: usize = 96;

/// What waits to be verified. There is one slice under way at most.
#[derive(Default)]
pub(super) struct Verifying {
    slices: Turns<Slice>,
    under_way: bool,
    /// Bytes that wait, of whom; of the slice under way as well.
    waiting: HashMap<PeerId, usize>,
    in_all: usize,
}

/// A part of the records of one message.
struct Slice {
    peer_id: PeerId,
    records: Vec<ByteBuf>,
    weight: usize,
    tell_others: bool,
    /// What follows the last part.
    then: Option<Then>,
}

/// What follows when all records of a message are merged.
pub(super) enum Then {
    /// The neighbour wants to know what it lacks.
    Level { asker: Asker, digest: ByteBuf, versions: Option<Vec<(ByteBuf, Version)>> },
    /// It wants to know that they have come.
    Acknowledge { asker: Asker },
    /// It has answered, and the exchange goes on.
    GoOn { round: u32, wanted: Vec<ByteBuf>, again: bool, more: bool },
}

/// A slice that was verified.
pub(super) struct Verified {
    slice: Slice,
    opened: Vec<Result<SignedRecord, RecordError>>,
}

impl Slice {
    fn verified(self, swarm: &SwarmName) -> Verified {
        let opened = self.records.iter().map(|bytes| SignedRecord::open(swarm, bytes)).collect();
        Verified { slice: self, opened }
    }
}

impl Then {
    fn weight(&self) -> usize {
        match self {
            Self::Level { versions, .. } => versions.as_ref().map_or(0, |versions| versions.len() * VERSION),
            Self::Acknowledge { .. } => 0,
            Self::GoOn { wanted, .. } => wanted.len() * VERSION,
        }
    }
}

impl Verifying {
    /// Whether something of a peer is being verified.
    pub(super) fn is_of(&self, peer_id: &PeerId) -> bool {
        self.waiting.contains_key(peer_id)
    }

    /// Puts a message in line. False if there is no room for it.
    fn enter(&mut self, peer_id: PeerId, records: Vec<ByteBuf>, tell_others: bool, then: Then) -> bool {
        let of_record = |record: &ByteBuf| record.len() + size_of::<ByteBuf>();
        let (rest, weight) = (then.weight(), records.iter().map(of_record).sum::<usize>());
        let of_peer = self.waiting.get(&peer_id).map_or(0, |weight| *weight) + weight + rest;
        if of_peer > MAX_WAITING_OF_PEER || self.in_all + weight + rest > MAX_WAITING {
            return false;
        }
        self.waiting.insert(peer_id, of_peer);
        self.in_all += weight + rest;
        let mut records = records.into_iter().peekable();
        let (mut then, mut size) = (Some(then), FIRST_SLICE);
        while then.is_some() {
            let records_of_slice: Vec<ByteBuf> = records.by_ref().take(size).collect();
            size = SLICE;
            let mut weight = records_of_slice.iter().map(of_record).sum();
            let then = if records.peek().is_none() { then.take() } else { None };
            weight += then.as_ref().map_or(0, Then::weight);
            self.slices.push(peer_id, Slice { peer_id, records: records_of_slice, weight, tell_others, then });
        }
        true
    }

    fn leave(&mut self, peer_id: PeerId, weight: usize) {
        self.in_all -= weight;
        if let Some(of_peer) = self.waiting.get_mut(&peer_id) {
            *of_peer -= weight;
            if *of_peer == 0 && !self.slices.has(&peer_id) {
                self.waiting.remove(&peer_id);
            }
        }
    }
}

impl Driver {
    /// Takes the records of a message. False if there is no room for them.
    pub(super) fn verify_records(
        &mut self,
        peer_id: PeerId,
        mut records: Vec<ByteBuf>,
        tell_others: bool,
        then: Then,
    ) -> bool {
        let count = records.len();
        records.truncate(self.admit_records(peer_id, count, Instant::now()));
        if records.len() <= AT_ONCE && !self.verifying.is_of(&peer_id) {
            // To hand them to another thread would take longer, and every exchange brings one: the sender's own.
            let slice = Slice { peer_id, records, weight: 0, tell_others, then: Some(then) };
            self.on_slice(slice.verified(&self.core.settings.swarm.clone()));
            return true;
        }
        let count = records.len();
        let entered = self.verifying.enter(peer_id, records, tell_others, then);
        if entered {
            self.verify_next();
        } else {
            Counters::add_many(&self.core.counters.refused_records, count);
        }
        entered
    }

    fn verify_next(&mut self) {
        while !self.verifying.under_way
            && let Some(slice) = self.verifying.slices.pop()
        {
            if self.keeps_away(&slice.peer_id) {
                // What it has sent before it went too far is not looked at, either.
                Counters::add_many(&self.core.counters.refused_records, slice.records.len());
                self.verifying.leave(slice.peer_id, slice.weight);
                continue;
            }
            self.verifying.under_way = true;
            let (peer_id, weight, swarm) = (slice.peer_id, slice.weight, self.core.settings.swarm.clone());
            self.tasks.spawn(async move {
                let verifying = tokio::task::spawn_blocking(move || Box::new(slice.verified(&swarm)));
                // Nothing that comes panics there; if it did, the message would be as one that never came.
                Done::Verified { peer_id, weight, verified: verifying.await.ok() }
            });
        }
    }

    pub(super) fn on_verified(&mut self, peer_id: PeerId, weight: usize, verified: Option<Box<Verified>>) {
        self.verifying.under_way = false;
        self.verifying.leave(peer_id, weight);
        if let Some(verified) = verified {
            self.on_slice(*verified);
        }
        self.verify_next();
    }

    fn on_slice(&mut self, Verified { slice, opened }: Verified) {
        let now = Instant::now();
        for (bytes, record) in slice.records.iter().zip(opened) {
            match record {
                Ok(signed) => self.merge(slice.peer_id, signed, bytes, slice.tell_others, now),
                Err(error) => {
                    tracing::debug!(peer_id = %slice.peer_id, %error, "a bad record");
                    self.on_bad_record(slice.peer_id, now);
                }
            }
        }
        match slice.then {
            Some(then) if !self.keeps_away(&slice.peer_id) => self.on_merged(slice.peer_id, then),
            _ => {}
        }
    }

    /// Takes a record. What is news here is told to the others, if they may not have it.
    fn merge(&mut self, source: PeerId, signed: SignedRecord, bytes: &ByteBuf, tell_others: bool, now: Instant) {
        match self.directory.on_record(signed, source, now) {
            Merged::News if tell_others => self.pass_on(bytes),
            Merged::Overtaken(version) => self.step_over(version),
            Merged::Refused => Counters::add(&self.core.counters.refused_records),
            Merged::News | Merged::Old => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(records: usize, size: usize) -> (Vec<ByteBuf>, Then) {
        (
            vec![ByteBuf::from(vec![0; size]); records],
            Then::GoOn { round: 0, wanted: Vec::new(), again: false, more: false },
        )
    }

    #[test]
    fn a_short_message_does_not_wait_behind_the_long_one_of_another() {
        let (busy, modest) = (PeerId::random(), PeerId::random());
        let mut verifying = Verifying::default();
        for (peer_id, count) in [(busy, 10_000), (busy, 1), (modest, 1)] {
            let (records, then) = message(count, 10);
            assert!(verifying.enter(peer_id, records, true, then));
        }
        let mut turns = Vec::new();
        while let Some(slice) = verifying.slices.pop() {
            assert!(slice.records.len() <= SLICE);
            turns.push((slice.peer_id, slice.then.is_some()));
            verifying.leave(slice.peer_id, slice.weight);
        }
        assert_eq!(turns[1], (modest, true));
        assert_eq!(turns.iter().filter(|(peer_id, last)| *peer_id == busy && *last).count(), 2);
        assert_eq!((verifying.in_all, verifying.waiting.len()), (0, 0));
    }

    #[test]
    fn what_waits_has_a_bound_for_one_and_for_all() {
        let mut verifying = Verifying::default();
        let mut entered = |peer_id| {
            let fits = |_: &usize| {
                let (records, then) = message(100, 1 << 16);
                verifying.enter(peer_id, records, true, then)
            };
            ((0..100).take_while(fits).count() * 100) << 16
        };
        let of_one = entered(PeerId::random());
        assert!(of_one <= MAX_WAITING_OF_PEER && of_one > 0);
        let of_all: usize = (0..100).map(|_| entered(PeerId::random())).sum();
        assert!(of_all + of_one <= MAX_WAITING && of_all > 2 * of_one);
    }
}
