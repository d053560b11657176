//! Items from a file or stdin, line by line, on a thread of their own: the runtime would wait for a blocked read at its
//! end, and reading the lines is work that another core can do.

use std::{
    fs::File,
    io::{BufRead, BufReader, IsTerminal, Read},
    path::Path,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};

use futures::{Stream, StreamExt, stream};
use multinodes::{
    DEFAULT_MAX_MESSAGE, Payload,
    json::{JsonError, JsonProblem},
};
use tokio::sync::mpsc;

use crate::cli::{failure::Failure, json::BYTE_ORDER_MARK, streams};

/// What a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// JSON, the one argument.
    Json,
    /// A JSON array, the arguments.
    Arguments,
    /// Text, the one argument.
    Text,
}

/// The input, opened and not read yet.
pub(super) struct Input {
    name: String,
    reader: Box<dyn Read + Send>,
    /// The length in bytes, if it has one.
    size: Option<u64>,
    is_typed: bool,
}

/// How far the reading is.
#[derive(Debug, Default)]
pub(super) struct Reading {
    size: Option<u64>,
    bytes: AtomicU64,
    items: AtomicU64,
    ended: AtomicBool,
    failure: OnceLock<String>,
}

impl Input {
    /// Opens a file, or stdin if there is none or it is `-`.
    pub(super) fn open(path: Option<&Path>) -> Result<Self, Failure> {
        let Some(path) = path.filter(|path| !streams::is_stdin(path)) else { return Self::stdin() };
        let name = format!("`{}`", path.display());
        let file = File::open(path).map_err(|error| Failure::own(format_args!("cannot read {name}: {error}")))?;
        let metadata = file.metadata().map_err(|error| Failure::own(format_args!("cannot read {name}: {error}")))?;
        if metadata.is_dir() {
            return Err(Failure::own(format_args!("cannot read {name}: it is a folder")));
        }
        Ok(Self { size: metadata.is_file().then_some(metadata.len()), name, reader: Box::new(file), is_typed: false })
    }

    fn stdin() -> Result<Self, Failure> {
        let opened = streams::stdin().map(|_| Self::open_stdin());
        opened.map_err(|error| Failure::own(format_args!("cannot read stdin: {error}")))
    }

    #[cfg(unix)]
    fn open_stdin() -> Self {
        use std::os::fd::AsFd;
        // As a file, it tells its length if it has one.
        let file = std::io::stdin().as_fd().try_clone_to_owned().map(File::from);
        let metadata = file.as_ref().ok().and_then(|file| file.metadata().ok());
        let size = metadata.filter(|metadata| metadata.is_file()).map(|metadata| metadata.len());
        let reader = file.map_or_else(|_| Box::new(std::io::stdin()) as Box<dyn Read + Send>, |file| Box::new(file));
        Self { name: "stdin".to_owned(), reader, size, is_typed: std::io::stdin().is_terminal() }
    }

    #[cfg(not(unix))]
    fn open_stdin() -> Self {
        let is_typed = std::io::stdin().is_terminal();
        Self { name: "stdin".to_owned(), reader: Box::new(std::io::stdin()), size: None, is_typed }
    }

    /// Whether a person types it.
    pub(super) fn is_typed(&self) -> bool {
        self.is_typed
    }

    /// Begins to read: never more than [`BATCHES`] batches ahead of who takes the items.
    pub(super) fn read(self, format: Format) -> (impl Stream<Item = Payload> + Send + use<>, Arc<Reading>) {
        let reading = Arc::new(Reading { size: self.size, ..Reading::default() });
        let (sender, batches) = mpsc::channel(BATCHES);
        let reader = Lines {
            name: self.name,
            format,
            reader: BufReader::with_capacity(BATCH_BYTES, self.reader),
            line: Vec::new(),
            number: 0,
            reading: reading.clone(),
        };
        std::thread::spawn(move || reader.run(&sender));
        let items = stream::unfold(batches, async |mut batches| {
            let batch: Vec<Payload> = batches.recv().await?;
            Some((stream::iter(batch), batches))
        });
        (items.flatten(), reading)
    }
}

