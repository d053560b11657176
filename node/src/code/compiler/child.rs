//! Looking at code and compiling it in a process of its own, which can be stopped.

use std::{
    path::Path,
    pin::pin,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    process::{Child, Command},
    runtime::Handle,
    time::timeout,
};

use super::{
    CompileLimits,
    here::{OTHER_ENGINE, Output, REFUSED, check_native, most_native, whole_seconds},
    queue::{QUICK, Turn},
    verdict,
};
use crate::code::{
    code_error::{CodeError, shorten},
    vetting::Budget,
};

/// What the process may say of an error, in bytes.
const MAX_REASON: u64 = 4096;

/// It may last so many times what it may compute: others compute, too.
const PATIENCE: u32 = 4;

/// Starting the process and passing the code on may take so long on top.
const START: Duration = Duration::from_secs(5);

/// How much later than the node the system gives a core to a compiler that takes long.
#[cfg(unix)]
const NICE: i32 = 10;

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

/// Has a child of this command look at code and compile it; gives the turn back, too, if it is not over. Dropped, the child
/// is stopped, and the turn is over when it has ended.
pub(super) async fn compile(
    command: &Path,
    component: &Bytes,
    engine: &str,
    budget: &Budget,
    limits: CompileLimits,
    mut turn: Turn,
) -> (Result<Output, Failure>, Option<Turn>) {
    loop {
        let child = match spawn(command, engine, budget, limits) {
            Ok(child) => child,
            Err(failure) => return (Err(failure), Some(turn)),
        };
        let mut work = Work { child: Some((child, turn)) };
        match timeout(limits.cpu * PATIENCE + START, work.finish(component)).await {
            // Perhaps the machine is busy: it may be tried again.
            Err(_) => return (Err(Failure::broken("it was not done in time")), None),
            Ok(Err(error)) => return (Err(Failure::broken(error)), None),
            Ok(Ok(Finished { end: Some((status, output, reason)), turn })) => {
                return (judge(status, output, &reason, component.len() as u64, limits), Some(turn));
            }
            Ok(Ok(Finished { end: None, turn: given })) => {
                tracing::debug!("the compiler is stopped, and begins anew when there is room for what takes long");
                turn = match given.begin_anew().await {
                    Ok(turn) => turn,
                    Err(error) => return (Err(Failure::Refused(error)), None),
                };
            }
        }
    }
}

fn spawn(command: &Path, engine: &str, budget: &Budget, limits: CompileLimits) -> Result<Child, Failure> {
    let child = Command::new(command)
        .arg("compile-code")
        .args(["--engine", engine])
        .args(["--memory", &limits.memory.to_string()])
        .args(["--cpu", &whole_seconds(limits.cpu).to_string()])
        .args(["--size", &budget.size.to_string()])
        .args(["--function", &budget.function.to_string()])
        .args(["--total", &budget.total.to_string()])
        .args(["--instance", &budget.instance.to_string()])
        // Nothing in the environment of the node is its concern, and secrets may be in there.
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn();
    child.map_err(|error| Failure::Unfit { reason: format!("`{}`: {error}", command.display()) })
}

/// A child at work, and the turn that it has.
struct Work {
    child: Option<(Child, Turn)>,
}

type End = (ExitStatus, Vec<u8>, String);

struct Finished {
    /// Nothing if it has to make room for others.
    end: Option<End>,
    turn: Turn,
}

impl Work {
    /// Waits for its end; after a while it goes on as one that takes long, or is stopped.
    async fn finish(&mut self, component: &[u8]) -> std::io::Result<Finished> {
        let Some((child, turn)) = &mut self.child else { return Err(std::io::ErrorKind::NotConnected.into()) };
        let pid = child.id();
        let end = {
            let mut talk = pin!(talk(child, component));
            let quick = match turn.is_quick() {
                true => timeout(QUICK, &mut talk).await.ok(),
                false => None,
            };
            match quick {
                Some(end) => Some(end?),
                None if turn.slow_down() => {
                    step_back(pid);
                    Some(talk.await?)
                }
                None => None,
            }
        };
        if end.is_none() {
            child.kill().await?;
        }
        match self.child.take() {
            Some((_, turn)) => Ok(Finished { end, turn }),
            None => Err(std::io::ErrorKind::NotConnected.into()),
        }
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        let Some((mut child, turn)) = self.child.take() else { return };
        _ = child.start_kill();
        // Outside of a runtime the system takes it away, in its time.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move {
                _ = child.wait().await;
                drop(turn);
            });
        }
    }
}

/// Lets everything else go first.
fn step_back(pid: Option<u32>) {
    #[cfg(unix)]
    {
        use rustix::process::{Pid, setpriority_process};
        let pid = pid.and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
        if let Some(Err(error)) = pid.map(|pid| setpriority_process(Some(pid), NICE)) {
            tracing::debug!(%error, "the compiler is as urgent as the node itself");
        }
    }
    #[cfg(not(unix))]
    let _ = pid;
}

/// Passes the code in and the result out, all at once: neither side waits for the other for ever.
async fn talk(child: &mut Child, component: &[u8]) -> std::io::Result<End> {
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let pass = async {
        if let Some(mut stdin) = stdin {
            // One that has ended early says why by itself.
            _ = stdin.write_all(component).await;
        }
    };
    let most = most_native(component.len() as u64) + (verdict::LENGTH + verdict::MOST) as u64;
    let ((), output, reason) = tokio::join!(pass, read(stdout, most), read(stderr, MAX_REASON));
    // Its end of a pipe that is read no further is closed: it cannot hang on it.
    let status = child.wait().await?;
    Ok((status, output?, String::from_utf8_lossy(&reason?).trim().to_owned()))
}

async fn read(pipe: Option<impl AsyncRead + Unpin>, limit: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(pipe) = pipe {
        pipe.take(limit).read_to_end(&mut bytes).await?;
    }
    Ok(bytes)
}

fn judge(
    status: ExitStatus,
    output: Vec<u8>,
    reason: &str,
    size: u64,
    limits: CompileLimits,
) -> Result<Output, Failure> {
    let refused = |reason| Failure::Refused(CodeError::Compile { reason });
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    match code {
        Some(0) => match verdict::read(output) {
            Some((Ok((vetted, vetting)), native)) => {
                check_native(&native, size).map_err(Failure::Refused)?;
                Ok(Output { vetted, vetting, native })
            }
            _ => Err(Failure::broken("it says nothing of the code that it has compiled")),
        },
        Some(REFUSED) => Err(match verdict::read(output) {
            Some((Err(error), _)) => Failure::Refused(error),
            _ => refused(shorten(reason)),
        }),
        Some(OTHER_ENGINE) => Err(Failure::Unfit { reason: "it has another engine".to_owned() }),
        // An older command, or one without this feature: it knows no such verb, or not all that is asked of it.
        Some(2) => Err(Failure::Unfit { reason: shorten(reason) }),
        // A panic: of the compiler, on this code.
        Some(101) => Err(refused(shorten(reason))),
        Some(_) => Err(Failure::broken(reason)),
        // A signal: out of time, or of memory, or killed by the system for the same reason.
        None => Err(Failure::Refused(over(limits))),
    }
}

fn over(limits: CompileLimits) -> CodeError {
    CodeError::CompileLimit { memory: limits.memory, cpu: limits.cpu }
}
