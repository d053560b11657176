//! How many items a second `map` spreads over workers in processes of their own, and how well it uses their time.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use multinodes::{Map, Node};

use crate::{
    Error,
    contestant::{Blob, Client, Contestant, runtime},
    dask, idle, load,
    options::Options,
    process::{Server, TICKS_PER_SECOND},
    results::{Metric, Results, Way},
    work,
};

/// Tasks that Dask gets at once, and so do we beside it.
pub(crate) const BATCH: u64 = 5000;

/// Workers beside Dask's.
const WORKERS: usize = 2;

/// Items that do nothing: plain calls, `map`, and `map` with a journal, also at most once, each with fresh workers.
pub(crate) fn nothing(options: &Options, workers: usize, results: &mut Results) -> Result<(), Error> {
    if !options.contestants.contains(&Contestant::MultiNodes) {
        return Ok(());
    }
    let length = options.length;
    for round in 1..=options.rounds {
        for way in Way::ALL {
            eprint!("\r\x1b[2Kmap-{workers} {round}/{}: {}", options.rounds, way.name());
            let (rate, cpu) = with_workers(workers, move |node, processes| async move {
                let before = cpu_seconds(&processes)?;
                let (rate, count) = match way {
                    Way::Calls(in_flight) => calls(node, in_flight, length).await?,
                    Way::Map => endless_map(endless(&node), length).await?,
                    Way::Journal | Way::AtMostOnce => {
                        // Beside the program, so on a disk and not in memory.
                        let folder = tempfile::tempdir_in(program_folder()?)?;
                        let map = endless(&node).journal(folder.path().join("journal"));
                        let map = if way == Way::AtMostOnce { map.at_most_once() } else { map };
                        endless_map(map, length).await?
                    }
                };
                Ok((rate, (cpu_seconds(&processes)? - before) / count * 1e6))
            })?;
            eprint!("\r\x1b[2K");
            results.add(Metric::Items(workers, way), Contestant::MultiNodes, rate);
            results.add(Metric::ItemCpu(workers, way), Contestant::MultiNodes, cpu);
        }
    }
    Ok(())
}

/// Batches of tasks that do nothing over two workers, each batch complete before the next one begins.
pub(crate) fn against_dask(options: &Options, results: &mut Results) -> Result<(), Error> {
    let length = options.length;
    let command = dask::command();
    if let Err(reason) = &command {
        results.skipped.push((Metric::Batches, reason.clone()));
    }
    for round in 1..=options.rounds {
        for contestant in [Contestant::MultiNodes, Contestant::Dask] {
            if !options.contestants.contains(&contestant) {
                continue;
            }
            eprint!("\r\x1b[2Kmap-dask {round}/{}: {}", options.rounds, contestant.name());
            let rate = match (contestant, &command) {
                (Contestant::Dask, Ok(command)) => Some(dask::tasks_per_second(command, length, BATCH)?),
                (Contestant::Dask, Err(_)) => None,
                _ => Some(with_workers(WORKERS, move |node, _| batches(node, length))?),
            };
            eprint!("\r\x1b[2K");
            if let Some(rate) = rate {
                results.add(Metric::Batches, contestant, rate);
            }
        }
    }
    Ok(())
}

/// Items that take 10 ms, on one worker with four slots.
pub(crate) fn sleeping(options: &Options, results: &mut Results) -> Result<(), Error> {
    if !options.contestants.contains(&Contestant::MultiNodes) {
        return Ok(());
    }
    let count = (options.length.as_secs_f64() / work::PAUSE.as_secs_f64()).ceil() * f64::from(work::SLOTS);
    for _ in 0..options.rounds {
        let (elapsed, slept) = with_workers(1, move |node, _| async move {
            let item = Blob(Bytes::from_static(&[7; 64]));
            let map = node.app(work::SLEEPING).map_iter::<f64>(work::RUN, vec![item; count as usize]);
            let begin = Instant::now();
            let mut slept = 0.0;
            work::read(map, |seconds| slept += seconds).await?;
            Ok((begin.elapsed().as_secs_f64(), slept))
        })?;
        let slots = f64::from(work::SLOTS);
        results.add(Metric::Pause, Contestant::MultiNodes, slept / count * 1e3);
        results.add(Metric::OfPossible, Contestant::MultiNodes, slept / slots / elapsed);
        let ideal = count / slots * work::PAUSE.as_secs_f64();
        results.add(Metric::OfIdeal, Contestant::MultiNodes, ideal / elapsed);
    }
    Ok(())
}

