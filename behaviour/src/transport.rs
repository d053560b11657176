//! How bytes travel: TCP (and memory, for tests) under noise and yamux; with feature `wan` also QUIC, DNS names and
//! WebSocket.

use std::time::Duration;

use libp2p::{
    PeerId, Transport,
    core::{
        muxing::StreamMuxerBox,
        transport::{Boxed, MemoryTransport},
        upgrade::Version,
    },
    identity::Keypair,
    noise, tcp, yamux,
};

/// For the whole of dialling, encryption and multiplexing: a reachable peer needs milliseconds, across the world less
/// than two seconds.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Streams a peer may have open on one connection. A peer needs about ten, and one for each big message under way.
const MAX_STREAMS: usize = 512;

/// Builds the transport.
///
/// # Errors
///
/// The key cannot be used for noise.
pub fn new(keypair: &Keypair) -> Result<Boxed<(PeerId, StreamMuxerBox)>, TransportError> {
    let mut yamux = yamux::Config::default();
    yamux.set_max_num_streams(MAX_STREAMS);
    // Lazy negotiation saves the dialler a round trip per layer; there is only one choice for each anyway.
    Ok(MemoryTransport::default()
        .or_transport(tcp::tokio::Transport::new(tcp::Config::default().nodelay(true)))
        .upgrade(Version::V1Lazy)
        .authenticate(noise::Config::new(keypair)?)
        .multiplex(yamux)
        .timeout(CONNECT_TIMEOUT)
        .boxed())
}

/// A transport that cannot be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransportError {
    /// The key cannot be used for noise.
    #[error("the key cannot be used for encryption: {0}")]
    Noise(#[from] noise::Error),
}
