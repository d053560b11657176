//! All guests of a node: those that are hosted, and those that have their place but are not.

use std::{collections::BTreeMap, io, path::Path, sync::Arc, time::Duration};

use futures::{StreamExt, stream};
use libp2p::PeerId;

use super::{
    Installed, MAX_INSTALLED, begin,
    record::{self, Record},
    versions::{self, Versions},
};
use crate::{
    application::AppError,
    code::{data::DataFolderError, reach::Behalf, shipping},
    core::Core,
    factories::Maker,
    node::Node,
};

/// So many guests are brought back at once.
const BACK_AT_ONCE: usize = 16;

/// How long bringing back one guest may take: it may have to be compiled.
const RESTORE_LIMIT: Duration = Duration::from_secs(120);

/// What is installed, by name.
#[derive(Default)]
pub(crate) struct Guests {
    pub(super) here: BTreeMap<String, Installed>,
    /// What is not hosted at present. Nothing of it is forgotten: rules and disks may be set right.
    away: BTreeMap<String, Away>,
    /// What was here once.
    pub(super) versions: Versions,
}

struct Away {
    record: Record,
    /// No rule was in its way, but something else: it is tried again at the next start only.
    is_broken: bool,
}

impl Guests {
    /// Whether another guest may be hosted under a name.
    pub(super) fn check_room(&self, core: &Core, name: &str) -> Result<(), AppError> {
        if core.registry.find(name).is_some() {
            return Err(AppError::new("name_taken", format!("another application `{name}` is registered here")));
        }
        if self.here.len() >= MAX_INSTALLED {
            let text = format!("{MAX_INSTALLED} guests are installed here, which is the limit");
            return Err(AppError::new("too_many_installed", text));
        }
        Ok(())
    }

    /// One is hosted. Where there is no place left for it, one that is away loses its own.
    pub(super) fn add(&mut self, name: &str, installed: Installed) {
        self.away.remove(name);
        self.here.insert(name.to_owned(), installed);
        while self.here.len() + self.away.len() > MAX_INSTALLED && self.away.pop_last().is_some() {}
    }

    /// Hosts it no longer, and forgets it; false if it was unknown.
    pub(super) fn stop(&mut self, core: &Arc<Core>, name: &str) -> bool {
        let was_away = self.away.remove(name).is_some();
        let was_here = self.here.remove(name).is_some();
        if was_here {
            // It may be unregistered already.
            let _ = Node::inner(core.clone()).unhost(name, |maker| *maker == Maker::Code);
        }
        was_away || was_here
    }

    /// Who has published it, and who has brought its version.
    pub(super) fn origin(&self, core: &Core, name: &str) -> Option<(Option<PeerId>, Option<PeerId>)> {
        let here = self.here.get(name).map(|there| (there.behalf.asker.publisher, Some(there.bringer)));
        here.or_else(|| {
            let record = &self.away.get(name)?.record;
            Some((core.workshop.publisher(&record.code).unwrap_or_default(), record.bringer()))
        })
    }

    fn records(&self, core: &Core) -> Vec<Record> {
        let here = self.here.iter().map(|(name, installed)| Record::of(name, installed, &core.workshop.policy));
        here.chain(self.away.values().map(|away| away.record.clone())).collect()
    }

    /// Stops those that no rule admits any more.
    fn stop_forbidden(&mut self, core: &Arc<Core>) {
        let forbidden: Vec<(String, Record)> = self
            .here
            .iter()
            .filter(|(_, installed)| !installed.behalf.holds(core))
            .map(|(name, installed)| (name.clone(), Record::of(name, installed, &core.workshop.policy)))
            .collect();
        for (name, record) in forbidden {
            tracing::warn!(application = %name, sender = record.sender, "a guest may not stay any more, and is stopped");
            self.stop(core, &name);
            self.away.insert(name, Away { record, is_broken: false });
        }
    }

    /// What is away under a name although a rule admits it, and whether it is on its way back: nothing was in its way.
    pub(super) fn away(&self, core: &Core, name: &str) -> Option<(&Record, bool)> {
        let Away { record, is_broken } = self.away.get(name)?;
        record.asker(core)?.admit(core)?;
        Some((record, !is_broken))
    }

    /// Those that are away and are admitted now.
    fn admitted(&self, core: &Core) -> Vec<(Record, Behalf)> {
        let sound = self.away.values().filter(|away| !away.is_broken).map(|away| &away.record);
        sound.filter_map(|record| Some((record.clone(), record.asker(core)?.admit(core)?))).collect()
    }
}

