use std::{
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use libp2p::identity::Keypair;
use multinodes_behaviour::{Grant, SwarmName};

use super::*;

fn swarm() -> SwarmName {
    "garden".parse().unwrap()
}

fn permissions(wishes: Wishes) -> Permissions {
    Permissions::new(PeerId::random(), wishes)
}

fn prove(permissions: &Permissions, peer_id: PeerId, labels: &[(&str, &str)]) {
    let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let issuer = Keypair::generate_ed25519();
    let shown = Grant::issue(&issuer, &swarm(), labels, None).unwrap().claim(&swarm(), &peer_id).unwrap();
    let proof = Proof::of(&swarm(), &peer_id, Some(&shown), |_| true, SystemTime::now());
    permissions.proofs.show(peer_id, proof);
}

fn rule(text: &str) -> Rule {
    Rule::new(text).unwrap()
}

#[test]
fn who_is_known_by_its_id_is_decided_at_once() {
    let (friend, foe, other) = (PeerId::random(), PeerId::random(), PeerId::random());
    let open = permissions(Wishes::default());
    assert_eq!(open.decide(&other), Admission::Admitted);
    let closed =
        permissions(Wishes { allow: vec![friend.into(), foe.into()], deny: vec![foe.into()], ..Wishes::default() });
    assert_eq!(closed.decide(&friend), Admission::Admitted);
    assert_eq!(closed.decide(&foe), Admission::Denied);
    assert_eq!(closed.decide(&other), Admission::Denied);
    assert!(closed.shuns(&other) && !closed.shuns(&friend) && !open.shuns(&other));
}

#[cfg(feature = "cel")]
#[test]
fn labels_are_waited_for_before_anybody_is_let_in_or_turned_away() {
    let (worker, guest) = (PeerId::random(), PeerId::random());
    let allow = vec![rule("peer.labels.role == 'worker'")];
    let permissions = permissions(Wishes { allow, deny: vec![rule("'banned' in peer.labels")], ..Wishes::default() });
    assert_eq!(permissions.decide(&worker), Admission::Pending);
    prove(&permissions, worker, &[("role", "worker")]);
    prove(&permissions, guest, &[("role", "guest")]);
    assert_eq!(permissions.decide(&worker), Admission::Admitted);
    assert_eq!(permissions.decide(&guest), Admission::Denied);
    prove(&permissions, worker, &[("role", "worker"), ("banned", "yes")]);
    assert_eq!(permissions.decide(&worker), Admission::Denied, "a denial counts more");
    permissions.proofs.forget(&worker);
    assert_eq!(permissions.decide(&worker), Admission::Pending);
}

#[test]
fn a_credential_proves_nothing_for_another_peer_or_of_a_stranger_or_when_it_is_over() {
    let (holder, issuer) = (PeerId::random(), Keypair::generate_ed25519());
    let labels = BTreeMap::from([("role".to_owned(), "worker".to_owned())]);
    let shown = Grant::issue(&issuer, &swarm(), labels, Some(100)).unwrap().claim(&swarm(), &holder).unwrap();
    let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
    let proven = |peer_id: &PeerId, shown: &str, trusted: bool, seconds| {
        let permissions = permissions(Wishes::default());
        permissions.proofs.show(*peer_id, Proof::of(&swarm(), peer_id, Some(shown), |_| trusted, at(seconds)));
        assert!(permissions.proofs.has_shown(peer_id), "whoever proves nothing has shown that");
        permissions.proofs.labels(peer_id).len()
    };
    assert_eq!(proven(&holder, &shown, true, 99), 1);
    assert_eq!(proven(&holder, &shown, true, 100), 0);
    assert_eq!(proven(&holder, &shown, false, 99), 0);
    assert_eq!(proven(&PeerId::random(), &shown, true, 99), 0);
    assert_eq!(proven(&holder, &shown.replace('A', "B"), true, 99), 0);
    let permissions = permissions(Wishes::default());
    permissions.proofs.show(holder, Proof::of(&swarm(), &holder, Some(&shown), |_| true, at(99)));
    assert!(!permissions.proofs.expire(at(99)) && permissions.proofs.expire(at(100)));
    assert!(permissions.proofs.labels(&holder).is_empty());
}

#[test]
fn the_more_specific_rules_decide_and_both_the_application_and_its_operator_are_heard() {
    let (reader, admin, other) = (PeerId::random(), PeerId::random(), PeerId::random());
    let (part, application) = (target("store/clear").unwrap(), target("store").unwrap());
    assert_eq!((part.0.as_str(), part.1.clone()), ("store", Part::Action("clear".into())));
    let own = Guard::new().application(reader).application(admin).action("clear", admin).tells(Rule::any());
    let operators = Guard::default().with(application.1, Rule::of(|caller| caller.action != "secret"));
    let permissions = permissions(Wishes { calls: [("store".to_owned(), operators)].into(), ..Wishes::default() });
    let guards = permissions.guards("store", own);
    let may = |action, peer_id: &PeerId| permissions.permits(&guards, "store", action, peer_id);
    for _ in 0..2 {
        assert!(may(Some("size"), &reader) && may(Some("size"), &admin) && !may(Some("size"), &other));
        assert!(!may(Some("clear"), &reader) && may(Some("clear"), &admin));
        assert!(may(None, &other) && !may(Some("secret"), &admin));
        assert!(may(Some("secret"), &permissions.own), "a node may do everything with itself");
    }
    let (application, part) = target("team/render").unwrap();
    let wishes =
        Wishes { calls: [(application, Guard::default().with(part, reader.into()))].into(), ..Wishes::default() };
    let permissions = self::permissions(wishes);
    let guards = permissions.guards("team/render", Guard::new());
    assert!(permissions.permits(&guards, "team/render", Some("draw"), &reader));
    assert!(!permissions.permits(&guards, "team/render", Some("draw"), &other), "a name with a `/` is guarded as well");
    for text in ["", "/clear", "store/"] {
        assert!(target(text).is_err(), "{text}");
    }
    assert_eq!(target("a/b/tell()").unwrap(), ("a/b".to_owned(), Part::Tells));
}

#[test]
fn verdicts_are_forgotten_when_something_changes_and_never_too_many() {
    let permissions = permissions(Wishes::default());
    let guards = permissions.guards("store", Guard::new().application(Rule::of(|caller| caller.labels.is_empty())));
    let peer_id = PeerId::random();
    assert!(permissions.permits(&guards, "store", None, &peer_id));
    prove(&permissions, peer_id, &[("role", "worker")]);
    assert!(!permissions.permits(&guards, "store", None, &peer_id));
    let panics = permissions.guards("store", Guard::new().application(Rule::of(|_| panic!("on purpose"))));
    assert!(!permissions.permits(&panics, "store", None, &peer_id));
    let by_id = permissions.guards("store", Guard::new().application(peer_id));
    for _ in 0..10_000 {
        assert!(!permissions.permits(&by_id, "store", Some("any"), &PeerId::random()));
    }
    assert!(by_id.remembered() <= 4096);
}

#[test]
fn a_file_of_rules_is_read_again_and_what_is_wrong_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("peers");
    let (one, two) = (PeerId::random(), PeerId::random());
    std::fs::write(&path, format!("# friends\n{one}  # the first\n\n")).unwrap();
    let wishes = Wishes { allow: vec![rule(&format!("@{}", path.display()))], ..Wishes::default() };
    let permissions = permissions(wishes);
    assert!(permissions.has_files() && permissions.admits(&one) && !permissions.admits(&two));
    assert!(!permissions.reload());
    replace(&path, &format!("{one}\n{two}\n"));
    assert!(permissions.reload() && permissions.admits(&two));
    replace(&path, &format!("{one}\nnonsense here\n"));
    assert!(!permissions.reload() && permissions.admits(&two), "the rules that were there before still hold");
    std::fs::remove_file(&path).unwrap();
    assert!(!permissions.reload() && permissions.admits(&two));
    replace(&path, &format!("{two}\n"));
    assert!(permissions.reload() && !permissions.admits(&one));
    replace(&path, "@other\n");
    let error = Rule::file(&path).unwrap_err().to_string();
    assert_eq!(error, format!("line 1 of `{}`: a file of rules cannot name another file", path.display()));
    replace(&path, &"#".repeat(2 << 20));
    assert!(Rule::file(&path).unwrap_err().to_string().contains("more than 1048576 bytes"));
}

