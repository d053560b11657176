//! The application that every node hosts, so that a fresh swarm has something to call.

use std::sync::Arc;

use serde_json::Value;

use crate::{
    actions::Actions,
    application::{AppError, Context},
    factories::{self, Factories},
    payload::Payload,
};

/// Its name.
pub(crate) const NAME: &str = "node";

/// The names of its actions, for those who write rules about them.
pub(crate) const ACTIONS: [&str; 8] =
    ["counters", "description", "echo", "install", "installable", "ping", "shared_keys", "uninstall"];

/// `ping` gives the time there, `echo` gives back what it gets, `description` says what the node knows, `counters` what it
/// has dropped or refused, and how much code has come. `shared_keys` lists those that several living processes use. `installable` lists the factories that are offered there, `install` and
/// `uninstall` use them.
pub(crate) fn node(factories: Factories, takes_code: bool) -> Actions {
    let names: Arc<[String]> = factories.names().map(str::to_owned).collect();
    let mut description = factories.description();
    if takes_code {
        description["code"] = Value::Bool(true);
    }
    let factories = Arc::new(factories);
    Actions::new()
        .version(env!("CARGO_PKG_VERSION"))
        .description(description)
        .action("ping", |()| async { milliseconds_since_1970() })
        // It goes back unread: as values it could take a hundred times as much.
        .raw_action("echo", |_, arguments| async move { arguments.single_argument().map_err(AppError::bad_arguments) })
        .action_with("description", |context: Context, ()| async move { context.node().description() })
        .action_with("counters", |context: Context, ()| async move { context.node().counters() })
        .action_with("shared_keys", |context: Context, ()| async move { context.node().shared_keys() })
        .action("installable", move |()| {
            let names = names.clone();
            async move { names }
        })
        .raw_action("install", move |context, arguments| {
            let factories = factories.clone();
            async move {
                factories.install(&context, arguments).await?;
                Payload::encode(&()).map_err(AppError::of)
            }
        })
        .try_action_with("uninstall", |context, name: String| async move { factories::uninstall(&context, &name) })
}

/// The clock of this machine.
pub(crate) fn milliseconds_since_1970() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::application::Application;

    #[test]
    fn rules_can_be_written_about_each_of_its_actions_and_no_other() {
        let node = node(Factories::new(Vec::new(), false).unwrap(), false);
        assert_eq!(node.profile().actions, ACTIONS);
    }
}
