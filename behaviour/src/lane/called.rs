//! Calls whose answers go into one queue: for whoever has many under way, a future for each would cost more than the
//! call itself.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::{
    LARGE_FROM, Reply,
    asking::{EXACT_BELOW, Outgoing, call_frame},
    exchange::Exchange,
    requests::Asker,
    run::Lane,
};
use crate::wire::Frame;

/// Whatever the caller tells its calls apart by.
pub type Mark = (u64, u64);

/// Where answers go. It has no bound of its own: each call gets one answer at the most, which frees its place for another
/// call, so what waits here is bounded only by a caller that begins no more calls than it reads answers of.
pub type Answers = mpsc::UnboundedSender<(Mark, Reply)>;

/// A call under way. Dropping it cancels the work on the other side, if it is not answered yet.
#[must_use = "dropping it cancels the call"]
pub struct Called {
    exchange: Arc<Exchange>,
    lane: Lane,
    id: u64,
}

impl Exchange {
    /// Sends a call if nothing has to be waited for: neither for a lane nor for room on it. What comes of it goes into
    /// `answers`. `None` if it cannot be sent like that, or if its deadline is so near that [`call`](Self::call) keeps it
    /// better: then nothing was sent.
    pub fn call_now(
        self: &Arc<Self>,
        head: Outgoing<'_>,
        payload: &Bytes,
        answers: &Answers,
        mark: Mark,
    ) -> Option<Called> {
        let left = head.deadline.saturating_duration_since(Instant::now());
        if left <= EXACT_BELOW || payload.len() > LARGE_FROM.min(self.limits().max_message) {
            return None;
        }
        let lane = self.find(false)?;
        let asker = Asker::Many(answers.clone(), mark);
        let id = self.asked().open_for(asker, lane.id(), head.deadline, head.pulse.cloned()).ok()?;
        lane.begin_use();
        let called = Called { exchange: self.clone(), lane, id };
        let sent = self.send_now(&called.lane, &call_frame(id, head, millis(left)), payload);
        if !matches!(sent, Some(Ok(()))) {
            // Forgotten here: there is nothing to cancel.
            self.asked().forget(id);
            return None;
        }
        Some(called)
    }
}

impl Drop for Called {
    fn drop(&mut self) {
        self.lane.end_use();
        if self.exchange.asked().forget(self.id) {
            // A lane that is gone has cancelled everything by itself.
            let _ = self.lane.push(&Frame::Cancel { id: self.id });
        }
    }
}

impl fmt::Debug for Called {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Called").field("id", &self.id).finish_non_exhaustive()
    }
}

pub(super) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
