//! Whether all nodes run the same software.

use std::{collections::BTreeMap, sync::Arc};

use multinodes::NodeInfo;

use super::report::{Check, Finding};

/// The most names that are listed for one version.
const SHOWN: usize = 16;

/// Whether this program and all nodes have one version.
pub(super) fn findings(nodes: &[Arc<NodeInfo>]) -> Option<Finding> {
    let held = nodes.iter().map(|node| (node.software.as_str(), node.name.as_str()));
    judge(held, env!("CARGO_PKG_VERSION"))
}

fn judge<'a>(nodes: impl Iterator<Item = (&'a str, &'a str)>, own: &'a str) -> Option<Finding> {
    let mut holders: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (version, name) in nodes {
        holders.entry(version).or_default().push(name);
    }
    if holders.is_empty() {
        return None;
    }
    if holders.len() == 1 && holders.contains_key(own) {
        return Some(Finding::ok(Check::Version, "software", format!("{own} everywhere, as this command")));
    }
    let shown = |(version, names): (&&str, &Vec<&str>)| {
        let more = if names.len() > SHOWN { format!(" and {} more", names.len() - SHOWN) } else { String::new() };
        format!("{version} on {}{more}", names[..names.len().min(SHOWN)].join(", "))
    };
    let who: Vec<_> = holders.iter().map(shown).collect();
    let text = format!("versions differ: {}; this command is {own}", who.join("; "));
    Some(Finding::warning(Check::Version, "software", text, "bring all hosts to one version"))
}

#[cfg(test)]
mod tests {
    use super::{super::report::Verdict, *};

    #[test]
    fn versions_that_differ_are_named_with_their_holders() {
        let nodes = [("0.1.0", "alpha"), ("0.2.0", "beta"), ("0.1.0", "gamma")];
        let finding = judge(nodes.into_iter(), "0.1.0").unwrap();
        assert_eq!(finding.verdict, Verdict::Warning);
        assert_eq!(finding.text, "versions differ: 0.1.0 on alpha, gamma; 0.2.0 on beta; this command is 0.1.0");
        assert_eq!(judge([("0.1.0", "alpha")].into_iter(), "0.2.0").unwrap().verdict, Verdict::Warning);
    }

    #[test]
    fn one_version_is_fine_and_no_node_is_no_finding() {
        assert_eq!(judge([("1", "alpha"), ("1", "beta")].into_iter(), "1").unwrap().verdict, Verdict::Ok);
        assert_eq!(judge([].into_iter(), "1"), None);
    }
}
