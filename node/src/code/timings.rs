//! Where the time of a first run goes.

use std::time::Duration;

/// Where the time went. What was done before, or was in a cache, took none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Timings {
    /// Looking at the code before it is compiled.
    pub vetting: Duration,
    /// Compiling it, with the process for it, and loading what was compiled.
    pub compile: Duration,
    /// Making an instance.
    pub instantiate: Duration,
    /// Running it.
    pub run: Duration,
}
