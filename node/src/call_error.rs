//! Why a message was not answered, not accepted, or not queued.

use std::time::Duration;

use libp2p::PeerId;
use multinodes_behaviour::{
    lane::{LaneError, Refusal},
    wire::ErrorCode,
};
use serde::de::DeserializeOwned;

use crate::{attempts::FailedAttempts, length::length, payload::Payload};

/// Why a call has no result, why a tell was not accepted, or why a cast was not queued.
///
/// Two questions decide what to do next: [`may_have_run`](Self::may_have_run) and
/// [`is_retryable`](Self::is_retryable).
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// No other node has been found yet, so nobody knows whether the application is hosted anywhere.
    #[error("no node has been found yet that could host `{application}`: is one running, and can it be reached?")]
    NotReady {
        /// The application.
        application: String,
    },
    /// The directory is in sync, and nobody hosts it; or the node that was named does not.
    #[error("no application `{application}` is hosted{}", on(.node))]
    NoSuchApplication {
        /// The application.
        application: String,
        /// The node that was asked, if one was named.
        node: Option<String>,
    },
    /// No node of that name or peer id is known.
    #[error("no node `{node}` is known")]
    NoSuchNode {
        /// As it was named.
        node: String,
    },
    /// Several nodes claim the name. Address one of them by its peer id.
    #[error("`{name}` is the name of several nodes, use a peer id: {}", list(.peer_ids, *.more))]
    AmbiguousName {
        /// The name.
        name: String,
        /// Who claims it: of many only the first 8.
        peer_ids: Vec<PeerId>,
        /// How many more claim it.
        more: usize,
    },
    /// It is hosted, but the filter takes none of the hosts.
    #[error("none of the {hosts} hosts of `{application}` matches")]
    NoMatch {
        /// The application.
        application: String,
        /// How many hosts there are.
        hosts: usize,
    },
    /// The node could not be reached; nothing was delivered.
    #[error("node `{node}` cannot be reached: {reason}")]
    Unreachable {
        /// The node.
        node: String,
        /// Why not.
        reason: String,
    },
    /// The connection broke after the message was sent: it may or may not have been acted on.
    #[error("the connection to node `{node}` was lost before the answer came")]
    ConnectionLost {
        /// The node.
        node: String,
    },
    /// It takes no more work now; nothing was done.
    #[error("`{application}` on node `{node}` is busy: {reason}")]
    Busy {
        /// The application.
        application: String,
        /// The node.
        node: String,
        /// What is full.
        reason: String,
    },
    /// No answer within the time: it may or may not have run.
    #[error("no answer from `{application}` on node `{node}` within {}", length(*.after))]
    TimedOut {
        /// The application.
        application: String,
        /// The node.
        node: String,
        /// The time that it had.
        after: Duration,
    },
    /// The time was over before it was started: it surely did not run.
    #[error("`{application}` on node `{node}`: the deadline had passed before it was started")]
    Expired {
        /// The application.
        application: String,
        /// The node that did not start it.
        node: String,
    },
    /// The message is over the limit; nothing was sent.
    #[error("the message has {size} bytes, the limit is {limit}")]
    TooLarge {
        /// Its size, in bytes.
        size: usize,
        /// The largest message, in bytes.
        limit: usize,
    },
    /// The action ran, but its result is over the limit.
    #[error("the result of `{application}` is too large: {reason}")]
    ResultTooLarge {
        /// The application.
        application: String,
        /// Size and limit.
        reason: String,
    },
    /// The application has no such action, or takes no tells.
    #[error("`{application}` on node `{node}`: {reason}")]
    NoSuchAction {
        /// The application.
        application: String,
        /// The node.
        node: String,
        /// What it has not.
        reason: String,
    },
    /// The application does not take these arguments.
    #[error("`{application}` on node `{node}`: wrong {}: {reason}", arguments_for(.action))]
    BadArguments {
        /// The application.
        application: String,
        /// The action; empty for a message that was told.
        action: String,
        /// The node.
        node: String,
        /// What is wrong with them.
        reason: String,
    },
    /// The caller is not allowed to.
    #[error("forbidden")]
    Forbidden,
    /// It is sent within a call within a call and so on: most likely these go round in circles. Nothing was sent.
    #[error(
        "the message to `{application}` is sent within more than {} calls within each other",
        crate::route::MAX_DEPTH
    )]
    TooDeep {
        /// The application.
        application: String,
    },
    /// The application ran and says that it failed.
    #[error("`{application}` on node `{node}` failed: {message}")]
    Failed {
        /// The application.
        application: String,
        /// The node.
        node: String,
        /// The application's own code.
        code: String,
        /// What happened, for people.
        message: String,
        /// The application's own data, if it sent any.
        data: Option<Payload>,
    },
    /// The application panicked.
    #[error("`{application}` on node `{node}` {reason}")]
    Panicked {
        /// The application.
        application: String,
        /// The node.
        node: String,
        /// The panic's message.
        reason: String,
    },
    /// The arguments or the message cannot be encoded, or no application, action or node can be called so (see the
    /// [rule for names](multinodes_behaviour::names::check)); nothing was sent.
    #[error("the message cannot be sent: {reason}")]
    Unsendable {
        /// Why not.
        reason: String,
    },
    /// There is a result, but it is not of the type that was asked for.
    #[error("the result of `{application}` is of another type: {reason}")]
    UnexpectedResult {
        /// The application.
        application: String,
        /// How it differs.
        reason: String,
    },
    /// This node may be cut off: nothing is heard any more of those who hosted the application, or of anybody. Nothing was
    /// sent, and nobody knows whether it is hosted now. Waits for the whole time of the message before it is said.
    #[error("this node may be cut off from its swarm: nothing is heard of {}", sought(.application, .node))]
    CutOff {
        /// The application.
        application: String,
        /// The node that was asked, if one was named.
        node: Option<String>,
    },
    /// Several hosts were tried, one after the other or at once, and none has given an answer. Code, and what else is
    /// asked of this error, are those of the [strongest](FailedAttempts::strongest) of their errors; it
    /// [surely did not run](Self::may_have_run) only if that is sure of every attempt.
    #[error("{0}")]
    Several(FailedAttempts),
    /// This node has been stopped.
    #[error("this node has been stopped")]
    Stopped,
}

