//! Whoever is dialled may break off at each step of the handshake: the others do not feel it, and it is dialled ever more
//! rarely.

use super::{
    cutting::{Cutting, End, bare},
    *,
};

/// Up to here all of the handshake was said, and the first frames of the connection: the header and the protocol of each
/// negotiation, the second message of noise (some 200 bytes of it), and yamux.
const LAST: usize = 480;

/// Fine enough to end within each of those parts, and between them.
const STEP: usize = 20;

/// Whoever falls silent late is a neighbour for some seconds, and of those a node wants few.
const LONG_STEP: usize = 60;

async fn find(node: &Running, peer_id: PeerId, address: &Multiaddr) {
    node.core.commands.send(Command::Find { peer_id, address: address.clone() }).await.unwrap();
}

/// Has it dial a peer that breaks off there.
async fn dials_one_that_breaks_off(node: &Running, after: usize, end: End) -> Cutting {
    let (peer_id, address) = bare().await;
    let mut place = Cutting::new(&address, after, end).await;
    find(node, peer_id, &place.address).await;
    place.dialled(1).await;
    place
}

/// Lets a node be named peers that break off at each step, in one way.
async fn breaks_off_at_each_step(end: End, step: usize) {
    let mut alpha = begin(settings("alpha")).await;
    let beta = begin(joining("beta", &alpha)).await;
    alpha.sees_names(&["alpha", "beta"]).await;
    let mut places = Vec::new();
    for after in (0..=LAST).step_by(step) {
        // One after the other: with many that have come far at once a node has neighbours enough, and dials nobody else.
        places.push(dials_one_that_breaks_off(&alpha, after, end).await);
    }
    // Whoever is named last gets its turn, too.
    let gamma = begin(settings("gamma")).await;
    find(&alpha, gamma.core.peer_id, &gamma.address().parse().unwrap()).await;
    alpha.sees_names(&["alpha", "beta", "gamma"]).await;
    alpha.is_connected_to(2).await;
    assert!(beta.names().contains(&"alpha".to_owned()));
    assert_eq!(alpha.core.counters.connection_panics.count(), 0);
    while let Some(Some(event)) = alpha.events.next().now_or_never() {
        let lost = matches!(&event, Event::Left { node, .. } if ["beta", "gamma"].contains(&node.name.as_str()));
        assert!(!lost, "{event:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_that_close_at_each_step_of_the_handshake_harm_nobody() {
    breaks_off_at_each_step(End::Close, STEP).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_that_reset_at_each_step_of_the_handshake_harm_nobody() {
    breaks_off_at_each_step(End::Reset, STEP).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_that_fall_silent_at_each_step_of_the_handshake_harm_nobody() {
    breaks_off_at_each_step(End::Silence, LONG_STEP).await;
}

/// Neighbours of whom nothing is known are not those by whom a node learns of the others.
#[tokio::test(flavor = "multi_thread")]
async fn peers_that_only_connect_make_nobody_forget_whom_it_has_found() {
    let alpha = begin(settings("alpha")).await;
    let beta = begin(joining("beta", &alpha)).await;
    alpha.sees_names(&["alpha", "beta"]).await;
    let mut places = Vec::new();
    for _ in 0..7 {
        places.push(dials_one_that_breaks_off(&alpha, 300, End::Silence).await);
    }
    let gamma = begin(settings("gamma")).await;
    find(&alpha, gamma.core.peer_id, &gamma.address().parse().unwrap()).await;
    alpha.sees_names(&["alpha", "beta", "gamma"]).await;
    assert!(beta.names().contains(&"alpha".to_owned()));
}

/// Before anything, within noise's second message, behind it, and when the connection is in use.
const PLACES: [usize; 4] = [0, 120, 300, LAST];

/// Ids are free: at an address that breaks off somewhere ever new ones may be said to be.
#[tokio::test(flavor = "multi_thread")]
async fn an_address_where_every_dial_breaks_off_is_dialled_rarely() {
    for (end, after) in PLACES.map(|after| (End::Close, after)).into_iter().chain([(End::Reset, 0), (End::Reset, LAST)])
    {
        let alpha = begin(settings("alpha")).await;
        let (_, address) = bare().await;
        let mut place = Cutting::new(&address, after, end).await;
        for _ in 0..60 {
            find(&alpha, PeerId::random(), &place.address).await;
        }
        place.dialled(1).await;
        // Whoever is named last gets its turn, too.
        let beta = begin(settings("beta")).await;
        find(&alpha, beta.core.peer_id, &beta.address().parse().unwrap()).await;
        alpha.sees_names(&["alpha", "beta"]).await;
        let dials = place.count();
        assert!((1..=12).contains(&dials), "{dials} dials of an address that ends with {end:?} after {after}");
    }
}

/// So are addresses: one peer may be said to be at ever new ones.
#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_is_never_where_it_is_said_to_be_is_dialled_rarely() {
    /// A dial that is begun at all is begun at once.
    const AT_ONCE: Duration = Duration::from_millis(300);
    let alpha = begin(settings("alpha")).await;
    let (peer_id, address) = bare().await;
    let (mut places, mut dialled) = (Vec::new(), 0);
    for _ in 0..30 {
        let mut place = Cutting::new(&address, 0, End::Close).await;
        find(&alpha, peer_id, &place.address).await;
        dialled += usize::from(tokio::time::timeout(AT_ONCE, place.dialled(1)).await.is_ok());
        places.push(place);
    }
    assert!((1..=15).contains(&dialled), "dialled at {dialled} of 30 places");
}
