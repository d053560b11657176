//! A loopback benchmark: raw TCP, libp2p's own request-response and MultiNodes, in interleaved rounds; and how many items
//! a second `map` spreads over workers.
//!
//! The same binary is the driver and, as `serve CONTESTANT`, the other process; `first-call SWARM` is the process
//! whose start-up is timed, `work SWARM` a worker, `submit SWARM ADDRESS` a process that gives it items without end,
//! `code SWARM FOLDER` one that runs code of others, `attack KIND SWARM ADDRESS` a peer that means harm, `together HOW FOLDER` many nodes at once, `spin` a process
//! in its place that only takes a core.
//! Reading order: `options`, `contestant`, `load`, `run`, `spread`, `report`.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that prints tables")]

mod attack;
#[path = "../../../node/tests/common/attacker.rs"]
mod attacker;
mod code;
mod contestant;
mod dask;
mod guarded;
mod idle;
mod load;
mod memory;
mod options;
mod ours;
mod process;
mod raw;
mod report;
mod request_response;
mod results;
mod run;
mod spread;
mod startup;
mod together;
mod work;

use std::process::ExitCode;

use options::{Options, Role};

/// Whatever can go wrong: the driver shows it and ends.
type Error = Box<dyn std::error::Error + Send + Sync>;

fn main() -> ExitCode {
    let outcome = Options::from_arguments(std::env::args().skip(1)).and_then(|role| match role {
        Role::Serve { contestant, swarm } => contestant.serve(swarm),
        Role::FirstCall { swarm } => startup::first_call(&swarm),
        Role::Work { swarm } => contestant::until_stdin_ends(work::serve(swarm)),
        Role::Submit { swarm, address } => contestant::until_stdin_ends(memory::submit(swarm, address)),
        Role::Guard { swarm } => contestant::until_stdin_ends(async move { guarded::serve(&swarm).await }),
        Role::Code { swarm, folder } => contestant::until_stdin_ends(async move { code::serve(&swarm, &folder).await }),
        Role::Attack { attack, swarm, address } => attack::run(attack, &swarm, &address),
        Role::Together { how, folder } => together::run(how, &folder),
        Role::Spin => attack::spin(),
        Role::Drive(options) => drive(&options),
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("multinodes-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn drive(options: &Options) -> Result<(), Error> {
    let results = run::all(options)?;
    let json = serde_json::to_string_pretty(&report::json(options, &results))?;
    if let Some(file) = &options.out {
        std::fs::write(file, format!("{json}\n")).map_err(|error| format!("`{}`: {error}", file.display()))?;
    }
    if options.json {
        println!("{json}");
    } else {
        report::print(options, &results);
    }
    Ok(())
}
