//! What a node hosts: the `Application` trait, the context of a message, and the application's own errors.

use std::{collections::BTreeMap, future::Future, sync::Arc, time::Instant};

use futures::{FutureExt, future::BoxFuture};
use libp2p::PeerId;
use multinodes_behaviour::{
    lane::{Pulse, Reporter},
    wire::MAX_PROGRESS,
};
use serde::Serialize;
use serde_json::Value;

use crate::{node::Node, payload::Payload, permissions::Guard};

/// Calls an application works on at once unless it says otherwise.
pub const DEFAULT_CONCURRENCY: usize = 1024;

/// Calls that may wait behind those, and tells that may wait in its queue, unless it says otherwise.
pub const DEFAULT_QUEUE: usize = 4096;

/// Something a node hosts under a name, which others call and tell.
///
/// [`Actions`](crate::Actions) is the short way, with a closure for each action. Implement the trait where an
/// application has state of its own or decides about actions by itself.
///
/// Calls run side by side, each in a task of its own; tells are processed one after the other in the order in which
/// they came. A panic in either becomes an error of that one message. A call's future is dropped when its caller loses
/// interest or its deadline passes.
pub trait Application: Send + Sync + 'static {
    /// What others may know of it, and its limits. Asked once, when it is registered.
    fn profile(&self) -> Profile {
        Profile::default()
    }

    /// Who may call it. Asked once, when it is registered; everybody unless it says otherwise.
    fn guard(&self) -> Guard {
        Guard::new()
    }

    /// Runs an action and gives its result.
    fn call(
        &self,
        context: Context,
        action: &str,
        arguments: Payload,
    ) -> impl Future<Output = Result<Payload, AppError>> + Send;

    /// Takes a message. There is nobody to whom a failure could be told: it is logged and counted.
    fn process(&self, context: Context, message: Payload) -> impl Future<Output = Result<(), AppError>> + Send {
        let _ = (context, message);
        async { Err(AppError::unsupported("it takes no tells")) }
    }
}

/// What an application says of itself.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Profile {
    /// Whatever others should know; `null` if nothing.
    pub description: Value,
    /// Its version, if it has one.
    pub version: Option<String>,
    /// The names of its actions, so that others can list them.
    pub actions: Vec<String>,
    /// The names of those actions that may run twice without harm: a call of them that was lost with its connection is
    /// repeated on another host, whoever calls.
    pub idempotent: Vec<String>,
    /// How many calls it advertises to work on at once, for those who spread work.
    pub slots: Option<u32>,
    /// How many calls it works on at once. Others wait for their turn.
    pub concurrency: usize,
    /// How many calls may wait behind those, and how many tells in its queue. Beyond that it answers `Busy`.
    pub queue: usize,
    /// Whether it takes tells.
    pub takes_tells: bool,
}

impl Default for Profile {
    fn default() -> Self {
        Self {
            description: Value::Null,
            version: None,
            actions: Vec::new(),
            idempotent: Vec::new(),
            slots: None,
            concurrency: DEFAULT_CONCURRENCY,
            queue: DEFAULT_QUEUE,
            takes_tells: true,
        }
    }
}

/// What is known of the message that an application is working on.
#[derive(Debug, Clone)]
pub struct Context {
    pub(crate) node: Node,
    pub(crate) application: Arc<str>,
    pub(crate) caller: PeerId,
    pub(crate) deadline: Instant,
    pub(crate) trace: Option<Arc<str>>,
    pub(crate) watcher: Watcher,
}

/// Who is told how far a call is.
#[derive(Debug, Clone, Default)]
pub(crate) enum Watcher {
    /// Nobody has asked.
    #[default]
    Nobody,
    /// Whoever calls from another node.
    There(Reporter),
    /// Whoever calls from this one.
    Here(Arc<Pulse>),
}

