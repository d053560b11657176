use std::collections::BTreeMap;

use super::*;
use crate::description::{ApplicationInfo, NodeInfo};

fn host(name: &str, peer_id: PeerId, incarnation: u64, slots: Option<u32>) -> Arc<Host> {
    let info = NodeInfo {
        name: name.to_owned(),
        peer_id,
        incarnation,
        revision: 1,
        software: String::new(),
        addresses: Vec::new(),
        applications: Vec::new(),
        labels: BTreeMap::new(),
        load: 0,
        local: false,
        verified: true,
        conflict: false,
    };
    let application = ApplicationInfo {
        name: "work".into(),
        version: None,
        description: ().into(),
        actions: Vec::new(),
        slots,
        idempotent: Vec::new(),
        trouble: None,
    };
    Arc::new(Host::new(&Arc::new(info), &Arc::new(application)))
}

/// Workers with two slots each.
fn workers(count: usize, prefetch: Option<usize>, now: Instant) -> (Workers, Vec<Arc<Host>>) {
    let hosts: Vec<_> =
        (0..count).map(|number| host(&format!("worker-{number}"), PeerId::random(), 1, Some(2))).collect();
    let mut workers = Workers::new(prefetch);
    workers.refresh(&hosts, now);
    (workers, hosts)
}

fn taken(workers: &Workers, id: WorkerId) -> Taken {
    Taken { outstanding: workers.outstanding(id), suspect: false }
}

fn end(workers: &mut Workers, id: WorkerId, how: Report, now: Instant) {
    let was = taken(workers, id);
    workers.end(id, how, Duration::from_millis(10), was, now);
}

fn take_all(workers: &mut Workers, now: Instant) -> Vec<WorkerId> {
    std::iter::from_fn(|| workers.take(now)).collect()
}

#[test]
fn each_worker_gets_its_slots_and_what_lies_ready_in_turn() {
    let now = Instant::now();
    let (mut workers, _) = workers(3, Some(1), now);
    assert_eq!(take_all(&mut workers, now), [0, 1, 2, 0, 1, 2, 0, 1, 2]);
    assert!(!workers.has_room(now));
    end(&mut workers, 1, Report::Done, now);
    assert_eq!(take_all(&mut workers, now), [1], "whoever is done gets the next one");
}

#[test]
fn the_faster_the_results_come_the_more_lies_ready() {
    let begin = Instant::now();
    let (mut workers, _) = workers(1, None, begin);
    assert_eq!(take_all(&mut workers, begin).len(), 3, "two slots and one more");
    for _ in 0..100 {
        let was = taken(&workers, 0);
        workers.end(0, Report::Done, Duration::from_micros(30), was, begin);
        workers.take(begin).unwrap();
    }
    let more = take_all(&mut workers, begin).len();
    assert!((100..=MAX_PREFETCH).contains(&more), "{more} more for results every 10 µs");
    let slow = Duration::from_secs(2);
    while workers.outstanding(0) > 0 {
        let was = taken(&workers, 0);
        workers.end(0, Report::Done, slow, was, begin + slow);
    }
    assert_eq!(workers.worker(0).limit(None, AHEAD), 3, "for long items one more is enough");
}

#[test]
fn the_longer_items_wait_before_they_are_sent_the_more_of_them_are_under_way() {
    let now = Instant::now();
    let (mut workers, _) = workers(1, None, now);
    for _ in 0..100 {
        workers.take(now).unwrap();
        end(&mut workers, 0, Report::Done, now);
    }
    let before = take_all(&mut workers, now).len();
    assert_eq!(before, 3, "results come every 10 ms");
    for _ in 0..100 {
        workers.waited(Duration::from_millis(100));
    }
    end(&mut workers, 0, Report::Done, now);
    let more = take_all(&mut workers, now).len();
    assert!((9..=12).contains(&more), "{more} more for ten results meanwhile");
    for _ in 0..100 {
        workers.waited(Duration::from_secs(3600));
    }
    end(&mut workers, 0, Report::Done, now);
    assert!(take_all(&mut workers, now).len() <= 130, "a disk that stands still is not waited for with more and more");
}

#[test]
fn who_is_gone_or_draining_gets_nothing_new_and_keeps_what_it_has() {
    let now = Instant::now();
    let (mut workers, hosts) = workers(2, Some(0), now);
    assert_eq!(take_all(&mut workers, now), [0, 1, 0, 1]);
    workers.refresh(&hosts[1..], now);
    end(&mut workers, 0, Report::Done, now);
    end(&mut workers, 1, Report::Done, now);
    assert_eq!(take_all(&mut workers, now), [1]);
    let status = workers.status();
    assert_eq!((status[0].present, status[0].running, status[0].done), (false, 1, 1));
    workers.refresh(&[], now);
    assert!(!workers.any_present());
    workers.refresh(&hosts, now);
    assert_eq!(take_all(&mut workers, now), [0], "who comes back gets work at once");
}

