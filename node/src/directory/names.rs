//! Who has which name. Two live nodes may have the same one.

use std::{collections::BTreeSet, sync::Arc};

use libp2p::PeerId;

/// The live holders of all names, in order. A search begins with (name, `None`).
#[derive(Debug, Default)]
pub(super) struct Names(BTreeSet<(Arc<str>, Option<PeerId>)>);

impl Names {
    /// Adds a holder, and gives another one if there is any.
    pub(super) fn insert(&mut self, name: &Arc<str>, peer_id: PeerId) -> Option<PeerId> {
        let other = self.holders(name).find(|holder| *holder != peer_id);
        self.0.insert((name.clone(), Some(peer_id)));
        other
    }

    /// Takes a holder away, and gives the one that now has the name alone, if there is one.
    pub(super) fn remove(&mut self, name: &str, peer_id: &PeerId) -> Option<PeerId> {
        let name: Arc<str> = name.into();
        if !self.0.remove(&(name.clone(), Some(*peer_id))) {
            return None;
        }
        let mut holders = self.holders(&name);
        let first = holders.next()?;
        if holders.next().is_some() { None } else { Some(first) }
    }

    /// Who has a name, in order.
    pub(super) fn holders<'a>(&'a self, name: &'a Arc<str>) -> impl Iterator<Item = PeerId> + 'a {
        let from = (name.clone(), None);
        self.0.range(from..).take_while(move |(holds, _)| holds == name).filter_map(|(_, holder)| *holder)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}