impl CallError {
    /// The same of what its caller has in mind, where an application that belongs to the nodes stands between.
    #[cfg(feature = "wasm")]
    pub(crate) fn of(self, name: &str) -> Self {
        self.each(|error| error.rename(name))
    }

    #[cfg(feature = "wasm")]
    fn rename(&mut self, name: &str) {
        if let Self::Busy { application, .. }
        | Self::TimedOut { application, .. }
        | Self::Expired { application, .. }
        | Self::ResultTooLarge { application, .. }
        | Self::BadArguments { application, .. }
        | Self::TooDeep { application }
        | Self::Failed { application, .. }
        | Self::Panicked { application, .. } = self
        {
            name.clone_into(application);
        }
    }

    /// The same error, where it says within what time there was no answer, with `given`: for who has been given a time, and has
    /// sent the message with what was left of it.
    #[must_use]
    pub fn within(self, given: Duration) -> Self {
        self.each(|error| {
            if let Self::TimedOut { after, .. } = error {
                *after = given;
            }
        })
    }

    /// Changes it, or each of the attempts that it lists.
    fn each(self, change: impl Fn(&mut Self)) -> Self {
        match self {
            Self::Several(attempts) => Self::Several(attempts.each(change)),
            mut error => {
                change(&mut error);
                error
            }
        }
    }

