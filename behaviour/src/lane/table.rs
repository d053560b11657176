//! The lanes of an exchange beside its ordinary one.

use std::mem;

use super::{LARGE_LANES, run::Lane};

/// Those for large messages, those that are on their way out, and those that the other side has opened.
#[derive(Default)]
pub(super) struct Lanes {
    pub(super) large: Vec<Lane>,
    /// Ours, on which the other side has said goodbye: answers may still come.
    pub(super) retired: Vec<Lane>,
    pub(super) inbound: Vec<Lane>,
    pub(super) closed: bool,
}

impl Lanes {
    /// A lane for large messages that is open and has nothing waiting, or cannot get company.
    pub(super) fn find_large(&mut self) -> Option<Lane> {
        if !self.large.iter().all(Lane::takes_requests) {
            self.retire();
        }
        if let Some(idle) = self.large.iter().position(Lane::is_idle) {
            return Some(self.large[idle].clone());
        }
        if self.large.len() < LARGE_LANES {
            return None;
        }
        // In turn: all of them have something waiting.
        self.large.rotate_left(1);
        self.large.last().cloned()
    }

    /// Sets aside what takes no requests any more, and forgets what is closed.
    pub(super) fn retire(&mut self) {
        let (open, retired) = mem::take(&mut self.large).into_iter().partition(Lane::takes_requests);
        self.large = open;
        self.retired.extend::<Vec<_>>(retired);
        self.retired.retain(|lane| !lane.is_closed());
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Lane> {
        self.large.iter().chain(&self.retired).chain(&self.inbound)
    }
}
