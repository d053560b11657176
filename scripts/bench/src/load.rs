//! The loops that make load. All of them run in spawned tasks, the same for every contestant.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::{StreamExt, stream::FuturesUnordered};

use crate::{Error, contestant::Client};

/// Round trips of calls made one after another.
pub(crate) struct Latency {
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) calls_per_second: f64,
}

/// Calls one after another for `length`.
pub(crate) async fn sequential<C: Client>(client: C, payload: Bytes, length: Duration) -> Result<Latency, Error> {
    tokio::spawn(async move {
        let mut times = Vec::with_capacity(1 << 18);
        let begin = Instant::now();
        let measured_from = begin + warm_up(length);
        let end = measured_from + length;
        let mut before = begin;
        while before < end {
            client.call(payload.clone()).await?;
            let after = Instant::now();
            if before >= measured_from {
                times.push(after - before);
            }
            before = after;
        }
        let total: Duration = times.iter().sum();
        times.sort_unstable();
        let at = |share: f64| {
            let index = (times.len() as f64 * share) as usize;
            times.get(index.min(times.len().saturating_sub(1))).map_or(f64::NAN, |time| time.as_secs_f64() * 1e6)
        };
        Ok(Latency { p50_us: at(0.5), p99_us: at(0.99), calls_per_second: times.len() as f64 / total.as_secs_f64() })
    })
    .await?
}

/// Calls per second with `callers` that each make one call after another, all of them in one task. A call that fails
/// ends it all.
pub(crate) async fn in_flight<C: Client>(
    client: C,
    callers: usize,
    payload: Bytes,
    length: Duration,
) -> Result<f64, Error> {
    let count = Arc::new(AtomicU64::new(0));
    let done = count.clone();
    let mut task = tokio::spawn(async move {
        let mut open: FuturesUnordered<_> = (0..callers)
            .map(|_| async {
                loop {
                    if let Err(error) = client.call(payload.clone()).await {
                        return error;
                    }
                    done.fetch_add(1, Relaxed);
                }
            })
            .collect();
        open.next().await
    });
    let rate = tokio::select! {
        rate = rate(&count, length) => rate,
        ended = &mut task => return Err(ended?.unwrap_or_else(|| "there are no callers".into())),
    };
    task.abort();
    // Its calls are dropped with it, before the next phase begins.
    let _ = task.await;
    Ok(rate)
}

/// How fast `count` grows, once everything has settled.
pub(crate) async fn rate(count: &AtomicU64, length: Duration) -> f64 {
    tokio::time::sleep(warm_up(length)).await;
    let (begin, before) = (Instant::now(), count.load(Relaxed));
    tokio::time::sleep(length).await;
    (count.load(Relaxed) - before) as f64 / begin.elapsed().as_secs_f64()
}

/// Time for caches, buffers and connections to settle before anything is counted.
pub(crate) fn warm_up(length: Duration) -> Duration {
    (length / 4).clamp(Duration::from_millis(100), Duration::from_secs(1))
}