    /// Whether the message may have been acted on. `false` is a promise.
    #[must_use]
    pub fn may_have_run(&self) -> bool {
        match self {
            Self::ConnectionLost { .. }
            | Self::TimedOut { .. }
            | Self::ResultTooLarge { .. }
            | Self::Failed { .. }
            | Self::Panicked { .. }
            | Self::UnexpectedResult { .. } => true,
            Self::Several(attempts) => attempts.may_have_run(),
            Self::NotReady { .. }
            | Self::NoSuchApplication { .. }
            | Self::NoSuchNode { .. }
            | Self::AmbiguousName { .. }
            | Self::NoMatch { .. }
            | Self::Unreachable { .. }
            | Self::Busy { .. }
            | Self::Expired { .. }
            | Self::TooLarge { .. }
            | Self::NoSuchAction { .. }
            | Self::BadArguments { .. }
            | Self::Forbidden
            | Self::TooDeep { .. }
            | Self::Unsendable { .. }
            | Self::CutOff { .. }
            | Self::Stopped => false,
        }
    }

    /// What of this error decides: of several attempts the [strongest](FailedAttempts::strongest), else the error itself.
    /// To be matched on.
    #[must_use]
    pub fn strongest(&self) -> &Self {
        match self {
            Self::Several(attempts) => attempts.strongest(),
            error => error,
        }
    }

    /// The errors of the attempts at the message, in the order in which they failed: itself alone, if there were not
    /// [several](FailedAttempts::listed).
    #[must_use]
    pub fn attempts(&self) -> &[Self] {
        match self {
            Self::Several(attempts) => attempts.listed(),
            error => std::slice::from_ref(error),
        }
    }

    /// Whether the same message may succeed later. If it [may have run](Self::may_have_run), sending it again is safe
    /// only when running it twice does no harm.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Several(attempts) => attempts.is_retryable(),
            error => matches!(
                error,
                Self::NotReady { .. }
                    | Self::CutOff { .. }
                    | Self::Unreachable { .. }
                    | Self::ConnectionLost { .. }
                    | Self::Busy { .. }
                    | Self::Expired { .. }
                    | Self::TimedOut { .. }
            ),
        }
    }

    /// A short name of the kind of error, for programs and logs.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotReady { .. } => "not_ready",
            Self::NoSuchApplication { .. } => "no_such_application",
            Self::NoSuchNode { .. } => "no_such_node",
            Self::AmbiguousName { .. } => "ambiguous_name",
            Self::NoMatch { .. } => "no_match",
            Self::Unreachable { .. } => "unreachable",
            Self::ConnectionLost { .. } => "connection_lost",
            Self::Busy { .. } => "busy",
            Self::TimedOut { .. } => "timed_out",
            Self::Expired { .. } => "expired",
            Self::TooLarge { .. } => "too_large",
            Self::ResultTooLarge { .. } => "result_too_large",
            Self::NoSuchAction { .. } => "no_such_action",
            Self::BadArguments { .. } => "bad_arguments",
            Self::Forbidden => "forbidden",
            Self::TooDeep { .. } => "too_deep",
            Self::Failed { .. } => "failed",
            Self::Panicked { .. } => "panicked",
            Self::Unsendable { .. } => "unsendable",
            Self::UnexpectedResult { .. } => "unexpected_result",
            Self::CutOff { .. } => "cut_off",
            Self::Several(attempts) => attempts.strongest().code(),
            Self::Stopped => "stopped",
        }
    }

    /// The data that the application sent with its failure, if there is any of this type.
    #[must_use]
    pub fn data<T: DeserializeOwned>(&self) -> Option<T> {
        match self.strongest() {
            Self::Failed { data: Some(data), .. } => data.decode().ok(),
            _ => None,
        }
    }

    /// The same as it travels.
    #[must_use]
    pub fn raw_data(&self) -> Option<&Payload> {
        match self.strongest() {
            Self::Failed { data, .. } => data.as_ref(),
            _ => None,
        }
    }

    /// Whether another host may be tried at once: nothing was delivered or begun, and the reason lies with this host. One
    /// that says that the time is over, when it is not, has stood still for a while.
    pub(crate) fn concerns_host_only(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Busy { .. } | Self::Forbidden | Self::Expired { .. })
            || matches!(self, Self::NoSuchApplication { node: Some(_), .. })
    }

    /// What went wrong on the way.
    pub(crate) fn of_lane(error: LaneError, attempt: &Attempt<'_>) -> Self {
        let (application, node) = (attempt.application.to_owned(), attempt.node.to_owned());
        match error {
            LaneError::TooLarge { size, limit } => Self::TooLarge { size, limit },
            LaneError::TooManyOpen { .. } => Self::Busy { application, node, reason: error.to_string() },
            LaneError::Unsendable(reason) => Self::Unsendable { reason },
            LaneError::Lost => Self::ConnectionLost { node },
            LaneError::TimedOut => Self::TimedOut { application, node, after: attempt.after },
            LaneError::Refused(refusal) => Self::of_refusal(refusal, attempt),
            // NotOpened, Silent, Closing and what may come: nothing was sent.
            error => Self::Unreachable { node, reason: error.to_string() },
        }
    }

    /// What the node that hosts the application says.
    pub(crate) fn of_refusal(refusal: Refusal, attempt: &Attempt<'_>) -> Self {
        let (application, node) = (attempt.application.to_owned(), attempt.node.to_owned());
        let reason = refusal.message;
        match refusal.code {
            ErrorCode::NoSuchApplication => Self::NoSuchApplication { application, node: Some(node) },
            ErrorCode::NoSuchAction => Self::NoSuchAction { application, node, reason },
            ErrorCode::BadArguments => {
                Self::BadArguments { application, action: attempt.action.to_owned(), node, reason }
            }
            ErrorCode::Busy => Self::Busy { application, node, reason },
            ErrorCode::Draining => Self::Unreachable { node, reason },
            ErrorCode::Expired => Self::Expired { application, node },
            ErrorCode::TimedOut => Self::TimedOut { application, node, after: attempt.after },
            ErrorCode::Panicked => Self::Panicked { application, node, reason },
            ErrorCode::TooLarge => Self::ResultTooLarge { application, reason },
            ErrorCode::Forbidden => Self::Forbidden,
            // Failed, and codes of later versions.
            _ => {
                let data = Some(refusal.data).filter(|data| !data.is_empty()).map(Payload::from_bytes);
                Self::Failed { application, node, code: refusal.name, message: reason, data }
            }
        }
    }
}

