//! Dask distributed, if `run.sh` could install it.

use std::{process::Command, time::Duration};

use crate::{Error, process::Process};

/// The command (words apart by spaces) that runs `dask_map.py`; `run.sh` sets it.
const COMMAND: &str = "MULTINODES_DASK";

/// Its processes may take so long to start, and each batch so long to run.
const PATIENCE: Duration = Duration::from_secs(120);

/// The command, or why there is none.
pub(crate) fn command() -> Result<String, String> {
    std::env::var(COMMAND).map_err(|_| "Dask is not installed".to_owned())
}

/// Tasks per second, in batches of `batch`, for about `length`.
pub(crate) fn tasks_per_second(command: &str, length: Duration, batch: u64) -> Result<f64, Error> {
    let words: Vec<&str> = command.split_whitespace().collect();
    let [program, arguments @ ..] = &words[..] else { return Err(format!("`{COMMAND}` is empty").into()) };
    let mut command = Command::new(program);
    let process = Process::start(command.args(arguments).arg(length.as_secs_f64().to_string()).arg(batch.to_string()))?;
    process.expect_within(PATIENCE, "ready")?;
    let rate = process.expect_within(PATIENCE + length, "tasks_per_second ")?.parse()?;
    process.finish()?;
    Ok(rate)
}