impl Watcher {
    pub(crate) fn tell(&self, waiting: bool, payload: Payload) {
        match self {
            Self::Nobody => {}
            Self::There(reporter) => reporter.report(waiting, payload.as_bytes()),
            Self::Here(pulse) => pulse.tell(waiting, payload.into_bytes()),
        }
    }
}

/// What is known of a message before an application works on it. Cheap to pass on: the context is made where it is used.
#[derive(Debug)]
pub(crate) struct Origin {
    pub(crate) caller: PeerId,
    pub(crate) deadline: Instant,
    pub(crate) trace: Option<Arc<str>>,
    pub(crate) watcher: Watcher,
    /// How many calls within calls led to the message.
    pub(crate) depth: u8,
}

impl Origin {
    /// `node` is the handle that the application gets.
    pub(crate) fn context(self, node: Node, application: Arc<str>) -> Context {
        let Self { caller, deadline, trace, watcher, depth } = self;
        let mut node = node;
        node.deepen(depth.saturating_add(1));
        Context { node, application, caller, deadline, trace, watcher }
    }
}

impl Context {
    /// The node that hosts the application: to call and tell others. This handle does not keep the node: when the
    /// user lets it go it stops, whatever the application holds.
    ///
    /// Inside a call, what is sent through this handle and its clones inherits what is left of the caller's time:
    /// nobody waits for it longer. [`Node::unbounded`] gives one without that limit. Whoever tells does not wait, so a
    /// message that was told sets no limit.
    #[must_use]
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// The name under which the application is registered.
    #[must_use]
    pub fn application(&self) -> &str {
        &self.application
    }

    /// Who sent the message: proven by the connection it came on, not by anything in it. Of what a guest asks of its own node
    /// (feature `wasm`) that is whoever has sent the guest.
    #[must_use]
    pub fn caller(&self) -> PeerId {
        self.caller
    }

    /// The labels that the caller has proven: signed into its ticket by somebody whom this node trusts. Empty if it has
    /// none, or is not connected any more.
    #[must_use]
    pub fn caller_labels(&self) -> Arc<BTreeMap<String, String>> {
        self.node.core().permissions.proofs.labels(&self.caller)
    }

    /// Whether the message was sent from this very node.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.caller == self.node.peer_id()
    }

    /// When the caller stops waiting.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// What is left until then.
    #[must_use]
    pub fn remaining(&self) -> std::time::Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// Tells the caller how far the call is, if it wants to know: then it does not take long work for a hang. Whoever
    /// spreads work with [`AppRef::map`](crate::AppRef::map) gives each item a lease, which this renews.
    ///
    /// The newest report counts: earlier ones may be lost, and so may this one if the caller reads too slowly. A value
    /// over 16 KiB, or one that cannot be encoded, is left out, and only the sign of life goes. Costs next to nothing
    /// when nobody asked.
    pub fn progress<T: Serialize>(&self, value: &T) {
        if !matches!(self.watcher, Watcher::Nobody) {
            self.progress_raw(Payload::encode(value).unwrap_or_default());
        }
    }

    /// Like [`progress`](Self::progress), with the value as it travels.
    pub fn progress_raw(&self, payload: Payload) {
        if !matches!(self.watcher, Watcher::Nobody) {
            let fits = payload.as_bytes().len() <= MAX_PROGRESS;
            self.watcher.tell(false, if fits { payload } else { Payload::default() });
        }
    }

    /// The caller's trace context (W3C `traceparent`), if it sent one.
    #[must_use]
    pub fn trace(&self) -> Option<&str> {
        self.trace.as_deref()
    }
}

/// How an application says that it failed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct AppError {
    pub(crate) kind: AppErrorKind,
    pub(crate) code: String,
    pub(crate) message: String,
    pub(crate) data: Option<Payload>,
}

/// Failures of the application itself, and those that it notices before it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AppErrorKind {
    Failed,
    NoSuchAction,
    BadArguments,
    Forbidden,
    Crashed,
    Busy,
}

