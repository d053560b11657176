//! Who may connect, and who may use what.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "common/in_process.rs"]
mod in_process;

use std::{
    collections::BTreeMap,
    path::Path,
    time::{Duration, Instant},
};

use futures::FutureExt;

use in_process::{in_process, within};
use multinodes::{
    Actions, Builder, CallError, Considered, Context, Event, Keypair, Node, PeerId, Rule, StartError, Ticket, Verdict,
};

fn calculator() -> Actions {
    Actions::new()
        .action("add", |(one, other): (i64, i64)| async move { one + other })
        .action("div", |(one, other): (i64, i64)| async move { one / other })
        .allow(Rule::of(|caller| caller.labels.get("role").is_some_and(|role| role == "admin")))
        .action_with("labels", |context: Context, ()| async move { context.caller_labels().as_ref().clone() })
        .on_tell(|_: String| async {})
        .allow(Rule::of(|caller| !caller.labels.is_empty()))
}

/// A node that lets itself be called, and the way to it.
async fn host(name: &str, wish: impl FnOnce(Builder) -> Builder) -> (Node, String) {
    let (builder, address) = in_process(name);
    let node = wish(builder).start().await.unwrap();
    node.register("calculator", calculator()).unwrap();
    (node, address)
}

fn labels(role: &str) -> BTreeMap<String, String> {
    BTreeMap::from([("role".to_owned(), role.to_owned())])
}

fn ticket(issuer: &Node, role: &str) -> Ticket {
    issuer.ticket_with_labels(Some(Duration::from_secs(3600)), labels(role)).unwrap()
}

fn key() -> (Keypair, PeerId) {
    let keypair = Keypair::generate_ed25519();
    let peer_id = keypair.public().to_peer_id();
    (keypair, peer_id)
}

async fn joined(name: &str, ticket: Ticket) -> Node {
    in_process(name).0.ticket(ticket).start().await.unwrap()
}

/// Waits until `node` has refused so many connections.
async fn refused(node: &Node, count: u64) {
    within(node.forbidden_connections().wait_for(|refused| *refused >= count)).await.unwrap();
}

#[tokio::test]
async fn labels_of_a_ticket_permit_what_others_may_not_from_the_first_call_on() {
    let (alpha, address) = host("alpha", |builder| builder).await;
    let (admin, guest) = (joined("admin", ticket(&alpha, "admin")).await, in_process("guest").0.join(&address));
    let guest = guest.start().await.unwrap();
    let quotient: i64 = within(admin.call("calculator", "div", (6, 3))).await.unwrap();
    assert_eq!(quotient, 2);
    let seen: BTreeMap<String, String> = within(admin.call("calculator", "labels", ())).await.unwrap();
    assert_eq!(seen, labels("admin"));
    within(admin.tell("calculator", "note")).await.unwrap();

    let sum: i64 = within(guest.call("calculator", "add", (1, 2))).await.unwrap();
    assert_eq!(sum, 3, "what has no rules is for everybody");
    let error = within(guest.call::<i64>("calculator", "div", (6, 3))).await.unwrap_err();
    assert!(matches!(error, CallError::Forbidden) && !error.may_have_run(), "{error:?}");
    assert_eq!(error.to_string(), "forbidden");
    let error = within(guest.tell("calculator", "note")).await.unwrap_err();
    assert!(matches!(error, CallError::Forbidden), "{error:?}");
    assert_eq!(alpha.counters().forbidden_messages, 2);
    let own: i64 = within(alpha.call("calculator", "div", (6, 2))).await.unwrap();
    assert_eq!(own, 3, "a node may do everything with itself");
}

#[tokio::test]
async fn who_is_not_allowed_to_connect_learns_nothing() {
    let ((keypair, friend), (foe_keypair, foe)) = (key(), key());
    let (alpha, address) = host("alpha", |builder| builder.allow_peer(friend).allow_peer(foe).deny_peer(foe)).await;
    let stranger = in_process("stranger").0.join(&address).start().await.unwrap();
    refused(&alpha, 1).await;
    let foe = in_process("foe").0.keypair(foe_keypair).join(&address).start().await.unwrap();
    refused(&alpha, 2).await;
    let friend = in_process("friend").0.keypair(keypair).join(&address).start().await.unwrap();
    let sum: i64 = within(friend.call("calculator", "add", (1, 2))).await.unwrap();
    assert_eq!(sum, 3);
    for refused in [stranger, foe] {
        assert_eq!(refused.nodes().len(), 1, "nobody but itself");
    }
    assert_eq!(alpha.nodes().len(), 2);
}

#[tokio::test]
async fn a_node_does_not_dial_whom_it_denies() {
    let (beta, address) = host("beta", |builder| builder).await;
    let alpha = in_process("alpha").0.deny_peer(beta.peer_id()).join(&address).start().await.unwrap();
    refused(&alpha, 1).await;
    assert_eq!((alpha.nodes().len(), beta.nodes().len()), (1, 1));
}

