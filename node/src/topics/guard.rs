//! Which messages of topics are passed on: none twice, and none of those who send too many. No clock, no network.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use libp2p::PeerId;
use multinodes_behaviour::{
    ration::{Bucket, Rate},
    wire::TopicMessage,
};

use crate::directory::MAX_NODES;

/// The most senders without a record (passive nodes, above all) that are remembered. Beyond that new ones are refused
/// until others are forgotten: letting one go early would let its messages be replayed.
const MAX_STRANGERS: usize = 8 * 1024;

/// The most senders with a record when they last sent something: as many as live at once, and as many again that have
/// gone since. Somebody may let made-up nodes come, send and go without end.
const MAX_MEMBERS: usize = 2 * MAX_NODES;

/// A sender without a record that is silent for so long is forgotten.
const FORGET: Duration = Duration::from_secs(600);

/// Messages may overtake each other by so many: what gossip has to ask for comes seconds late.
const WINDOW: u64 = 2048;

/// What a message costs beside its bytes: signatures are checked, copies are made, whatever its size.
const COST: usize = 2048;

const KIBIBYTE: f64 = 1024.0;

/// What a sender may send, in bytes a second: some 450 small messages, or 20 of the largest.
pub(crate) const MEMBER: Rate = Rate { burst: 4096.0 * KIBIBYTE, per_second: 1024.0 * KIBIBYTE };

/// What all without a record may send together: anybody can make endless peer ids.
pub(crate) const STRANGERS: Rate = Rate { burst: 1024.0 * KIBIBYTE, per_second: 256.0 * KIBIBYTE };

/// What a node sends itself: below what others take, and less at once than the queue to a neighbour has room for.
pub(crate) const OWN: Rate = Rate { burst: 512.0 * KIBIBYTE, per_second: 768.0 * KIBIBYTE };

/// What a passive node sends itself: it has to share.
pub(crate) const OWN_PASSIVE: Rate = Rate { burst: 256.0 * KIBIBYTE, per_second: 64.0 * KIBIBYTE };

/// What a message of so many bytes costs.
pub(crate) fn cost(size: usize) -> f64 {
    (size.saturating_add(COST)) as f64
}

/// What is to be done with a message whose signature is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is news: deliver it, pass it on.
    News,
    /// It was here before, or may have been, or is of an earlier life of its sender.
    Repeated,
    /// Its sender sends too much, or there are too many senders.
    TooMuch,
}

/// Remembers who has sent what.
#[derive(Debug)]
pub(crate) struct Guard {
    senders: HashMap<PeerId, Sender>,
    /// How many of them had no record when they last sent something.
    unknown: usize,
    strangers: Bucket,
}

#[derive(Debug)]
struct Sender {
    incarnation: u64,
    seen: Window,
    bucket: Bucket,
    heard: Instant,
    has_record: bool,
}

impl Guard {
    pub(crate) fn new(now: Instant) -> Self {
        Self { senders: HashMap::new(), unknown: 0, strangers: Bucket::new(STRANGERS, now) }
    }

