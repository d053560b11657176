//! Whether every name and every key belongs to one node.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::Path,
    sync::Arc,
};

use multinodes::{
    Event, IdentityError, Multiaddr, NodeInfo, PeerId,
    diagnosis::{self, Answer, FoundNote},
};

use super::report::{Check, Finding};
use crate::cli::feed;

/// More peers than that are not watched for several lives: an event of each may come within a moment.
const MAX_WATCHED: usize = 4096;

const ONE_FILE_EACH: &str =
    "give each node an identity file of its own: stop one of them, remove its copy, start it again";

/// Whether an identity file can be used, or which node uses it.
pub(super) fn file(path: &Path, nodes: &[Arc<NodeInfo>]) -> Finding {
    let subject = path.display().to_string();
    // Reading it as a node does would make it.
    if path.symlink_metadata().is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound) {
        return Finding::ok(Check::Identity, subject, "not there: it is made when a node first uses it");
    }
    match diagnosis::identity(path) {
        Ok(peer_id) => Finding::ok(Check::Identity, subject, format!("the key of `{peer_id}`, in use by nobody")),
        Err(IdentityError::InUse { .. }) => {
            let holder = diagnosis::holder(path);
            if let Some(node) = nodes.iter().find(|node| Some(node.peer_id) == holder) {
                return Finding::ok(
                    Check::Identity,
                    subject,
                    format!("in use by `{}`, a node of this swarm", node.name),
                );
            }
            let remedy = "stop that process before a node is started with this file, or use another file";
            Finding::warning(Check::Identity, subject, "in use by a process that is not in this swarm", remedy)
        }
        Err(error) => {
            let remedy = match &error {
                IdentityError::Empty { .. } => "put its key back from a copy, or remove it to get another peer id",
                _ => REMEDY,
            };
            Finding::failure(Check::Identity, subject, error.to_string(), remedy)
        }
    }
}

const REMEDY: &str = "make it readable for its owner alone (chmod 600), or use another file";

/// Whether any name is held twice.
pub(super) fn names(nodes: &[Arc<NodeInfo>]) -> Vec<Finding> {
    let conflicts = feed::conflicts(nodes.iter().map(|node| &**node));
    if conflicts.is_empty() && !nodes.is_empty() {
        return vec![Finding::ok(Check::Identity, "names", format!("{}, each held by one node", nodes.len()))];
    }
    let finding = |(name, holders): (&str, Vec<PeerId>)| {
        let remedy = "start all but one of them again with another `--name`";
        Finding::failure(Check::Identity, name, feed::conflict_text(name, &holders, 0), remedy)
    };
    conflicts.into_iter().map(finding).collect()
}

/// Peer ids behind which there is more than one process, by what answered and by the notes of this host.
pub(super) fn clashes(answers: &[Answer], nodes: &[Arc<NodeInfo>], notes: &[FoundNote]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (peer_id, first, second) in several(answers) {
        let text = format!("two processes answer with this key: one listens on {first}, the other on {second}");
        findings.push(Finding::failure(Check::Identity, peer_id.to_string(), text, ONE_FILE_EACH));
    }
    for note in notes.iter().filter(|note| note.is_of_this_host && note.is_running == Some(true)) {
        let Some(node) = nodes.iter().find(|node| node.peer_id == note.peer_id) else { continue };
        let told = findings.iter().any(|finding| finding.subject == node.peer_id.to_string());
        if node.incarnation != note.incarnation && !told {
            let text = format!(
                "the swarm knows another life of `{}` than process {} of this host: two may use one key, or it was \
                 restarted just now",
                node.name, note.pid
            );
            findings.push(Finding::warning(Check::Identity, node.peer_id.to_string(), text, ONE_FILE_EACH));
        }
    }
    findings
}

