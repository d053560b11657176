//! Private swarms: who has the secret or a ticket is in, and nobody else sees that there is anything.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "common/in_process.rs"]
mod in_process;

use std::{path::Path, time::Duration};

use data_encoding::BASE64URL_NOPAD;
use in_process::{in_process, within};
use multinodes::{Builder, Node, Secret, StartError, Ticket, TicketError};

fn private(name: &str, secret: &Secret) -> (Builder, String) {
    let (builder, address) = in_process(name);
    (builder.swarm("garden").secret(secret.clone()), address)
}

/// On this host's loopback, found through `folder`.
fn meeting(name: &str, folder: &Path) -> Builder {
    let builder = Node::builder().name(name).swarm("garden").mdns(false).listen("/ip4/127.0.0.1/tcp/0");
    builder.rendezvous_folder(folder)
}

/// Waits until `node` has turned somebody away.
async fn turned_away(node: &Node, before: u64) {
    within(node.failed_handshakes().wait_for(|count| *count > before)).await.unwrap();
    assert!(node.counters().failed_handshakes > before);
}

#[tokio::test]
async fn nodes_with_one_secret_meet_and_talk() {
    let secret = Secret::generate();
    let (one, address) = private("one", &secret);
    let one = one.start().await.unwrap();
    let two = private("two", &secret).0.join(&address).start().await.unwrap();
    within(one.wait_for_node("two")).await.unwrap();
    within(two.wait_for_node("one")).await.unwrap();
    let answer: String = within(two.app("node").on("one").call("echo", "hi")).await.unwrap();
    assert_eq!(answer, "hi");
}

#[tokio::test]
async fn a_wrong_secret_or_none_sees_no_node_and_is_no_node() {
    let secret = Secret::generate();
    let (one, address) = private("one", &secret);
    let one = one.start().await.unwrap();
    let two = private("two", &secret).0.join(&address).start().await.unwrap();
    within(two.wait_for_node("one")).await.unwrap();
    let wrong = private("wrong", &Secret::generate()).0;
    let none = in_process("none").0.swarm("garden");
    let other = in_process("other").0.swarm("gardens").secret(secret);
    for stranger in [wrong, none, other] {
        let before = one.counters().failed_handshakes;
        let stranger = stranger.join(&address).start().await.unwrap();
        turned_away(&one, before).await;
        let seen: Vec<String> = stranger.nodes().iter().map(|node| node.name.clone()).collect();
        assert_eq!(seen, [stranger.name()], "nobody but itself");
        assert_eq!(one.nodes().len(), 2, "itself and `two`");
        assert_eq!(two.nodes().len(), 2);
        assert_eq!(one.counters().strangers, 0, "it was not even known who it is");
    }
}

#[tokio::test]
async fn a_member_that_dials_an_open_node_tells_it_nothing() {
    let (open, address) = in_process("open");
    let open = open.swarm("garden").start().await.unwrap();
    let inside = private("inside", &Secret::generate()).0.join(&address).start().await.unwrap();
    turned_away(&open, 0).await;
    assert_eq!((open.nodes().len(), inside.nodes().len()), (1, 1));
}

#[tokio::test]
async fn swarms_with_other_secrets_share_a_rendezvous_folder_and_never_meet() {
    let folder = tempfile::tempdir().unwrap();
    let (here, there) = (Secret::generate(), Secret::generate());
    let mut nodes = Vec::new();
    for (name, secret) in [("a", Some(&here)), ("b", Some(&here)), ("c", Some(&there)), ("d", None), ("e", None)] {
        let builder = meeting(name, &folder.path().join("shared"));
        let builder = secret.into_iter().fold(builder, |builder, secret| builder.secret(secret.clone()));
        nodes.push(builder.start().await.unwrap());
    }
    within(nodes[0].wait_for_node("b")).await.unwrap();
    within(nodes[3].wait_for_node("e")).await.unwrap();
    for (node, count) in nodes.iter().zip([2, 2, 1, 2, 2]) {
        within(node.settled()).await;
        assert_eq!(node.nodes().len(), count, "{}", node.name());
        assert_eq!(node.counters().failed_handshakes, 0, "not even a dial");
    }
}

