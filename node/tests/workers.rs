//! Applications that are commands: workers in other languages over JSON lines (`--serve`), and one process for each
//! message (`--exec`). Both skeletons of `examples/workers` pass the same tests.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;
#[cfg(target_os = "linux")]
#[path = "common/processes.rs"]
mod processes;

use std::{
    future::Future,
    path::PathBuf,
    process::{Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use common::{LIMIT, Process, Swarm};
use multinodes::{Actions, AppRef, CallError, Node, Payload};
use serde_json::{Value, json};
use tokio::sync::watch;

/// The tests that every skeleton passes.
macro_rules! conformance {
    ($($test:ident),* $(,)?) => {
        mod python {
            $(#[test] fn $test() { super::within(super::$test(super::worker("python3", "misbehaving.py"))) })*
        }
        mod javascript {
            $(#[test] fn $test() { super::within(super::$test(super::worker("node", "misbehaving.js"))) })*
        }
    };
}

conformance! {
    results_and_errors_come_back,
    the_caller_sees_progress,
    messages_are_taken_one_after_the_other,
    a_worker_calls_and_tells_others,
    what_a_worker_asks_within_a_request_ends_with_it,
    a_worker_describes_itself,
    a_worker_asks_only_so_much_at_once,
    a_cancelled_request_frees_its_worker,
    a_worker_that_does_not_hear_a_cancel_is_replaced,
    a_worker_that_ends_in_the_middle_fails_that_call_only,
    what_may_run_twice_is_done_elsewhere_when_its_worker_ends,
    garbage_is_logged_and_the_request_goes_on,
    a_line_without_end_fails_that_call_only,
    what_a_skeleton_cannot_say_is_an_error_at_once,
    slots_are_processes_that_work_at_once,
    what_a_worker_prints_is_in_the_log_and_it_ends_with_the_node,
}

async fn results_and_errors_come_back(worker: String) {
    let test = Test::serve(&worker, &[]).await;
    assert_eq!(test.call("add", (1, 2)).await.unwrap(), json!(3));
    let error = test.call("divide", (1, 0)).await.unwrap_err();
    assert!(
        matches!(&error, CallError::Failed { code, message, .. }
            if code == "division_by_zero" && message == "1 cannot be divided by 0"),
        "{error:?}"
    );
    assert_eq!(error.data::<Value>(), Some(json!({"dividend": 1})));
    let error = test.call("nonsense", ()).await.unwrap_err();
    assert!(matches!(&error, CallError::NoSuchAction { reason, .. } if reason.contains("`nonsense`")), "{error:?}");
    let error = test.call("add", (1,)).await.unwrap_err();
    assert!(matches!(error, CallError::BadArguments { .. }), "{error:?}");
    let long = "ä\n".repeat(1 << 20);
    assert_eq!(test.call("add", (&long, "x")).await.unwrap(), json!(long + "x"));
}

async fn the_caller_sees_progress(worker: String) {
    let test = Test::serve(&worker, &[]).await;
    let seen = Arc::new(Mutex::new(Vec::new()));
    let writer = seen.clone();
    let heard = move |value: Payload| writer.lock().unwrap().push(value.decode::<u64>().unwrap());
    let result: u64 = test.application.call_with_progress("count", (5, 0.05), heard).await.unwrap();
    let seen = seen.lock().unwrap();
    assert_eq!(result, 5);
    assert!(!seen.is_empty() && seen.is_sorted_by(|one, other| one < other), "{seen:?}");
}

async fn messages_are_taken_one_after_the_other(worker: String) {
    let test = Test::serve(&worker, &[]).await;
    for number in 0..50 {
        test.application.tell(json!({ "number": number })).await.unwrap();
    }
    let all: Vec<_> = (0..50).map(|number| json!({ "number": number })).collect();
    test.until("recall", &json!(all)).await;
}

async fn a_worker_calls_and_tells_others(worker: String) {
    let test = Test::serve(&worker, &[]).await;
    let (told, mut journal) = watch::channel(String::new());
    let application = Actions::new().on_tell(move |line: String| {
        told.send_replace(line);
        async {}
    });
    test.asker.register("journal", application).unwrap();
    assert_eq!(test.call("relay", ("node", "echo", "hi")).await.unwrap(), json!("hi"));
    journal.wait_for(|line| line.starts_with("node.echo = ")).await.unwrap();
    let error = test.call("relay", ("node", "nonsense")).await.unwrap_err();
    assert!(matches!(&error, CallError::Failed { code, .. } if code == "no_such_action"), "{error:?}");
}

async fn what_a_worker_asks_within_a_request_ends_with_it(worker: String) {
    let test = Test::serve(&worker, &[]).await;
    let mut waiting = test.gate();
    let relay = test.application.clone().timeout(Duration::from_millis(500));
    let error = relay.call::<Value>("relay", ("gate", "wait")).await.unwrap_err();
    // Both end at the same time: the worker may just have been told so, and have passed it on.
    let passed_on = matches!(&error, CallError::Failed { code, .. } if code == "timed_out" || code == "cancelled");
    assert!(passed_on || matches!(error, CallError::TimedOut { .. }), "{error:?}");
    waiting.wait_for(|waiting| *waiting == 0).await.unwrap();
    assert_eq!(test.call("add", (1, 2)).await.unwrap(), json!(3));
}

async fn a_worker_describes_itself(worker: String) {
    let test = Test::serve(&worker, &["--describe", "demo={\"from\": \"the flag\", \"host\": 1}"]).await;
    let host = test.described(|host| host.version.is_some()).await;
    assert_eq!(host.version.as_deref(), Some("1.0.0"));
    assert!(host.actions.iter().any(|action| action == "add") && host.description["language"].is_string(), "{host:?}");
    assert_eq!(host.idempotent, ["add", "divide", "frail"], "those that may run twice");
    assert_eq!(host.description["from"], "the flag", "what the operator says is not lost: {host:?}");
    test.call("describe", (json!({"temperature": 21, "host": 2}),)).await.unwrap();
    test.described(|host| host.description == json!({"temperature": 21, "from": "the flag", "host": 1})).await;
    let error = test.call("describe", ("x".repeat(100_000),)).await;
    assert!(error.is_ok(), "it has asked for no answer: {error:?}");
}

async fn a_worker_asks_only_so_much_at_once(worker: String) {
    let test = Test::serve(&worker, &[]).await;
    let mut waiting = test.gate();
    test.call("crowd", ("gate", 100, 36)).await.unwrap();
    waiting.wait_for(|waiting| *waiting == 64).await.unwrap();
}

async fn a_cancelled_request_frees_its_worker(worker: String) {
    let test = Test::serve(&worker, &[]).await;
    let process = test.call("process", ()).await.unwrap();
    let impatient = test.application.clone().timeout(Duration::from_millis(300));
    let error = impatient.call::<Value>("count", (1_000_000, 0.001)).await.unwrap_err();
    assert!(matches!(error, CallError::TimedOut { .. }), "{error:?}");
    assert_eq!(test.call("process", ()).await.unwrap(), process);
}

async fn a_worker_that_does_not_hear_a_cancel_is_replaced(worker: String) {
    let test = Test::serve(&worker, &[]).await;
    let process = test.call("process", ()).await.unwrap();
    let impatient = test.application.clone().timeout(Duration::from_millis(300));
    let error = impatient.call::<Value>("stubborn", ()).await.unwrap_err();
    assert!(matches!(error, CallError::TimedOut { .. }), "{error:?}");
    assert_ne!(test.call("process", ()).await.unwrap(), process);
    gone(&process).await;
}

async fn a_worker_that_ends_in_the_middle_fails_that_call_only(worker: String) {
    let test = Test::serve(&worker, &[]).await;
    let process = test.call("process", ()).await.unwrap();
    let error = test.call("leave", (3,)).await.unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, CallError::Panicked { .. }), "{error:?}");
    assert!(text.contains("exit status: 3") && text.contains("leaving now"), "{text}");
    assert_ne!(test.call("process", ()).await.unwrap(), process);
}

async fn what_may_run_twice_is_done_elsewhere_when_its_worker_ends(worker: String) {
    let test = Test::serve(&worker, &[]).await;
    let serve = format!("demo={worker}");
    let start = ["start", "--json", "--until-stdin-closes", "--listen", "/ip4/127.0.0.1/tcp/0"];
    let mut command = test.swarm.command(&[&start[..], &["--name", "second", "--serve", &serve]].concat());
    command.env("MULTINODES_SKELETONS", skeletons());
    let mut second = Process::spawn("second", command);
    second.started();
    let mut events = test.asker.events();
    let declared = |host: &Arc<multinodes::Host>| host.idempotent.iter().any(|action| action == "frail");
    while test.application.hosts().iter().filter(|host| declared(host)).count() < 2 {
        events.next().await.unwrap();
    }
    let file = test.swarm.path("first");
    let process = test.call("frail", (&file,)).await.unwrap();
    let first: u64 = std::fs::read_to_string(&file).unwrap().parse().unwrap();
    assert_ne!(process.as_u64().unwrap(), first);
}

async fn garbage_is_logged_and_the_request_goes_on(worker: String) {
    let mut test = Test::serve(&worker, &[]).await;
    assert_eq!(test.call("babble", ()).await.unwrap(), json!("still here"));
    let log = test.end().await;
    assert!(log.contains("not understood on stdout") && log.contains("line=hello") && log.contains("count=8"), "{log}");
}

async fn a_line_without_end_fails_that_call_only(worker: String) {
    let test = Test::serve(&worker, &[]).await;
    let error = test.call("drone", ()).await.unwrap_err();
    assert!(matches!(&error, CallError::Panicked { reason, .. } if reason.contains("16 MiB")), "{error:?}");
    assert_eq!(test.call("add", (1, 2)).await.unwrap(), json!(3));
}

async fn what_a_skeleton_cannot_say_is_an_error_at_once(worker: String) {
    let mut test = Test::serve(&worker, &[]).await;
    let process = test.call("process", ()).await.unwrap();
    for kind in ["number", "surrogate", "key", "thing", "error"] {
        let error = test.call("strange", (kind,)).await.unwrap_err();
        assert!(matches!(&error, CallError::Failed { code, .. } if code == "exception"), "{kind}: {error:?}");
    }
    assert_eq!(test.call("process", ()).await.unwrap(), process);
    assert!(!test.end().await.contains("not understood on stdout"), "it has said nothing that cannot be read");
}

/// Answers that nobody can read, and what is said of them: `@` is the number of the request.
fn unreadable_answers() -> Vec<(String, &'static str)> {
    let nested = format!(r#"{{"id":@,"result":{}{}}}"#, "[".repeat(130), "]".repeat(130));
    let mut answers: Vec<_> = [
        (r#"{"id":@,"result":"\ud800"}"#, "lone surrogate"),
        (r#"{"id": @, "result": NaN}"#, "NaN"),
        (r#"{"id":@,"result":1e400}"#, "1e400"),
        (r#"{"id":@,"result":18446744073709551617}"#, "18446744073709551617"),
        (r#"{"id":@,"result":{"a":1,"a":2}}"#, "the key `a`"),
        ("{\"id\":@,\"result\":\"\u{ff}\"}", "UTF-8"),
        (r#"{"id":@,"error":"boom"}"#, "its `error` is \"boom\""),
        (r#"{"id":@.0,"result":1}"#, ".0, where the whole number"),
        (r#"{"id":"@","result":1}"#, "where the whole number"),
        (r#"{"id":@}"#, "neither a `result` nor an `error`"),
        (r#"{"result":1}"#, "no `id`"),
        (r#"working on it ... {"id":@,"result":1}"#, "`working on it ... `"),
        (r#"{"id":@,"result":1} done"#, "trailing characters"),
        (r#"{"id":@,"result":[1,2"#, "not JSON"),
        (r#"{'id': @, 'result': None}"#, "double quotes"),
    ]
    .map(|(line, reason)| (line.to_owned(), reason))
    .into();
    answers.push((nested, "nested deeper than 127"));
    answers
}

#[test]
fn an_answer_that_nobody_can_read_fails_its_request_at_once_and_no_other() {
    within(async {
        let test = Test::serve(&worker("python3", "unreadable.py"), &[]).await;
        let process = r#"{"id":@,"result":PID}"#;
        let before = test.call("say", (process,)).await.unwrap();
        let begin = Instant::now();
        for (line, reason) in unreadable_answers() {
            let error = test.call("say", (&line,)).await.unwrap_err();
            let CallError::Failed { code, message, .. } = &error else { panic!("{line}: {error:?}") };
            assert!(code == "unreadable_answer" && message.contains(reason), "{line}: {error:?}");
        }
        assert!(begin.elapsed() < LIMIT / 2, "nothing has waited for a deadline");
        assert_eq!(test.call("say", (process,)).await.unwrap(), before, "it was not started again");
    });
}

#[test]
fn numbers_go_to_processes_and_back_exactly_or_are_refused_by_name() {
    within(async {
        let big = "big=sh -c 'echo [18446744073709551617]'";
        let test = Test::start(&["--exec", "demo=cat", "--exec", big]).await;
        let text = br#"[18446744073709551615,-9223372036854775809,-0,-0.0,1.0,0.30000000000000004]"#;
        let answer = test.application.call_raw("any", Payload::from_json(text).unwrap()).await.unwrap();
        assert_eq!(answer.json().unwrap().to_text(), text);
        let error = test.asker.call::<Value>("big", "any", ()).await.unwrap_err();
        assert!(
            matches!(&error, CallError::Failed { code, message, .. }
                if code == "unreadable_result" && message.contains("18446744073709551617")),
            "{error:?}"
        );
    });
}

#[cfg(target_os = "linux")]
#[test]
fn small_values_by_the_million_go_through_processes_without_becoming_values() {
    within(async {
        let serve = worker("python3", "misbehaving.py");
        let test = Test::start(&["--exec", "demo=cat", "--serve", &format!("count={serve}")]).await;
        let node = test.worker.as_ref().unwrap().id();
        let before = processes::peak(node);
        // A million maps of three bytes, of which each would take 650.
        let million = [&[0x81, 0x9a, 0, 0x10, 0, 0][..], &b"\xa1\x60\xf6".repeat(1 << 20)].concat();
        let arguments = Payload::from_bytes(million.clone());
        let answer = test.application.call_raw("any", arguments.clone()).await.unwrap();
        assert_eq!(answer.as_bytes(), million);
        let served = test.asker.app("count").timeout(LIMIT);
        let refused = served.call_raw("process", arguments).await.unwrap_err();
        assert!(matches!(refused, CallError::BadArguments { .. }), "it takes none: {refused:?}");
        let taken = (processes::peak(node) - before) / processes::MIB;
        assert!(taken < 150, "{taken} MiB for 3 MiB");
    });
}

async fn slots_are_processes_that_work_at_once(worker: String) {
    let test = Test::serve(&worker, &["--slots", "demo=3"]).await;
    assert_eq!(test.application.hosts()[0].slots, Some(3));
    let folder = test.folder("meeting");
    let meet = || test.call("meet", (&folder, 3));
    let (one, two, three) = tokio::join!(meet(), meet(), meet());
    let mut processes = [one, two, three].map(|process| process.unwrap().as_u64().unwrap());
    processes.sort_unstable();
    assert!(processes[0] < processes[1] && processes[1] < processes[2], "{processes:?}");
}

async fn what_a_worker_prints_is_in_the_log_and_it_ends_with_the_node(worker: String) {
    let mut test = Test::serve(&worker, &[]).await;
    test.call("complain", ("so much to do",)).await.unwrap();
    let process = test.call("process", ()).await.unwrap();
    let log = test.end().await;
    assert!(!is_there(&process), "{process} has outlived its node");
    let line = log.lines().find(|line| line.contains("so much to do")).unwrap_or_else(|| panic!("{log}"));
    assert!(line.contains("application=demo") && line.contains(&format!("process={process}")), "{line}");
}

#[test]
fn a_worker_that_cannot_work_shows_in_apps_and_is_busy() {
    within(async {
        let mut test = Test::start(&["--serve", "demo=sh -c 'echo no fuel >&2; exit 7'"]).await;
        let host = test.described(|host| host.trouble.is_some()).await;
        let trouble = host.trouble.clone().unwrap();
        assert!(
            trouble.starts_with("1 of 1 processes down: exit status: 7") && trouble.contains("no fuel"),
            "{trouble}"
        );
        let error = test.call("run", ()).await.unwrap_err();
        assert!(matches!(&error, CallError::Busy { reason, .. } if reason.contains("exit status: 7")), "{error:?}");
        let apps = test.blocking(|swarm| swarm.until(&["apps"], |apps| apps[0]["name"] == "demo"));
        assert_eq!(apps[0]["hosts"][0]["trouble"], json!(trouble));
        let table = test.blocking(|swarm| swarm.run(&["apps"]).expect(0).stdout);
        assert!(table.contains("in trouble: 1 of 1 processes down"), "{table}");
        assert!(test.end().await.contains("no fuel"));
    });
}

#[test]
fn trouble_is_over_when_the_worker_is_back() {
    within(async {
        let command = "demo=sh -c 'test -e repaired || exit 1; while read line; do :; done'";
        let test = Test::start(&["--serve", command]).await;
        test.described(|host| host.trouble.is_some()).await;
        std::fs::write(test.swarm.path("repaired"), "").unwrap();
        test.described(|host| host.trouble.is_none()).await;
    });
}

#[test]
fn a_worker_that_closes_its_pipes_fails_its_call() {
    within(async {
        let test = Test::start(&["--serve", "demo=sh -c 'read line; exec >&-; sleep 1000'"]).await;
        let error = test.call("run", ()).await.unwrap_err();
        assert!(
            matches!(&error, CallError::Panicked { reason, .. } if reason.contains("closed its stdout")),
            "{error:?}"
        );
    });
}

#[test]
fn what_cannot_be_started_is_named() {
    let swarm = Swarm::new();
    let cases: [(&[&str], &[&str]); 5] = [
        (&["--serve", "demo=no-such-program 1"], &["`demo`", "`no-such-program 1`"]),
        (&["--exec", "demo=./missing"], &["`demo`", "`./missing`"]),
        (&["--serve", "demo=cat", "--exec", "demo=cat"], &["`demo` is given twice"]),
        (&["--serve", "demo=cat", "--slots", "other=2"], &["--slots", "`other`"]),
        (&["--serve", "node=cat"], &["`node`"]),
    ];
    for (arguments, named) in cases {
        let start = ["start", "--listen", "/ip4/127.0.0.1/tcp/0"];
        let outcome = swarm.run(&[&start, arguments].concat()).expect(2);
        assert!(named.iter().all(|text| outcome.stderr.contains(text)), "{arguments:?}: {outcome:?}");
    }
    std::fs::write(swarm.path("not-for-this-system"), "\u{7f}ELF").unwrap();
    let made = Command::new("chmod").args(["+x", "not-for-this-system"]).current_dir(swarm.path("")).status().unwrap();
    assert!(made.success());
    let outcome =
        swarm.run(&["start", "--listen", "/ip4/127.0.0.1/tcp/0", "--serve", "demo=./not-for-this-system"]).expect(2);
    assert!(outcome.stderr.contains("`demo`: `./not-for-this-system` cannot be started"), "{outcome:?}");
}

#[test]
fn a_process_for_each_message_has_its_input_and_its_result() {
    within(async {
        let echo = "echo=sh -c 'echo heard; cat'";
        let environment = "environment=sh -c 'echo $MULTINODES_APPLICATION $MULTINODES_ACTION $MULTINODES_CALLER'";
        let keep = "keep=sh -c 'cat > kept; echo $MULTINODES_ACTION. >> kept; mv kept done'";
        let arguments = ["--exec", "demo=cat", "--exec", echo, "--exec", environment, "--exec", keep];
        let test = Test::start(&arguments).await;
        assert_eq!(test.call("any", (1, json!({"a": [null]}))).await.unwrap(), json!([1, {"a": [null]}]));
        let text: String = test.asker.call("echo", "any", "x").await.unwrap();
        assert_eq!(text, "heard\n[\"x\"]");
        let text: String = test.asker.call("environment", "run", ()).await.unwrap();
        assert_eq!(text, format!("environment run {}", test.asker.peer_id()));
        test.asker.tell("keep", json!({"a": 1})).await.unwrap();
        until(|| test.swarm.path("done").exists()).await;
        assert_eq!(std::fs::read_to_string(test.swarm.path("done")).unwrap(), "{\"a\":1}.\n");
    });
}

#[test]
fn a_process_fails_by_its_exit_code_its_end_or_its_output() {
    within(async {
        let failing = "demo=sh -c 'echo first >&2; echo out of paper >&2; exit 3'";
        let others = ["--exec", "killed=sh -c 'echo ouch >&2; kill -9 $$'", "--exec", "endless=yes"];
        let test = Test::start(&[&["--exec", failing], &others[..]].concat()).await;
        let error = test.call("run", ()).await.unwrap_err();
        assert!(
            matches!(&error, CallError::Failed { code, message, .. }
                if code == "exit_3" && message == "first\nout of paper"),
            "{error:?}"
        );
        let error = test.asker.call::<Value>("killed", "run", ()).await.unwrap_err();
        assert!(matches!(&error, CallError::Panicked { reason, .. } if reason.contains("signal: 9")), "{error:?}");
        assert!(error.to_string().contains("ouch"), "{error}");
        let error = test.asker.call::<Value>("endless", "run", ()).await.unwrap_err();
        assert!(matches!(&error, CallError::Failed { code, .. } if code == "output_too_large"), "{error:?}");
    });
}

#[test]
fn a_process_that_is_late_is_killed_with_all_that_it_has_started() {
    within(async {
        let forks = "demo=sh -c 'sleep 1000 & echo $! > sleeper; mv sleeper started; wait'";
        let test = Test::start(&["--exec", forks]).await;
        let late = test.application.clone().timeout(Duration::from_millis(700));
        let error = late.call::<Value>("run", ()).await.unwrap_err();
        assert!(matches!(error, CallError::TimedOut { .. }), "{error:?}");
        gone(&test.started()).await;
        std::fs::remove_file(test.swarm.path("started")).unwrap();
        {
            let cancelled = test.call("run", ());
            tokio::pin!(cancelled);
            tokio::select! {
                outcome = &mut cancelled => panic!("{outcome:?}"),
                () = until(|| test.swarm.path("started").exists()) => {}
            }
        }
        gone(&test.started()).await;
    });
}

#[test]
fn a_second_signal_ends_the_processes_too() {
    within(async {
        let forks = "demo=sh -c 'sleep 1000 & echo $! > sleeper; mv sleeper started; wait'";
        let mut test = Test::start(&["--exec", forks]).await;
        let mut worker = test.worker.take().unwrap();
        let call = test.call("run", ());
        tokio::pin!(call);
        tokio::select! {
            outcome = &mut call => panic!("{outcome:?}"),
            () = until(|| test.swarm.path("started").exists()) => {}
        }
        let mut events = test.asker.events();
        worker.signal("TERM");
        // The call still runs, and the node takes nothing new.
        while !test.application.hosts().is_empty() {
            events.next().await.unwrap();
        }
        worker.signal("TERM");
        assert_eq!(tokio::task::block_in_place(|| worker.end()), 128 + 15);
        gone(&test.started()).await;
    });
}

#[test]
fn what_a_process_leaves_behind_ends_with_it() {
    within(async {
        let test = Test::start(&["--exec", "demo=sh -c 'sleep 1000 & echo $!'"]).await;
        let sleeper = test.call("run", ()).await.unwrap();
        gone(&sleeper).await;
    });
}

#[test]
fn only_so_many_processes_are_started_at_once() {
    within(async {
        let counts = "demo=sh -c 'mkdir here/$$; ls here | wc -l; sleep 0.02; rmdir here/$$'";
        let test = Test::start(&["--exec", counts, "--slots", "demo=2"]).await;
        test.folder("here");
        let all = futures::future::join_all((0..12).map(|_| test.call("run", ()))).await;
        let most = all.into_iter().map(|count| count.unwrap().as_u64().unwrap()).max();
        assert_eq!(most, Some(2));
        assert_eq!(test.application.hosts()[0].slots, Some(2));
    });
}

#[test]
fn applications_come_from_the_file_too() {
    within(async {
        let swarm = Swarm::new();
        std::fs::create_dir_all(swarm.path("there")).unwrap();
        let file = "[applications.demo]\nexec = 'cat note'\nslots = 3\nversion = '2'\nactions = ['read']\n\
                    description = { gpu = true, memory = 8 }\n";
        std::fs::write(swarm.path("there/multinodes.toml"), file).unwrap();
        std::fs::write(swarm.path("there/note"), "from the folder of the file\n").unwrap();
        let config = swarm.path("there/multinodes.toml");
        let test = Test::start_in(swarm, &["--config", config.to_str().unwrap(), "--slots", "demo=5"]).await;
        assert_eq!(test.call("read", ()).await.unwrap(), json!("from the folder of the file"));
        let host = test.application.hosts().remove(0);
        assert_eq!(
            (host.slots, host.version.as_deref(), &host.actions[..]),
            (Some(5), Some("2"), &["read".into()][..])
        );
        assert_eq!(host.description, json!({"gpu": true, "memory": 8}));
    });
}

/// A node with applications that are commands, and a node of this process that asks it.
struct Test {
    swarm: Swarm,
    worker: Option<Process>,
    asker: Node,
    application: AppRef,
}

impl Test {
    async fn serve(worker: &str, arguments: &[&str]) -> Self {
        Self::start(&[&["--serve", &format!("demo={worker}")], arguments].concat()).await
    }

    /// Starts a node that hosts `demo`.
    async fn start(arguments: &[&str]) -> Self {
        Self::start_in(Swarm::new(), arguments).await
    }

    async fn start_in(swarm: Swarm, arguments: &[&str]) -> Self {
        let start = ["start", "--json", "--until-stdin-closes", "--listen", "/ip4/127.0.0.1/tcp/0", "--name", "worker"];
        let mut command = swarm.command(&[&start, arguments].concat());
        command.env("MULTINODES_SKELETONS", skeletons()).env("NO_COLOR", "1");
        let mut worker = Process::spawn("worker", command);
        worker.started();
        let asker = swarm.builder().name("asker").start().await.unwrap();
        asker.wait_for("demo").await.unwrap();
        let application = asker.app("demo").timeout(LIMIT);
        Self { swarm, worker: Some(worker), asker, application }
    }

    async fn call(&self, action: &str, arguments: impl serde::Serialize + Send) -> Result<Value, CallError> {
        self.application.call(action, arguments).await
    }

    /// Calls until the result is as wanted.
    async fn until(&self, action: &str, wanted: &Value) {
        let deadline = Instant::now() + LIMIT;
        loop {
            let result = self.call(action, ()).await.unwrap();
            if result == *wanted {
                return;
            }
            assert!(Instant::now() < deadline, "{result}");
        }
    }

    /// Waits until what is known of `demo` is as wanted.
    async fn described(&self, wanted: impl Fn(&multinodes::Host) -> bool) -> Arc<multinodes::Host> {
        let mut events = self.asker.events();
        loop {
            if let Some(host) = self.application.hosts().into_iter().find(|host| wanted(host)) {
                return host;
            }
            events.next().await.unwrap();
        }
    }

    /// Hosts `gate`, whose action `wait` does not come back; gives how many wait there.
    fn gate(&self) -> watch::Receiver<usize> {
        struct Waiting(watch::Sender<usize>);
        impl Drop for Waiting {
            fn drop(&mut self) {
                self.0.send_modify(|waiting| *waiting -= 1);
            }
        }
        let (waiting, count) = watch::channel(0);
        let gate = Actions::new().action("wait", move |(): ()| {
            waiting.send_modify(|waiting| *waiting += 1);
            let waiting = Waiting(waiting.clone());
            async move {
                let _waiting = waiting;
                std::future::pending::<()>().await;
            }
        });
        self.asker.register("gate", gate).unwrap();
        count
    }

    fn folder(&self, name: &str) -> PathBuf {
        let folder = self.swarm.path(name);
        std::fs::create_dir(&folder).unwrap();
        folder
    }

    /// The process whose number the worker has left in a file.
    fn started(&self) -> Value {
        let text = std::fs::read_to_string(self.swarm.path("started")).unwrap();
        serde_json::from_str(text.trim()).unwrap()
    }

    /// Runs something that blocks beside the node of this process.
    fn blocking<T>(&self, work: impl FnOnce(&Swarm) -> T) -> T {
        tokio::task::block_in_place(|| work(&self.swarm))
    }

    /// Stops the worker's node and gives its log.
    async fn end(&mut self) -> String {
        let mut worker = self.worker.take().unwrap();
        worker.signal("TERM");
        tokio::task::block_in_place(|| worker.complaints())
    }
}

/// The command of a worker that the tests bring; fails loudly where its language is missing.
fn worker(program: &str, script: &str) -> String {
    let found = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    assert!(
        found.is_ok_and(|status| status.success()),
        "`{program}` is missing on this machine: without it nobody knows whether workers in its language work; \
         install it (Debian: apt-get install python3 nodejs)"
    );
    format!("{program} '{}/tests/workers/{script}'", env!("CARGO_MANIFEST_DIR"))
}

fn skeletons() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../examples/workers")
}

/// Waits until a process is no more.
async fn gone(process: &Value) {
    until(|| !is_there(process)).await;
}

fn is_there(process: &Value) -> bool {
    // In a container nobody may collect what has ended.
    let status = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    let is_dead = status.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('Z'));
    !is_dead
        && Command::new("kill").args(["-0", &process.to_string()]).stderr(Stdio::null()).status().unwrap().success()
}

async fn until(is: impl Fn() -> bool) {
    while !is() {
        tokio::task::yield_now().await;
    }
}

/// Runs a test on a runtime of its own, with a limit.
fn within(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(3 * LIMIT, test).await.expect("in time") });
}
