//! A target: which application, on which node, for how long.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use libp2p::PeerId;
use multinodes_behaviour::{
    lane::{Delivery, Outgoing},
    wire::Options,
};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    application::Context,
    call_error::{Attempt, CallError},
    core::Core,
    description::Host,
    node::Node,
    payload::Payload,
    registry::{Hosted, Told},
    selection::{self, Filter, Nobody, Target},
};

/// How long a message may take unless it is said otherwise.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// A longer time than that is as good as for ever, and no clock overflows.
const LONGEST: Duration = Duration::from_secs(365 * 86_400);

/// A node that was just started is given so long to find others, before it is said that something does not exist.
const DISCOVERY: Duration = Duration::from_secs(3);

/// Even when all that can be asked has answered, news of a swarm that is just forming may be on the way so long.
const SETTLING: Duration = Duration::from_millis(300);

/// An application somewhere in the swarm: here if it is hosted here, else on a remote node.
///
/// Cheap to make and to clone. Says nothing about whether the application exists: that shows when it is used.
#[derive(Clone)]
#[must_use = "a target does nothing until it is called or told"]
pub struct AppRef {
    node: Node,
    application: String,
    on: Option<String>,
    filter: Option<Filter>,
    timeout: Duration,
    options: Options,
}

/// How long a message may take.
#[derive(Clone, Copy)]
struct Time {
    deadline: Instant,
    /// All of it, for errors.
    after: Duration,
}

/// What is done with a message.
#[derive(Clone, Copy)]
enum Kind<'a> {
    Call(&'a str),
    Tell,
    Cast,
}

impl AppRef {
    pub(crate) fn new(node: Node, application: String) -> Self {
        Self { node, application, on: None, filter: None, timeout: DEFAULT_TIMEOUT, options: Options::default() }
    }

    /// Takes the application on this node, given by its name or its peer id.
    pub fn on(mut self, node: impl Into<String>) -> Self {
        self.on = Some(node.into());
        self
    }

    /// Takes only hosts for which `filter` is true, for example by their description. Several filters must all be true.
    pub fn filter(mut self, filter: impl Fn(&Host) -> bool + Send + Sync + 'static) -> Self {
        self.filter = Some(match self.filter.take() {
            Some(first) => Arc::new(move |host: &Host| first(host) && filter(host)),
            None => Arc::new(filter),
        });
        self
    }

    /// How long each message may take in all: finding a host, sending, and the answer. 10 s by default. Inside a call
    /// it never takes longer than what is left of the caller's time, see [`Context::node`].
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Declares that running an action twice does no harm: then a call that was lost with its connection is repeated
    /// on another host, within its time.
    pub fn idempotent(mut self) -> Self {
        self.options = self.options | Options::IDEMPOTENT;
        self
    }

    /// Runs an action and gives its result. `arguments` is a tuple, or a single value for a single argument.
    ///
    /// `Ok` means that the application ran the action and this is its answer. Dropping the future cancels the action.
    ///
    /// # Errors
    ///
    /// See [`CallError`].
    pub async fn call<R: DeserializeOwned>(
        &self,
        action: &str,
        arguments: impl Serialize + Send,
    ) -> Result<R, CallError> {
        let arguments = Payload::arguments(&arguments).map_err(unsendable)?;
        let result = self.call_raw(action, arguments).await?;
        result.decode().map_err(|error| CallError::UnexpectedResult {
            application: self.application.clone(),
            reason: error.to_string(),
        })
    }

    /// Like [`call`](Self::call), with arguments and result as they travel.
    ///
    /// # Errors
    ///
    /// See [`CallError`].
    pub async fn call_raw(&self, action: &str, arguments: Payload) -> Result<Payload, CallError> {
        self.deliver(Kind::Call(action), arguments).await
    }

    /// Hands a message over.
    ///
    /// `Ok` means that the node has accepted it into the application's queue, not that it was processed.
    ///
    /// # Errors
    ///
    /// See [`CallError`].
    pub async fn tell(&self, message: impl Serialize + Send) -> Result<(), CallError> {
        self.tell_raw(Payload::encode(&message).map_err(unsendable)?).await
    }