#[cfg(unix)]
#[test]
fn a_pipe_is_no_file_of_rules_and_nobody_waits_for_what_it_may_bring() {
    let folder = tempfile::tempdir().unwrap();
    let (path, pipe) = (folder.path().join("peers"), folder.path().join("pipe"));
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let peer_id = PeerId::random();
    std::fs::write(&path, format!("{peer_id}\n")).unwrap();
    let (tell, told) = std::sync::mpsc::channel();
    // On a thread of its own: who opens the pipe waits for ever.
    std::thread::spawn(move || {
        tell.send(Rule::file(&pipe).unwrap_err().to_string() == refusal(&pipe)).unwrap();
        let permissions = permissions(Wishes { allow: vec![Rule::file(&path).unwrap()], ..Wishes::default() });
        std::fs::rename(&pipe, &path).unwrap();
        tell.send(!permissions.reload() && permissions.admits(&peer_id)).unwrap();
        tell.send(Rule::file(path.parent().unwrap()).unwrap_err().to_string() == refusal(path.parent().unwrap()))
            .unwrap();
    });
    for what in ["refused", "what was there before it still holds", "so is a folder"] {
        assert_eq!(told.recv_timeout(Duration::from_secs(10)), Ok(true), "{what}");
    }

    fn refusal(path: &Path) -> String {
        format!("the file of rules `{}` is no regular file", path.display())
    }
}