impl Reading {
    /// Why the input was not read to its end.
    pub(super) fn failure(&self) -> Option<Failure> {
        self.failure.get().map(Failure::own)
    }

    /// Items that were read.
    pub(super) fn items(&self) -> u64 {
        self.items.load(Relaxed)
    }

    /// How many items there are in all, as far as can be told: once all are read, or from the part that was read.
    pub(super) fn total(&self) -> Option<u64> {
        let (items, bytes) = (self.items(), self.bytes.load(Relaxed));
        if self.ended.load(Relaxed) {
            return Some(items);
        }
        let size = self.size.filter(|size| bytes > 0 && *size >= bytes)?;
        u64::try_from(u128::from(items) * u128::from(size) / u128::from(bytes)).ok()
    }
}

struct Lines {
    name: String,
    format: Format,
    reader: BufReader<Box<dyn Read + Send>>,
    line: Vec<u8>,
    number: u64,
    reading: Arc<Reading>,
}

impl Lines {
    fn run(mut self, sender: &mpsc::Sender<Vec<Payload>>) {
        loop {
            let (batch, goes_on) = self.batch();
            self.reading.items.fetch_add(batch.len() as u64, Relaxed);
            if !goes_on {
                self.reading.ended.store(true, Relaxed);
            }
            if sender.blocking_send(batch).is_err() || !goes_on {
                return;
            }
        }
    }

    /// Some items, and whether there may be more: as many as are there without waiting, within bounds.
    fn batch(&mut self) -> (Vec<Payload>, bool) {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        loop {
            match self.next() {
                Ok(Some(line)) => {
                    batch.extend(line);
                    bytes += self.line.len();
                }
                Ok(None) => return (batch, false),
                Err(reason) => {
                    // What was read before is run all the same; who runs it tells of this at the end.
                    let _ = self.reading.failure.set(reason);
                    return (batch, false);
                }
            }
            let would_wait = !self.reader.buffer().contains(&b'\n');
            if batch.len() >= BATCH || bytes >= BATCH_BYTES || (would_wait && !batch.is_empty()) {
                return (batch, true);
            }
        }
    }

    /// The item on the next line, if it has one; `None` at the end.
    fn next(&mut self) -> Result<Option<Option<Payload>>, String> {
        self.line.clear();
        let mut bounded = (&mut self.reader).take(LONGEST as u64 + 2);
        let read = bounded.read_until(b'\n', &mut self.line);
        let read = read.map_err(|error| format!("cannot read {}: {error}", self.name))?;
        if read == 0 {
            return Ok(None);
        }
        self.number += 1;
        self.reading.bytes.fetch_add(read as u64, Relaxed);
        let mut line = self.line.as_slice();
        line = line.strip_suffix(b"\n").unwrap_or(line);
        line = line.strip_suffix(b"\r").unwrap_or(line);
        if self.number == 1 {
            line = line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line);
        }
        if line.len() > LONGEST {
            return Err(format!(
                "line {} of {} has more than {LONGEST} bytes, the most that a message may have",
                self.number, self.name
            ));
        }
        self.item(line).map(Some)
    }

    fn item(&self, line: &[u8]) -> Result<Option<Payload>, String> {
        let refuse = |reason: &str| Err(format!("line {} of {} {reason}", self.number, self.name));
        if self.format != Format::Text && line.trim_ascii().is_empty() {
            return Ok(None);
        }
        match self.format {
            Format::Text => match std::str::from_utf8(line) {
                Ok(text) => Payload::arguments(&(text,)).map(Some).or_else(|error| refuse(&error.to_string())),
                Err(error) => refuse(&format!("is not UTF-8: {error}")),
            },
            Format::Json => match Payload::arguments_from_json(&[line]) {
                Ok(item) => Ok(Some(item)),
                Err((_, error)) if is_json(&error) => refuse(&format!("cannot be sent as it is: {error}")),
                Err((_, error)) => refuse(&format!("is not JSON: {error}; --lines takes each line as text")),
            },
            Format::Arguments => match Payload::from_json(line) {
                Ok(item) if line.trim_ascii_start().starts_with(b"[") => Ok(Some(item)),
                Ok(_) => refuse("is not an array, which --spread takes for the list of arguments"),
                Err(error) if is_json(&error) => refuse(&format!("cannot be sent as it is: {error}")),
                Err(error) => refuse(&format!("is not JSON: {error}")),
            },
        }
    }
}

