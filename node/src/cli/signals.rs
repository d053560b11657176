//! SIGINT, SIGTERM and SIGHUP: the first asks, the second insists.
//!
//! SIGHUP means that the terminal is gone. Who was started with it ignored (`nohup`) goes on; so does what a service
//! manager runs (`NOTIFY_SOCKET`), where it asks to read the files again: rule files are, on their own, when they change.

use super::failure::Failure;

/// The signals that end a program, from now on received here.
pub(crate) struct Signals {
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    /// `None` where SIGHUP does not end a program.
    #[cfg(unix)]
    hang_up: Option<tokio::signal::unix::Signal>,
}

impl Signals {
    /// Takes the signals over; must be called on the runtime.
    #[cfg(unix)]
    pub(crate) fn take() -> Result<Self, Failure> {
        use tokio::signal::unix::{SignalKind, signal};
        let take = |kind| signal(kind).map_err(|error| Failure::own(format!("cannot receive signals: {error}")));
        // Ignored by who has started us (`nohup`): taking it over would end that.
        let hang_up = if is_hang_up_ignored() { None } else { Some(take(SignalKind::hangup())?) };
        Ok(Self { interrupt: take(SignalKind::interrupt())?, terminate: take(SignalKind::terminate())?, hang_up })
    }

    /// Takes Ctrl-C over.
    #[cfg(not(unix))]
    pub(crate) fn take() -> Result<Self, Failure> {
        Ok(Self {})
    }

    /// Waits for the next signal and gives its number. Cancelling loses none.
    #[cfg(unix)]
    pub(crate) async fn next(&mut self) -> u8 {
        tokio::select! {
            Some(()) = self.interrupt.recv() => 2,
            Some(()) = self.terminate.recv() => 15,
            () = hung_up(&mut self.hang_up) => 1,
            else => std::future::pending().await,
        }
    }

    /// Waits for the next Ctrl-C.
    #[cfg(not(unix))]
    pub(crate) async fn next(&mut self) -> u8 {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
        2
    }
}

/// Waits for a SIGHUP that ends the program. Taken over it ends nothing by itself: under a service manager, that is all.
#[cfg(unix)]
async fn hung_up(signal: &mut Option<tokio::signal::unix::Signal>) {
    if let Some(signal) = signal
        && std::env::var_os("NOTIFY_SOCKET").is_none()
        && signal.recv().await.is_some()
    {
        return;
    }
    std::future::pending().await
}

/// Whether SIGHUP is ignored since before this program began. Only Linux says so without unsafe code.
#[cfg(unix)]
fn is_hang_up_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 != 0)
}
