//! `map`: lines in, outcomes out, whatever happens in between.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test fails by panicking, and prints what it has measured"
)]

mod common;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{BufRead, BufReader, Read, Write},
    process::{Child, Stdio},
    sync::mpsc::channel,
    thread,
};

use common::{LIMIT, Outcome, Process, Swarm, obeying_hangups, run, signal};
use serde_json::{Value, json};

/// Nodes that host the application `worker`, known to whoever looks.
fn workers(swarm: &Swarm, names: &[&str]) -> Vec<Process> {
    let workers = names.iter().map(|name| swarm.start(name, &["--demo-applications", "worker"])).collect();
    swarm.until(&["apps"], |apps| {
        let worker = apps.as_array().into_iter().flatten().find(|row| row["name"] == "worker");
        worker.is_some_and(|row| row["hosts"].as_array().map(Vec::len) == Some(names.len()))
    });
    workers
}

/// The lines of an output, each of which is JSON, by index; none is there twice.
fn by_index(text: &str) -> BTreeMap<u64, Value> {
    let mut lines = BTreeMap::new();
    for line in text.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        assert!(lines.insert(line["index"].as_u64().unwrap(), line.clone()).is_none(), "twice: {line}");
    }
    lines
}

/// The numbers from 1 on, one a line, each with a time that it takes.
fn slow_items(count: u64, milliseconds: u64) -> String {
    (1..=count).map(|item| format!("[{item},{milliseconds}]\n")).collect()
}

/// How often `square_slowly` was begun on these nodes.
fn runs(swarm: &Swarm, nodes: &[&str]) -> u64 {
    let runs = |node| swarm.run(&["call", "worker", "runs", "--node", node]).expect(0).json().as_u64().unwrap();
    nodes.iter().map(|node| runs(*node)).sum()
}

/// Waits for the end of a process and gives its exit code and what it has said on stderr.
#[track_caller]
fn end(mut child: Child) -> (Option<i32>, String) {
    let (pid, mut stderr) = (child.id(), child.stderr.take().unwrap());
    // Held until the end: it is not closed because of us.
    let stdin = child.stdin.take();
    let (done, ended) = channel();
    thread::spawn(move || {
        let mut complaints = String::new();
        stderr.read_to_string(&mut complaints).unwrap();
        let _ = done.send((child.wait().unwrap().code(), complaints));
        drop(stdin);
    });
    ended.recv_timeout(LIMIT).unwrap_or_else(|_| {
        signal(pid, "KILL");
        panic!("it does not end");
    })
}

#[track_caller]
fn complains(outcome: &Outcome, words: &[&str]) {
    let last = outcome.stderr.lines().last().unwrap_or_default();
    assert!(last.starts_with("error: ") && words.iter().all(|word| last.contains(word)), "{words:?}: {outcome:?}");
}

#[test]
fn each_line_is_an_item_and_each_outcome_a_line() {
    let swarm = Swarm::new();
    let _workers = workers(&swarm, &["alpha", "beta"]);
    let outcome = run(swarm.command(&["map", "worker", "square"]), "1\n\n 2 \n3").expect(0);
    let lines = by_index(&outcome.stdout);
    assert_eq!(lines.len(), 3, "an empty line is none: {outcome:?}");
    for (index, line) in &lines {
        let keys: BTreeSet<_> = line.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(keys, ["attempts", "index", "input", "ms", "node", "result"].into(), "{line}");
        assert_eq!(
            (line["input"].as_u64(), line["result"].as_u64()),
            (Some(index + 1), Some((index + 1) * (index + 1)))
        );
        assert!(line["ms"].as_f64().unwrap() > 0.0 && line["attempts"] == 1, "{line}");
        assert!(["alpha", "beta"].contains(&line["node"].as_str().unwrap()), "{line}");
    }
    for told in ["WORKER", "3 items in", "0 failed"] {
        assert!(outcome.stderr.contains(told), "`{told}` is missing: {outcome:?}");
    }
    assert!(!outcome.stderr.contains(['\u{1b}', '\r']), "no bar and no colours in a pipe: {outcome:?}");
    let nothing = run(swarm.command(&["map", "worker", "square"]), "").expect(0);
    assert!(nothing.stdout.is_empty() && nothing.stderr.contains("0 items in"), "{nothing:?}");
}

