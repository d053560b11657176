//! When something is asked and answered by one address family of one interface. Pure: whoever calls says what time it is.

use std::time::{Duration, Instant};

use libp2p::Multiaddr;

use crate::ration::{Bucket, Rate};

/// Pauses before the first questions: packets are lost, or come before a switch has noticed the cable.
const FIRST: [Duration; 4] =
    [Duration::ZERO, Duration::from_millis(100), Duration::from_secs(1), Duration::from_secs(4)];

/// If nobody has asked for so long, a question is due: everybody hears what is answered, whoever has asked.
const QUERY_INTERVAL: Duration = Duration::from_secs(60);

/// Those that heard the same question do not ask again at the same time.
const QUERY_SPREAD: Duration = Duration::from_secs(10);

/// Questions in this time get one answer: everybody hears it.
const ANSWER_GAP: Duration = Duration::from_millis(100);

/// Packets that are read. Hundreds may answer one question at once; the rest comes from somebody who floods the LAN.
const PACKETS: Rate = Rate { burst: 1_024.0, per_second: 256.0 };

#[derive(Debug)]
pub(super) struct Way {
    /// Where this node is reached by it.
    pub(super) told: Vec<Multiaddr>,
    /// How many of the first questions were asked.
    asked: usize,
    next_question: Instant,
    answer: Option<Instant>,
    answered: Option<Instant>,
    packets: Bucket,
}

impl Way {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            told: Vec::new(),
            asked: 0,
            next_question: now,
            answer: None,
            answered: None,
            packets: Bucket::new(PACKETS, now),
        }
    }

    /// Asks again as at first: something has changed.
    pub(super) fn begin(&mut self, now: Instant) {
        self.asked = 0;
        self.next_question = now;
    }

    /// Whether one more packet is read.
    pub(super) fn takes(&mut self, now: Instant) -> bool {
        self.packets.take(1.0, now)
    }

    /// Somebody has asked, maybe this node itself.
    pub(super) fn on_question(&mut self, now: Instant) {
        if self.asked >= FIRST.len() {
            self.next_question = now + rested();
        }
        if !self.told.is_empty() && self.answer.is_none() {
            self.answer = Some(self.answered.map_or(now, |last| now.max(last + ANSWER_GAP)));
        }
    }

    /// Whether a question is due. With `enough` found the first ones are not repeated.
    pub(super) fn asks(&mut self, enough: bool, now: Instant) -> bool {
        if now < self.next_question {
            return false;
        }
        let first = self.asked < FIRST.len();
        let needless = first && enough && self.asked > 0;
        self.asked = self.asked.saturating_add(1);
        self.next_question = now + FIRST.get(self.asked).copied().unwrap_or_else(rested);
        !needless
    }

    /// Whether an answer is due.
    pub(super) fn answers(&mut self, now: Instant) -> bool {
        let due = self.answer.is_some_and(|due| due <= now);
        if due {
            self.answer = None;
            self.answered = Some(now);
        }
        due
    }

    pub(super) fn next(&self) -> Instant {
        self.answer.map_or(self.next_question, |answer| answer.min(self.next_question))
    }
}

fn rested() -> Duration {
    QUERY_INTERVAL + QUERY_SPREAD.mul_f64(rand::random_range(0.0..1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// When something is asked in so many seconds.
    fn questions(way: &mut Way, start: Instant, seconds: u32, enough: bool) -> Vec<u64> {
        let moments = (0..seconds * 20).map(|step| start + Duration::from_millis(50) * step);
        let asked = moments.filter(|now| way.asks(enough, *now));
        asked.map(|now| now.duration_since(start).as_millis() as u64).collect()
    }

    #[test]
    fn the_first_questions_come_soon_and_the_others_seldom() {
        let start = Instant::now();
        let asked = questions(&mut Way::new(start), start, 180, false);
        assert_eq!(asked[..4], [0, 100, 1_100, 5_100]);
        assert!((2..=3).contains(&(asked.len() - 4)), "{asked:?}");
        assert_eq!(questions(&mut Way::new(start), start, 60, true), [0], "who has found many asks once");
    }

    #[test]
    fn whoever_hears_a_question_does_not_ask_the_same() {
        let start = Instant::now();
        let mut way = Way::new(start);
        questions(&mut way, start, 10, false);
        let heard = start + Duration::from_secs(60);
        way.on_question(heard);
        assert!(questions(&mut way, heard, 59, false).is_empty());
        assert_eq!(questions(&mut way, heard + QUERY_INTERVAL, 12, false).len(), 1);
    }

    #[test]
    fn a_crowd_of_questions_gets_few_answers_and_who_is_nowhere_gives_none() {
        let start = Instant::now();
        let answers = |way: &mut Way| {
            let moments = (0..1_000).map(|millis| start + Duration::from_millis(millis));
            moments
                .filter(|now| {
                    way.on_question(*now);
                    way.answers(*now)
                })
                .count()
        };
        let mut way = Way::new(start);
        assert_eq!(answers(&mut way), 0);
        way.told = vec!["/ip4/10.0.0.1/tcp/1".parse().unwrap()];
        assert_eq!(answers(&mut way), 10);
    }

    #[test]
    fn of_a_flood_of_packets_some_are_read() {
        let start = Instant::now();
        let mut way = Way::new(start);
        assert_eq!((0..10_000).filter(|_| way.takes(start)).count(), 1_024);
        assert!(way.takes(start + Duration::from_secs(1)));
    }
}
