//! `--where` and `--label`, with real processes.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{Process, Swarm, names, run};
use serde_json::json;

/// Two nodes with calculators, in different regions, that everybody can see.
fn two_regions(swarm: &Swarm) -> [Process; 2] {
    let start = |name: &str, region: &str, gpus: &str| {
        let labels = [format!("region={region}"), format!("gpus={gpus}")];
        swarm.start(name, &["--demo-applications", "calculator,journal", "--label", &labels[0], "--label", &labels[1]])
    };
    let nodes = [start("alpha", "eu", "1"), start("beta", "us", "2")];
    swarm.until(&["apps"], |apps| {
        let calculator = apps.as_array().into_iter().flatten().find(|app| app["name"] == "calculator");
        calculator.is_some_and(|app| app["hosts"].as_array().unwrap().len() == 2)
    });
    nodes
}

#[test]
fn labels_are_shown_and_choose_nodes() {
    let swarm = Swarm::new();
    let _nodes = two_regions(&swarm);
    let nodes = swarm.run(&["nodes", "--json", "--where", "node.labels.region == 'us'"]).expect(0).json();
    assert_eq!(names(&nodes), ["beta"]);
    assert_eq!(nodes[0]["labels"], json!({"region": "us", "gpus": "2"}));
    let nodes = swarm.run(&["nodes", "--json", "--where", "int(node.labels.gpus) >= 1"]).expect(0).json();
    assert_eq!(names(&nodes), ["alpha", "beta"]);
    let table = swarm.run(&["nodes"]).expect(0).stdout;
    assert!(table.contains("LABELS") && table.contains("gpus=1, region=eu"), "{table}");
    let info = swarm.run(&["info", "alpha"]).expect(0).stdout;
    assert!(info.contains("region=eu"), "{info}");

    let none = swarm.run(&["nodes", "--json", "--where", "node.labels.region == 'mars'"]).expect(1);
    assert_eq!(none.json(), json!([]));
    assert!(none.stderr.contains("none of the 2 nodes matches"), "{none:?}");
}

#[test]
fn nodes_without_labels_have_no_column_for_them() {
    let swarm = Swarm::new();
    let _alpha = swarm.start("alpha", &[]);
    swarm.until(&["nodes"], |nodes| names(nodes) == ["alpha"]);
    let table = swarm.run(&["nodes"]).expect(0).stdout;
    assert!(!table.contains("LABELS"), "{table}");
}

#[test]
fn applications_are_listed_and_called_where_the_condition_holds() {
    let swarm = Swarm::new();
    let _nodes = two_regions(&swarm);
    let condition = "node.labels.region == 'us' && app.name == 'calculator'";
    let apps = swarm.run(&["apps", "--json", "--where", condition]).expect(0).json();
    assert_eq!(names(&apps), ["calculator"]);
    assert_eq!(apps[0]["hosts"].as_array().unwrap().len(), 1);
    assert_eq!(apps[0]["hosts"][0]["node"], "beta");
    let none = swarm.run(&["apps", "--json", "--where", "app.slots == 12345"]).expect(1);
    assert_eq!(none.json(), json!([]));

    for _ in 0..3 {
        let sum = swarm.run(&["call", "calculator", "add", "1", "2", "--where", condition]).expect(0);
        assert_eq!(sum.stdout.trim(), "3");
    }
    swarm.run(&["tell", "journal", "\"a line\"", "--where", "node.name == 'beta'"]).expect(0);
    let here = ["call", "calculator", "add", "1", "2", "--node", "alpha", "--where"];
    swarm.run(&[&here[..], &["node.labels.region == 'eu'"]].concat()).expect(0);
    let other = swarm.run(&[&here[..], &["node.labels.region == 'us'"]].concat()).expect(1);
    assert!(other.stderr.contains("none of the 1 hosts of `calculator` matches"), "{other:?}");
}

#[test]
fn a_map_runs_only_where_the_condition_holds() {
    let swarm = Swarm::new();
    let _nodes = two_regions(&swarm);
    let map = ["map", "calculator", "add", "--spread", "--where", "int(node.labels.gpus) == 2"];
    let outcome = run(swarm.command(&map), "[1, 2]\n[3, 4]\n[5, 6]\n").expect(0);
    let nodes: Vec<_> = outcome.stdout.lines().map(|line| line.contains("\"node\":\"beta\"")).collect();
    assert_eq!(nodes, [true; 3], "{outcome:?}");
}

#[test]
fn no_host_that_matches_is_a_negative_answer() {
    let swarm = Swarm::new();
    let _nodes = two_regions(&swarm);
    for verb in [&["call", "calculator", "add", "1", "2"][..], &["tell", "journal", "1"]] {
        let none = swarm.run(&[verb, &["--where", "description.gpu >= 1"]].concat()).expect(1);
        assert!(none.stderr.contains("none of the 2 hosts of `"), "{none:?}");
    }
}

