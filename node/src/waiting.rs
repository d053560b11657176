//! Waiting for what the swarm is to have.

use std::{sync::Arc, time::Duration};

use multinodes_behaviour::{
    names::{self, BadName},
    record::MAX_NODE_NAME,
    wire::MAX_NAME,
};
use tokio::time::timeout;

use crate::{
    description::{Host, NodeInfo},
    node::Node,
};

/// How long `wait_for` waits.
const WAIT: Duration = Duration::from_secs(10);

impl Node {
    /// Waits until an application is hosted somewhere, and gives its hosts. Waits 10 s at the most.
    ///
    /// # Errors
    ///
    /// Nobody hosts it by then, or nobody can: it breaks the [rule for names](multinodes_behaviour::names::check).
    pub async fn wait_for(&self, application: &str) -> Result<Vec<Arc<Host>>, WaitError> {
        check_application(application)?;
        self.wait_until(application, || Some(self.hosts(application)).filter(|hosts| !hosts.is_empty())).await
    }

    /// Waits until so many nodes host an application, and gives all its hosts. Waits 10 s at the most.
    ///
    /// # Errors
    ///
    /// There are fewer by then, or nobody can host it, as with [`wait_for`](Self::wait_for).
    pub async fn wait_for_hosts(&self, application: &str, count: usize) -> Result<Vec<Arc<Host>>, WaitError> {
        check_application(application)?;
        let enough = || Some(self.hosts(application)).filter(|hosts| hosts.len() >= count);
        match self.wait_until(application, enough).await {
            Ok(hosts) => Ok(hosts),
            Err(error) => Err(WaitError { hosts: Some((self.hosts(application).len(), count)), ..error }),
        }
    }

    /// Waits until a node of some name or peer id is known. Waits 10 s at the most.
    ///
    /// # Errors
    ///
    /// There is none by then, or none can be called so: it breaks the
    /// [rule for names](multinodes_behaviour::names::check_node).
    pub async fn wait_for_node(&self, node: &str) -> Result<Arc<NodeInfo>, WaitError> {
        let node = &*names::normal(node);
        names::check_node(node, MAX_NODE_NAME).map_err(WaitError::bad)?;
        let named = |info: &Arc<NodeInfo>| info.name == node || info.peer_id.to_base58() == node;
        self.wait_until(node, || self.nodes().into_iter().find(named)).await
    }

    /// Waits until every way of finding others was asked and had its time: see
    /// [`Status::settled`](crate::Status::settled). Usually takes well under a second; what is not known then is probably
    /// not there.
    pub async fn settled(&self) {
        let mut status = self.core().status.subscribe();
        // An error means that the node has stopped: it is as settled as it will be.
        let _ = status.wait_for(|status| status.settled).await;
    }

    async fn wait_until<T>(&self, what: &str, look: impl Fn() -> Option<T>) -> Result<T, WaitError> {
        let mut changed = self.core().changed.subscribe();
        timeout(WAIT, async {
            loop {
                if let Some(found) = look() {
                    return Some(found);
                }
                changed.changed().await.ok()?;
            }
        })
        .await
        .ok()
        .flatten()
        .ok_or_else(|| WaitError { what: what.to_owned(), hosts: None, bad: None })
    }
}

fn check_application(name: &str) -> Result<(), WaitError> {
    names::check("an application", &names::normal(name), MAX_NAME).map_err(WaitError::bad)
}

/// What was waited for is not there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", text(.what, .hosts, .bad))]
pub struct WaitError {
    what: String,
    /// How many hosts there were, and how many were waited for.
    hosts: Option<(usize, usize)>,
    /// Nobody can be called so.
    bad: Option<BadName>,
}

impl WaitError {
    fn bad(bad: BadName) -> Self {
        Self { what: bad.name().to_owned(), hosts: None, bad: Some(bad) }
    }

    /// How many hosts there were when time was up, if so many were waited for. See [`Node::wait_for_hosts`].
    #[must_use]
    pub fn hosts(&self) -> Option<usize> {
        self.hosts.map(|(found, _)| found)
    }
}

fn text(what: &str, hosts: &Option<(usize, usize)>, bad: &Option<BadName>) -> String {
    let so_often = hosts.map_or_else(String::new, |(found, wanted)| format!(" on {wanted} nodes, but on {found},"));
    bad.as_ref().map_or_else(|| format!("`{what}` was not found{so_often} within {WAIT:?}"), BadName::to_string)
}
