//! Where the time of a first run goes.

use std::time::Duration;

use libp2p::PeerId;

use super::cid::Cid;

/// Where the time went. What was done before, or was in a cache, took none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Timings {
    /// Waiting until the compiler had time for it, or until it was done with the same code for another request.
    pub waiting: Duration,
    /// Looking at the code before it is compiled.
    pub vetting: Duration,
    /// Compiling it, with the process for it, and loading what was compiled. What took long and had to begin anew has taken
    /// both times.
    pub compile: Duration,
    /// Making an instance.
    pub instantiate: Duration,
    /// The instance was there already: made ahead, for whoever comes next.
    pub ahead: bool,
    /// Running it.
    pub run: Duration,
}

impl Timings {
    /// Tells the log, in whole microseconds.
    pub(super) fn log(&self, cid: &Cid, caller: &PeerId) {
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        tracing::debug!(
            %cid,
            %caller,
            waiting_us = micros(self.waiting),
            vetting_us = micros(self.vetting),
            compile_us = micros(self.compile),
            instantiate_us = micros(self.instantiate),
            run_us = micros(self.run),
            "code was run"
        );
    }
}
