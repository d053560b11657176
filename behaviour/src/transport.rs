//! How bytes travel: TCP (and memory, for nodes of one process) under noise and yamux; with feature `wan` also QUIC,
//! DNS names and WebSocket.
//!
//! In a private swarm a pre-shared key lies below noise, and nothing but TCP and memory is spoken: QUIC encrypts by itself,
//! and has no place for a key.

use std::{io, time::Duration};

use libp2p::{
    PeerId, Transport,
    core::{
        ConnectedPoint,
        muxing::{StreamMuxer, StreamMuxerBox},
        transport::{Boxed, MemoryTransport, map_err::MapErr, timeout::TransportTimeout},
        upgrade::Version,
    },
    identity::Keypair,
    noise,
    pnet::{PnetConfig, PnetError},
    tcp, yamux,
};

use crate::{
    Privacy, corked, frames,
    places::{Fair, Spoken},
    pulse::Pulses,
    read_ahead::ReadAhead,
    zoned::Zoned,
};

/// For the whole of dialling, encryption and multiplexing: a reachable peer needs milliseconds, across the world less
/// than two seconds.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Streams that may be open on one connection. A peer needs about ten, and one for each big message under way.
const MAX_STREAMS: usize = 512;

/// Saves the dialler a round trip per layer. Nothing is lost: of encryption and of multiplexing there is one choice each.
const NEGOTIATION: Version = Version::V1Lazy;

/// Builds the transport of an open swarm.
///
/// # Errors
///
/// The key cannot be used for noise.
pub fn new(keypair: &Keypair) -> Result<Boxed<(PeerId, StreamMuxerBox)>, TransportError> {
    with_pulses(keypair, None)
}

/// The same, and leaves the pulse of each connection where its owner finds it.
pub(crate) fn with_pulses(
    keypair: &Keypair,
    pulses: Option<&Pulses>,
) -> Result<Boxed<(PeerId, StreamMuxerBox)>, TransportError> {
    let noise = noise::Config::new(keypair)?;
    let tcp = tcp_transport().map(|stream, _| ReadAhead::new(stream));
    let transport = MemoryTransport::default()
        .or_transport(tcp)
        .upgrade(NEGOTIATION)
        .authenticate(Spoken(noise))
        .multiplex(multiplexing())
        .map(leaving(pulses.cloned()));
    #[cfg(feature = "wan")]
    let transport = wan::extend(transport, keypair, pulses)?;
    Ok(limited(transport))
}

/// Builds the transport of a private swarm: whoever has not its keys sees 24 random bytes, and is hung up on.
///
/// The pre-shared key hides everything, the handshake of noise and the names of protocols included, but it does not prove
/// anything. Noise does: the secret is in its prologue, so both ends have it or the handshake fails.
///
/// # Errors
///
/// The key cannot be used for noise.
pub fn private(keypair: &Keypair, privacy: &Privacy) -> Result<Boxed<(PeerId, StreamMuxerBox)>, TransportError> {
    private_with_pulses(keypair, privacy, None)
}

pub(crate) fn private_with_pulses(
    keypair: &Keypair,
    privacy: &Privacy,
    pulses: Option<&Pulses>,
) -> Result<Boxed<(PeerId, StreamMuxerBox)>, TransportError> {
    let noise = noise::Config::new(keypair)?.with_prologue(privacy.prologue().to_vec());
    let guard = PnetConfig::new(privacy.pre_shared_key());
    let tcp = tcp_transport().map(|stream, _| ReadAhead::new(stream));
    let transport = MemoryTransport::default()
        .or_transport(tcp)
        .and_then(move |stream, _| guard.handshake(stream))
        .upgrade(NEGOTIATION)
        .authenticate(Spoken(noise))
        .multiplex(multiplexing())
        .map(leaving(pulses.cloned()));
    #[cfg(feature = "wan")]
    let transport = wan::named(transport)?;
    Ok(limited(transport))
}

/// Limits how long a handshake takes, and how many there are at once.
fn limited<T>(transport: T) -> Boxed<(PeerId, StreamMuxerBox)>
where
    T: Transport<Output = (PeerId, StreamMuxerBox)> + Send + Unpin + 'static,
    T::Error: Send + Sync + 'static,
    T::Dial: Send + 'static,
    T::ListenerUpgrade: Send + 'static,
{
    Fair::new(TransportTimeout::new(transport, CONNECT_TIMEOUT).boxed()).boxed()
}

