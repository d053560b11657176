//! What a failed attempt means for its item and for its worker. Pure.

use std::time::Duration;

use super::{outcome::ItemErrorKind, workers::Report};
use crate::{call_error::CallError, length::length};

/// Why an attempt has no result.
#[derive(Debug, Clone)]
pub(super) enum Failure {
    /// The call says so.
    Call(CallError),
    /// Nothing was heard of it for a whole lease.
    Silent(Duration),
}

/// What is done with the item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It surely did not run: somebody else gets it, and nothing is held against it.
    Return,
    /// The application says that it failed.
    Error,
    /// Its worker broke under it.
    Crash,
    /// It may have run, but nobody knows, and nobody broke.
    Retry,
    /// No other worker would do better.
    Final(ItemErrorKind),
    /// The whole cannot go on.
    Stop,
}

impl Failure {
    /// `waiting`: the last that was heard is that it waits for its turn on its worker.
    pub(super) fn verdict(&self, waiting: bool) -> (Verdict, Report) {
        use CallError as E;
        match self {
            Self::Silent(_) if waiting => (Verdict::Retry, Report::Silent),
            Self::Silent(_) => (Verdict::Crash, Report::Silent),
            Self::Call(error) => match error.strongest() {
                E::Busy { .. } => (Verdict::Return, Report::Busy),
                // It did not run, but its time was over: one that is too short would never come to an end.
                E::Expired { .. } => (Verdict::Retry, Report::Busy),
                E::Unreachable { .. }
                | E::NoSuchApplication { .. }
                | E::NoSuchNode { .. }
                | E::NotReady { .. }
                | E::CutOff { .. } => (Verdict::Return, Report::Away),
                E::NoSuchAction { .. } => (Verdict::Return, Report::Lacking),
                E::ConnectionLost { .. } if waiting => (Verdict::Retry, Report::Lost),
                E::ConnectionLost { .. } | E::Panicked { .. } => (Verdict::Crash, Report::Lost),
                E::TimedOut { .. } => (Verdict::Retry, Report::Lost),
                E::Failed { .. } => (Verdict::Error, Report::Failed),
                E::Stopped => (Verdict::Stop, Report::CalledOff),
                E::TooLarge { .. } | E::Unsendable { .. } => {
                    (Verdict::Final(ItemErrorKind::Unsendable), Report::CalledOff)
                }
                // Bad arguments, forbidden, a result that is too large, and what may come.
                _ => (Verdict::Final(ItemErrorKind::Failed), Report::Failed),
            },
        }
    }

    /// Whether the item may have run.
    pub(super) fn may_have_run(&self) -> bool {
        match self {
            Self::Call(error) => error.may_have_run(),
            Self::Silent(_) => true,
        }
    }

    pub(super) fn code(&self) -> &str {
        match self {
            Self::Call(CallError::Failed { code, .. }) => code,
            Self::Call(error) => error.code(),
            Self::Silent(_) => "lease_expired",
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Call(error) => error.fmt(formatter),
            Self::Silent(lease) => write!(formatter, "nothing was heard of it for {}", length(*lease)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lost() -> Failure {
        Failure::Call(CallError::ConnectionLost { node: "beta".into() })
    }

    #[test]
    fn only_an_item_that_was_running_is_blamed_for_a_lost_worker() {
        assert_eq!(lost().verdict(false), (Verdict::Crash, Report::Lost));
        assert_eq!(lost().verdict(true), (Verdict::Retry, Report::Lost));
        let lease = Duration::from_secs(1);
        assert_eq!(Failure::Silent(lease).verdict(false).0, Verdict::Crash);
        assert_eq!(Failure::Silent(lease).verdict(true).0, Verdict::Retry);
    }

    #[test]
    fn what_surely_did_not_run_is_given_to_somebody_else_at_no_cost() {
        let busy = CallError::Busy { application: "a".into(), node: "n".into(), reason: "full".into() };
        assert_eq!(Failure::Call(busy).verdict(false), (Verdict::Return, Report::Busy));
        let lacking = CallError::NoSuchAction { application: "a".into(), node: "n".into(), reason: String::new() };
        assert_eq!(Failure::Call(lacking).verdict(false), (Verdict::Return, Report::Lacking));
    }

    #[test]
    fn an_error_of_the_application_is_not_a_fault_of_the_worker() {
        let node = || "n".to_owned();
        let failed = CallError::Failed {
            application: "a".into(),
            node: node(),
            code: "x".into(),
            message: "y".into(),
            data: None,
        };
        assert_eq!(Failure::Call(failed).verdict(false), (Verdict::Error, Report::Failed));
        assert_eq!(Failure::Call(CallError::Forbidden).verdict(false).0, Verdict::Final(ItemErrorKind::Failed));
    }
}
