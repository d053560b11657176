//! Logs, on stderr.

mod bounded;

use std::io::IsTerminal;

use anstream::ColorChoice;
use tracing_subscriber::{
    EnvFilter,
    field::MakeExt,
    fmt::{FormatFields, format},
};

use super::style::printable;

use bounded::Bounded;

/// Starts logging: RUST_LOG if it is set, else by the number of `-v`.
pub(crate) fn start(verbose: u8) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level(verbose)));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .fmt_fields(fields())
        .with_writer(Bounded::new(std::io::stderr))
        .with_ansi(colours())
        // It would complain on stderr, and panic, when what cannot be written is stderr: a reader of the log may go away.
        .log_internal_errors(false)
        .init();
}

/// Writes fields without anything that a terminal would obey: much of what is logged was said by other nodes.
fn fields() -> impl for<'writer> FormatFields<'writer> + Send + Sync + 'static {
    format::debug_fn(|writer, field, value| {
        let text = printable(&format!("{value:?}"));
        match field.name() {
            "message" => write!(writer, "{text}"),
            name => write!(writer, "{}={text}", name.trim_start_matches("r#")),
        }
    })
    .delimited(" ")
}

/// What workers say is always wanted: see `child.rs`.
fn level(verbose: u8) -> &'static str {
    match verbose {
        0 => "error,worker=info",
        1 => "error,worker=info,multinodes=info,multinodes_behaviour=info",
        2 => "warn,worker=debug,multinodes=debug,multinodes_behaviour=debug",
        _ => "info,worker=trace,multinodes=trace,multinodes_behaviour=trace,libp2p_swarm=debug",
    }
}

/// Whether what goes to stderr has colours.
pub(crate) fn colours() -> bool {
    match ColorChoice::global() {
        ColorChoice::Always | ColorChoice::AlwaysAnsi => true,
        ColorChoice::Never => false,
        ColorChoice::Auto => {
            std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Arc, Mutex},
    };

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_others_say_neither_moves_the_cursor_nor_begins_a_line() {
        let written = Written::default();
        let writer = written.clone();
        let subscriber = tracing_subscriber::fmt().fmt_fields(fields()).with_ansi(false);
        tracing::subscriber::with_default(subscriber.with_writer(move || writer.clone()).finish(), || {
            let evil = "a\u{1b}[2J\u{7}\n\u{202e}b";
            tracing::error!(reason = %evil, error = ?evil, text = evil, "said {evil}");
        });
        let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.lines().count(), 1, "{text:?}");
        assert!(!text.trim_end().contains(['\u{1b}', '\u{7}', '\u{202e}']), "{text:?}");
    }
}
