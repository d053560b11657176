//! Numbers hop between random nodes until they are 1: half of an even one, three times an odd one and 1 more.
//!
//! Only the first node knows what runs: it sends the application, `examples/guests/collatz.wasm`, to each node that joins.
//! The others know nothing of it, and take code: that is the feature `wasm`. By itself it runs three nodes in this
//! process, and a fourth that joins in the middle:
//!
//! ```text
//! cargo run --release --features wasm --example collatz [NUMBERS]
//! ```
//!
//! Or in several terminals, or on several machines of a LAN; the first waits for another. Where nodes cannot find each
//! other by themselves, say where the first listens, such as /ip4/192.168.1.7/tcp/4001.
//!
//! ```text
//! cargo run --release --features wasm --example collatz first [ADDRESS [NUMBERS]]
//! cargo run --release --features wasm --example collatz join [ADDRESS]
//! ```
//!
//! The idea is a sample of the first MultiNodes, of 2013.
#![expect(clippy::print_stdout, reason = "an example shows what happens")]

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    error::Error,
    time::{Duration, Instant},
};

use multinodes::{Actions, Builder, CallError, Code, CodeRule, Event, Everywhere, Installed, Node, Rule};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

/// So many numbers are on their way at once.
const AWAY: usize = 10;

/// When none has come back for so long, those that are missing set out again: a node may have gone with them.
const PATIENCE: Duration = Duration::from_secs(3);

/// A number on its way, as `guests/collatz/src/lib.rs` has it.
#[derive(Serialize, Deserialize)]
struct Number {
    start: u64,
    value: u64,
    steps: u64,
    /// How often it was on which node.
    visits: BTreeMap<String, u64>,
    /// Who is told when it has come to 1.
    origin: String,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let numbers = |text: Option<&String>| text.map_or(Ok(1000), |text| number(text));
    let address = arguments.get(1);
    match arguments.first().map(String::as_str) {
        Some("first") => {
            let builder = at(address, node("first"));
            let first = address.into_iter().fold(builder, Builder::listen).start().await?;
            println!("`{}` waits for another node: run `collatz join`", first.name());
            lead(&first, 2, numbers(arguments.get(2))?, None).await
        }
        Some("join") => {
            let builder = at(address, offering(Node::builder().swarm("collatz-example")));
            follow(&address.into_iter().fold(builder, Builder::join).start().await?).await
        }
        _ => in_one_process(numbers(arguments.first())?).await,
    }
}

fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("`{text}` is neither `first`, `join` nor a number"))
}

async fn in_one_process(numbers: u64) -> Result<(), Box<dyn Error>> {
    let alpha = alone(node("alpha")).start().await?;
    let address = alpha.addresses()[0].to_string();
    let beta = alone(node("beta")).join(&address).start().await?;
    let gamma = alone(node("gamma")).join(&address).start().await?;
    let outcome = lead(&alpha, 3, numbers, Some(alone(node("delta")).join(&address))).await;
    beta.stop().await;
    gamma.stop().await;
    outcome
}

fn node(name: &str) -> Builder {
    offering(Node::builder().name(name).swarm("collatz-example"))
}

/// What others may have the node host: whatever they send, if it tells nobody but itself and `results`.
fn offering(builder: Builder) -> Builder {
    builder.allow_code(CodeRule::of(Rule::any()).only_install().applications("collatz").applications("results"))
}

/// Sends the application to every node, newcomers too.
fn bring(first: &Node) -> Result<Everywhere, Box<dyn Error>> {
    let code = Code::from_bytes(include_bytes!("guests/collatz.wasm"))?.named("collatz")?;
    println!("the code has {} bytes and is called {}", code.size(), code.cid());
    Ok(first.install("collatz", &code).everywhere())
}

/// A node that looks for nobody but those it joins.
fn alone(builder: Builder) -> Builder {
    builder.listen("/ip4/127.0.0.1/tcp/0").mdns(false).rendezvous(false)
}

/// A node that finds others by itself, unless they are to meet at an address of this machine alone.
fn at(address: Option<&String>, builder: Builder) -> Builder {
    if address.is_some_and(|address| address.starts_with("/ip4/127.")) { alone(builder) } else { builder }
}

