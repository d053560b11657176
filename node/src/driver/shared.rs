//! Keys that several processes use at once, such as those of a machine and its clone.

use libp2p::PeerId;

use super::Driver;
use crate::description::Event;

impl Driver {
    /// Looks whether other processes than before speak for nodes.
    pub(super) fn on_turns(&mut self) {
        let Some(turns) = self.directory.take_turns() else { return };
        for peer_id in turns.restarted {
            self.close_former(&peer_id);
        }
        for peer_id in turns.shared {
            self.on_shared_key(&peer_id);
        }
    }

    /// The older connections of a node that was started again lead to its former process, which is gone. If it is not, it
    /// connects again, hears that another one speaks for it, and shows itself by speaking up.
    fn close_former(&mut self, peer_id: &PeerId) {
        let Some(peer) = self.peers.get(peer_id) else { return };
        let former = peer.connections.len().saturating_sub(1);
        for connection in &peer.connections[..former] {
            self.swarm.close_connection(connection.id);
        }
    }

    /// Two processes with one key take turns: said once, and remembered.
    pub(super) fn on_shared_key(&mut self, peer_id: &PeerId) {
        let name = self.directory.name(peer_id).unwrap_or_else(|| self.core.settings.name.clone());
        if self.core.note_shared_key(*peer_id, &name) {
            let reason = format!(
                "several processes use the key of `{name}`, {peer_id}, as a machine and its clone do: give each an identity \
                 file of its own"
            );
            self.tell(Event::Degraded { reason });
        }
    }
}
