//! How names to join through are resolved, and how often.

use std::{fmt, io, net::SocketAddr, sync::Arc, time::Duration};

use futures::future::BoxFuture;

/// Who starts with others of the same name is there before the name knows all; those who have met only some of them meet
/// the rest after about so long.
const AGAIN: Duration = Duration::from_secs(60);

/// Asks for the addresses of a host, with a port.
type Ask = dyn Fn(String, u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> + Send + Sync;

/// A way to resolve names.
#[derive(Clone)]
pub(crate) struct Resolver {
    ask: Arc<Ask>,
    /// After how long a name is asked for again.
    pub(crate) again: Duration,
}

impl Resolver {
    #[cfg(test)]
    pub(crate) fn new(
        again: Duration,
        ask: impl Fn(String, u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> + Send + Sync + 'static,
    ) -> Self {
        Self { ask: Arc::new(ask), again }
    }

    pub(crate) async fn ask(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        (self.ask)(host.to_owned(), port).await
    }
}

impl Default for Resolver {
    /// That of the system.
    fn default() -> Self {
        let ask = |host: String, port| -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
            Box::pin(async move { Ok(tokio::net::lookup_host((host.as_str(), port)).await?.collect()) })
        };
        Self { ask: Arc::new(ask), again: AGAIN }
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Resolver").field("again", &self.again).finish_non_exhaustive()
    }
}