impl AppError {
    /// A failure with a code for programs and a message for people.
    #[must_use]
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { kind: AppErrorKind::Failed, code: code.into(), message: message.into(), data: None }
    }

    /// A failure that some other error explains; its code is `error`.
    #[must_use]
    pub fn of(error: impl std::fmt::Display) -> Self {
        Self::new("error", error.to_string())
    }

    /// Adds data for programs, at most 128 KiB encoded.
    #[must_use]
    pub fn with_data<T: Serialize>(mut self, data: &T) -> Self {
        // Data that cannot be encoded is left out: the error itself must arrive.
        self.data = Payload::encode(data).ok();
        self
    }

    /// Like [`with_data`](Self::with_data), with the data as it travels.
    #[must_use]
    pub fn with_raw_data(mut self, data: Payload) -> Self {
        self.data = Some(data);
        self
    }

    /// The application has no such action. It surely did not run.
    #[must_use]
    pub fn no_such_action(action: &str) -> Self {
        Self { kind: AppErrorKind::NoSuchAction, ..Self::new("no_such_action", format!("it has no action `{action}`")) }
    }

    /// The arguments are not what the action takes. It surely did not run.
    #[must_use]
    pub fn bad_arguments(reason: impl std::fmt::Display) -> Self {
        Self { kind: AppErrorKind::BadArguments, ..Self::new("bad_arguments", reason.to_string()) }
    }

    /// The caller may not do this. It surely did not run.
    #[must_use]
    pub fn forbidden() -> Self {
        Self { kind: AppErrorKind::Forbidden, ..Self::new("forbidden", "forbidden") }
    }

    /// The application broke while it ran, as after a panic: for applications that run in processes of their own. The
    /// caller gets [`CallError::Panicked`](crate::CallError::Panicked). `reason` goes on where the application is named,
    /// such as `ended with exit status 3`.
    #[must_use]
    pub fn crashed(reason: impl std::fmt::Display) -> Self {
        Self { kind: AppErrorKind::Crashed, ..Self::new("crashed", reason.to_string()) }
    }

    /// The application takes nothing just now. It surely did not run: the message goes to another host if there is one,
    /// and else the caller gets [`CallError::Busy`](crate::CallError::Busy).
    #[must_use]
    pub fn busy(reason: impl std::fmt::Display) -> Self {
        Self { kind: AppErrorKind::Busy, ..Self::new("busy", reason.to_string()) }
    }

    pub(crate) fn unsupported(reason: &str) -> Self {
        Self { kind: AppErrorKind::NoSuchAction, ..Self::new("unsupported", reason) }
    }

    /// The code for programs.
    #[must_use]
    pub fn code(&self) -> &str {
        &self.code
    }

    /// The message for people.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl From<&str> for AppError {
    fn from(message: &str) -> Self {
        Self::of(message)
    }
}

impl From<String> for AppError {
    fn from(message: String) -> Self {
        Self::of(message)
    }
}

/// The object-safe twin of [`Application`].
pub(crate) trait Hostable: Send + Sync {
    fn call(
        self: Arc<Self>,
        context: Context,
        action: String,
        arguments: Payload,
    ) -> BoxFuture<'static, Result<Payload, AppError>>;

    fn process(self: Arc<Self>, context: Context, message: Payload) -> BoxFuture<'static, Result<(), AppError>>;
}

impl<A: Application> Hostable for A {
    fn call(
        self: Arc<Self>,
        mut context: Context,
        action: String,
        arguments: Payload,
    ) -> BoxFuture<'static, Result<Payload, AppError>> {
        context.node.limit(Some(context.deadline));
        async move { Application::call(&*self, context, &action, arguments).await }.boxed()
    }

    fn process(self: Arc<Self>, mut context: Context, message: Payload) -> BoxFuture<'static, Result<(), AppError>> {
        // It may come from a call, which does not wait for it: neither its time nor its depth count here.
        context.node.limit(None);
        context.node.deepen(0);
        async move { Application::process(&*self, context, message).await }.boxed()
    }
}
