//! The way of one message: which host, another one if need be, and how long it may take.

mod delivering;
mod hedged;
mod opening;

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use libp2p::PeerId;
use multinodes_behaviour::{
    lane::{Answers, Called, Delivery, Mark, Outgoing, Pulse, Reply},
    names,
    record::MAX_NODE_NAME,
    wire::{MAX_NAME, Options},
};
use serde::{Serialize, de::DeserializeOwned};

use self::opening::Way;
use crate::{
    app_ref::DEFAULT_TIMEOUT,
    application::{Origin, Watcher},
    attempts::Failed,
    call_error::{Attempt, CallError},
    core::Core,
    description::NodeInfo,
    later::later,
    node::Node,
    payload::Payload,
    registry::{Hosted, Told, expired},
    selection::{self, Asked, Nobody, Target, Wanted},
};

/// Calls within calls within calls, over all nodes: what goes round in circles ends here, and not with its time.
pub(crate) const MAX_DEPTH: u8 = 32;

/// A node that was just started is given so long to find others, before it is said that something does not exist.
const DISCOVERY: Duration = Duration::from_secs(3);

/// Even when all that can be asked has answered, news of a swarm that is just forming may be on the way so long.
const SETTLING: Duration = Duration::from_millis(300);

/// Where a message may go. Borrows everything, so that a plain call allocates nothing for it.
#[derive(Clone, Copy)]
pub(crate) struct Route<'a> {
    pub(crate) node: &'a Node,
    pub(crate) application: &'a str,
    pub(crate) on: Option<&'a str>,
    pub(crate) wanted: Wanted<'a>,
    pub(crate) timeout: Duration,
    pub(crate) options: Options,
    /// After so long a call that may run twice is begun a second time.
    pub(crate) hedge: Option<Duration>,
    /// Gets what is heard of a call before its answer.
    pub(crate) pulse: Option<&'a Arc<Pulse>>,
}

/// What is done with a message.
#[derive(Clone, Copy)]
pub(crate) enum Kind<'a> {
    Call(&'a str),
    Tell,
    Cast,
}

/// How long a message may take.
#[derive(Clone, Copy)]
pub(crate) struct Time {
    pub(crate) deadline: Instant,
    /// All of it, for errors.
    after: Duration,
}

impl<'a> Kind<'a> {
    /// What it asks of a host.
    fn asked(self) -> Asked<'a> {
        match self {
            Self::Call(action) => Asked::Action(action),
            Self::Tell | Self::Cast => Asked::Told,
        }
    }
}

impl<'a> Route<'a> {
    /// To an application wherever it is, with the usual time.
    pub(crate) fn new(node: &'a Node, application: &'a str) -> Self {
        let options = Options::default();
        let wanted = Wanted::default();
        Self { node, application, on: None, wanted, timeout: DEFAULT_TIMEOUT, options, hedge: None, pulse: None }
    }

    pub(crate) async fn call<R: DeserializeOwned>(
        &self,
        action: &str,
        arguments: impl Serialize + Send,
    ) -> Result<R, CallError> {
        let arguments = Payload::arguments(&arguments).map_err(unsendable)?;
        let result = self.deliver(Kind::Call(&names::normal(action)), arguments).await?;
        result.decode().map_err(|error| CallError::UnexpectedResult {
            application: self.application.to_owned(),
            reason: error.to_string(),
        })
    }

    pub(crate) async fn tell(&self, message: impl Serialize + Send) -> Result<(), CallError> {
        self.deliver(Kind::Tell, Payload::encode(&message).map_err(unsendable)?).await.map(drop)
    }

    pub(crate) async fn cast(&self, message: impl Serialize + Send) -> Result<(), CallError> {
        self.deliver_cast(Payload::encode(&message).map_err(unsendable)?).await
    }

