//! Why a guest gave no result.

use std::time::Duration;

use super::rate::Rate;
use crate::length::length;

/// Why a guest gave no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GuestError {
    /// It did not end in time.
    #[error("the guest took longer than its limit of {}", length(*.limit))]
    TimeLimit {
        /// The limit for one request.
        limit: Duration,
    },
    /// It computed for too long.
    #[error("the guest computed for longer than its limit of {}", length(*.limit))]
    CpuLimit {
        /// The limit for one request.
        limit: Duration,
    },
    /// The guests of its sender have computed for as long as they may together, by now.
    #[error("the guests of this sender have computed for {rate}, which is their limit: wait {} ms", .wait.as_millis() + 1)]
    RateLimit {
        /// The limit for all of their requests.
        rate: Rate,
        /// Until one may begin again.
        wait: Duration,
        /// It was stopped in the middle. Else it surely did not run.
        begun: bool,
    },
    /// It wanted more memory than it may have, and could not go on without.
    #[error("the guest needs more than its limit of {limit} bytes of memory")]
    MemoryLimit {
        /// In bytes.
        limit: usize,
    },
    /// It wanted memory while all guests of the node together had as much as they may.
    #[error("the guests of this node have the {limit} bytes of memory that they may have together")]
    NodeMemory {
        /// In bytes.
        limit: usize,
        /// It ran already; else it surely did not.
        begun: bool,
    },
    /// It called itself too deeply.
    #[error("the guest needs more than its limit of {limit} bytes of stack")]
    StackLimit {
        /// In bytes.
        limit: usize,
    },
    /// Its result, or the arguments of a call it makes, are too long.
    #[error("the guest hands out more than its limit of {limit} bytes at once")]
    OutputTooLarge {
        /// In bytes.
        limit: usize,
    },
    /// It asks the node too often.
    #[error("the guest asks its node more often than its limit of {limit} times")]
    HostCallLimit {
        /// For one request.
        limit: u64,
    },
    /// As many run as may. It surely did not run.
    #[error("no more than {limit} guests may run at once")]
    InstanceLimit {
        /// How many may.
        limit: usize,
    },
    /// It broke.
    #[error("the guest trapped: {reason}")]
    Trapped {
        /// What it did.
        reason: String,
    },
    /// What it has asked its node for panicked there. The next request gets a new instance.
    #[error("what the guest asked for panicked: {reason}")]
    Panicked {
        /// What the panic said.
        reason: String,
    },
    /// It says itself that it failed.
    #[error("{0}")]
    Failed(String),
    /// It broke lately, and is started again only after a while. It surely did not run.
    #[error("the guest broke and rests for {} ms: {reason}", .remaining.as_millis())]
    Resting {
        /// Until it is tried again.
        remaining: Duration,
        /// How it broke.
        reason: String,
    },
    /// The call comes from the guest itself, which is busy with what it called for. It surely did not run.
    #[error("the guest has called itself, and takes one request at a time")]
    Reentrant,
    /// It is of the other world. It surely did not run.
    #[error("the guest is {actual}")]
    WrongWorld {
        /// What it is.
        actual: super::code_ref::World,
    },
    /// The node stops.
    #[error("the runtime for guests has stopped")]
    Stopped,
}

impl GuestError {
    /// Whether the guest may have begun to run.
    #[must_use]
    pub fn may_have_run(&self) -> bool {
        !matches!(
            self,
            Self::InstanceLimit { .. }
                | Self::RateLimit { begun: false, .. }
                | Self::NodeMemory { begun: false, .. }
                | Self::Resting { .. }
                | Self::Reentrant
                | Self::WrongWorld { .. }
        )
    }

    /// Whether its instance is still fit for use.
    pub(crate) fn leaves_it_whole(&self) -> bool {
        matches!(self, Self::Failed(_))
    }
}
