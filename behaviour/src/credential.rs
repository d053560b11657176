//! Labels that somebody else vouches for: signed into a ticket, shown by whoever has joined with it.
//!
//! A ticket is made before anybody knows who will use it, so its labels cannot be signed for a peer id. Instead the
//! ticket has a key of its own: the issuer signs the public half together with the labels (the *grant*), and whoever
//! has the ticket signs its own peer id with the private half (the *claim*). Grant and claim together are the
//! *credential*. All peers may see it: it proves something of that one peer id, and nobody else can use it.

use std::{collections::BTreeMap, fmt};

use libp2p::{PeerId, identity::Keypair};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use zeroize::Zeroizing;

use crate::{
    RecordError, SwarmName, codec, names,
    record::{Kind, MAX_LABELS, MAX_TEXT, count, length},
};

/// All labels of a grant together, in bytes: the credential must fit into what identify tells.
pub const MAX_GRANTED: usize = 1024;

/// The length of a ticket's own key, in bytes.
pub const KEY: usize = 32;

/// The largest credential, in bytes: a grant and a claim with RSA keys would be larger, and are refused.
const MAX_CREDENTIAL: usize = 2 * 1024;

const GRANT: Kind = Kind { name: "grant", limit: MAX_CREDENTIAL };
const CLAIM: Kind = Kind { name: "claim", limit: 512 };

/// What an issuer has signed.
#[derive(Clone, Serialize, Deserialize)]
struct Granted {
    /// The peer id of the ticket's own key.
    key: ByteBuf,
    labels: BTreeMap<String, String>,
    /// In seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires: Option<u64>,
}

/// What the holder of a ticket has signed with the ticket's own key.
#[derive(Serialize, Deserialize)]
struct Claimed {
    holder: ByteBuf,
}

/// Both, as they are shown.
#[derive(Serialize, Deserialize)]
struct Shown {
    grant: ByteBuf,
    claim: ByteBuf,
}

/// Labels, signed by an issuer for whoever has the key that goes with them. The key is never printed, and wiped from
/// memory.
#[derive(Clone, PartialEq, Eq)]
pub struct Grant {
    issuer: PeerId,
    labels: BTreeMap<String, String>,
    expires: Option<u64>,
    envelope: Vec<u8>,
    key: Zeroizing<[u8; KEY]>,
}

impl Grant {
    /// Signs labels, in the normal form NFC, for a new key that is good until `expires`, in seconds since 1970.
    ///
    /// # Errors
    ///
    /// There are too many labels, or one of them or all together are too long.
    pub fn issue(
        issuer: &Keypair,
        swarm: &SwarmName,
        labels: BTreeMap<String, String>,
        expires: Option<u64>,
    ) -> Result<Self, RecordError> {
        let normal = |(key, value)| (names::into_normal(key), names::into_normal(value));
        let labels: BTreeMap<String, String> = labels.into_iter().map(normal).collect();
        check(&labels)?;
        let key = Zeroizing::new(rand::random::<[u8; KEY]>());
        let granted = Granted { key: peer_id_of(&key).to_bytes().into(), labels, expires };
        let envelope = GRANT.seal(issuer, swarm, &granted)?.to_vec();
        let Granted { labels, .. } = granted;
        Ok(Self { issuer: issuer.public().to_peer_id(), labels, expires, envelope, key })
    }

    /// Takes apart what a ticket has.
    ///
    /// # Errors
    ///
    /// It is not signed, or not for this swarm and this key.
    pub fn open(swarm: &SwarmName, envelope: &[u8], key: &[u8; KEY]) -> Result<Self, RecordError> {
        let (issuer, granted) = GRANT.open::<Granted>(swarm, envelope)?;
        check(&granted.labels)?;
        let key = Zeroizing::new(*key);
        if granted.key != peer_id_of(&key).to_bytes() {
            return Err(RecordError::NotCanonical);
        }
        let Granted { labels, expires, .. } = granted;
        Ok(Self { issuer, labels, expires, envelope: envelope.to_vec(), key })
    }

