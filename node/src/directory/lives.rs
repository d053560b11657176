//! The processes that have spoken with the key of a node. A node that is started again is another process, and the former one
//! never comes back; two machines with one key step over each other, so that one comes back after the other.

use libp2p::PeerId;

use super::{Directory, State};

/// So many processes of a node are remembered, the latest. Two that share a key take turns.
pub(super) const MAX_LIVES: usize = 8;

/// So many nodes are told of at once.
const MAX_TOLD: usize = 64;

/// The processes of a node, the latest last.
#[derive(Debug, Clone, Default)]
pub(super) struct Lives {
    /// Numbers that each has chosen at random.
    processes: Vec<u64>,
    /// One came back after another had been there.
    pub(super) is_shared: bool,
}

/// What a record shows of the process that has written it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// It is the same as before, or does not say.
    Same,
    /// It is a new one.
    New,
    /// It had been there before another one.
    Back,
}

/// What is new of the processes of nodes.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    /// Live nodes for which another process speaks now.
    pub(crate) restarted: Vec<PeerId>,
    /// Nodes whose key is used by several processes at once.
    pub(crate) shared: Vec<PeerId>,
}

impl Lives {
    fn on_record(&mut self, process: Option<&[u8]>) -> Turn {
        let Some(process) = process.filter(|bytes| !bytes.is_empty()).map(number) else { return Turn::Same };
        if self.processes.last() == Some(&process) {
            return Turn::Same;
        }
        let before = self.processes.iter().position(|known| *known == process);
        if let Some(index) = before {
            self.processes.remove(index);
        } else if self.processes.len() >= MAX_LIVES {
            self.processes.remove(0);
        }
        self.processes.push(process);
        match before {
            Some(_) => Turn::Back,
            None if self.processes.len() > 1 => Turn::New,
            None => Turn::Same,
        }
    }
}

pub(super) fn number(process: &[u8]) -> u64 {
    process.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
}

impl Directory {
    /// A record of a node has come that is later than what was held.
    pub(super) fn on_life(&mut self, peer_id: &PeerId, process: Option<&[u8]>) {
        let Some(entry) = self.entries.get_mut(peer_id) else { return };
        let told = match entry.lives.on_record(process) {
            Turn::Same => return,
            Turn::New if entry.state == State::Live && !entry.lives.is_shared => &mut self.turns.restarted,
            Turn::Back if !entry.lives.is_shared => {
                entry.lives.is_shared = true;
                &mut self.turns.shared
            }
            _ => return,
        };
        if told.len() < MAX_TOLD {
            told.push(*peer_id);
        }
    }

    /// Another process speaks with this node's key, and has gone beyond it. A former one does that once, if its clock was
    /// ahead; one that does it again lives.
    pub(super) fn on_rival(&mut self, process: Option<&[u8]>, incarnation: u64) {
        let Some(process) = process.map(number).filter(|process| Some(*process) != self.own_process) else { return };
        let again = |(known, before): (u64, u64)| known == process && before < incarnation;
        if self.rival.replace((process, incarnation)).is_some_and(again) && self.turns.shared.len() < MAX_TOLD {
            self.turns.shared.push(self.own);
        }
    }

    /// Takes away what is new of the processes of nodes; `None` if nothing is.
    pub(crate) fn take_turns(&mut self) -> Option<Turns> {
        let any = !self.turns.restarted.is_empty() || !self.turns.shared.is_empty();
        any.then(|| std::mem::take(&mut self.turns))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_comes_back_after_another_one_lives_beside_it() {
        let mut lives = Lives::default();
        let turns = [&[1][..], &[1], &[2], &[2], &[1]].map(|process| lives.on_record(Some(process)));
        assert_eq!(turns, [Turn::Same, Turn::Same, Turn::New, Turn::Same, Turn::Back]);
    }

    #[test]
    fn however_often_a_node_is_started_again_it_never_comes_back() {
        let mut lives = Lives::default();
        let turns: Vec<_> = (1..=100_u8).map(|process| lives.on_record(Some(&[process]))).collect();
        assert!(turns.iter().skip(1).all(|turn| *turn == Turn::New) && lives.processes.len() == MAX_LIVES);
        assert_eq!(
            [lives.on_record(None), lives.on_record(Some(&[]))],
            [Turn::Same; 2],
            "who does not say is no other"
        );
    }
}