/// As editors do it, so that nobody reads half a file.
fn replace(path: &Path, text: &str) {
    let new = path.with_extension("new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(new, path).unwrap();
}

#[test]
fn a_function_that_panics_lets_nobody_in() {
    let broken = || Rule::of(|_| panic!("a bug"));
    let denied = permissions(Wishes { deny: vec![broken()], ..Wishes::default() });
    let allowed = permissions(Wishes { allow: vec![broken()], ..Wishes::default() });
    for permissions in [denied, allowed] {
        let peer_id = PeerId::random();
        prove(&permissions, peer_id, &[]);
        assert_eq!(permissions.decide(&peer_id), Admission::Denied);
    }
}

#[test]
fn what_begins_like_a_peer_id_and_is_none_is_named() {
    let whole = Keypair::generate_ed25519().public().to_peer_id().to_string();
    assert_eq!(format!("{:?}", rule(&whole)), whole);
    let refusal = |text: &str| format!("`{text}` is no peer id, though it begins like one");
    for text in ["12D3KooW...", &whole[..whole.len() - 1], "QmYyQSo1c1Ym7orWxLYvCrM2", "12D3KooWl0"] {
        assert_eq!(Rule::new(text).unwrap_err().to_string(), refusal(text));
    }
    #[cfg(feature = "wasm")]
    {
        let error = "12D3KooW...:run".parse::<crate::code::CodeRule>().unwrap_err();
        assert_eq!(error.to_string(), refusal("12D3KooW..."));
    }
}

#[cfg(feature = "cel")]
#[test]
fn who_lacks_a_label_is_denied_only_if_the_rule_says_so() {
    let denied = |text: &str| {
        let permissions = permissions(Wishes { deny: vec![rule(text)], ..Wishes::default() });
        let peer_id = PeerId::random();
        prove(&permissions, peer_id, &[]);
        permissions.decide(&peer_id) == Admission::Denied
    };
    assert!(!denied("peer.labels.role != 'admin'"));
    assert!(denied("!has(peer.labels.role) || peer.labels.role != 'admin'"));
}

#[test]
fn an_action_that_is_called_like_the_tells_has_a_verdict_of_its_own() {
    let (caller, teller) = (PeerId::random(), PeerId::random());
    let permissions = permissions(Wishes::default());
    let guards = permissions.guards("store", Guard::new().action("tell()", caller).tells(teller));
    for _ in 0..2 {
        assert!(permissions.permits(&guards, "store", Some("tell()"), &caller));
        assert!(!permissions.permits(&guards, "store", None, &caller));
        assert!(permissions.permits(&guards, "store", None, &teller));
        assert!(!permissions.permits(&guards, "store", Some("tell()"), &teller));
    }
}

#[test]
fn a_byte_order_mark_before_rules_or_a_secret_is_no_part_of_them() {
    let folder = tempfile::tempdir().unwrap();
    let (path, peer_id) = (folder.path().join("peers"), PeerId::random());
    std::fs::write(&path, format!("\u{feff}{peer_id}\n")).unwrap();
    let wishes = Wishes { allow: vec![Rule::file(&path).unwrap()], ..Wishes::default() };
    assert!(permissions(wishes).admits(&peer_id));
    let secret = crate::Secret::generate();
    assert_eq!(crate::Secret::parse(&format!("\u{feff}{}\n", *secret.reveal())).unwrap(), secret);
}
