//! Code that stays: who may put it where, what comes after it, and what holds it up.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod code;
#[path = "common/code_nodes.rs"]
mod code_nodes;
#[path = "common/in_process.rs"]
mod in_process;

use std::{fs, path::Path, sync::Mutex, time::Duration};

use code::{guest, within};
use code_nodes::{Gate, asking, compiling, failed, joined, knowing_alpha, rule, serves, two};
use in_process::in_process;
use multinodes::{Actions, CallError, Code, Keypair, Node, code::read_records};

#[tokio::test]
async fn an_upgrade_by_somebody_else_has_only_what_that_one_may() {
    let (trusted, other) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
    let of = |key: &Keypair, options: &str| format!("{}:{options}", key.public().to_peer_id());
    let (builder, address) = compiling("alpha");
    let builder =
        builder.allow_code(rule(&of(&trusted, "app=secret"))).allow_code(rule(&of(&other, "install,wall=5s")));
    let alpha = builder.start().await.unwrap();
    alpha.register("secret", Actions::new().action("read", |()| async { 42 })).unwrap();
    let [trusted, other] = [("trusted", trusted), ("other", other)]
        .map(|(name, key)| knowing_alpha(compiling(name).0.keypair(key).join(&address)));
    let (trusted, other) = (trusted.await, other.await);
    let (_, reader) = asking("secret", "read");
    let version = |version: &str| reader.clone().versioned(version).unwrap();
    within(trusted.install("reader", &version("1.0.0")).on("alpha")).await.unwrap();
    assert_eq!(within(alpha.call::<i64>("reader", "any", ())).await.unwrap(), 42);
    within(other.install("reader", &version("2.0.0")).on("alpha")).await.unwrap();
    let (_, text) = failed(within(alpha.call::<i64>("reader", "any", ())).await);
    assert_eq!(text, "forbidden");
    within(trusted.install("reader", &version("3.0.0")).on("alpha")).await.unwrap();
    assert_eq!(within(alpha.call::<i64>("reader", "any", ())).await.unwrap(), 42);
}

#[tokio::test]
async fn whoever_passes_signed_code_on_takes_none_of_it_away_from_others() {
    let publisher = Keypair::generate_ed25519();
    let (alpha, beta) = two(&[&format!("publisher={}", publisher.public().to_peer_id())]).await;
    let signed = guest("counter").sign(&publisher).unwrap();
    within(beta.install("counter", &signed).on("alpha")).await.unwrap();
    let error = within(beta.install("other", &guest("counter")).on("alpha")).await.unwrap_err();
    assert!(matches!(error, CallError::Forbidden), "it is not signed: {error:?}");
    let stranger = joined("stranger", &alpha.addresses()[0].to_string()).await;
    let error = within(stranger.uninstall("counter", "alpha")).await.unwrap_err();
    assert!(matches!(error, CallError::Forbidden), "{error:?}");
    within(beta.uninstall("counter", "alpha")).await.unwrap();
}

