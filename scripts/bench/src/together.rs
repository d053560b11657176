//! Many nodes that start in one process at the same moment, as after a power cut: how long until all know all, and what
//! went wrong meanwhile.

use std::{
    path::Path,
    process::Command,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    time::{Duration, Instant},
};

use futures::future::join_all;
use multinodes::{Counters, Event, Events, LeftReason, Node};

use crate::{
    Error,
    contestant::{Contestant, runtime},
    options::Options,
    process::Process,
    results::{Metric, Results},
};

/// How they find each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum How {
    /// All by the address of one.
    Join,
    /// By the rendezvous folder.
    Folder,
}

impl How {
    pub(crate) const ALL: [Self; 2] = [Self::Join, Self::Folder];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Join => "join",
            Self::Folder => "folder",
        }
    }

    pub(crate) fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|how| how.name() == name)
    }

    pub(crate) fn nodes(self) -> usize {
        match self {
            Self::Join => 200,
            Self::Folder => 100,
        }
    }
}

/// Who has not met by then never will.
const LIMIT: Duration = Duration::from_secs(180);

static PANICS: AtomicUsize = AtomicUsize::new(0);

/// Measures both ways, once a round, each in a process of its own.
pub(crate) fn measure(options: &Options, results: &mut Results) -> Result<(), Error> {
    if !options.contestants.contains(&Contestant::MultiNodes) {
        return Ok(());
    }
    for _ in 0..options.rounds {
        for how in How::ALL {
            let folder = tempfile::tempdir()?;
            let process = Process::start(
                Command::new(std::env::current_exe()?).args(["together", how.name()]).arg(folder.path()),
            )?;
            let line = process.expect_within(2 * LIMIT, "together ")?;
            let mut numbers = line.split_whitespace().filter_map(|word| word.parse::<f64>().ok());
            let (Some(seconds), Some(faults)) = (numbers.next(), numbers.next()) else {
                return Err(format!("`{line}` is no result").into());
            };
            results.add(Metric::Together(how), Contestant::MultiNodes, seconds);
            results.add(Metric::TogetherFaults(how), Contestant::MultiNodes, faults);
            process.finish()?;
        }
    }
    Ok(())
}

/// Is the process with all the nodes. Prints the seconds until all knew all, and the number of panics, restarts of a
/// network and nodes that were lost without having gone.
pub(crate) fn run(how: How, folder: &Path) -> Result<(), Error> {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        PANICS.fetch_add(1, Relaxed);
        report(info);
    }));
    let (seconds, faults) = runtime()?.block_on(meet(how, folder))?;
    println!("together {seconds:.2} {faults}");
    Ok(())
}

async fn meet(how: How, folder: &Path) -> Result<(f64, usize), Error> {
    let (count, begun) = (how.nodes(), Instant::now());
    let nodes = match how {
        How::Join => joined(count).await?,
        How::Folder => {
            let start = |_| builder().rendezvous_folder(folder).start();
            join_all((0..count).map(start)).await.into_iter().collect::<Result<Vec<_>, _>>()?
        }
    };
    let events: Vec<Events> = nodes.iter().map(Node::events).collect();
    let waiting = nodes.iter().zip(events).map(|(node, events)| async move { until_all(node, events, count).await });
    let met = tokio::select! {
        met = tokio::time::timeout(LIMIT, join_all(waiting)) => met,
        () = progress(&nodes, begun) => unreachable!("it goes on for ever"),
    };
    let Ok(counts) = met else {
        let least = nodes.iter().map(|node| node.nodes().len()).min().unwrap_or_default();
        return Err(format!("after {LIMIT:?} the smallest directory has {least} of {count} nodes").into());
    };
    let seconds = begun.elapsed().as_secs_f64();
    let panics = nodes.iter().map(|node| node.counters().connection_panics).sum::<u64>();
    let faults = counts.into_iter().sum::<usize>() + PANICS.load(Relaxed) + usize::try_from(panics)?;
    join_all(nodes.iter().map(Node::stop)).await;
    Ok((seconds, faults))
}

fn builder() -> multinodes::Builder {
    Node::builder().swarm("together").mdns(false).listen("/ip4/127.0.0.1/tcp/0")
}

async fn joined(count: usize) -> Result<Vec<Node>, Error> {
    let first = builder().rendezvous(false).start().await?;
    let address = first.addresses().into_iter().next().ok_or("it listens nowhere")?.to_string();
    let start = |_| builder().rendezvous(false).join(address.clone()).start();
    let others = join_all((1..count).map(start)).await;
    let mut nodes = vec![first];
    for other in others {
        nodes.push(other?);
    }
    Ok(nodes)
}

/// Waits until a node knows so many, and counts what should not have happened by then.
async fn until_all(node: &Node, mut events: Events, count: usize) -> usize {
    let mut faults = 0;
    while node.nodes().len() < count {
        match events.next().await {
            Some(Event::Left { reason, .. }) if reason != LeftReason::Stopped => faults += 1,
            Some(Event::NetworkRestarted { .. } | Event::NetworkFailed { .. }) => faults += 1,
            Some(_) => {}
            None => break,
        }
    }
    faults
}

/// Says every other second how far they are, for whoever looks for what holds them up.
async fn progress(nodes: &[Node], begun: Instant) {
    let mut ticks = tokio::time::interval(Duration::from_secs(2));
    loop {
        ticks.tick().await;
        let range = |counts: Vec<usize>| (counts.iter().min().copied(), counts.iter().max().copied());
        let known: Vec<usize> = nodes.iter().map(|node| node.nodes().len()).collect();
        let alone = known.iter().filter(|known| **known == 1).count();
        let all = known.iter().filter(|known| **known == nodes.len()).count();
        let known = range(known);
        let connected = range(nodes.iter().map(|node| node.status().connected).collect());
        let counters: Vec<_> = nodes.iter().map(Node::counters).collect();
        let sum = |count: fn(&Counters) -> u64| counters.iter().map(count).sum::<u64>();
        eprintln!(
            "{:.0?}: {alone} know nobody, {all} know all; known {known:?}, connected {connected:?}, refused connections {} records {} requests {}, failed handshakes {}, kept away {}",
            begun.elapsed(),
            sum(|c| c.refused_connections),
            sum(|c| c.refused_records),
            sum(|c| c.refused_requests),
            sum(|c| c.failed_handshakes),
            sum(|c| c.kept_away),
        );
    }
}
