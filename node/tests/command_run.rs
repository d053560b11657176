//! Code on the command line: run once, installed, signed, inspected.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use common::{Outcome, Process, Swarm, names};
use serde_json::{Value, json};

const ECHO: &str = include_str!("guests/echo.wat");
const COUNTER: &str = include_str!("guests/counter.wat");

/// Compiling takes its time where many tests run at once.
const PATIENT: [&str; 2] = ["--timeout", "30s"];

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A swarm with both guests in its folder, which is where commands run.
fn swarm() -> Swarm {
    let swarm = Swarm::new();
    fs::write(swarm.path("echo.wat"), ECHO).unwrap();
    fs::write(swarm.path("counter.wat"), COUNTER).unwrap();
    swarm
}

/// `multinodes run` with these arguments.
#[track_caller]
fn run(swarm: &Swarm, arguments: &[&str]) -> Outcome {
    swarm.run(&[&["run"], arguments, &PATIENT].concat())
}

/// Makes an identity file, as a node does at its first start, and says whose it is.
fn key(swarm: &Swarm, name: &str) -> (PathBuf, String) {
    let path = swarm.path(name);
    let peer_id = swarm.start("for-its-key", &["--identity", text(&path)]).peer_id();
    (path, peer_id)
}

#[track_caller]
fn refused(outcome: Outcome, code: i32, parts: &[&str]) {
    let outcome = outcome.expect(code);
    assert!(outcome.stdout.is_empty() && outcome.stderr.lines().count() == 1, "{outcome:?}");
    for part in parts {
        assert!(outcome.stderr.contains(part), "`{part}` is not in {outcome:?}");
    }
}

#[test]
fn nobody_runs_code_of_others_unless_told_to_and_is_told_how() {
    let swarm = swarm();
    let _closed = swarm.start("closed", &[]);
    refused(run(&swarm, &["echo.wat", "1", "--node", "closed"]), 1, &["forbidden", "--allow-code", "`any:run`"]);
    refused(run(&swarm, &["echo.wat", "1"]), 1, &["takes code", "--allow-code"]);
    let install = ["counter.wat", "--install", "counter"];
    refused(run(&swarm, &[&install[..], &["--node", "closed"]].concat()), 1, &["forbidden", "`any:install`"]);
    refused(run(&swarm, &[&install[..], &["--all"]].concat()), 1, &["no node takes code"]);
    let _open = swarm.start("open", &["--allow-code", "any:run"]);
    let echoed = run(&swarm, &["echo.wat", "1", "{\"a\": [null, -2.5]}", "--node", "open", "--json"]).expect(0);
    assert_eq!(echoed.json(), json!([1, { "a": [null, -2.5] }]));
    assert_eq!(run(&swarm, &["echo.wat", "2"]).expect(0).json(), json!([2]), "on the one that takes code");
    refused(run(&swarm, &[&install[..], &["--node", "open"]].concat()), 1, &["forbidden"]);
    refused(run(&swarm, &["echo.wat", "--app", "node", "--node", "open"]), 1, &["forbidden", "`any:run,app=node`"]);
    let bound = ["--allow-code", "any:run,app=calc*,cpu=1s", "--demo-applications", "calculator"];
    let _bound = swarm.start("bound", &bound);
    assert_eq!(run(&swarm, &["echo.wat", "3", "--app", "calculator"]).expect(0).json(), json!([3]));
}

