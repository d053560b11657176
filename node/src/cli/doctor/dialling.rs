//! Dials every known address of every peer by itself, and says of each whether it works.

use std::{collections::HashSet, path::Path, sync::Arc, time::Duration};

use futures::{StreamExt, stream};
use libp2p::multiaddr::Protocol;
use multinodes::{
    Multiaddr, NodeInfo, PeerId,
    diagnosis::{Answer, Diagnosis, FoundNote, NoAnswer, Place, ReachError},
    quoted_path,
};

use super::report::{Check, Finding};
use crate::cli::descriptors;

/// More addresses are not dialled: with all of them silent, it takes as many limits as this has times those at once.
const MAX_DIALS: usize = 256;

/// Dials at once: half of what a node has under way at the most, for all of them may go to one.
const AT_ONCE: usize = 32;

/// A text to join through, and the places that it stands for.
pub(super) type Joins = [(String, Result<Vec<Place>, String>)];

/// What is said to be somewhere, with all its places.
#[derive(Debug, Clone)]
pub(super) struct Target {
    kind: Kind,
    /// What people call it.
    label: String,
    places: Vec<Place>,
}

/// By whom it is said.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    /// It is a node of the swarm, by its own record.
    Member,
    /// Only a note in the rendezvous folder says so.
    Noted { pid: u32, is_gone: bool },
    /// Only its answers by multicast say so; it may be a stranger.
    Overheard,
    /// The user said so.
    Join,
}

/// What came of a target, place by place.
type Tried = (Target, Vec<Result<Answer, ReachError>>);

/// The lines, and who answered.
pub(super) struct Dialled {
    pub(super) findings: Vec<Finding>,
    pub(super) answers: Vec<Answer>,
}

/// All that is to be dialled, at most [`MAX_DIALS`] places, and how many places are left out.
pub(super) fn targets(
    nodes: &[Arc<NodeInfo>],
    notes: &[FoundNote],
    overheard: &[(PeerId, Multiaddr)],
    joins: &Joins,
) -> (Vec<Target>, usize) {
    let place = |peer_id: PeerId, address: &Multiaddr| Place { address: address.clone(), peer_id: Some(peer_id) };
    let noted = |peer_id: PeerId| notes.iter().filter(move |note| note.peer_id == peer_id && note.is_of_this_host);
    let heard = |peer_id: PeerId| overheard.iter().filter(move |(found, _)| *found == peer_id);
    let mut targets = Vec::new();
    for (text, places) in joins {
        let places = places.clone().unwrap_or_default();
        targets.push(Target { kind: Kind::Join, label: text.clone(), places });
    }
    for node in nodes {
        let addresses = node.addresses.iter();
        let addresses = addresses.chain(noted(node.peer_id).flat_map(|note| &note.addresses));
        let addresses = addresses.chain(heard(node.peer_id).map(|(_, address)| address));
        let places = as_nodes_do(addresses.map(|address| place(node.peer_id, address)).collect());
        targets.push(Target { kind: Kind::Member, label: node.name.clone(), places });
    }
    let mut known: HashSet<PeerId> = nodes.iter().map(|node| node.peer_id).collect();
    for note in notes.iter().filter(|note| note.is_of_this_host && known.insert(note.peer_id)) {
        let kind = Kind::Noted { pid: note.pid, is_gone: note.is_running == Some(false) };
        let places = note.addresses.iter().map(|address| place(note.peer_id, address)).collect();
        targets.push(Target { kind, label: note.path.display().to_string(), places });
    }
    for (peer_id, _) in overheard {
        if known.insert(*peer_id) {
            let places = as_nodes_do(heard(*peer_id).map(|(_, address)| place(*peer_id, address)).collect());
            targets.push(Target { kind: Kind::Overheard, label: peer_id.to_string(), places });
        }
    }
    let left_out = bound(&mut targets);
    (targets, left_out)
}

/// Nodes dial an address with a zone only if there is no other one, or none that works.
fn as_nodes_do(mut places: Vec<Place>) -> Vec<Place> {
    let has_zone = |place: &Place| matches!(place.address.iter().next(), Some(Protocol::Ip6zone(_)));
    if !places.iter().all(has_zone) {
        places.retain(|place| !has_zone(place));
    }
    places
}

/// Leaves each place of a target once, and no more than may be dialled.
fn bound(targets: &mut [Target]) -> usize {
    let mut room = MAX_DIALS;
    let mut left_out = 0;
    for target in targets {
        let mut seen = HashSet::new();
        target.places.retain(|place| seen.insert(place.address.clone()));
        left_out += target.places.len().saturating_sub(room);
        target.places.truncate(room);
        room -= target.places.len();
    }
    left_out
}