#[test]
fn a_wrong_condition_is_shown_with_a_caret_before_anything_is_begun() {
    let swarm = Swarm::new();
    let verbs = [
        &["nodes"][..],
        &["apps"],
        &["map", "calculator", "add"],
        &["call", "calculator", "add", "1", "2"],
        &["tell", "journal", "1"],
    ];
    for verb in verbs {
        let wrong = swarm.run(&[verb, &["--where", "true && nod.name == 'alpha'"]].concat()).expect(2);
        assert_eq!(wrong.stdout, "");
        let lines: Vec<_> = wrong.stderr.lines().collect();
        assert!(lines[0].contains("line 1, column 9: there is no variable `nod`"), "{wrong:?}");
        assert_eq!(lines[1..], ["  true && nod.name == 'alpha'", "          ^"], "{wrong:?}");
    }
    let wrong = swarm.run(&["nodes", "--where", "description.gpu > 1"]).expect(2);
    assert!(wrong.stderr.contains("known only where an application is asked for"), "{wrong:?}");
    let wrong = swarm.run(&["nodes", "--where", "node.name =="]).expect(2);
    assert!(wrong.stderr.contains("column 13"), "{wrong:?}");
}

#[test]
fn labels_come_from_the_environment_and_the_file_too() {
    let swarm = Swarm::new();
    let labels = |name: &str| {
        let nodes = swarm.until(&["nodes"], |nodes| names(nodes).contains(&name));
        nodes.as_array().unwrap().iter().find(|node| node["name"] == name).unwrap()["labels"].clone()
    };
    let start = ["start", "--json", "--until-stdin-closes", "--listen", "/ip4/127.0.0.1/tcp/0", "--name"];
    let mut command = swarm.command(&[&start[..], &["alpha"]].concat());
    command.env("MULTINODES_LABEL", "region=eu,gpus=2");
    let mut alpha = Process::spawn("alpha", command);
    alpha.started();
    assert_eq!(labels("alpha"), json!({"region": "eu", "gpus": "2"}));

    std::fs::write(swarm.path("labels.toml"), "[start]\nlabels = { note = \"a, b\" }").unwrap();
    let file = swarm.path("labels.toml");
    let mut beta = swarm.launch("beta", &["--config", file.to_str().unwrap()]);
    beta.started();
    assert_eq!(labels("beta"), json!({"note": "a, b"}));
    let mut gamma = swarm.launch("gamma", &["--config", file.to_str().unwrap(), "--label", "region=us"]);
    gamma.started();
    assert_eq!(labels("gamma"), json!({"region": "us"}), "a flag wins over the file");
}

#[test]
fn wrong_labels_are_refused_at_the_start() {
    let swarm = Swarm::new();
    for (label, reason) in
        [("region", "`region` is no label"), ("a b=c", "`a b` cannot be a label"), ("=x", "cannot be a label")]
    {
        let refused = run(swarm.command(&["start", "--label", label]), "").expect(2);
        assert!(refused.stderr.contains(reason), "{refused:?}");
    }
    let refused = run(swarm.command(&["start", "--label", "a=1", "--label", "a=2"]), "").expect(2);
    assert!(refused.stderr.contains("`a` is given twice"), "{refused:?}");
}

#[test]
fn all_hosts_are_called_and_told_and_each_is_a_line() {
    let swarm = Swarm::new();
    let _nodes = two_regions(&swarm);
    let lines = |arguments: &[&str], code| {
        let outcome = swarm.run(arguments).expect(code);
        let mut lines: Vec<serde_json::Value> =
            outcome.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        lines.sort_by_key(|line| line["node"].as_str().unwrap().to_owned());
        lines
    };
    let sums = lines(&["call", "calculator", "add", "1", "2", "--all"], 0);
    assert_eq!(sums.len(), 2, "{sums:?}");
    assert!(sums.iter().all(|line| line["result"] == 3 && line["ms"].is_number() && line["peer_id"].is_string()));
    assert_eq!((&sums[0]["node"], &sums[1]["node"]), (&json!("alpha"), &json!("beta")));
    let eu = lines(&["call", "calculator", "add", "1", "2", "--all", "--where", "node.labels.region == 'eu'"], 0);
    assert_eq!((eu.len(), &eu[0]["node"]), (1, &json!("alpha")));
    let told = lines(&["tell", "journal", "\"a line\"", "--all"], 0);
    assert_eq!(told.iter().map(|line| &line["accepted"]).collect::<Vec<_>>(), [true, true]);
    let failed = lines(&["call", "calculator", "div", "1", "0", "--all"], 1);
    assert!(failed.len() == 2 && failed.iter().all(|line| line["error"]["code"] == "failed"), "{failed:?}");
    let none = swarm.run(&["call", "unknown", "add", "1", "2", "--all"]).expect(1);
    assert!(none.stdout.is_empty() && none.stderr.contains("no application `unknown`"), "{none:?}");
}
