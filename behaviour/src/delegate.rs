//! What behaviours, and connections, have in common that stand around another one, or only watch.

/// Gives access to the behaviour inside.
macro_rules! reach_inside {
    ($outer:ident) => {
        impl<B: libp2p::swarm::NetworkBehaviour> std::ops::Deref for $outer<B> {
            type Target = B;

            fn deref(&self) -> &B {
                &self.inner
            }
        }

        impl<B: libp2p::swarm::NetworkBehaviour> std::ops::DerefMut for $outer<B> {
            fn deref_mut(&mut self) -> &mut B {
                &mut self.inner
            }
        }
    };
}

/// The behaviour inside is asked about connections that are still to be made.
macro_rules! ask_inside_of_pending {
    () => {
        fn handle_pending_inbound_connection(
            &mut self,
            id: libp2p::swarm::ConnectionId,
            local: &libp2p::Multiaddr,
            remote: &libp2p::Multiaddr,
        ) -> Result<(), libp2p::swarm::ConnectionDenied> {
            self.inner.handle_pending_inbound_connection(id, local, remote)
        }

        fn handle_pending_outbound_connection(
            &mut self,
            id: libp2p::swarm::ConnectionId,
            peer_id: Option<libp2p::PeerId>,
            addresses: &[libp2p::Multiaddr],
            role: libp2p::core::Endpoint,
        ) -> Result<Vec<libp2p::Multiaddr>, libp2p::swarm::ConnectionDenied> {
            self.inner.handle_pending_outbound_connection(id, peer_id, addresses, role)
        }
    };
}

/// The behaviour inside makes the handlers of connections; each is put into what `$wrap` makes of it and of its connection.
macro_rules! wrap_handlers_of_inside {
    ($wrap:expr) => {
        fn handle_established_inbound_connection(
            &mut self,
            id: libp2p::swarm::ConnectionId,
            peer_id: libp2p::PeerId,
            local: &libp2p::Multiaddr,
            remote: &libp2p::Multiaddr,
        ) -> Result<libp2p::swarm::THandler<Self>, libp2p::swarm::ConnectionDenied> {
            let inner = self.inner.handle_established_inbound_connection(id, peer_id, local, remote)?;
            Ok($wrap(self, id, inner))
        }

        fn handle_established_outbound_connection(
            &mut self,
            id: libp2p::swarm::ConnectionId,
            peer_id: libp2p::PeerId,
            address: &libp2p::Multiaddr,
            role: libp2p::core::Endpoint,
            port_use: libp2p::core::transport::PortUse,
        ) -> Result<libp2p::swarm::THandler<Self>, libp2p::swarm::ConnectionDenied> {
            let inner = self.inner.handle_established_outbound_connection(id, peer_id, address, role, port_use)?;
            Ok($wrap(self, id, inner))
        }
    };
}

/// Nothing is said to connections, and nothing heard from them.
macro_rules! only_watch {
    () => {
        fn on_connection_handler_event(
            &mut self,
            _: libp2p::PeerId,
            _: libp2p::swarm::ConnectionId,
            event: libp2p::swarm::THandlerOutEvent<Self>,
        ) {
            match event {}
        }

        fn poll(
            &mut self,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<libp2p::swarm::ToSwarm<Self::ToSwarm, libp2p::swarm::THandlerInEvent<Self>>> {
            std::task::Poll::Pending
        }
    };
}

/// What is written goes through as it is, to the connection inside.
macro_rules! write_through {
    ($outer:ident) => {
        impl<C: futures::AsyncWrite + Unpin> futures::AsyncWrite for $outer<C> {
            fn poll_write(
                mut self: std::pin::Pin<&mut Self>,
                context: &mut std::task::Context<'_>,
                buffer: &[u8],
            ) -> std::task::Poll<std::io::Result<usize>> {
                std::pin::Pin::new(&mut self.io).poll_write(context, buffer)
            }

            fn poll_write_vectored(
                mut self: std::pin::Pin<&mut Self>,
                context: &mut std::task::Context<'_>,
                buffers: &[std::io::IoSlice<'_>],
            ) -> std::task::Poll<std::io::Result<usize>> {
                std::pin::Pin::new(&mut self.io).poll_write_vectored(context, buffers)
            }

            fn poll_flush(
                mut self: std::pin::Pin<&mut Self>,
                context: &mut std::task::Context<'_>,
            ) -> std::task::Poll<std::io::Result<()>> {
                std::pin::Pin::new(&mut self.io).poll_flush(context)
            }

            fn poll_close(
                mut self: std::pin::Pin<&mut Self>,
                context: &mut std::task::Context<'_>,
            ) -> std::task::Poll<std::io::Result<()>> {
                std::pin::Pin::new(&mut self.io).poll_close(context)
            }
        }
    };
}

pub(crate) use {ask_inside_of_pending, only_watch, reach_inside, wrap_handlers_of_inside, write_through};
