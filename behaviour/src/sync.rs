//! Levels the directories of two neighbours: gossip alone never reaches who was not there.
//!
//! One exchange: `Offer` with the digest of all that is held; if the answer needs them, `Offer` again with the versions;
//! the answer carries what the asker lacks, and names what the answerer lacks, which follows in a `Push`.
//! When to speak is the driver's business; here are the protocol and the arithmetic.

use std::{collections::HashMap, io, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::{
    PeerId, StreamProtocol,
    request_response::{self, ProtocolSupport},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_bytes::ByteBuf;
use sha2::{Digest, Sha256};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{
    SwarmName,
    codec::{self, DecodeError},
    wire::{SyncRequest, SyncResponse, Version},
};

pub use crate::wire::{MAX_RECORDS, MAX_VERSIONS, MAX_WANTED};

/// The request-response behaviour of this protocol.
pub type Behaviour = request_response::Behaviour<Codec>;

/// What the behaviour reports.
pub type Event = request_response::Event<SyncRequest, SyncResponse>;

/// Where an answer goes.
pub type ResponseChannel = request_response::ResponseChannel<SyncResponse>;

/// The largest request, in bytes: versions of 24,576 nodes and 2 MiB of records.
pub const MAX_REQUEST: usize = 4 * 1024 * 1024;

/// The largest response, in bytes.
pub const MAX_RESPONSE: usize = 4 * 1024 * 1024;

/// How many bytes of records go into one message: what is left of it is for versions and wishes.
pub const RECORDS_BUDGET: usize = 2 * 1024 * 1024;

/// How long an exchange may take. A node that is asked answers from memory, at once.
const TIMEOUT: Duration = Duration::from_secs(5);

/// A neighbour has one or two exchanges with us at a time; each may cost us the memory of a whole message.
const MAX_STREAMS: usize = 8;

/// What is read of exchanges takes room in parts of so many bytes. The first one of each is free: there are no more of
/// them than streams.
const PART: usize = 64 * 1024;

/// All that is being read together.
const ROOM: usize = 64 * MAX_REQUEST;

/// What is being read on one connection: no honest neighbour sends two of the largest at once.
const SHARE: usize = 2 * MAX_REQUEST;

/// Bytes of a digest. It guards against differences, not against attackers: each record has its own signature.
const DIGEST: usize = 16;

/// About what CBOR adds to each record.
const RECORD_OVERHEAD: usize = 8;

/// Creates the behaviour of a swarm's sync protocol.
#[must_use]
pub fn new(swarm: &SwarmName) -> Behaviour {
    let config =
        request_response::Config::default().with_request_timeout(TIMEOUT).with_max_concurrent_streams(MAX_STREAMS);
    Behaviour::with_codec(Codec::default(), [(swarm.sync_protocol(), ProtocolSupport::Full)], config)
}

/// The digest of all that is held: equal on two sides if and only if the versions are.
#[must_use]
pub fn digest(held: impl IntoIterator<Item = (PeerId, Version)>) -> ByteBuf {
    let mut held: Vec<_> = held.into_iter().map(|(peer_id, version)| (peer_id.to_bytes(), version)).collect();
    held.sort_unstable();
    let mut hash = Sha256::new();
    for (peer_id, version) in held {
        hash.update((peer_id.len() as u64).to_be_bytes());
        hash.update(peer_id);
        hash.update(version.incarnation.to_be_bytes());
        hash.update(version.revision.to_be_bytes());
    }
    ByteBuf::from(&hash.finalize()[..DIGEST])
}

/// What is held, as it is written in an offer. Beyond [`MAX_VERSIONS`] some are left out; what the other side then sends
/// in vain does no harm.
#[must_use]
pub fn versions(held: impl IntoIterator<Item = (PeerId, Version)>) -> Vec<(ByteBuf, Version)> {
    let encoded = held.into_iter().map(|(peer_id, version)| (ByteBuf::from(peer_id.to_bytes()), version));
    encoded.take(MAX_VERSIONS).collect()
}

/// Compares what is held here with what an offer says is held there. Peer ids that are none are left out.
#[must_use]
pub fn compare(here: impl IntoIterator<Item = (PeerId, Version)>, there: &[(ByteBuf, Version)]) -> Difference {
    let mut there: HashMap<PeerId, Version> =
        there.iter().filter_map(|(bytes, version)| Some((PeerId::from_bytes(bytes).ok()?, *version))).collect();
    let mut difference = Difference::default();
    for (peer_id, version) in here {
        match there.remove(&peer_id) {
            Some(theirs) if theirs > version => difference.newer_there.push(peer_id),
            Some(theirs) if theirs == version => {}
            _ => difference.newer_here.push(peer_id),
        }
    }
    difference.newer_there.extend(there.into_keys());
    difference
}

/// How two directories differ.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Difference {
    /// Whose record is newer here, or only here.
    pub newer_here: Vec<PeerId>,
    /// Whose record is newer there, or only there.
    pub newer_there: Vec<PeerId>,
}

/// Takes envelopes as long as they fit [`RECORDS_BUDGET`] and [`MAX_RECORDS`]; true if some were left. One record always fits.
#[must_use]
pub fn fill<'a>(envelopes: impl IntoIterator<Item = &'a Bytes>) -> (Vec<ByteBuf>, bool) {
    let mut left = RECORDS_BUDGET;
    let mut taken = Vec::new();
    for envelope in envelopes {
        let size = envelope.len() + RECORD_OVERHEAD;
        if size > left || taken.len() == MAX_RECORDS {
            return (taken, true);
        }
        left -= size;
        taken.push(ByteBuf::from(envelope.to_vec()));
    }
    (taken, false)
}

