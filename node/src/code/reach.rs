//! What a guest reaches of its node: asked again at each use, on behalf of whoever sent it.

use std::{
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use libp2p::PeerId;

use super::{
    policy::{Admitted, Request, Wish},
    service,
    surroundings::Surroundings,
};
use crate::{
    core::Core,
    node::Node,
    payload::Payload,
    permissions::Proof,
    route::{Kind, Route},
    selection::Chooser,
    strategy::Strategy,
};

/// How long what a guest sends may take where nothing else sets a limit.
const LIMIT: Duration = Duration::from_secs(30);

/// What is said of everything that is not permitted.
const FORBIDDEN: &str = "forbidden";

/// Who wants to have which guest here.
#[derive(Debug, Clone)]
pub(crate) struct Asker {
    pub(crate) sender: PeerId,
    pub(crate) publisher: Option<PeerId>,
    /// What the sender has proven. Shared by all clones: it can be proven anew.
    pub(crate) proof: Arc<ArcSwap<Proof>>,
    pub(crate) bound: Bound,
}

/// The same, once a rule has admitted it.
#[derive(Debug, Clone)]
pub(crate) struct Behalf {
    pub(crate) asker: Asker,
    pub(crate) admitted: Admitted,
}

impl Asker {
    /// Somebody who is admitted by the rules, as they are now.
    pub(crate) fn admit(self, core: &Core) -> Option<Behalf> {
        let admitted = self.request(|request| core.workshop.policy.admit(&core.permissions, &request))?;
        Some(Behalf { asker: self, admitted })
    }

    fn request<T>(&self, ask: impl FnOnce(Request<'_>) -> T) -> T {
        let Self { sender, publisher, proof, bound } = self;
        let wish = match bound {
            Bound::Node => Wish::Run,
            Bound::Application(name) => Wish::RunIn(name),
            Bound::Itself(name) => Wish::Install(name),
        };
        ask(Request { sender, publisher: publisher.as_ref(), proof: Some(&proof.load()), wish })
    }
}

impl Behalf {
    /// Whether the rule that has admitted it does so still.
    pub(crate) fn holds(&self, core: &Core) -> bool {
        self.asker.request(|request| core.workshop.policy.holds(&core.permissions, &self.admitted, &request))
    }
}

/// What `this` is.
#[derive(Debug, Clone)]
pub(crate) enum Bound {
    /// The node itself: its application `node`.
    Node,
    /// An application, through its own queue.
    Application(String),
    /// The guest itself, which stays under this name.
    Itself(String),
}

/// The surroundings of one request.
pub(crate) struct Reach {
    pub(crate) core: Weak<Core>,
    pub(crate) behalf: Arc<Behalf>,
    /// When whoever has asked stops waiting.
    pub(crate) deadline: Option<Instant>,
    /// How many calls within calls led here.
    pub(crate) depth: u8,
}

impl Reach {
    /// Sends on the guest's behalf, if its sender may, now.
    fn send(
        &self,
        application: String,
        here: bool,
        action: Option<String>,
        payload: Vec<u8>,
    ) -> BoxFuture<'static, Result<Vec<u8>, String>> {
        let Some(core) = self.core.upgrade() else { return async { Err("the node stops".to_owned()) }.boxed() };
        if !self.behalf.holds(&core) || !self.reaches(&core, &application, here, action.as_deref()) {
            tracing::debug!(sender = %self.behalf.asker.sender, %application, action, "a guest may not use this");
            return async { Err(FORBIDDEN.to_owned()) }.boxed();
        }
        let mut node = Node::inner(core.clone());
        node.limit(Some(self.deadline.unwrap_or_else(|| Instant::now() + LIMIT)));
        node.deepen(self.depth);
        node.act_for(self.behalf.asker.sender);
        // A guest takes one request at a time: its own name means it on another node, if there is one.
        let elsewhere = !here && self.is_itself(&application) && is_hosted_elsewhere(&core, &application);
        async move {
            let own = core.peer_id.to_base58();
            let random = Chooser::new(Strategy::Random);
            let mut route = Route::new(&node, &application);
            route.timeout = LIMIT;
            if elsewhere {
                route.wanted.remote = true;
                route.wanted.chooser = Some(&random);
            }
            route.on = here.then_some(own.as_str());
            let kind = action.as_deref().map_or(Kind::Tell, Kind::Call);
            let result = route.deliver(kind, Payload::from_bytes(Bytes::from(payload))).await;
            result.map(|result| result.into_bytes().to_vec()).map_err(|error| error.to_string())
        }
        .boxed()
    }

    fn reaches(&self, core: &Core, application: &str, here: bool, action: Option<&str>) -> bool {
        let Behalf { asker: Asker { sender, bound, .. }, admitted } = &*self.behalf;
        // There it would be the node itself that asks, which may do everything.
        if application == service::NAME {
            return false;
        }
        let own = match bound {
            Bound::Node => here && application == crate::built_in::NAME,
            Bound::Application(name) | Bound::Itself(name) => here && application == name,
        };
        if !own && !core.workshop.policy.reaches(admitted, application) {
            return false;
        }
        // Code is no way around the rules of what is hosted here.
        let hosted = core.registry.find(application);
        hosted.is_none_or(|hosted| core.permissions.permits(&hosted.guards, application, action, sender))
    }

    fn is_itself(&self, application: &str) -> bool {
        matches!(&self.behalf.asker.bound, Bound::Itself(name) if name == application)
    }

    fn this(&self) -> String {
        match &self.behalf.asker.bound {
            Bound::Node => crate::built_in::NAME.to_owned(),
            Bound::Application(name) | Bound::Itself(name) => name.clone(),
        }
    }
}

fn is_hosted_elsewhere(core: &Core, application: &str) -> bool {
    let snapshot = core.snapshot.load();
    snapshot.by_application.get(application).is_some_and(|hosts| hosts.iter().any(|host| !host.local))
}

impl Surroundings for Reach {
    fn call(
        &self,
        application: String,
        action: String,
        arguments: Vec<u8>,
    ) -> BoxFuture<'static, Result<Vec<u8>, String>> {
        self.send(application, false, Some(action), arguments)
    }

    fn tell(&self, application: String, message: Vec<u8>) -> BoxFuture<'static, Result<(), String>> {
        self.send(application, false, None, message).map(|result| result.map(drop)).boxed()
    }

    fn describe_node(&self) -> Vec<u8> {
        let description = self.core.upgrade().map(|core| core.description());
        Payload::encode(&description).unwrap_or_default().into_bytes().to_vec()
    }

    fn log(&self, text: String) {
        tracing::info!(sender = %self.behalf.asker.sender, bound = %self.this_name(), guest = ?text, "a guest says");
    }

    fn this_name(&self) -> String {
        match &self.behalf.asker.bound {
            Bound::Node => self.core.upgrade().map(|core| core.settings.name.clone()).unwrap_or_default(),
            Bound::Application(name) | Bound::Itself(name) => name.clone(),
        }
    }

    fn this_call(&self, action: String, arguments: Vec<u8>) -> BoxFuture<'static, Result<Vec<u8>, String>> {
        self.send(self.this(), true, Some(action), arguments)
    }

    fn this_tell(&self, message: Vec<u8>) -> BoxFuture<'static, Result<(), String>> {
        self.send(self.this(), true, None, message).map(|result| result.map(drop)).boxed()
    }
}
