//! Where the compiler runs.

use std::{
    path::{Path, PathBuf},
    sync::{
        Once,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use bytes::Bytes;
use tokio::sync::oneshot;

use super::{
    CompileLimits, child,
    here::{self, Output},
    queue::Turn,
};
use crate::code::{code_error::CodeError, vetting::Budget};

/// The command that has the verb, without what systems append to programs.
const COMMAND: &str = "multinodes";

/// Where the compiler runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum CompilerHome {
    /// In a child process, if a `multinodes` command with this feature is found: this very program (on Linux also when its
    /// file was replaced), one beside it or in the folder above, or one in `PATH`. Else in this process, where only the
    /// look at the code's shape protects the node: that is logged once, as an error.
    #[default]
    Found,
    /// In child processes of this command.
    Command(PathBuf),
    /// In this process. No limit can stop it there.
    Here,
}

/// A home, and whether it has turned out to be none.
#[derive(Debug)]
pub(super) struct Home {
    command: Option<PathBuf>,
    /// Another command than the one that was named may take its place.
    is_guessed: bool,
    unfit: AtomicBool,
}

impl Home {
    pub(super) fn find(home: CompilerHome) -> Self {
        let is_guessed = home == CompilerHome::Found;
        let command = match home {
            _ if !cfg!(unix) => None,
            CompilerHome::Found => find(),
            CompilerHome::Command(path) => Some(path),
            CompilerHome::Here => None,
        };
        if command.is_none() && is_guessed {
            complain_once();
        }
        Self { command, is_guessed, unfit: AtomicBool::new(false) }
    }

    /// Looks at code and compiles it. The turn is not over before that has ended, whoever still waits for it.
    pub(super) async fn compile(
        &self,
        bytes: Bytes,
        engine: &str,
        budget: &Budget,
        limits: CompileLimits,
        mut turn: Turn,
    ) -> Result<(Output, Turn), CodeError> {
        if let Some(command) = self.command.as_ref().filter(|_| !self.unfit.load(Relaxed)) {
            let (output, back) = child::compile(command, &bytes, engine, budget, limits, turn).await;
            turn = match (output, back) {
                (Ok(output), Some(turn)) => return Ok((output, turn)),
                (Err(child::Failure::Unfit { reason }), Some(turn)) if self.is_guessed => {
                    tracing::debug!(command = %command.display(), reason, "not a compiler for this node");
                    self.unfit.store(true, Relaxed);
                    complain_once();
                    turn
                }
                (Err(child::Failure::Unfit { reason }), _) => return Err(CodeError::Compiler { reason }),
                (Err(child::Failure::Refused(error)), _) => return Err(error),
                (Ok(_), None) => return Err(CodeError::compiler("its turn is over")),
            };
        }
        compile_here(bytes, *budget, turn).await
    }
}

async fn compile_here(bytes: Bytes, budget: Budget, turn: Turn) -> Result<(Output, Turn), CodeError> {
    let (sender, receiver) = oneshot::channel();
    // Nothing can end it before its time: it is nobody's.
    let thread = std::thread::Builder::new().name("compiler".to_owned()).spawn(move || {
        // Nobody may wait any more.
        _ = sender.send(here::compile(&bytes, &budget).map(|output| (output, turn)));
    });
    thread.map_err(CodeError::compiler)?;
    receiver.await.map_err(|_| CodeError::compiler("it has panicked"))?
}

/// This program if it is the command, else one near it, else one in `PATH`.
fn find() -> Option<PathBuf> {
    let file = format!("{COMMAND}{}", std::env::consts::EXE_SUFFIX);
    let this = std::env::current_exe().ok();
    if let Some(running) = this.as_deref().and_then(|this| running(this, &file)) {
        return Some(running);
    }
    let beside = this.as_deref().and_then(Path::parent);
    let above = beside.and_then(Path::parent);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = beside.into_iter().chain(above).map(Path::to_owned).chain(std::env::split_paths(&path));
    folders.filter(|folder| folder.is_absolute()).map(|folder| folder.join(&file)).find(|path| path.is_file())
}

/// This program itself, if it is the command: also when its file was replaced by another version since it was started.
fn running(this: &Path, file: &str) -> Option<PathBuf> {
    const SELF: &str = "/proc/self/exe";
    // What Linux appends when the file is another one by now.
    let name = this.file_name()?.to_str()?.trim_end_matches(" (deleted)");
    (cfg!(target_os = "linux") && name == file && Path::new(SELF).exists()).then(|| SELF.into())
}

fn complain_once() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // What was promised about hostile code does not hold: nobody should have to ask for details to hear of it.
        tracing::error!(
            "no `{COMMAND}` command with the feature `wasm` was found near this program or in `PATH`: code that travels is \
             compiled in this process, where no limit can stop the compiler"
        );
    });
}
