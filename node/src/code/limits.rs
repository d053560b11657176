//! How much a guest may take.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::rate::Rate;

/// How much a guest may take of the node that runs it. Each is a bound that holds whatever the guest does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Limits {
    /// The longest that one request may last, from its beginning to its result: computing, waiting for others, and
    /// waiting for a thread. 10 s unless said otherwise.
    pub wall: Duration,
    /// The most time that one request may compute, to about a millisecond. 5 s unless said otherwise.
    pub cpu: Duration,
    /// How much the guests of one sender may compute over all of their requests, whatever their code: what goes beyond is
    /// stopped, and its sender waits. As much as they like unless said otherwise; by a rule that admits anybody,
    /// 30 s a minute.
    pub rate: Option<Rate>,
    /// How long the code of one sender may occupy the compiler. As long as it likes unless said otherwise; by any rule, a
    /// minute in ten. Code that is compiled already takes nothing of it.
    pub compile: Option<Rate>,
    /// The most memory that one instance may have, in bytes: its memories, its tables, and what its globals, functions and
    /// segments take. 64 MiB unless said otherwise.
    pub memory: usize,
    /// The largest code, in bytes. 2 MiB unless said otherwise.
    pub code_size: u64,
    /// How complex the code may be: what all of its functions together may cost the compiler, in local variables times
    /// branches. 1 million unless said otherwise; interpreters of whole languages have up to 10 million.
    pub complexity: u64,
    /// How many instances may run or be kept at once. 16 unless said otherwise.
    pub instances: usize,
    /// The most that the guest may hand out at once, in bytes: a result, or the arguments of one call. 4 MiB unless
    /// said otherwise.
    pub output: usize,
    /// How often one request may ask the node for something. 10 000 times unless said otherwise.
    pub host_calls: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            wall: Duration::from_secs(10),
            cpu: Duration::from_secs(5),
            rate: None,
            compile: None,
            memory: 64 * 1024 * 1024,
            code_size: 2 * 1024 * 1024,
            complexity: 1_000_000,
            instances: 16,
            output: 4 * 1024 * 1024,
            host_calls: 10_000,
        }
    }
}