    /// Runs an action on this target and no other one.
    pub(crate) async fn call_at(
        &self,
        target: &Target,
        action: &str,
        arguments: &Payload,
    ) -> Result<Payload, CallError> {
        let core = self.node.core();
        self.at(core, target, Kind::Call(action), arguments, self.time()?).await.map_err(Failed::only)
    }

    /// Sends a call to this remote node, if nothing has to be waited for; its answer goes into `answers`.
    pub(crate) fn call_now(
        &self,
        info: &NodeInfo,
        action: &str,
        arguments: &Payload,
        answers: &Answers,
        mark: Mark,
    ) -> Option<Called> {
        let time = self.time().ok()?;
        let exchange = self.node.core().links.with(info.peer_id)?;
        exchange.call_now(self.outgoing(action, time), arguments.bytes(), answers, mark)
    }

    /// What such an answer comes to.
    pub(crate) fn answered(&self, info: &NodeInfo, action: &str, reply: Reply) -> Result<Payload, CallError> {
        let outcome = reply.map(Payload::from_bytes).map_err(|error| {
            let (application, node) = (self.application, &info.name);
            CallError::of_lane(error, &Attempt { application, action, node, after: self.timeout })
        });
        self.node.core().selection.asides.heard(info.peer_id, self.application, Asked::Action(action), &outcome);
        outcome
    }

    /// Sends to this node and no other one.
    pub(crate) async fn deliver_to(
        &self,
        peer_id: PeerId,
        kind: Kind<'_>,
        payload: &Payload,
    ) -> Result<Payload, CallError> {
        let core = self.node.core();
        if core.registry.is_draining() {
            return Err(CallError::Stopped);
        }
        let target = selection::at(core, self.application, peer_id)?;
        self.at(core, &target, kind, payload, self.time()?).await.map_err(Failed::only)
    }

    /// Waits until somebody hosts it, as a message would, and until a node that was just started knows who else does.
    pub(crate) async fn every_host(&self) -> Result<(), CallError> {
        let (core, time) = (self.node.core(), self.time()?);
        self.first_host().await?;
        let limit = time.deadline.min(core.started + DISCOVERY);
        let mut status = core.status.subscribe();
        let others = || core.snapshot.load().nodes.iter().any(|node| !node.local);
        let complete = status.wait_for(|now| now.settled && (now.synced || core.settings.passive || !others()));
        // Whoever is not known by then is not asked.
        let _ = tokio::time::timeout_at(limit.into(), complete).await;
        Ok(())
    }

    /// Waits until somebody hosts it, as a message would.
    pub(crate) async fn first_host(&self) -> Result<(), CallError> {
        self.check(Kind::Tell)?;
        let (core, time) = (self.node.core(), self.time()?);
        match self.pick(core, Asked::Nothing, &[]) {
            Ok(_) => Ok(()),
            Err(Nobody::Ever(error)) => Err(error),
            Err(Nobody::Yet(_)) => self.wait_for_host(core, Asked::Nothing, time.deadline).await.map(drop),
        }
    }

    /// One attempt, whatever way there is.
    async fn at(
        &self,
        core: &Arc<Core>,
        target: &Target,
        kind: Kind<'_>,
        payload: &Payload,
        time: Time,
    ) -> Result<Payload, Failed> {
        self.by(Way::Any, core, target, kind, payload, time).await
    }

    /// One attempt. What comes of it counts for whoever chooses among hosts.
    async fn by(
        &self,
        way: Way,
        core: &Arc<Core>,
        target: &Target,
        kind: Kind<'_>,
        payload: &Payload,
        time: Time,
    ) -> Result<Payload, Failed> {
        let outcome = match target {
            Target::Here(hosted) => Box::pin(self.here(core, hosted, kind, payload.clone(), time)).await,
            Target::There(info) => self.there(way, core, info, kind, payload, time).await,
        };
        core.selection.asides.heard(target.peer_id(core), self.application, kind.asked(), &outcome);
        outcome.map_err(Failed::from)
    }