fn tcp_transport() -> MapErr<Zoned, fn(io::Error) -> TcpError> {
    Zoned::new(tcp::tokio::Transport::new(tcp::Config::default().nodelay(true)))
        .map_err(TcpError as fn(io::Error) -> TcpError)
}

/// An error of the system, as the source of an error: where transports are combined only the source of what they say
/// can be asked for, and whoever dials wants to know a refusal from silence.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct TcpError(#[source] io::Error);

/// The error of the system within one of an encryption that does not name it as its source.
#[must_use]
pub fn hidden_cause<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a io::Error> {
    if let Some(noise::Error::Io(cause)) = error.downcast_ref() {
        return Some(cause);
    }
    match error.downcast_ref()? {
        PnetError::HandshakeError(cause) | PnetError::IoError(cause) => Some(cause),
    }
}

/// Leaves the pulse of each connection, and makes its muxer one like all others.
fn leaving<M>(
    pulses: Option<Pulses>,
) -> impl FnOnce((PeerId, frames::Muxer<M>), ConnectedPoint) -> (PeerId, StreamMuxerBox) + Clone
where
    M: StreamMuxer + Send + Unpin + 'static,
    M::Substream: Send + 'static,
    M::Error: Send + Sync + 'static,
{
    move |(peer_id, muxer), endpoint| {
        if let Some(pulses) = &pulses {
            pulses.add(peer_id, endpoint.get_remote_address(), muxer.pulse());
        }
        (peer_id, StreamMuxerBox::new(muxer))
    }
}

fn multiplexing() -> frames::Config {
    let mut yamux = yamux::Config::default();
    yamux.set_max_num_streams(MAX_STREAMS);
    corked::Config::from(yamux).into()
}

/// A transport that cannot be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransportError {
    /// The key cannot be used for noise.
    #[error("the key cannot be used for encryption: {0}")]
    Noise(#[from] noise::Error),
    /// The system's way of resolving names cannot be read.
    #[cfg(feature = "wan")]
    #[error("the system's name servers cannot be read: {0}")]
    Names(#[from] io::Error),
}

#[cfg(feature = "wan")]
mod wan {
    //! What a LAN does not need.

    use libp2p::{dns, quic, websocket};

    use super::{
        Boxed, Keypair, NEGOTIATION, PeerId, Pulses, Spoken, StreamMuxerBox, Transport, TransportError, leaving,
        multiplexing, noise, tcp_transport,
    };

    type Output = (PeerId, StreamMuxerBox);

    pub(super) fn extend<T>(
        transport: T,
        keypair: &Keypair,
        pulses: Option<&Pulses>,
    ) -> Result<Boxed<Output>, TransportError>
    where
        T: Transport<Output = Output> + Send + Unpin + 'static,
        T::Error: Send + Sync + 'static,
        T::Dial: Send,
        T::ListenerUpgrade: Send,
    {
        let quic = quic::tokio::Transport::new(quic::Config::new(keypair))
            .map(|(peer_id, connection), _| (peer_id, StreamMuxerBox::new(connection)));
        let direct = transport.or_transport(quic).map(|either, _| either.into_inner());
        // WebSocket comes first: TCP would take its addresses for its own, and then speak the wrong protocol.
        let websocket = websocket::Config::new(named(tcp_transport())?)
            .upgrade(NEGOTIATION)
            .authenticate(Spoken(noise::Config::new(keypair)?))
            .multiplex(multiplexing())
            .map(leaving(pulses.cloned()));
        Ok(websocket.or_transport(named(direct)?).map(|either, _| either.into_inner()).boxed())
    }

    /// Resolves names as the system does. Where the system does not say how, only addresses without names work: asking
    /// public servers instead would tell them whom this node seeks.
    pub(super) fn named<T>(transport: T) -> Result<dns::tokio::Transport<T>, TransportError> {
        if let Err(error) = dns::tokio::Transport::system(()) {
            tracing::warn!(%error, "names in addresses cannot be resolved, the system names no server");
            let (config, options) = (dns::ResolverConfig::default(), dns::ResolverOpts::default());
            return Ok(dns::tokio::Transport::custom(transport, config, options));
        }
        Ok(dns::tokio::Transport::system(transport)?)
    }
}
