//! One line at the bottom of the terminal that says how far something is.

use std::{
    collections::VecDeque,
    fmt::Write as _,
    io::{IsTerminal, Write as _},
    time::{Duration, Instant},
};

use super::{
    log,
    style::{self, paint},
};

/// How far it is.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Position {
    pub(crate) done: u64,
    /// So many of them were done before, by another run.
    pub(crate) recorded: u64,
    /// How many there are in all, if that is known.
    pub(crate) total: Option<u64>,
    pub(crate) failed: u64,
    pub(crate) workers: usize,
}

/// The line, on stderr. Cleared when dropped; whoever prints something else clears it before.
///
/// Drawn with blanks and carriage returns alone, which every terminal understands.
#[derive(Debug)]
pub(crate) struct Bar {
    /// Characters that are there now.
    shown: usize,
    /// What was drawn last.
    text: String,
    rate: Rate,
}

/// How many were done within the last seconds.
#[derive(Debug, Default)]
struct Rate(VecDeque<(Instant, u64)>);

impl Position {
    /// How many were run now.
    fn run(&self) -> u64 {
        self.done.saturating_sub(self.recorded)
    }
}

impl Bar {
    /// A bar, if there is a terminal to draw it on.
    pub(crate) fn new() -> Option<Self> {
        std::io::stderr().is_terminal().then(|| Self { shown: 0, text: String::new(), rate: Rate::default() })
    }

    pub(crate) fn draw(&mut self, position: Position, now: Instant) {
        let rate = self.rate.note(now, position.run());
        // The last column stays free: some terminals begin a new line after it.
        let width = terminal_size::terminal_size_of(std::io::stderr()).map_or(80, |(width, _)| usize::from(width.0));
        self.text = render(position, rate, width.saturating_sub(1));
        self.redraw();
    }

    /// Draws it once more as it was, after something else was printed.
    pub(crate) fn redraw(&mut self) {
        let plain = anstream::adapter::strip_str(&self.text).to_string();
        let length = plain.chars().count();
        let text = if log::colours() { &self.text } else { &plain };
        let padding = self.shown.saturating_sub(length);
        // Nobody is hurt if a bar cannot be drawn.
        let _ = write!(std::io::stderr(), "\r{text}{:padding$}", "");
        self.shown = length + padding;
    }

    /// Takes it away, so that something else can be printed.
    pub(crate) fn clear(&mut self) {
        if self.shown > 0 {
            let _ = write!(std::io::stderr(), "\r{:1$}\r", "", self.shown);
            self.shown = 0;
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.clear();
    }
}

impl Rate {
    /// Notes how many are done, and gives how many are done in a second.
    fn note(&mut self, now: Instant, done: u64) -> f64 {
        self.0.push_back((now, done));
        while self.0.len() > 2 && self.0.front().is_some_and(|(then, _)| now.saturating_duration_since(*then) > WINDOW)
        {
            self.0.pop_front();
        }
        let Some((then, before)) = self.0.front() else { return 0.0 };
        let time = now.saturating_duration_since(*then).as_secs_f64();
        if time > 0.0 { done.saturating_sub(*before) as f64 / time } else { 0.0 }
    }
}

/// The line in at most `width` characters: what matters least is left out first.
fn render(position: Position, rate: f64, width: usize) -> String {
    let Position { done, total, failed, workers, .. } = position;
    let mut parts = vec![match total {
        Some(total) => format!("{done}/{}", total.max(done)),
        None => format!("{done} done"),
    }];
    if failed > 0 {
        parts.push(format!("{failed} failed"));
    }
    parts.push(format!("{}/s", number(rate)));
    if let Some(left) = total.filter(|_| rate > 0.0).map(|total| total.saturating_sub(done) as f64 / rate) {
        parts.push(format!("{} left", time(left)));
    }
    parts.push(format!("{workers} {}", if workers == 1 { "worker" } else { "workers" }));
    let length = |parts: &[String]| parts.iter().map(|part| part.chars().count() + GAP).sum::<usize>();
    while parts.len() > 1 && length(&parts) > width + GAP {
        parts.pop();
    }
    let mut line = String::new();
    let room = width.saturating_sub(length(&parts)).min(WIDEST);
    if let (Some(total), NARROWEST..) = (total, room) {
        let share = if total == 0 { 1.0 } else { (done as f64 / total as f64).min(1.0) };
        // Between 0 and `room`, by the line above.
        let full = (share * room as f64) as usize;
        let (full, rest) = (paint(style::GOOD, "━".repeat(full)), paint(style::DIM, "─".repeat(room - full)));
        let _ = write!(line, "{full}{rest}  ");
    }
    let mut painted =
        parts.into_iter().map(|part| if part.ends_with("failed") { paint(style::BAD, part) } else { part });
    line.extend(painted.next());
    painted.for_each(|part| line += &format!("{:GAP$}{part}", ""));
    line
}

/// A rate as people read it.
pub(crate) fn number(rate: f64) -> String {
    if rate < 10.0 { format!("{rate:.1}") } else { format!("{rate:.0}") }
}

fn time(seconds: f64) -> String {
    // Long before it is out of range nobody waits for it any more.
    let seconds = seconds.ceil().min(1e9) as u64;
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, seconds) => format!("{minutes}:{seconds:02} min"),
        (hours, minutes, _) => format!("{hours}:{minutes:02} h"),
    }
}

