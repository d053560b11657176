//! What a node says of itself, signed with its key: anyone may pass it on, nobody can forge it.
//!
//! The envelope is libp2p's own (RFC 0002). The swarm's name is in the domain that is signed, so that a record of one
//! swarm proves nothing in another, and records and beats have domains of their own.

use bytes::Bytes;
use libp2p::{
    Multiaddr, PeerId,
    core::{
        SignedEnvelope,
        signed_envelope::{DecodingError, ReadPayloadError},
    },
    identity::{Keypair, SigningError},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{
    SwarmName,
    codec::{self, Budget},
    names::{self, BadName},
    wire::{ApplicationRecord, Beat, MAX_NAME, Record, Version},
};

/// The largest signed record, in bytes: it must fit one gossip message of 64 KiB, envelope and all.
pub const MAX_RECORD: usize = 48 * 1024;

/// The largest signed beat, in bytes. One with an ed25519 key has about 200, one with an RSA key about 900.
pub const MAX_BEAT: usize = 2 * 1024;

/// The longest name of a node, in bytes.
pub const MAX_NODE_NAME: usize = 128;

/// The most addresses in a record: more would only be dialled in vain.
pub const MAX_ADDRESSES: usize = 32;

/// The longest binary address in a record, in bytes. WebTransport addresses with hashes have about 150.
pub const MAX_ADDRESS: usize = 512;

/// The most applications in a record.
pub const MAX_APPLICATIONS: usize = 1024;

/// The most actions of one application.
pub const MAX_ACTIONS: usize = 1024;

/// The most values in the descriptions of all applications of a record, each list, each map and each key among them: a
/// value of one byte on the wire may take hundreds in memory, in every node of the swarm.
pub const MAX_VALUES: usize = 2048;

/// How deep a description may nest: a list in a list has the depth 2.
pub const MAX_DEPTH: usize = 32;

/// The most labels of a node.
pub const MAX_LABELS: usize = 64;

/// The longest label, version and the like, in bytes.
pub const MAX_TEXT: usize = 256;

/// The longest token of a host, in bytes.
pub const MAX_HOST: usize = 64;

/// A record with the proof of who wrote it. Cloning copies the record but not the envelope.
#[derive(Debug, Clone, PartialEq)]
pub struct SignedRecord {
    /// Whose key has signed: the node that the record describes.
    pub peer_id: PeerId,
    /// What the node says of itself.
    pub record: Record,
    envelope: Bytes,
}

impl SignedRecord {
    /// Signs a record.
    ///
    /// # Errors
    ///
    /// A part of the record, or the whole, is over its limit, or the key cannot sign.
    pub fn sign(keypair: &Keypair, swarm: &SwarmName, record: Record) -> Result<Self, RecordError> {
        check(&record)?;
        let envelope = RECORD.seal(keypair, swarm, &record)?;
        Ok(Self { peer_id: keypair.public().to_peer_id(), record, envelope })
    }

    /// Opens an envelope, which may come from anyone.
    ///
    /// # Errors
    ///
    /// It is too large, not an envelope, not signed for this swarm, or a part of the record is over its limit.
    pub fn open(swarm: &SwarmName, envelope: &[u8]) -> Result<Self, RecordError> {
        let (peer_id, record) = RECORD.open(swarm, envelope)?;
        check(&record)?;
        Ok(Self { peer_id, record, envelope: Bytes::copy_from_slice(envelope) })
    }

    /// The bytes to pass on.
    #[must_use]
    pub fn envelope(&self) -> &Bytes {
        &self.envelope
    }

    /// Who has signed what, and the bytes to pass on.
    #[must_use]
    pub fn into_parts(self) -> (PeerId, Record, Bytes) {
        (self.peer_id, self.record, self.envelope)
    }

    /// Which state of the node this is.
    #[must_use]
    pub fn version(&self) -> Version {
        Version { incarnation: self.record.incarnation, revision: self.record.revision }
    }

    /// The addresses that can be decoded; those of a kind this libp2p does not know are left out.
    #[must_use]
    pub fn addresses(&self) -> Vec<Multiaddr> {
        self.record.addresses.iter().filter_map(|bytes| Multiaddr::try_from(bytes.to_vec()).ok()).collect()
    }
}

/// A sign of life with the proof of who gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedBeat {
    /// Whose key has signed: the node that is alive.
    pub peer_id: PeerId,
    /// The sign of life.
    pub beat: Beat,
    envelope: Bytes,
}

