//! Many nodes at once.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn many_nodes_that_start_together_all_see_all() {
    let folder = tempfile::tempdir().unwrap();
    let names: Vec<String> = (10..22).map(|number| format!("node-{number}")).collect();
    let starting = names.iter().map(|name| begin(meeting(name, folder.path())));
    let nodes = futures::future::join_all(starting).await;
    let expected: Vec<&str> = names.iter().map(String::as_str).collect();
    for node in &nodes {
        node.sees_names(&expected).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_nodes_that_join_through_one_address_at_once_all_see_all() {
    let first = begin(settings("node-00")).await;
    let names: Vec<String> = (0..40).map(|number| format!("node-{number:02}")).collect();
    let starting = names[1..].iter().map(|name| begin(joining(name, &first)));
    let others = futures::future::join_all(starting).await;
    let expected: Vec<&str> = names.iter().map(String::as_str).collect();
    for node in others.iter().chain([&first]) {
        node.sees_names(&expected).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn more_nodes_with_one_neighbour_in_common_than_its_mesh_has_places_all_see_all() {
    let hub = begin(Settings { low_mark: 1, ..settings("hub") }).await;
    let names: Vec<String> = (10..28).map(|number| format!("n-{number}")).collect();
    let spokes = names.iter().map(|name| begin(Settings { low_mark: 1, ..joining(name, &hub) }));
    let spokes = futures::future::join_all(spokes).await;
    for node in spokes.iter().chain([&hub]) {
        node.sees("all 19", |snapshot| snapshot.nodes.len() == 19).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn above_the_high_mark_idle_connections_are_released_and_nobody_is_taken_for_lost() {
    let hub = begin(Settings { low_mark: 1, high_mark: 13, ..settings("hub") }).await;
    let spokes = (10..28).map(|number| begin(Settings { low_mark: 1, ..joining(&format!("n-{number}"), &hub) }));
    let mut spokes = futures::future::join_all(spokes).await;
    // Each of them came to it: not necessarily while it still had all the others.
    hub.sees("all 18", |snapshot| snapshot.nodes.len() == 19).await;
    hub.is("down to the high mark", |status| status.connected <= 13).await;
    assert_eq!(hub.names().len(), 19);
    for spoke in &mut spokes {
        spoke.sees("all 19", |snapshot| snapshot.nodes.len() == 19).await;
        while let Some(Some(event)) = spoke.events.next().now_or_never() {
            assert!(!matches!(event, Event::Left { .. }), "{event:?}");
        }
    }
}

/// Pods of one name that start before the name knows all of them.
#[tokio::test(flavor = "multi_thread")]
#[cfg(target_os = "linux")]
async fn islands_behind_one_name_become_one() {
    use std::{net::SocketAddr, sync::Mutex};

    use crate::addresses::Resolver;

    let again = Duration::from_millis(200);
    // One port on four addresses of this host; whoever binds it first finds it free on the others, or the test tries anew.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let at = |last: u8| SocketAddr::from(([127, 0, 77, last], port));
    let named = |known: &Arc<Mutex<Vec<SocketAddr>>>| {
        let known = known.clone();
        Resolver::new(again, move |_, _| {
            let found = known.lock().unwrap().clone();
            async move { Ok(found) }.boxed()
        })
    };
    let islands = [[1, 2], [3, 4]].map(|island| Arc::new(Mutex::new(island.map(at).to_vec())));
    let mut all = Vec::new();
    for (island, known) in islands.iter().enumerate() {
        for number in 1..=2 {
            let last = 2 * u8::try_from(island).unwrap() + number;
            let settings = Settings {
                listen: vec![format!("/ip4/127.0.77.{last}/tcp/{port}").parse().unwrap()],
                join: vec![format!("workers:{port}")],
                resolver: named(known),
                ..settings(&format!("pod-{last}"))
            };
            all.push(begin(settings).await);
        }
    }
    for (one, names) in all.iter().zip([["pod-1", "pod-2"], ["pod-1", "pod-2"], ["pod-3", "pod-4"], ["pod-3", "pod-4"]])
    {
        one.sees_names(&names).await;
    }
    for known in &islands {
        *known.lock().unwrap() = [1, 2, 3, 4].map(at).to_vec();
    }
    for one in &all {
        one.sees_names(&["pod-1", "pod-2", "pod-3", "pod-4"]).await;
    }
}