/// The time over which the rate is taken.
const WINDOW: Duration = Duration::from_secs(5);

/// How wide the bar itself is: below that it is left out.
const NARROWEST: usize = 10;
const WIDEST: usize = 40;

/// Blanks between the parts.
const GAP: usize = 2;

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(position: Position, rate: f64, width: usize) -> String {
        let text = anstream::adapter::strip_str(&render(position, rate, width)).to_string();
        assert!(text.chars().count() <= width, "{} in {width}: {text}", text.chars().count());
        text
    }

    #[test]
    fn it_says_how_far_it_is_and_how_long_it_takes() {
        let position = Position { done: 250, total: Some(1000), failed: 3, workers: 4, recorded: 0 };
        assert_eq!(
            plain(position, 100.0, 80),
            "━━━━━━━━────────────────────────  250/1000  3 failed  100/s  8 s left  4 workers"
        );
        let unknown = Position { total: None, workers: 1, failed: 0, ..position };
        assert_eq!(plain(unknown, 2.5, 80), "250 done  2.5/s  1 worker");
    }

    #[test]
    fn on_a_narrow_terminal_the_least_important_goes_first() {
        let position = Position { done: 250, total: Some(1000), failed: 3, workers: 4, recorded: 0 };
        assert_eq!(plain(position, 100.0, 30), "250/1000  3 failed  100/s");
        assert_eq!(plain(position, 100.0, 8), "250/1000");
    }

    #[test]
    fn what_was_recorded_before_says_nothing_of_the_rate_and_of_the_time_that_is_left() {
        let (mut rate, begin) = (Rate::default(), Instant::now());
        rate.note(begin, Position::default().run());
        let position = Position { done: 5100, recorded: 5000, total: Some(10_000), failed: 0, workers: 1 };
        let text = plain(position, rate.note(begin + Duration::from_secs(1), position.run()), 80);
        assert!(text.contains("100/s") && text.contains("49 s left"), "{text}");
    }

    #[test]
    fn the_rate_is_that_of_the_last_seconds() {
        let (mut rate, begin) = (Rate::default(), Instant::now());
        assert!(rate.note(begin, 0) < 0.1);
        let at = |seconds| begin + Duration::from_secs(seconds);
        assert!((rate.note(at(2), 200) - 100.0).abs() < 0.1);
        for second in 3..20 {
            rate.note(at(second), 200);
        }
        assert!(rate.note(at(20), 200) < 0.1, "nothing was done for a while");
        assert_eq!((time(0.2), time(61.0), time(7300.0)), ("1 s".into(), "1:01 min".into(), "2:01 h".into()));
    }
}
