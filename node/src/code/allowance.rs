//! What those who share a rule may take together.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{guest_error::GuestError, limits::Limits};

/// Limits, and how much of them is taken: one for each rule, shared by all that the rule admits. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Allowance {
    limits: Arc<Limits>,
    instances: Arc<Semaphore>,
}

impl Allowance {
    /// Nothing of it is taken.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        let instances = Arc::new(Semaphore::new(limits.instances.min(Semaphore::MAX_PERMITS)));
        Self { limits: Arc::new(limits), instances }
    }

    /// The limits.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    pub(crate) fn shared_limits(&self) -> Arc<Limits> {
        self.limits.clone()
    }

    /// Whether it is the same one.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.instances, &other.instances)
    }

    /// A place for one instance, if there is one.
    pub(crate) fn instance(&self) -> Result<OwnedSemaphorePermit, GuestError> {
        let place = self.instances.clone().try_acquire_owned();
        place.map_err(|_| GuestError::InstanceLimit { limit: self.limits.instances })
    }
}

impl Default for Allowance {
    fn default() -> Self {
        Self::new(Limits::default())
    }
}
