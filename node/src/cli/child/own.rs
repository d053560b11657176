//! What a served process asks by itself: calls, tells, a new description. Bounded in number, answered in any order.

use std::{future::Future, sync::Arc, time::Duration};

use multinodes::{Announcement, Node, Payload};
use serde_json::Value;
use tokio::{sync::watch, task::JoinSet};

use super::{
    protocol::{self, ErrorLine},
    said::{OwnCall, OwnDescription, OwnTell},
    slot::Served,
};

/// So many of them may be under way for one process; more are refused as `busy`.
pub(super) const MAX_OWN: usize = 64;

/// What one process has asked for and is not answered yet.
pub(super) struct OwnRequests {
    served: Arc<Served>,
    running: JoinSet<Option<Vec<u8>>>,
}

/// The request that something belongs to: its node handle ends with the deadline, its scope with the request. `Err` if
/// there is no request of that number.
pub(super) type Within = Result<Option<(Node, watch::Receiver<()>)>, u64>;

impl OwnRequests {
    pub(super) fn new(served: Arc<Served>) -> Self {
        Self { served, running: JoinSet::new() }
    }

    /// Calls an application for the process.
    pub(super) fn call(&mut self, call: OwnCall, within: Within) {
        let id = call.id.clone();
        self.run("call", Some(id), within, move |node: Node| async move {
            let target = target(&node, &call.app, call.node, call.timeout_ms);
            Ok(target.call_raw(&call.action, call.args).await?)
        });
    }

    /// Tells an application something for the process.
    pub(super) fn tell(&mut self, tell: OwnTell, within: Within) {
        let id = tell.id.clone();
        self.run("tell", id, within, move |node: Node| async move {
            target(&node, &tell.app, tell.node, tell.timeout_ms).tell_raw(tell.message).await?;
            Ok(nothing())
        });
    }

    /// Changes what others know of the application.
    pub(super) fn describe(&mut self, description: OwnDescription) {
        let OwnDescription { id, description, version, actions, idempotent } = description;
        let served = self.served.clone();
        self.run("describe", id, Ok(None), move |_| async move {
            let announcement = Announcement::new();
            let description = description.map(|description| merged(&served.description, description));
            let announcement = description.into_iter().fold(announcement, Announcement::description);
            let announcement = version.into_iter().fold(announcement, Announcement::version);
            let announcement = actions.into_iter().fold(announcement, Announcement::actions);
            let announcement = idempotent.into_iter().fold(announcement, Announcement::idempotent);
            let changed = served.describer.describe(&served.node, &served.name, announcement).await;
            changed.map(|()| nothing()).map_err(|error| ErrorLine::new("unannounceable", error.to_string()))
        });
    }

    /// Answers what the process has asked for and nobody can read.
    pub(super) fn refuse(&mut self, kind: &'static str, id: String, error: ErrorLine) {
        self.run(kind, Some(id), Ok(None), move |_| async move { Err(error) });
    }

    /// Waits for the next answer to the process; `None` while there is none to wait for.
    pub(super) async fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            match self.running.join_next().await? {
                Ok(Some(answer)) => return Some(answer),
                Ok(None) => {}
                Err(error) => tracing::error!(%error, "a request of a process broke"),
            }
        }
    }

    /// How many are under way, or answered and not taken yet.
    pub(super) fn len(&self) -> usize {
        self.running.len()
    }

    /// Ends all of them.
    pub(super) fn stop(&mut self) {
        self.running.abort_all();
    }

    fn run<F, Work>(&mut self, kind: &'static str, id: Option<String>, within: Within, work: F)
    where
        F: FnOnce(Node) -> Work + Send + 'static,
        Work: Future<Output = Result<Payload, ErrorLine>> + Send,
    {
        let full = self.running.len() >= MAX_OWN;
        let (node, application) = (self.served.node.clone(), self.served.name.clone());
        self.running.spawn(async move {
            let outcome = match within {
                _ if full => Err(ErrorLine::new("busy", format!("{MAX_OWN} requests of the process are under way"))),
                Err(id) => Err(ErrorLine::new("no_such_request", format!("no request `{id}` is under way"))),
                Ok(None) => work(node).await,
                Ok(Some((node, mut scope))) => tokio::select! {
                    outcome = work(node) => outcome,
                    _ = scope.changed() => {
                        Err(ErrorLine::new("cancelled", "the request that it belongs to is over").possibly_run())
                    }
                },
            };
            match (id, outcome) {
                (Some(id), outcome) => Some(protocol::answer(kind, &id, outcome)),
                (None, Ok(_)) => None,
                (None, Err(error)) => {
                    let error = error.message();
                    tracing::warn!(target: super::LOG, %application, error, "a `{kind}` of a process failed");
                    None
                }
            }
        });
    }
}

/// What the operator and the process say of the application. The operator knows this host, and has the last word.
fn merged(operators: &Value, own: Value) -> Value {
    match (operators, own) {
        (Value::Object(operators), Value::Object(mut own)) => {
            own.extend(operators.clone());
            Value::Object(own)
        }
        (Value::Null, own) => own,
        (operators, _) => operators.clone(),
    }
}

fn target(node: &Node, application: &str, on: Option<String>, timeout_ms: Option<u64>) -> multinodes::AppRef {
    let target = node.app(application);
    let target = on.into_iter().fold(target, multinodes::AppRef::on);
    timeout_ms.map(Duration::from_millis).into_iter().fold(target, multinodes::AppRef::timeout)
}

fn nothing() -> Payload {
    Payload::encode(&()).unwrap_or_default()
}
