//! A call that is begun a second time when its first host is slow.

use std::time::{Duration, Instant};

use futures::{StreamExt, stream::FuturesUnordered};

use super::{Kind, Route, Time};
use crate::{
    attempts::{Attempts, Failed},
    payload::Payload,
    selection::Target,
};

/// Attempts of one call that run at once.
const AT_ONCE: usize = 2;

impl Route<'_> {
    /// Calls `first`, and after some time another host as well. The first answer wins; what still runs is cancelled,
    /// by being dropped. An attempt that fails in a way that allows another one is replaced at once. An attempt that fails
    /// for good is not the end while another one runs: that one may have the answer, and the message may have run there.
    /// `None` if all have failed, and others may be tried.
    pub(super) async fn hedged(
        &self,
        first: Target,
        kind: Kind<'_>,
        payload: &Payload,
        time: Time,
        after: Duration,
        attempts: &Attempts,
    ) -> Option<Result<Payload, Failed>> {
        let core = self.node.core();
        let attempt = |target: Target| async move {
            let opened = match self.way(core, &target, payload).is_some() {
                true => Some(target),
                false => Box::pin(self.opened(target, kind, payload, time, attempts)).await,
            };
            let target = opened?;
            let outcome = self.at(core, &target, kind, payload, time).await;
            Some((target, outcome))
        };
        let next = || attempts.claim(|tried| self.pick(core, kind.asked(), tried), |target| target.peer_id(core));
        attempts.take(first.peer_id(core));
        let mut running = FuturesUnordered::from_iter([attempt(first)]);
        let (mut allowed, mut is_final) = (1, false);
        let mut slow = std::pin::pin!(tokio::time::sleep(after));
        loop {
            tokio::select! {
                biased;
                Some(ended) = running.next() => match ended {
                    // What has come of it is noted already.
                    None => {}
                    Some((_, Ok(answer))) => return Some(Ok(answer)),
                    Some((target, Err(failed))) => {
                        let allows = attempts.allow(&failed, self.may_run_twice(&target, kind));
                        is_final |= !allows || Instant::now() >= time.deadline;
                        if failed.is_answer() || (is_final && running.is_empty()) {
                            return Some(Err(failed));
                        }
                        let peer_id = target.peer_id(core);
                        tracing::debug!(%peer_id, error = %failed.error(), is_final, "an attempt has failed");
                        attempts.failed(peer_id, failed);
                    }
                },
                () = &mut slow, if allowed < AT_ONCE => allowed = AT_ONCE,
            }
            while !is_final && running.len() < allowed {
                match next() {
                    Some(target) => running.push(attempt(target)),
                    None => break,
                }
            }
            if running.is_empty() {
                return if is_final { attempts.last().map(Err) } else { None };
            }
        }
    }
}