impl SignedBeat {
    /// Signs a beat.
    ///
    /// # Errors
    ///
    /// The key cannot sign.
    pub fn sign(keypair: &Keypair, swarm: &SwarmName, beat: Beat) -> Result<Self, RecordError> {
        let envelope = BEAT.seal(keypair, swarm, &beat)?;
        Ok(Self { peer_id: keypair.public().to_peer_id(), beat, envelope })
    }

    /// Opens an envelope, which may come from anyone.
    ///
    /// # Errors
    ///
    /// It is too large, not an envelope, or not signed for this swarm.
    pub fn open(swarm: &SwarmName, envelope: &[u8]) -> Result<Self, RecordError> {
        let (peer_id, beat) = BEAT.open(swarm, envelope)?;
        Ok(Self { peer_id, beat, envelope: Bytes::copy_from_slice(envelope) })
    }

    /// The bytes to pass on.
    #[must_use]
    pub fn envelope(&self) -> &Bytes {
        &self.envelope
    }

    /// Which state of the node's record is the current one.
    #[must_use]
    pub fn version(&self) -> Version {
        Version { incarnation: self.beat.incarnation, revision: self.beat.revision }
    }
}

/// One kind of signed thing.
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    pub(crate) limit: usize,
}

/// Whatever is signed is decoded within so much: what a record may say takes a megabyte or two.
const BUDGET: Budget = Budget { values: MAX_VALUES, bytes: 4 << 20 };

const RECORD: Kind = Kind { name: "record", limit: MAX_RECORD };
const BEAT: Kind = Kind { name: "beat", limit: MAX_BEAT };

impl Kind {
    pub(crate) fn seal<T: Serialize>(
        &self,
        keypair: &Keypair,
        swarm: &SwarmName,
        value: &T,
    ) -> Result<Bytes, RecordError> {
        let payload = codec::encode(value)?;
        let envelope = SignedEnvelope::new(keypair, self.domain(swarm), self.payload_type(), payload)?;
        let bytes = envelope.into_protobuf_encoding();
        self.check_size(&bytes)?;
        Ok(bytes.into())
    }

    pub(crate) fn open<T: DeserializeOwned>(
        &self,
        swarm: &SwarmName,
        bytes: &[u8],
    ) -> Result<(PeerId, T), RecordError> {
        self.check_size(bytes)?;
        let envelope = SignedEnvelope::from_protobuf_encoding(bytes)?;
        // Protobuf ignores unknown fields: without this, anyone could make endless different envelopes of one record.
        if envelope.clone().into_protobuf_encoding() != bytes {
            return Err(RecordError::NotCanonical);
        }
        let (payload, key) = envelope.payload_and_signing_key(self.domain(swarm), &self.payload_type())?;
        Ok((key.to_peer_id(), codec::decode_within(payload, BUDGET)?))
    }

    fn check_size(&self, bytes: &[u8]) -> Result<(), RecordError> {
        let (size, limit) = (bytes.len(), self.limit);
        if size > limit { Err(RecordError::TooLarge { what: self.name, size, limit }) } else { Ok(()) }
    }

    fn domain(&self, swarm: &SwarmName) -> String {
        format!("multinodes/{swarm}/{}", self.name)
    }

    fn payload_type(&self) -> Vec<u8> {
        format!("/multinodes/{}/1", self.name).into_bytes()
    }
}

fn check(record: &Record) -> Result<(), RecordError> {
    names::check_node(&record.name, MAX_NODE_NAME)?;
    length("software", record.software.len(), MAX_TEXT)?;
    length("host", record.host.as_ref().map_or(0, |host| host.len()), MAX_HOST)?;
    length("process", record.process.as_ref().map_or(0, |process| process.len()), MAX_HOST)?;
    count("addresses", record.addresses.len(), MAX_ADDRESSES)?;
    for address in &record.addresses {
        length("address", address.len(), MAX_ADDRESS)?;
    }
    count("labels", record.labels.len(), MAX_LABELS)?;
    for (key, value) in &record.labels {
        length("label", key.len().max(value.len()), MAX_TEXT)?;
    }
    count("applications", record.applications.len(), MAX_APPLICATIONS)?;
    record.applications.iter().try_for_each(check_application)?;
    let values = |application: &ApplicationRecord| values(&application.description);
    count("values in descriptions", record.applications.iter().map(values).sum(), MAX_VALUES)
}

