//! The compiler in a process of its own, which can be stopped.

use std::{
    path::Path,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    process::{Child, Command},
    time::timeout,
};

use super::{
    CompileLimits,
    here::{MAX_COMPILED, OTHER_ENGINE, REFUSED, whole_seconds},
};
use crate::code::code_error::{CodeError, shorten};

/// What the process may say of an error, in bytes.
const MAX_REASON: u64 = 4096;

/// It may last so many times what it may compute: others compute, too.
const PATIENCE: u32 = 4;

/// Starting the process and passing the code on may take so long on top.
const START: Duration = Duration::from_secs(5);

/// Why nothing came out of it.
#[derive(Debug)]
pub(super) enum Failure {
    /// The command is not one that compiles for this node.
    Unfit { reason: String },
    /// The code is at fault, or the machine.
    Refused(CodeError),
}

impl Failure {
    fn broken(reason: impl std::fmt::Display) -> Self {
        Self::Refused(CodeError::compiler(reason))
    }
}

/// Compiles in a child of this command. It dies with the future.
pub(super) async fn compile(
    command: &Path,
    component: &[u8],
    engine: &str,
    limits: CompileLimits,
) -> Result<Vec<u8>, Failure> {
    let child = Command::new(command)
        .arg("compile-code")
        .args(["--engine", engine])
        .args(["--memory", &limits.memory.to_string()])
        .args(["--cpu", &whole_seconds(limits.cpu).to_string()])
        // Nothing in the environment of the node is its concern, and secrets may be in there.
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn();
    let child = child.map_err(|error| Failure::Unfit { reason: format!("`{}`: {error}", command.display()) })?;
    let patience = limits.cpu * PATIENCE + START;
    let finished = timeout(patience, talk(child, component)).await;
    let (status, native, reason) = match finished {
        Ok(finished) => finished.map_err(Failure::broken)?,
        Err(_) => return Err(Failure::Refused(over(limits))),
    };
    judge(status, native, &reason, limits)
}

/// Passes the code in and the result out, all at once: neither side waits for the other for ever.
async fn talk(mut child: Child, component: &[u8]) -> std::io::Result<(ExitStatus, Vec<u8>, String)> {
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let pass = async {
        if let Some(mut stdin) = stdin {
            // One that has ended early says why by itself.
            _ = stdin.write_all(component).await;
        }
    };
    let ((), native, reason) = tokio::join!(pass, read(stdout, MAX_COMPILED + 1), read(stderr, MAX_REASON));
    // Its end of a pipe that is read no further is closed: it cannot hang on it.
    let status = child.wait().await?;
    Ok((status, native?, String::from_utf8_lossy(&reason?).trim().to_owned()))
}

async fn read(pipe: Option<impl AsyncRead + Unpin>, limit: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(pipe) = pipe {
        pipe.take(limit).read_to_end(&mut bytes).await?;
    }
    Ok(bytes)
}

fn judge(status: ExitStatus, native: Vec<u8>, reason: &str, limits: CompileLimits) -> Result<Vec<u8>, Failure> {
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    match code {
        Some(0) if native.len() as u64 > MAX_COMPILED => Err(Failure::Refused(CodeError::Compile {
            reason: format!("it becomes more than {MAX_COMPILED} bytes of machine code"),
        })),
        Some(0) => Ok(native),
        Some(REFUSED) => Err(Failure::Refused(CodeError::Compile { reason: shorten(reason) })),
        Some(OTHER_ENGINE) => Err(Failure::Unfit { reason: "it has another engine".to_owned() }),
        // An older command, or one without this feature: it knows no such verb.
        Some(2) => Err(Failure::Unfit { reason: shorten(reason) }),
        // A panic: of the compiler, on this code.
        Some(101) => Err(Failure::Refused(CodeError::Compile { reason: shorten(reason) })),
        Some(_) => Err(Failure::broken(reason)),
        // A signal: out of time, or of memory, or killed by the system for the same reason.
        None => Err(Failure::Refused(over(limits))),
    }
}

fn over(limits: CompileLimits) -> CodeError {
    CodeError::CompileLimit { memory: limits.memory, cpu: limits.cpu }
}
