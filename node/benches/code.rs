//! What running a guest costs beside its own work.
//!
//! ```text
//! cargo build --release --features wasm && cargo bench --features wasm --bench code
//! ```

#![allow(clippy::print_stdout, reason = "it is a program")]

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use multinodes::{
    Code, GuestLimits, Node, Profile,
    code::{Allowance, Alone, Budget, CompileLimits, Compiled, Compiler, CompilerHome, GuestApplication, Runtime, run},
};
use tokio::time::sleep;

const RUNS: usize = 5000;
const TICKS: usize = 500;
const TICK: Duration = Duration::from_millis(2);

type Failure = Box<dyn std::error::Error>;

#[tokio::main(worker_threads = 2)]
async fn main() -> Result<(), Failure> {
    let runtime = Runtime::new(2, 64)?;
    first_runs(&runtime).await?;
    let compiler = Compiler::new(runtime.clone(), CompilerHome::Found, None, CompileLimits::default())?;
    let compile = async |name: &str| -> Result<Compiled, Failure> {
        Ok(compiler.compile(&guest(name)?, &Budget::default()).await?)
    };
    tasks(&runtime, &compile("echo").await?).await?;
    calls(&runtime, compile("counter").await?).await?;
    timers("nothing else", Duration::ZERO).await;
    let spinning = spin(&runtime, &compile("forever").await?);
    timers("four guests spinning", TICK * TICKS as u32 * 2).await;
    spinning.iter().for_each(tokio::task::JoinHandle::abort);
    Ok(())
}

/// Each with a compiler that has never seen it.
async fn first_runs(runtime: &Arc<Runtime>) -> Result<(), Failure> {
    for (home, name) in
        [(CompilerHome::Found, "in a child, if there is a command"), (CompilerHome::Here, "in this process")]
    {
        let compiler = Compiler::new(runtime.clone(), home, None, CompileLimits::default())?;
        let echo = guest("echo")?;
        let begun = Instant::now();
        let compiled = compiler.compile(&echo, &Budget::default()).await?;
        let outcome = run(runtime, &compiled, vec![0x80], &Allowance::default(), Arc::new(Alone)).await?;
        println!("first run of {} bytes, compiled {name}: {:?}, {:?}", echo.size(), begun.elapsed(), outcome.timings);
    }
    Ok(())
}

async fn tasks(runtime: &Arc<Runtime>, echo: &Compiled) -> Result<(), Failure> {
    let allowance = Allowance::default();
    let (mut whole, mut instantiate, mut inside) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..RUNS {
        let begun = Instant::now();
        let outcome = run(runtime, echo, vec![0x82, 1, 2], &allowance, Arc::new(Alone)).await?;
        whole.push(begun.elapsed());
        instantiate.push(outcome.timings.instantiate);
        inside.push(outcome.timings.run);
    }
    show("run of a tiny task, with the way to its thread and back", whole);
    show("  its instance", instantiate);
    show("  the call", inside);
    Ok(())
}

async fn calls(runtime: &Arc<Runtime>, counter: Compiled) -> Result<(), Failure> {
    let (allowance, profile) = (Allowance::default(), Profile::default());
    let application =
        GuestApplication::start(runtime.clone(), counter, vec![0xf6], allowance, profile, |_| Arc::new(Alone)).await?;
    let node = Node::builder().name("alpha").listen("/memory/1").mdns(false).start().await?;
    node.register("counter", application)?;
    let native = multinodes::Actions::new().action("count", |(): ()| async { 1_u8 });
    node.register("native", native)?;
    for name in ["native", "counter"] {
        let mut times = Vec::new();
        for _ in 0..RUNS {
            let begun = Instant::now();
            node.call::<u8>(name, "count", ()).await?;
            times.push(begun.elapsed());
        }
        show(&format!("call of `{name}` on its own node"), times);
    }
    node.stop().await;
    Ok(())
}

fn spin(runtime: &Arc<Runtime>, forever: &Compiled) -> Vec<tokio::task::JoinHandle<()>> {
    let mut limits = GuestLimits::default();
    (limits.wall, limits.cpu) = (Duration::from_secs(60), Duration::from_secs(60));
    let allowance = Allowance::new(limits);
    let guests = (0..4).map(|_| {
        let (runtime, forever, allowance) = (runtime.clone(), forever.clone(), allowance.clone());
        tokio::spawn(async move {
            // It ends with the program.
            _ = run(&runtime, &forever, Vec::new(), &allowance, Arc::new(Alone)).await;
        })
    });
    guests.collect()
}

async fn timers(among: &str, settle: Duration) {
    sleep(settle.min(Duration::from_millis(100))).await;
    let mut late = Vec::new();
    for _ in 0..TICKS {
        let begun = Instant::now();
        sleep(TICK).await;
        late.push(begun.elapsed().saturating_sub(TICK));
    }
    show(&format!("a timer of {TICK:?} is late among {among}"), late);
}

fn guest(name: &str) -> Result<Code, Failure> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/guests").join(name).with_extension("wat");
    Ok(Code::from_file(path)?)
}

fn show(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    println!("{what}: p50 {:?}, p99 {:?}, max {:?}", at(0.5), at(0.99), at(1.0));
}
