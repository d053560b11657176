//! The application that every node hosts, so that a fresh swarm has something to call.

use serde_json::Value;

use crate::{actions::Actions, application::Context};

/// Its name.
pub(crate) const NAME: &str = "node";

/// `ping` gives the time there, `echo` gives back what it gets, `description` says what the node knows.
pub(crate) fn node() -> Actions {
    Actions::new()
        .version(env!("CARGO_PKG_VERSION"))
        .action("ping", |()| async { milliseconds_since_1970() })
        .action("echo", |value: Value| async move { value })
        .action_with("description", |context: Context, ()| async move { context.node().description() })
}

/// The clock of this machine.
pub(crate) fn milliseconds_since_1970() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
