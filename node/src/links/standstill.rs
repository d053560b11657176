//! What notices that this process, or its machine, stood still.

use std::{sync::Arc, time::Duration};

use multinodes_behaviour::lane::{Standstill, TURN};
use tokio::time::MissedTickBehavior;

/// By a clock that goes on while the machine sleeps, where the system has one.
pub(super) fn by_system_clock() -> Standstill {
    #[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
    {
        Standstill::new(since_boot, computed)
    }
    #[cfg(not(any(target_os = "linux", target_os = "android", target_vendor = "apple")))]
    {
        Standstill::default()
    }
}

#[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
fn since_boot() -> Duration {
    use rustix::time::ClockId;
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let clock = ClockId::Boottime;
    // It goes on in sleep there; the one that does not has another name.
    #[cfg(target_vendor = "apple")]
    let clock = ClockId::Monotonic;
    shown(clock)
}

/// The time that this process has had of all cores.
#[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
fn computed() -> Duration {
    shown(rustix::time::ClockId::ProcessCPUTime)
}

#[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
fn shown(clock: rustix::time::ClockId) -> Duration {
    let time = rustix::time::clock_gettime(clock);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or_default(), u32::try_from(time.tv_nsec).unwrap_or_default())
}

/// Turns as long as it is driven.
pub(crate) async fn keep(standstill: Arc<Standstill>) {
    let mut turns = tokio::time::interval(TURN);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        turns.tick().await;
        standstill.turn();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn the_clocks_go_on() {
        let before = since_boot();
        assert!(before > Duration::ZERO && (1..1_000_000).any(|_| since_boot() > before));
        let before = computed();
        assert!(before > Duration::ZERO && (1..1_000_000).any(|_| computed() > before));
    }
}