#[tokio::test]
async fn nobody_brings_an_older_version_back_by_installing_the_same_one_anew() {
    let folder = tempfile::tempdir().unwrap();
    let publisher = Keypair::generate_ed25519();
    let version = |version: &str| guest("counter").versioned(version).unwrap().sign(&publisher).unwrap();
    let (old, new) = (version("1.9.0"), version("1.10.0"));
    let start = async || {
        let (builder, address) = compiling("alpha");
        let rule = rule(&format!("publisher={}:install", publisher.public().to_peer_id()));
        (builder.data_folder(folder.path()).allow_code(rule).start().await.unwrap(), address)
    };
    let stale = |error: CallError| matches!(&error, CallError::Failed { code, .. } if code == "superseded");
    let (alpha, address) = start().await;
    let (beta, stranger) = (joined("beta", &address).await, joined("stranger", &address).await);
    within(beta.install("counter", &new).on("alpha")).await.unwrap();
    // The same version with another configuration: the stranger has chosen that, and nothing else.
    within(stranger.install("counter", &new).config(&7).unwrap().on("alpha")).await.unwrap();
    let description = alpha.hosts("counter")[0].description.clone();
    assert_eq!(description["installed_by"], stranger.peer_id().to_base58(), "it acts for whoever chose that");
    let error = within(stranger.uninstall("counter", "alpha")).await.unwrap_err();
    assert!(matches!(error, CallError::Forbidden), "{error:?}");
    assert!(stale(within(stranger.install("counter", &old).on("alpha")).await.unwrap_err()));
    // Who has brought it may take it away, but an older one does not come back under any name.
    within(beta.uninstall("counter", "alpha")).await.unwrap();
    for name in ["counter", "other"] {
        assert!(stale(within(stranger.install(name, &old).on("alpha")).await.unwrap_err()), "{name}");
    }
    within(alpha.stop()).await;
    drop(alpha);
    let (alpha, address) = start().await;
    let stranger = joined("stranger", &address).await;
    let error = within(stranger.install("counter", &old).on("alpha")).await.unwrap_err();
    assert!(stale(error), "it is remembered over a start");
    within(stranger.install("counter", &new).on("alpha")).await.unwrap();
    // A higher one that a stranger brings is that one's to take away again; the first one stays remembered.
    within(stranger.install("counter", &version("2.0.0")).on("alpha")).await.unwrap();
    within(stranger.uninstall("counter", "alpha")).await.unwrap();
    assert!(stale(within(stranger.install("counter", &new).on("alpha")).await.unwrap_err()));
    within(alpha.stop()).await;
    drop(alpha);
    // That the list of guests is damaged makes nobody forget versions, neither at once nor when all is written anew.
    let list = folder.path().join("code/installed.cbor");
    assert!(list.exists());
    fs::write(&list, "damaged").unwrap();
    let (_, another) = asking("secret", "read");
    let another = another.named("another").unwrap().versioned("1.0.0").unwrap().sign(&publisher).unwrap();
    for name in ["one", "two"] {
        let (alpha, address) = start().await;
        let stranger = joined("stranger", &address).await;
        assert!(stale(within(stranger.install("counter", &new).on("alpha")).await.unwrap_err()), "{name}");
        within(stranger.install(name, &another).on("alpha")).await.unwrap();
        within(alpha.stop()).await;
    }
    assert_eq!(names_in(folder.path()), ["one", "two"]);
}

/// What is written down as installed.
fn names_in(data: &Path) -> Vec<String> {
    let mut names: Vec<_> = read_records(&data.join("code")).unwrap().into_iter().map(|record| record.name).collect();
    names.sort();
    names
}

#[tokio::test]
async fn names_that_a_stranger_chooses_use_up_nothing_and_let_nothing_older_in() {
    let publisher = Keypair::generate_ed25519();
    let (alpha, beta) = two(&[&format!("publisher={}:install", publisher.public().to_peer_id())]).await;
    let stranger = joined("stranger", &alpha.addresses()[0].to_string()).await;
    let (_, plain) = asking("secret", "read");
    let version = |version: &str| plain.clone().versioned(version).unwrap().sign(&publisher).unwrap();
    let (old, new) = (version("1.9.0"), version("1.10.0"));
    // What was uninstalled gives its place up a moment later.
    let install = async |node: &Node, name: &str| {
        while let Err(error) = node.install(name, &new).on("alpha").await {
            assert!(matches!(error, CallError::Busy { .. }), "{name}: {error:?}");
        }
    };
    for number in 0..100 {
        let name = format!("name-{number}");
        within(install(&stranger, &name)).await;
        within(stranger.uninstall(&name, "alpha")).await.unwrap();
    }
    within(install(&beta, "own")).await;
    let (code, text) = failed(within(stranger.install("another", &old).on("alpha")).await);
    assert!(code == "superseded" && text.contains("1.10.0") && text.contains("without a name"), "{code}: {text}");
}

