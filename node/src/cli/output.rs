//! What goes to stdout: data only, as text for people or as JSON.

use std::io::{IsTerminal, Write};

use serde::Serialize;

use super::failure::Failure;

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

    /// A line, or several, for people.
    pub(crate) fn text(self, text: &str) -> Result<(), Failure> {
        let mut stdout = anstream::stdout().lock();
        writeln!(stdout, "{text}")?;
        Ok(stdout.flush()?)
    }

    /// A value as JSON: one line in a pipe, spread out on a terminal.
    pub(crate) fn value(self, value: &impl Serialize) -> Result<(), Failure> {
        let text =
            if self.width.is_some() { serde_json::to_string_pretty(value) } else { serde_json::to_string(value) };
        self.json_text(text)
    }

    /// A value as JSON on one line, wherever it goes.
    pub(crate) fn line(self, value: &impl Serialize) -> Result<(), Failure> {
        self.json_text(serde_json::to_string(value))
    }

    fn json_text(self, text: serde_json::Result<String>) -> Result<(), Failure> {
        // Not through `anstream`: it would take an escape sequence out of the data.
        let mut stdout = std::io::stdout().lock();
        writeln!(stdout, "{}", text.map_err(Failure::own)?)?;
        Ok(stdout.flush()?)
    }
}