#[tokio::test]
async fn rules_for_connections_look_at_labels_before_anything_is_said() {
    let is_worker = || Rule::of(|caller| caller.labels.get("role").is_some_and(|role| role == "worker"));
    let (alpha, address) = host("alpha", |builder| builder.allow_peer(is_worker())).await;
    // Made before there is anybody else whom they could lead to.
    let [worker, guest, any] = ["worker", "guest", "guest"].map(|role| ticket(&alpha, role));
    let worker = joined("worker", worker).await;
    let sum: i64 = within(worker.call("calculator", "add", (1, 2))).await.unwrap();
    assert_eq!(sum, 3);
    let guest = joined("guest", guest).await;
    refused(&alpha, 1).await;
    let stranger = in_process("stranger").0.join(&address).start().await.unwrap();
    refused(&alpha, 2).await;
    // Labels that a node gives itself, or that anybody signs, are worth nothing.
    let (issuer, _) = key();
    let own = any.labelled(&issuer, labels("worker")).unwrap();
    let liar = in_process("liar").0.ticket(own).label("role", "worker").start().await.unwrap();
    refused(&alpha, 3).await;
    for refused in [guest, stranger, liar] {
        assert_eq!(refused.nodes().len(), 1, "nobody but itself");
    }
    assert_eq!(alpha.nodes().len(), 2);
}

#[tokio::test]
async fn whoever_joins_with_a_ticket_believes_its_issuer_and_others_if_told_to() {
    let (issuer, issuer_id) = key();
    let (alpha, address) = host("alpha", |builder| builder.trust(issuer_id)).await;
    let labelled = |role: &str| alpha.ticket(None).unwrap().labelled(&issuer, labels(role)).unwrap();
    let beta = joined("beta", labelled("worker")).await;
    beta.register("second", calculator()).unwrap();
    let admin = joined("admin", labelled("admin")).await;
    for application in ["calculator", "second"] {
        let quotient: i64 = within(admin.call(application, "div", (6, 3))).await.unwrap();
        assert_eq!(quotient, 2);
    }
    let gamma = in_process("gamma").0.join(&address).start().await.unwrap();
    gamma.register("third", calculator()).unwrap();
    within(admin.wait_for("third")).await.unwrap();
    let error = within(admin.call::<i64>("third", "div", (6, 3))).await.unwrap_err();
    assert!(matches!(error, CallError::Forbidden), "it trusts nobody: {error:?}");
}

#[tokio::test]
async fn labels_are_gone_when_their_ticket_expires() {
    let (alpha, _) = host("alpha", |builder| builder).await;
    let short = alpha.ticket_with_labels(Some(Duration::from_secs(2)), labels("admin")).unwrap();
    let admin = joined("admin", short).await;
    let quotient: i64 = within(admin.call("calculator", "div", (6, 3))).await.unwrap();
    assert_eq!(quotient, 2);
    let error = within(async {
        loop {
            if let Err(error) = admin.call::<i64>("calculator", "div", (6, 3)).await {
                break error;
            }
        }
    })
    .await;
    assert!(matches!(error, CallError::Forbidden), "{error:?}");
}

#[tokio::test]
async fn a_file_of_peers_is_read_again_when_it_changes_and_cuts_off_whom_it_no_longer_names() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("peers");
    let ((one_key, one), (two_key, two)) = (key(), key());
    replace(&file, &format!("{one}\n{two} # for now\n"));
    let (alpha, address) = host("alpha", |builder| builder.allow_peer(Rule::file(&file).unwrap())).await;
    let start = |name: &str, keypair| in_process(name).0.keypair(keypair).join(&address);
    let (one, two) = (start("one", one_key).start().await.unwrap(), start("two", two_key).start().await.unwrap());
    for node in [&one, &two] {
        let sum: i64 = within(node.call("calculator", "add", (1, 2))).await.unwrap();
        assert_eq!(sum, 3);
    }
    replace(&file, &format!("{}\n", one.peer_id()));
    refused(&alpha, 1).await;
    let error = within(two.call::<i64>("calculator", "add", (1, 2))).await.unwrap_err();
    assert!(!error.may_have_run() || matches!(error, CallError::ConnectionLost { .. }), "{error:?}");
    let sum: i64 = within(one.call("calculator", "add", (1, 2))).await.unwrap();
    assert_eq!(sum, 3);
}

