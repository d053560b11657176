//! What a child says on stderr: line by line into the node's log, the last of it kept for errors.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{io::AsyncRead, process::ChildStderr, task::JoinSet, time::timeout};

use super::lines::{Lines, Next};
use crate::cli::style::printable;

/// The longest line of a log, in bytes; the rest is left out.
const MAX_LINE: usize = 8 * 1024;

/// The longest tail that an error shows, in bytes: enough for the end of a stack trace.
const MAX_TAIL: usize = 2 * 1024;

/// A child that has ended has written everything; only something that outlives it can hold the pipe.
const LAST_LINES: Duration = Duration::from_millis(500);

/// Reads the stderr of one child until it ends.
pub(super) struct Stderr {
    tail: Arc<Mutex<Tail>>,
    reading: JoinSet<()>,
}

#[derive(Default)]
struct Tail {
    lines: VecDeque<String>,
    size: usize,
}

impl Stderr {
    pub(super) fn read(from: ChildStderr, application: Arc<str>, process: Option<u32>) -> Self {
        let tail = Arc::default();
        let mut reading = JoinSet::new();
        reading.spawn(log_all(from, application, process.unwrap_or_default(), Arc::clone(&tail)));
        Self { tail, reading }
    }

    /// Waits until all is read, for a short time at the most, and gives the end of it: at most 2 KiB of whole lines.
    pub(super) async fn tail(&mut self) -> String {
        let _ = timeout(LAST_LINES, self.reading.join_next()).await;
        let tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        tail.lines.iter().map(String::as_str).collect::<Vec<_>>().join("\n")
    }
}

async fn log_all(from: impl AsyncRead + Unpin, application: Arc<str>, process: u32, tail: Arc<Mutex<Tail>>) {
    let mut lines = Lines::new(from, MAX_LINE);
    loop {
        let line = match lines.next().await {
            Ok(Next::Line(line)) => printable(&String::from_utf8_lossy(&line)),
            Ok(Next::TooLong(line)) => printable(&String::from_utf8_lossy(&line)) + "…",
            Ok(Next::End) | Err(_) => return,
        };
        tracing::info!(target: super::LOG, %application, process, "{line}");
        tail.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }
}

impl Tail {
    fn push(&mut self, mut line: String) {
        if line.trim().is_empty() {
            return;
        }
        if line.len() > MAX_TAIL {
            let end = (0..=MAX_TAIL).rev().find(|end| line.is_char_boundary(*end)).unwrap_or_default();
            line.truncate(end);
        }
        self.size += line.len() + 1;
        self.lines.push_back(line);
        while self.size > MAX_TAIL + 1 {
            let Some(first) = self.lines.pop_front() else { return };
            self.size -= first.len() + 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_is_the_last_whole_lines() {
        let mut tail = Tail::default();
        for number in 0..1000 {
            tail.push(format!("line {number}"));
        }
        assert_eq!(tail.lines.back().unwrap(), "line 999");
        assert!(tail.lines.len() > 100 && tail.size <= MAX_TAIL + 1, "{} lines", tail.lines.len());
        tail.push("ä".repeat(MAX_TAIL));
        assert_eq!(tail.lines.len(), 1);
        assert!(tail.lines[0].len() <= MAX_TAIL);
    }
}