#[test]
fn a_rule_may_name_a_peer_a_label_of_a_ticket_or_a_publisher() {
    let swarm = swarm();
    let (mine, peer_id) = key(&swarm, "mine.key");
    let (publisher, publisher_id) = key(&swarm, "publisher.key");
    let (issuer, _) = key(&swarm, "alpha.key");
    let rules = [&format!("{peer_id}:run"), "peer.labels.role == 'dev':run", &format!("publisher={publisher_id}:run")];
    let rules: Vec<&str> = rules.iter().flat_map(|rule| ["--allow-code", rule]).collect();
    let _alpha = swarm.start("alpha", &[&["--identity", text(&issuer)], &rules[..]].concat());
    let task = ["echo.wat", "1", "--node", "alpha"];
    refused(run(&swarm, &task), 1, &["forbidden", "--identity FILE", "--signed-by FILE"]);
    let other = swarm.path("other.key");
    refused(run(&swarm, &[&task[..], &["--identity", text(&other)]].concat()), 1, &["forbidden"]);
    let ran = |arguments: &[&str]| {
        assert_eq!(run(&swarm, &[&task[..], arguments].concat()).expect(0).json(), json!([1]), "{arguments:?}");
    };
    ran(&["--identity", text(&mine)]);
    assert!(!swarm.path("mine.key.data").exists(), "who only sends keeps nothing");
    ran(&["--signed-by", text(&publisher)]);

    let label = ["--label", "role=dev", "--signed-by", text(&issuer)];
    swarm.run(&[&["ticket", "--out", "dev.ticket"], &label[..]].concat()).expect(0);
    let mut command = swarm.command(&[&["run", "--ticket", "dev.ticket"], &task[..], &PATIENT].concat());
    command.env_remove("MULTINODES_SWARM");
    assert_eq!(common::run(command, "").expect(0).json(), json!([1]));

    // What is signed once is run by whoever has the signature beside it.
    let signed =
        swarm.run(&["code", "sign", "echo.wat", "--identity", text(&publisher), "--version", "1.2.3", "--json"]);
    assert_eq!(signed.expect(0).json()["publisher"], publisher_id);
    // Neither the key nor the code is written over.
    for out in [text(&publisher), "echo.wat"] {
        let before = fs::read(swarm.path(out)).unwrap();
        let over = swarm.run(&["code", "sign", "echo.wat", "--identity", text(&publisher), "--out", out]).expect(2);
        assert!(over.stderr.contains("the same file") && over.stderr.contains("--out"), "{over:?}");
        assert_eq!(fs::read(swarm.path(out)).unwrap(), before);
    }
    ran(&[]);
    ran(&["--version", "1.2.3"]);
    refused(run(&swarm, &[&task[..], &["--version", "2.0.0"]].concat()), 2, &["echo.wat.sig", "`1.2.3`", "`2.0.0`"]);
    fs::write(swarm.path("echo.wat"), format!("{ECHO}(; changed ;)").replace("4096", "8192")).unwrap();
    refused(run(&swarm, &task), 2, &["echo.wat.sig", "sign it again"]);
    let signature = fs::read(swarm.path("echo.wat.sig")).unwrap();
    fs::write(swarm.path("echo.wat"), ECHO).unwrap();
    let forged: Vec<u8> = signature.iter().rev().copied().collect();
    fs::write(swarm.path("echo.wat.sig"), forged).unwrap();
    refused(run(&swarm, &task), 2, &["echo.wat.sig", "no signature made by"]);
    let at = signature.windows(5).position(|window| window == b"1.2.3").unwrap();
    let forged = [&signature[..at], b"1.2.4", &signature[at + 5..]].concat();
    fs::write(swarm.path("echo.wat.sig"), forged).unwrap();
    refused(run(&swarm, &task), 2, &["echo.wat.sig", "not that of its publisher"]);
}

