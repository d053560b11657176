//! Sends code to other nodes: to run once, or to stay.

use std::{sync::Arc, time::Duration};

use libp2p::PeerId;
use multinodes_behaviour::names;
use serde::{Serialize, de::DeserializeOwned};
use serde_bytes::ByteBuf;

use super::{
    code_ref::World,
    portable::Code,
    service::{self, InstallArguments, RunArguments},
    shipping::INLINE,
};
use crate::{
    app_ref::DEFAULT_TIMEOUT,
    built_in,
    call_error::CallError,
    core::Core,
    description::Host,
    node::Node,
    payload::Payload,
    route::{Kind, Route, unsendable},
    selection::{self, Asked},
};

/// Code that is to run once: in an instance of its own on some node, which is gone afterwards. See [`Node::run`].
#[derive(Clone)]
#[must_use = "nothing runs until it is called"]
pub struct Run {
    node: Node,
    code: Code,
    on: Option<String>,
    application: Option<String>,
    timeout: Duration,
}

impl Run {
    /// Where it runs: a node, given by its name or its peer id. Else on any node that takes code; bound to an
    /// application, on a host of that.
    pub fn on(mut self, node: impl Into<String>) -> Self {
        self.on = Some(node.into());
        self
    }

    /// Binds `this` to an application on that node: the guest calls and tells it through its own queue, as any caller. It
    /// does not get at its memory. Without it `this` is the node's application `node`.
    pub fn in_application(mut self, application: impl Into<String>) -> Self {
        self.application = Some(names::into_normal(application.into()));
        self
    }

    /// How long it may take, sending and compiling included: 10 s by default.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Runs it with arguments, a tuple or a single value, and gives its result. `Ok` means that it ran to its end.
    ///
    /// # Errors
    ///
    /// See [`CallError`]: [`Forbidden`](CallError::Forbidden) if that node does not take code from here, or not for that;
    /// [`NoSuchApplication`](CallError::NoSuchApplication) if it knows nothing of code;
    /// [`NoMatch`](CallError::NoMatch) if none was named and no node takes code;
    /// [`Failed`](CallError::Failed) with the guest's own text, or with the code `bad_code`, `no_code`, `time_limit`,
    /// `cpu_limit`, `memory_limit`, `stack_limit`, `output_limit`, `host_call_limit`, `trapped` or `no_such_application`;
    /// with `rate_limit` or `compile_rate`, whose text says how long to wait, if guests from here have computed, or code from
    /// here was compiled, for as long as that node allows; with `node_memory` if its guests have all the memory that they
    /// may have. [`Busy`](CallError::Busy) if too many guests run there, or too much code waits for its compiler.
    pub async fn call<R: DeserializeOwned>(&self, arguments: impl Serialize + Send) -> Result<R, CallError> {
        let result = self.call_raw(Payload::arguments(&arguments).map_err(unsendable)?).await?;
        result.decode().map_err(|error| CallError::UnexpectedResult {
            application: self.name().to_owned(),
            reason: error.to_string(),
        })
    }

    /// What errors call it.
    fn name(&self) -> &str {
        self.code.name().unwrap_or("the code")
    }

    /// Like [`call`](Self::call), with arguments that are encoded already, as a list, and a result that still is.
    ///
    /// # Errors
    ///
    /// See [`call`](Self::call).
    pub async fn call_raw(&self, arguments: Payload) -> Result<Payload, CallError> {
        if self.code.world() != World::Task {
            return Err(unsendable(format!("the code is {} and not {}: install it", self.code.world(), World::Task)));
        }
        let arguments = ByteBuf::from(arguments.into_bytes().to_vec());
        let target = self.target().await?;
        let request = |bytes| -> RunArguments {
            (self.code.reference().clone(), bytes, self.application.clone(), arguments.clone())
        };
        let result = send::<ByteBuf, _>(&self.node, &self.code, target, service::RUN, self.timeout, request).await;
        let result = result.map_err(|error| error.of(self.name()))?;
        Ok(Payload::from_bytes(result.into_vec()))
    }

