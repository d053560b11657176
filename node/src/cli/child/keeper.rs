//! Ends the process groups of a node that was killed: a process of its own that lives as long as the node.
//!
//! A node that ends in order ends its children itself. One that is killed (SIGKILL, out of memory) cannot; an idle child
//! sees that its stdin is closed, a busy one would work on for nobody. The keeper reads from the node which groups there
//! are, one a line, `+17` and `-17`; when the pipe ends it kills those that are left. It has a group of its own, so no
//! Ctrl-C reaches it.

use std::{
    collections::BTreeSet,
    io::{self, BufRead, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
};

use clap::Args;

use super::process::{Signal, send};

/// The hidden verb that is the keeper.
#[derive(Debug, Args)]
pub(crate) struct KeepGroups {}

/// No node has more children than that; whoever writes to the keeper is the node that started it.
const MOST: usize = 65_536;

impl KeepGroups {
    /// Reads until the node is gone, and kills what it has left.
    pub(crate) fn run(&self) {
        for leader in left_over(io::stdin().lock()) {
            send(leader, Signal::Kill);
        }
    }
}

/// The groups that were told of and not taken back when the input ended.
fn left_over(input: impl BufRead) -> BTreeSet<u32> {
    let mut groups = BTreeSet::new();
    for line in input.lines().map_while(Result::ok) {
        match (line.split_at_checked(1), groups.len()) {
            (Some(("+", leader)), count) if count < MOST => groups.extend(leader.parse::<u32>()),
            (Some(("-", leader)), _) => _ = leader.parse().map(|leader| groups.remove(&leader)),
            _ => {}
        }
    }
    groups
}

/// The node's end of its keeper. Where none can be started, children of a killed node end when they read their stdin.
#[derive(Debug)]
pub(super) struct Keeper {
    process: Child,
    pipe: Option<ChildStdin>,
}

impl Keeper {
    pub(super) fn start() -> io::Result<Self> {
        let mut command = Command::new(this_program()?);
        command.arg("keep-groups").env_clear().current_dir("/");
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        #[cfg(unix)]
        {
            use std::os::unix::process::CommandExt;
            // Whoever lists the processes reads what it is, whatever path leads to it.
            command.arg0("multinodes").process_group(0);
        }
        let mut process = command.spawn()?;
        let pipe = process.stdin.take().ok_or_else(|| io::Error::other("a pipe is missing"))?;
        // A keeper that was stopped must not stop the node.
        #[cfg(unix)]
        rustix::io::ioctl_fionbio(&pipe, true)?;
        Ok(Self { process, pipe: Some(pipe) })
    }

    pub(super) fn entered(&mut self, leader: u32) {
        self.say(format_args!("+{leader}\n"));
    }

    pub(super) fn left(&mut self, leader: u32) {
        self.say(format_args!("-{leader}\n"));
    }

    fn say(&mut self, line: std::fmt::Arguments<'_>) {
        if let Some(pipe) = &mut self.pipe {
            // It has ended: children are ended by the node alone.
            let _ = pipe.write_all(line.to_string().as_bytes());
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.pipe = None;
        // It ends with its pipe.
        let _ = self.process.wait();
    }
}

/// This program, on Linux also when its file was replaced by another version since it was started.
fn this_program() -> io::Result<PathBuf> {
    const SELF: &str = "/proc/self/exe";
    if cfg!(target_os = "linux") && Path::new(SELF).exists() {
        return Ok(SELF.into());
    }
    std::env::current_exe()
}

#[cfg(test)]
mod tests {
    use super::left_over;

    #[test]
    fn groups_that_have_ended_are_left_alone() {
        let told = "+17\n+18\nnonsense\n\n-17\n+x\n-99\n+19\n";
        assert_eq!(left_over(told.as_bytes()).into_iter().collect::<Vec<_>>(), [18, 19]);
    }
}
