//! What nodes ask of each other for code. It is hosted like an application, but in no directory.

use std::sync::Arc;

use arc_swap::ArcSwap;
use libp2p::PeerId;
use serde_bytes::ByteBuf;
use serde_json::Value;

use super::{
    cid::Cid,
    code_ref::{CodeRef, World},
    guest_error::GuestError,
    installed,
    reach::{Asker, Behalf, Bound, Reach},
    shipping, task,
};
use crate::{
    application::{AppError, Application, Context, Profile},
    core::{Core, Counters},
    payload::Payload,
    permissions::Proof,
};

/// Its name. No application can be registered under it, and none is listed.
pub(crate) const NAME: &str = "multinodes/code";

pub(super) const RUN: &str = "run";
pub(super) const INSTALL: &str = "install";
pub(super) const UNINSTALL: &str = "uninstall";
pub(super) const FETCH: &str = "fetch";

/// What `run` takes: the code, its bytes if they go along, the application that it is bound to, and its arguments.
pub(super) type RunArguments = (CodeRef, Option<ByteBuf>, Option<String>, ByteBuf);

/// What `install` takes: the code, its bytes if they go along, the application's name, and its configuration.
pub(super) type InstallArguments = (CodeRef, Option<ByteBuf>, String, ByteBuf);

/// Under this key the description of the application `node` says that code is taken.
pub(crate) const TAKEN: &str = "code";

/// The service of one node.
pub(crate) struct CodeService;

impl Application for CodeService {
    fn profile(&self) -> Profile {
        Profile { takes_tells: false, ..Profile::default() }
    }

    async fn call(&self, context: Context, action: &str, arguments: Payload) -> Result<Payload, AppError> {
        let core = context.node().core().clone();
        match action {
            RUN => {
                let (code, bytes, application, arguments) = read::<RunArguments>(&arguments)?;
                let result = run(&core, &context, code, bytes, application, arguments.into_vec()).await?;
                answer(&ByteBuf::from(result))
            }
            INSTALL => {
                let (code, bytes, name, config) = read::<InstallArguments>(&arguments)?;
                let behalf = admit(&core, &context, &code, Bound::Itself(name.clone()))?;
                installed::install(&core, &context, code, bytes, name, config.into_vec(), behalf).await?;
                answer(&Value::Null)
            }
            UNINSTALL => {
                let (name,) = read::<(String,)>(&arguments)?;
                installed::uninstall(&core, &context, &name).await?;
                answer(&Value::Null)
            }
            FETCH => {
                let (cid, offset, length) = read::<(Cid, u64, u64)>(&arguments)?;
                answer(&shipping::piece(&core, cid, offset, length).await?)
            }
            other => Err(AppError::no_such_action(other)),
        }
    }
}

async fn run(
    core: &Arc<Core>,
    context: &Context,
    code: CodeRef,
    bytes: Option<ByteBuf>,
    application: Option<String>,
    arguments: Vec<u8>,
) -> Result<Vec<u8>, AppError> {
    let bound = application.clone().map_or(Bound::Node, Bound::Application);
    let behalf = admit(core, context, &code, bound)?;
    let is_here = |name: &String| name != NAME && core.registry.find(name).is_some();
    if let Some(application) = application.filter(|name| !is_here(name)) {
        let text = format!("no application `{application}` is hosted here");
        return Err(AppError::new("no_such_application", text));
    }
    if code.world() != World::Task {
        return Err(shipping::bad(format!("it is {} and not {}", code.world(), World::Task)));
    }
    let allowance = behalf.admitted.allowance.clone();
    let compiled = shipping::ready(core, context, &code, bytes, &allowance).await?;
    let runtime = core.workshop.shop().map_err(shipping::bad)?.runtime.clone();
    let reach = Reach {
        core: Arc::downgrade(core),
        behalf: Arc::new(behalf),
        deadline: Some(context.deadline()),
        depth: context.node().depth(),
    };
    let outcome = task::run(&runtime, &compiled, arguments, &allowance, Arc::new(reach)).await.map_err(told)?;
    outcome.timings.log(&code.cid(), &context.caller());
    Ok(outcome.result)
}

/// Whether the caller may have this done, and within which limits. Whoever may not is told nothing more.
fn admit(core: &Core, context: &Context, code: &CodeRef, bound: Bound) -> Result<Behalf, AppError> {
    let sender = context.caller();
    // A signature that does not hold is as none: a peer may be admitted by its id all the same.
    let publisher = core.workshop.publisher(code).unwrap_or_default();
    may(core, Asker { sender, publisher, proof: proof(core, &sender), bound })
}

/// What a peer has proven by now.
pub(super) fn proof(core: &Core, peer_id: &PeerId) -> Arc<ArcSwap<Proof>> {
    Arc::new(ArcSwap::from_pointee(core.permissions.proofs.of(peer_id)))
}

pub(super) fn may(core: &Core, asker: Asker) -> Result<Behalf, AppError> {
    let (sender, bound) = (asker.sender, asker.bound.clone());
    asker.admit(core).ok_or_else(|| {
        Counters::add(&core.counters.forbidden_messages);
        tracing::debug!(%sender, ?bound, "code is not taken");
        AppError::forbidden()
    })
}

/// What the sender is told of what became of its guest.
pub(super) fn told(error: GuestError) -> AppError {
    use GuestError as E;
    let code = match &error {
        E::Failed(text) => return AppError::of(text),
        E::InstanceLimit { .. } | E::Resting { .. } | E::NodeMemory { begun: false, .. } => {
            return AppError::busy(error);
        }
        E::TimeLimit { .. } => "time_limit",
        E::CpuLimit { .. } => "cpu_limit",
        E::RateLimit { .. } => "rate_limit",
        E::MemoryLimit { .. } => "memory_limit",
        E::NodeMemory { .. } => "node_memory",
        E::StackLimit { .. } => "stack_limit",
        E::OutputTooLarge { .. } => "output_limit",
        E::HostCallLimit { .. } => "host_call_limit",
        E::WrongWorld { .. } => "bad_code",
        _ => "trapped",
    };
    AppError::new(code, error.to_string())
}

fn read<T: serde::de::DeserializeOwned>(arguments: &Payload) -> Result<T, AppError> {
    arguments.decode_arguments().map_err(AppError::bad_arguments)
}

fn answer<T: serde::Serialize>(value: &T) -> Result<Payload, AppError> {
    Payload::encode(value).map_err(AppError::of)
}
