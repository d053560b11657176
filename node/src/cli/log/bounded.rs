//! A log that has a bound, whatever others make a node say: in bytes as they are written, for a line and for all of them.

use std::{
    io::{self, Write},
    sync::{Mutex, PoisonError},
    time::Instant,
};

use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

/// The longest line, in bytes. What people read is far shorter; a guest, or an error of another node, may say megabytes.
const MAX_LINE: usize = 16 * 1024;

/// What may be written at once, in bytes: the start of a node with all details, and a long burst of errors.
const BURST: u64 = 2 * 1024 * 1024;

/// What may be written for longer, in bytes a second: more than anybody reads, and a disk lasts for weeks.
const RATE: u64 = 256 * 1024;

/// Once something is left out there has to be so much room again, so that the gaps are few.
const ROOM: u64 = BURST / 4;

/// Passes lines on as long as there are not too many.
pub(super) struct Bounded<M> {
    inner: M,
    /// What is of no importance takes nothing away from warnings, nor from what workers say.
    budgets: [Mutex<Budget>; 3],
}

impl<M> Bounded<M> {
    pub(super) fn new(inner: M) -> Self {
        let now = Instant::now();
        Self { inner, budgets: [(); 3].map(|()| Mutex::new(Budget::new(now))) }
    }
}

impl<'a, M: MakeWriter<'a>> MakeWriter<'a> for Bounded<M> {
    type Writer = Line<'a, M::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        Line { inner: self.inner.make_writer(), budget: &self.budgets[0] }
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> Self::Writer {
        let budget = match metadata.level() {
            _ if metadata.target() == "worker" => 1,
            level if *level <= Level::WARN => 2,
            _ => 0,
        };
        Line { inner: self.inner.make_writer_for(metadata), budget: &self.budgets[budget] }
    }
}

/// Takes one line, which comes as a whole.
pub(super) struct Line<'a, W> {
    inner: W,
    budget: &'a Mutex<Budget>,
}

impl<W: Write> Write for Line<'_, W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let cut = cut(line);
        let written = cut.as_deref().unwrap_or(line);
        let verdict = {
            let mut budget = self.budget.lock().unwrap_or_else(PoisonError::into_inner);
            budget.take(written.len() as u64, Instant::now())
        };
        match verdict {
            Verdict::Written { left_out: 0 } => self.inner.write_all(written)?,
            Verdict::Written { left_out } => {
                let note = format!("{left_out} lines of the log were left out\n");
                self.inner.write_all(&[note.as_bytes(), written].concat())?;
            }
            Verdict::First => {
                let text = "lines of the log are left out from here on: it has";
                let note = format!("{text} {} MiB at once, and {} KiB a second for longer\n", BURST >> 20, RATE >> 10);
                self.inner.write_all(note.as_bytes())?;
            }
            Verdict::LeftOut => {}
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// What may be written still.
struct Budget {
    room: u64,
    since: Instant,
    left_out: u64,
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// After so many that were not.
    Written {
        left_out: u64,
    },
    /// The first one that is not.
    First,
    LeftOut,
}

impl Budget {
    fn new(now: Instant) -> Self {
        Self { room: BURST, since: now, left_out: 0 }
    }

    fn take(&mut self, size: u64, now: Instant) -> Verdict {
        let elapsed = u64::try_from(now.saturating_duration_since(self.since).as_millis()).unwrap_or(u64::MAX);
        let more = elapsed.saturating_mul(RATE) / 1000;
        if more > 0 {
            self.room = self.room.saturating_add(more).min(BURST);
            self.since = now;
        }
        let needed = if self.left_out == 0 { size } else { size.max(ROOM) };
        if self.room >= needed {
            self.room -= size;
            return Verdict::Written { left_out: std::mem::take(&mut self.left_out) };
        }
        self.left_out += 1;
        if self.left_out == 1 { Verdict::First } else { Verdict::LeftOut }
    }
}

/// What is written of a line that is too long.
fn cut(line: &[u8]) -> Option<Vec<u8>> {
    let head = line.get(..MAX_LINE).filter(|head| head.len() < line.len())?;
    // Whole characters only.
    let end = head.utf8_chunks().next().map_or(0, |chunk| chunk.valid().len());
    let colours = if head.contains(&0x1b) { "\x1b[0m" } else { "" };
    let note = format!("{colours}... ({} bytes more)\n", line.len() - end);
    Some([&head[..end], note.as_bytes()].concat())
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use super::*;

    #[test]
    fn what_is_written_has_a_bound_and_what_is_left_out_is_counted() {
        let start = Instant::now();
        let mut budget = Budget::new(start);
        let size = 1024;
        let mut take = |after| budget.take(size, start + after);
        for _ in 0..BURST / size {
            assert_eq!(take(Duration::ZERO), Verdict::Written { left_out: 0 });
        }
        assert_eq!(take(Duration::ZERO), Verdict::First);
        let second = Duration::from_secs(1);
        assert_eq!(take(second), Verdict::LeftOut, "there is room for some, but not for long");
        assert_eq!(take(2 * second), Verdict::Written { left_out: 2 });
        let written = (0..10_000).filter(|_| matches!(take(3 * second), Verdict::Written { .. })).count() as u64;
        assert_eq!(written, ROOM / size - 1 + RATE / size);
    }

    #[test]
    fn a_line_is_cut_where_a_character_ends() {
        assert_eq!(cut(&[b'x'; MAX_LINE]), None);
        let line = format!("x{}\n", "ä".repeat(MAX_LINE));
        let text = String::from_utf8(cut(line.as_bytes()).unwrap()).unwrap();
        assert!(text.starts_with("xä") && text.len() < MAX_LINE + 40, "{}", text.len());
        assert!(
            text.ends_with(&format!("ä... ({} bytes more)\n", line.len() - (MAX_LINE - 1))),
            "{:?}",
            &text[MAX_LINE - 3..]
        );
    }

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_flood_of_what_others_say_is_left_out_and_a_warning_is_not() {
        let (written, begun) = (Written::default(), Instant::now());
        let writer = written.clone();
        let subscriber = tracing_subscriber::fmt().with_writer(Bounded::new(move || writer.clone())).finish();
        let said = "\u{1}".repeat(4000);
        tracing::subscriber::with_default(subscriber, || {
            for _ in 0..2000 {
                tracing::info!(guest = ?said, "a guest says");
            }
            tracing::warn!("something is wrong");
        });
        let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        let most = BURST + RATE * (begun.elapsed().as_secs() + 1) + 64 * 1024;
        assert!((text.len() as u64) < most, "{} bytes were written of {}", text.len(), 2000 * said.len() * 5);
        assert!(text.contains("lines of the log are left out from here on"));
        assert!(text.ends_with("something is wrong\n"));
        assert!(text.lines().all(|line| line.len() <= MAX_LINE + 100));
    }
}