    /// Judges a message of `size` bytes. `known` is the incarnation in the sender's record, if it has one.
    pub(crate) fn admit(
        &mut self,
        peer_id: PeerId,
        message: &TopicMessage,
        size: usize,
        known: Option<u64>,
        now: Instant,
    ) -> Verdict {
        let TopicMessage { incarnation, sequence, .. } = *message;
        let sender = self.senders.get(&peer_id);
        let earlier = |other: u64| incarnation < other;
        let repeated = sender.is_some_and(|sender| {
            earlier(sender.incarnation) || (sender.incarnation == incarnation && sender.seen.contains(sequence))
        });
        if repeated || known.is_some_and(earlier) {
            return Verdict::Repeated;
        }
        let has_record = known.is_some();
        let is_counted = sender.is_some_and(|sender| sender.has_record == has_record);
        let full = match known {
            Some(_) => self.senders.len() - self.unknown >= MAX_MEMBERS,
            None => self.unknown >= MAX_STRANGERS,
        };
        if !is_counted && full {
            return Verdict::TooMuch;
        }
        if known.is_none() && !self.strangers.take(cost(size), now) {
            return Verdict::TooMuch;
        }
        let unknown = &mut self.unknown;
        let sender = self.senders.entry(peer_id).or_insert_with(|| {
            *unknown += usize::from(!has_record);
            let (seen, bucket) = (Window::default(), Bucket::new(MEMBER, now));
            Sender { incarnation, seen, bucket, heard: now, has_record }
        });
        if std::mem::replace(&mut sender.has_record, has_record) != has_record {
            *unknown = if has_record { *unknown - 1 } else { *unknown + 1 };
        }
        if has_record && !sender.bucket.take(cost(size), now) {
            return Verdict::TooMuch;
        }
        if incarnation > sender.incarnation {
            (sender.incarnation, sender.seen) = (incarnation, Window::default());
        }
        sender.seen.insert(sequence);
        sender.heard = now;
        Verdict::News
    }

    /// Forgets those who have been silent for long and have no record.
    pub(crate) fn forget(&mut self, now: Instant, has_record: impl Fn(&PeerId) -> bool) {
        self.senders
            .retain(|peer_id, sender| now.saturating_duration_since(sender.heard) < FORGET || has_record(peer_id));
        self.unknown = self.senders.values().filter(|sender| !sender.has_record).count();
    }
}

/// Which of the latest [`WINDOW`] numbers were seen; all that are older count as seen.
#[derive(Debug)]
struct Window {
    /// One more than the highest number that was seen, 0 if there is none.
    end: u64,
    bits: [u64; (WINDOW / 64) as usize],
}

impl Default for Window {
    fn default() -> Self {
        Self { end: 0, bits: [0; (WINDOW / 64) as usize] }
    }
}

impl Window {
    fn contains(&self, number: u64) -> bool {
        if number >= self.end {
            // There is no number after the last one.
            return number == u64::MAX;
        }
        let (word, bit) = Self::place(number);
        self.end - number > WINDOW || self.bits[word] & bit != 0
    }

    fn insert(&mut self, number: u64) {
        if number >= self.end {
            if number - self.end >= WINDOW {
                self.bits = Default::default();
            } else {
                for passed in self.end..number {
                    let (word, bit) = Self::place(passed);
                    self.bits[word] &= !bit;
                }
            }
            self.end = number.saturating_add(1);
        }
        let (word, bit) = Self::place(number);
        self.bits[word] |= bit;
    }

