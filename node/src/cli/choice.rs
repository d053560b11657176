//! The flags that say which host is meant, for every verb that picks one or lists them.

use clap::Args;
use multinodes::{AppRef, Node, Predicate, VersionReq};

use super::failure::Failure;

/// Which host of an application gets a message: the flags, as given.
#[derive(Debug, Clone, Args)]
pub(crate) struct Choice {
    /// Use this node, by name or peer id, instead of any host
    #[arg(long, value_name = "NODE")]
    node: Option<String>,

    #[command(flatten)]
    condition: Condition,

    /// Only hosts whose application has such a version: "^1.2", ">=1.4, <3"
    #[arg(long, value_name = "REQ")]
    version_req: Option<VersionReq>,
}

/// A condition on hosts: the flag, as given.
#[derive(Debug, Clone, Args)]
pub(crate) struct Condition {
    /// Only hosts for which EXPR, in CEL, is true: "description.gpu >= 1 && node.labels.region == 'eu'"
    #[arg(long = "where", value_name = "EXPR")]
    condition: Option<String>,
}

/// Which host of an application gets a message.
#[derive(Debug, Clone)]
pub(crate) struct Chosen {
    node: Option<String>,
    predicate: Option<Predicate>,
    versions: Option<VersionReq>,
}

impl Choice {
    /// Checks the flags. To be done before anything is begun.
    pub(crate) fn settle(self) -> Result<Chosen, Failure> {
        Ok(Chosen { node: self.node, predicate: self.condition.settle()?, versions: self.version_req })
    }
}

impl Condition {
    /// Checks the condition. To be done before anything is begun.
    pub(crate) fn settle(self) -> Result<Option<Predicate>, Failure> {
        self.condition.as_deref().map(Predicate::new).transpose().map_err(|error| Failure::predicate(&error))
    }
}

impl Chosen {
    /// What is asked for, in the user's own words: an application, or an action of one.
    pub(crate) fn named(&self, asked: &str) -> String {
        self.node.iter().fold(format!("`{asked}`"), |named, node| format!("{named} on node `{node}`"))
    }

    /// The application on the hosts that are meant.
    pub(crate) fn target(&self, node: &Node, application: &str) -> AppRef {
        let mut target = node.app(application);
        if let Some(name) = &self.node {
            target = target.on(name.as_str());
        }
        if let Some(predicate) = &self.predicate {
            target = target.satisfying(predicate);
        }
        if let Some(versions) = &self.versions {
            target = target.version_req(versions.clone());
        }
        target
    }
}
