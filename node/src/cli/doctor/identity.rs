//! Whether every name and every key belongs to one node.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt, stream};
use multinodes::{
    IdentityError, Multiaddr, NodeInfo, PeerId, SharedKey,
    diagnosis::{self, Answer, FoundNote},
};

use super::report::{Check, Finding};
use crate::cli::{
    feed::{self, BUILT_IN},
    session::Session,
};

/// More nodes are not asked for keys that are shared: each has heard what the others have.
const MAX_ASKED: usize = 16;

/// Nodes that are asked at once.
const AT_ONCE: usize = 8;

/// More of such keys are not told: a node may say anything.
const MAX_TOLD: usize = 64;

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
///
/// What is `known` already is not said again.
pub(super) fn clashes(
    answers: &[Answer],
    nodes: &[Arc<NodeInfo>],
    notes: &[FoundNote],
    known: &[Finding],
) -> Vec<Finding> {
    let mut findings: Vec<Finding> = Vec::new();
    let is_known = |peer_id: &PeerId| known.iter().any(|finding| finding.subject == peer_id.to_string());
    for (peer_id, first, second) in several(answers).into_iter().filter(|(peer_id, ..)| !is_known(peer_id)) {
        let text = format!("two processes answer with this key: one listens on {first}, the other on {second}");
        findings.push(Finding::failure(Check::Identity, peer_id.to_string(), text, ONE_FILE_EACH));
    }
    for note in notes.iter().filter(|note| note.is_of_this_host && note.is_running == Some(true)) {
        let Some(node) = nodes.iter().find(|node| node.peer_id == note.peer_id) else { continue };
        let told =
            is_known(&node.peer_id) || findings.iter().any(|finding| finding.subject == node.peer_id.to_string());
        // The other way round it was started again, and the swarm is about to hear of it.
        if node.incarnation > note.incarnation && !told {
            let text = format!(
                "the swarm knows a later life of `{}` than process {} of this host: two processes use its key",
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

/// Keys that several processes use, as the nodes have seen, which remember it: they step over each other all the time.
pub(super) async fn shared(session: &Session, nodes: &[Arc<NodeInfo>], limit: Duration) -> Vec<Finding> {
    let asked = nodes.iter().take(MAX_ASKED).map(|node| async move {
        let target = session.node.app(BUILT_IN).on(node.peer_id.to_string()).timeout(limit);
        // Those that do not say have not seen it, or are older.
        target.call::<Vec<SharedKey>>("shared_keys", ()).await.unwrap_or_default()
    });
    let mut shared: Vec<_> = stream::iter(asked).buffered(AT_ONCE).concat().await;
    shared.extend(session.node.shared_keys());
    judge_shared(shared)
}

fn judge_shared(shared: Vec<SharedKey>) -> Vec<Finding> {
    let shared: BTreeMap<String, String> = shared.into_iter().map(|key| (key.peer_id, key.name)).collect();
    let finding = |(peer_id, name): (String, String)| {
        let text =
            format!("several processes use the key of `{name}`: they take turns, as nodes of this swarm have seen");
        Finding::failure(Check::Identity, peer_id, text, ONE_FILE_EACH)
    };
    shared.into_iter().take(MAX_TOLD).map(finding).collect()
}

#[cfg(test)]
mod tests {
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
}
