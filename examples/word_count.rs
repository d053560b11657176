//! Counts words in a swarm: lines go to any node that splits them, each word to the node that owns it.
//!
//! By itself it runs four nodes in this process, over texts of this repository, repeated:
//!
//! ```text
//! cargo run --release --example word_count [TIMES]
//! ```
//!
//! Or in several terminals, or on several machines of a LAN: any number of workers, which may come and go. Where nodes
//! cannot find each other by themselves, say where the one that counts listens, such as /ip4/192.168.1.7/tcp/4001.
//!
//! ```text
//! cargo run --release --example word_count worker [ADDRESS]
//! cargo run --release --example word_count count FILE [ADDRESS]
//! ```
//!
//! At the end it counts by itself, too, and compares: the exit code is 1 if the swarm has counted differently.
#![expect(clippy::print_stdout, reason = "an example shows what happens")]

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    error::Error,
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures::{Stream, stream};
use multinodes::{
    Actions, Builder, Node,
    topology::{Emitter, Event, Flow, Grouping, Run, Stage},
};
use serde::{Deserialize, Serialize};

/// Lines that travel together: one item of the source.
const LINES: usize = 10;

/// Something is said each time that so many items are complete.
const SAID_EVERY: u64 = 500;

/// Runs that a worker remembers, so that what it keeps does not grow for ever.
const REMEMBERED: usize = 4;

/// The totals of a worker, for each run.
type Totals = VecDeque<(u64, HashMap<String, u64>)>;

/// A word, and how often it is in some lines.
#[derive(Serialize, Deserialize)]
struct Word {
    word: String,
    times: u64,
}

#[tokio::main]
async fn main() -> Result<ExitCode, Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("worker") => work(arguments.get(1)).await,
        Some("count") => {
            let file = arguments.get(1).ok_or("which file? `word_count count FILE`")?;
            let text = std::fs::read_to_string(file).map_err(|error| format!("`{file}` cannot be read: {error}"))?;
            let builder = at(arguments.get(2), node("counter"));
            let counter = arguments.get(2).into_iter().fold(builder, Builder::listen).start().await?;
            println!("waiting for `word_count worker` on this machine or another one");
            let outcome = count(&counter, text).await;
            counter.stop().await;
            outcome
        }
        times => in_one_process(times.map_or(Ok(20), number)?).await,
    }
}

fn number(text: &str) -> Result<usize, String> {
    text.parse().map_err(|_| format!("`{text}` is neither `worker`, `count` nor a number"))
}

async fn in_one_process(times: usize) -> Result<ExitCode, Box<dyn Error>> {
    let counter = alone(node("counter")).start().await?;
    let address = counter.addresses()[0].to_string();
    let mut workers = Vec::new();
    for name in ["alpha", "beta", "gamma"] {
        let worker = alone(node(name)).join(&address).start().await?;
        host_stages(&worker)?;
        workers.push(worker);
    }
    // With fewer it would begin as well, and the others would join in.
    let mut events = counter.events();
    while counter.hosts("count").len() < workers.len() {
        events.next().await;
    }
    let text = [include_str!("../README.md"), include_str!("../behaviour/PROTOCOL.md")].concat().repeat(times);
    let outcome = count(&counter, text).await;
    for worker in workers {
        worker.stop().await;
    }
    counter.stop().await;
    outcome
}

/// A worker needs no word about what there is to count, or for whom.
async fn work(address: Option<&String>) -> Result<ExitCode, Box<dyn Error>> {
    let builder = at(address, Node::builder().swarm("word-count-example"));
    let worker = address.into_iter().fold(builder, Builder::join).start().await?;
    host_stages(&worker)?;
    println!("`{}` splits and counts; Ctrl-C ends", worker.name());
    tokio::signal::ctrl_c().await?;
    worker.stop().await;
    Ok(ExitCode::SUCCESS)
}

fn host_stages(worker: &Node) -> Result<(), Box<dyn Error>> {
    worker.register("split", split())?;
    worker.register("count", owner())?;
    Ok(())
}

fn split() -> Stage {
    Stage::new(|lines: String, out: Emitter| async move {
        for (word, times) in plain_count(&lines) {
            out.emit(Word { word, times }).await?;
        }
        Ok(())
    })
}

