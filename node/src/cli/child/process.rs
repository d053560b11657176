//! A child process in a process group of its own: started, ended with everything that it has started itself.

use std::{
    collections::BTreeSet,
    io,
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::process::{Child, ChildStdin, ChildStdout};

use super::{command_line::CommandLine, keeper::Keeper, stderr::Stderr};

/// A child process. Dropping it kills its whole group.
pub(super) struct Process {
    child: Child,
    group: Group,
    pub(super) stderr: Stderr,
}

impl Process {
    /// Starts `command` for `application`, with `variables` in its environment; an empty one is taken out of it.
    pub(super) fn spawn(
        command: &CommandLine,
        application: &Arc<str>,
        variables: &[(&str, Option<&str>)],
        groups: &Groups,
    ) -> io::Result<(Self, ChildStdin, ChildStdout)> {
        let mut command = command.to_command();
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command.env("MULTINODES_APPLICATION", &**application);
        for (name, value) in variables {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        #[cfg(unix)]
        command.process_group(0);
        let mut child = command.spawn()?;
        let group = groups.enter(child.id());
        let missing = || io::Error::other("a pipe is missing");
        let (stdin, stdout) = child.stdin.take().zip(child.stdout.take()).ok_or_else(missing)?;
        let stderr = Stderr::read(child.stderr.take().ok_or_else(missing)?, application.clone(), child.id());
        Ok((Self { child, group, stderr }, stdin, stdout))
    }

    /// Waits for its end. Whatever it has left behind in its group ends with it. Cancelling loses nothing.
    pub(super) async fn wait(&mut self) -> io::Result<ExitStatus> {
        let status = self.child.wait().await;
        // Its number cannot be given to another group as long as one member of this one lives.
        self.group.leave();
        status
    }

    /// Asks the group to end.
    pub(super) fn terminate(&mut self) {
        self.group.signal(Signal::Terminate);
        #[cfg(not(unix))]
        self.kill();
    }

    /// Ends the group at once.
    pub(super) fn kill(&mut self) {
        self.group.signal(Signal::Kill);
        // Where there are no groups. It may have ended by itself.
        let _ = self.child.start_kill();
    }
}

/// The groups of all child processes of a node that may be alive.
#[derive(Debug, Clone, Default)]
pub(super) struct Groups(Arc<Mutex<Members>>);

#[derive(Debug, Default)]
struct Members {
    leaders: BTreeSet<u32>,
    keeper: Option<Keeper>,
}

impl Groups {
    /// Those that are ended even if this node is killed.
    pub(super) fn kept() -> Self {
        let keeper = Keeper::start().inspect_err(|error| {
            let text = "if this node is killed, its busy processes go on: what would end them cannot be started";
            tracing::warn!(target: super::LOG, %error, "{text}");
        });
        Self(Arc::new(Mutex::new(Members { leaders: BTreeSet::new(), keeper: keeper.ok() })))
    }

    /// Ends all of them at once, whatever they are doing: for a node that ends without an orderly stop.
    pub(super) fn kill(&self) {
        for leader in self.members().leaders.iter() {
            send(*leader, Signal::Kill);
        }
    }

    fn enter(&self, leader: Option<u32>) -> Group {
        let mut members = self.members();
        if let (Some(leader), Some(keeper)) = (leader, &mut members.keeper) {
            keeper.entered(leader);
        }
        members.leaders.extend(leader);
        drop(members);
        Group { groups: self.clone(), leader }
    }

    fn members(&self) -> MutexGuard<'_, Members> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One process group, named by its first process.
struct Group {
    groups: Groups,
    /// Until the first process has ended.
    leader: Option<u32>,
}

impl Group {
    fn signal(&self, signal: Signal) {
        if let Some(leader) = self.leader {
            send(leader, signal);
        }
    }

    fn leave(&mut self) {
        self.signal(Signal::Kill);
        if let Some(leader) = self.leader.take() {
            let mut members = self.groups.members();
            members.leaders.remove(&leader);
            if let Some(keeper) = &mut members.keeper {
                keeper.left(leader);
            }
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.leave();
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Signal {
    Terminate,
    Kill,
}

#[cfg(unix)]
pub(super) fn send(leader: u32, signal: Signal) {
    use rustix::process::{Pid, Signal as Number, kill_process_group};
    let number = match signal {
        Signal::Terminate => Number::TERM,
        Signal::Kill => Number::KILL,
    };
    if let Some(group) = i32::try_from(leader).ok().and_then(Pid::from_raw) {
        // It fails for a group that has ended, which is what is wanted.
        let _ = kill_process_group(group, number);
    }
}

#[cfg(not(unix))]
pub(super) fn send(_: u32, _: Signal) {}