#[tokio::test]
async fn whoever_installs_what_is_away_takes_it_from_nobody_who_has_brought_it() {
    let folder = tempfile::tempdir().unwrap();
    let publisher = Keypair::generate_ed25519();
    let signed = guest("counter").versioned("1.0.0").unwrap().sign(&publisher).unwrap();
    let start = async || {
        let (builder, address) = compiling("alpha");
        let rule = rule(&format!("publisher={}:install", publisher.public().to_peer_id()));
        (builder.data_folder(folder.path()).allow_code(rule).start().await.unwrap(), address)
    };
    let key = Keypair::generate_ed25519();
    let (alpha, address) = start().await;
    let beta = knowing_alpha(compiling("beta").0.keypair(key.clone()).join(&address)).await;
    within(beta.install("counter", &signed).on("alpha")).await.unwrap();
    within(alpha.stop()).await;
    within(beta.stop()).await;
    drop((alpha, beta));
    // Neither its code nor what was made of that is there: it stays away.
    for entry in fs::read_dir(folder.path().join("code")).unwrap().flatten() {
        match entry.path() {
            folder if folder.is_dir() => fs::remove_dir_all(folder).unwrap(),
            file if file.extension().is_some_and(|extension| extension == "wasm") => fs::remove_file(file).unwrap(),
            _ => {}
        }
    }
    let (alpha, address) = start().await;
    assert!(alpha.hosts("counter").is_empty());
    let beta = knowing_alpha(compiling("beta").0.keypair(key).join(&address)).await;
    let stranger = joined("stranger", &address).await;
    within(stranger.install("counter", &signed).on("alpha")).await.unwrap();
    assert_eq!(alpha.hosts("counter").len(), 1);
    let error = within(stranger.uninstall("counter", "alpha")).await.unwrap_err();
    assert!(matches!(error, CallError::Forbidden), "{error:?}");
    within(beta.uninstall("counter", "alpha")).await.unwrap();
    assert_eq!(names_in(folder.path()), Vec::<String>::new());
}

#[tokio::test]
async fn a_cancelled_uninstall_leaves_one_writer_and_the_list_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let start = async || {
        let (builder, address) = compiling("alpha");
        (builder.data_folder(folder.path()).allow_code(rule("any")).start().await.unwrap(), address)
    };
    let (alpha, address) = start().await;
    let beta = joined("beta", &address).await;
    let counter = guest("counter");
    let hosted = |node: &Node| {
        let hosted = ["counter", "even", "odd"].into_iter().filter(|name| !node.hosts(name).is_empty());
        hosted.map(str::to_owned).collect::<Vec<_>>()
    };
    for round in 0..20 {
        within(beta.install("counter", &counter).on("alpha")).await.unwrap();
        within(beta.wait_for("counter")).await.unwrap();
        // Dropped as soon as it has begun: what it does is not done, and not written down, by then.
        {
            let mut uninstalling = Box::pin(beta.uninstall("counter", "alpha"));
            within(async {
                while !alpha.hosts("counter").is_empty() && futures::poll!(&mut uninstalling).is_pending() {
                    tokio::task::yield_now().await;
                }
            })
            .await;
        }
        // Others write the same list meanwhile.
        let (comes, goes) = if round % 2 == 0 { ("even", "odd") } else { ("odd", "even") };
        within(beta.install(comes, &counter).on("alpha")).await.unwrap();
        _ = within(beta.uninstall(goes, "alpha")).await;
        assert_eq!((names_in(folder.path()), hosted(&alpha)), (vec![comes.to_owned()], vec![comes.to_owned()]));
    }
    within(alpha.stop()).await;
    drop(alpha);
    let (alpha, _) = start().await;
    assert_eq!(hosted(&alpha), ["odd"], "what was uninstalled does not come back");
}

