//! The rules of joining, one by one.

use super::{
    cutting::{Cutting, End, bare, place},
    *,
};
use crate::driver::joining::{Joining, LONGEST_PAUSE, SOON, SOON_TRIES};

fn joining_through(address: &Multiaddr) -> Settings {
    Settings { join: vec![address.to_string()], ..settings("late") }
}

#[test]
fn who_is_turned_away_comes_back_soon_and_not_at_the_same_time_as_the_others() {
    let mut joining = Joining::new(addresses::parse_join("127.0.0.1:1").unwrap());
    let pauses: Vec<Duration> = (0..SOON_TRIES).map(|_| joining.next_pause(true)).collect();
    assert!(pauses.iter().all(|pause| (SOON / 2..=SOON * 2).contains(pause)), "{pauses:?}");
    let spread = *pauses.iter().max().unwrap() - *pauses.iter().min().unwrap();
    assert!(spread > SOON / 2, "all come at once: {pauses:?}");
}

#[test]
fn who_is_turned_away_without_end_or_finds_nobody_comes_back_ever_more_rarely() {
    let mut turned_away = Joining::new(addresses::parse_join("127.0.0.1:1").unwrap());
    for _ in 0..SOON_TRIES {
        turned_away.next_pause(true);
    }
    for (mut joining, busy) in [(turned_away, true), (Joining::new(addresses::parse_join("[::1]:1").unwrap()), false)] {
        let pauses: Vec<Duration> = (0..12).map(|_| joining.next_pause(busy)).collect();
        assert!(pauses[0] < Duration::from_secs(1), "{pauses:?}");
        assert!(pauses[11] > LONGEST_PAUSE / 2 && pauses.iter().all(|pause| *pause < LONGEST_PAUSE * 2), "{pauses:?}");
    }
}

/// Whoever hangs up is busy, at whichever step; a node that is alone does not let a second go by.
#[tokio::test(flavor = "multi_thread")]
async fn a_join_that_is_turned_away_is_repeated_soon() {
    for (after, end) in [(0, End::Close), (0, End::Reset), (300, End::Close)] {
        let (_, address) = bare().await;
        let mut place = Cutting::new(&address, after, end).await;
        let late = begin(joining_through(&place.address)).await;
        let dials = place.dialled(6).await;
        let took = dials[5] - dials[0];
        // Five pauses of half to twice as long; with other pauses it would be 15 s.
        assert!(took > SOON && took < Duration::from_secs(10), "{took:?} after {after}, {end:?}");
        drop(late);
    }
}

/// A place from which nobody hangs up, as nobody is there, is not worth as many dials.
#[tokio::test(flavor = "multi_thread")]
async fn a_join_where_nobody_answers_is_repeated_ever_more_rarely_until_somebody_does() {
    let (listener, address) = place().await;
    drop(listener);
    let early = begin(joining_through(&address)).await;
    early.is("settled", |status| status.settled).await;
    let there = begin(Settings { listen: vec![address], ..settings("there") }).await;
    early.sees_names(&["late", "there"]).await;
    drop(there);
}

/// Who has met others of the swarm leaves the place at the one address to those who have met nobody.
#[tokio::test(flavor = "multi_thread")]
async fn who_has_heard_of_others_in_the_meantime_goes_there_instead_of_to_the_one_address() {
    let (_, address) = bare().await;
    let mut busy = Cutting::new(&address, 0, End::Close).await;
    let late = begin(joining_through(&busy.address)).await;
    busy.dialled(2).await;
    let other = begin(settings("other")).await;
    let (peer_id, address) = (other.core.peer_id, other.address().parse().unwrap());
    late.core.commands.send(Command::Find { peer_id, address }).await.unwrap();
    late.sees_names(&["late", "other"]).await;
    late.is("in the swarm", |status| status.synced).await;
    // What was noted before may still come. From then on the pauses double: within 3 s there would be ten soon ones.
    let before = busy.count();
    let more = tokio::time::timeout(Duration::from_secs(3), busy.dialled(before + 5)).await;
    assert!(more.is_err(), "{} dials beside the swarm", busy.count() - before);
    assert_eq!(late.core.status.borrow().connected, 1);
}