/// Whether it is JSON that only cannot be kept as it is.
fn is_json(error: &JsonError) -> bool {
    !matches!(error.problem(), JsonProblem::Syntax(_) | JsonProblem::NotUtf8 | JsonProblem::NotFinite(_))
}

/// Items that are handed over at once, and bytes of their lines.
const BATCH: usize = 256;
const BATCH_BYTES: usize = 64 * 1024;

/// Batches that lie ready. Two keep both sides busy; each may be one line of the longest.
const BATCHES: usize = 2;

/// The longest line in bytes: the largest message.
const LONGEST: usize = DEFAULT_MAX_MESSAGE;

#[cfg(test)]
mod tests {
    use super::*;

    /// All items, and why there are no more.
    async fn items(format: Format, text: impl Into<Vec<u8>>) -> (Vec<Payload>, Option<String>) {
        let text = text.into();
        let size = Some(text.len() as u64);
        let input =
            Input { name: "the test".to_owned(), reader: Box::new(std::io::Cursor::new(text)), size, is_typed: false };
        let (items, reading) = input.read(format);
        let items: Vec<Payload> = items.collect().await;
        assert_eq!((reading.items(), reading.total()), (items.len() as u64, Some(items.len() as u64)));
        (items, reading.failure().map(|failure| failure.to_string()))
    }

    fn shown(items: &[Payload]) -> Vec<String> {
        items.iter().map(|item| item.json().unwrap().to_string()).collect()
    }

    #[tokio::test]
    async fn each_line_is_an_item() {
        let (json, failure) = items(Format::Json, "\u{feff}1\r\n\n [2, -0] \n\"x\"").await;
        assert_eq!(shown(&json), ["[1]", "[[2,-0]]", "[\"x\"]"]);
        assert_eq!(failure, None);
        let (lines, _) = items(Format::Text, "a\r\n\n b \n").await;
        assert_eq!(shown(&lines), ["[\"a\"]", "[\"\"]", "[\" b \"]"]);
        let (spread, _) = items(Format::Arguments, "[1,true]\n[]\n").await;
        assert_eq!(shown(&spread), ["[1,true]", "[]"]);
    }

    #[tokio::test]
    async fn a_line_that_is_none_ends_the_input_and_is_named() {
        for (format, input, wanted) in [
            (
                Format::Json,
                &b"1\n\nnonsense\n2\n"[..],
                "line 3 of the test is not JSON: a value is expected, at byte 1",
            ),
            (
                Format::Json,
                b"1\n18446744073709551617\n",
                "line 2 of the test cannot be sent as it is: the integer `18446744073709551617`",
            ),
            (Format::Arguments, b"[1]\n2\n", "line 2 of the test is not an array"),
            (Format::Arguments, b"[1]\n[1e400]\n", "line 2 of the test cannot be sent as it is: the number `1e400`"),
            (Format::Text, b"a\n\xff\n", "line 2 of the test is not UTF-8"),
        ] {
            let (items, failure) = items(format, input).await;
            assert_eq!(items.len(), 1, "what came before is not lost");
            assert!(failure.as_ref().is_some_and(|failure| failure.contains(wanted)), "{failure:?}");
        }
    }

    #[tokio::test]
    async fn a_line_without_end_is_not_read_to_its_end() {
        let input =
            Input { name: "zeros".to_owned(), reader: Box::new(std::io::repeat(b'0')), size: None, is_typed: false };
        let (items, reading) = input.read(Format::Text);
        assert_eq!(items.count().await, 0);
        let failure = reading.failure().unwrap().to_string();
        assert!(failure.contains("line 1 of zeros has more than 16777216 bytes"), "{failure}");
        let longest = [vec![b'x'; LONGEST], b"\r\ny".to_vec()].concat();
        assert_eq!(super::tests::items(Format::Text, longest).await.0.len(), 2);
    }
}
