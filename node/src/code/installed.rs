//! Guests that stay: installed under a name, announced like any other application, replaced by later versions, and there
//! again when the node is started anew.

mod record;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures::{StreamExt, stream};
use libp2p::PeerId;
use serde_bytes::ByteBuf;
use serde_json::json;

use super::{
    application::{GuestApplication, Terms},
    cid::Cid,
    code_ref::{CodeRef, World},
    compiler::Compiled,
    policy::{Request, Wish},
    reach::{Behalf, Bound, Reach},
    service, shipping,
    vetting::Budget,
};
use crate::{
    announcement::Announcement,
    application::{AppError, Context, Profile},
    core::Core,
    factories::Recipe,
    node::Node,
    registry,
};
pub use record::{Record, read as read_records};

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
    /// The rule that has admitted it.
    rule: String,
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
    let compiled = shipping::ready(core, context, &code, bytes, behalf.admitted.allowance.limits()).await?;
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
    let there = core.workshop.installed.lock().await.get(&name).map(|there| {
        let same = there.code == code && there.config == config;
        (same, rank(&there.code) > rank(&code), there.code.cid(), there.application.clone())
    });
    match there {
        Some((true, ..)) => return Ok(()),
        Some((_, true, cid, _)) => {
            let text = format!("`{name}` is there in a later version, `{cid}`");
            return Err(AppError::new("superseded", text));
        }
        Some((.., application)) => upgrade(core, application, code, compiled, &name, config, behalf).await?,
        None => begin(core, code, compiled, &name, config, behalf).await?,
    }
    tracing::info!(application = %name, "a guest is installed");
    Ok(())
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
    let Some(there) = installed.get_mut(name) else { return Err(not_installed(name)) };
    let announcement = Announcement::new().description(description(&code, &behalf));
    let announcement = match code.version() {
        Some(version) => announcement.version(version),
        None => announcement,
    };
    let rule = core.workshop.policy.text(&behalf.admitted);
    (there.code, there.config, there.rule, there.behalf) = (code, config, rule, behalf);
    Node::inner(core.clone()).announce(name, announcement).map_err(AppError::of)?;
    keep(core, &installed).await;
    Ok(())
}