    /// Who has signed.
    #[must_use]
    pub fn issuer(&self) -> PeerId {
        self.issuer
    }

    /// What was signed.
    #[must_use]
    pub fn labels(&self) -> &BTreeMap<String, String> {
        &self.labels
    }

    /// Until when it is good, in seconds since 1970.
    #[must_use]
    pub fn expires(&self) -> Option<u64> {
        self.expires
    }

    /// The signed part, for a ticket.
    #[must_use]
    pub fn envelope(&self) -> &[u8] {
        &self.envelope
    }

    /// The key, for a ticket. Whoever has it has the labels.
    #[must_use]
    pub fn key(&self) -> &[u8; KEY] {
        &self.key
    }

    /// Claims the labels for a node: the text that it shows to its peers.
    ///
    /// # Errors
    ///
    /// The credential is too large, as it is with an issuer's RSA key.
    pub fn claim(&self, swarm: &SwarmName, holder: &PeerId) -> Result<String, RecordError> {
        let claim = CLAIM.seal(&keypair(&self.key), swarm, &Claimed { holder: holder.to_bytes().into() })?;
        let shown = Shown { grant: self.envelope.clone().into(), claim: claim.to_vec().into() };
        let bytes = codec::encode(&shown)?;
        length("credential", bytes.len(), MAX_CREDENTIAL)?;
        Ok(data_encoding::BASE64URL_NOPAD.encode(&bytes))
    }
}

impl fmt::Debug for Grant {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Grant")
            .field("issuer", &self.issuer)
            .field("labels", &self.labels)
            .finish_non_exhaustive()
    }
}

/// What a peer has proven of itself: whether it counts depends on who the issuer is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    /// Who vouches for the labels.
    pub issuer: PeerId,
    /// Whom it is about.
    pub holder: PeerId,
    /// The labels.
    pub labels: BTreeMap<String, String>,
    /// Until when, in seconds since 1970.
    pub expires: Option<u64>,
}

impl Credential {
    /// Opens what a peer shows, which may be anything.
    ///
    /// # Errors
    ///
    /// It is no credential, not signed for this swarm, or the two parts do not belong together.
    pub fn open(swarm: &SwarmName, text: &str) -> Result<Self, RecordError> {
        length("credential", text.len(), MAX_CREDENTIAL * 4 / 3 + 4)?;
        let bytes = data_encoding::BASE64URL_NOPAD.decode(text.as_bytes()).map_err(|_| RecordError::NotCanonical)?;
        let Shown { grant, claim } = codec::decode(&bytes, MAX_CREDENTIAL)?;
        let (issuer, granted) = GRANT.open::<Granted>(swarm, &grant)?;
        check(&granted.labels)?;
        let (key, claimed) = CLAIM.open::<Claimed>(swarm, &claim)?;
        if granted.key != key.to_bytes() {
            return Err(RecordError::NotCanonical);
        }
        let holder = PeerId::from_bytes(&claimed.holder).map_err(|_| RecordError::NotCanonical)?;
        Ok(Self { issuer, holder, labels: granted.labels, expires: granted.expires })
    }
}

fn check(labels: &BTreeMap<String, String>) -> Result<(), RecordError> {
    count("labels", labels.len(), MAX_LABELS)?;
    for (key, value) in labels {
        length("label", key.len().max(value.len()), MAX_TEXT)?;
    }
    length("labels", labels.iter().map(|(key, value)| key.len() + value.len()).sum(), MAX_GRANTED)
}

fn keypair(key: &[u8; KEY]) -> Keypair {
    // A copy that is wiped after it is read.
    Keypair::ed25519_from_bytes(*key).expect("any 32 bytes are an Ed25519 key")
}

