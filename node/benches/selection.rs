//! What it costs to pick a host of an application.
//!
//! ```text
//! cargo bench --bench selection --features measure
//! ```

#![allow(clippy::print_stdout, reason = "it is a program")]

use std::{
    error::Error,
    hint::black_box,
    time::{Duration, Instant},
};

use multinodes::{Predicate, Strategy, measure::Picks};

/// How long each row is measured.
const TIME: Duration = Duration::from_millis(400);

const PREDICATES: [(&str, Option<&str>); 4] = [
    ("no predicate", None),
    ("half match", Some("node.labels.region == 'eu'")),
    ("one in eight matches", Some("description.gpu >= 7 && node.labels.region == 'us'")),
    ("half match, by load: not kept", Some("node.load < 2 && node.labels.region == 'eu'")),
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("{:<32} {:>6} {:>12} {:>22}", "", "hosts", "ns per pick", "us after a new list");
    for (name, predicate) in PREDICATES {
        for hosts in [1, 100, 1000] {
            let all = Picks::new(hosts)?;
            let picks = match predicate {
                Some(predicate) => all.matching(predicate)?,
                None => all,
            };
            let pick = nanoseconds(1, || black_box(picks.pick()));
            // The first pick has evaluated the predicate for each host: what is left is to look the verdicts up.
            let change = nanoseconds(1, || picks.change());
            let both = nanoseconds(1, || {
                picks.change();
                black_box(picks.pick())
            });
            println!("{name:<32} {hosts:>6} {pick:>12.0} {:>22.1}", (both - change).max(0.0) / 1000.0);
        }
    }
    println!();
    let strategies = [
        Strategy::Random,
        Strategy::RoundRobin,
        Strategy::LeastLoaded,
        Strategy::Nearest,
        Strategy::sticky("a customer"),
    ];
    let named = strategies.map(|strategy| (format!("{strategy:?}"), strategy));
    let first_free = Strategy::custom(|candidates| candidates.iter().find(|candidate| !candidate.is_full()));
    // What is the user's own in it: to look at each host.
    let most_memory = Strategy::custom(|candidates| {
        candidates.iter().max_by_key(|candidate| candidate.host.description["gpu"].as_u64())
    });
    let own = [("Custom, the first that is free", first_free), ("Custom, looks at all", most_memory)];
    for (name, strategy) in named.into_iter().chain(own.map(|(name, strategy)| (name.to_owned(), strategy))) {
        for hosts in [1, 100, 1000] {
            let picks = Picks::new(hosts)?.by(strategy.clone());
            let pick = nanoseconds(1, || black_box(picks.pick()));
            println!("{name:<32} {hosts:>6} {pick:>12.0}");
        }
    }
    let text = "description.gpu >= 1 && node.labels.region == 'eu'";
    println!("compile a predicate: {:.0} us", nanoseconds(1, || Predicate::new(text)) / 1000.0);
    let first = nanoseconds(1000, || {
        let picks = Picks::new(1000).map(|all| all.matching(text));
        black_box(picks.is_ok_and(|picks| picks.is_ok_and(|picks| picks.pick())))
    });
    let made = nanoseconds(1000, || black_box(Picks::new(1000).is_ok()));
    println!("evaluate it for a record that is new: {:.0} ns", first - made);
    Ok(())
}

/// The mean time of one of the `each` things that `work` does.
fn nanoseconds<T>(each: u32, mut work: impl FnMut() -> T) -> f64 {
    black_box(work());
    let (begin, mut rounds) = (Instant::now(), 0_u32);
    while begin.elapsed() < TIME {
        for _ in 0..8 {
            black_box(work());
        }
        rounds += 8;
    }
    begin.elapsed().as_nanos() as f64 / f64::from(rounds) / f64::from(each)
}
