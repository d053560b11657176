//! Where a node keeps, makes ready and runs code: built when code is first met, so that nodes without any pay nothing.

use std::{
    collections::{HashMap, HashSet},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak},
};

use bytes::Bytes;
use libp2p::PeerId;
use tokio::sync::{Mutex as Waiting, OwnedMutexGuard};

use super::{
    cid::Cid,
    code_error::CodeError,
    code_ref::CodeRef,
    compiler::{CompileLimits, Compiler, CompilerHome, SealKey},
    data::{DataFolder, DataFolderError},
    installed::Guests,
    policy::{CodeRule, Policy},
    portable::Code,
    runtime::Runtime,
    store::Store,
};

/// Instances of all guests together.
const INSTANCES: usize = 256;

/// Nodes that are known to have some code; beyond that it is sent once more than needed.
const MAX_KNOWN: usize = 65_536;

/// Signatures that were checked. They take longer than a small task does.
const MAX_VERIFIED: usize = 1_024;

/// What was asked of the builder.
#[derive(Debug, Clone, Default)]
pub(crate) struct CodeWishes {
    pub(crate) rules: Vec<CodeRule>,
    /// Where code is kept; without it, it is in memory.
    pub(crate) folder: Option<PathBuf>,
    pub(crate) home: Option<PathBuf>,
    /// By which the node knows what it has compiled, if its identity gives it; else it lies beside the code.
    pub(crate) seal: Option<SealKey>,
    /// Of all guests together, in bytes.
    pub(crate) memory: Option<usize>,
}

/// All that has to do with code on one node.
pub(crate) struct Workshop {
    pub(crate) policy: Policy,
    pub(crate) folder: Option<Arc<DataFolder>>,
    home: Option<PathBuf>,
    seal: Option<SealKey>,
    memory: Option<usize>,
    shop: OnceLock<Result<Shop, CodeError>>,
    /// Never held while a guest runs.
    pub(crate) installed: Waiting<Guests>,
    /// Held while guests are brought back.
    pub(crate) reviewing: Waiting<()>,
    /// Names under which something is being installed just now: of two that want the same one, the second finds it there.
    turns: Mutex<HashMap<String, Weak<Waiting<()>>>>,
    /// What this node has sent the name of, and how often that is under way.
    offered: Mutex<HashMap<Cid, (Bytes, usize)>>,
    /// Who has which code for sure.
    known: Mutex<HashSet<(PeerId, Cid)>>,
    verified: Mutex<HashMap<Cid, (CodeRef, Option<PeerId>)>>,
}

/// The parts that cost something.
pub(crate) struct Shop {
    pub(crate) runtime: Arc<Runtime>,
    pub(crate) compiler: Compiler,
    pub(crate) store: Store,
}

impl Workshop {
    pub(crate) fn new(own: PeerId, wishes: CodeWishes) -> Self {
        let CodeWishes { rules, folder, home, seal, memory } = wishes;
        Self {
            policy: Policy::new(own, rules),
            folder: folder.map(DataFolder::new).map(Arc::new),
            home,
            seal,
            memory,
            shop: OnceLock::new(),
            installed: Waiting::default(),
            reviewing: Waiting::default(),
            turns: Mutex::default(),
            offered: Mutex::default(),
            known: Mutex::default(),
            verified: Mutex::default(),
        }
    }

    /// The parts, built at first use. Within the node's own runtime; may make folders.
    pub(crate) fn shop(&self) -> Result<&Shop, CodeError> {
        self.shop.get_or_init(|| self.open()).as_ref().map_err(Clone::clone)
    }

    /// The parts if there can be code of others, or is some of its own: nothing is built because somebody asks for it.
    pub(crate) fn keeping(&self) -> Option<Result<&Shop, CodeError>> {
        (self.policy.is_open() || self.shop.get().is_some()).then(|| self.shop())
    }