fn peer_id_of(key: &[u8; KEY]) -> PeerId {
    keypair(key).public().to_peer_id()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn swarm() -> SwarmName {
        "garden".parse().unwrap()
    }

    fn labels(role: &str) -> BTreeMap<String, String> {
        BTreeMap::from([("role".to_owned(), role.to_owned())])
    }

    #[test]
    fn whoever_has_the_ticket_proves_its_labels_for_its_own_peer_id() {
        let (issuer, holder) = (Keypair::generate_ed25519(), PeerId::random());
        let grant = Grant::issue(&issuer, &swarm(), labels("worker"), Some(7)).unwrap();
        let again = Grant::open(&swarm(), grant.envelope(), grant.key()).unwrap();
        assert_eq!(again, grant);
        let credential = Credential::open(&swarm(), &again.claim(&swarm(), &holder).unwrap()).unwrap();
        let issuer = issuer.public().to_peer_id();
        assert_eq!(credential, Credential { issuer, holder, labels: labels("worker"), expires: Some(7) });
        assert!(Credential::open(&"meadow".parse().unwrap(), &again.claim(&swarm(), &holder).unwrap()).is_err());
    }

    #[test]
    fn parts_of_two_credentials_do_not_make_a_third() {
        let issuer = Keypair::generate_ed25519();
        let make = |role| {
            let grant = Grant::issue(&issuer, &swarm(), labels(role), None).unwrap();
            let text = grant.claim(&swarm(), &PeerId::random()).unwrap();
            let shown: Shown =
                codec::decode(&data_encoding::BASE64URL_NOPAD.decode(text.as_bytes()).unwrap(), 4096).unwrap();
            shown
        };
        let (worker, admin) = (make("worker"), make("admin"));
        let mixed = codec::encode(&Shown { grant: admin.grant, claim: worker.claim }).unwrap();
        let error = Credential::open(&swarm(), &data_encoding::BASE64URL_NOPAD.encode(&mixed)).unwrap_err();
        assert!(matches!(error, RecordError::NotCanonical), "{error}");
        let grant = Grant::issue(&issuer, &swarm(), labels("worker"), None).unwrap();
        assert!(Grant::open(&swarm(), grant.envelope(), &[7; KEY]).is_err());
    }

    #[test]
    fn any_altered_byte_is_noticed() {
        let grant = Grant::issue(&Keypair::generate_ed25519(), &swarm(), labels("worker"), None).unwrap();
        let text = grant.claim(&swarm(), &PeerId::random()).unwrap();
        let bytes = data_encoding::BASE64URL_NOPAD.decode(text.as_bytes()).unwrap();
        for index in 0..bytes.len() {
            let mut altered = bytes.clone();
            altered[index] ^= 1;
            assert!(Credential::open(&swarm(), &data_encoding::BASE64URL_NOPAD.encode(&altered)).is_err(), "{index}");
        }
        for cut in 0..text.len() {
            assert!(Credential::open(&swarm(), &text[..cut]).is_err(), "{cut}");
        }
        assert!(Credential::open(&swarm(), &"A".repeat(10_000)).is_err());
    }

    #[test]
    fn labels_have_a_limit_that_is_named() {
        let many = (0..9).map(|index| (format!("{index}"), "x".repeat(200))).collect();
        let error = Grant::issue(&Keypair::generate_ed25519(), &swarm(), many, None).unwrap_err();
        assert_eq!(error.to_string(), "the `labels` has 1809 bytes, the limit is 1024");
        let most = (0..4).map(|index| (format!("{index}"), "x".repeat(255))).collect();
        let grant = Grant::issue(&Keypair::generate_ed25519(), &swarm(), most, Some(u64::MAX)).unwrap();
        let text = grant.claim(&swarm(), &PeerId::random()).unwrap();
        assert!(text.len() < 2_600 && Credential::open(&swarm(), &text).is_ok(), "{}", text.len());
    }
}
