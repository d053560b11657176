//! The node that runs code of others, and the one that sends it.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use bytes::Bytes;
use multinodes::{Actions, Code, CodeRule, GuestLimits, Node, Rule};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use super::{
    Figure,
    timings::{Ear, Timings},
};
use crate::{
    Error,
    contestant::{Blob, Client, Contestant, runtime},
    idle, load,
    options::Options,
    ours::{self, MultiNodes},
    process::{self, Server, TICKS_PER_SECOND},
    results::{Metric, Results},
};

/// Gives back what it gets: the least that a task can do.
const ECHO: &str = include_str!("../../../../node/tests/guests/echo.wat");

/// A task in Rust.
const SUM: &[u8] = include_bytes!("../../../../examples/guests/sum.wasm");

/// An application in Rust.
const COLLATZ: &[u8] = include_bytes!("../../../../examples/guests/collatz.wasm");

const FOREVER: &[u8] = include_bytes!("../../../../examples/guests/forever.wasm");

/// Guests that spin at once.
const SPINNING: usize = 4;

/// How many calls are in flight into an application.
const IN_FLIGHT: [usize; 2] = [1, 64];

/// Goes up to 9232 in 111 steps: half a microsecond of work.
const START: u64 = 27;

/// First runs, each on a node of its own: more of them than rounds, so that the median is steady.
const FIRST_RUNS_A_ROUND: usize = 5;

/// Longer than anything is measured.
const LONG: Duration = Duration::from_secs(3600);

/// The application of the program itself that does what the installed one does.
const NATIVE: &str = "native";

const INSTALLED: &str = "installed";

/// Runs code of anybody, and hosts natively what it is compared with.
pub(crate) async fn serve(swarm: &str, folder: &Path) -> Result<(), Error> {
    let ear = Ear::default();
    tracing::subscriber::set_global_default(ear.clone())?;
    let mut limits = GuestLimits::default();
    (limits.wall, limits.cpu) = (LONG, LONG);
    let rule = CodeRule::of(Rule::any()).limits(limits);
    let builder = Node::builder().swarm(swarm).mdns(false).rendezvous(false).listen("/ip4/127.0.0.1/tcp/0");
    let node = builder.allow_code(rule).data_folder(folder).start().await?;
    let native = Actions::new()
        .action("steps", |start: u64| async move { reach(start) })
        .action("timings", move |(): ()| std::future::ready(ear.last()));
    node.register(NATIVE, native)?;
    ours::host(&node)?;
    process::say_ready(&ours::loopback(&node)?);
    std::future::pending().await
}

/// How a number comes to 1: what the guest gives.
#[derive(Serialize, Deserialize)]
struct Reached {
    steps: u64,
    highest: u64,
}

fn reach(start: u64) -> Option<Reached> {
    let (mut value, mut steps, mut highest) = (start, 0, start);
    while value > 1 {
        value = if value.is_multiple_of(2) { value / 2 } else { value.checked_mul(3)?.checked_add(1)? };
        (steps, highest) = (steps + 1, highest.max(value));
    }
    Some(Reached { steps, highest })
}

/// Takes turns between native and guest, each round with fresh processes.
pub(crate) fn measure(options: &Options, results: &mut Results) -> Result<(), Error> {
    if !options.contestants.contains(&Contestant::MultiNodes) {
        return Ok(());
    }
    let length = options.length;
    for round in 1..=options.rounds {
        let say = |part| eprint!("\r\x1b[2Kcode {round}/{}: {part}", options.rounds);
        let mut add = |figures: Vec<(Figure, f64)>| {
            for (figure, value) in figures {
                results.add(Metric::Code(figure), Contestant::MultiNodes, value);
            }
        };
        say("calls and runs");
        add(with_server(move |client, _| calls_and_runs(client, length))?);
        say("first runs");
        for _ in 0..FIRST_RUNS_A_ROUND {
            add(with_server(|client, _| first_run(client))?);
        }
        say("applications");
        add(with_server(move |client, _| applications(client, length))?);
        say("spinning guests");
        add(with_server(move |client, server| spinning(client, server, length))?);
    }
    eprint!("\r\x1b[2K");
    Ok(())
}

/// Has a node measured that knows a fresh one. It gets the id of that one's process, too.
fn with_server<F>(measure: impl FnOnce(MultiNodes, u32) -> F) -> Result<Vec<(Figure, f64)>, Error>
where
    F: Future<Output = Result<Vec<(Figure, f64)>, Error>> + Send + 'static,
{
    let folder = tempfile::tempdir()?;
    // Beside the program, so on a disk and not in memory.
    let data = tempfile::tempdir_in(std::env::current_exe()?.parent().ok_or("the program has no folder")?)?;
    let swarm = format!("bench-{}", std::process::id());
    let server = Server::of_code(&swarm, folder.path(), data.path())?;
    let runtime = runtime()?;
    let measured = runtime.block_on(async {
        let client = MultiNodes::connect(&server.address, &swarm).await?;
        tokio::spawn(measure(client, server.process.id())).await?
    });
    runtime.shutdown_background();
    let measured = measured?;
    server.process.finish()?;
    Ok(measured)
}

/// Runs a task on one node again and again.
#[derive(Clone)]
struct Runs {
    node: Node,
    code: Code,
    on: String,
}

