mod crowds;
mod cutting;
mod handshakes;
mod joins;

use std::{
    path::Path,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

use futures::FutureExt;
use libp2p::{identity::Keypair, multiaddr::Protocol};

use super::*;
use crate::{
    core::Settings,
    description::{LeftReason, Snapshot, Status},
    events::Events,
    permissions::Wishes,
};

/// Far more than anything here takes, even on a busy machine.
const LIMIT: Duration = Duration::from_secs(20);

struct Running {
    core: Arc<Core>,
    events: Events,
    driver: JoinHandle<()>,
}

fn settings(name: &str) -> Settings {
    Settings {
        name: name.to_owned(),
        labels: Default::default(),
        secret: None,
        privacy: None,
        swarm: "test".parse().unwrap(),
        listen: vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()],
        join: Vec::new(),
        resolver: Default::default(),
        mdns: false,
        kademlia: true,
        rendezvous: None,
        passive: false,
        low_mark: 32,
        high_mark: 96,
        max_message: 1 << 20,
        drain_timeout: std::time::Duration::from_secs(10),
        grant: None,
        credential: None,
        interfaces: Vec::new(),
    }
}

fn joining(name: &str, other: &Running) -> Settings {
    Settings { join: vec![other.address()], ..settings(name) }
}

fn meeting(name: &str, folder: &Path) -> Settings {
    Settings { rendezvous: Some(folder.join("swarm")), ..settings(name) }
}

async fn begin(settings: Settings) -> Running {
    begin_as(settings, Keypair::generate_ed25519()).await
}

async fn begin_as(settings: Settings, keypair: Keypair) -> Running {
    let (core, commands) = Core::new(settings, keypair, Wishes::default());
    let events = core.events.subscribe();
    let driver = start(core.clone(), commands).await.unwrap();
    Running { core, events, driver }
}

impl Running {
    fn address(&self) -> String {
        self.core.addresses.borrow().first().unwrap().to_string()
    }

    async fn sees(&self, what: &str, matches: impl Fn(&Snapshot) -> bool) {
        let mut changed = self.core.changed.subscribe();
        let seen = async {
            while !matches(&self.core.snapshot.load()) {
                changed.changed().await.unwrap();
            }
        };
        if tokio::time::timeout(LIMIT, seen).await.is_err() {
            panic!("`{}` does not see {what}: {:?}", self.core.settings.name, self.names());
        }
    }

    async fn sees_names(&self, names: &[&str]) {
        self.sees(&names.join(", "), |snapshot| snapshot.nodes.iter().map(|node| &node.name).eq(names)).await;
    }

    fn names(&self) -> Vec<String> {
        self.core.snapshot.load().nodes.iter().map(|node| node.name.clone()).collect()
    }

    async fn is(&self, what: &str, matches: impl Fn(&Status) -> bool) {
        let mut status = self.core.status.subscribe();
        let reached = tokio::time::timeout(LIMIT, status.wait_for(matches)).await;
        assert!(reached.is_ok(), "`{}` is not {what}: {:?}", self.core.settings.name, *self.core.status.borrow());
    }

    async fn is_connected_to(&self, count: usize) {
        self.is(&format!("connected to {count}"), |status| status.connected >= count).await;
    }

    /// Waits for an event, and says how long that took.
    async fn hears(&mut self, what: &str, matches: impl Fn(&Event) -> bool) -> Duration {
        let begun = Instant::now();
        let heard = async { while !matches(&self.events.next().await.unwrap()) {} };
        assert!(tokio::time::timeout(LIMIT, heard).await.is_ok(), "`{}` does not hear {what}", self.core.settings.name);
        begun.elapsed()
    }

    async fn stop(self) {
        let (respond_to, stopped) = oneshot::channel();
        let _ = self.core.commands.send(Command::Stop { respond_to }).await;
        tokio::time::timeout(LIMIT, stopped).await.unwrap().unwrap();
        tokio::time::timeout(LIMIT, self.driver).await.unwrap().unwrap();
    }

