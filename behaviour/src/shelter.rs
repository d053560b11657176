//! Where a panic ends: what panics inside of a connection costs that connection, and is counted.
//!
//! libp2p runs a connection as a task, from its dial or its handshake on. If that panics the connection has no end: nobody
//! hears that it is closed, and its peer stays connected, or being dialled, for ever. So what makes connections
//! ([`transport`]), muxers ([`muxer`]), handlers and the negotiations of their streams ([`Shelter`]) are asked under a roof.

mod behaviour;
mod future;
mod muxer;
mod transport;
mod upgrade;

use std::{
    any::Any,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

pub use behaviour::{Handler, Out, Shelter};
pub use future::Sheltered;
pub use muxer::muxer;
pub use transport::transport;
pub use upgrade::{Broken, Inbound, Outbound};

/// Counts the panics of connections. Clones count together.
#[derive(Debug, Clone, Default)]
pub struct Panics(Arc<AtomicU64>);

impl Panics {
    /// How many there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.load(Relaxed)
    }

    /// Does something that may panic. `None` if it did: whatever it has touched is broken then.
    fn shelter<T>(&self, what: &str, work: impl FnOnce() -> T) -> Option<T> {
        catch_unwind(AssertUnwindSafe(work)).map_err(|panic| self.note(what, &*panic)).ok()
    }

    /// Lets go of what is broken; that may panic once more.
    fn discard<T>(&self, broken: T) {
        self.shelter("what is left of a connection", || drop(broken));
    }

    fn note(&self, what: &str, panic: &(dyn Any + Send)) {
        self.0.fetch_add(1, Relaxed);
        let text = panic.downcast_ref::<&str>().copied();
        let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a text");
        tracing::error!(%what, panic = text, "a connection has panicked and is closed");
    }
}

fn panicked() -> io::Error {
    io::Error::other("a panic inside of this connection")
}

#[cfg(test)]
mod mine;
#[cfg(test)]
mod tests;
