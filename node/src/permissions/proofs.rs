//! What the peers that are connected have proven of themselves.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{
        Arc, LazyLock, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use arc_swap::ArcSwap;
use libp2p::PeerId;
use multinodes_behaviour::{Credential, SwarmName, quick_hash::QuickHash};

/// The labels that a peer has proven.
#[derive(Debug, Clone, Default)]
pub(crate) struct Proof {
    labels: Arc<BTreeMap<String, String>>,
    /// In seconds since 1970.
    expires: Option<u64>,
    /// What proves it, as it was shown.
    #[cfg_attr(not(feature = "wasm"), allow(dead_code, reason = "only code outlasts its sender's connection"))]
    credential: Option<Arc<str>>,
}

type Table = HashMap<PeerId, Proof, QuickHash>;

/// As many as there are connections.
pub(crate) struct Proofs {
    trusted: HashSet<PeerId>,
    table: ArcSwap<Table>,
    changing: Mutex<()>,
    /// Grows with each change of what somebody may do: verdicts of before are worth nothing.
    epoch: AtomicU64,
}

impl Proof {
    /// What a peer shows comes to: labels if they are signed for it by somebody who is trusted, and still good.
    pub(crate) fn of(
        swarm: &SwarmName,
        peer_id: &PeerId,
        shown: Option<&str>,
        trusts: impl FnOnce(&PeerId) -> bool,
        now: SystemTime,
    ) -> Self {
        let Some(text) = shown else { return Self::default() };
        let credential = match Credential::open(swarm, text) {
            Ok(credential) => credential,
            Err(error) => {
                tracing::debug!(%peer_id, %error, "a credential is not believed");
                return Self::default();
            }
        };
        let Credential { issuer, holder, labels, expires } = credential;
        if holder != *peer_id || !trusts(&issuer) || expires.is_some_and(|expires| expires <= seconds(now)) {
            tracing::debug!(%peer_id, %issuer, %holder, "a credential proves nothing here");
            return Self::default();
        }
        Self { labels: Arc::new(labels), expires, credential: Some(text.into()) }
    }

    /// What was proven, unless that is over.
    pub(crate) fn labels(&self, now: SystemTime) -> Option<&BTreeMap<String, String>> {
        (!self.is_over(now)).then_some(&self.labels)
    }

    /// What proves it, for those who keep it longer than the peer is connected.
    #[cfg(feature = "wasm")]
    pub(crate) fn credential(&self) -> Option<&str> {
        self.credential.as_deref()
    }

    fn is_over(&self, now: SystemTime) -> bool {
        self.expires.is_some_and(|expires| expires <= seconds(now))
    }
}

impl Proofs {
    pub(super) fn new(trusted: HashSet<PeerId>) -> Self {
        Self { trusted, table: ArcSwap::default(), changing: Mutex::default(), epoch: AtomicU64::new(1) }
    }

    pub(crate) fn trusts(&self, issuer: &PeerId) -> bool {
        self.trusted.contains(issuer)
    }

    /// What a peer has proven; nothing if it is not connected.
    pub(crate) fn labels(&self, peer_id: &PeerId) -> Arc<BTreeMap<String, String>> {
        static NONE: LazyLock<Arc<BTreeMap<String, String>>> = LazyLock::new(Arc::default);
        self.table.load().get(peer_id).map_or_else(|| NONE.clone(), |proof| proof.labels.clone())
    }

    /// What a peer has proven, and how; nothing if it is not connected.
    #[cfg(feature = "wasm")]
    pub(crate) fn of(&self, peer_id: &PeerId) -> Proof {
        self.table.load().get(peer_id).cloned().unwrap_or_default()
    }

    /// Whether a peer has shown what it has, be it nothing.
    pub(crate) fn has_shown(&self, peer_id: &PeerId) -> bool {
        self.table.load().contains_key(peer_id)
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.load(SeqCst)
    }

    /// What was permitted has to be looked at anew.
    pub(super) fn renew(&self) {
        self.epoch.fetch_add(1, SeqCst);
    }

    pub(crate) fn show(&self, peer_id: PeerId, proof: Proof) {
        let same = |known: &Proof| known.labels == proof.labels && known.expires == proof.expires;
        if !self.table.load().get(&peer_id).is_some_and(same) {
            self.change(|table| drop(table.insert(peer_id, proof)));
        }
    }

    pub(crate) fn forget(&self, peer_id: &PeerId) {
        if self.has_shown(peer_id) {
            self.change(|table| drop(table.remove(peer_id)));
        }
    }

    /// Takes away the labels that are over; whether there were any.
    pub(crate) fn expire(&self, now: SystemTime) -> bool {
        if !self.table.load().values().any(|proof| proof.is_over(now)) {
            return false;
        }
        self.change(|table| {
            table.values_mut().filter(|proof| proof.is_over(now)).for_each(|proof| *proof = Proof::default())
        });
        true
    }

    fn change(&self, change: impl FnOnce(&mut Table)) {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut table = Table::clone(&self.table.load());
        change(&mut table);
        self.table.store(Arc::new(table));
        self.renew();
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