impl Client for Runs {
    async fn call(&self, payload: Bytes) -> Result<usize, Error> {
        // A task gives back its arguments, which are a list.
        let (answer,): (Blob,) = self.node.run(&self.code).on(self.on.as_str()).call(Blob(payload)).await?;
        Ok(answer.0.len())
    }
}

#[derive(Clone)]
struct Sums(Runs);

impl Client for Sums {
    async fn call(&self, _: Bytes) -> Result<usize, Error> {
        let Runs { node, code, on } = &self.0;
        let sum: usize = node.run(code).on(on.as_str()).call((20_u8, 22_u8)).await?;
        if sum == 42 { Ok(sum) } else { Err(format!("the sum of 20 and 22 was {sum}").into()) }
    }
}

async fn calls_and_runs(client: MultiNodes, length: Duration) -> Result<Vec<(Figure, f64)>, Error> {
    let payload = || Bytes::from_static(&[7; 64]);
    let (node, on) = (client.node().clone(), client.host()?.peer_id.to_string());
    let runs = Runs { node: node.clone(), code: Code::from_bytes(ECHO)?, on: on.clone() };
    let sums = Sums(Runs { node, code: Code::from_bytes(SUM)?, on });
    let called = load::sequential(client, payload(), length).await?;
    let ran = load::sequential(runs, payload(), length).await?;
    let summed = load::sequential(sums, payload(), length).await?;
    Ok(vec![
        (Figure::CallP50, called.p50_us),
        (Figure::CallP99, called.p99_us),
        (Figure::RunP50, ran.p50_us),
        (Figure::RunP99, ran.p99_us),
        (Figure::SumP50, summed.p50_us),
    ])
}

/// From before the code is sent, to a node that has never had any, until its result is there.
async fn first_run(client: MultiNodes) -> Result<Vec<(Figure, f64)>, Error> {
    let (node, on) = (client.node().clone(), client.host()?.peer_id.to_string());
    let sums = Sums(Runs { node: node.clone(), code: Code::from_bytes(SUM)?, on });
    let begin = Instant::now();
    sums.call(Bytes::new()).await?;
    let whole = begin.elapsed().as_secs_f64() * 1e3;
    let Timings { vetting, compile, instantiate, run } = node.call(NATIVE, "timings", ()).await?;
    if compile == 0 {
        return Err("the code was compiled before".into());
    }
    let millis = |micros: u64| micros as f64 / 1e3;
    let (vetting, compile, run) = (millis(vetting), millis(compile), millis(instantiate + run));
    Ok(vec![
        (Figure::FirstRun, whole),
        (Figure::Transfer, whole - vetting - compile - run),
        (Figure::Vetting, vetting),
        (Figure::Compile, compile),
        (Figure::Run, run),
    ])
}

/// Calls of the same action of a native application and of an installed one.
#[derive(Clone)]
struct Steps {
    node: Node,
    application: &'static str,
}

impl Client for Steps {
    async fn call(&self, _: Bytes) -> Result<usize, Error> {
        let reached: Reached = self.node.call(self.application, "steps", START).await?;
        if (reached.steps, reached.highest) != (111, 9232) {
            return Err(format!("{START} came to 1 in {} steps", reached.steps).into());
        }
        Ok(1)
    }
}

async fn applications(client: MultiNodes, length: Duration) -> Result<Vec<(Figure, f64)>, Error> {
    let node = client.node().clone();
    node.install(INSTALLED, &Code::from_bytes(COLLATZ)?).on(client.host()?.peer_id.to_string()).await?;
    node.wait_for(INSTALLED).await?;
    let mut figures = Vec::new();
    for in_flight in IN_FLIGHT {
        for (application, figure) in [(NATIVE, Figure::Native(in_flight)), (INSTALLED, Figure::Guest(in_flight))] {
            let steps = Steps { node: node.clone(), application };
            figures.push((figure, load::in_flight(steps, in_flight, Bytes::new(), length).await?));
        }
    }
    Ok(figures)
}

async fn spinning(client: MultiNodes, server: u32, length: Duration) -> Result<Vec<(Figure, f64)>, Error> {
    let payload = || Bytes::from_static(&[7; 64]);
    let idle = load::sequential(client.clone(), payload(), length).await?;
    let (forever, on) = (Code::from_bytes(FOREVER)?, client.host()?.peer_id.to_string());
    let mut guests = JoinSet::new();
    for _ in 0..SPINNING {
        let run = client.node().run(&forever).on(on.as_str()).timeout(LONG);
        guests.spawn(async move { run.call::<()>(()).await });
    }
    tokio::time::sleep(load::warm_up(length)).await;
    let (begin, ticks) = (Instant::now(), idle::ticks_of(server)?);
    let among = load::sequential(client, payload(), length).await?;
    let cpu = (idle::ticks_of(server)? - ticks) / TICKS_PER_SECOND / begin.elapsed().as_secs_f64();
    if let Some(ended) = guests.try_join_next() {
        return Err(format!("a guest that spins has ended: {ended:?}").into());
    }
    Ok(vec![
        (Figure::IdleP50, idle.p50_us),
        (Figure::SpinningP50, among.p50_us),
        (Figure::IdleP99, idle.p99_us),
        (Figure::SpinningP99, among.p99_us),
        (Figure::SpinningCpu, cpu * 100.0),
    ])
}
