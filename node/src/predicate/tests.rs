use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use libp2p::PeerId;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::description::{
    Host,
    tests::{host, node},
};

fn info(description: Value) -> NodeInfo {
    let node = node("alpha", description);
    let mut node = NodeInfo { load: 3, software: "0.1.0".into(), ..NodeInfo::clone(&node) };
    node.labels = BTreeMap::from([("region".into(), "eu".into()), ("gpus".into(), "2".into())]);
    let application = Arc::make_mut(&mut node.applications[0]);
    (application.slots, application.actions) = (Some(4), vec!["add".into(), "div".into()]);
    node
}

fn takes(text: &str, description: Value) -> bool {
    let node = info(description);
    Predicate::new(text).unwrap_or_else(|error| panic!("{text}: {error}")).takes(&node, &node.applications[0])
}

fn fault(text: &str) -> (PredicateFault, usize, usize) {
    let error = Predicate::new(text).err().unwrap_or_else(|| panic!("{text} is accepted"));
    (error.fault().clone(), error.line(), error.column())
}

#[test]
fn everything_that_is_promised_can_be_asked() {
    let description = json!({"gpu": 2, "big": u64::MAX, "share": 0.5, "tags": ["a", "b"], "on": true, "none": null});
    let true_ones = [
        "description.gpu >= 1 && node.labels.region == 'eu'",
        "node.name == 'alpha' && node.name.startsWith('al') && node.name.endsWith('ha') && node.name.contains('lph')",
        "node.peer_id.size() > 10 && node.version == '0.1.0'",
        "int(node.labels.gpus) >= 2",
        "node.labels['region'] in ['eu', 'us'] && has(node.labels.region) && !has(node.labels.zone)",
        "node.load == 3 && app.load < 4",
        "app.name == 'test' && app.version == null && app.slots == 4 && 'add' in app.actions",
        "description.gpu + 1 == 3 && description.gpu * 2 > 3 && description['gpu'] % 2 == 0",
        "description.big > 5 && description.share == 0.5 && description.none == null",
        "description.tags.exists(tag, tag == 'b') && description.tags.all(tag, size(tag) == 1)",
        "description.tags.map(tag, tag + '!') == ['a!', 'b!'] && description.tags.filter(tag, tag > 'a') == ['b']",
        "description.tags.exists_one(tag, tag == 'a') && description.tags[0] == 'a'",
        "description.on",
        "has(description.gpu) ? description.gpu == 2 : false",
        "type(description.gpu) == int && type(description) == map",
        "true || description.missing == 1",
        "description.tags.all(node, node != 'c')",
        "'gpu' in description && description == {'gpu': 2, 'big': 18446744073709551615u, 'share': 0.5, 'tags': ['a', 'b'], 'on': true, 'none': null}",
        "description\n  .gpu == 2",
    ];
    for text in true_ones {
        assert!(takes(text, description.clone()), "{text}");
    }
}

#[test]
fn what_a_host_lacks_or_has_otherwise_makes_it_not_match() {
    for text in [
        "description.gpu >= 1",
        "!(description.gpu >= 1)",
        "description.gpu.model == 'x'",
        "description.missing",
        "description.missing == description.missing",
        "node.labels.zone == 'x'",
        "node.labels.zone != 'x'",
        "int(node.labels.region) > 1",
        "description.gpu",
        "description.list[7] == 1",
        "1 / 0 == 1",
        "9223372036854775807 + 1 > 0",
        "description.gpu.exists(x, x == 1)",
        "description.gpu ? true : true",
    ] {
        assert!(!takes(text, json!({"gpu": "a text", "list": []})), "{text}");
        assert!(!takes(text, Value::Null), "{text}");
    }
}

