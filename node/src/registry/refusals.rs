//! Why a request to what is hosted here is refused, as the other side is told.

use std::any::Any;

use multinodes_behaviour::{lane::Refusal, wire::ErrorCode};

use crate::{
    application::{AppError, AppErrorKind},
    payload::Payload,
};

/// The node takes nothing new.
pub(crate) fn draining() -> Refusal {
    Refusal::new(ErrorCode::Draining, "the node is stopping")
}

/// Nobody waits for it any more, so it is not begun.
pub(crate) fn expired() -> Refusal {
    Refusal::new(ErrorCode::Expired, "the deadline had passed before it was started")
}

/// The caller may not do that, and is told nothing more.
pub(crate) fn forbidden() -> Refusal {
    Refusal::new(ErrorCode::Forbidden, "")
}

/// Nothing of that name is hosted here.
pub(crate) fn unknown(name: &str) -> Refusal {
    Refusal::new(ErrorCode::NoSuchApplication, format!("no application `{name}` is hosted here"))
}

/// What an application says of its failure.
pub(super) fn refusal(error: AppError) -> Refusal {
    Refusal {
        code: match error.kind {
            AppErrorKind::Failed => ErrorCode::Failed,
            AppErrorKind::NoSuchAction => ErrorCode::NoSuchAction,
            AppErrorKind::BadArguments => ErrorCode::BadArguments,
            AppErrorKind::Forbidden => ErrorCode::Forbidden,
            AppErrorKind::Crashed => ErrorCode::Panicked,
            AppErrorKind::Busy => ErrorCode::Busy,
        },
        name: error.code,
        message: error.message,
        data: error.data.map(Payload::into_bytes).unwrap_or_default(),
    }
}

pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("without a message")
}
