//! What was asked for.

#[cfg(feature = "journal")]
use std::path::PathBuf;
use std::time::Duration;

use futures::stream::BoxStream;

use super::outcome::MapError;
use crate::{
    app_ref::AppRef,
    payload::{EncodeError, Payload},
    route::Kind,
};

/// How long an item may be without any sign of life unless it is said otherwise.
pub const DEFAULT_LEASE: Duration = Duration::from_secs(60);

/// How often an item is tried again after its worker was lost, unless it is said otherwise.
pub const DEFAULT_RETRIES: u32 = 5;

/// After so many workers that broke under an item it is set aside, unless it is said otherwise.
pub const DEFAULT_POISON_AFTER: u32 = 3;

/// How long to wait while nobody takes anything, unless it is said otherwise.
pub const DEFAULT_PATIENCE: Duration = Duration::from_secs(60);

/// What was asked for, complete.
pub(super) struct Plan {
    pub(super) target: AppRef,
    pub(super) action: String,
    pub(super) input: BoxStream<'static, Result<Payload, EncodeError>>,
    pub(super) ordered: bool,
    pub(super) retries: u32,
    pub(super) retry_errors: u32,
    pub(super) poison_after: u32,
    pub(super) lease: Duration,
    pub(super) item_timeout: Option<Duration>,
    pub(super) prefetch: Option<usize>,
    pub(super) patience: Duration,
    pub(super) at_most_once: bool,
    #[cfg(feature = "journal")]
    pub(super) journal: Option<PathBuf>,
    #[cfg(feature = "journal")]
    pub(super) retry_failed: bool,
    #[cfg(feature = "journal")]
    pub(super) retry_unknown: bool,
}

impl Plan {
    pub(super) fn new(target: AppRef, action: String, input: BoxStream<'static, Result<Payload, EncodeError>>) -> Self {
        Self {
            target,
            action,
            input,
            ordered: false,
            retries: DEFAULT_RETRIES,
            retry_errors: 0,
            poison_after: DEFAULT_POISON_AFTER,
            lease: DEFAULT_LEASE,
            item_timeout: None,
            prefetch: None,
            patience: DEFAULT_PATIENCE,
            at_most_once: false,
            #[cfg(feature = "journal")]
            journal: None,
            #[cfg(feature = "journal")]
            retry_failed: false,
            #[cfg(feature = "journal")]
            retry_unknown: false,
        }
    }

    /// Looks whether one wish contradicts another.
    pub(super) fn check(&self) -> Result<(), MapError> {
        if self.at_most_once && self.retry_errors > 0 {
            return Err(MapError::Contradiction { one: "at_most_once", other: "retry_errors" });
        }
        self.target.route().check(Kind::Call(&self.action)).map_err(MapError::NoWorker)
    }
}