#[test]
fn who_was_busy_or_lost_rests_longer_each_time_until_it_gives_a_result() {
    let mut now = Instant::now();
    let (mut workers, _) = workers(1, Some(0), now);
    let mut rests = Vec::new();
    for _ in 0..8 {
        workers.take(now).unwrap();
        end(&mut workers, 0, Report::Busy, now);
        assert_eq!(workers.take(now), None);
        let until = workers.wake(now).unwrap();
        rests.push(until - now);
        now = until;
        workers.wake(now);
    }
    assert!(rests.windows(2).all(|pair| pair[0] <= pair[1]), "{rests:?}");
    assert_eq!((rests[0], rests[7]), (BUSY_REST[0], BUSY_REST[1]));
    workers.take(now).unwrap();
    end(&mut workers, 0, Report::Done, now);
    workers.take(now).unwrap();
    end(&mut workers, 0, Report::Lost, now);
    assert_eq!(workers.wake(now).unwrap() - now, LOST_REST[0], "a result has ended the series");
}

#[test]
fn who_was_silent_is_tried_with_one_item_and_trusted_after_a_result_or_a_restart() {
    let now = Instant::now();
    let (mut workers, hosts) = workers(1, Some(0), now);
    workers.take(now).unwrap();
    end(&mut workers, 0, Report::Silent, now);
    let later = workers.wake(now).unwrap();
    workers.wake(later);
    assert_eq!(take_all(&mut workers, later), [0], "one at a time");
    end(&mut workers, 0, Report::Done, later);
    assert_eq!(take_all(&mut workers, later), [0, 0]);
    end(&mut workers, 0, Report::Silent, later);
    workers.refresh(&[host("worker-0", hosts[0].peer_id, 2, Some(2))], later);
    assert_eq!(take_all(&mut workers, later), [0], "it was started again: no rest");
}

#[test]
fn items_under_which_workers_broke_never_share_one_and_go_where_they_were_not() {
    let now = Instant::now();
    let (mut workers, hosts) = workers(2, Some(0), now);
    let tried = [hosts[0].peer_id];
    assert_eq!(workers.take_for_suspect(&tried, now), Some(1));
    assert_eq!(workers.take_for_suspect(&tried, now), None, "worker 1 is worth the wait");
    assert_eq!(workers.take_for_suspect(&[], now), Some(0));
    let was = Taken { outstanding: 1, suspect: true };
    workers.end(1, Report::Done, Duration::from_millis(1), was, now);
    assert_eq!(workers.take_for_suspect(&tried, now), Some(1));
    workers.end(1, Report::Done, Duration::from_millis(1), was, now);
    let everywhere = [hosts[0].peer_id, hosts[1].peer_id];
    assert_eq!(workers.take_for_suspect(&everywhere, now), Some(1), "nobody is left who has not had it");
}

#[test]
fn who_cannot_be_reached_is_not_waited_for_if_another_worker_would_do() {
    let mut now = Instant::now();
    let (mut workers, hosts) = workers(2, Some(0), now);
    let tried = [hosts[0].peer_id];
    for _ in 0..4 {
        assert_eq!(workers.take_for_suspect(&tried, now), Some(1));
        workers.end(1, Report::Away, Duration::from_millis(1), Taken { outstanding: 1, suspect: true }, now);
        if workers.wake(now).is_some_and(|until| until <= now + SOON) {
            assert_eq!(workers.take_for_suspect(&tried, now), None, "it is back soon");
            now += SOON;
            workers.wake(now);
        }
    }
    assert_eq!(workers.take_for_suspect(&tried, now), Some(0));
}

#[test]
fn who_lacks_the_action_is_left_out_until_it_says_something_new_of_itself() {
    let now = Instant::now();
    let (mut workers, hosts) = workers(1, Some(0), now);
    workers.take(now).unwrap();
    end(&mut workers, 0, Report::Lacking, now);
    assert!(!workers.any_present() && workers.take(now).is_none());
    workers.refresh(&hosts, now);
    assert!(!workers.any_present(), "nothing has changed");
    workers.refresh(&[host("worker-0", hosts[0].peer_id, 2, Some(3))], now);
    assert_eq!(take_all(&mut workers, now), [0, 0, 0]);
}

#[test]
fn more_slots_than_anybody_has_are_not_believed() {
    let now = Instant::now();
    let mut workers = Workers::new(Some(0));
    workers.refresh(&[host("boaster", PeerId::random(), 1, Some(u32::MAX))], now);
    assert_eq!(take_all(&mut workers, now).len(), MAX_SLOTS as usize);
    let mut workers = Workers::new(Some(0));
    workers.refresh(&[host("silent", PeerId::random(), 1, None)], now);
    assert_eq!(take_all(&mut workers, now).len(), DEFAULT_SLOTS as usize);
}
