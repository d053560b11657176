//! What a secret and permissions cost: calls to a node that has both, and to one that has none.

use std::collections::BTreeMap;

use bytes::Bytes;
use multinodes::{Node, Rule, Secret, Ticket};

use crate::{
    Error,
    contestant::{Contestant, runtime},
    load,
    options::Options,
    ours::{self, MultiNodes},
    process::{self, Server},
    results::{Metric, Results},
};

/// How many calls are in flight.
pub(crate) const IN_FLIGHT: [usize; 2] = [64, 1024];

const PAYLOAD: &[u8] = &[7; 64];

/// Whom the node lets connect, and call.
const RULE: &str = "peer.labels.role == 'caller'";

/// Hosts the application in a private swarm, for those who have the label. Says the ticket instead of an address.
pub(crate) async fn serve(swarm: &str) -> Result<(), Error> {
    let builder = Node::builder().swarm(swarm).mdns(false).listen("/ip4/127.0.0.1/tcp/0").secret(Secret::generate());
    let builder = builder.allow_peer(Rule::new(RULE)?).allow(ours::APPLICATION, Rule::new(RULE)?)?;
    let node = builder.start().await?;
    ours::host(&node)?;
    let labels = BTreeMap::from([("role".to_owned(), "caller".to_owned())]);
    process::say_ready(&node.ticket_with_labels(None, labels)?.reveal());
    std::future::pending().await
}

/// Takes turns between the open and the guarded node.
pub(crate) fn measure(options: &Options, results: &mut Results) -> Result<(), Error> {
    for round in 1..=options.rounds {
        for guarded in [false, true] {
            eprint!("\r\x1b[2Kguarded {round}/{}: {}", options.rounds, if guarded { "guarded" } else { "open" });
            for in_flight in IN_FLIGHT {
                let calls = one(options, guarded, in_flight)?;
                results.add(Metric::Guarded(in_flight, guarded), Contestant::MultiNodes, calls);
            }
        }
    }
    eprint!("\r\x1b[2K");
    Ok(())
}

fn one(options: &Options, guarded: bool, in_flight: usize) -> Result<f64, Error> {
    let folder = tempfile::tempdir()?;
    let swarm = format!("bench-{}", std::process::id());
    let server = if guarded {
        Server::guarded(&swarm, folder.path())?
    } else {
        Server::start(Contestant::MultiNodes, &swarm, folder.path(), &[])?
    };
    let runtime = runtime()?;
    let (address, length) = (server.address.clone(), options.length);
    let calls = runtime.block_on(async move {
        let client = if guarded {
            MultiNodes::joining(Ticket::parse(&address)?).await?
        } else {
            MultiNodes::connect(&address, &swarm).await?
        };
        load::in_flight(client, in_flight, Bytes::from_static(PAYLOAD), length).await
    });
    runtime.shutdown_background();
    let calls = calls?;
    server.process.finish()?;
    Ok(calls)
}
