//! The `multinodes` command: see `cli.rs` for the flags, and `cli/` for one file per verb.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
