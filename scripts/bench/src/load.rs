//! The loops that make load. All of them run in spawned tasks, the same for every contestant.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::task::JoinSet;

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

/// Calls per second with `tasks` tasks that each make one call after another. A call that fails ends it all.
pub(crate) async fn in_flight<C: Client>(
    client: C,
    tasks: usize,
    payload: Bytes,
    length: Duration,
) -> Result<f64, Error> {
    let stop = Arc::new(AtomicBool::new(false));
    let counts: Arc<[Count]> = (0..tasks).map(|_| Count::default()).collect();
    let mut callers = JoinSet::new();
    for index in 0..tasks {
        let (client, payload, stop, counts) = (client.clone(), payload.clone(), stop.clone(), counts.clone());
        callers.spawn(async move {
            while !stop.load(Relaxed) {
                client.call(payload.clone()).await?;
                counts[index].0.fetch_add(1, Relaxed);
            }
            Ok::<_, Error>(())
        });
    }
    let total = || counts.iter().map(|count| count.0.load(Relaxed)).sum::<u64>();
    let measured = async {
        tokio::time::sleep(warm_up(length)).await;
        let (begin, before) = (Instant::now(), total());
        tokio::time::sleep(length).await;
        (total() - before) as f64 / begin.elapsed().as_secs_f64()
    };
    let rate = tokio::select! {
        rate = measured => rate,
        Some(ended) = callers.join_next() => return Err(ended?.err().unwrap_or_else(|| "a caller has ended".into())),
    };
    stop.store(true, Relaxed);
    while let Some(ended) = callers.join_next().await {
        ended??;
    }
    Ok(rate)
}

/// Time for caches, buffers and connections to settle before anything is counted.
pub(crate) fn warm_up(length: Duration) -> Duration {
    (length / 4).clamp(Duration::from_millis(100), Duration::from_secs(1))
}

/// On a cache line of its own, so that counting is not what is measured.
#[derive(Default)]
#[repr(align(128))]
struct Count(AtomicU64);
