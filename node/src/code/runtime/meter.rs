//! How long a guest has computed, by the clock of the thread that it has: the time that others take does not count.

use std::{
    cell::Cell,
    future::poll_fn,
    pin::pin,
    time::{Duration, Instant},
};

use crate::code::rate::Account;

thread_local! {
    static TURN: Cell<Option<Turn>> = const { Cell::new(None) };
}

/// A guest has this thread.
#[derive(Debug, Clone, Copy)]
struct Turn {
    /// What it had computed before.
    before: Duration,
    since: Duration,
}

/// Adds up the turns of one request.
#[derive(Debug, Default)]
struct Meter(Duration);

impl Meter {
    /// Lets a guest have its turn.
    fn turn<T>(&mut self, turn: impl FnOnce() -> T) -> T {
        TURN.set(Some(Turn { before: self.0, since: clock() }));
        let result = turn();
        self.0 = computed();
        TURN.set(None);
        result
    }
}

/// Does the work for one request of a guest, and counts how long it computes: for the request, and for its sender, turn by
/// turn, so that what is dropped in the middle counts, too.
pub(crate) async fn metered<T>(account: &Account, work: impl Future<Output = T>) -> T {
    let (mut work, mut meter) = (pin!(work), Meter::default());
    poll_fn(|context| {
        let before = meter.0;
        let polled = meter.turn(|| work.as_mut().poll(context));
        if account.computing.rate().is_some() {
            account.computing.charge(meter.0.saturating_sub(before), Instant::now());
        }
        polled
    })
    .await
}

/// How long the guest that has this thread has computed for its request, by now.
pub(crate) fn computed() -> Duration {
    TURN.get().map_or(Duration::ZERO, |turn| turn.before + clock().saturating_sub(turn.since))
}

#[cfg(unix)]
fn clock() -> Duration {
    rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime).try_into().unwrap_or_default()
}

#[cfg(not(unix))]
fn clock() -> Duration {
    static BEGUN: std::sync::LazyLock<std::time::Instant> = std::sync::LazyLock::new(std::time::Instant::now);
    BEGUN.elapsed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_add_up_and_what_lies_between_them_does_not_count() {
        let spin = |time: Duration| {
            let end = clock() + time;
            while clock() < end {}
        };
        let mut meter = Meter::default();
        let first = meter.turn(|| {
            spin(Duration::from_millis(5));
            computed()
        });
        assert!(first >= Duration::from_millis(5));
        spin(Duration::from_millis(50));
        let second = meter.turn(computed);
        assert!(second >= first && second < first + Duration::from_millis(40), "{first:?} {second:?}");
        assert_eq!(computed(), Duration::ZERO);
    }
}