    /// Refuses names that nobody can have, before anybody is looked for.
    pub(crate) fn check(&self, kind: Kind<'_>) -> Result<(), CallError> {
        names::check("an application", self.application, MAX_NAME).map_err(unsendable)?;
        if let Some(node) = self.on {
            names::check_node(node, MAX_NODE_NAME).map_err(unsendable)?;
        }
        match kind {
            Kind::Call(action) => names::check("an action", action, MAX_NAME).map_err(unsendable),
            Kind::Tell | Kind::Cast => Ok(()),
        }
    }

    /// The time that a message has from now on: as long as was said, but not longer than the call within which it is
    /// sent.
    fn time(&self) -> Result<Time, CallError> {
        let depth = self.node.depth();
        if depth > MAX_DEPTH {
            return Err(CallError::TooDeep { application: self.application.to_owned() });
        }
        let now = Instant::now();
        let own = later(now, self.timeout);
        let deadline = self.node.deadline().map_or(own, |inherited| inherited.min(own));
        if deadline <= now {
            let node = self.node.name().to_owned();
            return Err(CallError::Expired { application: self.application.to_owned(), node });
        }
        let left = Duration::from_millis(u64::try_from((deadline - now).as_millis()).unwrap_or(u64::MAX));
        Ok(Time { deadline, after: if deadline == own { self.timeout } else { left } })
    }

    pub(crate) fn pick(&self, core: &Core, asked: Asked<'_>, tried: &[PeerId]) -> Result<Target, Nobody> {
        let Some(node) = self.on else { return selection::pick(core, self.application, asked, self.wanted, tried) };
        let target = selection::resolve(core, self.application, node, self.wanted)?;
        if tried.contains(&target.peer_id(core)) {
            return Err(Nobody::Yet(CallError::NoSuchNode { node: node.to_owned() }));
        }
        Ok(target)
    }

    /// Whether running it twice does no harm: the caller says so, or the application that got it.
    fn may_run_twice(&self, target: &Target, kind: Kind<'_>) -> bool {
        if self.options.contains(Options::IDEMPOTENT) {
            return true;
        }
        let Kind::Call(action) = kind else { return false };
        match target {
            Target::Here(hosted) => hosted.is_idempotent(action),
            Target::There(info) => {
                let hosted = info.applications.iter().find(|hosted| hosted.name == self.application);
                hosted.is_some_and(|hosted| hosted.idempotent.iter().any(|name| name == action))
            }
        }
    }

