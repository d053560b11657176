//! What the addresses to join through have answered, for people: said at once where it is clear, and after a moment where
//! nothing came, or where it may be different the next time. Said again only when it is something else.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use futures::future::join_all;
use libp2p::{Multiaddr, multiaddr::Protocol};

use super::{Done, Driver, Due, no_answer::NoAnswer};
use crate::{description::Event, length::length};

/// Whoever can be reached has answered by then.
const LOOK: Duration = Duration::from_millis(1_500);

/// A second dial of what did not answer in a longer time need not be patient.
const KNOCK: Duration = Duration::from_millis(400);

/// What has come of one join.
#[derive(Default)]
pub(super) struct Answers {
    /// In the round under way, or the last one; without an address if none was dialled.
    round: Vec<(Option<Multiaddr>, NoAnswer)>,
    /// As it was said last.
    said: Option<String>,
    /// Since when it is tried in vain.
    since: Option<Instant>,
}

impl Answers {
    pub(super) fn begin_round(&mut self, now: Instant) {
        self.round.clear();
        self.since.get_or_insert(now);
    }

    /// The last answer of an address counts; but that time is over is said already of what is silent.
    pub(super) fn note(&mut self, address: Option<Multiaddr>, answer: NoAnswer) {
        let is_silence = |answer: &NoAnswer| matches!(answer, NoAnswer::TimedOut(_) | NoAnswer::Deaf(_));
        if address.is_none() && is_silence(&answer) && self.round.iter().any(|(_, known)| is_silence(known)) {
            return;
        }
        match self.round.iter_mut().find(|(known, _)| *known == address) {
            Some((_, known)) if is_silence(known) && is_silence(&answer) => {}
            Some((_, known)) => *known = answer,
            None => self.round.push((address, answer)),
        }
    }

    /// What is to be said, if it is new. `literal` is the address, if it was written as one.
    fn news(&mut self, literal: Option<&Multiaddr>) -> Option<String> {
        let text = |(address, answer): &(Option<Multiaddr>, NoAnswer)| match address {
            Some(address) if Some(address) != literal => format!("{address}: {answer}"),
            _ => answer.to_string(),
        };
        let text = self.round.iter().map(text).collect::<Vec<_>>().join("; ");
        if text.is_empty() || self.said.as_ref() == Some(&text) {
            return None;
        }
        self.said = Some(text.clone());
        Some(text)
    }

    /// Whether it has been tried for so long that what may pass is said, too.
    fn is_time(&self, now: Instant) -> bool {
        self.since.is_some_and(|since| now.saturating_duration_since(since) >= LOOK)
    }
}

impl Driver {
    /// A round over the addresses of a join begins.
    pub(super) fn begin_answers(&mut self, index: usize, now: Instant) {
        let Some(joining) = self.joins.get_mut(index) else { return };
        joining.answers.begin_round(now);
        self.timers.at(now + LOOK, Due::Answers(index));
    }

    /// Says what has come of a join, if that is new. What is `passing` may be different the next time.
    pub(super) fn tell_answers(&mut self, index: usize, passing: bool) {
        let Some(joining) = self.joins.get_mut(index) else { return };
        if passing && !joining.answers.is_time(Instant::now()) {
            return;
        }
        let literal = joining.join.literal();
        if let Some(reason) = joining.answers.news(literal.as_ref()) {
            let address = joining.join.text().to_owned();
            self.tell(Event::JoinFailed { address, reason });
        }
    }

    /// Somebody of the swarm was met through a join, or is known without it.
    pub(super) fn forget_answers(&mut self, index: usize) {
        let Some(joining) = self.joins.get_mut(index) else { return };
        joining.answers = Answers::default();
        self.core.events.joined(joining.join.text());
    }

    /// It is time to say something of a join that has led nowhere.
    pub(super) fn look_for_answers(&mut self, index: usize) {
        let Some(joining) = self.joins.get_mut(index) else { return };
        let peer = joining.peer.and_then(|peer_id| self.peers.get(&peer_id));
        let is_known = joining.peer.is_some_and(|peer_id| self.directory.is_live(&peer_id));
        if is_known || peer.is_some_and(|peer| peer.synced) {
            return;
        }
        if peer.is_some() {
            joining.answer(NoAnswer::Mute(LOOK));
            return self.tell_answers(index, false);
        }
        let silent = joining.under_way();
        if silent.is_empty() {
            if joining.is_resolving() {
                joining.answers.note(None, NoAnswer::Unresolved(format!("nothing came back within {}", length(LOOK))));
            }
            return self.tell_answers(index, false);
        }
        // Who has another secret waits for more of what it takes for noise, and is not told from silence but by this.
        self.tasks.spawn(async move {
            let knocks = silent.into_iter().map(|address| async move {
                let listens = listens(&address, KNOCK).await;
                (address, listens)
            });
            Done::Knocked { join: index, listens: join_all(knocks).await }
        });
    }

    pub(super) fn on_knocked(&mut self, index: usize, listens: Vec<(Multiaddr, bool)>) {
        let Some(joining) = self.joins.get_mut(index) else { return };
        if joining.peer.is_some_and(|peer_id| self.peers.contains_key(&peer_id)) {
            return;
        }
        for (address, listens) in listens {
            let answer = if listens { NoAnswer::Deaf(LOOK) } else { NoAnswer::TimedOut(LOOK) };
            // What has come in the meantime says more.
            if !joining.answers.round.iter().any(|(known, _)| known.as_ref() == Some(&address)) {
                joining.answers.note(Some(address), answer);
            }
        }
        joining.outcome = true;
        self.tell_answers(index, false);
    }
}

/// Whether somebody accepts TCP connections there, whatever it speaks.
pub(crate) async fn listens(address: &Multiaddr, limit: Duration) -> bool {
    let mut parts = address.iter();
    let ip: IpAddr = match parts.next() {
        Some(Protocol::Ip4(ip)) => ip.into(),
        Some(Protocol::Ip6(ip)) => ip.into(),
        _ => return false,
    };
    let Some(Protocol::Tcp(port)) = parts.next() else { return false };
    let connected = tokio::time::timeout(limit, tokio::net::TcpStream::connect((ip, port))).await;
    matches!(connected, Ok(Ok(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_said_is_said_again_only_when_it_is_something_else() {
        let [one, two]: [Multiaddr; 2] = [1, 2].map(|port| format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap());
        let mut answers = Answers::default();
        answers.begin_round(Instant::now());
        assert_eq!(answers.news(None), None);
        answers.note(Some(one.clone()), NoAnswer::Refused);
        answers.note(Some(two.clone()), NoAnswer::Deaf(LOOK));
        answers.note(Some(two.clone()), NoAnswer::TimedOut(LOOK));
        answers.note(None, NoAnswer::TimedOut(LOOK));
        let text = answers.news(Some(&one)).unwrap();
        assert!(text.starts_with("refused: nobody listens there; /ip4/127.0.0.1/tcp/2: it listens"), "{text}");
        assert!(!text.contains("no answer"), "{text}");
        assert_eq!(answers.news(Some(&one)), None);
        answers.begin_round(Instant::now());
        answers.note(Some(one.clone()), NoAnswer::Refused);
        assert_eq!(answers.news(Some(&one)).as_deref(), Some("refused: nobody listens there"));
    }
}