/// A guest that gives back these bytes, escaped as in the text format, which are a value in CBOR.
fn giving(escaped: &str, length: usize) -> String {
    let memory = r#"(memory (export "memory") 1)"#;
    ECHO.replace(memory, &format!(r#"{memory} (data (i32.const 64) "{escaped}")"#))
        .replace("(local.get 0)", "(i32.const 64)")
        .replace("(local.get 1)", &format!("(i32.const {length})"))
}

#[test]
fn bytes_are_printed_as_numbers_or_as_they_are() {
    let swarm = swarm();
    let _alpha = swarm.start("alpha", &["--allow-code", "any:run"]);
    fs::write(swarm.path("bytes.wat"), giving(r"\44\00\01hi", 5)).unwrap();
    fs::write(swarm.path("text.wat"), giving(r"\63hi\0a", 4)).unwrap();
    fs::write(swarm.path("number.wat"), giving(r"\07", 1)).unwrap();
    let ran = |file: &str, raw: &[&str]| run(&swarm, &[&[file, "--node", "alpha"][..], raw].concat());
    assert_eq!(ran("bytes.wat", &[]).expect(0).stdout, "[0,1,104,105]\n");
    assert_eq!(ran("bytes.wat", &["--raw"]).expect(0).stdout, "\0\x01hi");
    assert_eq!(ran("text.wat", &["--raw"]).expect(0).stdout, "hi\n");
    assert_eq!(ran("number.wat", &[]).expect(0).stdout, "7\n");
    refused(ran("number.wat", &["--raw"]), 2, &["neither a byte string nor a text"]);
    run(&swarm, &["counter.wat", "--install", "counter", "--raw"]).expect(2);
    let help = swarm.run(&["run", "--help"]).expect(0).stdout;
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(help.contains("printed as an array of numbers; --raw writes its bytes"), "{help}");
}

fn hosted(swarm: &Swarm, hosts: usize) -> Value {
    let of = |apps: &Value| apps.as_array()?.iter().find(|app| app["name"] == "counter").cloned();
    let apps = swarm
        .until(&["apps"], |apps| of(apps).map_or(0, |counter| counter["hosts"].as_array().unwrap().len()) == hosts);
    of(&apps).unwrap_or_default()
}

#[test]
fn what_is_installed_is_called_survives_a_restart_and_goes_when_told_to() {
    let swarm = swarm();
    let key = swarm.path("alpha.key");
    let arguments = ["--identity", text(&key), "--allow-code", "any"];
    let mut alpha = swarm.start("alpha", &arguments);
    let installed = run(&swarm, &["counter.wat", "--install", "counter", "--with", "1", "--json"]).expect(0).json();
    let said = json!({ "node": "alpha", "peer_id": alpha.peer_id(), "installed": true });
    assert_eq!(installed, said);
    let description = hosted(&swarm, 1)["hosts"][0]["description"].clone();
    let cid = swarm.run(&["code", "inspect", "counter.wat", "--json"]).expect(0).json()["cid"].clone();
    assert_eq!(description["code"], cid);
    let call = ["call", "counter", "count"];
    assert_eq!(swarm.run(&call).expect(0).json(), json!(1));
    assert_eq!(swarm.run(&call).expect(0).json(), json!(2));
    alpha.signal("TERM");
    assert_eq!(alpha.end(), 0);
    let mut alpha = swarm.start("alpha", &arguments);
    assert_eq!(alpha.peer_id(), said["peer_id"]);
    hosted(&swarm, 1);
    assert_eq!(swarm.run(&call).expect(0).json(), json!(1), "it begins anew");
    let uninstall = ["code", "uninstall", "counter", "--node", "alpha"];
    swarm.run(&uninstall).expect(0);
    refused(swarm.run(&uninstall), 1, &["not_installed"]);
    hosted(&swarm, 0);
}

#[test]
fn of_two_versions_the_later_one_wins_and_the_other_is_refused() {
    let swarm = swarm();
    let _alpha = swarm.start("alpha", &["--allow-code", "any"]);
    let install =
        |version: &str| run(&swarm, &["counter.wat", "--install", "counter", "--node", "alpha", "--version", version]);
    install("1.9.0").expect(0);
    install("1.10.0").expect(0);
    refused(install("1.9.0"), 1, &["superseded"]);
    let version = |apps: &Value| apps[0]["name"] == "counter" && apps[0]["version"] == "1.10.0";
    swarm.until(&["apps"], version);
    refused(install("newest"), 2, &["`newest` is no version"]);
}

#[test]
fn all_tells_of_each_node_and_everywhere_of_newcomers() {
    let swarm = swarm();
    let _alpha = swarm.start("alpha", &["--allow-code", "any", "--label", "region=eu"]);
    let _beta = swarm.start("beta", &["--allow-code", "any:run"]);
    let _closed = swarm.start("closed", &[]);
    swarm.until(&["nodes"], |nodes| names(nodes) == ["alpha", "beta", "closed"]);
    let install = ["counter.wat", "--install", "counter"];
    let all = run(&swarm, &[&install[..], &["--all"]].concat()).expect(1);
    assert!(all.stdout.contains("installed") && all.stdout.contains("forbidden"), "{all:?}");
    assert!(!all.stdout.contains("closed") && all.stderr.contains("1 of 2 nodes"), "{all:?}");
    let rows = run(&swarm, &[&install[..], &["--where", "node.labels.region == 'eu'", "--json"]].concat());
    let rows = rows.expect(0).json();
    assert_eq!((rows.as_array().unwrap().len(), &rows[0]["node"]), (1, &json!("alpha")));
    refused(run(&swarm, &[&install[..], &["--where", "node.name == 'none'"]].concat()), 1, &["no node that matches"]);

    let everywhere = [&["run"], &install[..], &["--everywhere", "--json"]].concat();
    let mut everywhere = Process::spawn("everywhere", swarm.command(&everywhere));
    let heard = |process: &mut Process, node: &str| {
        process.wait_for(node, |line| line.value["node"] == node).value["installed"].clone()
    };
    assert_eq!(heard(&mut everywhere, "alpha"), true);
    assert_eq!(heard(&mut everywhere, "beta"), false);
    let _gamma = swarm.start("gamma", &["--allow-code", "any:install"]);
    assert_eq!(heard(&mut everywhere, "gamma"), true);
    everywhere.signal("INT");
    assert_eq!(everywhere.end(), 0);
    hosted(&swarm, 2);
}

#[test]
fn what_is_no_code_or_of_the_wrong_kind_is_said_before_anything_is_begun() {
    let swarm = swarm();
    fs::write(swarm.path("note.txt"), "a shopping list").unwrap();
    fs::File::create(swarm.path("cut.wasm")).unwrap().write_all(b"\0asm\x0d\0").unwrap();
    refused(run(&swarm, &["missing.wasm"]), 2, &["missing.wasm", "cannot be read"]);
    refused(run(&swarm, &["note.txt"]), 2, &["note.txt", "not WebAssembly"]);
    refused(run(&swarm, &["cut.wasm"]), 2, &["cut.wasm"]);
    refused(run(&swarm, &["counter.wat"]), 2, &["is an application", "--install NAME"]);
    refused(run(&swarm, &["echo.wat", "--install", "echo"]), 2, &["is a task"]);
    refused(run(&swarm, &["echo.wat", "hello"]), 2, &["argument 1 `hello`"]);
    refused(run(&swarm, &["-", "-"]), 2, &["only one stdin"]);
    run(&swarm, &["counter.wat", "--install", "counter", "--where", "node.nme == 'a'"]).expect(2);
    run(&swarm, &["echo.wat", "--node", "alpha", "--all"]).expect(2);
    let start = |rule| swarm.run(&["start", "--until-stdin-closes", "--allow-code", rule]);
    refused(start("any:fly"), 2, &["--allow-code: ", "`fly`"]);
    refused(start("publisher=me"), 2, &["--allow-code: ", "`me`"]);
}

#[test]
fn code_is_read_from_stdin_and_rules_from_the_file_with_settings() {
    let swarm = swarm();
    fs::write(swarm.path("settings.toml"), "[start]\nallow-code = ['any:run']\ndata = 'kept'\n").unwrap();
    let _alpha = swarm.start("alpha", &["--config", "settings.toml"]);
    let command = swarm.command(&[&["run", "-", "7", "--node", "alpha"], &PATIENT[..]].concat());
    assert_eq!(common::run(command, ECHO).expect(0).json(), json!([7]));
    let listed = swarm.run(&["code", "ls", "--json", "--config", "settings.toml"]).expect(0).json();
    assert_eq!(listed["code"].as_array().unwrap().len(), 1, "{listed}");
}

#[test]
fn code_is_inspected_listed_and_forgotten() {
    let swarm = swarm();
    let task = swarm.run(&["code", "inspect", "echo.wat", "--json"]).expect(0).json();
    assert_eq!((&task["world"], &task["name"], &task["publisher"]), (&json!("task"), &json!("echo"), &Value::Null));
    assert_eq!(task["imports"], json!([]));
    let application = swarm.run(&["code", "inspect", "counter.wat", "--json"]).expect(0).json();
    assert_eq!(application["world"], "application");
    assert_eq!(application["imports"], json!(["multinodes:guest/host@0.1.0"]));
    assert!(application["complexity"].as_u64() > task["complexity"].as_u64(), "{application} {task}");

    refused(swarm.run(&["code", "ls"]), 2, &["--data DIR"]);
    refused(swarm.run(&["code", "ls", "--data", "nowhere"]), 2, &["nothing is kept in `nowhere/code`"]);
    assert!(!swarm.path("nowhere").exists(), "looking makes nothing");
    let _alpha = swarm.start("alpha", &["--allow-code", "any", "--data", "kept"]);
    run(&swarm, &["echo.wat", "1", "--node", "alpha"]).expect(0);
    run(&swarm, &["counter.wat", "--install", "counter", "--node", "alpha", "--version", "1.0.0"]).expect(0);
    let place = ["--data", "kept"];
    let ls = || swarm.run(&[&["code", "ls", "--json"], &place[..]].concat()).expect(0).json();
    let listed = ls();
    let mut cids: Vec<_> = listed["code"].as_array().unwrap().iter().map(|code| code["cid"].clone()).collect();
    cids.sort_by_key(Value::to_string);
    let mut expected = [task["cid"].clone(), application["cid"].clone()];
    expected.sort_by_key(Value::to_string);
    assert_eq!(cids, expected);
    let installed = &listed["installed"][0];
    assert_eq!((&installed["name"], &installed["version"]), (&json!("counter"), &json!("1.0.0")));
    assert_eq!((&installed["cid"], &installed["rule"]), (&application["cid"], &json!("any")));
    let table = swarm.run(&[&["code", "ls"], &place[..]].concat()).expect(0).stdout;
    assert!(table.starts_with("CODE ") && table.contains("INSTALLED"), "{table}");

    let cid = |of: &Value| of["cid"].as_str().unwrap().to_owned();
    let of = |verb: &str, cid: &str| swarm.run(&[&["code", verb, cid], &place[..]].concat());
    let kept = swarm.run(&[&["code", "inspect", &cid(&application), "--json"], &place[..]].concat()).expect(0).json();
    assert_eq!((&kept["version"], &kept["complexity"]), (&json!("1.0.0"), &application["complexity"]));
    refused(of("rm", &cid(&application)), 1, &["installed as `counter`"]);
    of("rm", &cid(&task)).expect(0);
    refused(of("rm", &cid(&task)), 1, &["no code", "kept"]);
    refused(of("inspect", &cid(&task)), 1, &["no code"]);
    assert_eq!(ls()["code"].as_array().unwrap().len(), 1);
    let compiled = format!("{}.cwasm", cid(&task));
    let engines = fs::read_dir(swarm.path("kept").join("code")).unwrap().flatten();
    assert!(!engines.map(|entry| entry.path().join(&compiled)).any(|path| path.exists()), "nor what was compiled");
    swarm.run(&["code", "rm", "not-a-cid"]).expect(2);
    run(&swarm, &["echo.wat", "1", "--node", "alpha"]).expect(0);
}
