//! Goes through the phases: in each, round after round, one contestant after the other.

use std::time::Duration;

use bytes::Bytes;
use libp2p::core::upgrade::Version;

use crate::{
    Error, attack, code,
    contestant::{Client, Contestant, runtime},
    guarded, idle, load, memory,
    options::{Options, Phase},
    ours::MultiNodes,
    process::Server,
    raw,
    request_response::RequestResponse,
    results::{Metric, Results},
    spread, startup, together,
};

const SMALL: &[u8] = &[7; 64];
const LARGE: usize = 1024 * 1024;
const LARGE_IN_FLIGHT: usize = 8;

/// Measures everything that was asked for.
pub(crate) fn all(options: &Options) -> Result<Results, Error> {
    let mut results = Results::default();
    for &phase in &options.phases {
        let outcome = match phase {
            Phase::Startup => startup::same_host(options, &mut results),
            Phase::StartupLan => startup::over_the_lan(options, &mut results),
            Phase::Idle => idle::measure(options, &mut results),
            Phase::Map(workers) => spread::nothing(options, workers, &mut results),
            Phase::MapDask => spread::against_dask(options, &mut results),
            Phase::MapSleep => spread::sleeping(options, &mut results),
            Phase::MapMemory => memory::measure(options, &mut results),
            Phase::Guarded => guarded::measure(options, &mut results),
            Phase::Together => together::measure(options, &mut results),
            Phase::Code => code::measure(options, &mut results),
            Phase::Attack => attack::measure(options, &mut results),
            _ => rounds(options, phase, &mut results),
        };
        outcome.map_err(|error| format!("phase `{}`: {error}", phase.name()))?;
    }
    Ok(results)
}

fn rounds(options: &Options, phase: Phase, results: &mut Results) -> Result<(), Error> {
    for round in 1..=options.rounds {
        for &contestant in options.contestants.iter().filter(|contestant| contestant.calls()) {
            if phase == Phase::Cast && contestant != Contestant::MultiNodes {
                continue;
            }
            eprint!("\r\x1b[2K{} {round}/{}: {}", phase.name(), options.rounds, contestant.name());
            let measured = one(contestant, phase, options.length);
            eprint!("\r\x1b[2K");
            for (metric, value) in measured.map_err(|error| format!("{}: {error}", contestant.name()))? {
                results.add(metric, contestant, value);
            }
        }
    }
    Ok(())
}

/// One measurement has both processes and the runtime to itself: nothing of another contestant is alive meanwhile.
fn one(contestant: Contestant, phase: Phase, length: Duration) -> Result<Vec<(Metric, f64)>, Error> {
    let folder = tempfile::tempdir()?;
    let swarm = format!("bench-{}", std::process::id());
    let server = Server::start(contestant, &swarm, folder.path(), &[])?;
    let runtime = runtime()?;
    let address = server.address.clone();
    let measured = runtime.block_on(async move {
        match contestant {
            Contestant::Raw if phase == Phase::Sequential => {
                measure(raw::PingPong::connect(&address).await?, phase, length).await
            }
            Contestant::Raw => measure(raw::Framed::connect(&address).await?, phase, length).await,
            Contestant::RequestResponse => {
                measure(RequestResponse::connect(&address, Version::V1).await?, phase, length).await
            }
            Contestant::RequestResponseLazy => {
                measure(RequestResponse::connect(&address, Version::V1Lazy).await?, phase, length).await
            }
            Contestant::MultiNodes => {
                let ours = MultiNodes::connect(&address, &swarm).await?;
                if phase == Phase::Cast {
                    let casts = ours.casts(Bytes::from_static(SMALL), length).await?;
                    return Ok(vec![(Metric::Cast, casts.arrived), (Metric::CastSent, casts.sent)]);
                }
                measure(ours, phase, length).await
            }
            Contestant::Dask => Ok(Vec::new()),
        }
    });
    runtime.shutdown_background();
    let measured = measured?;
    server.process.finish()?;
    Ok(measured)
}

async fn measure<C: Client>(client: C, phase: Phase, length: Duration) -> Result<Vec<(Metric, f64)>, Error> {
    let small = Bytes::from_static(SMALL);
    Ok(match phase {
        Phase::Sequential => {
            let latency = load::sequential(client, small, length).await?;
            vec![
                (Metric::SequentialP50, latency.p50_us),
                (Metric::SequentialP99, latency.p99_us),
                (Metric::Calls(1), latency.calls_per_second),
            ]
        }
        Phase::InFlight(tasks) => vec![(Metric::Calls(tasks), load::in_flight(client, tasks, small, length).await?)],
        Phase::Bulk => {
            let uploads = load::in_flight(client, LARGE_IN_FLIGHT, vec![7; LARGE].into(), length).await?;
            vec![(Metric::Bulk, uploads * LARGE as f64 / 1e6)]
        }
        _ => Vec::new(),
    })
}
