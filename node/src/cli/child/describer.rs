//! Tells the swarm what served processes say of themselves, and when they are in trouble: not more often than others
//! want to hear it.

use std::{sync::Arc, time::Duration};

use multinodes::{Announcement, Node, RegisterError};
use tokio::{
    sync::Mutex,
    time::{Instant, sleep_until, timeout},
};

use super::{pool::Health, slot::Served};

/// Changes of one application are told at this distance at the least: each of them goes to every node.
const SPACING: Duration = Duration::from_millis(250);

/// Trouble that is over so soon is not told.
const LASTING: Duration = Duration::from_secs(1);

/// The longest text of a trouble, in bytes.
const MAX_TROUBLE: usize = 256;

/// Spaces the changes of one application.
#[derive(Default)]
pub(super) struct Describer(Mutex<Option<Last>>);

struct Last {
    when: Instant,
    what: Announcement,
}

impl Describer {
    /// Tells others, unless it says what was just said: several processes of one application say the same.
    pub(super) async fn describe(
        &self,
        node: &Node,
        application: &str,
        announcement: Announcement,
    ) -> Result<(), RegisterError> {
        let mut last = self.0.lock().await;
        if let Some(last) = &*last {
            if last.what == announcement {
                return Ok(());
            }
            sleep_until(last.when + SPACING).await;
        }
        node.announce(application, announcement.clone())?;
        *last = Some(Last { when: Instant::now(), what: announcement });
        Ok(())
    }
}

/// Watches over the processes of an application: trouble that lasts shows where the application is listed.
pub(super) async fn watch(served: Arc<Served>) {
    let mut health = served.pool.health.subscribe();
    let is_well = |health: &Health| health.ready == health.processes;
    loop {
        // The pool itself holds the sender: no wait ends without a reason.
        let _ = health.wait_for(|health| !is_well(health)).await;
        if timeout(LASTING, health.wait_for(is_well)).await.is_ok() {
            continue;
        }
        loop {
            let trouble = trouble(&health.borrow_and_update());
            let announcement = Announcement::new().trouble(trouble.clone());
            if let Err(error) = served.describer.describe(&served.node, &served.name, announcement).await {
                tracing::debug!(%error, application = %served.name, "trouble cannot be told");
            }
            if trouble.is_none() {
                break;
            }
            let _ = health.changed().await;
        }
    }
}

/// What is wrong, in one line.
fn trouble(Health { ready, processes, reason, .. }: &Health) -> Option<String> {
    if ready == processes {
        return None;
    }
    let down = processes - ready;
    let mut text = format!("{down} of {processes} processes down: {}", reason.replace('\n', " | "));
    if text.len() > MAX_TROUBLE {
        let end = (0..=MAX_TROUBLE - '…'.len_utf8()).rev().find(|end| text.is_char_boundary(*end));
        text.truncate(end.unwrap_or_default());
        text.push('…');
    }
    Some(text)
}
