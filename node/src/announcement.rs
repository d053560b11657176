//! What an application that is hosted may say anew of itself.

use multinodes_behaviour::names;
use serde_json::Value;

/// What others are told anew of an application that is hosted here; what is not said stays as it is. See
/// [`Node::announce`](crate::Node::announce).
#[derive(Debug, Clone, Default, PartialEq)]
#[must_use = "it is not told to anybody until it is given to `Node::announce`"]
pub struct Announcement {
    pub(crate) description: Option<Value>,
    pub(crate) version: Option<String>,
    pub(crate) actions: Option<Vec<String>>,
    pub(crate) idempotent: Option<Vec<String>>,
    pub(crate) trouble: Option<Option<String>>,
}

impl Announcement {
    /// Says nothing new.
    pub fn new() -> Self {
        Self::default()
    }

    /// Another description: anything that JSON can say.
    pub fn description(mut self, description: Value) -> Self {
        self.description = Some(description);
        self
    }

    /// Another version; at most 256 bytes.
    pub fn version(mut self, version: impl Into<String>) -> Self {
        self.version = Some(version.into());
        self
    }

    /// Other actions that can be called; at most 1024 with names of at most 256 bytes.
    pub fn actions(mut self, actions: impl IntoIterator<Item = String>) -> Self {
        self.actions = Some(actions.into_iter().map(names::into_normal).collect());
        self
    }

    /// Other actions that may run twice without harm, see [`Actions::idempotent`](crate::Actions::idempotent); at most 1024
    /// with names of at most 256 bytes.
    pub fn idempotent(mut self, actions: impl IntoIterator<Item = String>) -> Self {
        self.idempotent = Some(actions.into_iter().map(names::into_normal).collect());
        self
    }

    /// What is wrong with the application just now, for people, in one line of at most 256 bytes; `None` once it is well
    /// again. Messages are sent to it all the same.
    pub fn trouble(mut self, trouble: Option<String>) -> Self {
        self.trouble = Some(trouble);
        self
    }
}
