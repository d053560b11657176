//! The memory that all guests of a node have together: those that run, those that stay, and those that are made ahead.

use std::{
    collections::VecDeque,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use super::{ahead::Ahead, engine::STACK, guest_error::GuestError};

/// What the engine itself needs for each instance, in bytes: its stack, and its own records of it.
const EACH: usize = STACK + 64 * 1024;

/// Where the machine does not say how much memory it has, all guests together have so much.
const UNKNOWN: usize = 2 * 1024 * 1024 * 1024;

/// All of it. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Memory(Arc<Inner>);

struct Inner {
    limit: usize,
    taken: AtomicUsize,
    /// Code with an instance that was made ahead, the oldest first: they go when the memory is wanted.
    spare: Mutex<VecDeque<Weak<Ahead>>>,
}

/// What one instance has of it. Dropped, it is free again.
pub(crate) struct Share {
    memory: Memory,
    bytes: usize,
}

impl Memory {
    pub(crate) fn new(limit: usize) -> Self {
        Self(Arc::new(Inner { limit, taken: AtomicUsize::new(0), spare: Mutex::default() }))
    }

    /// Makes room for an instance that takes so many bytes to begin with. What was made ahead gives way to it.
    pub(crate) fn share(&self, bytes: usize) -> Result<Share, GuestError> {
        let mut share = Share { memory: self.clone(), bytes: 0 };
        let grown = share.grow(bytes.saturating_add(EACH));
        grown.then_some(share).ok_or(GuestError::NodeMemory { limit: self.0.limit, begun: false })
    }

    /// The same for an instance that nobody needs yet: nothing gives way to it.
    pub(crate) fn spare_share(&self, bytes: usize) -> Option<Share> {
        let bytes = bytes.saturating_add(EACH);
        self.take(bytes).then(|| Share { memory: self.clone(), bytes })
    }

    /// An instance was made ahead. The oldest of more than `most` is given up.
    pub(crate) fn keep_ahead(&self, ahead: &Arc<Ahead>, most: usize) {
        let mut spare = self.spare();
        spare.retain(|other| other.upgrade().is_some_and(|other| other.is_ready() && !Arc::ptr_eq(&other, ahead)));
        let oldest = if spare.len() >= most { spare.pop_front() } else { None };
        spare.push_back(Arc::downgrade(ahead));
        drop(spare);
        if let Some(oldest) = oldest.and_then(|oldest| oldest.upgrade()) {
            oldest.give_up();
        }
    }

    fn take(&self, bytes: usize) -> bool {
        let grown = |taken: usize| taken.checked_add(bytes).filter(|taken| *taken <= self.0.limit);
        self.0.taken.fetch_update(Relaxed, Relaxed, grown).is_ok()
    }

    /// Gives up an instance that was made ahead, if there is one.
    fn give_way(&self) -> bool {
        loop {
            let Some(oldest) = self.spare().pop_front() else { return false };
            if oldest.upgrade().is_some_and(|oldest| oldest.give_up()) {
                return true;
            }
        }
    }

    fn spare(&self) -> MutexGuard<'_, VecDeque<Weak<Ahead>>> {
        self.0.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Share {
    /// Takes so many bytes more, if there is room.
    pub(crate) fn grow(&mut self, bytes: usize) -> bool {
        while !self.memory.take(bytes) {
            if !self.memory.give_way() {
                return false;
            }
        }
        self.bytes += bytes;
        true
    }

    pub(crate) fn limit(&self) -> usize {
        self.memory.0.limit
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.memory.0.taken.fetch_sub(self.bytes, Relaxed);
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let taken = self.0.taken.load(Relaxed);
        formatter.debug_struct("Memory").field("limit", &self.0.limit).field("taken", &taken).finish_non_exhaustive()
    }
}

/// What guests may have together unless it is said: half of what the machine has, or of what this process may have of it.
pub(crate) fn usual() -> usize {
    let read = |path: &str| std::fs::read_to_string(path).ok();
    let whole = read("/proc/meminfo").and_then(|text| total(&text));
    // Of a container, or of a service.
    let group = read("/proc/self/cgroup").and_then(|text| group(&text));
    let own = group.and_then(|group| read(&format!("/sys/fs/cgroup{group}/memory.max")));
    let outer = read("/sys/fs/cgroup/memory.max");
    let limits = [own, outer].into_iter().flatten().filter_map(|text| text.trim().parse().ok());
    whole.into_iter().chain(limits).min().map_or(UNKNOWN, |bytes| bytes / 2)
}

fn total(meminfo: &str) -> Option<usize> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<usize>().ok()?.checked_mul(1024)
}

fn group(cgroup: &str) -> Option<String> {
    cgroup.lines().find_map(|line| line.strip_prefix("0::")).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_shares_together_stay_within_the_limit_and_what_is_dropped_is_free_again() {
        let memory = Memory::new(10 * EACH);
        let mut share = memory.share(4 * EACH).unwrap();
        assert!(share.grow(4 * EACH));
        assert!(!share.grow(EACH + 1));
        assert_eq!(memory.share(1).err(), Some(GuestError::NodeMemory { limit: 10 * EACH, begun: false }));
        let other = memory.share(0).unwrap();
        assert!(memory.spare_share(0).is_none() && !share.grow(usize::MAX));
        drop(share);
        assert!(memory.share(8 * EACH).is_ok());
        drop(other);
        assert_eq!(memory.0.taken.load(Relaxed), 0);
    }

    #[test]
    fn the_memory_of_the_machine_is_read() {
        assert_eq!(total("MemFree: 1 kB\nMemTotal:       24000 kB\nx"), Some(24_000 * 1024));
        assert_eq!(total("MemTotal: much"), None);
        assert_eq!(group("1:name=x:/old\n0::/user.slice\n"), Some("/user.slice".to_owned()));
        assert!(usual() > 0);
    }
}
