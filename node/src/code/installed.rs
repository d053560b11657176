//! Guests that stay: installed under a name, announced like any other application, replaced by later versions, and there
//! again when the node is started anew.

mod file;
mod guests;
mod record;
mod versions;

use std::sync::Arc;

use libp2p::PeerId;
use serde_bytes::ByteBuf;
use serde_json::json;

use super::{
    application::{GuestApplication, Terms},
    cid::Cid,
    code_ref::{CodeRef, World},
    compiler::Compiled,
    reach::{Asker, Behalf, Bound, Reach},
    service, shipping,
};
use crate::{
    announcement::Announcement,
    application::{AppError, Context, Profile},
    core::Core,
    factories::Maker,
    node::Node,
    registry,
};
pub(crate) use guests::{Guests, load, restore, review};
pub use record::{Record, read as read_records};
use versions::Stale;

/// Guests that others may have a node host.
const MAX_INSTALLED: usize = 64;

/// The largest configuration, encoded, in bytes. It is kept as long as its guest.
const MAX_CONFIG: usize = 64 * 1024;

/// A guest that is hosted here.
pub(crate) struct Installed {
    application: GuestApplication,
    pub(crate) code: CodeRef,
    config: Vec<u8>,
    behalf: Behalf,
    /// Who has brought this version. Whoever installs it again, with another configuration, is its sender, but not this.
    bringer: PeerId,
}

/// Which of two that are installed under one name stays, the same on all nodes: the later version; of one version, or of
/// none, that with the larger hash.
fn rank(code: &CodeRef) -> (Option<semver::Version>, Cid) {
    (code.version().and_then(|version| version.parse().ok()), code.cid())
}

/// Hosts a guest. `Ok` means that it is hosted here now, or was before.
pub(super) async fn install(
    core: &Arc<Core>,
    context: &Context,
    code: CodeRef,
    bytes: Option<ByteBuf>,
    name: String,
    config: Vec<u8>,
    behalf: Behalf,
) -> Result<(), AppError> {
    registry::check_name(&name).map_err(AppError::bad_arguments)?;
    if code.world() != World::Application {
        return Err(shipping::bad(format!("it is {} and not {}", code.world(), World::Application)));
    }
    if config.len() > MAX_CONFIG {
        let text = format!("the configuration has {} bytes, the limit is {MAX_CONFIG}", config.len());
        return Err(AppError::bad_arguments(text));
    }
    let compiled = shipping::ready(core, context, &code, bytes.clone(), &behalf.admitted.allowance).await?;
    shipping::keep(core, context, &code, bytes).await?;
    // From here on nothing is waited for that the caller could hold up.
    let core = core.clone();
    let work = tokio::spawn(async move { host(&core, code, compiled, name, config, behalf).await });
    work.await.map_err(AppError::of)?
}

async fn host(
    core: &Arc<Core>,
    code: CodeRef,
    compiled: Compiled,
    name: String,
    config: Vec<u8>,
    behalf: Behalf,
) -> Result<(), AppError> {
    let _turn = core.workshop.turn(&name).await;
    let there = there(core, &code, &config, &name).await;
    if !matches!(there, There::Same(_) | There::Later(_)) {
        check_version(core, &code, &behalf).await?;
    }
    match there {
        There::Same(held) => {
            // It may have been proven anew, for longer.
            if held.asker.sender == behalf.asker.sender {
                held.asker.proof.store(behalf.asker.proof.load_full());
                guests::keep(core, &*core.workshop.installed.lock().await).await?;
            }
            return Ok(());
        }
        There::Later(cid) => {
            let text = format!("`{name}` is there in a later version, `{cid}`");
            return Err(AppError::new("superseded", text));
        }
        There::Other(application) => upgrade(core, application, code, compiled, &name, config, behalf).await?,
        There::Nothing(bringer) => {
            let bringer = bringer.unwrap_or(behalf.asker.sender);
            begin(core, code, compiled, &name, config, behalf, bringer).await?;
            let mut installed = core.workshop.installed.lock().await;
            if let Err(error) = guests::keep(core, &installed).await {
                installed.stop(core, &name);
                return Err(error);
            }
        }
    }
    tracing::info!(application = %name, "a guest is installed");
    Ok(())
}

/// Whoever may install it only because of its signature brings back nothing older than what was here.
async fn check_version(core: &Core, code: &CodeRef, behalf: &Behalf) -> Result<(), AppError> {
    let Some(publisher) = behalf.asker.publisher else { return Ok(()) };
    let unsigned = Asker { publisher: None, ..behalf.asker.clone() };
    if unsigned.admit(core).is_some() {
        return Ok(());
    }
    let stale = core.workshop.installed.lock().await.versions.check(&publisher, code);
    stale.map_err(|stale| match stale {
        Stale::Older(highest) => {
            let text = format!(
                "version {highest} of it, signed by `{publisher}`, was here: a higher version may take its place{}",
                if code.name().is_some() { "" } else { "; all code that is signed without a name is one program" }
            );
            AppError::new("superseded", text)
        }
        Stale::TooMany(most) => {
            let text = format!("{most} programs signed by `{publisher}` were here, more are not remembered");
            AppError::new("too_many_installed", text)
        }
    })
}

/// What is hosted under a name.
enum There {
    /// Perhaps what is not hosted at present: then who has brought that, if it is the same code.
    Nothing(Option<PeerId>),
    Same(Box<Behalf>),
    Later(Cid),
    Other(GuestApplication),
}

