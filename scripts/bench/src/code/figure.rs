//! What is measured of code that travels, and how it is called.

use crate::results::thousands;

/// One figure, and its unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(not(feature = "wasm"), allow(dead_code, reason = "without it nothing of this is measured"))]
pub(crate) enum Figure {
    CallP50,
    CallP99,
    RunP50,
    RunP99,
    /// The same for a guest in Rust, which has more to set up.
    SumP50,
    FirstRun,
    Transfer,
    Vetting,
    Compile,
    Run,
    /// Calls with so many in flight of what the node's own program hosts.
    Native(usize),
    /// The same of what was installed.
    Guest(usize),
    IdleP50,
    SpinningP50,
    IdleP99,
    SpinningP99,
    /// What the node with the spinning guests takes.
    SpinningCpu,
}

impl Figure {
    /// Those of which something is promised.
    #[cfg(not(feature = "wasm"))]
    pub(crate) const PROMISED: [Self; 4] = [Self::RunP50, Self::FirstRun, Self::Guest(64), Self::SpinningP99];

    pub(crate) fn title(self) -> String {
        match self {
            Self::CallP50 => "remote call of a native action, p50".into(),
            Self::CallP99 => "remote call of a native action, p99".into(),
            Self::RunP50 => "remote run of a known task, p50".into(),
            Self::RunP99 => "remote run of a known task, p99".into(),
            Self::SumP50 => "the same, a guest in Rust, p50".into(),
            Self::FirstRun => "first run of 28 kB on a fresh node".into(),
            Self::Transfer => "  of that: transfer, keeping, answer".into(),
            Self::Vetting => "  of that: vetting".into(),
            Self::Compile => "  of that: compile".into(),
            Self::Run => "  of that: instance and run".into(),
            Self::Native(1) => "calls/s one by one, native".into(),
            Self::Native(tasks) => format!("calls/s, {tasks} in flight, native"),
            Self::Guest(1) => "calls/s one by one, installed".into(),
            Self::Guest(tasks) => format!("calls/s, {tasks} in flight, installed"),
            Self::IdleP50 => "native call, idle node, p50".into(),
            Self::SpinningP50 => "native call, 4 guests spin, p50".into(),
            Self::IdleP99 => "native call, idle node, p99".into(),
            Self::SpinningP99 => "native call, 4 guests spin, p99".into(),
            Self::SpinningCpu => "CPU of that node meanwhile".into(),
        }
    }

    /// Its key in the JSON, with the unit.
    pub(crate) fn key(self) -> String {
        match self {
            Self::CallP50 => "code_call_p50_us".into(),
            Self::CallP99 => "code_call_p99_us".into(),
            Self::RunP50 => "code_run_p50_us".into(),
            Self::RunP99 => "code_run_p99_us".into(),
            Self::SumP50 => "code_run_rust_p50_us".into(),
            Self::FirstRun => "code_first_run_ms".into(),
            Self::Transfer => "code_first_run_transfer_ms".into(),
            Self::Vetting => "code_first_run_vetting_ms".into(),
            Self::Compile => "code_first_run_compile_ms".into(),
            Self::Run => "code_first_run_run_ms".into(),
            Self::Native(tasks) => format!("code_native_calls_per_second_{tasks}"),
            Self::Guest(tasks) => format!("code_installed_calls_per_second_{tasks}"),
            Self::IdleP50 => "code_idle_p50_us".into(),
            Self::SpinningP50 => "code_spinning_p50_us".into(),
            Self::IdleP99 => "code_idle_p99_us".into(),
            Self::SpinningP99 => "code_spinning_p99_us".into(),
            Self::SpinningCpu => "code_spinning_cpu_percent".into(),
        }
    }

    pub(crate) fn show(self, value: f64) -> String {
        match self {
            Self::Native(_) | Self::Guest(_) => thousands(value),
            Self::FirstRun | Self::Transfer | Self::Vetting | Self::Compile | Self::Run => format!("{value:.1} ms"),
            Self::SpinningCpu => format!("{value:.0} %"),
            _ => format!("{value:.1} µs"),
        }
    }
}