    /// Like [`tell`](Self::tell), with the message as it travels.
    ///
    /// # Errors
    ///
    /// See [`CallError`].
    pub async fn tell_raw(&self, message: Payload) -> Result<(), CallError> {
        self.deliver(Kind::Tell, message).await.map(drop)
    }

    /// Hands a message over without waiting for a confirmation: the fastest way.
    ///
    /// `Ok` means that it is in the write queue of a connection. Whether it arrives is not known; what is dropped on
    /// the other side is counted there.
    ///
    /// # Errors
    ///
    /// See [`CallError`].
    pub async fn cast(&self, message: impl Serialize + Send) -> Result<(), CallError> {
        self.deliver(Kind::Cast, Payload::encode(&message).map_err(unsendable)?).await.map(drop)
    }

    /// The hosts that would be taken, in order of their names.
    #[must_use]
    pub fn hosts(&self) -> Vec<Arc<Host>> {
        let mut hosts = self.node.hosts(&self.application);
        if let Some(on) = &self.on {
            hosts.retain(|host| host.node == *on || host.peer_id.to_base58() == *on);
        }
        if let Some(filter) = &self.filter {
            hosts.retain(|host| filter(host));
        }
        hosts
    }

    async fn deliver(&self, kind: Kind<'_>, payload: Payload) -> Result<Payload, CallError> {
        let core = self.node.core();
        let time = self.time()?;
        let mut tried = Vec::new();
        let mut failure = None;
        loop {
            if core.registry.is_draining() {
                return Err(CallError::Stopped);
            }
            let target = match self.pick(core, &tried) {
                Ok(target) => target,
                Err(nobody) => match (failure, nobody) {
                    (Some(failure), _) => return Err(failure),
                    (None, Nobody::Ever(error)) => return Err(error),
                    (None, Nobody::Yet(error)) => self.wait_for_host(core, time.deadline, error).await?,
                },
            };
            let (peer_id, outcome) = match target {
                Target::Here(hosted) => (core.peer_id, self.here(core, &hosted, kind, payload.clone(), time).await),
                Target::There { peer_id, node } => {
                    (peer_id, self.there(core, peer_id, &node, kind, payload.clone(), time).await)
                }
            };
            match outcome {
                Err(error) if self.on.is_none() && self.may_repeat(&error) && Instant::now() < time.deadline => {
                    tracing::debug!(%peer_id, %error, "trying another host");
                    tried.push(peer_id);
                    failure = Some(error);
                }
                outcome => return outcome,
            }
        }
    }

    /// The time that a message has from now on: as long as was said, but not longer than the call within which it is
    /// sent.
    fn time(&self) -> Result<Time, CallError> {
        let now = Instant::now();
        let own = now.checked_add(self.timeout).unwrap_or_else(|| now + LONGEST);
        let deadline = self.node.deadline().map_or(own, |inherited| inherited.min(own));
        if deadline <= now {
            let node = self.node.name().to_owned();
            return Err(CallError::Expired { application: self.application.clone(), node });
        }
        let left = Duration::from_millis(u64::try_from((deadline - now).as_millis()).unwrap_or(u64::MAX));
        Ok(Time { deadline, after: if deadline == own { self.timeout } else { left } })
    }

    fn pick(&self, core: &Core, tried: &[PeerId]) -> Result<Target, Nobody> {
        match &self.on {
            Some(node) => selection::resolve(core, &self.application, node),
            None => selection::pick(core, &self.application, self.filter.as_ref(), tried),
        }
    }

    fn may_repeat(&self, error: &CallError) -> bool {
        let lost = matches!(error, CallError::ConnectionLost { .. });
        error.concerns_host_only() || (lost && self.options.contains(Options::IDEMPOTENT))
    }

