//! What is still to be written to a process.

use std::{collections::VecDeque, io};

use bytes::{Buf, Bytes};
use tokio::{io::AsyncWriteExt, process::ChildStdin};

/// Bytes in the order in which they go out. Large ones are not copied.
#[derive(Default)]
pub(super) struct Outbox(VecDeque<Bytes>);

/// Pieces that are shorter go together with what belongs to them.
const SMALL: usize = 16 * 1024;

impl Outbox {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn push(&mut self, bytes: impl Into<Bytes>) {
        let bytes = bytes.into();
        if !bytes.is_empty() {
            self.0.push_back(bytes);
        }
    }

    /// Adds a line in two parts.
    pub(super) fn push_line(&mut self, line: &Bytes, end: String) {
        if line.len() < SMALL {
            self.push([line, end.as_bytes()].concat());
        } else {
            self.push(line.clone());
            self.push(end);
        }
    }

    /// Writes some of it, and says how much. Cancelling loses nothing.
    pub(super) async fn write(&self, stdin: &mut Option<ChildStdin>) -> io::Result<usize> {
        let next = self.0.front().map_or(&[][..], |bytes| bytes);
        match stdin {
            Some(stdin) => stdin.write(next).await,
            None => Ok(next.len()),
        }
    }

    /// So much was written.
    pub(super) fn written(&mut self, count: usize) {
        if let Some(next) = self.0.front_mut() {
            next.advance(count);
            if next.is_empty() {
                self.0.pop_front();
            }
        }
    }
}