/// Starts a guest and registers it.
async fn begin(
    core: &Arc<Core>,
    code: CodeRef,
    compiled: Compiled,
    name: &str,
    config: Vec<u8>,
    behalf: Behalf,
) -> Result<(), AppError> {
    check_room(core, &*core.workshop.installed.lock().await, name)?;
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
    check_room(core, &installed, name)?;
    let recipe = Recipe::of_code(&code.cid().to_string());
    let registered = Node::inner(core.clone()).host(name, application.clone(), Some(recipe));
    registered.map_err(|error| AppError::new("not_registered", error.to_string()))?;
    let rule = core.workshop.policy.text(&behalf.admitted);
    installed.insert(name.to_owned(), Installed { application, code, config, behalf, rule });
    keep(core, &installed).await;
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

/// Whether another guest may be hosted under a name.
fn check_room(core: &Core, installed: &BTreeMap<String, Installed>, name: &str) -> Result<(), AppError> {
    if core.registry.find(name).is_some() {
        return Err(AppError::new("name_taken", format!("another application `{name}` is registered here")));
    }
    if installed.len() >= MAX_INSTALLED {
        let text = format!("{MAX_INSTALLED} guests are installed here, which is the limit");
        return Err(AppError::new("too_many_installed", text));
    }
    Ok(())
}

/// What others see of it.
fn description(code: &CodeRef, behalf: &Behalf) -> serde_json::Value {
    json!({
        "code": code.cid().to_string(),
        "name": code.name(),
        "installed_by": behalf.sender.to_base58(),
        "publisher": behalf.publisher.map(|publisher| publisher.to_base58()),
    })
}

/// Hosts it no longer, for somebody who may install.
pub(super) async fn uninstall_for(core: &Arc<Core>, context: &Context, name: &str) -> Result<(), AppError> {
    let sender = context.caller();
    let behalf = core.workshop.installed.lock().await.get(name).map(|installed| installed.behalf.clone());
    // Whoever passes signed code on speaks for its publisher only as long as it is that code which is asked for.
    let publisher = behalf.and_then(|behalf| behalf.publisher.filter(|by| *by == sender || behalf.sender == sender));
    service::may(core, &Request { sender: &sender, publisher: publisher.as_ref(), wish: Wish::Install(name) })?;
    if uninstall(core, name).await {
        tracing::info!(application = %name, caller = %sender, "a guest was uninstalled");
        return Ok(());
    }
    Err(not_installed(name))
}

fn not_installed(name: &str) -> AppError {
    let text = format!("no code is installed here as `{}`", name.chars().take(80).collect::<String>());
    AppError::new("not_installed", text)
}

/// Hosts it no longer; false if it was not hosted.
pub(crate) async fn uninstall(core: &Arc<Core>, name: &str) -> bool {
    let mut installed = core.workshop.installed.lock().await;
    if installed.remove(name).is_none() {
        return false;
    }
    // It may be unregistered already.
    let _ = Node::inner(core.clone()).unhost(name);
    keep(core, &installed).await;
    true
}

/// Writes down what is installed, for the next start.
async fn keep(core: &Core, installed: &BTreeMap<String, Installed>) {
    let Some(folder) = core.workshop.folder.clone() else { return };
    let records: Vec<Record> = installed.iter().map(|(name, installed)| Record::of(name, installed)).collect();
    let written = tokio::task::spawn_blocking(move || record::write(&folder, &records)).await;
    if let Ok(Err(error)) = written {
        tracing::error!(%error, "what is installed cannot be written down: it will be missing after the next start");
    }
}

/// Brings back what was installed when the node ran last, as far as its rules still admit it.
pub(crate) async fn restore(core: Arc<Core>) {
    let Some(folder) = core.workshop.folder.clone() else { return };
    let records = tokio::task::spawn_blocking(move || record::read(&folder)).await;
    let records = match records {
        Ok(Ok(records)) => records,
        Ok(Err(error)) => return tracing::error!(%error, "what was installed cannot be read"),
        Err(_) => return,
    };
    let all = stream::iter(records.into_iter().take(MAX_INSTALLED));
    // One that is slow to start does not hold the others up.
    all.for_each_concurrent(BACK_AT_ONCE, |record| async {
        let name = record.name.clone();
        match tokio::time::timeout(RESTORE_LIMIT, bring_back(&core, record)).await {
            Ok(Ok(())) => tracing::info!(application = %name, "a guest is back"),
            Ok(Err(error)) => tracing::error!(application = %name, %error, "a guest cannot be brought back"),
            Err(_) => tracing::error!(application = %name, "a guest was not back in time"),
        }
    })
    .await;
}

/// So many guests are brought back at once.
const BACK_AT_ONCE: usize = 16;

/// How long bringing back one guest may take: it may have to be compiled.
const RESTORE_LIMIT: Duration = Duration::from_secs(120);

async fn bring_back(core: &Arc<Core>, record: Record) -> Result<(), AppError> {
    let Record { name, code, config, sender, rule } = record;
    let sender: PeerId = sender.parse().map_err(AppError::of)?;
    let admitted = core.workshop.policy.again(&rule).ok_or_else(|| {
        AppError::new("forbidden", format!("the rule `{rule}`, by which it was installed, is not there any more"))
    })?;
    let publisher = core.workshop.publisher(&code).unwrap_or_default();
    let request = Request { sender: &sender, publisher: publisher.as_ref(), wish: Wish::Install(&name) };
    if !core.workshop.policy.still_holds(&core.permissions, &admitted, &request) {
        let text = format!("`{sender}`, who has installed it, may not do that any more");
        return Err(AppError::new("forbidden", text));
    }
    let shop = core.workshop.shop().map_err(shipping::bad)?;
    let (compiler, store, cid) = (shop.compiler.clone(), shop.store.clone(), code.cid());
    let found = tokio::task::spawn_blocking(move || compiler.find(&cid)).await.map_err(AppError::of)?;
    let compiled = match found {
        Some(compiled) => compiled,
        None => {
            let bytes = tokio::task::spawn_blocking(move || store.get(&cid)).await.map_err(AppError::of)?;
            let bytes = bytes.map_err(AppError::of)?;
            let bytes = bytes.ok_or_else(|| AppError::new("no_code", format!("its code `{cid}` is gone")))?;
            let code = super::portable::Code::received(bytes, code.clone()).map_err(shipping::bad)?;
            let budget = Budget::from(admitted.allowance.limits());
            shop.compiler.compile(&code, &budget).await.map_err(shipping::bad)?
        }
    };
    let behalf = Behalf { sender, publisher, admitted, bound: Bound::Itself(name.clone()) };
    let _turn = core.workshop.turn(&name).await;
    // Somebody may have been faster.
    if core.workshop.installed.lock().await.contains_key(&name) {
        return Ok(());
    }
    begin(core, code, compiled, &name, config.into_vec(), behalf).await
}