/// Keeps the totals of the words that it owns, for everybody to ask: after a replay they may be too high. The exact
/// ones are made by the counter of what each lets through.
fn owner() -> Stage {
    let runs: Arc<Mutex<Totals>> = Arc::default();
    let asked = runs.clone();
    let owned = Actions::new().action("owned", move |run: u64| {
        let runs = asked.lock().unwrap_or_else(PoisonError::into_inner);
        let owned = runs.iter().find(|(known, _)| *known == run).map_or(0, |(_, totals)| totals.len());
        async move { owned }
    });
    Stage::new(move |word: Word, out: Emitter| {
        let mut runs = runs.lock().unwrap_or_else(PoisonError::into_inner);
        if !runs.iter().any(|(run, _)| *run == out.run()) {
            runs.push_back((out.run(), HashMap::new()));
            if runs.len() > REMEMBERED {
                runs.pop_front();
            }
        }
        if let Some((_, totals)) = runs.iter_mut().find(|(run, _)| *run == out.run()) {
            *totals.entry(word.word.clone()).or_default() += word.times;
        }
        drop(runs);
        async move { Ok(out.emit(word).await?) }
    })
    .actions(owned)
}

/// Lets the swarm count, and compares.
async fn count(counter: &Node, text: String) -> Result<ExitCode, Box<dyn Error>> {
    let plain = plain_count(&text);
    let flow = Flow::new("words")
        .stage("split", Grouping::Shuffle)
        .stage("count", Grouping::by_key("word"))
        .ack_timeout(Duration::from_secs(5))
        .max_pending(256);
    let begun = Instant::now();
    let mut run = flow.run(counter, items(text))?;
    let totals = gather(&mut run).await?;
    println!("counted in {:.2?}: {}", begun.elapsed(), serde_json::to_string(&run.counters())?);
    for host in counter.hosts("count") {
        let target = counter.app("count").on(host.peer_id.to_string());
        let owned: usize = target.call("owned", run.id()).await?;
        println!("  {owned} of the words belong to {}", host.node);
    }
    Ok(compare(&totals, &plain))
}

/// Adds up what comes back. A replayed item comes back more than once, so what counts is what belongs to the attempt
/// that was completed: that is there exactly once.
async fn gather(run: &mut Run) -> Result<BTreeMap<String, u64>, Box<dyn Error>> {
    let (mut totals, mut done) = (BTreeMap::new(), 0_u64);
    let mut open = HashMap::<u64, Vec<(u32, Word)>>::new();
    while let Some(event) = run.next().await {
        match event {
            Event::Output(output) => {
                open.entry(output.root).or_default().push((output.attempt, output.value.decode()?));
            }
            Event::Completed { root, attempt } => {
                let words = open.remove(&root).into_iter().flatten();
                for (_, Word { word, times }) in words.filter(|(of, _)| *of == attempt) {
                    *totals.entry(word).or_default() += times;
                }
                done += 1;
                if done.is_multiple_of(SAID_EVERY) {
                    println!("  {done} times {LINES} lines are done");
                }
            }
            Event::Failed(failed) => return Err(format!("lines were given up: {}", failed.reason).into()),
            _ => {}
        }
    }
    Ok(totals)
}

fn compare(totals: &BTreeMap<String, u64>, plain: &BTreeMap<String, u64>) -> ExitCode {
    let mut frequent: Vec<_> = totals.iter().collect();
    frequent.sort_by_key(|(word, times)| (Reverse(**times), *word));
    println!("the most frequent of {} words:", totals.len());
    for (word, times) in frequent.iter().take(10) {
        println!("{times:>8}  {word}");
    }
    if totals == plain {
        println!("a plain count says the same: {} words in all", plain.values().sum::<u64>());
        return ExitCode::SUCCESS;
    }
    let words: BTreeSet<_> = totals.keys().chain(plain.keys()).collect();
    for word in words.into_iter().filter(|word| totals.get(*word) != plain.get(*word)).take(10) {
        println!("`{word}`: {:?} by the swarm, {:?} by a plain count", totals.get(word), plain.get(word));
    }
    println!("a plain count says something else");
    ExitCode::FAILURE
}

/// Some lines at a time.
fn items(text: String) -> impl Stream<Item = String> + Send {
    let lines = text.lines().map(str::to_owned).collect::<VecDeque<_>>();
    stream::unfold(lines, |mut lines| async move {
        let count = lines.len().min(LINES);
        let item = lines.drain(..count).collect::<Vec<_>>().join("\n");
        (count > 0).then_some((item, lines))
    })
}

fn plain_count(text: &str) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for word in text.split(|character: char| !character.is_alphanumeric()).filter(|word| !word.is_empty()) {
        *counts.entry(word.to_lowercase()).or_default() += 1;
    }
    counts
}

fn node(name: &str) -> Builder {
    Node::builder().name(name).swarm("word-count-example")
}

/// A node that looks for nobody but those it joins.
fn alone(builder: Builder) -> Builder {
    builder.listen("/ip4/127.0.0.1/tcp/0").mdns(false).rendezvous(false)
}

/// A node that finds others by itself, unless they are to meet at an address of this machine alone.
fn at(address: Option<&String>, builder: Builder) -> Builder {
    if address.is_some_and(|address| address.starts_with("/ip4/127.")) { alone(builder) } else { builder }
}
