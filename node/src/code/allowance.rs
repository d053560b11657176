//! What those who share a rule may take together, and what each of them may take by himself.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use libp2p::PeerId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{guest_error::GuestError, limits::Limits, rate::Account};

/// Senders of one rule whose use is known one by one. Those beyond share what one of them may take: nothing that was used is
/// forgotten because somebody comes with many names.
const MAX_SENDERS: usize = 1_024;

/// Limits, and how much of them is taken: one for each rule, shared by all that the rule admits. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Allowance {
    limits: Arc<Limits>,
    instances: Arc<Semaphore>,
    senders: Arc<Mutex<Senders>>,
    sender: Option<PeerId>,
    account: Arc<Account>,
}

impl Allowance {
    /// Nothing of it is taken.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        let instances = Arc::new(Semaphore::new(limits.instances.min(Semaphore::MAX_PERMITS)));
        let account = Arc::new(account(&limits));
        let senders = Arc::new(Mutex::new(Senders { known: HashMap::new(), others: account.clone() }));
        Self { limits: Arc::new(limits), instances, senders, sender: None, account }
    }

    /// The same for one sender: instances are shared, and the [rates](Limits::rate) are his own.
    #[must_use]
    pub fn of(&self, sender: PeerId) -> Self {
        let mut allowance = self.clone();
        if self.limits.rate.is_some() || self.limits.compile.is_some() {
            let mut senders = self.senders.lock().unwrap_or_else(PoisonError::into_inner);
            allowance.account = senders.account(sender, &self.limits, Instant::now());
        }
        allowance.sender = Some(sender);
        allowance
    }

    /// The limits.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    pub(crate) fn shared_limits(&self) -> Arc<Limits> {
        self.limits.clone()
    }

    /// Whose it is.
    pub(crate) fn sender(&self) -> Option<PeerId> {
        self.sender
    }

    pub(crate) fn account(&self) -> Arc<Account> {
        self.account.clone()
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

/// What each sender has used.
#[derive(Debug)]
struct Senders {
    known: HashMap<PeerId, Arc<Account>>,
    /// Of those for whom there is no room.
    others: Arc<Account>,
}

impl Senders {
    fn account(&mut self, sender: PeerId, limits: &Limits, now: Instant) -> Arc<Account> {
        if let Some(account) = self.known.get(&sender) {
            return account.clone();
        }
        if self.known.len() >= MAX_SENDERS {
            // Who is owed nothing and runs nothing is as one who has never come.
            self.known.retain(|_, account| Arc::strong_count(account) > 1 || !account.is_whole(now));
        }
        if self.known.len() >= MAX_SENDERS {
            return self.others.clone();
        }
        self.known.entry(sender).or_insert_with(|| Arc::new(account(limits))).clone()
    }
}

fn account(limits: &Limits) -> Account {
    Account::new(limits.rate, limits.compile)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::code::rate::Rate;

    #[test]
    fn what_senders_have_used_is_not_forgotten_however_many_come() {
        let second = Duration::from_secs(1);
        let limits = Limits { rate: Some(Rate::new(second, 60 * second)), ..Limits::default() };
        let allowance = Allowance::new(limits);
        let first = PeerId::random();
        allowance.of(first).account().computing.charge(10 * second, Instant::now());
        for _ in 0..2 * MAX_SENDERS {
            allowance.of(PeerId::random()).account().computing.charge(2 * second, Instant::now());
        }
        assert!(allowance.of(first).account().computing.is_used_up(Instant::now()));
        assert_eq!(allowance.senders.lock().unwrap().known.len(), MAX_SENDERS);
        // Newcomers share what is left over.
        assert!(allowance.of(PeerId::random()).account().computing.is_used_up(Instant::now()));
        // Room is made of those who have paid back.
        let later = Instant::now() + 3_600 * second;
        let mut senders = allowance.senders.lock().unwrap();
        let account = senders.account(PeerId::random(), allowance.limits(), later);
        assert!(!Arc::ptr_eq(&account, &senders.others) && senders.known.len() == 1);
    }
}