/// Has a node that knows `count` fresh workers measured. It gets the ids of all processes, too.
fn with_workers<T, F>(count: usize, measure: impl FnOnce(Node, Vec<u32>) -> F) -> Result<T, Error>
where
    T: Send + 'static,
    F: Future<Output = Result<T, Error>> + Send + 'static,
{
    let folder = tempfile::tempdir()?;
    let swarm = format!("bench-{}", std::process::id());
    let workers: Vec<Server> =
        (0..count).map(|_| Server::worker(&swarm, folder.path())).collect::<Result<_, Error>>()?;
    let addresses: Vec<String> = workers.iter().map(|worker| worker.address.clone()).collect();
    let processes = workers.iter().map(|worker| worker.process.id()).chain([std::process::id()]).collect();
    let runtime = runtime()?;
    let measured = runtime.block_on(async {
        let node = work::submitter(&swarm, &addresses).await?;
        tokio::spawn(measure(node, processes)).await?
    });
    runtime.shutdown_background();
    let measured = measured?;
    for worker in workers {
        worker.process.finish()?;
    }
    Ok(measured)
}

/// One plain call after the other, of each of many callers.
#[derive(Clone)]
struct Caller(Node);

impl Client for Caller {
    async fn call(&self, _: Bytes) -> Result<usize, Error> {
        let number: u64 = self.0.call(work::NOTHING, work::RUN, 7_u64).await?;
        Ok(usize::try_from(number)?)
    }
}

/// Calls per second, and about how many there were in all.
async fn calls(node: Node, in_flight: usize, length: Duration) -> Result<(f64, f64), Error> {
    let rate = load::in_flight(Caller(node), in_flight, Bytes::new(), length).await?;
    Ok((rate, rate * (length + load::warm_up(length)).as_secs_f64()))
}

fn endless(node: &Node) -> Map<u64> {
    node.app(work::NOTHING).map_iter(work::RUN, 0_u64..)
}

/// Outcomes per second of a map without end, and how many there were in all.
async fn endless_map(map: Map<u64>, length: Duration) -> Result<(f64, f64), Error> {
    let count = Arc::new(AtomicU64::new(0));
    let counter = count.clone();
    let mut reading = tokio::spawn(work::read(map, move |_| {
        counter.fetch_add(1, Relaxed);
    }));
    let rate = tokio::select! {
        rate = load::rate(&count, length) => rate,
        ended = &mut reading => return Err(ended?.err().unwrap_or_else(|| "it has ended".into())),
    };
    reading.abort();
    // Its calls are dropped with it, before the next one begins.
    let _ = reading.await;
    Ok((rate, count.load(Relaxed) as f64))
}

async fn batches(node: Node, length: Duration) -> Result<f64, Error> {
    let batch = async || {
        let items = node.app(work::NOTHING).map_iter::<u64>(work::RUN, 0..BATCH);
        let mut seen = 0;
        work::read(items, |_| seen += 1).await?;
        if seen == BATCH { Ok(()) } else { Err(Error::from(format!("{seen} outcomes of {BATCH} items"))) }
    };
    batch().await?;
    let (begin, mut done) = (Instant::now(), 0);
    while begin.elapsed() < length {
        batch().await?;
        done += BATCH;
    }
    Ok(done as f64 / begin.elapsed().as_secs_f64())
}

fn program_folder() -> Result<PathBuf, Error> {
    Ok(std::env::current_exe()?.parent().ok_or("the program has no folder")?.to_owned())
}

/// User and system time of these processes so far; nothing where the system does not say.
fn cpu_seconds(processes: &[u32]) -> Result<f64, Error> {
    if !cfg!(target_os = "linux") {
        return Ok(f64::NAN);
    }
    processes.iter().map(|id| Ok(idle::ticks_of(*id)? / TICKS_PER_SECOND)).sum()
}