/// Two answers of one peer id which have no address in common are of two processes; one listens on the same addresses
/// whichever of them was dialled.
fn several(answers: &[Answer]) -> Vec<(PeerId, String, String)> {
    let mut processes: BTreeMap<PeerId, Vec<BTreeSet<String>>> = BTreeMap::new();
    for answer in answers.iter().filter(|answer| !answer.listening.is_empty()) {
        processes.entry(answer.peer_id).or_default().push(telling(&answer.listening));
    }
    let mut clashes = Vec::new();
    for (peer_id, sets) in processes {
        let other = sets.iter().find(|set| set.is_disjoint(&sets[0]));
        if let Some((first, second)) = sets[0].first().zip(other.and_then(BTreeSet::first)) {
            clashes.push((peer_id, first.clone(), second.clone()));
        }
    }
    clashes
}

/// Every host has the same loopback addresses: they tell nothing, unless there are no others.
fn telling(listening: &[Multiaddr]) -> BTreeSet<String> {
    let beyond: BTreeSet<_> =
        listening.iter().filter(|address| diagnosis::is_dialable(address, false)).map(ToString::to_string).collect();
    if beyond.is_empty() { listening.iter().map(ToString::to_string).collect() } else { beyond }
}

/// Nodes that have begun several lives while they were watched: each process with the same key steps over the other.
pub(super) fn lives(events: &[Event]) -> Vec<Finding> {
    let seen = events.iter().filter_map(|event| match event {
        Event::Joined(node) | Event::Updated(node) => Some((node.peer_id, node.name.as_str(), node.incarnation)),
        _ => None,
    });
    let finding = |(peer_id, name, count): (PeerId, &str, usize)| {
        let text = format!("`{name}` has begun {count} lives within seconds: several processes use its key");
        Finding::failure(Check::Identity, peer_id.to_string(), text, ONE_FILE_EACH)
    };
    restless(seen).into_iter().map(finding).collect()
}

/// Who has had more than two lives, and how many: a restart is two, and nothing unusual.
fn restless<'a>(seen: impl Iterator<Item = (PeerId, &'a str, u64)>) -> Vec<(PeerId, &'a str, usize)> {
    let mut lives: HashMap<PeerId, (&str, BTreeSet<u64>)> = HashMap::new();
    for (peer_id, name, incarnation) in seen {
        if lives.len() < MAX_WATCHED || lives.contains_key(&peer_id) {
            lives.entry(peer_id).or_insert_with(|| (name, BTreeSet::new())).1.insert(incarnation);
        }
    }
    let counted = lives.into_iter().map(|(peer_id, (name, lives))| (peer_id, name, lives.len()));
    counted.filter(|(.., count)| *count > 2).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn answer(peer_id: PeerId, listening: &[&str]) -> Answer {
        let listening = listening.iter().map(|text| text.parse().unwrap()).collect();
        Answer { peer_id, took: Duration::ZERO, listening }
    }

    #[test]
    fn two_processes_of_one_key_are_told_from_two_addresses_of_one_process() {
        let (one, two) = (PeerId::random(), PeerId::random());
        let same = ["/ip4/127.0.0.1/tcp/1", "/ip4/10.0.0.1/tcp/1"];
        let answers = [answer(one, &same), answer(one, &same), answer(two, &["/ip4/10.0.0.2/tcp/1"])];
        assert!(several(&answers).is_empty());
        let elsewhere = answer(one, &["/ip4/127.0.0.1/tcp/1", "/ip4/10.0.0.3/tcp/1"]);
        let clashes = several(&[answers[0].clone(), answers[1].clone(), elsewhere]);
        assert_eq!(clashes, [(one, "/ip4/10.0.0.1/tcp/1".to_owned(), "/ip4/10.0.0.3/tcp/1".to_owned())]);
    }
    #[test]
    fn a_node_that_is_born_again_and_again_is_told_from_a_restart() {
        let (one, two) = (PeerId::random(), PeerId::random());
        let seen = [(one, "alpha", 1), (two, "beta", 5), (two, "beta", 5), (one, "alpha", 2), (two, "beta", 6)];
        assert!(restless(seen.into_iter()).is_empty());
        let again = seen.into_iter().chain([(one, "alpha", 3)]);
        assert_eq!(restless(again), [(one, "alpha", 3)]);
    }
}