#[test]
fn a_wrong_predicate_is_refused_with_its_position() {
    use PredicateFault as F;
    let known = "only `node`, `app` and `description`";
    let unknown = |name: &str| F::UnknownVariable { name: name.into(), known };
    assert_eq!(fault("nod.name == 'a'"), (unknown("nod"), 1, 1));
    assert_eq!(fault("true &&\n  nod.name == 'a'"), (unknown("nod"), 2, 3));
    assert_eq!(fault("'größer ü' == node.name && x"), (unknown("x"), 1, 29));
    assert_eq!(fault("[1].all(x, x == y)"), (unknown("y"), 1, 17));
    assert_eq!(fault("[1].all(x, true) && x"), (unknown("x"), 1, 21));
    assert_eq!(fault("optional.of(1) == 1").0, unknown("optional"));
    assert!(matches!(fault("node.nmae == 'a'"), (F::UnknownField { field, .. }, 1, 5) if field == "nmae"));
    assert!(matches!(fault("node['nmae'] == 'a'"), (F::UnknownField { field, .. }, 1, 6) if field == "nmae"));
    assert!(matches!(fault("has(app.x)").0, F::UnknownField { .. }));
    assert!(
        matches!(fault("node.name.matches('a')").0, F::UnknownFunction { name, method: true, count: 1 } if name == "matches")
    );
    assert!(matches!(fault("now() > 1"), (F::UnknownFunction { count: 0, .. }, 1, _)));
    assert!(matches!(fault("size() > 1").0, F::UnknownFunction { .. }));
    assert!(matches!(fault("description.tags.all(x)").0, F::UnknownFunction { .. }));
    assert!(matches!(fault("node.name =="), (F::Syntax(_), 1, 13)));
    assert!(matches!(fault(""), (F::Syntax(_), 1, 1)));
    assert!(matches!(fault("node.name == 'a"), (F::Syntax(_), 1, _)));
    assert!(matches!(fault("a.?b").0, F::Syntax(_)));
    assert!(matches!(fault("Foo{a: 1} == 1").0, F::Unsupported(_)));
    assert!(matches!(fault(&"true || ".repeat(300)).0, F::TooLong { size: 2400 }));
    assert_eq!(fault(&"(".repeat(70)), (F::TooManyBrackets, 1, 65));
    assert!(matches!(fault(&format!("{}1 == 1", "1+".repeat(200))).0, F::TooDeep));
}

#[test]
fn what_never_is_true_or_false_is_refused() {
    for text in [
        "1 + 1",
        "'text'",
        "node",
        "node.name",
        "app.actions",
        "[true]",
        "{'a': true}",
        "true && 1",
        "!size('a')",
        "true ? 1 : 2",
        "-1",
        "string(true)",
        "[1].map(x, true)",
        "node.labels.size()",
        "int",
    ] {
        assert_eq!(fault(text).0, PredicateFault::NotBoolean, "{text}");
    }
}

#[test]
fn a_predicate_on_nodes_knows_no_application() {
    let error = Predicate::of_node("node.load < 3 && description.gpu > 1").unwrap_err();
    assert_eq!(error.fault(), &PredicateFault::NoApplication { name: "description".into() });
    assert_eq!(error.column(), 18);
    assert!(Predicate::of_node("app.name == 'a'").is_err());
    let node = info(Value::Null);
    assert!(Predicate::of_node("node.labels.region == 'eu'").unwrap().takes_node(&node));
    assert!(!Predicate::new("description == null").unwrap().takes_node(&node), "there is none");
}

#[test]
fn the_picture_points_at_the_place() {
    let error = Predicate::new("true &&\n\tnod.name == 'a'").unwrap_err();
    assert_eq!(error.picture(), " nod.name == 'a'\n ^");
    let text = format!("'{}' == nod.name", "x".repeat(500));
    let picture = Predicate::new(&text).unwrap_err().picture();
    let (line, caret) = picture.split_once('\n').unwrap();
    assert!(line.len() <= 120 && line[caret.len() - 1..].starts_with("nod.name"), "{picture}");
    let text = Predicate::new("nod == 1").unwrap_err().to_string();
    assert_eq!(
        text,
        "the predicate is wrong at line 1, column 1: there is no variable `nod`, only `node`, `app` and `description`"
    );
}

#[test]
fn only_what_looks_at_the_load_is_found_out_anew() {
    for (text, looks) in [
        ("node.load < 3", true),
        ("app.load < 3", true),
        ("node['load'] < 3", true),
        ("has(node.load)", true),
        ("node == app", true),
        ("size(node) == 5", true),
        ("[node].exists(n, n.load > 1)", true),
        ("node[description.key] == 1", true),
        ("description.load < 3", false),
        ("node.labels.load == '1'", false),
        ("node.name == 'load'", false),
    ] {
        assert_eq!(Predicate::new(text).unwrap().looks_at_load(), looks, "{text}");
    }
}

#[test]
fn a_verdict_is_kept_until_the_record_changes() {
    fn versioned(peer_id: PeerId, revision: u64, description: Value) -> Arc<Host> {
        let mut node = NodeInfo::clone(&node("alpha", description));
        (node.peer_id, node.revision) = (peer_id, revision);
        let node = Arc::new(node);
        Arc::new(Host::new(&node, &node.applications[0]))
    }
    let matching = matching::Matching::new("test", vec![Predicate::new("description.gpu == 1").unwrap()]);
    let fitting = |hosts: &[Arc<Host>]| matching.select(&hosts.into()).unwrap().len();
    let (one, other) = (PeerId::random(), PeerId::random());
    let first = [versioned(one, 1, json!({"gpu": 1})), versioned(other, 1, json!({"gpu": 0}))];
    assert_eq!(fitting(&first), 1);
    // No record changes without its revision: this proves that the verdict is the kept one.
    assert_eq!(fitting(&[versioned(one, 1, json!({"gpu": 0}))]), 1);
    assert_eq!(fitting(&[versioned(one, 2, json!({"gpu": 0}))]), 0);
    assert_eq!(fitting(&[versioned(one, 3, json!({"gpu": 1})), versioned(other, 2, json!({"gpu": 1}))]), 2);
    assert_eq!(fitting(&[]), 0);
    assert_eq!(fitting(&[versioned(one, 3, json!({"gpu": 0}))]), 0, "who is gone is forgotten");

    let loaded = matching::Matching::new("test", vec![Predicate::new("node.load < 1").unwrap()]);
    assert!(loaded.select(&first[..].into()).is_none(), "loads change without a revision");
    assert!(loaded.takes(&first[0]));
    let both = matching.and(Predicate::new("node.name == 'beta'").unwrap());
    assert!(!both.takes(&first[0]) && matching.takes(&first[0]));
}