fn check_application(application: &ApplicationRecord) -> Result<(), RecordError> {
    names::check("an application", &application.name, MAX_NAME)?;
    length("version", application.version.as_ref().map_or(0, String::len), MAX_TEXT)?;
    length("trouble", application.trouble.as_ref().map_or(0, String::len), MAX_TEXT)?;
    count("actions", application.actions.len(), MAX_ACTIONS)?;
    count("idempotent actions", application.idempotent.len(), MAX_ACTIONS)?;
    depth("description", depth_of(&application.description), MAX_DEPTH)?;
    let mut actions = application.actions.iter().chain(&application.idempotent);
    Ok(actions.try_for_each(|action| names::check("an action", action, MAX_NAME))?)
}

/// How many values there are in one, itself and all keys included.
fn values(value: &Value) -> usize {
    match value {
        Value::Array(inner) => 1 + inner.iter().map(values).sum::<usize>(),
        Value::Object(inner) => 1 + inner.values().map(|inner| 1 + values(inner)).sum::<usize>(),
        _ => 1,
    }
}

/// How many lists and maps there are one within the other. The decoder stops at [`codec::MAX_DEPTH`] of them.
fn depth_of(value: &Value) -> usize {
    match value {
        Value::Array(inner) => 1 + inner.iter().map(depth_of).max().unwrap_or(0),
        Value::Object(inner) => 1 + inner.values().map(depth_of).max().unwrap_or(0),
        _ => 0,
    }
}

fn depth(what: &'static str, depth: usize, limit: usize) -> Result<(), RecordError> {
    if depth > limit { Err(RecordError::TooDeep { what, depth, limit }) } else { Ok(()) }
}

pub(crate) fn length(what: &'static str, size: usize, limit: usize) -> Result<(), RecordError> {
    if size > limit { Err(RecordError::TooLarge { what, size, limit }) } else { Ok(()) }
}

pub(crate) fn count(what: &'static str, count: usize, limit: usize) -> Result<(), RecordError> {
    if count > limit { Err(RecordError::TooMany { what, count, limit }) } else { Ok(()) }
}

/// A record, a beat or a message that cannot be signed or is not believed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// The whole or a part has too many bytes.
    #[error("the `{what}` has {size} bytes, the limit is {limit}")]
    TooLarge {
        /// Which part.
        what: &'static str,
        /// Its size, in bytes.
        size: usize,
        /// Its limit, in bytes.
        limit: usize,
    },
    /// A part has too many elements.
    #[error("there are {count} `{what}`, the limit is {limit}")]
    TooMany {
        /// Which part.
        what: &'static str,
        /// How many it has.
        count: usize,
        /// How many it may have.
        limit: usize,
    },
    /// A part has too many lists and maps one within the other.
    #[error("the `{what}` nests {depth} deep, the limit is {limit}")]
    TooDeep {
        /// Which part.
        what: &'static str,
        /// How deep it nests.
        depth: usize,
        /// How deep it may nest.
        limit: usize,
    },
    /// A name is empty, too long, or not one that can be told from others.
    #[error(transparent)]
    Name(#[from] BadName),
    /// The bytes are no envelope.
    #[error("not a signed envelope: {0}")]
    Envelope(#[from] DecodingError),
    /// The envelope has more in it than a signed envelope has.
    #[error("the signed envelope is not in its canonical form")]
    NotCanonical,
    /// The signature is wrong, or made for another swarm or another kind of message.
    #[error("not signed for this swarm and use: {0}")]
    Signature(#[from] ReadPayloadError),
    /// The key cannot sign.
    #[error("cannot be signed: {0}")]
    Sign(#[from] SigningError),
    /// The content cannot be written.
    #[error(transparent)]
    Encode(#[from] codec::EncodeError),
    /// The signed content is not what it should be.
    #[error(transparent)]
    Decode(#[from] codec::DecodeError),
}

#[cfg(test)]
mod tests;