#[test]
fn items_come_from_a_file_and_outcomes_go_to_a_file_in_order() {
    let swarm = Swarm::new();
    let _workers = workers(&swarm, &["alpha", "beta"]);
    let (input, output) = (swarm.path("in.jsonl"), swarm.path("out.jsonl"));
    fs::write(&input, (0..5000).map(|item| format!("{item}\n")).collect::<String>()).unwrap();
    fs::write(&output, "what was there before\n".repeat(50_000)).unwrap();
    let map = ["map", "worker", "square", "--in", "in.jsonl", "--out", "out.jsonl", "--ordered"];
    let outcome = swarm.run(&map).expect(0);
    assert_eq!(outcome.stdout, "");
    let text = fs::read_to_string(&output).unwrap();
    let indexes: Vec<_> = text.lines().map(|line| line.split([':', ',']).nth(1).unwrap()).collect();
    assert_eq!(indexes, (0..5000).map(|index: u64| index.to_string()).collect::<Vec<_>>());
    assert!(by_index(&text).into_iter().all(|(index, line)| line["result"] == index * index));
    // Before there is anything new, what was there before stays.
    swarm.run(&["map", "nobody", "square", "--in", "in.jsonl", "--out", "out.jsonl"]).expect(1);
    assert_eq!(fs::read_to_string(&output).unwrap(), text);
    let on_beta = swarm.run(&["map", "worker", "square", "--in", "in.jsonl", "--node", "beta"]).expect(0);
    assert!(by_index(&on_beta.stdout).values().all(|line| line["node"] == "beta"), "{on_beta:?}");
}

#[test]
fn a_line_is_a_value_or_text_or_the_arguments() {
    let swarm = Swarm::new();
    let _alpha = workers(&swarm, &["alpha"]);
    let map = |flags: &[&str], input: &str, code: i32| {
        let outcome = run(swarm.command(&[&["map"], flags].concat()), input).expect(code);
        by_index(&outcome.stdout).into_values().collect::<Vec<_>>()
    };
    let lines = map(&["worker", "length", "--lines", "--ordered"], "Grüße\r\n\n[1]", 0);
    let lines: Vec<_> = lines.iter().map(|line| (&line["input"], &line["result"])).collect();
    assert_eq!(lines, [(&json!("Grüße"), &json!(5)), (&json!(""), &json!(0)), (&json!("[1]"), &json!(3))]);
    let lines = map(&["worker", "square_slowly", "--spread"], "[7, 1]\n", 0);
    assert_eq!((&lines[0]["input"], &lines[0]["result"]), (&json!([7, 1]), &json!(49)));
    // A list is one argument, and so is null.
    let lines = map(&["node", "echo", "--node", "alpha", "--ordered"], "[7, 1]\nnull\n{\"b\": 1, \"a\": 2}\n", 0);
    assert_eq!((&lines[0]["result"], &lines[1]["result"]), (&json!([7, 1]), &Value::Null));
    assert!(lines[1].as_object().unwrap().contains_key("result"), "{lines:?}");
    let raw =
        run(swarm.command(&["map", "node", "echo", "--node", "alpha"]), "{\"b\": 1, \"a\": 0.1}").expect(0).stdout;
    assert!(raw.contains("\"input\":{\"b\":1,\"a\":0.1},"), "in the order it had: {raw}");
    let lines = map(&["worker", "square_slowly"], "[7, 1]\n", 1);
    assert_eq!(lines[0]["error"]["code"], "bad_arguments", "{lines:?}");
}