#[test]
fn a_large_list_can_be_searched_and_a_hostile_one_stops_the_work() {
    let tags: Vec<String> = (0..2000).map(|number| format!("tag-{number}")).collect();
    assert!(takes("description.tags.exists(tag, tag == 'tag-1999')", json!({"tags": tags})));
    assert!(takes("'tag-1999' in description.tags", json!({"tags": tags})));
    let numbers: Vec<u32> = (0..45_000).map(|number| number % 24).collect();
    let hostile = json!({"l": numbers, "s": "x".repeat(45_000)});
    for text in [
        "description.l.all(x, description.l.all(y, x + y >= 0))",
        "description.l.all(x, description.l.all(y, description.l.all(z, true)))",
        "description.l.all(x, x == 99 || description.l.exists(y, y == 99))",
        "description.l.map(x, description).size() > 0",
        "description.l.map(x, description.s).map(x, x + x).size() > 0",
        "description.l.exists_one(x, description == description)",
        "description.l.filter(x, description.s.contains('y')).size() == 0",
        "description.l.exists(x, {x: description.l} == {x: description.l})",
        "[1, 2, 3, 4, 5, 6, 7, 8].all(x, description.l in [description.l, description.l])",
        "description.l.map(x, description.l.map(y, x)).size() > 1",
    ] {
        let begin = Instant::now();
        assert!(!takes(text, hostile.clone()), "{text}");
        assert!(begin.elapsed() < Duration::from_secs(2), "{text}: {:?}", begin.elapsed());
    }
}

#[test]
fn doubling_again_and_again_is_stopped() {
    let mut text = "[1, 2]".to_owned();
    for _ in 0..16 {
        text = format!("({text}).map(x, [x, x])");
    }
    assert!(!takes(&format!("size({text}) > 0"), Value::Null));
    let lists = "[1,1,1,1,1,1,1,1,1,1]";
    let nested: String = (0..7).map(|depth| format!("{lists}.all(v{depth}, ")).collect();
    assert!(!takes(&format!("{nested}true{}", ")".repeat(7)), Value::Null), "ten million turns");
}

/// The deepest texts that are accepted are evaluated on a stack that is much smaller than that of any thread.
#[test]
fn the_deepest_predicates_need_little_stack() {
    let deepest = |make: &dyn Fn(usize) -> String| {
        let accepted = (1..60).map(make).take_while(|text| Predicate::new(text).is_ok());
        accepted.last().unwrap_or_default()
    };
    let deepest_here = |before: &str, inner: &str, after: &str| {
        let text = |depth: usize| format!("{}{inner}{}", before.repeat(depth), after.repeat(depth));
        let here = |text: &String| Predicate::new(text).unwrap().compiled.depth <= MAX_DEPTH_HERE;
        (1..20).map(text).take_while(here).last().unwrap_or_default()
    };
    let mut nested_value = json!(1);
    for _ in 0..120 {
        nested_value = json!([nested_value]);
    }
    let texts = [
        deepest(&|depth| format!("{}true{}", "!(".repeat(depth), ")".repeat(depth))),
        deepest(&|depth| format!("{}1 == 1", "1 + ".repeat(depth))),
        deepest(&|depth| format!("{}[1]{} == [1]", "[1].map(x, ".repeat(depth), ")".repeat(depth))),
        deepest(&|depth| format!("{}true{}", "[1].all(x, ".repeat(depth), ")".repeat(depth))),
        deepest(&|depth| format!("{}true", "true ? true : ".repeat(depth))),
        deepest(&|depth| format!("{}1{} == 1", "int(".repeat(depth), ")".repeat(depth))),
        deepest(&|depth| format!("description{} == 1", ".a".repeat(depth))),
        deepest_here("[1].all(x, ", "true", ")"),
        deepest_here("!(", "true", ")"),
        deepest_here("1 + ", "1 == 1", ""),
        "description == description && (description in [description])".to_owned(),
    ];
    for text in texts {
        assert!(text.len() > 15, "{text}");
        let predicate = Predicate::new(&text).unwrap();
        let node = info(nested_value.clone());
        let small = std::thread::Builder::new().stack_size(640 * 1024);
        small.spawn(move || predicate.takes(&node, &node.applications[0])).unwrap().join().unwrap();
    }
}

