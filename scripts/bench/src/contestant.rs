//! Who takes part, and what each must be able to do.

use bytes::Bytes;
use libp2p::core::upgrade::Version;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tokio::{io::AsyncReadExt, runtime::Runtime};

use crate::{Error, ours, raw, request_response};

/// Payloads longer than this are not echoed: the answer is their length in eight bytes.
pub(crate) const ECHO_LIMIT: usize = 4096;

/// One way of sending a request to another process and getting an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Contestant {
    /// Length-prefixed frames over TCP, without encryption.
    Raw,
    /// `libp2p::request_response::cbor` over TCP, noise and yamux, with limits raised so that nothing fails.
    RequestResponse,
    /// The same at its best: the protocol of each request is not negotiated before the request is sent.
    RequestResponseLazy,
    /// This repository's library, by its public API.
    MultiNodes,
    /// Dask distributed, which spreads items as `map` does.
    Dask,
}

/// The calling side. Its clones share one connection.
pub(crate) trait Client: Clone + Send + Sync + 'static {
    /// Sends `payload`, gives the length of the answer.
    fn call(&self, payload: Bytes) -> impl Future<Output = Result<usize, Error>> + Send;
}

impl Contestant {
    pub(crate) const ALL: [Self; 5] =
        [Self::Raw, Self::RequestResponse, Self::RequestResponseLazy, Self::MultiNodes, Self::Dask];

    /// Its name on the command line and in the JSON.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::RequestResponse => "rr",
            Self::RequestResponseLazy => "rr-lazy",
            Self::MultiNodes => "multinodes",
            Self::Dask => "dask",
        }
    }

    pub(crate) fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|contestant| contestant.name() == name)
    }

    /// Whether it takes part in the phases in which one process calls another one.
    pub(crate) fn calls(self) -> bool {
        self != Self::Dask
    }

    /// Is the other process until standard input ends, which it does when the driver is gone.
    pub(crate) fn serve(self, swarm: String) -> Result<(), Error> {
        until_stdin_ends(async move {
            match self {
                Self::Raw => raw::serve().await,
                Self::RequestResponse => request_response::serve(Version::V1).await,
                Self::RequestResponseLazy => request_response::serve(Version::V1Lazy).await,
                Self::MultiNodes => ours::serve(&swarm).await,
                Self::Dask => Err("it has processes of its own".into()),
            }
        })
    }
}

/// Runs `work` until it ends, or until standard input does.
pub(crate) fn until_stdin_ends(work: impl Future<Output = Result<(), Error>> + Send + 'static) -> Result<(), Error> {
    let runtime = runtime()?;
    let work = runtime.spawn(work);
    runtime.block_on(async {
        let mut stdin = tokio::io::stdin();
        tokio::select! {
            outcome = work => outcome?,
            _ = stdin.read_u8() => Ok(()),
        }
    })?;
    runtime.shutdown_background();
    Ok(())
}

/// The same runtime for every contestant, on both sides.
pub(crate) fn runtime() -> std::io::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()
}

/// Bytes that are cloned without copying and written as one CBOR byte string.
#[derive(Debug, Clone)]
pub(crate) struct Blob(pub(crate) Bytes);

impl Blob {
    /// What every server answers.
    pub(crate) fn answer(self) -> Self {
        if self.0.len() <= ECHO_LIMIT { self } else { Self(Bytes::copy_from_slice(&self.0.len().to_be_bytes())) }
    }
}

impl Serialize for Blob {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        serde_bytes::ByteBuf::deserialize(deserializer).map(|bytes| Self(bytes.into_vec().into()))
    }
}