/// The peer ids to ask for, at most [`MAX_WANTED`]; true if some were left.
#[must_use]
pub fn wanted(peer_ids: &[PeerId]) -> (Vec<ByteBuf>, bool) {
    let taken = peer_ids.iter().take(MAX_WANTED).map(|peer_id| ByteBuf::from(peer_id.to_bytes())).collect();
    (taken, peer_ids.len() > MAX_WANTED)
}

/// Reads and writes one CBOR value a stream, within the limits. What is being read takes room, of which all connections
/// have so much together, and each clone that is made for a connection has its share.
#[derive(Debug, Default)]
pub struct Codec {
    room: Room,
    /// Absent in the one that the behaviour keeps.
    share: Option<Room>,
}

impl Clone for Codec {
    /// The behaviour clones its own codec for each connection, and that of the connection for each stream.
    fn clone(&self) -> Self {
        let share = self.share.clone().unwrap_or_else(|| Room::of(SHARE));
        Self { room: self.room.clone(), share: Some(share) }
    }
}

/// What may still be read, in parts of [`PART`] bytes.
#[derive(Debug, Clone)]
struct Room(Arc<Semaphore>);

impl Room {
    fn of(bytes: usize) -> Self {
        Self(Arc::new(Semaphore::new(bytes / PART)))
    }

    async fn take(&self) -> io::Result<OwnedSemaphorePermit> {
        self.0.clone().acquire_owned().await.map_err(io::Error::other)
    }
}

impl Default for Room {
    fn default() -> Self {
        Self::of(ROOM)
    }
}

impl Codec {
    /// Reads to the end of the stream. Beyond the first part there has to be room for each: it is waited for as long as
    /// the exchange may take.
    async fn read<T: DeserializeOwned>(&self, io: &mut (impl AsyncRead + Unpin + Send), limit: usize) -> io::Result<T> {
        let (mut bytes, mut held) = (Vec::new(), Vec::new());
        // One byte more than the limit, so that what is too long is told from what is broken.
        let mut io = io.take(limit as u64 + 1);
        loop {
            let before = bytes.len();
            (&mut io).take(PART as u64).read_to_end(&mut bytes).await?;
            if bytes.len() < before + PART {
                break;
            }
            if let Some(share) = &self.share {
                held.push(share.take().await?);
            }
            held.push(self.room.take().await?);
        }
        codec::decode(&bytes, limit).map_err(|error| io::Error::new(kind(&error), error))
    }
}

impl request_response::Codec for Codec {
    type Protocol = StreamProtocol;
    type Request = SyncRequest;
    type Response = SyncResponse;

    async fn read_request<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<SyncRequest>
    where
        T: AsyncRead + Unpin + Send,
    {
        // As an error libp2p would keep it to itself, and nobody would know whose it was.
        match self.read(io, MAX_REQUEST).await {
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(SyncRequest::Malformed(error.to_string())),
            outcome => outcome,
        }
    }

    async fn read_response<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<SyncResponse>
    where
        T: AsyncRead + Unpin + Send,
    {
        self.read(io, MAX_RESPONSE).await
    }

    async fn write_request<T>(&mut self, _: &StreamProtocol, io: &mut T, request: SyncRequest) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        write(io, &request, MAX_REQUEST).await
    }

    async fn write_response<T>(&mut self, _: &StreamProtocol, io: &mut T, response: SyncResponse) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        write(io, &response, MAX_RESPONSE).await
    }
}

/// What ends too early was cut off: the other side has closed the stream without an answer, or is gone. That is no fault.
fn kind(error: &DecodeError) -> io::ErrorKind {
    match error {
        DecodeError::Malformed(error) if error.is_eof() => io::ErrorKind::UnexpectedEof,
        _ => io::ErrorKind::InvalidData,
    }
}

async fn write<T: Serialize>(io: &mut (impl AsyncWrite + Unpin + Send), value: &T, limit: usize) -> io::Result<()> {
    let bytes = codec::encode(value).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    if bytes.len() > limit {
        let text = format!("a sync message of {} bytes is over the limit of {limit}", bytes.len());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    io.write_all(&bytes).await
}

#[cfg(test)]
mod tests;