#[tokio::test]
async fn two_nodes_do_not_share_a_data_folder() {
    let folder = tempfile::tempdir().unwrap();
    let start = || compiling("alpha").0.data_folder(folder.path()).allow_code(rule("any")).start();
    let first = start().await.unwrap();
    let error = start().await.unwrap_err().to_string();
    assert!(error.contains("is in use by another node") && error.contains("--data DIR"), "{error}");
    within(first.install("counter", &guest("counter")).on("alpha")).await.unwrap();
    within(first.stop()).await;
    drop(first);
    let again = start().await.unwrap();
    assert_eq!(again.hosts("counter").len(), 1);
}

#[tokio::test]
async fn of_two_versions_that_are_installed_at_once_the_same_one_wins_everywhere() {
    let (builder, address) = compiling("alpha");
    let alpha = builder.allow_code(rule("any")).start().await.unwrap();
    let host = |name: &str| compiling(name).0.allow_code(rule("any")).join(&address).start();
    let targets = [alpha.clone(), host("bravo").await.unwrap(), host("charlie").await.unwrap()];
    let (one, other) = (joined("one", &address).await, joined("other", &address).await);
    for node in [&one, &other] {
        for name in ["bravo", "charlie"] {
            within(node.wait_for_node(name)).await.unwrap();
        }
    }
    let (old, new) = (guest("counter").versioned("1.9.0").unwrap(), guest("counter").versioned("1.10.0").unwrap());
    let (_, unnamed) = asking("secret", "read");
    let plain = guest("counter");
    let larger = plain.cid().max(unnamed.cid());
    let install = |node: &Node, name: &str, code: &Code| {
        let installation = node.install(name, code).timeout(code::LIMIT);
        async move {
            for target in ["alpha", "bravo", "charlie"] {
                match installation.on(target).await {
                    Ok(()) => {}
                    Err(CallError::Failed { code, .. }) if code == "superseded" => {}
                    Err(error) => panic!("{error:?}"),
                }
            }
        }
    };
    let all = futures::future::join4(
        install(&one, "versions", &old),
        install(&other, "versions", &new),
        install(&one, "hashes", &plain),
        install(&other, "hashes", &unnamed),
    );
    within(all).await;
    for node in &targets {
        let own = |application: &str| node.hosts(application).iter().find(|host| host.local).unwrap().clone();
        assert_eq!(own("versions").version.as_deref(), Some("1.10.0"), "{}", node.name());
        assert_eq!(own("hashes").description["code"], larger.to_string(), "{}", node.name());
    }
    let (code, _) = failed(within(one.install("versions", &old).on("bravo")).await);
    assert_eq!(code, "superseded");
    serves(&one).await;
}

#[tokio::test]
async fn no_call_is_lost_while_a_guest_is_upgraded_in_place() {
    let (alpha, beta) = two(&["any"]).await;
    let version = |number: usize| guest("counter").versioned(format!("1.0.{number}")).unwrap();
    within(beta.install("counter", &version(0)).on("alpha")).await.unwrap();
    within(beta.wait_for("counter")).await.unwrap();
    let done = Mutex::new(false);
    let calls = async {
        let mut count = 0;
        while !*done.lock().unwrap() {
            let all = (0..32).map(|_| beta.call::<u8>("counter", "count", ()));
            count += futures::future::join_all(all).await.into_iter().map(Result::unwrap).count();
        }
        count
    };
    let upgrades = async {
        for number in 1..=10 {
            beta.install("counter", &version(number)).on("alpha").await.unwrap();
        }
        *done.lock().unwrap() = true;
    };
    let (count, ()) = within(futures::future::join(calls, upgrades)).await;
    assert!(count >= 32);
    assert_eq!(alpha.hosts("counter")[0].version.as_deref(), Some("1.0.10"));
    // One that does not start leaves the old one as it was.
    let bad = beta.install("counter", &version(11)).config(&1000).unwrap();
    let (_, text) = failed(within(bad.on("alpha")).await);
    assert_eq!(text, "not with such a configuration");
    within(beta.call::<u8>("counter", "count", ())).await.unwrap();
    assert_eq!(alpha.hosts("counter")[0].version.as_deref(), Some("1.0.10"));
}

