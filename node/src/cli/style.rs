//! Colours, and what may be shown of text that came from other nodes.

use std::io::Write;

use anstream::ColorChoice;
use anstyle::{AnsiColor, Style};

use super::options::Color;

pub(crate) const PLAIN: Style = Style::new();
pub(crate) const HEADER: Style = Style::new().bold();
pub(crate) const DIM: Style = Style::new().dimmed();
pub(crate) const NODE: Style = AnsiColor::Cyan.on_default().bold();
pub(crate) const APPLICATION: Style = AnsiColor::Magenta.on_default();
pub(crate) const GOOD: Style = AnsiColor::Green.on_default();
pub(crate) const BAD: Style = AnsiColor::Red.on_default().bold();
pub(crate) const WARN: Style = AnsiColor::Yellow.on_default();

/// Settles for the whole process whether colours are used.
pub(crate) fn choose(color: Color) {
    match color {
        Color::Auto => ColorChoice::Auto,
        Color::Always => ColorChoice::Always,
        Color::Never => ColorChoice::Never,
    }
    .write_global();
}

/// `text` in `style`; whether that means colours is decided by the stream it goes to.
pub(crate) fn paint(style: Style, text: impl std::fmt::Display) -> String {
    format!("{style}{}{style:#}", printable(&text.to_string()))
}

/// A line for the person at the terminal: on stderr, and no failure if nobody reads it.
pub(crate) fn note(style: Style, label: &str, text: &str) {
    let text = text.split('\n').map(printable).collect::<Vec<_>>().join("\n");
    let _ = writeln!(anstream::stderr(), "{style}{label}{style:#} {text}");
}

pub(crate) use multinodes::printable;

#[cfg(test)]
mod tests {
    use super::printable;

    #[test]
    fn a_name_cannot_move_the_cursor() {
        assert_eq!(printable("beta\u{1b}[2J\r\nx"), "beta\\u{1b}[2J\\u{d} x");
        assert_eq!(printable("Grüße"), "Grüße");
    }
}