    /// Makes the folder the node's own, if code may come or came before. Others are told nothing of it: call it at the start.
    pub(crate) fn claim(&self) -> Result<(), DataFolderError> {
        let folder = self.folder.as_ref().filter(|folder| self.policy.is_open() || folder.path().exists());
        folder.map_or(Ok(()), |folder| folder.claim())
    }

    /// The node has ended: another one may have its folder.
    pub(crate) fn release(&self) {
        if let Some(folder) = &self.folder {
            folder.release();
        }
    }

    fn open(&self) -> Result<Shop, CodeError> {
        // Whatever guests compute, one core is left to the node and those who call it.
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get).saturating_sub(1);
        let runtime = match self.memory {
            Some(memory) => Runtime::with_memory(threads, INSTANCES, memory)?,
            None => Runtime::new(threads, INSTANCES)?,
        };
        let home = self.home.clone().map_or(CompilerHome::Found, CompilerHome::Command);
        let folder = match &self.folder {
            Some(folder) => {
                folder.claim().map_err(CodeError::compiler)?;
                Some(folder.path().to_owned())
            }
            None => None,
        };
        let (limits, key) = (CompileLimits::default(), self.seal.clone());
        let compiler = Compiler::sealing(runtime.clone(), home, folder.clone(), limits, key)?;
        let store = Store::open(folder, None).map_err(CodeError::compiler)?;
        Ok(Shop { runtime, compiler, store })
    }

    /// The turn to install something under a name.
    pub(crate) async fn turn(&self, name: &str) -> OwnedMutexGuard<()> {
        let turn = {
            let mut turns = lock(&self.turns);
            turns.retain(|_, turn| turn.strong_count() > 0);
            turns.get(name).and_then(Weak::upgrade).unwrap_or_else(|| {
                let turn = Arc::default();
                turns.insert(name.to_owned(), Arc::downgrade(&turn));
                turn
            })
        };
        turn.lock_owned().await
    }

    /// Who has signed some code, if its signature holds.
    pub(crate) fn publisher(&self, reference: &CodeRef) -> Result<Option<PeerId>, CodeError> {
        if reference.signature.is_none() {
            return reference.verify();
        }
        if let Some((known, publisher)) = lock(&self.verified).get(&reference.cid)
            && known == reference
        {
            return Ok(*publisher);
        }
        let publisher = reference.verify()?;
        let mut verified = lock(&self.verified);
        if verified.len() >= MAX_VERIFIED {
            verified.clear();
        }
        verified.insert(reference.cid, (reference.clone(), publisher));
        Ok(publisher)
    }

    /// Lets others fetch it as long as what this gives is kept.
    pub(crate) fn offer(&self, code: &Code) -> Offer<'_> {
        lock(&self.offered).entry(code.cid()).or_insert_with(|| (code.bytes().clone(), 0)).1 += 1;
        Offer { workshop: self, cid: code.cid() }
    }

    pub(crate) fn offered(&self, cid: &Cid) -> Option<Bytes> {
        lock(&self.offered).get(cid).map(|(bytes, _)| bytes.clone())
    }

    pub(crate) fn is_known(&self, peer_id: PeerId, cid: Cid) -> bool {
        lock(&self.known).contains(&(peer_id, cid))
    }

    pub(crate) fn knows(&self, peer_id: PeerId, cid: Cid) {
        let mut known = lock(&self.known);
        if known.len() >= MAX_KNOWN {
            known.clear();
        }
        known.insert((peer_id, cid));
    }
}

/// Some code that can be fetched here.
pub(crate) struct Offer<'a> {
    workshop: &'a Workshop,
    cid: Cid,
}

impl Drop for Offer<'_> {
    fn drop(&mut self) {
        let mut offered = lock(&self.workshop.offered);
        if let Some((_, count)) = offered.get_mut(&self.cid) {
            *count -= 1;
            if *count == 0 {
                offered.remove(&self.cid);
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
