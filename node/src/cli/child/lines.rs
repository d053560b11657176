//! Lines from a pipe, none of them longer than a limit.

use std::io;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

/// Bytes that are read at once.
const CHUNK: usize = 64 * 1024;

/// The lines that come from a pipe.
pub(super) struct Lines<R> {
    from: R,
    buffer: BytesMut,
    /// So many bytes of the buffer are known to hold no end of a line.
    searched: usize,
    limit: usize,
    /// The rest of a line that was too long is left out.
    skipping: bool,
}

/// What comes next.
#[derive(Debug, PartialEq)]
pub(super) enum Next {
    /// A line without its end; the last one need not have had any.
    Line(Bytes),
    /// The beginning of a line that is longer than the limit. The rest of it is left out.
    TooLong(Bytes),
    /// Nothing more comes.
    End,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    /// Reads lines of at most `limit` bytes.
    pub(super) fn new(from: R, limit: usize) -> Self {
        Self { from, buffer: BytesMut::new(), searched: 0, limit, skipping: false }
    }

    /// Waits for the next line. Cancelling loses nothing.
    pub(super) async fn next(&mut self) -> io::Result<Next> {
        loop {
            if let Some(next) = self.take() {
                return Ok(next);
            }
            self.buffer.reserve(CHUNK);
            if self.from.read_buf(&mut self.buffer).await? == 0 {
                self.searched = 0;
                let rest = self.buffer.split().freeze();
                let nothing = rest.is_empty() || std::mem::take(&mut self.skipping);
                return Ok(if nothing { Next::End } else { Next::Line(rest) });
            }
        }
    }

    /// What the buffer holds already.
    fn take(&mut self) -> Option<Next> {
        loop {
            let end = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n');
            let Some(end) = end.map(|end| end + self.searched) else {
                self.searched = self.buffer.len();
                if self.skipping {
                    self.buffer.clear();
                    self.searched = 0;
                    return None;
                }
                return (self.searched > self.limit).then(|| {
                    self.skipping = true;
                    self.cut()
                });
            };
            self.searched = 0;
            if std::mem::take(&mut self.skipping) {
                drop(self.buffer.split_to(end + 1));
            } else if end > self.limit {
                let line = self.buffer.split_to(end + 1).freeze();
                return Some(Next::TooLong(line.slice(..self.limit)));
            } else {
                let line = self.buffer.split_to(end + 1).freeze();
                return Some(Next::Line(line.slice(..end)));
            }
        }
    }

    fn cut(&mut self) -> Next {
        self.searched = 0;
        Next::TooLong(self.buffer.split().freeze().slice(..self.limit))
    }
}

#[cfg(test)]
mod tests {
    use futures::executor::block_on;

    use super::*;

    fn all(bytes: &[u8], limit: usize) -> Vec<String> {
        let mut lines = Lines::new(bytes, limit);
        let mut all = Vec::new();
        loop {
            match block_on(lines.next()).unwrap() {
                Next::Line(line) => all.push(String::from_utf8_lossy(&line).into_owned()),
                Next::TooLong(line) => all.push(format!("{}…", String::from_utf8_lossy(&line))),
                Next::End => return all,
            }
        }
    }

    #[test]
    fn each_line_comes_once_and_the_last_needs_no_end() {
        assert_eq!(all(b"one\n\ntwo\nthree", 10), ["one", "", "two", "three"]);
        assert!(all(b"", 10).is_empty());
    }

    #[test]
    fn a_line_over_the_limit_is_cut_and_the_next_is_whole() {
        assert_eq!(all(b"12345\n123456\n1\n", 5), ["12345", "12345…", "1"]);
        assert_eq!(all(b"1234567890", 5), ["12345…"]);
        let long = [&[b'x'; 3 * CHUNK][..], b"\nnext\n"].concat();
        assert_eq!(all(&long, 5), ["xxxxx…", "next"]);
    }
}