#[test]
fn what_fails_is_told_and_exit_code_1() {
    let swarm = Swarm::new();
    let _workers = workers(&swarm, &["alpha", "beta", "gamma"]);
    let mut command = swarm.command(&["map", "worker", "root", "--poison-after", "2"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let (mut text, mut nodes) = (String::new(), BTreeSet::new());
    // Until it knows several workers.
    while nodes.len() < 2 {
        stdin.write_all(b"9\n").unwrap();
        let begin = text.len();
        assert!(stdout.read_line(&mut text).unwrap() > 0, "it has ended: {text}");
        let line: Value = serde_json::from_str(&text[begin..]).unwrap();
        nodes.insert(line["node"].as_str().unwrap().to_owned());
    }
    let place = text.lines().count() as u64;
    let input: String = [-1].into_iter().chain((10..60).map(|x| x * x)).map(|x: i64| format!("{x}\n")).collect();
    stdin.write_all(input.as_bytes()).unwrap();
    drop(stdin);
    stdout.read_to_string(&mut text).unwrap();
    let (code, complaints) = end(child);
    assert_eq!(code, Some(1), "{complaints}");
    let lines = by_index(&text);
    assert_eq!(lines.len() as u64, place + 51);
    let failed: Vec<_> = lines.values().filter(|line| line["error"].is_object()).collect();
    assert_eq!(failed.len(), 1, "the squares have roots: {failed:?}");
    let poisoned = &lines[&place];
    assert_eq!((&poisoned["input"], &poisoned["error"]["kind"]), (&json!(-1), &json!("poisoned")));
    assert_eq!((&poisoned["error"]["code"], &poisoned["attempts"]), (&json!("panicked"), &json!(2)));
    let failures = poisoned["error"]["failures"].as_array().unwrap();
    let nodes: BTreeSet<_> = failures.iter().map(|failure| failure["node"].as_str().unwrap()).collect();
    assert_eq!((failures.len(), nodes.len()), (2, 2), "on two different workers: {failures:?}");
    assert!(
        failures[0]["message"].as_str().unwrap().contains("negative") && failures[0]["ms"].is_f64(),
        "{failures:?}"
    );
    assert!(complaints.contains("1 failed, 1 of them poisoned"), "{complaints}");
    let outcome = run(swarm.command(&["map", "worker", "root", "--retry-errors", "1"]), "5\n").expect(1);
    let error = &by_index(&outcome.stdout)[&0]["error"];
    assert_eq!((&error["kind"], &error["code"], &error["data"]), (&json!("failed"), &json!("no_square"), &json!(2)));
    assert_eq!((&error["message"], error["failures"].as_array().unwrap().len()), (&json!("5 is no square"), 2));
    let outcome = run(swarm.command(&["map", "worker", "nothing"]), "5\n").expect(1);
    assert_eq!(by_index(&outcome.stdout)[&0]["error"]["code"], "no_such_action");
}

#[test]
fn a_line_that_is_no_item_ends_the_input_and_nothing_before_it_is_lost() {
    let swarm = Swarm::new();
    let _alpha = workers(&swarm, &["alpha"]);
    let good: String = (0..600).map(|item| format!("{item}\n")).collect();
    for (flags, bad, words) in [
        (&[][..], "nonsense\n7\n", &["line 601 of stdin", "not JSON", "--lines"][..]),
        (&[], "1 2\n", &["line 601 of stdin", "not JSON", "trailing characters"]),
        (&["--journal", "journal"], "{\"a\":}\n", &["line 601 of stdin", "not JSON"]),
    ] {
        let input = format!("{good}{bad}");
        let outcome = run(swarm.command(&[&["map", "worker", "square"], flags].concat()), &input).expect(2);
        complains(&outcome, words);
        assert_eq!(by_index(&outcome.stdout).len(), 600, "{flags:?}");
    }
    // With the line corrected the journal still holds.
    let map = swarm.command(&["map", "worker", "square", "--journal", "journal"]);
    let lines = by_index(&run(map, &format!("{good}7\n")).expect(0).stdout);
    let recorded = lines.values().filter(|line| line["recorded"] == true).count();
    assert_eq!((lines.len(), recorded), (601, 600));
    let outcome = run(swarm.command(&["map", "worker", "square_slowly", "--spread"]), "[3,1]\n3\n").expect(2);
    complains(&outcome, &["line 2 of stdin", "not an array", "--spread"]);
    let endless = "x".repeat((16 << 20) + 1);
    let outcome = run(swarm.command(&["map", "worker", "length", "--lines"]), &format!("x\n{endless}")).expect(2);
    complains(&outcome, &["line 2 of stdin", "16777216 bytes"]);
    assert_eq!(by_index(&outcome.stdout).len(), 1);
}

#[test]
fn what_cannot_be_used_is_exit_code_2_and_named() {
    let swarm = Swarm::new();
    let _alpha = workers(&swarm, &["alpha"]);
    fs::write(swarm.path("in"), "1\n").unwrap();
    fs::create_dir(swarm.path("folder")).unwrap();
    let map = ["map", "worker", "square"];
    for (flags, words) in [
        (&["--in", "missing"][..], &["`missing`", "No such file"][..]),
        (&["--in", "folder"], &["`folder`", "folder"]),
        (&["--in", "in", "--out", "folder"], &["cannot write `folder`"]),
        (&["--in", "in", "--out", "./in"], &["--in and --out are the same file"]),
        (&["--in", "in", "--journal", "in"], &["--in and --journal are the same file"]),
    ] {
        let outcome = swarm.run(&[&map, flags].concat()).expect(2);
        complains(&outcome, words);
        assert_eq!((outcome.stderr.lines().count(), outcome.stdout.as_str()), (1, ""), "{outcome:?}");
    }
    for flags in
        [&["--lines", "--spread"][..], &["--idempotent", "--at-most-once"], &["--retry-failed"], &["--lease", "1"]]
    {
        swarm.run(&[&map, flags].concat()).expect(2);
    }
    for flag in ["--lease", "--item-timeout", "--patience", "--timeout"] {
        let outcome = swarm.run(&[&map[..], &[flag, "0s"]].concat()).expect(2);
        let told = outcome.stderr.contains(flag) && outcome.stderr.contains("longer than 0");
        assert!(told, "{outcome:?}");
    }
    assert_eq!(fs::read_to_string(swarm.path("in")).unwrap(), "1\n", "the input is as it was");
    if cfg!(target_os = "linux") {
        let full = swarm.run(&[&map[..], &["--in", "in", "--out", "/dev/full"]].concat()).expect(2);
        complains(&full, &["cannot write `/dev/full`", "No space left"]);
    }
}

#[test]
fn an_application_that_nobody_hosts_is_exit_code_1_with_a_hint() {
    let swarm = Swarm::new();
    let nobody = run(swarm.command(&["map", "worker", "square", "--timeout", "30s"]), "1\n").expect(1);
    complains(&nobody, &["no node of swarm", "multinodes start"]);
    let _alpha = workers(&swarm, &["alpha"]);
    for arguments in [&["map", "nobody", "square"][..], &["map", "worker", "square", "--node", "nobody"]] {
        let outcome = run(swarm.command(arguments), "1\n2\n").expect(1);
        complains(&outcome, &["nobody", "multinodes apps"]);
        assert_eq!((outcome.stderr.lines().count(), outcome.stdout.as_str()), (1, ""), "{outcome:?}");
    }
}

#[test]
fn after_a_kill_the_same_command_goes_on_from_its_journal() {
    let swarm = Swarm::new();
    let _workers = workers(&swarm, &["alpha", "beta"]);
    fs::write(swarm.path("in"), slow_items(400, 10)).unwrap();
    let map = ["map", "worker", "square_slowly", "--spread", "--in", "in", "--journal", "journal"];
    let mut first = Process::spawn("the first map", swarm.command(&map));
    first.wait_until("100 outcomes", |heard| (heard.len() >= 100).then_some(()));
    first.signal("KILL");
    assert_eq!(first.end(), 128 + 9);
    // The last line may be torn.
    let told: BTreeSet<_> = first.heard.iter().filter_map(|line| line.value["index"].as_u64()).collect();
    let second = by_index(&swarm.run(&map).expect(0).stdout);
    assert_eq!(second.len(), 400);
    assert!(second.iter().all(|(index, line)| line["result"] == (index + 1) * (index + 1)), "{second:?}");
    let recorded: BTreeSet<_> = second.iter().filter(|(_, line)| line["recorded"] == true).map(|(i, _)| *i).collect();
    assert!(recorded.is_superset(&told) && recorded.len() < 400, "{} told, {} recorded", told.len(), recorded.len());
    let before = runs(&swarm, &["alpha", "beta"]);
    let third = swarm.run(&map).expect(0);
    assert!(by_index(&third.stdout).values().all(|line| line["recorded"] == true));
    assert!(third.stderr.contains("400 recorded before"), "{third:?}");
    assert_eq!(runs(&swarm, &["alpha", "beta"]), before, "what is recorded does not run again");
}

#[test]
fn a_journal_of_something_else_is_refused() {
    let swarm = Swarm::new();
    let _alpha = workers(&swarm, &["alpha"]);
    let map = |action: &str, flags: &[&str], input: &str| {
        let base = ["map", "worker", action, "--journal", "journal", "--out", "out"];
        run(swarm.command(&[&base, flags].concat()), input)
    };
    map("root", &[], "4\n5\n9\n").expect(1);
    let output = fs::read_to_string(swarm.path("out")).unwrap();
    complains(&map("square", &[], "4\n5\n9\n").expect(2), &["`journal`", "`root`", "`square`"]);
    for other in ["1\n5\n9\n", "4\n6\n9\n", "4\n5\n"] {
        complains(&map("root", &[], other).expect(2), &["`journal`"]);
    }
    let text = fs::read_to_string(swarm.path("out")).unwrap();
    assert!(text.lines().count() < 3 || text == output, "{text}");
    let again = map("root", &["--retry-failed"], "4\n5\n9\n16\n").expect(1);
    assert!(again.stderr.contains("2 recorded before"), "{again:?}");
    let lines = by_index(&fs::read_to_string(swarm.path("out")).unwrap());
    assert_eq!((lines.len(), &lines[&1]["recorded"], &lines[&3]["result"]), (4, &Value::Null, &json!(4)));
    fs::write(swarm.path("journal"), "no journal at all").unwrap();
    complains(&map("root", &[], "4\n").expect(2), &["`journal`"]);
}

#[test]
fn an_interrupted_map_writes_what_it_has_and_says_how_to_go_on() {
    ends_with_what_it_has("INT", 2);
}

#[cfg(target_os = "linux")]
#[test]
fn a_map_whose_terminal_is_gone_writes_what_it_has_and_says_how_to_go_on() {
    ends_with_what_it_has("HUP", 1);
}

fn ends_with_what_it_has(name: &str, number: i32) {
    let swarm = Swarm::new();
    let _alpha = workers(&swarm, &["alpha"]);
    fs::write(swarm.path("in"), slow_items(100_000, 10)).unwrap();
    let map = ["map", "worker", "square_slowly", "--spread", "--in", "in", "--journal", "journal"];
    let mut process = Process::spawn("the map", obeying_hangups(&swarm.command(&map)));
    process.wait_until("the first outcomes", |heard| (heard.len() >= 10).then_some(()));
    process.signal(name);
    assert_eq!(process.end(), 128 + number);
    assert!(process.heard.iter().all(|line| line.value["result"].is_u64()), "{:?}", process.heard);
    let complaints = process.complaints();
    let summary = format!("\n{} items in", process.heard.len());
    assert!(complaints.contains(&summary) && complaints.contains("interrupted:"), "{complaints}");
    // What it runs is called off: nothing more is begun.
    let before = runs(&swarm, &["alpha"]);
    assert_eq!(swarm.run(&["map", "worker", "square", "--in", "in", "--journal", "journal"]).code, 2);
    assert_eq!(runs(&swarm, &["alpha"]), before);
}

#[test]
fn whoever_waits_for_more_input_has_told_all_and_can_be_stopped() {
    let swarm = Swarm::new();
    let _alpha = workers(&swarm, &["alpha"]);
    let mut command = swarm.command(&["map", "worker", "square"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // The last line has no end yet, and the others do not wait for it.
    child.stdin.as_mut().unwrap().write_all(b"2\n3\n4").unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut text = String::new();
    stdout.read_line(&mut text).unwrap();
    stdout.read_line(&mut text).unwrap();
    assert_eq!(by_index(&text).len(), 2);
    signal(child.id(), "TERM");
    let (code, complaints) = end(child);
    assert_eq!(code, Some(128 + 15), "{complaints}");
}

#[test]
fn a_reader_that_has_enough_ends_it_quietly() {
    let swarm = Swarm::new();
    let _alpha = workers(&swarm, &["alpha"]);
    fs::write(swarm.path("in"), slow_items(100_000, 1)).unwrap();
    let mut command = swarm.command(&["map", "worker", "square_slowly", "--spread", "--in", "in"]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.starts_with("{\"index\":"), "{line}");
    assert_eq!(end(child), (Some(0), String::new()));
}

#[test]
fn the_summary_can_be_had_as_json() {
    let swarm = Swarm::new();
    let _alpha = workers(&swarm, &["alpha"]);
    let input: String = (0..100).map(|item| format!("{item}\n")).collect();
    let outcome = run(swarm.command(&["map", "worker", "root", "--json"]), &input).expect(1);
    assert_eq!(by_index(&outcome.stdout).len(), 100);
    let summary: Value = serde_json::from_str(&outcome.stderr).unwrap();
    assert_eq!((&summary["event"], &summary["complete"]), (&json!("summary"), &json!(true)));
    assert_eq!((&summary["items"], &summary["succeeded"], &summary["failed"]), (&json!(100), &json!(10), &json!(90)));
    let workers = summary["workers"].as_array().unwrap();
    let sum = |key: &str| workers.iter().map(|worker| worker[key].as_u64().unwrap()).sum::<u64>();
    assert_eq!((sum("slots"), sum("done"), sum("failed"), sum("lost")), (4, 10, 90, 0), "{summary}");
    assert_eq!((workers.len(), &workers[0]["node"], &workers[0]["share"]), (1, &json!("alpha"), &json!(1.0)));
}

#[cfg(unix)]
#[test]
fn no_file_is_used_for_two_things_whatever_leads_to_it() {
    let swarm = Swarm::new();
    fs::write(swarm.path("items"), "1\n").unwrap();
    fs::hard_link(swarm.path("items"), swarm.path("hard")).unwrap();
    std::os::unix::fs::symlink("new", swarm.path("soft")).unwrap();
    fs::create_dir(swarm.path("folder")).unwrap();
    let open = |name: &str, append: bool| {
        fs::OpenOptions::new().read(!append).append(append).create(append).open(swarm.path(name)).unwrap()
    };
    for (flags, stdin, stdout, words) in [
        (&["--out", "items"][..], "items", None, "stdin and --out"),
        (&["--in", "items", "--out", "hard"], "", None, "--in and --out"),
        (&["--in", "items", "--journal", "result"], "", Some("result"), "stdout and --journal"),
        (&["--in", "items", "--out", "new", "--journal", "new"], "", None, "--out and --journal"),
        (&["--in", "items", "--out", "folder/../new", "--journal", "soft"], "", None, "--out and --journal"),
        (&[], "items", Some("items"), "stdin and stdout"),
        (&["--in", "-", "--out", "-"], "items", Some("items"), "stdin and stdout"),
    ] {
        let mut command = swarm.command(&[&["map", "worker", "square"], flags].concat());
        command.stdin(if stdin.is_empty() { Stdio::null() } else { open(stdin, false).into() });
        command.stdout(stdout.map_or_else(Stdio::piped, |name| open(name, true).into())).stderr(Stdio::piped());
        let (code, complaints) = end(command.spawn().unwrap());
        assert_eq!(code, Some(2), "{flags:?}: {complaints}");
        assert!(complaints.contains(&format!("{words} are the same file")), "{flags:?}: {complaints}");
        assert_eq!(fs::read_to_string(swarm.path("items")).unwrap(), "1\n");
        assert!(!swarm.path("new").exists(), "nothing was made");
    }
}

#[cfg(unix)]
#[test]
fn a_map_that_was_stopped_for_longer_than_its_lease_runs_nothing_again() {
    let swarm = Swarm::new();
    let _workers = workers(&swarm, &["alpha"]);
    let map = ["map", "worker", "square_slowly", "--spread", "--lease", "1s", "--at-most-once"];
    let mut command = swarm.command(&map);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(slow_items(60, 200).as_bytes()).unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let first = lines.next().unwrap().unwrap();
    signal(child.id(), "STOP");
    // What runs on the worker ends meanwhile, and so does the lease: this takes twice as long.
    swarm.run(&["call", "worker", "square_slowly", "1", "2000"]).expect(0);
    signal(child.id(), "CONT");
    let text: String = std::iter::once(Ok(first)).chain(lines).map(|line| line.unwrap() + "\n").collect();
    let (code, complaints) = end(child);
    assert_eq!(code, Some(0), "{text} {complaints}");
    let outcomes = by_index(&text);
    assert_eq!(outcomes.len(), 60);
    assert!(outcomes.values().all(|line| line["attempts"] == 1), "{text}");
    assert_eq!(runs(&swarm, &["alpha"]), 61);
}