#[tokio::test]
async fn what_was_installed_is_back_after_a_start_as_long_as_its_rule_and_its_sender_are_permitted() {
    let folder = tempfile::tempdir().unwrap();
    let (identity, peers) = (folder.path().join("key"), folder.path().join("peers"));
    let key = Keypair::generate_ed25519();
    let allowed = key.public().to_peer_id().to_string();
    fs::write(&peers, &allowed).unwrap();
    let by_file = format!("@{}", peers.display());
    let start = async |rules: &[&str]| {
        let (builder, address) = compiling("alpha");
        let builder = rules.iter().fold(builder, |builder, text| builder.allow_code(rule(text)));
        (builder.identity(&identity).start().await.unwrap(), address)
    };
    let (alpha, address) = start(&[&by_file]).await;
    let beta = knowing_alpha(compiling("beta").0.keypair(key).join(&address)).await;
    within(beta.install("counter", &guest("counter")).on("alpha")).await.unwrap();
    within(beta.stop()).await;
    let stop = async |node: Node| within(node.stop()).await;
    stop(alpha).await;
    let (alpha, _) = start(&["any:run", &by_file]).await;
    assert_eq!(within(alpha.call::<u8>("counter", "count", ())).await.unwrap(), 1);
    stop(alpha).await;
    let (alpha, _) = start(&["any:run"]).await;
    assert!(alpha.hosts("counter").is_empty(), "its rule is gone");
    stop(alpha).await;
    fs::write(&peers, "# nobody").unwrap();
    let (alpha, _) = start(&[&by_file]).await;
    assert!(alpha.hosts("counter").is_empty(), "its installer may not do that any more");
    stop(alpha).await;
}

#[tokio::test]
async fn a_map_over_an_installed_application_needs_nobody_who_has_its_code() {
    let (alpha, beta) = two(&["any"]).await;
    within(beta.install("counter", &guest("counter")).on("alpha")).await.unwrap();
    within(beta.wait_for("counter")).await.unwrap();
    within(beta.stop()).await;
    let gamma = in_process("gamma").0.join(alpha.addresses()[0].to_string()).start().await.unwrap();
    within(gamma.wait_for("counter")).await.unwrap();
    let map = gamma.app("counter").map_iter::<u8>("count", vec![(); 100]);
    let results: Vec<_> = within(futures::StreamExt::collect(map)).await;
    assert_eq!(results.len(), 100);
    assert!(results.iter().all(|outcome| outcome.as_ref().unwrap().result.is_ok()));
}

#[tokio::test]
async fn a_guest_that_does_not_finish_its_start_holds_up_nothing_but_its_name() {
    let (alpha, beta) = two(&["any:app=gate,wall=1m"]).await;
    let gate = Gate::of(&alpha);
    let waiting = Gate::guest(
        r#"(func (export "start") (param i32 i32) (result i32) (call $pass) (i32.const 0))
        (func (export "handle") (param i32 i32 i32 i32) (result i32) (i32.const 0))
        (func (export "process") (param i32 i32) (result i32) (i32.const 0))"#,
    );
    let slow = beta.install("slow", &waiting).timeout(Duration::from_secs(50));
    let installing = tokio::spawn(async move { slow.on("alpha").await });
    gate.came().await;
    within(beta.install("counter", &guest("counter")).on("alpha")).await.unwrap();
    within(beta.uninstall("counter", "alpha")).await.unwrap();
    assert!(!installing.is_finished());
    gate.open();
    within(installing).await.unwrap().unwrap();
    serves(&beta).await;
}
