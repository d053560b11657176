//! Who is let in: rules are asked when a connection is established, when the peer has shown what it has, and whenever
//! something changes.

use std::{
    sync::Arc,
    time::{Instant, SystemTime},
};

use libp2p::{PeerId, swarm::ConnectionDenied};
use multinodes_behaviour::{gate, identity};

use super::{Done, Driver, connections::Standing};
#[cfg(feature = "wasm")]
use crate::code::installed;
use crate::{
    core::{Counters, OpenFailure},
    permissions::Proof,
};

impl Driver {
    /// Whether a peer is connected, and nothing stands in the way of speaking with it.
    pub(super) fn is_admitted(&self, peer_id: &PeerId) -> bool {
        self.peers.get(peer_id).is_some_and(|peer| peer.admitted)
    }

    /// Whether a connection that is just established is served at once. The gate has asked the same.
    pub(super) fn is_welcome(&self, peer_id: &PeerId) -> bool {
        gate::Doorkeeper::decide(&*self.core.permissions, peer_id) == gate::Admission::Admitted
    }

    /// A peer says what it is, and shows its credential if it has one.
    pub(super) fn on_shown(&mut self, peer_id: PeerId, agent: &str) {
        let permissions = self.core.permissions.clone();
        let (swarm, shown) = (&self.core.settings.swarm, identity::credential_of(agent));
        let trusts = |issuer: &PeerId| permissions.proofs.trusts(issuer);
        permissions.proofs.show(peer_id, Proof::of(swarm, &peer_id, shown, trusts, SystemTime::now()));
        if permissions.admits(&peer_id) { self.admit(peer_id) } else { self.forbid(peer_id) }
    }

    fn admit(&mut self, peer_id: PeerId) {
        // A second connection may have been waiting, too.
        self.swarm.behaviour_mut().admit(peer_id);
        let Some(peer) = self.peers.get_mut(&peer_id) else { return };
        if !std::mem::replace(&mut peer.admitted, true) {
            self.on_admitted(peer_id);
        }
    }

    /// From now on a peer is spoken with.
    pub(super) fn on_admitted(&mut self, peer_id: PeerId) {
        // Whoever dials begins; two that dial each other at once need no second exchange.
        if self.peers.get(&peer_id).is_some_and(|peer| peer.has_dialled()) {
            self.offer_again(peer_id);
        }
        self.open_waiting_lanes(peer_id);
        self.pump();
    }

    /// A peer has shown that it serves us. What it has refused until then is asked for again.
    pub(super) fn on_served(&mut self, peer_id: PeerId) {
        let Some(peer) = self.peers.get_mut(&peer_id) else { return };
        let (served, admitted) = (std::mem::replace(&mut peer.serves, true), peer.admitted);
        self.directory.on_connected(peer_id, Instant::now());
        if !served && admitted {
            self.on_admitted(peer_id);
        }
    }

    /// Lets a peer go that may not be connected, and says nothing more.
    fn forbid(&mut self, peer_id: PeerId) {
        let Some(peer) = self.peers.get_mut(&peer_id) else { return };
        if peer.standing != Standing::Stranger {
            tracing::debug!(%peer_id, "a peer may not connect and is let go");
            self.core.counters.forbidden_connections.send_modify(|count| *count += 1);
        }
        peer.standing = Standing::Stranger;
        peer.admitted = false;
        self.fail_lane(&peer_id, SHUNNED);
        let _ = self.swarm.disconnect_peer_id(peer_id);
    }

    /// The gate, or a limit, has refused a connection that came in or was dialled.
    pub(super) fn on_refused(&self, cause: &ConnectionDenied, came_in: bool) {
        if cause.downcast_ref::<gate::Denied>().is_some() {
            self.core.counters.forbidden_connections.send_modify(|count| *count += 1);
        } else if came_in {
            Counters::add(&self.core.counters.refused_connections);
        }
    }

    /// Why no lane to a peer can be had, if the rules of this node say so.
    pub(super) fn shunned(&self, peer_id: &PeerId) -> Option<OpenFailure> {
        self.core.permissions.shuns(peer_id).then(|| OpenFailure::Unreachable(SHUNNED.to_owned()))
    }

    /// Takes away what has expired, and has the files with rules looked at.
    pub(super) fn on_permissions_tick(&mut self) {
        let permissions = &self.core.permissions;
        if permissions.proofs.expire(SystemTime::now()) {
            self.review();
        }
        if self.core.permissions.has_files() && !self.reading_rules {
            self.reading_rules = true;
            let permissions = Arc::clone(&self.core.permissions);
            self.tasks.spawn(async move {
                let reading = tokio::task::spawn_blocking(move || permissions.reload());
                Done::Rules { changed: reading.await.unwrap_or(false) }
            });
        }
        #[cfg(feature = "wasm")]
        if self.core.workshop.policy.may_change() {
            let core = Arc::clone(&self.core);
            self.tasks.spawn(async move {
                installed::review(&core).await;
                Done::Guests
            });
        }
    }

    pub(super) fn on_rules(&mut self, changed: bool) {
        self.reading_rules = false;
        if changed {
            self.review();
        }
    }

    /// Looks at everybody again, after something has changed.
    fn review(&mut self) {
        let permissions = self.core.permissions.clone();
        let (may, may_not): (Vec<PeerId>, Vec<PeerId>) = self
            .peers
            .iter()
            .filter(|(peer_id, peer)| peer.standing != Standing::Stranger && permissions.proofs.has_shown(peer_id))
            .map(|(peer_id, _)| *peer_id)
            .partition(|peer_id| permissions.admits(peer_id));
        may_not.into_iter().for_each(|peer_id| self.forbid(peer_id));
        may.into_iter().for_each(|peer_id| self.admit(peer_id));
    }
}

/// What is said to whoever wants to speak with such a peer.
const SHUNNED: &str = "the rules of this node do not let it connect";
