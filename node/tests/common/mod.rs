//! Real `multinodes` processes for the tests: started, read line by line, signalled, and killed at the end.
//!
//! Nothing here sleeps; whatever waits has a limit, and says what it was waiting for when the limit is over.
#![allow(dead_code, unreachable_pub, reason = "each test program uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    ffi::OsStr,
    fs::File,
    io::{BufRead, BufReader, Read, Write},
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

/// The limit for what takes milliseconds on a quiet machine. Tests run many at once, on few cores.
pub const LIMIT: Duration = Duration::from_secs(20);

/// A swarm of its own: a name nobody else uses and a private rendezvous folder, so that tests never meet.
pub struct Swarm {
    pub name: String,
    folder: TempDir,
}

impl Swarm {
    pub fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("multinodes-test-").tempdir().unwrap();
        let name = folder.path().file_name().unwrap().to_str().unwrap().replace('_', "-");
        Self { name, folder }
    }

    /// A file of that name in the swarm's folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Where the nodes find each other.
    pub fn runtime_dir(&self) -> PathBuf {
        self.path("runtime")
    }

    /// The files that nodes have left in the rendezvous folder.
    pub fn rendezvous(&self) -> Vec<PathBuf> {
        let mut folders = vec![self.runtime_dir()];
        let mut files = Vec::new();
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                if entry.path().is_dir() { folders.push(entry.path()) } else { files.push(entry.path()) }
            }
        }
        files.sort();
        files
    }

    /// A command in this swarm, with no settings from outside.
    pub fn command<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_multinodes"));
        for (variable, _) in std::env::vars_os() {
            if variable.to_string_lossy().starts_with("MULTINODES_") {
                command.env_remove(variable);
            }
        }
        std::fs::create_dir_all(self.runtime_dir()).unwrap();
        command
            .env("MULTINODES_SWARM", &self.name)
            .env("MULTINODES_RUNTIME_DIR", self.runtime_dir())
            .env("MULTINODES_NO_MDNS", "true")
            .current_dir(self.folder.path())
            .args(arguments);
        command
    }

    /// Runs a verb to its end.
    #[track_caller]
    pub fn run<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Outcome {
        run(self.command(arguments), "")
    }

    /// Starts a node and waits until it is up.
    #[track_caller]
    pub fn start(&self, name: &str, arguments: &[&str]) -> Process {
        let mut process = self.launch(name, arguments);
        process.started();
        process
    }

    /// Starts a node and does not wait for anything.
    #[track_caller]
    pub fn launch(&self, name: &str, arguments: &[&str]) -> Process {
        // A test that is killed leaves no node behind.
        let start = ["start", "--json", "--until-stdin-closes", "--listen", "/ip4/127.0.0.1/tcp/0", "--name", name];
        Process::spawn(name, self.command(&[&start, arguments].concat()))
    }

    /// A library node of the test's own process in this swarm.
    pub fn builder(&self) -> multinodes::Builder {
        std::fs::create_dir_all(self.runtime_dir()).unwrap();
        multinodes::Node::builder()
            .swarm(self.name.as_str())
            .mdns(false)
            .rendezvous_folder(self.runtime_dir().join("multinodes").join(&self.name))
            .listen("/ip4/127.0.0.1/tcp/0")
    }

    /// Runs a verb with `--json` again and again until its answer is as wanted.
    #[track_caller]
    pub fn until(&self, arguments: &[&str], wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + LIMIT;
        loop {
            let outcome = self.run(&[arguments, &["--json"]].concat());
            let answer = if outcome.code == 0 { outcome.json() } else { Value::Null };
            if wanted(&answer) {
                return answer;
            }
            assert!(
                Instant::now() < deadline,
                "`{}` does not come to what is wanted: {outcome:?}",
                arguments.join(" ")
            );
        }
    }

    /// Runs a verb again and again until it has that exit code.
    #[track_caller]
    pub fn until_code(&self, code: i32, arguments: &[&str]) -> Outcome {
        let deadline = Instant::now() + LIMIT;
        loop {
            let outcome = self.run(arguments);
            if outcome.code == code {
                return outcome;
            }
            assert!(Instant::now() < deadline, "`{}` does not end with {code}: {outcome:?}", arguments.join(" "));
        }
    }
}

