//! Tells that were accepted: how many of them are begun. Their host says so on frames that go anyway, and their sender
//! keeps it, so that it knows how many were lost with a host.

use std::sync::atomic::{
    AtomicU64,
    Ordering::{Relaxed, SeqCst},
};

use crate::wire::{Begun, Frame};

/// The tells of one peer that this side has accepted. The lanes that the peer has opened tell it how many are begun.
#[derive(Debug, Default)]
pub struct Tells {
    incarnation: u64,
    accepted: AtomicU64,
    begun: AtomicU64,
    /// How many are begun, as the peer was told last.
    told: AtomicU64,
}

impl Tells {
    /// None yet, in this life of the node.
    #[must_use]
    pub fn new(incarnation: u64) -> Self {
        Self { incarnation, ..Self::default() }
    }

    /// One is in its application's queue: it is going to be answered by `accepted`.
    pub fn accept(&self) {
        self.accepted.fetch_add(1, SeqCst);
    }

    /// One is handed to its application.
    pub fn begin(&self) {
        self.begun.fetch_add(1, SeqCst);
    }

    /// So many wait for their turn.
    #[must_use]
    pub fn waiting(&self) -> u64 {
        // One may be begun before it is known that it was accepted.
        self.accepted.load(SeqCst).saturating_sub(self.begun.load(SeqCst))
    }

    /// Whether there were any.
    pub(super) fn any(&self) -> bool {
        self.accepted.load(Relaxed) > 0
    }

    /// What a frame is to say of them: nothing, if it would be no news. What accepts a tell says so in any case, and so does
    /// a goodbye, which may be the last word.
    pub(super) fn news(&self, frame: &Frame<'_>) -> Option<Begun> {
        if !self.any() {
            return None;
        }
        let begun = self.begun.load(SeqCst);
        let is_due = match frame {
            Frame::Accepted { .. } | Frame::Goodbye => true,
            Frame::Reply { .. } | Frame::Error(_) | Frame::Progress { .. } => begun != self.told.load(Relaxed),
            _ => false,
        };
        is_due.then(|| {
            self.told.store(begun, Relaxed);
            Begun { incarnation: self.incarnation, accepted: self.accepted.load(SeqCst).max(begun), begun }
        })
    }
}

/// What a peer has said of the tells that it has accepted from this side.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Heard {
    said: Begun,
    lost: u64,
    is_last_word: bool,
}

impl Heard {
    /// Takes what a frame says. `is_last_word`: the peer says nothing more in this life.
    pub(super) fn take(&mut self, said: Begun, is_last_word: bool) {
        let before = self.said;
        if said.incarnation < before.incarnation {
            return;
        }
        if said.incarnation > before.incarnation {
            let lost = self.lost.saturating_add(self.waiting());
            *self = Self { said, lost, is_last_word };
            return;
        }
        // Frames of several lanes may overtake each other.
        self.said.accepted = before.accepted.max(said.accepted);
        self.said.begun = before.begun.max(said.begun);
        self.is_last_word |= is_last_word;
    }

    /// Takes the place of what was heard before, over an exchange that has ended.
    #[must_use]
    pub fn after(self, before: Self) -> Self {
        match self.said.incarnation {
            // It has said nothing.
            0 => before,
            now if now > before.said.incarnation => {
                Self { lost: self.lost.saturating_add(before.lost).saturating_add(before.waiting()), ..self }
            }
            // The same life: what waited then is in what it says now, or is begun.
            _ => Self { lost: self.lost.saturating_add(before.lost), ..self },
        }
    }

    /// The peer's life as far as it has said; 0 if it has said nothing.
    #[must_use]
    pub fn incarnation(&self) -> u64 {
        self.said.incarnation
    }

    /// So many tells of this life are accepted, and not begun as far as was heard: at most so many wait.
    #[must_use]
    pub fn waiting(&self) -> u64 {
        self.said.accepted.saturating_sub(self.said.begun)
    }

    /// So many had been accepted, and were not begun as far as was heard, in earlier lives of the peer. They are given once.
    pub fn take_lost(&mut self) -> u64 {
        std::mem::take(&mut self.lost)
    }

    /// Whether [`waiting`](Self::waiting) is exact: the peer has stopped, and said so at its end.
    #[must_use]
    pub fn is_last_word(&self) -> bool {
        self.is_last_word
    }
}

impl From<Begun> for Heard {
    /// What one frame has said, and no other.
    fn from(said: Begun) -> Self {
        Self { said, ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(incarnation: u64, accepted: u64, begun: u64) -> Begun {
        Begun { incarnation, accepted, begun }
    }

    #[test]
    fn a_frame_carries_the_count_only_if_it_is_news() {
        let tells = Tells::new(7);
        assert_eq!(tells.news(&Frame::Goodbye), None, "there were none");
        tells.accept();
        assert_eq!(tells.news(&Frame::Accepted { id: 1 }), Some(said(7, 1, 0)));
        let reply = Frame::Reply { id: 2, payload: &[] };
        assert_eq!(tells.news(&reply), None);
        tells.begin();
        assert_eq!(tells.news(&Frame::Cancel { id: 1 }), None, "it goes the other way");
        assert_eq!(tells.news(&reply), Some(said(7, 1, 1)));
        assert_eq!(tells.news(&reply), None);
        assert_eq!(tells.news(&Frame::Goodbye), Some(said(7, 1, 1)));
        assert_eq!(tells.waiting(), 0);
    }

    #[test]
    fn of_several_the_greatest_counts_and_another_life_has_lost_what_waited() {
        let mut heard = Heard::default();
        heard.take(said(5, 9, 4), false);
        heard.take(said(5, 8, 5), false);
        assert_eq!((heard.waiting(), heard.lost), (4, 0));
        heard.take(said(6, 2, 0), false);
        assert_eq!((heard.waiting(), heard.lost, heard.incarnation()), (2, 4, 6));
        heard.take(said(5, 100, 0), false);
        assert_eq!((heard.waiting(), heard.lost), (2, 4), "nobody comes back from an earlier life");
        heard.take(said(6, 2, 9), true);
        assert_eq!((heard.waiting(), heard.is_last_word()), (0, true), "a count that cannot be is as none");
    }

    #[test]
    fn a_later_exchange_knows_what_has_become_of_the_tells_of_an_earlier_one() {
        let heard = |incarnation, accepted, begun| Heard::from(said(incarnation, accepted, begun));
        let before = heard(5, 9, 4);
        let after = Heard::default().after(before);
        assert_eq!((after.waiting(), after.lost), (5, 0), "nothing was said since");
        let after = heard(5, 10, 10).after(before);
        assert_eq!((after.waiting(), after.lost), (0, 0), "the host counts on");
        let after = heard(5, 1, 1).after(before);
        assert_eq!((after.waiting(), after.lost), (0, 0), "it counts anew, for all were begun");
        let after = heard(6, 1, 0).after(before);
        assert_eq!((after.waiting(), after.lost), (1, 5), "it was killed meanwhile");
    }
}
