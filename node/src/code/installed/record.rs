//! What is written down of guests that stay.

use std::{io, path::Path, sync::Arc, time::SystemTime};

use arc_swap::ArcSwap;
use libp2p::PeerId;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use super::{Installed, file};
use crate::{
    code::{
        code_ref::CodeRef,
        policy::Policy,
        reach::{Asker, Behalf, Bound},
    },
    core::Core,
    permissions::Proof,
};

/// In the folder with the code.
const FILE: &str = "installed.cbor";

/// A guest that is to be there again after a start.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Record {
    /// The application's name.
    pub name: String,
    /// Its code.
    pub code: CodeRef,
    /// What it is started with, encoded.
    pub config: ByteBuf,
    /// The peer id of whoever has installed it.
    pub sender: String,
    /// The peer id of whoever has brought this version, if that is another: it alone speaks for the publisher when it is to be
    /// uninstalled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bringer: Option<String>,
    /// The rule by which that was allowed, for people: at a start the rules of that time are asked.
    pub rule: String,
    /// What the sender had proven itself by, if that was more than its peer id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<String>,
}

impl Record {
    pub(super) fn of(name: &str, installed: &Installed, policy: &Policy) -> Self {
        let Installed { code, config, behalf: Behalf { asker, admitted }, bringer, .. } = installed;
        Self {
            name: name.to_owned(),
            code: code.clone(),
            config: config.clone().into(),
            sender: asker.sender.to_base58(),
            bringer: (*bringer != asker.sender).then(|| bringer.to_base58()),
            rule: policy.text(admitted),
            credential: asker.proof.load().credential().map(str::to_owned),
        }
    }

    /// Who has brought this version; nobody if the record was spoilt.
    pub(super) fn bringer(&self) -> Option<PeerId> {
        self.bringer.as_ref().unwrap_or(&self.sender).parse().ok()
    }

    /// Who has installed it, with what it had proven as far as that is good still; nobody if the record was spoilt.
    pub(super) fn asker(&self, core: &Core) -> Option<Asker> {
        let sender: PeerId = self.sender.parse().ok()?;
        let trusts = |issuer: &PeerId| core.permissions.proofs.trusts(issuer);
        let proof = Proof::of(&core.settings.swarm, &sender, self.credential.as_deref(), trusts, SystemTime::now());
        Some(Asker {
            sender,
            publisher: core.workshop.publisher(&self.code).unwrap_or_default(),
            proof: Arc::new(ArcSwap::from_pointee(proof)),
            bound: Bound::Itself(self.name.clone()),
        })
    }
}

pub(super) fn write(folder: &Path, records: &[Record]) -> io::Result<()> {
    file::write(folder, FILE, &records)
}

/// Reads what is installed by a node that keeps code in this folder.
///
/// # Errors
///
/// The file cannot be read, or is damaged. That there is none means that nothing is installed.
pub fn read(folder: &Path) -> io::Result<Vec<Record>> {
    file::read(folder, FILE)
}

/// The same at a start: a file that is damaged is put aside.
///
/// # Errors
///
/// The file cannot be read now.
pub(super) fn load(folder: &Path) -> io::Result<Vec<Record>> {
    file::read_or_set_aside(folder, FILE)
}
