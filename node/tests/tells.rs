//! Tells that were accepted and are lost with their host: the node that has sent them knows how many, whether the host was
//! killed or had too little time to stop.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{
    io::{BufRead, BufReader},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
        mpsc::{Receiver, channel},
    },
    thread,
};

use common::{LIMIT, Process, Swarm};
use multinodes::{LeftReason, Node};
use tokio::time::timeout;

const TELLS: u64 = 40;

/// So many of them are let go: the next one is the last that is begun.
const DONE: u64 = 5;

/// Hears of each tell that is begun, and holds it until what came with it is dropped.
struct Holding {
    port: u16,
    begun: Receiver<(u64, TcpStream)>,
}

impl Holding {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (sender, begun) = channel();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let mut line = String::new();
                BufReader::new(&stream).read_line(&mut line).unwrap();
                if sender.send((line.trim().parse().unwrap(), stream)).is_err() {
                    return;
                }
            }
        });
        Self { port, begun }
    }

    fn command(&self) -> String {
        format!("held=python3 '{}' {}", script("holding.py"), self.port)
    }

    /// Waits for the next one to be begun; it goes on when the stream is dropped.
    #[track_caller]
    fn next(&self) -> (u64, TcpStream) {
        self.begun.recv_timeout(LIMIT).unwrap()
    }
}

fn script(name: &str) -> String {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/tells").join(name).display().to_string()
}

async fn sender(swarm: &Swarm, application: &str) -> Node {
    let node = swarm.builder().name("sender").start().await.unwrap();
    timeout(LIMIT, node.wait_for(application)).await.unwrap().unwrap();
    node
}

/// Waits until the node has counted that something is lost.
async fn lost(node: &Node) -> u64 {
    timeout(LIMIT, async {
        while node.counters().lost_tells == 0 {
            tokio::task::yield_now().await;
        }
        node.counters().lost_tells
    })
    .await
    .unwrap()
}