async fn there(core: &Core, code: &CodeRef, config: &[u8], name: &str) -> There {
    let mut installed = core.workshop.installed.lock().await;
    // The node's own program may have taken it out of the registry.
    if core.registry.find(name).is_none_or(|hosted| hosted.maker != Maker::Code) {
        installed.here.remove(name);
    }
    match installed.here.get(name) {
        None => match installed.away(core, name) {
            // It is about to be back: as if it were here.
            Some((away, true)) if rank(&away.code) > rank(code) => There::Later(away.code.cid()),
            // That gives nobody a right that others had.
            Some((away, _)) if rank(&away.code) == rank(code) => There::Nothing(away.bringer()),
            _ => There::Nothing(None),
        },
        // By a rule that is good no more it would not be there for long.
        Some(there) if there.code == *code && there.config == config && there.behalf.holds(core) => {
            There::Same(there.behalf.clone().into())
        }
        Some(there) if rank(&there.code) > rank(code) => There::Later(there.code.cid()),
        Some(there) => There::Other(there.application.clone()),
    }
}

/// Puts other code in the place of a guest. What it reaches, and how much it takes, is from then on what its sender may.
async fn upgrade(
    core: &Arc<Core>,
    application: GuestApplication,
    code: CodeRef,
    compiled: Compiled,
    name: &str,
    config: Vec<u8>,
    behalf: Behalf,
) -> Result<(), AppError> {
    // Others wait for the instance, too: nothing but this name is held up meanwhile.
    let replaced = application.take_over(compiled, config.clone(), terms(core, &behalf));
    replaced.await.map_err(service::told)?;
    let mut installed = core.workshop.installed.lock().await;
    let installed = &mut *installed;
    let Some(there) = installed.here.get_mut(name) else { return Err(not_installed(name)) };
    // Of equal rank it is the same code with another configuration: that gives nobody a right that others had.
    if rank(&code) > rank(&there.code) || !there.behalf.holds(core) {
        there.bringer = behalf.asker.sender;
    }
    installed.versions.note(core, &code, &behalf);
    let announcement = Announcement::new().description(description(&code, &behalf));
    let announcement = match code.version() {
        Some(version) => announcement.version(version),
        None => announcement,
    };
    (there.code, there.config, there.behalf) = (code, config, behalf);
    Node::inner(core.clone()).announce(name, announcement).map_err(AppError::of)?;
    guests::keep(core, installed).await
}

/// Starts a guest and registers it.
async fn begin(
    core: &Arc<Core>,
    code: CodeRef,
    compiled: Compiled,
    name: &str,
    config: Vec<u8>,
    behalf: Behalf,
    bringer: PeerId,
) -> Result<(), AppError> {
    core.workshop.installed.lock().await.check_room(core, name)?;
    let runtime = core.workshop.shop().map_err(shipping::bad)?.runtime.clone();
    let profile = Profile {
        description: description(&code, &behalf),
        version: code.version().map(str::to_owned),
        ..Profile::default()
    };
    let terms = terms(core, &behalf);
    let application = GuestApplication::start_within(runtime, compiled, config.clone(), terms, profile);
    let application = application.await.map_err(service::told)?;
    let mut installed = core.workshop.installed.lock().await;
    installed.check_room(core, name)?;
    let registered = Node::inner(core.clone()).host(name, application.clone(), Maker::Code);
    registered.map_err(|error| AppError::new("not_registered", error.to_string()))?;
    installed.versions.note(core, &code, &behalf);
    installed.add(name, Installed { application, code, config, behalf, bringer });
    Ok(())
}

/// What its sender may, now and whenever it asks for something.
fn terms(core: &Arc<Core>, behalf: &Behalf) -> Terms {
    let (weak, shared) = (Arc::downgrade(core), Arc::new(behalf.clone()));
    Terms::new(behalf.admitted.allowance.clone(), move |context| {
        let (deadline, depth) =
            context.map_or((None, 1), |context| (context.node().deadline(), context.node().depth()));
        Arc::new(Reach { core: weak.clone(), behalf: shared.clone(), deadline, depth })
    })
}

/// What others see of it.
fn description(code: &CodeRef, behalf: &Behalf) -> serde_json::Value {
    json!({
        "code": code.cid().to_string(),
        "name": code.name(),
        "installed_by": behalf.asker.sender.to_base58(),
        "publisher": behalf.asker.publisher.map(|publisher| publisher.to_base58()),
    })
}

/// Hosts it no longer, for somebody who may install.
pub(super) async fn uninstall(core: &Arc<Core>, context: &Context, name: &str) -> Result<(), AppError> {
    let sender = context.caller();
    let origin = core.workshop.installed.lock().await.origin(core, name);
    // Whoever passes signed code on speaks for its publisher only as long as it is that code which is asked for.
    let publisher =
        origin.and_then(|(publisher, bringer)| publisher.filter(|by| *by == sender || bringer == Some(sender)));
    let (proof, bound) = (service::proof(core, &sender), Bound::Itself(name.to_owned()));
    service::may(core, Asker { sender, publisher, proof, bound })?;
    // From here on it is done and written down as one, whether the caller waits for it or not.
    let (core, name) = (core.clone(), name.to_owned());
    let work = tokio::spawn(async move {
        let mut installed = core.workshop.installed.lock().await;
        if !installed.stop(&core, &name) {
            return Err(not_installed(&name));
        }
        tracing::info!(application = %name, caller = %sender, "a guest was uninstalled");
        guests::keep(&core, &installed).await
    });
    work.await.map_err(AppError::of)?
}

fn not_installed(name: &str) -> AppError {
    let text = format!("no code is installed here as `{}`", name.chars().take(80).collect::<String>());
    AppError::new("not_installed", text)
}