/// Dials all places, each within `limit`.
pub(super) async fn dial(diagnosis: &Diagnosis, targets: Vec<Target>, limit: Duration) -> Vec<Tried> {
    let places: Vec<Place> = targets.iter().flat_map(|target| target.places.clone()).collect();
    let dials = places.iter().map(|place| diagnosis.reach(place, limit));
    let results: Vec<_> = stream::iter(dials).buffered(AT_ONCE).collect().await;
    let mut results = results.into_iter();
    targets
        .into_iter()
        .map(|target| {
            let count = target.places.len();
            (target, results.by_ref().take(count).collect())
        })
        .collect()
}

/// What the dials mean. With `alone`, nobody of the swarm was found.
pub(super) fn judge(tried: Vec<Tried>, private: bool, alone: bool) -> Dialled {
    let mut findings = Vec::new();
    for (target, results) in &tried {
        match &target.kind {
            Kind::Member | Kind::Join => findings.extend(of_member(target, results, private)),
            Kind::Noted { pid, is_gone } => findings.extend(of_note(target, results, *pid, *is_gone)),
            Kind::Overheard => findings.extend(of_overheard(target, results, alone, private)),
        }
    }
    let answers = tried.into_iter().flat_map(|(_, results)| results.into_iter().flatten()).collect();
    Dialled { findings, answers }
}

/// Texts to join through that lead nowhere.
pub(super) fn unresolved(joins: &Joins) -> impl Iterator<Item = Finding> + '_ {
    joins.iter().filter_map(|(text, places)| {
        let error = places.as_ref().err()?;
        let text_there = format!("cannot be resolved: {error}");
        Some(Finding::failure(Check::Dialling, text, text_there, "correct the name, or write its address"))
    })
}

/// Says that not all was dialled.
pub(super) fn unfinished(left_out: usize) -> Option<Finding> {
    let text = format!("{left_out} more addresses were not dialled: {MAX_DIALS} are at the most");
    (left_out > 0).then(|| Finding::ok(Check::Dialling, "other addresses", text))
}

/// A node that can be reached somewhere is not lost, but each address that does not work costs its callers time.
fn of_member(target: &Target, results: &[Result<Answer, ReachError>], private: bool) -> Vec<Finding> {
    let works = results.iter().any(Result::is_ok);
    let finding = |(place, result): (&Place, &Result<Answer, ReachError>)| {
        let subject = format!("{} {}", target.label, place.address);
        match result {
            Ok(answer) => {
                let time = answer.took.as_secs_f64() * 1000.0;
                Finding::ok(Check::Dialling, subject, format!("answers, connected in {time:.1} ms"))
            }
            Err(error) if works => {
                Finding::warning(Check::Dialling, subject, error.to_string(), remedy(&error.kind, private))
            }
            Err(error) => Finding::failure(Check::Dialling, subject, error.to_string(), remedy(&error.kind, private)),
        }
    };
    target.places.iter().zip(results).map(finding).collect()
}

fn of_note(target: &Target, results: &[Result<Answer, ReachError>], pid: u32, is_gone: bool) -> Option<Finding> {
    if results.iter().any(Result::is_ok) {
        let text = format!("process {pid} answers, but is not listed yet: it may have started just now");
        return Some(Finding::ok(Check::Rendezvous, &target.label, text));
    }
    if is_gone {
        let path = quoted_path(Path::new(&target.label));
        let text = format!("stale: process {pid} is gone, and nobody answers where it was");
        let remedy = format!("rm {path}, or leave it: the next node that starts takes it away");
        return Some(Finding::warning(Check::Rendezvous, &target.label, text, remedy));
    }
    let (place, error) =
        target.places.iter().zip(results).find_map(|(place, result)| Some((place, result.as_ref().err()?)))?;
    let text = format!("process {pid} does not answer at {}: {error}", place.address);
    if let Some(shortage) = descriptors::shortage(pid) {
        let remedy = "start it with a higher limit (ulimit -n)";
        return Some(Finding::failure(Check::Rendezvous, &target.label, format!("{text}; {shortage}"), remedy));
    }
    let remedy = format!("see what that process is (ps -p {pid}); if it is a node, start it again");
    Some(Finding::failure(Check::Rendezvous, &target.label, text, remedy))
}