/// Has the first ones done and one begun, and the others wait. What is given holds the one.
async fn fill(node: &Node, holding: &Holding) -> TcpStream {
    for number in 0..TELLS {
        timeout(LIMIT, node.tell("held", number)).await.unwrap().unwrap();
    }
    for number in 0..DONE {
        assert_eq!(holding.next().0, number);
    }
    let (number, stream) = holding.next();
    assert_eq!(number, DONE);
    stream
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sender_counts_what_a_host_that_stops_has_not_begun_exactly() {
    let (swarm, holding) = (Swarm::new(), Holding::new());
    let mut host = swarm.start("host", &["--exec", &holding.command(), "--drain", "100ms"]);
    let node = sender(&swarm, "held").await;
    let _held = fill(&node, &holding).await;
    host.signal("TERM");
    assert_eq!(host.end(), 124);
    assert_eq!(lost(&node).await, TELLS - DONE - 1);
    assert!(host.complaints().contains(&format!("{} accepted tells were not finished", TELLS - DONE)));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sender_counts_what_a_host_that_is_killed_has_not_begun_as_far_as_it_was_heard() {
    let (swarm, holding) = (Swarm::new(), Holding::new());
    let host = swarm.start("host", &["--exec", &holding.command()]);
    let node = sender(&swarm, "held").await;
    let _held = fill(&node, &holding).await;
    // Its answer says how many are begun by now.
    timeout(LIMIT, node.tell("held", TELLS)).await.unwrap().unwrap();
    host.signal("KILL");
    assert_eq!(lost(&node).await, TELLS - DONE);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_answer_says_how_many_are_begun_and_a_new_life_has_lost_what_waited_in_the_old_one() {
    let (swarm, holding) = (Swarm::new(), Holding::new());
    let start = || swarm.start("host", &["--identity", "host.key", "--exec", &holding.command()]);
    let mut host = start();
    let node = sender(&swarm, "held").await;
    let _held = fill(&node, &holding).await;
    let echo: u64 = timeout(LIMIT, node.app("node").on("host").call("echo", 7_u64)).await.unwrap().unwrap();
    assert_eq!(echo, 7);
    host.signal("KILL");
    drop(host);
    host = start();
    assert_eq!(lost(&node).await, TELLS - DONE - 1);
    // The new life begins with nothing, and loses nothing when it stops in good order.
    timeout(LIMIT, async {
        while node.tell("held", TELLS).await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    assert_eq!(holding.next().0, TELLS);
    let mut events = node.events();
    host.signal("TERM");
    assert_eq!(host.end(), 0);
    timeout(LIMIT, async {
        loop {
            if let Some(multinodes::Event::Left { reason, .. }) = events.next().await {
                return assert_eq!(reason, LeftReason::Stopped);
            }
        }
    })
    .await
    .unwrap();
    assert_eq!(node.counters().lost_tells, TELLS - DONE - 1);
    node.stop().await;
}

/// What is told in a storm, and what has come of it.
#[derive(Clone)]
struct Told {
    node: Node,
    notes: PathBuf,
    next: Arc<AtomicU64>,
    accepted: Arc<AtomicU64>,
}

impl Told {
    /// So many are noted.
    fn noted(&self) -> u64 {
        const LINE: u64 = 9;
        std::fs::metadata(&self.notes).map_or(0, |notes| notes.len() / LINE)
    }

    /// Tells numbers without end, and counts those that were accepted. A few hundred wait at the most, so that a host that
    /// stops is done with them in time.
    async fn tell_on(self) {
        let target = self.node.app("noted").timeout(LIMIT);
        loop {
            let settled = self.noted() + self.node.counters().lost_tells;
            if self.accepted.load(SeqCst).saturating_sub(settled) > 300 {
                tokio::task::yield_now().await;
                continue;
            }
            match target.tell(self.next.fetch_add(1, SeqCst)).await {
                Ok(()) => _ = self.accepted.fetch_add(1, SeqCst),
                Err(_) => tokio::task::yield_now().await,
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_a_storm_of_kills_and_stops_no_accepted_tell_vanishes_without_being_counted() {
    const ROUNDS: usize = 8;
    let swarm = Swarm::new();
    let notes = swarm.path("notes");
    let command = format!("noted=python3 '{}' '{}'", script("noting.py"), notes.display());
    let start = |round: usize| -> Process { swarm.start(&format!("host-{round}"), &["--serve", &command]) };
    let mut host = start(0);
    let node = sender(&swarm, "noted").await;
    let told = Told { node: node.clone(), notes: notes.clone(), next: Arc::default(), accepted: Arc::default() };
    let accepted = told.accepted.clone();
    let tasks: Vec<_> = (0..8).map(|_| tokio::spawn(told.clone().tell_on())).collect();
    for round in 1..=ROUNDS {
        let wanted = accepted.load(SeqCst) + 200 * round as u64;
        timeout(LIMIT, async {
            while accepted.load(SeqCst) < wanted {
                tokio::task::yield_now().await;
            }
        })
        .await
        .unwrap();
        let before = node.counters().lost_tells;
        let mut events = node.events();
        let stops = round % 2 == 0;
        host.signal(if stops { "TERM" } else { "KILL" });
        let code = host.end();
        timeout(LIMIT, async { while !matches!(events.next().await, Some(multinodes::Event::Left { .. })) {} })
            .await
            .unwrap();
        if round == ROUNDS {
            tasks.iter().for_each(|task| task.abort());
        }
        if stops {
            assert_eq!((code, node.counters().lost_tells), (0, before), "who has time enough loses nothing");
        }
        if round < ROUNDS {
            host = start(round);
        }
    }
    for task in tasks {
        assert!(task.await.unwrap_err().is_cancelled());
    }
    let noted = told.noted();
    let (accepted, lost) = (accepted.load(SeqCst), node.counters().lost_tells);
    // Of each host that was killed one may have been begun and not noted.
    let kills = ROUNDS as u64 / 2;
    assert!(lost + noted + kills >= accepted, "{accepted} accepted, {noted} noted, {lost} lost");
    assert!(lost <= kills * 400, "no more than waited are said to be lost: {lost}");
    node.stop().await;
}
