//! Names to join through stand for many nodes, which need not have met: those who started before the name knew all of them
//! are islands. So a name is asked for again about every minute, and whoever is at an address of it that no node of
//! the directory has is dialled, whoever is connected.

use std::{collections::HashMap, io};

use libp2p::{
    Multiaddr, PeerId,
    swarm::{ConnectionId, dial_opts::DialOpts},
};
use rand::seq::SliceRandom;

use super::{Done, Driver, Due};

/// Addresses that are dialled each time; of more a part is dialled, another one each time. One that leads to another island
/// is enough, for all nodes of both look.
const MAX_TRIED: usize = 16;

/// Dials at once.
const MAX_AT_ONCE: usize = 4;

/// Who is at the addresses of a name.
#[derive(Debug, Default)]
pub(super) struct Namesakes {
    asking: bool,
    untried: Vec<Multiaddr>,
    dialling: HashMap<ConnectionId, Multiaddr>,
    /// Who has answered there; bounded, as only addresses of the name are kept.
    met: HashMap<Multiaddr, PeerId>,
}

impl Namesakes {
    /// The network is built anew.
    pub(super) fn reset(&mut self) {
        *self = Self { met: std::mem::take(&mut self.met), ..Self::default() };
    }

    pub(super) fn note(&mut self, address: &Multiaddr, peer_id: PeerId) {
        self.met.insert(address.clone(), peer_id);
    }
}

impl Driver {
    /// Notes when a name is asked for again.
    pub(super) fn revisit_name(&mut self, index: usize) {
        let Some(joining) = self.joins.get(index) else { return };
        if joining.join.is_of_many() {
            let again = self.core.settings.resolver.again.mul_f64(rand::random_range(0.5..1.5));
            self.timers.after(again, Due::Name(index));
        }
    }

    /// Asks for the addresses of a name again.
    pub(super) fn ask_name(&mut self, index: usize) {
        let Some(joining) = self.joins.get_mut(index) else { return };
        if self.stopping.is_none() && !std::mem::replace(&mut joining.namesakes.asking, true) {
            let (join, resolver) = (joining.join.clone(), self.core.settings.resolver.clone());
            self.tasks.spawn(async move { Done::Named { join: index, result: join.resolve(&resolver).await } });
        }
        self.revisit_name(index);
    }

    /// The addresses of a name are there: those of nobody that is known are dialled.
    pub(super) fn on_named(&mut self, index: usize, result: io::Result<Vec<Multiaddr>>) {
        let Some(joining) = self.joins.get_mut(index) else { return };
        joining.namesakes.asking = false;
        let found = match result {
            Ok(found) => found,
            Err(error) => {
                tracing::debug!(address = joining.join.text(), %error, "the name cannot be resolved again");
                return;
            }
        };
        joining.namesakes.met.retain(|address, _| found.contains(address));
        let met = &self.joins[index].namesakes.met;
        let mut untried: Vec<Multiaddr> =
            found.into_iter().filter(|address| !self.is_somebodys(address, met.get(address))).collect();
        untried.shuffle(&mut rand::rng());
        untried.truncate(MAX_TRIED);
        self.joins[index].namesakes.untried = untried;
        self.dial_namesakes(index);
    }

    /// Whether the node at an address is known: by a record, or because it has answered there.
    fn is_somebodys(&self, address: &Multiaddr, met: Option<&PeerId>) -> bool {
        let is_known = |peer_id: &PeerId| {
            *peer_id == self.core.peer_id
                || self.directory.is_live(peer_id)
                || self.peers.contains_key(peer_id)
                || self.book.is_stranger(peer_id, std::time::Instant::now())
        };
        met.is_some_and(is_known)
            || self.listening.addresses.contains(address)
            || self.directory.live().any(|peer_id| self.directory.has_address(peer_id, address))
    }

    fn dial_namesakes(&mut self, index: usize) {
        while let Some(joining) = self.joins.get_mut(index) {
            if self.stopping.is_some() || joining.namesakes.dialling.len() >= MAX_AT_ONCE {
                return;
            }
            let Some(address) = joining.namesakes.untried.pop() else { return };
            let options = DialOpts::unknown_peer_id().address(address.clone()).allocate_new_port().build();
            joining.namesakes.dialling.insert(options.connection_id(), address);
            let connection = options.connection_id();
            if let Err(error) = self.swarm.dial(options) {
                tracing::debug!(%error, "an address of a name cannot be dialled");
                self.joins[index].namesakes.dialling.remove(&connection);
            }
        }
    }

    /// A dial has ended: maybe it is one of these. `peer_id` is who has answered.
    pub(super) fn on_namesake(&mut self, connection: ConnectionId, peer_id: Option<PeerId>) {
        for index in 0..self.joins.len() {
            let namesakes = &mut self.joins[index].namesakes;
            let Some(address) = namesakes.dialling.remove(&connection) else { continue };
            if let Some(peer_id) = peer_id {
                tracing::debug!(%address, %peer_id, "somebody else answers at an address of a name");
                namesakes.met.insert(address, peer_id);
            }
            self.dial_namesakes(index);
        }
    }
}