fn replace(path: &Path, text: &str) {
    let new = path.with_extension("new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(new, path).unwrap();
}

#[tokio::test]
async fn the_operator_of_a_node_guards_what_its_program_left_open() {
    let (keypair, friend) = key();
    let guarded = |builder: Builder| builder.allow("calculator/add", friend).unwrap().allow("node", friend).unwrap();
    let (_alpha, address) = host("alpha", guarded).await;
    let friend = in_process("friend").0.keypair(keypair).join(&address).start().await.unwrap();
    let other = in_process("other").0.join(&address).start().await.unwrap();
    let sum: i64 = within(friend.call("calculator", "add", (1, 2))).await.unwrap();
    assert_eq!(sum, 3);
    let echo: String = within(friend.app("node").on("alpha").call("echo", "hi")).await.unwrap();
    assert_eq!(echo, "hi");
    within(other.wait_for("calculator")).await.unwrap();
    let error = within(other.call::<i64>("calculator", "add", (1, 2))).await.unwrap_err();
    assert!(matches!(error, CallError::Forbidden), "{error:?}");
    let error = within(other.app("node").on("alpha").call::<String>("echo", "hi")).await.unwrap_err();
    assert!(matches!(error, CallError::Forbidden), "{error:?}");
}

#[tokio::test]
async fn who_is_forbidden_at_one_host_is_served_by_another() {
    let (keypair, friend) = key();
    let (_alpha, address) = host("alpha", |builder| builder.allow("calculator", Rule::of(|_| false)).unwrap()).await;
    let (beta, _) = host("beta", |builder| builder.join(&address)).await;
    let friend_node = in_process("friend").0.keypair(keypair).join(&address).start().await.unwrap();
    within(friend_node.wait_for_hosts("calculator", 2)).await.unwrap();
    for _ in 0..20 {
        let sum: i64 = within(friend_node.call("calculator", "add", (1, 2))).await.unwrap();
        assert_eq!(sum, 3);
    }
    let of_alpha = |considered: Vec<Considered>| considered.into_iter().find(|host| host.node == "alpha").unwrap();
    let alpha = of_alpha(friend_node.app("calculator").explain_call("add"));
    assert_eq!(alpha.verdict, Verdict::Forbidden, "{alpha:?}");
    assert!(alpha.reason.starts_with("it said `forbidden` to `add`"), "{alpha:?}");
    // What it says of one action is not what it would say of another one.
    let alpha = of_alpha(friend_node.app("calculator").explain_call("multiply"));
    assert!(matches!(alpha.verdict, Verdict::Taken | Verdict::Possible), "{alpha:?}");
    let alpha = of_alpha(friend_node.app("calculator").explain());
    assert!(matches!(alpha.verdict, Verdict::Taken | Verdict::Possible), "{alpha:?}");
    assert!(alpha.reason.contains("it said `forbidden` to `add`") && !alpha.reason.contains("no answer"), "{alpha:?}");
    drop((beta, friend));
}

#[cfg(feature = "cel")]
#[tokio::test]
async fn a_rule_for_connections_that_looks_at_calls_is_refused() {
    let error = in_process("alpha").0.allow_peer(Rule::new("action == 'add'").unwrap()).start().await.unwrap_err();
    assert!(matches!(error, StartError::Rule(_)), "{error:?}");
    assert_eq!(
        error.to_string(),
        "`action == 'add'` looks at `application` or `action`, which nobody asks for who connects"
    );
}

#[tokio::test]
async fn a_file_in_the_rules_of_an_application_is_read_again_when_it_changes() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("peers");
    let (keypair, friend) = key();
    replace(&file, &format!("{friend}\n"));
    let (alpha, address) = in_process("alpha");
    let alpha = alpha.start().await.unwrap();
    let answer = Actions::new().action("answer", |()| async { 42 }).allow(Rule::file(&file).unwrap());
    alpha.register("oracle", answer).unwrap();
    let friend = in_process("friend").0.keypair(keypair).join(&address).start().await.unwrap();
    // Registered after the start, and perhaps announced after the friend has come.
    within(friend.wait_for("oracle")).await.unwrap();
    let answer: u8 = within(friend.call("oracle", "answer", ())).await.unwrap();
    assert_eq!(answer, 42);
    replace(&file, "# nobody any more\n");
    let error = within(async {
        loop {
            if let Err(error) = friend.call::<u8>("oracle", "answer", ()).await {
                break error;
            }
        }
    })
    .await;
    assert!(matches!(error, CallError::Forbidden), "{error:?}");
}

#[tokio::test]
async fn who_is_turned_away_by_a_node_of_which_others_tell_asks_more_and_more_rarely() {
    let ((foe_keypair, foe_id), (gamma, address)) = (key(), in_process("gamma"));
    let gamma = gamma.start().await.unwrap();
    let (door, _) = host("door", |builder| builder.join(&address).deny_peer(foe_id)).await;
    within(gamma.wait_for_node("door")).await.unwrap();
    let foe = in_process("foe").0.keypair(foe_keypair).join(&address).start().await.unwrap();
    let mut events = foe.events();
    within(foe.wait_for_node("door")).await.unwrap();
    refused(&door, 1).await;
    let begun = Instant::now();
    refused(&door, 4).await;
    // Looks come after 1, 2 and 4 s, some of them a little sooner.
    assert!(begun.elapsed() > Duration::from_secs(4), "{:?}", begun.elapsed());
    let mut joined = 0;
    while let Some(Some(event)) = events.next().now_or_never() {
        joined += usize::from(matches!(event, Event::Joined(node) if node.name == "door"));
    }
    assert!(joined <= 2, "it comes and goes: {joined} times");
}