    /// Waits until somebody hosts it, or until it is sure enough that nobody does: then it gives `nobody`.
    async fn wait_for_host(&self, core: &Core, deadline: Instant, nobody: CallError) -> Result<Target, CallError> {
        let mut changed = core.changed.subscribe();
        let mut status = core.status.subscribe();
        let limit = deadline.min(core.started + DISCOVERY);
        loop {
            match self.pick(core, &[]) {
                Ok(target) => return Ok(target),
                Err(Nobody::Ever(error)) => return Err(error),
                Err(Nobody::Yet(_)) => {}
            }
            let now = *status.borrow_and_update();
            let settled = core.started + SETTLING;
            // A swarm may just be forming around a node; a passive one only looks at what is there.
            let complete = now.settled && (now.synced || core.settings.passive);
            let until = if complete { limit.min(settled) } else { limit };
            tokio::select! {
                outcome = changed.changed() => outcome.map_err(|_| CallError::Stopped)?,
                outcome = status.changed() => outcome.map_err(|_| CallError::Stopped)?,
                () = tokio::time::sleep_until(until.into()) => {
                    return Err(match nobody {
                        CallError::NoSuchApplication { application, .. } if !now.synced => {
                            CallError::NotReady { application }
                        }
                        nobody => nobody,
                    });
                }
            }
        }
    }

    async fn here(
        &self,
        core: &Core,
        hosted: &Arc<Hosted>,
        kind: Kind<'_>,
        payload: Payload,
        time: Time,
    ) -> Result<Payload, CallError> {
        let size = payload.as_bytes().len();
        let limit = core.settings.max_message;
        if size > limit {
            return Err(CallError::TooLarge { size, limit });
        }
        let node = &core.settings.name;
        let attempt = self.attempt(kind, node, time);
        let refused = |refusal| CallError::of_refusal(refusal, &attempt);
        let context = Context {
            node: self.node.clone(),
            application: hosted.name.clone(),
            caller: core.peer_id,
            deadline: time.deadline,
            trace: None,
        };
        match kind {
            Kind::Call(action) => {
                let admission = hosted.admit().map_err(refused)?;
                let run = hosted.run(admission, context, action.to_owned(), payload);
                match tokio::time::timeout_at(time.deadline.into(), run).await {
                    Ok(outcome) => outcome.map_err(refused),
                    Err(_) => Err(CallError::TimedOut {
                        application: self.application.clone(),
                        node: node.clone(),
                        after: time.after,
                    }),
                }
            }
            Kind::Tell | Kind::Cast => {
                let told = Told { context, message: payload, charge: None };
                match hosted.tell(told, matches!(kind, Kind::Cast)) {
                    Delivery::Accepted => Ok(Payload::default()),
                    Delivery::Refused(refusal) => Err(refused(refusal)),
                    Delivery::Later(later) => later.await.map(|()| Payload::default()).map_err(refused),
                }
            }
        }
    }

    async fn there(
        &self,
        core: &Core,
        peer_id: PeerId,
        node: &str,
        kind: Kind<'_>,
        payload: Payload,
        time: Time,
    ) -> Result<Payload, CallError> {
        let exchange = core.links.with(peer_id);
        let attempt = self.attempt(kind, node, time);
        let payload = payload.into_bytes();
        let head = Outgoing {
            application: &self.application,
            action: attempt.action,
            deadline: time.deadline,
            options: self.options,
            trace: None,
        };
        let outcome = match kind {
            Kind::Call(_) => exchange.call(head, payload).await.map(Payload::from_bytes),
            Kind::Tell => exchange.tell(head, payload).await.map(|()| Payload::default()),
            Kind::Cast => exchange.cast(head, payload).await.map(|()| Payload::default()),
        };
        outcome.map_err(|error| CallError::of_lane(error, &attempt))
    }

    fn attempt<'a>(&'a self, kind: Kind<'a>, node: &'a str, time: Time) -> Attempt<'a> {
        let action = match kind {
            Kind::Call(action) => action,
            Kind::Tell | Kind::Cast => "",
        };
        Attempt { application: &self.application, action, node, after: time.after }
    }
}

impl fmt::Debug for AppRef {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("AppRef")
            .field("application", &self.application)
            .field("on", &self.on)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

fn unsendable(error: impl fmt::Display) -> CallError {
    CallError::Unsendable { reason: error.to_string() }
}
