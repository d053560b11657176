//! What goes to stdout: data only, as text for people or as JSON.

use std::{
    borrow::Cow,
    io::{self, BufWriter, IsTerminal, Write},
};

use multinodes::json::Exact;
use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter, PrettyFormatter};

use super::{failure::Failure, streams, table::Table};

/// The way to stdout. A reader that has gone away is [`Failure::Unread`], never a panic.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    /// JSON was asked for.
    pub(crate) json: bool,
    /// How wide the terminal is; `None` in a pipe, where nothing is shortened.
    pub(crate) width: Option<usize>,
}

impl Output {
    pub(crate) fn new(json: bool) -> Self {
        let terminal = std::io::stdout().is_terminal();
        let width = terminal_size::terminal_size().map_or(80, |(width, _)| usize::from(width.0));
        Self { json, width: terminal.then_some(width) }
    }

    /// Fails if nothing can be written there: what would be done for nobody is better not begun.
    pub(crate) fn check(self) -> Result<(), Failure> {
        Ok(streams::stdout().map(drop)?)
    }

    /// A line, or several, for people.
    pub(crate) fn text(self, text: &str) -> Result<(), Failure> {
        self.check()?;
        let mut stdout = anstream::stdout().lock();
        writeln!(stdout, "{text}")?;
        Ok(stdout.flush()?)
    }

    /// A value as JSON: one line in a pipe, spread out on a terminal.
    pub(crate) fn value(self, value: &impl Serialize) -> Result<(), Failure> {
        if self.width.is_some() { write(value, PrettyFormatter::new()) } else { self.line(value) }
    }

    /// Rows as a table or as JSON. A table without any is nothing: titles alone say that something is missing.
    pub(crate) fn rows<T: Serialize>(self, rows: &[T], table: impl FnOnce() -> Table) -> Result<(), Failure> {
        match (self.json, rows) {
            (true, _) => self.value(&rows),
            (false, []) => Ok(()),
            (false, _) => self.text(&table().render(self.width, 0)),
        }
    }

    /// A value as JSON on one line, wherever it goes.
    pub(crate) fn line(self, value: &impl Serialize) -> Result<(), Failure> {
        write(value, CompactFormatter)
    }
}

/// Writes a value piece by piece: as one text it would be in memory twice.
fn write(value: &impl Serialize, formatter: impl Formatter) -> Result<(), Failure> {
    // Not through `anstream`: it would take an escape sequence out of the data.
    let mut stdout = Shown(BufWriter::with_capacity(BUFFER, streams::stdout()?));
    let written = value.serialize(&mut serde_json::Serializer::with_formatter(&mut stdout, Exact(formatter)));
    written.map_err(|error| if error.is_io() { Failure::from(io::Error::from(error)) } else { Failure::own(error) })?;
    stdout.write_all(b"\n")?;
    Ok(stdout.flush()?)
}

/// Bytes that are written at once.
const BUFFER: usize = 64 * 1024;

/// Escapes what a terminal would obey or not show. The serializer hands over whole texts, so each is UTF-8 by itself.
pub(crate) struct Shown<W>(pub(crate) W);

impl<W: Write> Write for Shown<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match std::str::from_utf8(bytes) {
            Ok(text) => self.0.write_all(shown(text).as_bytes())?,
            Err(_) => self.0.write_all(bytes)?,
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// The same JSON, with what a terminal would obey or not show written as JSON can: it is only within texts.
pub(crate) fn shown(json: &str) -> Cow<'_, str> {
    let unfit = |letter: char| letter != '\n' && (letter.is_control() || multinodes::is_hidden(letter));
    if !json.contains(unfit) {
        return Cow::Borrowed(json);
    }
    let mut shown = String::with_capacity(json.len());
    for letter in json.chars() {
        if unfit(letter) {
            letter.encode_utf16(&mut [0; 2]).iter().for_each(|unit| shown += &format!("\\u{unit:04x}"));
        } else {
            shown.push(letter);
        }
    }
    Cow::Owned(shown)
}
