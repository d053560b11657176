//! A call that is begun a second time when its first host is slow.

use std::time::{Duration, Instant};

use futures::{StreamExt, stream::FuturesUnordered};
use libp2p::PeerId;

use super::{Kind, Repeats, Route, Time};
use crate::{call_error::CallError, payload::Payload, selection::Target};

/// Attempts of one call that run at once.
const AT_ONCE: usize = 2;

impl Route<'_> {
    /// Calls `first`, and after some time another host as well. The first answer wins; what still runs is cancelled,
    /// by being dropped. An attempt that fails in a way that allows another one is replaced at once. None goes to a host
    /// in `tried`.
    pub(super) async fn hedged(
        &self,
        first: Target,
        mut tried: Vec<PeerId>,
        kind: Kind<'_>,
        payload: &Payload,
        time: Time,
        after: Duration,
    ) -> Result<Payload, CallError> {
        let core = self.node.core();
        let attempt = |target: Target| async move {
            let outcome = self.at(core, &target, kind, payload, time).await;
            (target, outcome)
        };
        tried.push(first.peer_id(core));
        let mut running = FuturesUnordered::from_iter([attempt(first)]);
        let (mut allowed, mut failure, mut repeats) = (1, None, Repeats::default());
        let mut slow = std::pin::pin!(tokio::time::sleep(after));
        loop {
            tokio::select! {
                biased;
                Some((target, outcome)) = running.next() => match outcome {
                    Err(error)
                        if repeats.allow(&error, self.may_run_twice(&target, kind))
                            && Instant::now() < time.deadline =>
                    {
                        tracing::debug!(peer_id = %target.peer_id(core), %error, "trying another host");
                        failure = Some(error);
                    }
                    outcome => return outcome,
                },
                () = &mut slow, if allowed < AT_ONCE => allowed = AT_ONCE,
            }
            while running.len() < allowed {
                match self.pick(core, &tried) {
                    Ok(target) => {
                        tried.push(target.peer_id(core));
                        running.push(attempt(target));
                    }
                    Err(_) => break,
                }
            }
            if running.is_empty()
                && let Some(failure) = failure
            {
                return Err(failure);
            }
        }
    }
}
