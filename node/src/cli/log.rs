//! Logs, on stderr.

use std::io::IsTerminal;

use anstream::ColorChoice;
use tracing_subscriber::EnvFilter;

/// Starts logging: RUST_LOG if it is set, else by the number of `-v`.
pub(crate) fn start(verbose: u8) {
    let level = match verbose {
        0 => "error",
        1 => "error,multinodes=info,multinodes_behaviour=info",
        2 => "warn,multinodes=debug,multinodes_behaviour=debug",
        _ => "info,multinodes=trace,multinodes_behaviour=trace,libp2p_swarm=debug",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colours()).init();
}

fn colours() -> bool {
    match ColorChoice::global() {
        ColorChoice::Always | ColorChoice::AlwaysAnsi => true,
        ColorChoice::Never => false,
        ColorChoice::Auto => {
            std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
        }
    }
}
