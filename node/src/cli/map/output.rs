//! One line of JSON for each outcome, as they come.

use std::{
    fs::File,
    io::Write,
    path::{Path, PathBuf},
};

use multinodes::{
    Attempt, ItemError, ItemErrorKind, Outcome, Payload, files,
    json::{Exact, Json},
};
use serde::{Serialize, Serializer};
use serde_json::ser::CompactFormatter;

use crate::cli::{duration::milliseconds, failure::Failure, output::Shown, streams};

/// Where the outcomes go.
pub(super) struct Outcomes {
    sink: Sink,
    buffer: Vec<u8>,
    /// The input is shown as the list of arguments that it was.
    spread: bool,
}

enum Sink {
    Stdout,
    File {
        file: File,
        path: PathBuf,
        /// What was in it before is still there.
        is_old: bool,
    },
}

/// A line of the output: promised to scripts.
#[derive(Serialize)]
struct Line<'a> {
    index: u64,
    input: Input<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<Json<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Error<'a>>,
    node: Option<&'a str>,
    attempts: u32,
    ms: f64,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    recorded: bool,
}

/// An item as it was in the input.
struct Input<'a> {
    arguments: Json<'a>,
    spread: bool,
}

impl Serialize for Input<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.spread {
            return self.arguments.serialize(serializer);
        }
        self.arguments.only_element().serialize(serializer)
    }
}

#[derive(Serialize)]
struct Error<'a> {
    kind: &'static str,
    code: &'a str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Json<'a>>,
    may_have_run: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    failures: Vec<Failed<'a>>,
}

#[derive(Serialize)]
struct Failed<'a> {
    node: &'a str,
    peer_id: String,
    code: &'a str,
    message: &'a str,
    ms: f64,
}

impl Outcomes {
    /// Opens a file, or stdout if there is none or it is `-`. What the file holds stays until there is something new.
    pub(super) fn open(path: Option<&Path>, spread: bool) -> Result<Self, Failure> {
        let sink = match path.filter(|path| !streams::is_stdout(path)) {
            None => streams::stdout().map(|_| Sink::Stdout)?,
            Some(path) => {
                let file = files::open_output(path).map_err(|error| cannot_write(path, &error))?;
                Sink::File { file, path: path.to_owned(), is_old: true }
            }
        };
        Ok(Self { sink, buffer: Vec::with_capacity(BUFFER), spread })
    }

    pub(super) fn is_stdout(&self) -> bool {
        matches!(self.sink, Sink::Stdout)
    }

    /// Adds an outcome; says whether it is time to [`flush`](Self::flush).
    pub(super) fn push(&mut self, outcome: &Outcome<Payload>) -> Result<bool, Failure> {
        let line = Line {
            index: outcome.index,
            input: Input { arguments: outcome.input.json().map_err(Failure::own)?, spread: self.spread },
            result: outcome.result.as_ref().ok().map(Payload::json).transpose().map_err(Failure::own)?,
            error: outcome.result.as_ref().err().map(|error| Error::of(error, &outcome.failures)),
            node: outcome.node.as_deref(),
            attempts: outcome.attempts,
            ms: milliseconds(outcome.duration),
            recorded: outcome.recorded,
        };
        let mut serializer = serde_json::Serializer::with_formatter(Shown(&mut self.buffer), Exact(CompactFormatter));
        line.serialize(&mut serializer).map_err(Failure::own)?;
        self.buffer.push(b'\n');
        Ok(self.buffer.len() >= BUFFER)
    }

    pub(super) fn has_something(&self) -> bool {
        !self.buffer.is_empty()
    }

    /// Writes what was added.
    pub(super) fn flush(&mut self) -> Result<(), Failure> {
        match &mut self.sink {
            Sink::Stdout => {
                let mut stdout = streams::stdout()?;
                stdout.write_all(&self.buffer)?;
                stdout.flush()?;
            }
            Sink::File { file, path, is_old } => {
                let is_old = std::mem::take(is_old);
                let written = if is_old { empty(file) } else { Ok(()) }.and_then(|()| file.write_all(&self.buffer));
                written.map_err(|error| match error.kind() {
                    std::io::ErrorKind::BrokenPipe => Failure::Unread,
                    _ => cannot_write(path, &error),
                })?;
            }
        }
        self.buffer.clear();
        // One huge outcome does not keep its memory for ever.
        self.buffer.shrink_to(2 * BUFFER);
        Ok(())
    }
}

impl<'a> Error<'a> {
    fn of(error: &'a ItemError, failures: &'a [Attempt]) -> Self {
        // The only attempt at an item that the application refuses says nothing new.
        let is_told = error.kind == ItemErrorKind::Failed && failures.len() < 2;
        let failures = if is_told { &[] } else { failures };
        Self {
            kind: error.kind.code(),
            code: &error.code,
            message: &error.message,
            data: error.data.as_ref().and_then(|data| data.json().ok()),
            may_have_run: error.may_have_run,
            failures: failures.iter().map(Failed::of).collect(),
        }
    }
}

impl<'a> Failed<'a> {
    fn of(attempt: &'a Attempt) -> Self {
        Self {
            node: &attempt.node,
            peer_id: attempt.peer_id.to_string(),
            code: &attempt.code,
            message: &attempt.message,
            ms: milliseconds(attempt.duration),
        }
    }
}

/// Empties what can be emptied: a device cannot.
fn empty(file: &File) -> std::io::Result<()> {
    if file.metadata()?.is_file() { file.set_len(0) } else { Ok(()) }
}

fn cannot_write(path: &Path, error: &std::io::Error) -> Failure {
    Failure::own(format_args!("cannot write `{}`: {error}", path.display()))
}

/// Bytes that are written at once when there is no reason to write earlier.
const BUFFER: usize = 64 * 1024;