/// Writes down what is installed, for the next start, and lets nothing of its code go for room.
pub(super) async fn keep(core: &Core, guests: &Guests) -> Result<(), AppError> {
    let Some(folder) = core.workshop.folder.clone() else { return Ok(()) };
    let records = guests.records(core);
    pin(core, &records);
    // Whoever waits for this may be gone before it is done, and the next one come.
    let (turn, versions) = (folder.turn(), guests.versions.clone());
    let write = move |path: &Path| {
        // In this order: whatever happens in between, nothing that was here is forgotten.
        versions::write(path, &versions)?;
        record::write(path, &records)
    };
    let written = tokio::task::spawn_blocking(move || folder.write(turn, write)).await;
    written.map_err(AppError::of)?.map_err(|error| {
        tracing::error!(%error, "what is installed cannot be written down");
        let reason = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "there is no room".to_owned(),
            kind => kind.to_string(),
        };
        AppError::new("not_kept", format!("what is installed here cannot be written down for the next start: {reason}"))
    })
}

fn pin(core: &Core, records: &[Record]) {
    if let Some(Ok(shop)) = core.workshop.keeping() {
        shop.store.pin(records.iter().map(|record| record.code.cid()));
    }
}

/// Reads what was installed when the node ran last, and which versions were here: before anybody can install anything. Gives
/// whether there is something to bring back.
///
/// # Errors
///
/// It cannot be read now. To go on without it would be to write over it.
pub(crate) async fn load(core: &Core) -> Result<bool, DataFolderError> {
    let Some(folder) = core.workshop.folder.clone() else { return Ok(false) };
    let failed = |source| DataFolderError::Io { path: folder.path().to_owned(), source };
    let path = folder.path().to_owned();
    let read = tokio::task::spawn_blocking(move || io::Result::Ok((record::load(&path)?, versions::load(&path)?)));
    let (records, mut versions) = read.await.map_err(io::Error::other).flatten().map_err(failed)?;
    for record in &records {
        if let Ok(Some(publisher)) = core.workshop.publisher(&record.code)
            && core.workshop.policy.trusts_publisher(&publisher)
        {
            versions.raise(&publisher, &record.code);
        }
    }
    if !records.is_empty() {
        pin(core, &records);
    }
    let away = records.into_iter().take(MAX_INSTALLED);
    let mut installed = core.workshop.installed.lock().await;
    installed.versions = versions;
    installed.away = away.map(|record| (record.name.clone(), Away { record, is_broken: false })).collect();
    Ok(!installed.away.is_empty())
}

/// Brings back what was loaded, as far as its rules admit it now.
pub(crate) async fn restore(core: Arc<Core>) {
    let _reviewing = core.workshop.reviewing.lock().await;
    bring_back(&core).await;
    for (name, away) in &core.workshop.installed.lock().await.away {
        if !away.is_broken {
            let Record { sender, rule, .. } = &away.record;
            tracing::error!(application = %name, sender, rule, "a guest stays away: no rule lets its sender install it now");
        }
    }
}

/// Stops what rules admit no longer, and brings back what they admit again.
pub(crate) async fn review(core: &Arc<Core>) {
    core.workshop.installed.lock().await.stop_forbidden(core);
    // One at a time is enough: guests may be slow to start.
    let Ok(_reviewing) = core.workshop.reviewing.try_lock() else { return };
    bring_back(core).await;
}

async fn bring_back(core: &Arc<Core>) {
    let admitted = core.workshop.installed.lock().await.admitted(core);
    // One that is slow to start does not hold the others up.
    let all = stream::iter(admitted);
    all.for_each_concurrent(BACK_AT_ONCE, |(record, behalf)| async {
        let name = record.name.clone();
        let error = match tokio::time::timeout(RESTORE_LIMIT, bring_one_back(core, record, behalf)).await {
            Ok(Ok(())) => return tracing::info!(application = %name, "a guest is back"),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("it was not back within {RESTORE_LIMIT:?}"),
        };
        tracing::error!(application = %name, error, "a guest cannot be brought back before the next start");
        if let Some(away) = core.workshop.installed.lock().await.away.get_mut(&name) {
            away.is_broken = true;
        }
    })
    .await;
}

async fn bring_one_back(core: &Arc<Core>, record: Record, behalf: Behalf) -> Result<(), AppError> {
    let bringer = record.bringer().unwrap_or(behalf.asker.sender);
    let Record { name, code, config, .. } = record;
    let compiled = shipping::kept(core, &code, behalf.admitted.allowance.limits()).await?;
    let _turn = core.workshop.turn(&name).await;
    // Somebody may have been faster, or have uninstalled it.
    if !core.workshop.installed.lock().await.away.contains_key(&name) {
        return Ok(());
    }
    begin(core, code, compiled, &name, config.into_vec(), behalf, bringer).await
}