/// What came of a verb.
#[derive(Debug)]
pub struct Outcome {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
    pub took: Duration,
}

impl Outcome {
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("not JSON: {error}: {self:?}"))
    }

    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self:?}");
        self
    }
}

/// Runs a command to its end, within the limit, with `input` on stdin.
#[track_caller]
pub fn run(mut command: Command, input: &str) -> Outcome {
    let begin = Instant::now();
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // Whoever does not read its stdin has a right not to.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let pid = child.id();
    let (done, finished) = channel();
    thread::spawn(move || done.send(child.wait_with_output()));
    let output = finished.recv_timeout(LIMIT * 2).unwrap_or_else(|_| {
        signal(pid, "KILL");
        panic!("{command:?} does not end");
    });
    let output = output.unwrap();
    Outcome {
        code: code(output.status),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
        took: begin.elapsed(),
    }
}

/// A running `start --json` or `events --json`; killed when dropped.
pub struct Process {
    pub name: String,
    child: Child,
    lines: Receiver<Line>,
    complaints: Option<thread::JoinHandle<String>>,
    /// All lines so far.
    pub heard: Vec<Line>,
}

/// A line that a process has said.
#[derive(Debug, Clone)]
pub struct Line {
    pub when: Instant,
    pub value: Value,
}

impl Line {
    /// Whether it tells of `event`, about the node `name`.
    pub fn is(&self, event: &str, name: &str) -> bool {
        self.value["event"] == event && self.value["name"] == name
    }
}

impl Process {
    #[track_caller]
    pub fn spawn(name: &str, mut command: Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let mut stderr = child.stderr.take().unwrap();
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let value = serde_json::from_str(&line).unwrap_or(Value::String(line));
                if sender.send(Line { when: Instant::now(), value }).is_err() {
                    break;
                }
            }
        });
        let complaints = thread::spawn(move || {
            let mut text = String::new();
            let _ = stderr.read_to_string(&mut text);
            text
        });
        Self { name: name.to_owned(), child, lines, complaints: Some(complaints), heard: Vec::new() }
    }

    /// Waits for the first line, which says that the node is up, and gives it.
    #[track_caller]
    pub fn started(&mut self) -> Value {
        let line = self.wait_for("that it has started", |line| line.value["event"] == "started");
        assert_eq!(self.heard[0].value["event"], "started", "the first line: {:?}", self.heard[0]);
        line.value
    }

    /// Gives the line that is wanted, from what was said already or within the limit.
    #[track_caller]
    pub fn wait_for(&mut self, what: &str, wanted: impl Fn(&Line) -> bool) -> Line {
        self.wait_until(what, |heard| heard.iter().find(|line| wanted(line)).cloned())
    }

    /// Waits until the lines said so far make something out.
    #[track_caller]
    pub fn wait_until<T>(&mut self, what: &str, make_out: impl Fn(&[Line]) -> Option<T>) -> T {
        let deadline = Instant::now() + LIMIT;
        loop {
            if let Some(made_out) = make_out(&self.heard) {
                return made_out;
            }
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => self.heard.push(line),
                Err(RecvTimeoutError::Timeout) => {
                    panic!("{}: waiting in vain for {what}: {:#?}", self.name, self.heard)
                }
                Err(RecvTimeoutError::Disconnected) => {
                    let _ = self.child.kill();
                    let complaints = self.complaints.take().map(|thread| thread.join().unwrap_or_default());
                    panic!("{}: ended before {what}: {:#?} {complaints:?}", self.name, self.heard);
                }
            }
        }
    }

    /// Waits until it sees a node of that name join.
    #[track_caller]
    pub fn sees(&mut self, name: &str) -> Line {
        self.wait_for(&format!("`{name}` to join"), |line| line.is("joined", name))
    }

    /// Waits until it sees the node of that name leave.
    #[track_caller]
    pub fn misses(&mut self, name: &str) -> Line {
        self.wait_for(&format!("`{name}` to leave"), |line| line.is("left", name))
    }

    #[track_caller]
    pub fn peer_id(&mut self) -> String {
        self.started()["peer_id"].as_str().unwrap().to_owned()
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal, such as `TERM`.
    pub fn signal(&self, name: &str) {
        signal(self.child.id(), name);
    }

    /// Waits for the end and gives the exit code. Lines said until then are in `heard`.
    #[track_caller]
    pub fn end(&mut self) -> i32 {
        let deadline = Instant::now() + LIMIT;
        // The end of stdout comes first: it is waited for with a limit, and the exit follows at once.
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => self.heard.push(line),
                Err(RecvTimeoutError::Timeout) => panic!("{} does not end: {:#?}", self.name, self.heard),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        code(self.child.wait().unwrap())
    }

    /// Its exit code, if it has ended.
    pub fn has_ended(&mut self) -> Option<i32> {
        self.child.try_wait().unwrap().map(code)
    }

    /// What it has said on stderr; waits for its end.
    #[track_caller]
    pub fn complaints(&mut self) -> String {
        self.end();
        self.complaints.take().map(|thread| thread.join().unwrap()).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a signal to a process.
pub fn signal(pid: u32, name: &str) {
    let status = Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status().unwrap();
    assert!(status.success(), "cannot send {name} to {pid}");
}

/// The same command, started by another one.
pub fn through(program: &str, arguments: &[&str], plain: &Command) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).arg(plain.get_program()).args(plain.get_args());
    for (name, value) in plain.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.current_dir(plain.get_current_dir().unwrap());
    command
}