fn step(value: u64) -> u64 {
    if value.is_multiple_of(2) { value / 2 } else { 3 * value + 1 }
}

/// Brings the application to everybody, lets the numbers go once `nodes` have it, and checks what comes back.
async fn lead(first: &Node, nodes: usize, numbers: u64, mut newcomer: Option<Builder>) -> Result<(), Box<dyn Error>> {
    let (sender, mut back) = mpsc::channel(AWAY);
    let results = Actions::new().on_tell(move |number: Number| {
        let sender = sender.clone();
        // Nobody waits any more for one that comes after the end.
        async move { drop(sender.send(number).await) }
    });
    first.register("results", results)?;
    let mut everywhere = bring(first)?;
    for _ in 0..nodes {
        say(everywhere.next().await);
    }

    println!("{numbers} numbers set out");
    let begun = Instant::now();
    let (mut waiting, mut away, mut arrived, mut late) = (1..=numbers, BTreeSet::new(), Vec::new(), None);
    while !(waiting.is_empty() && away.is_empty()) {
        while away.len() < AWAY
            && let Some(start) = waiting.next()
        {
            set_out(first, start).await?;
            away.insert(start);
        }
        tokio::select! {
            Some(number) = back.recv() => if away.remove(&number.start) { arrived.push(number) },
            installed = everywhere.next() => say(installed),
            () = tokio::time::sleep(PATIENCE) => for start in &away { set_out(first, *start).await? },
        }
        if arrived.len() as u64 >= numbers / 2
            && let Some(newcomer) = newcomer.take()
        {
            late = Some(newcomer.start().await?);
            say(everywhere.next().await);
            // A moment later all know that it is there, too.
            first.wait_for_hosts("collatz", nodes + 1).await?;
        }
    }
    let took = begun.elapsed();
    if let Some(late) = late {
        late.stop().await;
    }
    first.stop().await;
    check(&arrived, took)
}

fn say(installed: Option<Installed>) {
    match installed.map(|installed| (installed.node, installed.result)) {
        Some((node, Ok(()))) => println!("  {node} was brought `collatz`"),
        Some((node, Err(error))) => println!("  {node} does without `collatz`: {error}"),
        None => {}
    }
}

async fn set_out(first: &Node, start: u64) -> Result<(), CallError> {
    let origin = first.peer_id().to_string();
    first.tell("collatz", Number { start, value: start, steps: 0, visits: BTreeMap::new(), origin }).await
}

/// Compares the numbers of steps with a plain computation.
fn check(arrived: &[Number], took: Duration) -> Result<(), Box<dyn Error>> {
    let mut visits = BTreeMap::new();
    for number in arrived {
        let plain = std::iter::successors(Some(number.start), |value| (*value != 1).then(|| step(*value))).count() - 1;
        if number.steps != plain as u64 {
            return Err(format!("{} took {} steps and not {plain}", number.start, number.steps).into());
        }
        for (node, count) in &number.visits {
            *visits.entry(node).or_insert(0) += count;
        }
    }
    println!("{} came to 1 in {took:.1?}, each in as many steps as by a plain computation", arrived.len());
    for (node, count) in visits {
        println!("  {count:6} visits to {node}");
    }
    let longest = arrived.iter().max_by_key(|number| (number.steps, Reverse(number.start))).ok_or("no numbers")?;
    println!("  {} took the longest way: {} steps", longest.start, longest.steps);
    Ok(())
}

/// Hosts what it is brought, until the first node is gone.
async fn follow(node: &Node) -> Result<(), Box<dyn Error>> {
    println!("`{}` takes what the first node brings; Ctrl-C ends", node.name());
    let mut events = node.events();
    let first_is_gone = |event| matches!(event, Event::Left { node, .. } if node.name == "first");
    tokio::select! {
        () = async { while !events.next().await.is_none_or(first_is_gone) {} } => {}
        _ = tokio::signal::ctrl_c() => {}
    }
    node.stop().await;
    Ok(())
}