    /// Waits until somebody hosts it, or until it is sure enough that nobody does: then it says what is known by then.
    async fn wait_for_host(&self, core: &Core, asked: Asked<'_>, deadline: Instant) -> Result<Target, CallError> {
        let mut changed = core.changed.subscribe();
        let mut status = core.status.subscribe();
        let limit = deadline.min(core.started + DISCOVERY);
        loop {
            let nobody = match self.pick(core, asked, &[]) {
                Ok(target) => return Ok(target),
                Err(Nobody::Ever(error)) => return Err(error),
                Err(Nobody::Yet(error)) => error,
            };
            let now = *status.borrow_and_update();
            let settled = core.started + SETTLING;
            // A swarm may just be forming around a node; a passive one only looks at what is there.
            let complete = now.settled && (now.synced || core.settings.passive);
            let cut_off = selection::is_cut_off(core, self.application, self.on, self.wanted);
            let until = match (cut_off, complete) {
                // It may all be there, and be heard of again.
                (true, _) => deadline,
                (false, true) => limit.min(settled),
                (false, false) => limit,
            };
            tokio::select! {
                outcome = changed.changed() => outcome.map_err(|_| CallError::Stopped)?,
                outcome = status.changed() => outcome.map_err(|_| CallError::Stopped)?,
                () = tokio::time::sleep_until(until.into()) => {
                    return Err(match nobody {
                        _ if cut_off => {
                            let (application, node) = (self.application.to_owned(), self.on.map(str::to_owned));
                            CallError::CutOff { application, node }
                        }
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
        core: &Arc<Core>,
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
        let watcher = self.pulse.map_or(Watcher::Nobody, |pulse| Watcher::Here(pulse.clone()));
        let depth = self.node.depth();
        let origin = Origin { caller: self.node.principal(), deadline: time.deadline, trace: None, watcher, depth };
        match kind {
            Kind::Call(action) => {
                let admission = hosted.admit().map_err(refused)?;
                let context = origin.context(Node::inner(core.clone()), hosted.name.clone());
                let run = async {
                    let _admission = admission;
                    let _slot = match hosted.slot() {
                        Some(slot) => slot,
                        None => {
                            context.watcher.tell(true, Payload::default());
                            let slot = hosted.wait_for_slot().await?;
                            if time.deadline <= Instant::now() {
                                return Err(expired());
                            }
                            context.watcher.tell(false, Payload::default());
                            slot
                        }
                    };
                    hosted.call(context, action.to_owned(), payload).await
                };
                match tokio::time::timeout_at(time.deadline.into(), run).await {
                    Ok(outcome) => outcome.map_err(refused),
                    Err(_) => Err(CallError::TimedOut {
                        application: self.application.to_owned(),
                        node: node.clone(),
                        after: time.after,
                    }),
                }
            }
            Kind::Tell | Kind::Cast => {
                let told = Told { origin, message: payload, charge: None, tells: None };
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
        way: Way,
        core: &Core,
        info: &NodeInfo,
        kind: Kind<'_>,
        payload: &Payload,
        time: Time,
    ) -> Result<Payload, CallError> {
        let exchange = match way {
            Way::Open(exchange) => exchange,
            Way::Any => core.links.with(info.peer_id).ok_or(CallError::Stopped)?,
        };
        let attempt = self.attempt(kind, &info.name, time);
        let payload = payload.bytes();
        let head = self.outgoing(attempt.action, time);
        let outcome = match kind {
            Kind::Call(_) => exchange.call(head, payload).await.map(Payload::from_bytes),
            Kind::Tell => exchange.tell(head, payload).await.map(|()| Payload::default()),
            Kind::Cast => exchange.cast(head, payload).await.map(|()| Payload::default()),
        };
        outcome.map_err(|error| CallError::of_lane(error, &attempt))
    }

    /// How long a node takes to answer a call, whatever it answers: that it does not host the application is an answer.
    pub(crate) async fn round_trip(&self, info: &NodeInfo) -> Result<Duration, CallError> {
        let begun = Instant::now();
        let payload = Payload::arguments(&()).map_err(unsendable)?;
        match self.there(Way::Any, self.node.core(), info, Kind::Call("ping"), &payload, self.time()?).await {
            Ok(_)
            | Err(
                CallError::NoSuchApplication { .. }
                | CallError::NoSuchAction { .. }
                | CallError::Forbidden
                | CallError::Failed { .. },
            ) => Ok(begun.elapsed()),
            Err(error) => Err(error),
        }
    }

    fn outgoing<'b>(&'b self, action: &'b str, time: Time) -> Outgoing<'b> {
        Outgoing {
            application: self.application,
            action,
            deadline: time.deadline,
            options: self.options.at_depth(self.node.depth()),
            trace: None,
            pulse: self.pulse,
        }
    }

    fn attempt<'b>(&'b self, kind: Kind<'b>, node: &'b str, time: Time) -> Attempt<'b> {
        let action = match kind {
            Kind::Call(action) => action,
            Kind::Tell | Kind::Cast => "",
        };
        Attempt { application: self.application, action, node, after: time.after }
    }
}

pub(crate) fn unsendable(error: impl fmt::Display) -> CallError {
    CallError::Unsendable { reason: error.to_string() }
}