#[tokio::test]
async fn what_is_left_on_disk_has_neither_name_nor_secret() {
    let folder = tempfile::tempdir().unwrap();
    let secret = Secret::generate();
    let runtime = folder.path().join(secret.mark("garden").unwrap());
    let one = meeting("one", &runtime).secret(secret.clone()).start().await.unwrap();
    let _two = meeting("two", &runtime).secret(secret.clone()).start().await.unwrap();
    within(one.wait_for_node("two")).await.unwrap();
    let mut files = 0;
    for entry in std::fs::read_dir(&runtime).unwrap() {
        let path = entry.unwrap().path();
        let text = format!("{} {}", path.display(), std::fs::read_to_string(&path).unwrap());
        let revealed = secret.reveal();
        assert!(!text.contains("garden") && !text.contains(&revealed[20..40]), "{text}");
        assert!(text.contains("/tcp/"), "it is a note: {text}");
        files += 1;
    }
    assert_eq!(files, 2);
}

#[tokio::test]
async fn a_ticket_leads_into_a_private_swarm_and_into_an_open_one() {
    for secret in [Some(Secret::generate()), None] {
        let (one, _) = in_process("one");
        let one = secret.into_iter().fold(one.swarm("garden"), Builder::secret).start().await.unwrap();
        let ticket = one.ticket(Some(Duration::from_secs(60))).unwrap();
        assert_eq!(ticket.swarm(), "garden");
        let read = Ticket::parse(&ticket.reveal()).unwrap();
        assert_eq!(read, ticket);
        let two = in_process("two").0.ticket(read).start().await.unwrap();
        within(two.wait_for_node("one")).await.unwrap();
        let passive = Node::builder().passive(true).mdns(false).rendezvous(false).ticket(ticket).start().await.unwrap();
        within(passive.wait_for_node("one")).await.unwrap();
        let again = passive.ticket(None).unwrap();
        assert_eq!(again.expires(), None);
        assert!(!again.addresses().is_empty(), "of those it knows");
    }
}

#[tokio::test]
async fn a_node_that_is_nowhere_makes_no_ticket() {
    let node = Node::builder().passive(true).mdns(false).rendezvous(false).start().await.unwrap();
    assert!(matches!(node.ticket(None).unwrap_err(), TicketError::Nobody));
}

#[tokio::test]
async fn what_a_secret_cannot_guard_is_refused() {
    let builder = || Node::builder().mdns(false).rendezvous(false).secret(Secret::generate());
    let unguarded = ["/ip4/127.0.0.1/udp/0/quic-v1", "/ip4/127.0.0.1/tcp/0/ws"];
    for address in unguarded {
        let error = builder().listen(address).start().await.unwrap_err();
        assert!(matches!(&error, StartError::Unguarded { .. }), "{error}");
        assert!(error.to_string().starts_with(&format!("`{address}` cannot be used in a private swarm")), "{error}");
    }
    for address in ["/ip4/127.0.0.1/udp/4001/quic-v1", "/dns/localhost/tcp/4001/ws"] {
        let error = builder().join(address).start().await.unwrap_err();
        assert!(matches!(&error, StartError::Unguarded { .. }), "{error}");
    }
}

#[tokio::test]
async fn nothing_that_is_printed_has_the_secret_in_it() {
    let secret = Secret::generate();
    let revealed = secret.reveal();
    let builder = private("one", &secret).0;
    let mut printed = format!("{builder:?}");
    let node = builder.start().await.unwrap();
    let ticket = node.ticket(None).unwrap();
    printed += &format!("{node:?} {ticket:?} {secret:?} {}", serde_json::to_string(&node.description()).unwrap());
    let encoded = revealed.strip_prefix("multinodes-secret-1:").unwrap();
    assert!(!printed.contains(encoded), "{printed}");
    // As a list of numbers, as derived code would print it.
    let bytes = format!("{:?}", BASE64URL_NOPAD.decode(encoded.as_bytes()).unwrap());
    assert!(!printed.contains(bytes.trim_matches(['[', ']'])), "{printed}");
}