    async fn target(&self) -> Result<PeerId, CallError> {
        let application = self.application.as_deref().unwrap_or(built_in::NAME);
        let target = self.node.app(application).timeout(self.timeout);
        let target = match (&self.on, &self.application) {
            (Some(node), _) => target.on(node.as_str()),
            // Its own node needs nobody else's permission.
            (None, Some(_)) => {
                let node = self.node.clone();
                target.filter(move |host| host.local || takes_code(&node, host.peer_id))
            }
            (None, None) => target.remote().filter(is_open),
        };
        pick(&target.route()).await
    }
}

impl Node {
    /// Runs code on another node, or here: say where by [`Run::on`], and in which application by
    /// [`Run::in_application`]. It is sent the first time only; afterwards its hash is enough.
    ///
    /// Nobody runs code of others unless a rule says so: see [`CodeRule`](crate::CodeRule).
    pub fn run(&self, code: &Code) -> Run {
        Run { node: self.clone(), code: code.clone(), on: None, application: None, timeout: DEFAULT_TIMEOUT }
    }
}

/// Whether this host of the application `node` takes code.
pub(crate) fn is_open(host: &Host) -> bool {
    host.description[service::TAKEN] == true
}

fn takes_code(node: &Node, peer_id: PeerId) -> bool {
    let snapshot = node.core().snapshot.load();
    let hosts = snapshot.by_application.get(built_in::NAME);
    hosts.is_some_and(|hosts| hosts.iter().any(|host| host.peer_id == peer_id && is_open(host)))
}

/// Which node it is, as soon as one is known.
async fn pick(route: &Route<'_>) -> Result<PeerId, CallError> {
    let core = route.node.core();
    if let Ok(target) = route.pick(core, Asked::Nothing, &[]) {
        return Ok(target.peer_id(core));
    }
    route.first_host().await?;
    match route.pick(core, Asked::Nothing, &[]) {
        Ok(target) => Ok(target.peer_id(core)),
        Err(selection::Nobody::Yet(error) | selection::Nobody::Ever(error)) => Err(error),
    }
}

/// Installs code on one node.
pub(crate) async fn install_on(
    node: &Node,
    code: &Code,
    name: &str,
    config: &Payload,
    on: &str,
    timeout: Duration,
) -> Result<(), CallError> {
    let target = node.app(built_in::NAME).timeout(timeout).on(on);
    let target = pick(&target.route()).await?;
    let request = |bytes| -> InstallArguments {
        (code.reference().clone(), bytes, name.to_owned(), ByteBuf::from(config.as_bytes()))
    };
    let done = send::<serde_json::Value, _>(node, code, target, service::INSTALL, timeout, request).await;
    done.map(drop).map_err(|error| error.of(name))
}

/// Lets a node host it no longer.
pub(crate) async fn uninstall_on(node: &Node, name: &str, on: &str) -> Result<(), CallError> {
    let (name, on) = (&*names::normal(name), &*names::normal(on));
    let mut route = Route::new(node, service::NAME);
    route.on = Some(on);
    let done = route.call::<serde_json::Value>(service::UNINSTALL, (name,)).await;
    done.map(drop).map_err(|error| error.of(name))
}

/// Sends code with a request, its bytes only if they are few and may not be there.
async fn send<R: DeserializeOwned, A: Serialize + Send>(
    node: &Node,
    code: &Code,
    peer_id: PeerId,
    action: &str,
    timeout: Duration,
    request: impl Fn(Option<ByteBuf>) -> A,
) -> Result<R, CallError> {
    let core: &Arc<Core> = node.core();
    let cid = code.cid();
    // Whoever has it by its name only fetches the rest from here, however that has come about.
    let _offer = core.workshop.offer(code);
    let goes_along = code.size() <= INLINE && !core.workshop.is_known(peer_id, cid);
    let bytes = goes_along.then(|| ByteBuf::from(code.bytes().to_vec()));
    let mut route = Route::new(node, service::NAME);
    route.timeout = timeout;
    let arguments = Payload::arguments(&request(bytes)).map_err(unsendable)?;
    let result = route.deliver_to(peer_id, Kind::Call(action), &arguments).await?;
    let result = result.decode().map_err(|error| CallError::UnexpectedResult {
        application: service::NAME.to_owned(),
        reason: error.to_string(),
    })?;
    core.workshop.knows(peer_id, cid);
    Ok(result)
}
