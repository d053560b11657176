//! Why a verb could not do what was asked, in one line and one exit code.

use std::{fmt, io, process::ExitCode};

use multinodes::{CallError, PredicateError};

use super::style;

/// Why a verb has failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The swarm's answer is no: exit code 1.
    Negative(String),
    /// Wrong usage, or something of our own is broken: exit code 2.
    Own(String),
    /// Wrong usage that is best shown, in several lines: exit code 2.
    Shown { reason: String, picture: String },
    /// Out of time: exit code 124, as `timeout` of coreutils has it.
    TimedOut(String),
    /// A signal has ended it: 128 and its number, as shells have it.
    Interrupted(u8),
    /// Nobody reads our output any more. That is the reader's right, and no failure.
    Unread,
}

impl Failure {
    pub(crate) fn negative(reason: impl fmt::Display) -> Self {
        Self::Negative(one_line(reason))
    }

    pub(crate) fn own(reason: impl fmt::Display) -> Self {
        Self::Own(one_line(reason))
    }

    /// A predicate that is none, with a caret below the place.
    pub(crate) fn predicate(error: &PredicateError) -> Self {
        let picture = error.picture().lines().map(|line| format!("  {}\n", style::printable(line))).collect();
        Self::Shown { reason: one_line(error), picture }
    }

    /// A failed call or tell; `hint` says what to do if the answer is that something is not there.
    pub(crate) fn call(error: &CallError, hint: &str) -> Self {
        use CallError as E;
        match error.strongest() {
            E::TimedOut { .. } | E::Expired { .. } => {
                Self::TimedOut(one_line(format_args!("{error}; `--timeout TIME` allows more")))
            }
            E::CutOff { .. } => Self::TimedOut(one_line(error)),
            // The hint says all of it, and where was looked.
            E::NotReady { .. } => Self::negative(hint),
            E::NoSuchApplication { .. } | E::NoSuchNode { .. } | E::NoSuchAction { .. } => {
                Self::negative(format_args!("{error}; {hint}"))
            }
            E::Failed { code, .. } if code != "error" => Self::negative(format_args!("{error} (`{code}`)")),
            E::TooLarge { .. } | E::Unsendable { .. } | E::UnexpectedResult { .. } | E::Stopped => Self::own(error),
            _ => Self::negative(error),
        }
    }

    /// The same where `asked` is what the user has named: whoever forbids something says nothing of it.
    pub(crate) fn asked(asked: &str, error: &CallError, hint: &str) -> Self {
        match error.strongest() {
            CallError::Forbidden => Self::negative(format_args!("{asked} is {error}")),
            _ => Self::call(error, hint),
        }
    }

    /// Says it on stderr and gives the exit code.
    pub(crate) fn report(self) -> ExitCode {
        match self {
            Self::Negative(reason) => complain(&reason, 1),
            Self::Own(reason) => complain(&reason, 2),
            Self::Shown { reason, picture } => complain(&format!("{reason}\n{}", picture.trim_end()), 2),
            Self::TimedOut(reason) => complain(&reason, 124),
            Self::Interrupted(signal) => ExitCode::from(128 + signal),
            Self::Unread => ExitCode::SUCCESS,
        }
    }
}

impl From<io::Error> for Failure {
    /// For errors of our own output only.
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::Unread,
            _ => Self::own(format_args!("cannot write the output: {error}")),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Negative(reason) | Self::Own(reason) | Self::TimedOut(reason) | Self::Shown { reason, .. } => {
                formatter.write_str(reason)
            }
            Self::Interrupted(signal) => write!(formatter, "ended by signal {signal}"),
            Self::Unread => formatter.write_str("nobody reads the output"),
        }
    }
}

fn complain(reason: &str, code: u8) -> ExitCode {
    style::note(style::BAD, "error:", reason);
    ExitCode::from(code)
}

/// Reasons may hold text that came from another node: no line breaks, no control characters.
fn one_line(reason: impl fmt::Display) -> String {
    style::printable(&reason.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_had_no_time_left_is_out_of_time_too() {
        let error = CallError::Expired { application: "clock".into(), node: "alpha".into() };
        let failure = Failure::call(&error, "no hint");
        assert!(matches!(&failure, Failure::TimedOut(reason) if reason.contains("--timeout")), "{failure:?}");
        let error = CallError::CutOff { application: "clock".into(), node: None };
        assert!(matches!(Failure::call(&error, "no hint"), Failure::TimedOut(_)), "nobody has said no");
    }
}
