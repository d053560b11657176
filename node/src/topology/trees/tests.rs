use proptest::prelude::*;

use super::*;

const TIMEOUT: Duration = Duration::from_secs(30);

fn trees(max_pending: usize, max_replays: u32) -> Trees {
    Trees::new(Limits { ack_timeout: TIMEOUT, max_pending, max_replays })
}

fn opened(trees: &mut Trees, sum: u64, now: Instant) -> TreeId {
    let id = trees.take(Bytes::from_static(b"input"));
    trees.open(id, sum, now).unwrap();
    id
}

proptest! {
    /// `parents[n]` says of which earlier tuple tuple `n + 1` is a child.
    #[test]
    fn a_tree_is_complete_exactly_when_all_of_it_was_processed_in_whatever_order(
        parents in prop::collection::vec(any::<prop::sample::Index>(), 0..60),
        order in any::<prop::sample::Index>(),
        ids in prop::collection::vec(any::<u64>(), 61),
    ) {
        let parents: Vec<_> = parents.iter().enumerate().map(|(index, parent)| parent.index(index + 1)).collect();
        let mut acks: Vec<u64> = ids[..=parents.len()].to_vec();
        for (index, parent) in parents.iter().enumerate() {
            acks[*parent] ^= ids[index + 1];
        }
        let start = order.index(acks.len());
        acks.rotate_left(start);
        let mut trees = trees(1, 0);
        let id = opened(&mut trees, ids[0], Instant::now());
        let last = acks.len() - 1;
        for (index, ack) in acks.into_iter().enumerate() {
            prop_assert_eq!(trees.ack(id, ack), index == last);
        }
        prop_assert_eq!(trees.ended(), Some(Ended { tree: id, failure: None }));
        prop_assert_eq!(trees.next_time(), None);
    }
}

#[test]
fn what_takes_too_long_is_replayed_and_at_last_given_up() {
    let mut now = Instant::now();
    let mut trees = trees(1, 2);
    let mut id = opened(&mut trees, 1, now);
    for attempt in 2..=3 {
        trees.expire(now + TIMEOUT - Duration::from_millis(1));
        assert!(trees.replay().is_none());
        now += TIMEOUT;
        trees.expire(now);
        let (again, input) = trees.replay().unwrap();
        assert_eq!((again, &input[..]), (TreeId(0, attempt), &b"input"[..]));
        assert!(!trees.ack(id, 1), "the acknowledgement of an earlier attempt");
        assert!(!trees.has_room());
        id = again;
        trees.open(id, 1, now).unwrap();
    }
    trees.expire(now + TIMEOUT);
    let failure = trees.ended().unwrap().failure.unwrap();
    assert_eq!(failure, ("not complete within 30s".to_owned(), Bytes::from_static(b"input")));
    let counters = trees.counters();
    assert_eq!((counters.replayed, counters.failed, counters.ignored, counters.pending), (2, 1, 2, 1));
    trees.told = 0;
    assert!(trees.has_room() && trees.is_empty());
}

#[test]
fn a_failed_tree_pauses_longer_and_longer() {
    let mut now = Instant::now();
    let mut trees = trees(1, 20);
    let mut id = opened(&mut trees, 1, now);
    let mut pauses = Vec::new();
    for _ in 0..9 {
        trees.fail(id, "no".into(), false, now);
        trees.fail(id, "no".into(), false, now);
        let next = trees.next_time().unwrap();
        pauses.push((next - now).as_millis());
        now = next;
        trees.expire(now);
        id = trees.replay().unwrap().0;
        assert!(trees.replay().is_none());
        trees.open(id, 1, now).unwrap();
    }
    assert_eq!(pauses, [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
}

#[test]
fn what_cannot_succeed_is_given_up_at_once() {
    let now = Instant::now();
    let mut trees = trees(2, 5);
    let id = opened(&mut trees, 1, now);
    let begun = trees.take(Bytes::new());
    trees.fail(id, "too large".into(), true, now);
    trees.fail(begun, "no key".into(), true, now);
    assert_eq!(trees.ended().unwrap().failure.unwrap().0, "too large");
    assert_eq!(trees.ended().unwrap().failure.unwrap().0, "no key");
    assert_eq!((trees.open(begun, 1, now), trees.next_time()), (None, None));
}

#[test]
fn acknowledgements_of_trees_that_are_not_open_are_counted_and_do_nothing() {
    let now = Instant::now();
    let mut trees = trees(3, 5);
    let id = opened(&mut trees, 1, now);
    for unknown in [TreeId(0, 2), TreeId(0, 0), TreeId(7, 1), TreeId(u64::MAX, u32::MAX)] {
        assert!(!trees.ack(unknown, 1));
        trees.fail(unknown, "made up".into(), true, now);
    }
    assert_eq!(trees.counters().ignored, 8);
    assert!(trees.ack(id, 1));
}

#[test]
fn what_goes_to_nobody_is_complete() {
    let mut trees = trees(1, 0);
    let id = trees.take(Bytes::new());
    assert_eq!(trees.open(id, 0, Instant::now()), None);
    assert_eq!((trees.counters().acked, trees.ended()), (1, Some(Ended { tree: id, failure: None })));
}
