//! Many items over many workers: each has exactly one outcome, whatever happens to the workers.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "common/in_process.rs"]
mod in_process;

use std::{
    collections::{BTreeMap, BTreeSet},
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use futures::{Stream, StreamExt, TryStreamExt, stream};
use multinodes::{Actions, AppError, CallError, Context, ItemErrorKind, Map, MapError, Node, Outcome, Verdict};
use tokio::sync::{Semaphore, mpsc};

use in_process::{hosts, in_process, within};

/// A node that hosts nothing, and `count` workers that know it, each with the application that `host` gives it.
async fn swarm(count: usize, host: impl Fn(usize) -> Actions) -> (Node, Vec<Node>) {
    let (submitter, address) = in_process("submitter");
    let submitter = submitter.start().await.unwrap();
    let mut workers = Vec::new();
    for number in 0..count {
        let worker = in_process(&format!("worker-{number}")).0.join(&address).start().await.unwrap();
        worker.register("work", host(number)).unwrap();
        workers.push(worker);
    }
    hosts(&submitter, "work", count).await;
    (submitter, workers)
}

async fn all<R: serde::de::DeserializeOwned>(map: Map<R>) -> Vec<Outcome<R>> {
    within(map.try_collect()).await.unwrap()
}

fn squares() -> Actions {
    Actions::new().slots(4).action("square", |x: u64| async move { x * x })
}

#[tokio::test]
async fn every_item_has_one_outcome_and_all_workers_take_part() {
    let (node, _workers) = swarm(3, |_| squares()).await;
    let outcomes = all(node.app("work").map_iter::<u64>("square", 0..5000_u64)).await;
    let results: BTreeMap<u64, u64> =
        outcomes.iter().map(|outcome| (outcome.index, *outcome.result.as_ref().unwrap())).collect();
    assert_eq!((outcomes.len(), results.len()), (5000, 5000));
    assert!(results.iter().all(|(index, result)| index * index == *result));
    let nodes: BTreeSet<_> = outcomes.iter().filter_map(|outcome| outcome.node.as_deref()).collect();
    assert_eq!(nodes.len(), 3, "{nodes:?}");
    assert!(outcomes.iter().all(|outcome| outcome.attempts == 1 && !outcome.recorded));
    assert_eq!(outcomes[0].input.decode_arguments::<u64>().unwrap(), outcomes[0].index);
}

#[tokio::test]
async fn outcomes_come_in_order_if_that_is_asked_for() {
    let slow_first = || {
        Actions::new().slots(4).action("run", |x: u64| async move {
            // Early ones take longer.
            for _ in x..64 {
                tokio::task::yield_now().await;
            }
            x
        })
    };
    let (node, _workers) = swarm(2, |_| slow_first()).await;
    let outcomes = all(node.app("work").map_iter::<u64>("run", 0..300_u64).ordered()).await;
    let indexes: Vec<u64> = outcomes.iter().map(|outcome| outcome.index).collect();
    assert_eq!(indexes, (0..300).collect::<Vec<_>>());
}

#[tokio::test]
async fn the_node_itself_works_too_if_it_hosts_the_application() {
    let (node, _workers) = swarm(1, |_| squares()).await;
    node.register("work", squares()).unwrap();
    let outcomes = all(node.app("work").map_iter::<u64>("square", 0..500_u64)).await;
    let nodes: BTreeSet<_> = outcomes.iter().filter_map(|outcome| outcome.node.clone()).collect();
    assert_eq!((outcomes.len(), nodes.len()), (500, 2), "{nodes:?}");
    let only = all(node.app("work").on("worker-0").map_iter::<u64>("square", 0..50_u64)).await;
    assert!(only.iter().all(|outcome| outcome.node.as_deref() == Some("worker-0")));
}

/// An application whose calls wait for permits, and what they have begun with.
fn gated(slots: u32, gate: Arc<Semaphore>) -> (Actions, mpsc::UnboundedReceiver<u64>) {
    let (begun, begins) = mpsc::unbounded_channel();
    let actions = Actions::new().slots(slots).action("run", move |x: u64| {
        let (begun, gate) = (begun.clone(), gate.clone());
        async move {
            begun.send(x).unwrap();
            gate.acquire().await.unwrap().forget();
            x
        }
    });
    (actions, begins)
}

#[tokio::test]
async fn a_worker_that_is_lost_has_its_items_run_by_others_and_newcomers_get_work_at_once() {
    let gate = Arc::new(Semaphore::new(0));
    let (actions, mut begins) = gated(2, gate.clone());
    let actions = Mutex::new(Some(actions));
    let (node, mut workers) = swarm(1, |_| actions.lock().unwrap().take().unwrap()).await;
    let map = node.app("work").map_iter::<u64>("run", 0..40_u64);
    let status = map.status();
    let outcomes = tokio::spawn(all(map));
    for _ in 0..2 {
        within(begins.recv()).await.unwrap();
    }
    let address = workers[0].addresses()[0].to_string();
    let newcomer = in_process("newcomer").0.join(address).start().await.unwrap();
    newcomer.register("work", Actions::new().slots(2).action("run", |x: u64| async move { x })).unwrap();
    hosts(&node, "work", 2).await;
    // Dropped without a goodbye: what it runs is lost.
    let lost = workers.remove(0);
    let lost_name = lost.name().to_owned();
    drop(lost);
    drop(workers);
    let outcomes = within(outcomes).await.unwrap();
    let results: BTreeSet<u64> = outcomes.iter().map(|outcome| *outcome.result.as_ref().unwrap()).collect();
    assert_eq!((outcomes.len(), results.len()), (40, 40));
    let again: Vec<_> = outcomes.iter().filter(|outcome| !outcome.failures.is_empty()).collect();
    assert!(again.len() >= 2, "those that ran were run again: {again:?}");
    assert!(again.iter().all(|outcome| outcome.attempts > 1 && outcome.failures[0].node == lost_name), "{again:?}");
    let status = status.borrow();
    assert_eq!((status.taken, status.done, status.failed, status.running), (40, 40, 0, 0));
    assert!(status.input_ended && status.workers.len() == 2, "{status:?}");
    // Whoever chooses a host for a call knows of it, too.
    hosts(&node, "work", 1).await;
    let considered = node.app("work").explain();
    let lost = considered.iter().find(|host| host.node == lost_name).unwrap();
    assert_eq!(lost.verdict, Verdict::Gone, "{lost:?}");
    assert!(lost.reason.contains("the connection") || lost.reason.contains("cannot be reached"), "{lost:?}");
}

#[tokio::test]
async fn only_hosts_that_are_wanted_get_items() {
    let versions = ["1.2.0", "1.9.9", "2.0.0"];
    let (node, workers) = swarm(3, |number| squares().version(versions[number])).await;
    node.register("work", squares().version("1.5.0")).unwrap();
    let who = async |target: multinodes::AppRef| {
        let outcomes = all(target.map_iter::<u64>("square", 0..600_u64)).await;
        assert!(outcomes.iter().all(|outcome| outcome.result.is_ok()));
        outcomes.into_iter().filter_map(|outcome| outcome.node).collect::<BTreeSet<_>>()
    };
    let named = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
    let app = node.app("work");
    assert_eq!(who(app.clone().remote()).await, named(&["worker-0", "worker-1", "worker-2"]));
    assert_eq!(who(app.clone().version("^1.2").unwrap()).await, named(&["submitter", "worker-0", "worker-1"]));
    assert_eq!(who(app.clone().version("^1.2").unwrap().remote()).await, named(&["worker-0", "worker-1"]));
    assert_eq!(who(app.clone().on(workers[2].peer_id().to_base58())).await, named(&["worker-2"]));
    assert_eq!(who(app.clone().filter(|host| host.node == "worker-1")).await, named(&["worker-1"]));
    let nobody = app.version("^3").unwrap().map_iter::<u64>("square", 0..6_u64).patience(Duration::from_millis(200));
    let error = within(nobody.try_collect::<Vec<_>>()).await.unwrap_err();
    assert!(matches!(&error, MapError::NoWorker(CallError::NoMatch { hosts: 4, .. })), "{error:?}");
}

#[tokio::test]
async fn an_error_of_the_application_is_final_unless_it_is_to_be_tried_again() {
    let calls = Arc::new(AtomicU32::new(0));
    let counted = calls.clone();
    let (node, _workers) = swarm(1, move |_| {
        let calls = counted.clone();
        Actions::new().try_action("run", move |x: u32| {
            let calls = calls.clone();
            async move {
                match (x, calls.fetch_add(1, SeqCst)) {
                    (0, _) => Err(AppError::new("zero", "it is zero").with_data(&7)),
                    (1, first) if first < 3 => Err(AppError::new("not_yet", "not yet")),
                    (x, _) => Ok(x),
                }
            }
        })
    })
    .await;
    let outcomes = all(node.app("work").map_iter::<u32>("run", [0_u32])).await;
    let error = outcomes[0].result.as_ref().unwrap_err();
    assert_eq!(
        (error.kind, error.code.as_str(), error.message.as_str()),
        (ItemErrorKind::Failed, "zero", "it is zero")
    );
    assert_eq!(error.data.as_ref().unwrap().decode::<u32>().unwrap(), 7);
    assert_eq!((calls.swap(0, SeqCst), outcomes[0].attempts), (1, 1));
    let outcomes = all(node.app("work").map_iter::<u32>("run", [1_u32]).retry_errors(5)).await;
    assert_eq!((*outcomes[0].result.as_ref().unwrap(), outcomes[0].attempts), (1, 4));
    assert!(outcomes[0].failures.iter().all(|attempt| attempt.code == "not_yet"));
    let wrong = all(node.app("work").map_iter::<u32>("run", ["text"])).await;
    assert_eq!(wrong[0].result.as_ref().unwrap_err().code, "bad_arguments");
    let missing = all(node.app("work").map_iter::<u32>("missing", [1_u32])).await;
    assert_eq!(missing[0].result.as_ref().unwrap_err().code, "no_such_action");
}

#[tokio::test]
async fn an_item_that_breaks_each_worker_is_set_aside_and_all_others_complete() {
    let broken = Arc::new(AtomicUsize::new(0));
    let count = broken.clone();
    let (node, _workers) = swarm(4, move |_| {
        let broken = count.clone();
        Actions::new().slots(4).try_action("run", move |x: u64| {
            let broken = broken.clone();
            async move {
                if x == 13 {
                    broken.fetch_add(1, SeqCst);
                    return Err(AppError::crashed("ended by signal 11"));
                }
                Ok(x)
            }
        })
    })
    .await;
    let outcomes = all(node.app("work").map_iter::<u64>("run", 0..200_u64)).await;
    assert_eq!(outcomes.len(), 200);
    for outcome in &outcomes {
        if outcome.index != 13 {
            assert_eq!(*outcome.result.as_ref().unwrap(), outcome.index);
            continue;
        }
        let error = outcome.result.as_ref().unwrap_err();
        assert_eq!((error.kind, error.code.as_str()), (ItemErrorKind::Poisoned, "panicked"), "{error:?}");
        let nodes: BTreeSet<_> = outcome.failures.iter().map(|attempt| attempt.peer_id).collect();
        assert_eq!((outcome.failures.len(), nodes.len()), (3, 3), "on three different workers: {outcome:?}");
    }
    assert_eq!(broken.load(SeqCst), 3);
}

#[tokio::test]
async fn a_silent_worker_loses_its_items_and_one_that_shows_progress_keeps_them() {
    let lease = Duration::from_millis(400);
    let silent = Arc::new(AtomicBool::new(true));
    let once = silent.clone();
    let (node, _workers) = swarm(2, move |_| {
        let silent = once.clone();
        Actions::new().slots(1).action_with("run", move |context: Context, x: u64| {
            let silent = silent.clone();
            async move {
                if x == 0 && silent.swap(false, SeqCst) {
                    std::future::pending::<()>().await;
                }
                if x == 1 {
                    // Twice as long as the lease, with a sign of life now and then: that time passes is what is tested.
                    for step in 0..8 {
                        context.progress(&step);
                        tokio::time::sleep(lease / 4).await;
                    }
                }
                x
            }
        })
    })
    .await;
    let outcomes = all(node.app("work").map_iter::<u64>("run", 0..20_u64).lease(lease)).await;
    let by_index: BTreeMap<u64, &Outcome<u64>> = outcomes.iter().map(|outcome| (outcome.index, outcome)).collect();
    assert_eq!(by_index.len(), 20);
    assert!(outcomes.iter().all(|outcome| outcome.result.is_ok()), "{outcomes:?}");
    let hung = by_index[&0];
    assert_eq!((hung.attempts, hung.failures[0].code.as_str()), (2, "lease_expired"), "{hung:?}");
    assert!(by_index[&1].failures.is_empty(), "{:?}", by_index[&1]);
}

#[tokio::test]
async fn what_takes_long_at_the_end_is_begun_a_second_time_if_that_does_no_harm() {
    let begun = Arc::new(AtomicU32::new(0));
    let count = begun.clone();
    let (node, _workers) = swarm(2, move |_| {
        let begun = count.clone();
        Actions::new().slots(2).action("run", move |x: u64| {
            let begun = begun.clone();
            async move {
                // The first attempt at the last item hangs.
                if x == 29 && begun.fetch_add(1, SeqCst) == 0 {
                    std::future::pending::<()>().await;
                }
                x
            }
        })
    })
    .await;
    let outcomes = all(node.app("work").idempotent().map_iter::<u64>("run", 0..30_u64)).await;
    assert_eq!(outcomes.len(), 30);
    assert_eq!(outcomes.iter().find(|outcome| outcome.index == 29).unwrap().attempts, 2);
    begun.store(0, SeqCst);
    let once = node.app("work").map_iter::<u64>("run", 0..30_u64).lease(Duration::from_millis(500)).at_most_once();
    let outcomes = all(once).await;
    let last = outcomes.iter().find(|outcome| outcome.index == 29).unwrap();
    assert_eq!(last.result.as_ref().unwrap_err().kind, ItemErrorKind::MayHaveRun, "never run twice: {last:?}");
    assert_eq!((outcomes.len(), begun.load(SeqCst)), (30, 1));
}

/// Counts how many items were taken from it.
struct Endless(Arc<AtomicU64>);

impl Stream for Endless {
    type Item = u64;

    fn poll_next(self: Pin<&mut Self>, _: &mut std::task::Context<'_>) -> std::task::Poll<Option<u64>> {
        std::task::Poll::Ready(Some(self.0.fetch_add(1, SeqCst)))
    }
}

#[tokio::test]
async fn an_endless_input_is_taken_no_faster_than_outcomes_are_read() {
    let (node, _workers) = swarm(2, |_| squares()).await;
    let taken = Arc::new(AtomicU64::new(0));
    let mut outcomes = node.app("work").map::<u64>("square", Endless(taken.clone()));
    let mut status = outcomes.status();
    for _ in 0..10 {
        within(outcomes.try_next()).await.unwrap().unwrap();
    }
    // Nobody reads now: after a while nothing more is taken.
    within(async {
        let mut before = u64::MAX;
        while before != taken.load(SeqCst) {
            before = taken.load(SeqCst);
            for _ in 0..3 {
                status.changed().await.unwrap();
            }
        }
    })
    .await;
    assert!(taken.load(SeqCst) < 10_000, "{} items are held", taken.load(SeqCst));
    for _ in 0..20_000 {
        within(outcomes.try_next()).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn dropping_the_stream_cancels_what_runs() {
    struct Stopped(mpsc::UnboundedSender<u64>, u64);
    impl Drop for Stopped {
        fn drop(&mut self) {
            let _ = self.0.send(self.1);
        }
    }
    let (begun, mut begins) = mpsc::unbounded_channel();
    let (ended, mut ends) = mpsc::unbounded_channel();
    let (node, _workers) = swarm(1, move |_| {
        let (begun, ended) = (begun.clone(), ended.clone());
        Actions::new().slots(2).action("run", move |x: u64| {
            let (begun, stopped) = (begun.clone(), Stopped(ended.clone(), x));
            async move {
                begun.send(x).unwrap();
                std::future::pending::<()>().await;
                drop(stopped);
            }
        })
    })
    .await;
    let mut outcomes = node.app("work").map_iter::<()>("run", 0..100_u64);
    tokio::select! {
        outcome = outcomes.next() => panic!("{outcome:?}"),
        () = within(async { for _ in 0..2 { begins.recv().await.unwrap(); } }) => {}
    }
    drop(outcomes);
    let stopped: BTreeSet<u64> = [within(ends.recv()).await.unwrap(), within(ends.recv()).await.unwrap()].into();
    assert_eq!(stopped, [0, 1].into());
}

#[tokio::test]
async fn nobody_to_work_an_input_that_panics_and_items_that_cannot_be_sent_are_told_apart() {
    let (node, _workers) = swarm(1, |_| squares()).await;
    let end = within(node.app("nobody").map_iter::<u64>("run", [1_u64]).try_collect::<Vec<_>>()).await.unwrap_err();
    assert!(matches!(&end, MapError::NoWorker(CallError::NoSuchApplication { .. })), "{end:?}");
    let none = within(node.app("nobody").map_iter::<u64>("run", [0_u64; 0]).try_collect::<Vec<_>>()).await.unwrap();
    assert!(none.is_empty(), "nothing to do needs nobody");
    let bad = stream::iter(0..3_u64).map(|x| if x == 2 { panic!("on purpose") } else { x });
    let end = within(node.app("work").map::<u64>("square", bad).try_collect::<Vec<_>>()).await.unwrap_err();
    assert!(matches!(&end, MapError::Input(text) if text == "on purpose"), "{end:?}");
    let large = vec!["x".repeat(17 << 20), "y".to_owned()];
    let outcomes = all(node.app("work").map_iter::<u64>("square", large)).await;
    let first = outcomes.iter().find(|outcome| outcome.index == 0).unwrap();
    assert_eq!(first.result.as_ref().unwrap_err().kind, ItemErrorKind::Unsendable, "{:?}", first.result);
    assert_eq!(outcomes.len(), 2);
}

#[cfg(feature = "journal")]
mod journal {
    use multinodes::JournalError;

    use super::*;

    #[tokio::test]
    async fn a_map_goes_on_where_it_stopped_and_runs_nothing_again() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("journal");
        let runs = Arc::new(Mutex::new(BTreeMap::<u64, u32>::new()));
        let count = runs.clone();
        let (node, _workers) = swarm(2, move |_| {
            let runs = count.clone();
            Actions::new().slots(4).try_action("run", move |x: u64| {
                *runs.lock().unwrap().entry(x).or_default() += 1;
                async move { if x % 10 == 3 { Err(AppError::new("three", "three")) } else { Ok(x * 2) } }
            })
        })
        .await;
        let map = || node.app("work").map_iter::<u64>("run", 0..2000_u64).journal(&file);
        let mut first = map();
        let mut recorded = BTreeSet::new();
        while recorded.len() < 500 {
            recorded.insert(within(first.try_next()).await.unwrap().unwrap().index);
        }
        drop(first);
        let before = runs.lock().unwrap().clone();
        let outcomes = all(map()).await;
        let results: BTreeMap<u64, &Outcome<u64>> = outcomes.iter().map(|outcome| (outcome.index, outcome)).collect();
        assert_eq!((outcomes.len(), results.len()), (2000, 2000));
        for (index, outcome) in &results {
            match &outcome.result {
                Ok(result) => assert_eq!(*result, index * 2),
                Err(error) => assert!(index % 10 == 3 && error.code == "three", "{outcome:?}"),
            }
        }
        for index in &recorded {
            assert!(results[index].recorded, "what was reported was recorded before: {index}");
            assert_eq!(runs.lock().unwrap()[index], before[index], "a recorded item runs no more: {index}");
        }
        let runs_before = runs.lock().unwrap().values().sum::<u32>();
        assert_eq!(all(map()).await.len(), 2000);
        assert_eq!(runs.lock().unwrap().values().sum::<u32>(), runs_before, "all was recorded");
        let again = all(map().retry_failed()).await;
        assert_eq!(again.iter().filter(|outcome| !outcome.recorded).count(), 200);
        refused(&node, &file).await;
    }

    #[tokio::test]
    async fn items_that_are_run_again_are_taken_no_faster_than_workers_have_room() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("journal");
        let works = Arc::new(AtomicBool::new(false));
        let may_work = works.clone();
        let (node, _workers) = swarm(1, move |_| {
            let works = may_work.clone();
            Actions::new().slots(4).try_action("run", move |x: u64| {
                let works = works.load(SeqCst);
                async move {
                    if works {
                        std::future::pending::<()>().await;
                    }
                    Err::<u64, _>(AppError::new("odd", x.to_string()))
                }
            })
        })
        .await;
        let map = || node.app("work").map_iter::<u64>("run", 0..20_000_u64).journal(&file);
        assert_eq!(all(map()).await.len(), 20_000);
        works.store(true, SeqCst);
        let mut again = map().retry_failed();
        let mut status = again.status();
        let taken = within(async {
            let mut before = u64::MAX;
            loop {
                tokio::select! {
                    outcome = again.try_next() => panic!("{outcome:?}"),
                    changed = status.changed() => changed.unwrap(),
                }
                let taken = status.borrow().taken;
                if taken > 0 && taken == before {
                    return taken;
                }
                before = taken;
            }
        })
        .await;
        assert!(taken < 2000, "{taken} items are held");
    }

    async fn refused(node: &Node, file: &std::path::Path) {
        let app = node.app("work");
        let other = within(app.map_iter::<u64>("other", [1_u64]).journal(file).try_collect::<Vec<_>>()).await;
        assert!(matches!(other, Err(MapError::Journal(JournalError::OtherJob { .. }))), "{other:?}");
        let longer = within(app.map_iter::<u64>("run", 5..2000_u64).journal(file).try_collect::<Vec<_>>()).await;
        assert!(matches!(longer, Err(MapError::Journal(JournalError::OtherInput { index: 0, .. }))), "{longer:?}");
        let shorter = within(app.map_iter::<u64>("run", 0..1500_u64).journal(file).try_collect::<Vec<_>>()).await;
        assert!(matches!(shorter, Err(MapError::Journal(JournalError::OtherInput { index: 1500, .. }))), "{shorter:?}");
        let mut changed: Vec<u64> = (0..2000).collect();
        changed[700] = 1;
        let changed = within(app.map_iter::<u64>("run", changed).journal(file).try_collect::<Vec<_>>()).await;
        assert!(matches!(changed, Err(MapError::Journal(JournalError::OtherInput { index: 700, .. }))), "{changed:?}");
    }
}

#[tokio::test]
async fn a_map_is_given_up_when_whoever_gets_an_item_thinks_for_a_while_and_refuses_it() {
    let (node, _workers) = swarm(1, |_| {
        Actions::new().slots(4).try_action("run", |_: u64| async move {
            // As long as it is asked, somebody has an item: the time that it takes is what is tested.
            tokio::time::sleep(Duration::from_millis(150)).await;
            Err::<u64, _>(AppError::busy("it never has time"))
        })
    })
    .await;
    let map = node.app("work").map_iter::<u64>("run", 0..100_u64).patience(Duration::from_millis(500));
    let error = within(map.try_collect::<Vec<_>>()).await.unwrap_err();
    assert!(matches!(&error, MapError::NoWorker(CallError::Busy { .. })), "{error:?}");
}

#[tokio::test]
async fn an_action_that_nobody_has_is_told_of_long_before_patience_is_over() {
    let (node, _workers) = swarm(2, |_| squares()).await;
    let map = node.app("work").map_iter::<u64>("missing", 0..1000_u64).patience(Duration::from_secs(86_400));
    let outcomes: Vec<_> = within(map.collect()).await;
    assert!(matches!(outcomes.last(), Some(Err(MapError::NoWorker(CallError::NoSuchAction { .. })))), "{outcomes:?}");
}