/// Programs of other swarms on the same network are nothing unusual.
fn of_overheard(
    target: &Target,
    results: &[Result<Answer, ReachError>],
    alone: bool,
    private: bool,
) -> Option<Finding> {
    let subject = format!("{} {}", target.label, target.places.first()?.address);
    if results.iter().any(Result::is_ok) {
        let text = "answers as a node of this swarm, but is not listed yet: it may have started just now";
        return Some(Finding::ok(Check::Dialling, subject, text));
    }
    let kinds: Vec<_> = results.iter().filter_map(|result| result.as_ref().err()).map(|error| &error.kind).collect();
    let stranger =
        kinds.iter().find(|kind| matches!(kind, NoAnswer::OtherSwarm(_) | NoAnswer::Handshake(_) | NoAnswer::Deaf(_)));
    let kind = *stranger.or(kinds.first())?;
    let text = format!("heard by multicast: {kind}");
    Some(match kind {
        NoAnswer::OtherSwarm(_) => Finding::ok(Check::Dialling, subject, text),
        NoAnswer::Handshake(_) | NoAnswer::Deaf(_) if !alone => Finding::ok(Check::Dialling, subject, text),
        kind => Finding::warning(Check::Dialling, subject, text, remedy(kind, private)),
    })
}

fn remedy(kind: &NoAnswer, private: bool) -> &'static str {
    match kind {
        NoAnswer::Refused => "start the node that was there, or name the port on which it listens now",
        NoAnswer::TimedOut(_) | NoAnswer::NoWay(_) => {
            "let its TCP port through the firewalls in between, or let it listen on an address that is reached from here"
        }
        NoAnswer::OtherPeer(_) => "the address is taken by somebody else: start the node with a fixed `--listen`",
        NoAnswer::OtherSwarm(_) => "compare `--swarm` on both sides",
        NoAnswer::Handshake(_) | NoAnswer::Deaf(_) if private => {
            "compare `--secret` or `--ticket` on both sides: one has another secret"
        }
        NoAnswer::Handshake(_) | NoAnswer::Deaf(_) => {
            "another program listens there, or a private swarm: compare `--secret` or `--ticket` on both sides"
        }
        NoAnswer::Mute(_) => "see whether that process hangs, and start it again",
        NoAnswer::Unsupported if cfg!(feature = "wan") => "let it listen on plain TCP",
        NoAnswer::Unsupported => "build with the feature `wan`, or let it listen on plain TCP",
        _ => "see the logs on both sides: -vv",
    }
}

#[cfg(test)]
mod tests {
    use super::{super::report::Verdict, *};

    fn target(kind: Kind, places: usize) -> Target {
        let place = |port| Place { address: format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap(), peer_id: None };
        Target { kind, label: "alpha".to_owned(), places: (1..=places).map(place).collect() }
    }

    fn answer() -> Result<Answer, ReachError> {
        Ok(Answer { peer_id: PeerId::random(), took: Duration::from_millis(2), listening: Vec::new() })
    }

    fn refused() -> Result<Answer, ReachError> {
        Err(ReachError { kind: NoAnswer::Refused })
    }

    fn verdicts(tried: Tried, alone: bool) -> Vec<Verdict> {
        judge(vec![tried], false, alone).findings.into_iter().map(|finding| finding.verdict).collect()
    }

    #[test]
    fn an_address_that_fails_is_a_warning_beside_one_that_works_and_a_failure_else() {
        let member = || target(Kind::Member, 2);
        assert_eq!(verdicts((member(), vec![answer(), refused()]), false), [Verdict::Ok, Verdict::Warning]);
        assert_eq!(verdicts((member(), vec![refused(), refused()]), false), [Verdict::Failure, Verdict::Failure]);
    }

    #[test]
    fn a_note_is_stale_when_its_process_is_gone_and_nobody_answers() {
        let note = |is_gone| target(Kind::Noted { pid: 7, is_gone }, 1);
        assert_eq!(verdicts((note(true), vec![refused()]), false), [Verdict::Warning]);
        assert_eq!(verdicts((note(false), vec![refused()]), false), [Verdict::Failure]);
        assert_eq!(verdicts((note(true), vec![answer()]), false), [Verdict::Ok]);
    }

    #[test]
    fn strangers_of_the_network_matter_only_to_who_finds_nobody() {
        let failed = |kind| vec![Err(ReachError { kind })];
        let heard = || target(Kind::Overheard, 1);
        let handshake = || failed(NoAnswer::Handshake("eof".to_owned()));
        assert_eq!(verdicts((heard(), handshake()), false), [Verdict::Ok]);
        assert_eq!(verdicts((heard(), handshake()), true), [Verdict::Warning]);
        assert_eq!(verdicts((heard(), failed(NoAnswer::OtherSwarm("other".to_owned()))), true), [Verdict::Ok]);
        assert_eq!(verdicts((heard(), vec![refused()]), false), [Verdict::Warning]);
    }

    #[test]
    fn each_place_is_dialled_once_and_no_more_than_the_limit() {
        let mut twice = target(Kind::Member, 1);
        twice.places.extend(twice.places.clone());
        let mut targets = [twice, target(Kind::Member, MAX_DIALS + 5)];
        assert_eq!(bound(&mut targets), 6);
        assert_eq!((targets[0].places.len(), targets[1].places.len()), (1, MAX_DIALS - 1));
    }
}