    fn place(number: u64) -> (usize, u64) {
        let place = number % WINDOW;
        ((place / 64) as usize, 1 << (place % 64))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn message(incarnation: u64, sequence: u64) -> TopicMessage {
        TopicMessage { topic: "news".into(), incarnation, sequence, value: Default::default() }
    }

    #[test]
    fn a_message_is_news_once_in_whatever_order_they_come() {
        let now = Instant::now();
        let (mut guard, sender) = (Guard::new(now), PeerId::random());
        let mut admit =
            |incarnation, sequence, known| guard.admit(sender, &message(incarnation, sequence), 100, known, now);
        for sequence in [5, 1, 9, 2] {
            assert_eq!(admit(7, sequence, None), Verdict::News);
            assert_eq!(admit(7, sequence, None), Verdict::Repeated);
        }
        assert_eq!(admit(7, 9 + WINDOW, None), Verdict::News);
        assert_eq!(admit(7, 8, None), Verdict::Repeated, "older than what is remembered");
        assert_eq!(admit(8, 1, None), Verdict::News, "a new life begins anew");
        assert_eq!(admit(7, 5000, None), Verdict::Repeated, "an earlier life is over");
        assert_eq!(admit(8, 2, Some(9)), Verdict::Repeated, "its record is of a later life");
    }

    #[test]
    fn a_sender_that_sends_too_much_harms_itself_alone() {
        let start = Instant::now();
        let mut guard = Guard::new(start);
        let [flooding, honest] = [(); 2].map(|()| PeerId::random());
        let mut flood = |now| {
            let judged = |sequence| guard.admit(flooding, &message(1, sequence), 48 * 1024, Some(1), now);
            (1..1000).map(judged).filter(|verdict| *verdict == Verdict::News).count()
        };
        assert_eq!(flood(start), 81);
        assert_eq!(flood(start + Duration::from_secs(1)), 21);
        assert_eq!(guard.admit(honest, &message(1, 1), 48 * 1024, Some(1), start), Verdict::News);
    }

    #[test]
    fn endless_peer_ids_share_one_rate_and_one_table_and_those_with_records_are_not_touched() {
        let start = Instant::now();
        let mut guard = Guard::new(start);
        let mut now = start;
        let mut let_through = 0;
        for _ in 0..4 * MAX_STRANGERS {
            now += Duration::from_millis(5);
            let verdict = guard.admit(PeerId::random(), &message(1, 1), 200, None, now);
            let_through += usize::from(verdict == Verdict::News);
        }
        assert_eq!((guard.senders.len(), let_through), (MAX_STRANGERS, MAX_STRANGERS));
        assert_eq!(guard.admit(PeerId::random(), &message(1, 1), 200, Some(1), now), Verdict::News);
        guard.forget(now + FORGET, |_| false);
        assert!(guard.senders.is_empty());
        assert_eq!(guard.admit(PeerId::random(), &message(1, 1), 200, None, now + FORGET), Verdict::News);
    }

    #[test]
    fn many_members_keep_no_stranger_out_and_made_up_ones_that_come_and_go_are_bounded() {
        let start = Instant::now();
        let mut guard = Guard::new(start);
        let mut admit = |known| guard.admit(PeerId::random(), &message(1, 1), 200, known, start);
        let members = (0..MAX_MEMBERS + 10).filter(|_| admit(Some(1)) == Verdict::News).count();
        assert_eq!((members, admit(None)), (MAX_MEMBERS, Verdict::News));
        assert_eq!(guard.senders.len(), MAX_MEMBERS + 1);
        // Who had a record, and has none any more, is a stranger from then on; and the other way round.
        let turncoat = *guard.senders.iter().find(|(_, sender)| sender.has_record).unwrap().0;
        for (sequence, known, unknown) in [(2, None, 2), (3, Some(1), 1)] {
            assert_eq!(guard.admit(turncoat, &message(1, sequence), 200, known, start), Verdict::News);
            assert_eq!(guard.unknown, unknown);
        }
        guard.forget(start + FORGET, |peer_id| *peer_id == turncoat);
        assert_eq!((guard.senders.len(), guard.unknown), (1, 0));
    }

    #[test]
    fn a_sender_waits_for_its_turn_but_not_for_ever() {
        let start = Instant::now();
        let mut bucket = Bucket::new(OWN, start);
        let limit = Duration::from_secs(1);
        let granted: Vec<_> = std::iter::from_fn(|| bucket.reserve(cost(48 * 1024), start, limit)).collect();
        assert_eq!(granted[0], start);
        assert!(granted.is_sorted() && (20..30).contains(&granted.len()), "{}", granted.len());
        // What a node lets itself send, others take.
        let mut others = Bucket::new(MEMBER, start);
        assert!(granted.iter().all(|when| others.take(cost(48 * 1024), *when)));
    }

    proptest! {
        #[test]
        fn a_window_knows_all_that_it_has_seen(numbers in proptest::collection::vec(0..3 * WINDOW, 1..200)) {
            let (mut window, mut seen) = (Window::default(), HashSet::new());
            for number in numbers {
                let highest = seen.iter().max().copied().unwrap_or(0);
                let remembered = number + WINDOW > highest;
                prop_assert_eq!(window.contains(number), !remembered || seen.contains(&number));
                if !window.contains(number) {
                    window.insert(number);
                    seen.insert(number);
                }
            }
        }
    }
}
