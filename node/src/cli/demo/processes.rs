//! The nodes of the demo as separate processes, and what each of them says.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, BufReader},
    process::{Child, Command},
    sync::mpsc,
    task::JoinSet,
};

use crate::cli::failure::Failure;

/// The processes, a private folder in which they find each other, and what they say. Dropping it kills them all.
pub(super) struct Processes {
    pub(super) swarm: String,
    pub(super) members: Vec<Member>,
    folder: Folder,
    sender: mpsc::Sender<Heard>,
    heard: mpsc::Receiver<Heard>,
    readers: JoinSet<()>,
}

/// One process.
pub(super) struct Member {
    pub(super) name: &'static str,
    pub(super) pid: Option<u32>,
    pub(super) peer_id: Option<String>,
    pub(super) addresses: Vec<String>,
    /// Whom it sees: the names of the other nodes.
    pub(super) sees: BTreeSet<String>,
    pub(super) stopped: bool,
    killed: bool,
    complaint: String,
    child: Child,
}

/// Something that a member said.
struct Heard {
    member: usize,
    when: Instant,
    what: What,
}

enum What {
    Line(String),
    Complaint(String),
    End,
}

impl Processes {
    /// No process yet, in a swarm of its own that no other program is in.
    pub(super) fn new() -> Result<Self, Failure> {
        let number: u64 = rand::random();
        let folder = Folder::new(number)?;
        let (sender, heard) = mpsc::channel(QUEUE);
        let swarm = format!("demo-{number:016x}");
        Ok(Self { swarm, members: Vec::new(), folder, sender, heard, readers: JoinSet::new() })
    }

    /// Where the members find each other.
    pub(super) fn folder(&self) -> &Path {
        &self.folder.0
    }

    /// Starts one more node as a process of its own.
    pub(super) fn launch(&mut self, name: &'static str, applications: &str) -> Result<(), Failure> {
        let program = std::env::current_exe().map_err(|error| Failure::own(format!("cannot find myself: {error}")))?;
        let mut command = Command::new(program);
        // Settings meant for the person's own nodes do not reach the demo's.
        for (variable, _) in std::env::vars_os() {
            if variable.to_string_lossy().starts_with("MULTINODES_") {
                command.env_remove(variable);
            }
        }
        command
            .args(["start", "--json", "--no-mdns", "--until-stdin-closes"])
            .args(["--listen", "/ip4/127.0.0.1/tcp/0", "--swarm", &self.swarm, "--name", name])
            .args(["--demo-applications", applications, "--runtime-dir"])
            .arg(self.folder())
            .current_dir(self.folder())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn().map_err(|error| Failure::own(format!("cannot start a process: {error}")))?;
        let member = self.members.len();
        if let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) {
            self.readers.spawn(read(stdout, member, self.sender.clone(), What::Line, true));
            self.readers.spawn(read(stderr, member, self.sender.clone(), What::Complaint, false));
        }
        self.members.push(Member {
            name,
            pid: child.id(),
            peer_id: None,
            addresses: Vec::new(),
            sees: BTreeSet::new(),
            stopped: false,
            killed: false,
            complaint: String::new(),
            child,
        });
        Ok(())
    }

    /// Listens to the members until `done`, and gives when the last word needed for it was heard.
    pub(super) async fn until(&mut self, done: impl Fn(&[Member]) -> bool) -> Result<Instant, Failure> {
        let mut when = Instant::now();
        while !done(&self.members) {
            let Some(heard) = self.heard.recv().await else { return Err(Failure::negative("all processes are gone")) };
            when = heard.when;
            self.on_heard(heard)?;
        }
        Ok(when)
    }

    /// Kills a member as hard as the system can, and takes it off the list.
    pub(super) async fn kill(&mut self, name: &str) -> Result<Instant, Failure> {
        let member =
            self.members.iter_mut().find(|member| member.name == name).ok_or_else(|| Failure::own("no such member"))?;
        (member.stopped, member.killed) = (true, true);
        let when = Instant::now();
        member.child.kill().await.map_err(|error| Failure::own(format!("cannot kill `{name}`: {error}")))?;
        Ok(when)
    }

    /// Asks all members to stop, waits for their last words and for their exit codes.
    pub(super) async fn stop(&mut self) -> Result<Duration, Failure> {
        let begin = Instant::now();
        for member in &mut self.members {
            member.child.stdin.take();
        }
        let end = self.until(|members| members.iter().all(|member| member.stopped)).await?;
        for member in &mut self.members {
            let status = member.child.wait().await.map_err(Failure::own)?;
            if !status.success() && !member.killed {
                return Err(Failure::negative(format!("`{}` ended with {status}: {}", member.name, member.complaint)));
            }
        }
        Ok(end.saturating_duration_since(begin))
    }

    fn on_heard(&mut self, heard: Heard) -> Result<(), Failure> {
        let Some(member) = self.members.get_mut(heard.member) else { return Ok(()) };
        match heard.what {
            What::Line(line) => match serde_json::from_str(&line) {
                Ok(line) => member.on_line(&line),
                Err(error) => {
                    return Err(Failure::negative(format!("`{}` said what is not JSON: {error}", member.name)));
                }
            },
            What::Complaint(line) => member.complaint = line,
            What::End if !member.stopped => {
                return Err(Failure::negative(format!(
                    "the process of `{}` has ended: {}",
                    member.name, member.complaint
                )));
            }
            What::End => {}
        }
        Ok(())
    }
}

impl Member {
    fn on_line(&mut self, line: &Value) {
        let name = line["name"].as_str().unwrap_or_default();
        match line["event"].as_str().unwrap_or_default() {
            "started" => {
                self.peer_id = line["peer_id"].as_str().map(str::to_owned);
                let addresses = line["addresses"].as_array().into_iter().flatten();
                self.addresses = addresses.filter_map(|address| address.as_str().map(str::to_owned)).collect();
            }
            "joined" => drop(self.sees.insert(name.to_owned())),
            "left" => drop(self.sees.remove(name)),
            "stopped" => self.stopped = true,
            _ => {}
        }
    }
}

/// Passes on what a member says, line by line.
async fn read(
    stream: impl AsyncRead + Unpin,
    member: usize,
    sender: mpsc::Sender<Heard>,
    what: fn(String) -> What,
    tell_end: bool,
) {
    let mut lines = BufReader::new(stream).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        if sender.send(Heard { member, when: Instant::now(), what: what(line) }).await.is_err() {
            return;
        }
    }
    if tell_end {
        let _ = sender.send(Heard { member, when: Instant::now(), what: What::End }).await;
    }
}

/// A folder of our own in the system's folder for temporary files, removed when dropped.
struct Folder(PathBuf);

impl Folder {
    fn new(number: u64) -> Result<Self, Failure> {
        let path = std::env::temp_dir().join(format!("multinodes-demo-{number:016x}"));
        let mut builder = std::fs::DirBuilder::new();
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(&path).map_err(|error| Failure::own(format!("cannot make `{}`: {error}", path.display())))?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// How much may be heard and not yet understood; the members wait when it is more.
const QUEUE: usize = 1024;