/// The same command, which is ended by a lost terminal: whoever runs the tests may ignore that signal, which would go on to all
/// that is started.
pub fn obeying_hangups(plain: &Command) -> Command {
    let flags: &[&str] = if cfg!(target_os = "linux") { &["--default-signal=HUP"] } else { &[] };
    through("env", flags, plain)
}

/// A command that never ends, and says while it runs that it does: also the process that it starts in its turn.
pub struct Endless {
    pub command: String,
    heard: Receiver<&'static str>,
}

impl Endless {
    pub fn new(swarm: &Swarm) -> Self {
        let fifo = swarm.path("alive");
        assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        let command = format!("sh -c 'exec 3>{}; echo begun >&3; sleep 1000 & wait'", fifo.display());
        let (said, heard) = channel();
        thread::spawn(move || {
            let mut pipe = BufReader::new(File::open(fifo).unwrap());
            pipe.read_line(&mut String::new()).unwrap();
            said.send("begun").unwrap();
            // Ends when nobody has the pipe open for writing any more.
            pipe.read_to_end(&mut Vec::new()).unwrap();
            said.send("ended").unwrap();
        });
        Self { command, heard }
    }

    /// Waits until it has begun, or has ended.
    #[track_caller]
    pub fn has(&self, what: &str) {
        assert_eq!(self.heard.recv_timeout(LIMIT), Ok(what), "the command has not {what}");
    }
}

/// The names of the objects in a JSON array.
pub fn names(array: &Value) -> Vec<&str> {
    array.as_array().into_iter().flatten().filter_map(|entry| entry["name"].as_str()).collect()
}

fn code(status: ExitStatus) -> i32 {
    #[cfg(unix)]
    {
        use std::os::unix::process::ExitStatusExt;
        status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(-1)
    }
    #[cfg(not(unix))]
    {
        status.code().unwrap_or(-1)
    }
}