    /// Ends it as `kill -9` would: sockets are closed by the system, and nobody is told anything.
    async fn kill(self) {
        self.driver.abort();
        let _ = self.driver.await;
    }
}

fn left(name: &str, reason: LeftReason) -> impl Fn(&Event) -> bool {
    move |event| matches!(event, Event::Left { node, reason: why } if node.name == name && *why == reason)
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_meet_through_an_address() {
    let alpha = begin(settings("alpha")).await;
    let mut beta = begin(joining("beta", &alpha)).await;
    beta.hears("alpha join", |event| matches!(event, Event::Joined(node) if node.name == "alpha")).await;
    alpha.sees_names(&["alpha", "beta"]).await;
    beta.sees_names(&["alpha", "beta"]).await;
    beta.is("settled", |status| status.settled && status.synced && status.connected == 1).await;
}

/// A machine and its clone, with which the same key was copied: whoever is connected to both sees it, every time.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_two_live_processes_use_is_noticed_and_remembered() {
    let observer = begin(settings("observer")).await;
    for round in 0..20 {
        let keypair = Keypair::generate_ed25519();
        let peer_id = keypair.public().to_peer_id().to_string();
        let one = begin_as(joining("one", &observer), keypair.clone()).await;
        observer
            .sees("the first", |snapshot| snapshot.nodes.iter().any(|node| node.peer_id.to_string() == peer_id))
            .await;
        let two = begin_as(joining("two", &observer), keypair).await;
        let mut events = observer.core.events.subscribe();
        let noticed = || observer.core.shared_keys().iter().any(|key| key.peer_id == peer_id);
        let notices = async {
            while !noticed() {
                events.next().await.unwrap();
            }
        };
        assert!(tokio::time::timeout(LIMIT, notices).await.is_ok(), "not noticed in round {round}");
        one.stop().await;
        two.stop().await;
    }
    assert_eq!(observer.core.shared_keys().len(), 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_crashes_and_is_started_again_ten_times_shares_its_key_with_nobody() {
    let observer = begin(settings("observer")).await;
    let keypair = Keypair::generate_ed25519();
    for round in 0..10 {
        let name = format!("life-{round}");
        let node = begin_as(joining(&name, &observer), keypair.clone()).await;
        observer.sees(&name, |snapshot| snapshot.nodes.iter().any(|node| node.name == name)).await;
        node.is("synced", |status| status.synced).await;
        assert!(node.core.shared_keys().is_empty(), "round {round}");
        node.kill().await;
    }
    assert!(observer.core.shared_keys().is_empty());
}

/// What multicast names once is dialled again, though it named it too early.
#[tokio::test(flavor = "multi_thread")]
async fn a_dial_that_comes_too_early_is_not_the_last() {
    let alpha = begin(settings("alpha")).await;
    let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address: Multiaddr = format!("/ip4/127.0.0.1/tcp/{}", socket.local_addr().unwrap().port()).parse().unwrap();
    let keypair = Keypair::generate_ed25519();
    let peer_id = keypair.public().to_peer_id();
    alpha.core.commands.send(Command::Find { peer_id, address: address.clone() }).await.unwrap();
    let dial = tokio::time::timeout(LIMIT, socket.accept()).await.unwrap().unwrap();
    drop((dial, socket));
    let _beta = begin_as(Settings { listen: vec![address], ..settings("beta") }, keypair).await;
    alpha.sees_names(&["alpha", "beta"]).await;
}

/// Ids are free: multicast may name ever new ones at the address of a host that always hangs up.
#[tokio::test(flavor = "multi_thread")]
async fn fresh_ids_at_an_address_that_always_hangs_up_cost_a_few_dials_in_all() {
    let alpha = begin(settings("alpha")).await;
    let larger = || std::iter::repeat_with(Keypair::generate_ed25519).find(|key| is_larger(key, &alpha)).unwrap();
    let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address: Multiaddr = format!("/ip4/127.0.0.1/tcp/{}", socket.local_addr().unwrap().port()).parse().unwrap();
    let dials = Arc::new(AtomicUsize::new(0));
    let counted = dials.clone();
    let host = tokio::spawn(async move {
        while socket.accept().await.is_ok() {
            counted.fetch_add(1, Relaxed);
        }
    });
    let find = async |peer_id, address| alpha.core.commands.send(Command::Find { peer_id, address }).await.unwrap();
    for _ in 0..100 {
        find(larger().public().to_peer_id(), address.clone()).await;
    }
    // Whoever is named last is dialled last.
    let beta = begin_as(settings("beta"), larger()).await;
    find(beta.core.peer_id, beta.address().parse().unwrap()).await;
    alpha.sees_names(&["alpha", "beta"]).await;
    let dials = dials.load(Relaxed);
    assert!((1..=12).contains(&dials), "{dials} dials");
    host.abort();
}

fn is_larger(key: &Keypair, node: &Running) -> bool {
    node.core.peer_id < key.public().to_peer_id()
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_of_one_host_meet_through_the_folder_alone() {
    let folder = tempfile::tempdir().unwrap();
    let alpha = begin(meeting("alpha", folder.path())).await;
    let beta = begin(meeting("beta", folder.path())).await;
    let gamma = begin(meeting("gamma", folder.path())).await;
    for node in [&alpha, &beta, &gamma] {
        node.sees_names(&["alpha", "beta", "gamma"]).await;
    }
    let notes = || std::fs::read_dir(folder.path().join("swarm")).unwrap().count();
    assert_eq!(notes(), 3);
    gamma.stop().await;
    assert_eq!(notes(), 2, "who stops takes its note away");
    alpha.sees_names(&["alpha", "beta"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stale_note_of_a_killed_node_is_swept() {
    let folder = tempfile::tempdir().unwrap();
    let alpha = begin(meeting("alpha", folder.path())).await;
    alpha.kill().await;
    let beta = begin(meeting("beta", folder.path())).await;
    let passive = begin(Settings { passive: true, listen: Vec::new(), ..meeting("passive", folder.path()) }).await;
    passive.sees_names(&["beta"]).await;
    beta.is("settled", |status| status.settled).await;
    assert_eq!(std::fs::read_dir(folder.path().join("swarm")).unwrap().count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_node_is_noticed_within_a_second_or_so() {
    let mut alpha = begin(settings("alpha")).await;
    let beta = begin(joining("beta", &alpha)).await;
    alpha.sees_names(&["alpha", "beta"]).await;
    beta.kill().await;
    let took = alpha.hears("that beta is lost", left("beta", LeftReason::Lost)).await;
    assert!(took < Duration::from_secs(5), "{took:?}");
    alpha.sees_names(&["alpha"]).await;
}

/// A node that has no room for one more handshake, or starts anew, hangs up.
#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn a_node_at_whose_port_somebody_hangs_up_is_not_lost_for_that() {
    let key = Keypair::generate_ed25519();
    let mut alpha = begin(settings("alpha")).await;
    let beta = begin_as(joining("beta", &alpha), key.clone()).await;
    alpha.sees_names(&["alpha", "beta"]).await;
    let address: Multiaddr = beta.address().parse().unwrap();
    let port = address.iter().find_map(|part| if let Protocol::Tcp(port) = part { Some(port) } else { None }).unwrap();
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_reuseport(true).unwrap();
    socket.bind((std::net::Ipv4Addr::LOCALHOST, port).into()).unwrap();
    let socket = socket.listen(64).unwrap();
    beta.kill().await;
    // More often than a dial that fails says that nobody is there.
    for _ in 0..3 {
        drop(tokio::time::timeout(LIMIT, socket.accept()).await.unwrap().unwrap());
    }
    assert_eq!(alpha.names(), ["alpha", "beta"]);
    drop(socket);
    let beta = begin_as(Settings { listen: vec![address], ..joining("beta", &alpha) }, key).await;
    beta.sees_names(&["alpha", "beta"]).await;
    alpha.is_connected_to(1).await;
    while let Some(Some(event)) = alpha.events.next().now_or_never() {
        assert!(!matches!(event, Event::Left { .. }), "{event:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_node_that_was_never_connected_is_noticed_when_it_is_called() {
    let alpha = begin(Settings { low_mark: 1, ..settings("alpha") }).await;
    let beta = begin(Settings { low_mark: 1, ..joining("beta", &alpha) }).await;
    let mut gamma = begin(Settings { low_mark: 1, ..joining("gamma", &alpha) }).await;
    gamma.sees_names(&["alpha", "beta", "gamma"]).await;
    let peer_id = beta.core.peer_id;
    let link = Arc::downgrade(&gamma.core.links.with(peer_id).unwrap());
    beta.kill().await;
    let (respond_to, opened) = oneshot::channel();
    gamma.core.commands.send(Command::OpenLane { peer_id, respond_to }).await.unwrap();
    assert!(tokio::time::timeout(LIMIT, opened).await.unwrap().unwrap().is_err());
    let took = gamma.hears("that beta is lost", left("beta", LeftReason::Lost)).await;
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert_eq!(link.strong_count(), 0, "nothing is left of it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_node_says_goodbye_even_to_those_it_is_not_connected_to() {
    let alpha = begin(Settings { low_mark: 1, ..settings("alpha") }).await;
    let beta = begin(Settings { low_mark: 1, ..joining("beta", &alpha) }).await;
    let mut gamma = begin(Settings { low_mark: 1, ..joining("gamma", &alpha) }).await;
    gamma.sees_names(&["alpha", "beta", "gamma"]).await;
    beta.sees_names(&["alpha", "beta", "gamma"]).await;
    beta.stop().await;
    let took = gamma.hears("that beta has stopped", left("beta", LeftReason::Stopped)).await;
    assert!(took < Duration::from_secs(1), "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_knows_one_learns_of_all() {
    let alpha = begin(settings("alpha")).await;
    let beta = begin(joining("beta", &alpha)).await;
    beta.sees_names(&["alpha", "beta"]).await;
    let gamma = begin(joining("gamma", &beta)).await;
    for node in [&alpha, &beta, &gamma] {
        node.sees_names(&["alpha", "beta", "gamma"]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn swarms_of_different_names_never_mix() {
    let alpha = begin(settings("alpha")).await;
    let other = begin(Settings { swarm: "other".parse().unwrap(), ..joining("other", &alpha) }).await;
    other.is("settled", |status| status.settled).await;
    other.is("alone", |status| status.connected == 0 && !status.synced).await;
    let beta = begin(joining("beta", &alpha)).await;
    beta.sees_names(&["alpha", "beta"]).await;
    alpha.sees_names(&["alpha", "beta"]).await;
    assert_eq!(other.names(), ["other"]);
    // Whoever notices first closes the connection, and the other may not get to know why.
    let strangers = |node: &Running| node.core.counters.strangers.load(std::sync::atomic::Ordering::Relaxed);
    assert!(strangers(&alpha) + strangers(&other) >= 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_passive_node_sees_and_is_not_seen() {
    let alpha = begin(settings("alpha")).await;
    let settings = Settings { passive: true, listen: Vec::new(), ..joining("passive", &alpha) };
    let passive = begin(settings).await;
    passive.sees_names(&["alpha"]).await;
    passive.is("settled", |status| status.settled).await;
    alpha.is_connected_to(1).await;
    passive.stop().await;
    alpha.is("alone", |status| status.connected == 0).await;
    assert_eq!(alpha.names(), ["alpha"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_alone_settles() {
    let folder = tempfile::tempdir().unwrap();
    let alpha = begin(meeting("alpha", folder.path())).await;
    alpha.is("settled", |status| status.settled && !status.synced).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_restarts_the_network_with_the_same_identity_and_port() {
    let mut alpha = begin(settings("alpha")).await;
    let mut beta = begin(joining("beta", &alpha)).await;
    alpha.sees_names(&["alpha", "beta"]).await;
    beta.sees_names(&["alpha", "beta"]).await;
    let address = alpha.address();
    alpha.core.commands.send(Command::Panic).await.unwrap();
    alpha.hears("the restart", |event| matches!(event, Event::NetworkRestarted { .. })).await;
    alpha.is_connected_to(1).await;
    assert_eq!(alpha.address(), address);
    let gamma = begin(joining("gamma", &beta)).await;
    for node in [&alpha, &beta, &gamma] {
        node.sees_names(&["alpha", "beta", "gamma"]).await;
    }
    alpha.stop().await;
    beta.hears("that alpha has stopped", left("alpha", LeftReason::Stopped)).await;
}

/// The dial that was noted for it is not due any more: it would wait for that for ever.
#[tokio::test(flavor = "multi_thread")]
async fn whom_multicast_has_named_is_named_anew_after_a_restart() {
    let (core, _commands) = Core::new(settings("alpha"), Keypair::generate_ed25519(), Wishes::default());
    let mut driver = Driver::new(core).unwrap();
    driver.listen(false).await.unwrap();
    driver.begin();
    let peer_id = PeerId::random();
    driver.note_prospect(peer_id);
    driver.on_prospect_missed(peer_id);
    tokio::time::timeout(LIMIT, driver.restart("a test")).await.unwrap().unwrap();
    assert!(!driver.is_prospect(&peer_id));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_node_is_the_same_one_in_a_new_life() {
    let key = Keypair::generate_ed25519();
    let alpha = begin(settings("alpha")).await;
    let beta = begin_as(joining("beta", &alpha), key.clone()).await;
    alpha.sees_names(&["alpha", "beta"]).await;
    let first = alpha.core.snapshot.load().by_peer[&beta.core.peer_id].incarnation;
    beta.kill().await;
    alpha.sees_names(&["alpha"]).await;
    let beta = begin_as(joining("beta", &alpha), key).await;
    alpha.sees_names(&["alpha", "beta"]).await;
    alpha
        .sees("a new life", |snapshot| {
            snapshot.by_peer.get(&beta.core.peer_id).is_some_and(|node| node.incarnation > first)
        })
        .await;
}

#[tokio::test]
async fn strangers_of_the_network_are_not_waited_for_by_who_has_met_the_swarm() {
    let alpha = begin(settings("alpha")).await;
    let beta = begin(settings("beta")).await;
    // It takes connections, and says nothing: so does a private swarm.
    let stranger = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("/ip4/127.0.0.1/tcp/{}", stranger.local_addr().unwrap().port()).parse().unwrap();
    // Of two that find each other the one with the smaller peer id dials.
    let larger = std::iter::repeat_with(Keypair::generate_ed25519).find(|key| is_larger(key, &beta)).unwrap();
    let peer_id = larger.public().to_peer_id();
    let begun = Instant::now();
    let found = Command::Find { peer_id, address };
    beta.core.commands.send(found).await.unwrap();
    beta.core.commands.send(Command::Join { address: alpha.address() }).await.unwrap();
    beta.is("settled", |status| status.synced && status.settled).await;
    // A dial to somebody new is waited for so long.
    assert!(begun.elapsed() < Duration::from_millis(1_400), "after {:?}", begun.elapsed());
    alpha.stop().await;
    beta.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_join_that_fails_is_tried_again() {
    let folder = tempfile::tempdir().unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let early = Settings { join: vec![format!("127.0.0.1:{port}")], ..settings("early") };
    let early = begin(early).await;
    early.is("settled", |status| status.settled).await;
    let listen = vec![format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap()];
    let late = begin(Settings { listen, ..meeting("late", folder.path()) }).await;
    late.sees_names(&["early", "late"]).await;
    early.sees_names(&["early", "late"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_joins_itself_stays_alone_and_well() {
    let alpha = begin(settings("alpha")).await;
    let address = alpha.address();
    alpha.core.commands.send(Command::Join { address }).await.unwrap();
    let beta = begin(joining("beta", &alpha)).await;
    alpha.sees_names(&["alpha", "beta"]).await;
    beta.stop().await;
    alpha.sees_names(&["alpha"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_port_is_an_error_that_names_it() {
    let alpha = begin(settings("alpha")).await;
    let listen: Vec<Multiaddr> = vec![alpha.address().parse().unwrap()];
    let (core, commands) =
        Core::new(Settings { listen, ..settings("beta") }, Keypair::generate_ed25519(), Wishes::default());
    let error = start(core, commands).await.unwrap_err();
    assert!(error.to_string().contains(&alpha.address()), "{error}");
    assert!(error.to_string().to_lowercase().contains("in use"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_port_serves_both_families() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let listen = [format!("/ip4/0.0.0.0/tcp/{port}"), format!("/ip6/::/tcp/{port}")];
    let alpha =
        begin(Settings { listen: listen.map(|address| address.parse().unwrap()).to_vec(), ..settings("alpha") }).await;
    let loopback: Multiaddr = format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap();
    assert_eq!(alpha.core.addresses.borrow().first(), Some(&loopback));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_of_another_host_is_an_error_and_no_panic() {
    let listen: Vec<Multiaddr> = vec!["/ip4/192.0.2.1/tcp/0".parse().unwrap()];
    let (core, commands) =
        Core::new(Settings { listen, ..settings("beta") }, Keypair::generate_ed25519(), Wishes::default());
    let error = start(core, commands).await.unwrap_err();
    assert!(error.to_string().contains("192.0.2.1"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unusable_folder_degrades_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("swarm"), b"a file").unwrap();
    let mut alpha = begin(meeting("alpha", folder.path())).await;
    alpha.hears("it", |event| matches!(event, Event::Degraded { reason } if reason.contains("swarm"))).await;
    let beta = begin(joining("beta", &alpha)).await;
    beta.sees_names(&["alpha", "beta"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_of_one_process_meet_without_any_network() {
    let memory = |port: u64| vec![format!("/memory/{port}").parse().unwrap()];
    let port = rand::random_range(1 << 40..1_u64 << 50);
    let alpha = begin(Settings { listen: memory(port), ..settings("alpha") }).await;
    let beta = begin(Settings { listen: memory(port + 1), ..joining("beta", &alpha) }).await;
    alpha.sees_names(&["alpha", "beta"]).await;
    beta.sees_names(&["alpha", "beta"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lane_is_opened_to_a_node_that_is_known_only_by_its_record() {
    let alpha = begin(Settings { low_mark: 1, ..settings("alpha") }).await;
    let beta = begin(Settings { low_mark: 1, ..joining("beta", &alpha) }).await;
    let gamma = begin(Settings { low_mark: 1, ..joining("gamma", &alpha) }).await;
    gamma.sees_names(&["alpha", "beta", "gamma"]).await;
    let (respond_to, opened) = oneshot::channel();
    let peer_id = beta.core.peer_id;
    gamma.core.commands.send(Command::OpenLane { peer_id, respond_to }).await.unwrap();
    assert!(tokio::time::timeout(LIMIT, opened).await.unwrap().unwrap().is_ok());
    let (respond_to, opened) = oneshot::channel();
    let peer_id = PeerId::random();
    gamma.core.commands.send(Command::OpenLane { peer_id, respond_to }).await.unwrap();
    assert!(tokio::time::timeout(LIMIT, opened).await.unwrap().unwrap().is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_that_fails_again_and_again_ends_the_node_and_says_so() {
    let mut alpha = begin(settings("alpha")).await;
    let failing = async { while alpha.core.commands.send(Command::Panic).await.is_ok() {} };
    tokio::time::timeout(3 * LIMIT, failing).await.expect("it ends");
    alpha.hears("the end", |event| matches!(event, Event::NetworkFailed { .. })).await;
    tokio::time::timeout(LIMIT, alpha.driver).await.unwrap().unwrap();
}

#[test]
fn the_text_of_an_error_names_what_the_system_says() {
    let inner = io::Error::from_raw_os_error(98);
    let wrapped = io::Error::other(io::Error::other(inner));
    assert_eq!(innermost(wrapped).raw_os_error(), Some(98));
    assert_eq!(innermost(io::Error::other("other")).to_string(), "other");
}
