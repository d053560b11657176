//! Keeps the driver alive: a panic in it, in a dependency or in a connection's task is reported, and the network is
//! built anew with the same identity.

use std::{
    any::Any,
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    time::{Duration, Instant},
};

use futures::FutureExt;
use libp2p::{Swarm, swarm};
use multinodes_behaviour::{Behaviour, BuildError, Config};
use tokio::{sync::mpsc, task::JoinSet};

use super::{Driver, Ended, answering::Answering};
use crate::{
    core::{Command, Core, OpenFailure},
    description::Event,
    links,
    topics::PublishError,
};

/// After the first restart there is a pause, which doubles with each one that follows soon.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// A network that has run for so long is well again.
const WELL: Duration = Duration::from_secs(60);

/// A restart costs every connection and every call in flight. A node that needs more of them in this time is broken, and
/// ends: others then know that it is gone, and whoever supervises the process can see it.
const MAX_RESTARTS: usize = 8;
const RESTARTS_WITHIN: Duration = Duration::from_secs(10 * 60);

/// When the network was started again, as far as it still counts.
#[derive(Debug, Default)]
struct Restarts(VecDeque<Instant>);

impl Restarts {
    /// Whether there may be one more; it counts then.
    fn allow(&mut self, now: Instant) -> bool {
        while self.0.front().is_some_and(|first| now.saturating_duration_since(*first) >= RESTARTS_WITHIN) {
            self.0.pop_front();
        }
        if self.0.len() >= MAX_RESTARTS {
            return false;
        }
        self.0.push_back(now);
        true
    }
}

pub(super) async fn supervise(mut driver: Driver, mut commands: mpsc::Receiver<Command>) {
    // Beside the driver, whose turns have no fixed time; it ends with this.
    let mut beside = JoinSet::new();
    beside.spawn(links::keep(driver.core.links.standstill()));
    let mut pause = Duration::ZERO;
    let mut restarts = Restarts::default();
    loop {
        let begun = Instant::now();
        let reason = match AssertUnwindSafe(driver.run(&mut commands)).catch_unwind().await {
            Ok(Ended::Stopped) => break,
            Ok(Ended::Panicked(reason)) => reason,
            Err(panic) => text(&*panic),
        };
        if !restarts.allow(Instant::now()) {
            tracing::error!(%reason, "the network part fails again and again, and the node ends");
            driver.tell(Event::NetworkFailed { reason });
            break;
        }
        tracing::error!(%reason, "the network part failed and is started again");
        if begun.elapsed() > WELL {
            pause = Duration::ZERO;
        }
        while !restarted(&mut driver, &reason).await {
            pause = next(pause);
            tokio::time::sleep(pause).await;
        }
        tokio::time::sleep(pause).await;
        pause = next(pause);
    }
    commands.close();
    end(driver, commands);
}

fn next(pause: Duration) -> Duration {
    (pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE)
}

async fn restarted(driver: &mut Driver, reason: &str) -> bool {
    match AssertUnwindSafe(driver.restart(reason)).catch_unwind().await {
        Ok(Ok(())) => true,
        Ok(Err(error)) => {
            tracing::error!(%error, "the network part cannot be started again yet");
            false
        }
        Err(panic) => {
            tracing::error!(reason = text(&*panic), "the network part failed while it was started again");
            false
        }
    }
}

fn end(driver: Driver, mut commands: mpsc::Receiver<Command>) {
    let Driver { swarm, stopping, .. } = driver;
    let _ = catch_unwind(AssertUnwindSafe(|| drop(swarm)));
    while let Ok(command) = commands.try_recv() {
        match command {
            Command::OpenLane { respond_to, .. } => {
                let _ = respond_to.send(Err(OpenFailure::Stopping));
            }
            Command::Publish { respond_to, .. } => {
                let _ = respond_to.send(Err(PublishError::Stopped));
            }
            Command::Stop { respond_to } => {
                let _ = respond_to.send(());
            }
            _ => {}
        }
    }
    for respond_to in stopping.into_iter().flatten() {
        let _ = respond_to.send(());
    }
}

/// Builds the swarm with an executor that reports panics: tokio would swallow them, and the connection's peers would
/// wait for ever.
pub(super) fn build(core: &Core) -> Result<(Swarm<Behaviour>, mpsc::Receiver<String>), BuildError> {
    let settings = &core.settings;
    let config = Config {
        swarm: settings.swarm.clone(),
        keypair: core.keypair.clone(),
        passive: settings.passive,
        mdns: settings.mdns,
        kademlia: settings.kademlia,
        high_mark: settings.high_mark,
        refused_subscriptions: core.counters.refused_subscriptions.clone(),
        privacy: settings.privacy.clone(),
        doorkeeper: Some(core.permissions.clone()),
        credential: settings.credential.clone(),
        interfaces: settings.interfaces.clone(),
    };
    let (report, panics) = mpsc::channel(1);
    let panics_of_connections = core.counters.connection_panics.clone();
    let swarm = multinodes_behaviour::build_counting(&config, Reporting { report }, panics_of_connections)?;
    Ok((swarm, panics))
}

struct Reporting {
    report: mpsc::Sender<String>,
}

impl swarm::Executor for Reporting {
    fn exec(&self, future: Pin<Box<dyn Future<Output = ()> + Send>>) {
        let report = self.report.clone();
        tokio::spawn(async move {
            if let Err(panic) = AssertUnwindSafe(future).catch_unwind().await {
                // One report is enough for a restart.
                let _ = report.try_send(format!("a connection's task panicked: {}", text(&*panic)));
            }
        });
    }
}

impl Driver {
    /// Builds the network anew. What is known of the swarm, and who asked for what, is kept.
    pub(super) async fn restart(&mut self, reason: &str) -> Result<(), super::DriverError> {
        let (swarm, panics) = build(&self.core)?;
        let broken = std::mem::replace(&mut self.swarm, swarm);
        let _ = catch_unwind(AssertUnwindSafe(|| drop(broken)));
        self.panics = panics;
        let now = Instant::now();
        for peer_id in std::mem::take(&mut self.peers).into_keys() {
            self.directory.on_disconnected(&peer_id, now);
            self.found.push_back(peer_id);
        }
        self.dials.clear();
        self.redials.clear();
        self.doubts.clear();
        self.lost.clear();
        // Multicast begins anew, too, and names them again. Their next dials were noted among the timers.
        self.prospects.clear();
        self.exchanges.clear();
        self.answering = Answering::default();
        self.timers = super::Timers::default();
        for join in &mut self.joins {
            join.reset();
        }
        self.fail_lanes(&OpenFailure::Unreachable("the network is being restarted".to_owned()));
        self.listening.complete = false;
        self.listen(true).await?;
        self.own.forget();
        self.begin();
        self.timers.after(Duration::ZERO, super::Due::Held);
        self.pump();
        self.tell(Event::NetworkRestarted { reason: reason.to_owned() });
        if self.stopping.is_some() {
            self.say_goodbye();
        }
        Ok(())
    }
}

/// The text of a panic.
fn text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic without a text".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_that_fails_again_and_again_is_not_started_for_ever() {
        let (mut restarts, start) = (Restarts::default(), Instant::now());
        assert!((0..MAX_RESTARTS).all(|_| restarts.allow(start)));
        assert!(!restarts.allow(start + RESTARTS_WITHIN / 2));
        assert!(restarts.allow(start + RESTARTS_WITHIN));
        assert!(restarts.0.len() <= MAX_RESTARTS);
    }
}
