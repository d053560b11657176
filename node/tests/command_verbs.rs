//! The verbs that ask and send: what they print, and their exit codes.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test fails by panicking, and prints what it has measured"
)]

mod common;

use common::{Swarm, names, run};
use serde_json::json;

#[test]
fn nodes_lists_who_is_there() {
    let swarm = Swarm::new();
    let mut alpha = swarm.start("alpha", &[]);
    let _beta = swarm.start("beta", &["--demo-applications", "calculator,journal"]);
    let nodes = swarm.until(&["nodes"], |nodes| {
        names(nodes) == ["alpha", "beta"] && nodes[1]["applications"] == json!(["calculator", "journal", "node"])
    });
    let mut keys: Vec<_> = nodes[0].as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    assert_eq!(keys, ["addresses", "applications", "name", "peer_id", "version"]);
    assert_eq!(nodes[0]["peer_id"].as_str().unwrap(), alpha.peer_id());
    assert_eq!(nodes[0]["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(nodes[0]["addresses"], alpha.started()["addresses"]);
    let table = swarm.run(&["nodes"]).expect(0).stdout;
    assert!(table.starts_with("NAME ") && table.lines().count() == 3 && !table.contains('\u{1b}'), "{table}");
}

#[test]
fn apps_lists_applications_with_their_hosts() {
    let swarm = Swarm::new();
    let mut alpha = swarm.start("alpha", &["--demo-applications", "calculator"]);
    let _beta = swarm.start("beta", &["--demo-applications", "calculator,greeter"]);
    let apps = swarm.until(&["apps"], |apps| {
        names(apps) == ["calculator", "greeter", "node"] && apps[0]["hosts"].as_array().unwrap().len() == 2
    });
    assert_eq!(apps[0]["actions"], json!(["add", "div", "where"]));
    assert_eq!((&apps[0]["version"], &apps[0]["description"]), (&json!("1.0.0"), &json!({ "precision": 64 })));
    let host = &apps[0]["hosts"][0];
    assert_eq!((host["node"].as_str(), host["peer_id"].as_str()), (Some("alpha"), Some(alpha.peer_id().as_str())));
    assert_eq!(host["description"], json!({ "precision": 64 }));
    let table = swarm.run(&["apps"]).expect(0).stdout;
    assert!(table.contains("calculator") && table.contains("alpha, beta"), "{table}");
}

#[test]
fn an_empty_swarm_is_an_empty_list_and_advice_on_stderr() {
    let swarm = Swarm::new();
    for verb in ["nodes", "apps"] {
        let outcome = swarm.run(&[verb, "--json"]).expect(0);
        assert_eq!(outcome.json(), json!([]));
        assert!(outcome.stderr.contains(&swarm.name) && outcome.stderr.contains("multinodes start"), "{outcome:?}");
    }
    for arguments in [&["info", "alpha"][..], &["ping", "alpha"], &["call", "node", "echo", "1", "--timeout", "30s"]] {
        let outcome = swarm.run(arguments).expect(1);
        assert!(outcome.stderr.starts_with("error: ") && outcome.stderr.lines().count() == 1, "{outcome:?}");
        assert_eq!(outcome.stdout.lines().count(), 0, "{outcome:?}");
    }
}

#[test]
fn every_node_answers_calls_of_the_built_in_application() {
    let swarm = Swarm::new();
    let _alpha = swarm.start("alpha", &[]);
    let mut beta = swarm.start("beta", &[]);
    let outcome = swarm.run(&["call", "node", "echo", "\"hi\"", "--node", "beta"]).expect(0);
    assert_eq!(outcome.stdout, "\"hi\"\n");
    let outcome = swarm.run(&["call", "node", "echo", "{\"deep\": [1, null]}", "--node", &beta.peer_id()]).expect(0);
    assert_eq!(outcome.json(), json!({ "deep": [1, null] }));
    let description = swarm.run(&["call", "node", "description", "--node", "beta"]).expect(0).json();
    assert_eq!((&description["name"], &description["swarm"]), (&json!("beta"), &json!(swarm.name)));
}

#[test]
fn arguments_come_from_the_command_line_and_from_stdin() {
    let swarm = Swarm::new();
    let _alpha = swarm.start("alpha", &["--demo-applications", "calculator,journal"]);
    assert_eq!(swarm.run(&["call", "calculator", "add", "-5", "7"]).expect(0).stdout, "2\n");
    let outcome = run(swarm.command(&["call", "calculator", "add", "1", "-"]), "41\n").expect(0);
    assert_eq!(outcome.stdout, "42\n");
    let outcome = run(swarm.command(&["call", "calculator", "add", "1", "-"]), "\u{feff}41\n").expect(0);
    assert_eq!(outcome.stdout, "42\n", "some editors begin a file with a byte order mark");
    swarm.run(&["tell", "journal", "\"a line\""]).expect(0);
    run(swarm.command(&["tell", "journal", "-"]), "\"another\"").expect(0);
    swarm.until(&["call", "journal", "count"], |count| *count == json!(2));
}

#[test]
fn an_unconfirmed_message_is_sent_before_the_command_ends() {
    let swarm = Swarm::new();
    let _alpha = swarm.start("alpha", &["--demo-applications", "journal"]);
    for _ in 0..3 {
        swarm.run(&["tell", "journal", "\"unconfirmed\"", "--cast", "--node", "alpha"]).expect(0);
    }
    swarm.until(&["call", "journal", "count"], |count| *count == json!(3));
}

#[test]
fn a_negative_answer_is_exit_code_1() {
    let swarm = Swarm::new();
    let _alpha = swarm.start("alpha", &["--demo-applications", "calculator"]);
    let cases: [(&[&str], &str); 6] = [
        (&["call", "nonsense", "add"], "nonsense"),
        (&["call", "calculator", "nonsense"], "nonsense"),
        (&["call", "calculator", "add", "\"no number\""], "takes 2 arguments, 1 given"),
        (&["call", "calculator", "div", "1", "0"], "cannot be divided"),
        (&["call", "node", "echo", "1", "--node", "nobody"], "nobody"),
        (&["info", "nobody"], "nobody"),
    ];
    for (arguments, named) in cases {
        let outcome = swarm.run(arguments).expect(1);
        assert!(outcome.stderr.starts_with("error: ") && outcome.stderr.contains(named), "{arguments:?}: {outcome:?}");
        assert_eq!((outcome.stderr.lines().count(), outcome.stdout.as_str()), (1, ""), "{arguments:?}: {outcome:?}");
    }
}

#[test]
fn what_is_not_json_is_named_with_how_to_quote_it() {
    let swarm = Swarm::new();
    let outcome = swarm.run(&["call", "node", "echo", "hi"]).expect(2);
    assert!(outcome.stderr.contains("`hi`") && outcome.stderr.contains("'\"hi\"'"), "{outcome:?}");
    swarm.run(&["tell", "journal", "{"]).expect(2);
    swarm.run(&["call", "node", "echo", "-", "-"]).expect(2);
    swarm.run(&["no-such-verb"]).expect(2);
}

#[test]
fn out_of_time_is_exit_code_124() {
    let swarm = Swarm::new();
    let _alpha = swarm.start("alpha", &["--demo-applications", "clock"]);
    let outcome = swarm.run(&["call", "clock", "sleep", "60000", "--timeout", "700ms"]).expect(124);
    assert!(outcome.stderr.contains("--timeout"), "{outcome:?}");
}

#[test]
fn info_shows_all_of_one_node() {
    let swarm = Swarm::new();
    let mut alpha = swarm.start("alpha", &["--demo-applications", "calculator"]);
    let info = swarm.until(&["info", "alpha"], |info| names(&info["applications"]) == ["calculator", "node"]);
    assert_eq!(info["peer_id"].as_str().unwrap(), alpha.peer_id());
    assert_eq!(info["addresses"], alpha.started()["addresses"]);
    let text = swarm.run(&["info", &alpha.peer_id()]).expect(0).stdout;
    assert!(text.contains("alpha") && text.contains("add, div, where"), "{text}");
}

#[test]
fn ping_measures_round_trips() {
    let swarm = Swarm::new();
    let _alpha = swarm.start("alpha", &[]);
    let outcome = swarm.run(&["ping", "alpha", "--count", "3", "--interval", "1ms"]).expect(0);
    assert_eq!(outcome.stdout.lines().count(), 4, "{outcome:?}");
    assert!(outcome.stdout.contains("3 sent, 3 answered; round trip min "), "{outcome:?}");
    let outcome = swarm.run(&["ping", "alpha", "--count", "2", "--interval", "1ms", "--json"]).expect(0);
    let lines: Vec<serde_json::Value> =
        outcome.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((lines.len(), &lines[2]["event"], &lines[2]["answered"]), (3, &json!("summary"), &json!(2)));
}

#[test]
fn a_node_that_forbids_calls_of_its_application_node_answers_pings() {
    let swarm = Swarm::new();
    let _alpha = swarm.start("alpha", &["--allow", "node=peer.labels.role == 'admin'"]);
    let outcome = swarm.run(&["ping", "alpha", "--count", "1"]).expect(0);
    assert!(outcome.stdout.contains("1 sent, 1 answered"), "{outcome:?}");
    let explained = swarm.run(&["explain", "node"]).expect(0);
    assert!(explained.stderr.contains("whether its rules allow a call"), "{explained:?}");
    swarm.run(&["call", "node", "echo", "1"]).expect(1);
}

#[test]
fn nothing_is_printed_of_a_table_without_rows() {
    let swarm = Swarm::new();
    assert_eq!(swarm.run(&["nodes"]).expect(0).stdout, "");
    assert_eq!(swarm.run(&["apps"]).expect(0).stdout, "");
    let _alpha = swarm.start("alpha", &[]);
    for verb in ["nodes", "apps"] {
        let outcome = swarm.run(&[verb, "--where", "node.name == 'nobody'"]).expect(1);
        assert!(outcome.stdout.is_empty() && outcome.stderr.contains("matches"), "{outcome:?}");
        let json = swarm.run(&[verb, "--where", "node.name == 'nobody'", "--json"]).expect(1);
        assert_eq!(json.json(), json!([]));
    }
}

#[test]
fn completion_is_there_for_every_shell() {
    let swarm = Swarm::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let outcome = swarm.run(&["completion", shell]).expect(0);
        assert!(outcome.stdout.contains("multinodes") && outcome.stdout.contains("events"), "{shell}");
    }
    swarm.run(&["completion", "no-such-shell"]).expect(2);
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let swarm = Swarm::new();
    let _alpha = swarm.start("alpha", &[]);
    for arguments in [&["nodes"][..], &["apps", "--json"], &["call", "node", "ping"], &["completion", "bash"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = swarm.command(arguments).stdout(writer).output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{arguments:?}: {output:?}");
    }
}

#[test]
fn the_environment_and_a_named_file_are_settings_too() {
    let swarm = Swarm::new();
    let mut alpha = swarm.start("alpha", &["--no-rendezvous"]);
    let address = alpha.started()["addresses"][0].as_str().unwrap().to_owned();
    let mut command = swarm.command(&["nodes"]);
    command.env("MULTINODES_JOIN", &address).env("MULTINODES_NO_RENDEZVOUS", "yes").env("MULTINODES_JSON", "1");
    assert_eq!(names(&run(command, "").expect(0).json()), ["alpha"]);
    std::fs::write(swarm.path("other.toml"), format!("join = ['{address}']\nno-rendezvous = true\njson = true"))
        .unwrap();
    assert_eq!(names(&swarm.run(&["nodes", "--config", "other.toml"]).expect(0).json()), ["alpha"]);
    let outcome = swarm.run(&["nodes", "--config", "missing.toml"]).expect(2);
    assert!(outcome.stderr.contains("missing.toml"), "{outcome:?}");
}

/// Some systems, and some keyboards, write an accent as a letter of its own.
#[test]
fn flags_mean_the_same_names_in_either_form() {
    let (composed, decomposed) = ("caf\u{e9}", "cafe\u{301}");
    let swarm = Swarm::new();
    let (exec, slots, label) =
        (format!("{decomposed}=cat"), format!("{composed}=2"), format!("{decomposed}={decomposed}"));
    let mut alpha = swarm.start(decomposed, &["--exec", &exec, "--slots", &slots, "--label", &label]);
    assert_eq!(alpha.started()["name"], composed);
    for name in [composed, decomposed] {
        let condition = format!("node.labels['{name}'] == '{name}'");
        let call = ["call", name, name, "7", "--node", name, "--where", &condition];
        assert_eq!(swarm.run(&call).expect(0).json(), json!([7]));
        swarm.run(&["explain", name, name, "--node", name]).expect(0);
        swarm.run(&["info", name]).expect(0);
        swarm.run(&["ping", name, "--count", "1"]).expect(0);
        swarm.run(&["tell", name, "7", "--node", name]).expect(0);
    }
}