/// Pieces of expressions: put together at random they get much further than random text.
const PIECES: &[&str] = &[
    "node",
    "app",
    "description",
    ".name",
    ".labels",
    ".load",
    ".tags",
    ".gpu",
    "['a']",
    "[0]",
    " == ",
    " != ",
    " < ",
    " >= ",
    " + ",
    " - ",
    " * ",
    " / ",
    " % ",
    " && ",
    " || ",
    " in ",
    "!",
    "-",
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    ",",
    ":",
    " ? ",
    " : ",
    "1",
    "0",
    "9223372036854775807",
    "1u",
    "1.5",
    "1e400",
    "0x",
    "'a'",
    "\"b\"",
    "'''c'''",
    "r'\\d'",
    "b'\\xff'",
    "'\\u0",
    "'",
    "true",
    "false",
    "null",
    "has(",
    "size(",
    "int(",
    "string(",
    "type(",
    ".all(x, ",
    ".exists(x, ",
    ".map(x, ",
    ".filter(y, ",
    ".exists_one(x, ",
    ".contains(",
    ".startsWith(",
    "x",
    "y",
    ".",
    "..",
    "`a`",
    "//",
    "\n",
    "\t",
    "\u{0}",
    "ü",
    "😀",
    "@result",
    "__",
    "Foo{",
    ".?",
    "[?",
    "\\",
];

fn never_breaks(text: &str, description: &Value) {
    let begin = Instant::now();
    match Predicate::new(text) {
        Ok(predicate) => {
            let node = info(description.clone());
            let _ = predicate.takes(&node, &node.applications[0]);
        }
        Err(error) => {
            assert!(!error.to_string().contains("broke"), "{text:?}: {error}");
            assert!(error.line() >= 1 && error.column() >= 1, "{text:?}: {error}");
            let _ = error.picture();
        }
    }
    assert!(begin.elapsed() < Duration::from_secs(5), "{text:?}: {:?}", begin.elapsed());
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map(
                prop_oneof![Just("tags".to_owned()), Just("gpu".to_owned()), ".{0,4}"],
                inner,
                0..6
            )
            .prop_map(|entries| Value::Object(entries.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn no_text_whatsoever_breaks_it(text in "\\PC{0,120}", description in any_json()) {
        never_breaks(&text, &description);
    }

    #[test]
    fn no_heap_of_pieces_breaks_it(pieces in prop::collection::vec(prop::sample::select(PIECES), 0..40), description in any_json()) {
        never_breaks(&pieces.concat(), &description);
    }

    #[test]
    fn no_change_of_a_valid_text_breaks_it(
        which in 0..4_usize,
        edits in prop::collection::vec((any::<prop::sample::Index>(), prop::sample::select(PIECES), 0..3_usize), 1..4),
        description in any_json(),
    ) {
        let mut letters: Vec<char> = [
            "description.gpu >= 1 && node.labels.region == 'eu' || app.slots > 3",
            "description.tags.exists(x, x == 'a') && has(description.gpu) ? node.load < 3 : !(app.name in ['a', \"b\"])",
            "description.tags.map(x, x + x).filter(y, size(y) > 1).all(x, type(x) == int)",
            "{'a': [1, 2u, 3.0], 'b': description}['a'].exists_one(x, int(node.labels['gpus']) - 1 == x)",
        ][which].chars().collect();
        for (at, piece, cut) in edits {
            let at = at.index(letters.len().max(1)).min(letters.len());
            let end = (at + cut).min(letters.len());
            letters.splice(at..end, piece.chars());
        }
        never_breaks(&letters.into_iter().collect::<String>(), &description);
    }
}

#[test]
fn no_repetition_of_a_piece_breaks_it() {
    for piece in PIECES {
        for count in [60, 63, 64, 200, 2000] {
            let text = piece.repeat(count);
            if text.len() <= MAX_PREDICATE {
                never_breaks(&text, &Value::Null);
                never_breaks(&format!(">{text}"), &Value::Null);
                never_breaks(&format!("true && {text}"), &Value::Null);
            }
        }
    }
}

#[test]
fn hosts_are_looked_at_like_nodes() {
    let host = host("alpha", json!({"gpu": 1}));
    let matching =
        matching::Matching::new("test", vec![Predicate::new("app.name == 'test' && description.gpu == 1").unwrap()]);
    assert!(matching.takes(&host));
}