/// What was sent to whom, for the errors of it.
pub(crate) struct Attempt<'a> {
    pub(crate) application: &'a str,
    /// Empty for what was told.
    pub(crate) action: &'a str,
    pub(crate) node: &'a str,
    /// The time that it had.
    pub(crate) after: Duration,
}

fn on(node: &Option<String>) -> String {
    node.as_ref().map(|node| format!(" on node `{node}`")).unwrap_or_default()
}

fn sought(application: &str, node: &Option<String>) -> String {
    match node {
        Some(node) => format!("node `{node}`"),
        None => format!("anybody who hosts `{application}`"),
    }
}

fn arguments_for(action: &str) -> String {
    if action.is_empty() { "message".to_owned() } else { format!("arguments for `{action}`") }
}

fn list(peer_ids: &[PeerId], more: usize) -> String {
    let named = peer_ids.iter().map(|peer_id| peer_id.to_base58()).collect::<Vec<_>>().join(", ");
    if more > 0 { format!("{named} and {more} more") } else { named }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: ErrorCode) -> CallError {
        let after = Duration::from_secs(1);
        let attempt = Attempt { application: "strange", action: "add", node: "alpha", after };
        CallError::of_refusal(Refusal::new(code, "some reason"), &attempt)
    }

    #[test]
    fn what_had_expired_before_it_was_started_did_not_run() {
        let error = refused(ErrorCode::Expired);
        assert!(!error.may_have_run() && error.is_retryable(), "{error:?}");
        assert_eq!(error.code(), "expired");
        assert_eq!(error.to_string(), "`strange` on node `alpha`: the deadline had passed before it was started");
        assert!(refused(ErrorCode::TimedOut).may_have_run());
    }

    #[test]
    fn wrong_arguments_name_their_action() {
        let error = refused(ErrorCode::BadArguments);
        assert_eq!(error.to_string(), "`strange` on node `alpha`: wrong arguments for `add`: some reason");
    }
}
