//! Child processes: started, heard, and never left behind.

use std::{
    ffi::OsStr,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
    sync::mpsc,
    time::Duration,
};

use crate::{Error, contestant::Contestant};

/// How long a child may take to say what is waited for.
const PATIENCE: Duration = Duration::from_secs(15);

/// `USER_HZ`, which is 100 on every Linux that user space sees.
pub(crate) const TICKS_PER_SECOND: f64 = 100.0;

/// Tells the driver where this process can be reached.
pub(crate) fn say_ready(address: &str) {
    println!("ready {address}");
}

/// A child process; killed when dropped.
pub(crate) struct Process {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Process {
    /// Starts `command` and reads its standard output line by line.
    pub(crate) fn start(command: &mut Command) -> Result<Self, Error> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("`{}` cannot be started: {error}", command.get_program().to_string_lossy()))?;
        let (sender, lines) = mpsc::sync_channel(1024);
        if let Some(output) = child.stdout.take() {
            std::thread::spawn(move || pass_on(output, &sender));
        }
        Ok(Self { child, lines })
    }

    /// Waits for a line that begins with `prefix`, and gives the rest of it.
    pub(crate) fn expect(&self, prefix: &str) -> Result<String, Error> {
        self.expect_within(PATIENCE, prefix)
    }

    /// The same with another limit for each line.
    pub(crate) fn expect_within(&self, patience: Duration, prefix: &str) -> Result<String, Error> {
        loop {
            let line =
                self.lines.recv_timeout(patience).map_err(|_| format!("a child process never said `{prefix}`"))?;
            if let Some(rest) = line.strip_prefix(prefix) {
                return Ok(rest.trim().to_owned());
            }
        }
    }

    /// Waits for its end after asking for it by closing its standard input.
    pub(crate) fn finish(mut self) -> Result<(), Error> {
        drop(self.child.stdin.take());
        let status = self.child.wait()?;
        if status.success() { Ok(()) } else { Err(format!("a child process ended with {status}").into()) }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn pass_on(output: ChildStdout, sender: &mpsc::SyncSender<String>) {
    for line in BufReader::new(output).lines().map_while(Result::ok) {
        if sender.send(line).is_err() {
            return;
        }
    }
}

/// A server process with its address.
pub(crate) struct Server {
    pub(crate) process: Process,
    pub(crate) address: String,
}

impl Server {
    /// Starts `contestant`'s server. `before` is a command that it is run by, for example in another namespace.
    pub(crate) fn start(contestant: Contestant, swarm: &str, folder: &Path, before: &[String]) -> Result<Self, Error> {
        Self::of(&["serve", contestant.name(), swarm], folder, before)
    }

    /// Starts a worker.
    pub(crate) fn worker(swarm: &str, folder: &Path) -> Result<Self, Error> {
        Self::of(&["work", swarm], folder, &[])
    }

    /// Starts the server with a secret and permissions. Its address is a ticket.
    pub(crate) fn guarded(swarm: &str, folder: &Path) -> Result<Self, Error> {
        Self::of(&["guard", swarm], folder, &[])
    }

    /// Starts one that runs code of others, and keeps it in `data`.
    #[cfg(feature = "wasm")]
    pub(crate) fn of_code(swarm: &str, folder: &Path, data: &Path) -> Result<Self, Error> {
        let data = data.to_str().ok_or("the name of the folder is not UTF-8")?;
        Self::of(&["code", swarm, data], folder, &[])
    }

    fn of(role: &[&str], folder: &Path, before: &[String]) -> Result<Self, Error> {
        let program = std::env::current_exe()?;
        let mut words: Vec<&OsStr> = before.iter().map(OsStr::new).collect();
        words.push(program.as_os_str());
        words.extend(role.iter().map(OsStr::new));
        let process = Process::start(Command::new(words[0]).args(&words[1..]).env("XDG_RUNTIME_DIR", folder))?;
        let address = process.expect("ready ")?;
        Ok(Self { process, address })
    }
}
