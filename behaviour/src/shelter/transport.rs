//! Dials and handshakes under a roof. libp2p runs each of them as a task, too: one that panics would be under way for ever.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use futures::{
    FutureExt,
    future::{BoxFuture, Map},
};
use libp2p::{
    Multiaddr, PeerId,
    core::{
        Transport,
        muxing::StreamMuxerBox,
        transport::{Boxed, DialOpts, ListenerId, TransportError, TransportEvent},
    },
};

use super::{Panics, future::Sheltered, muxer, panicked};

type Output = (PeerId, StreamMuxerBox);

/// Puts what a transport does for one connection under a roof: its dial or its handshake, and its muxer. What listens is
/// not: it is asked by whoever drives the swarm.
#[must_use]
pub fn transport(inner: Boxed<Output>, panics: Panics) -> Boxed<Output> {
    let counted = panics.clone();
    Roofed { inner, panics }.map(move |(peer_id, inner), _| (peer_id, muxer(inner, counted))).boxed()
}

struct Roofed {
    inner: Boxed<Output>,
    panics: Panics,
}

type Connected = io::Result<Output>;

type Connecting = Map<Sheltered<BoxFuture<'static, Connected>>, fn(Option<Connected>) -> Connected>;

fn connecting(inner: BoxFuture<'static, Connected>, what: &'static str, panics: &Panics) -> Connecting {
    let outcome: fn(Option<Connected>) -> Connected = |outcome| outcome.unwrap_or_else(|| Err(panicked()));
    Sheltered::new(inner, what, panics.clone()).map(outcome)
}

impl Transport for Roofed {
    type Output = Output;
    type Error = io::Error;
    type ListenerUpgrade = Connecting;
    type Dial = Connecting;

    fn listen_on(&mut self, id: ListenerId, address: Multiaddr) -> Result<(), TransportError<io::Error>> {
        self.inner.listen_on(id, address)
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.inner.remove_listener(id)
    }

    fn dial(&mut self, address: Multiaddr, options: DialOpts) -> Result<Connecting, TransportError<io::Error>> {
        let dialling = self.inner.dial(address, options)?;
        Ok(connecting(dialling, "a dial", &self.panics))
    }

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<TransportEvent<Connecting, io::Error>> {
        let Self { inner, panics } = &mut *self;
        let event = Pin::new(inner).poll(context);
        event.map(|event| event.map_upgrade(|upgrade| connecting(upgrade, "a handshake", panics)))
    }
}
