//! One message to all hosts of an application: everybody's answer, or the first few.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{self, Poll},
    time::{Duration, Instant},
};

use futures::{Stream, StreamExt, stream, stream::BoxStream};
use libp2p::PeerId;
use multinodes_behaviour::names;
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    app_ref::AppRef,
    call_error::CallError,
    description::Host,
    payload::Payload,
    route::{Kind, unsendable},
};

/// How many hosts are asked at once: each may need a connection of its own, and its answer may be of megabytes.
pub const HOSTS_AT_ONCE: usize = 64;

/// What has come of a message to one host.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct HostOutcome<R> {
    /// The host's name.
    pub node: String,
    /// The host's peer id.
    pub peer_id: PeerId,
    /// Its answer, or why there is none.
    pub result: Result<R, CallError>,
    /// How long it took, from when this host was asked.
    pub duration: Duration,
}

/// The answer of one host.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct HostAnswer<R> {
    /// The host's name.
    pub node: String,
    /// The host's peer id.
    pub peer_id: PeerId,
    /// What it has answered.
    pub answer: R,
    /// How long it took, from when this host was asked.
    pub duration: Duration,
}

/// All hosts of an application, see [`AppRef::all`].
#[derive(Debug, Clone)]
#[must_use = "nothing is sent until it is called or told"]
pub struct All(AppRef);

/// The first hosts of an application that succeed, see [`AppRef::quorum`].
#[derive(Debug, Clone)]
#[must_use = "nothing is sent until it is called"]
pub struct Quorum {
    app: AppRef,
    wanted: usize,
}

impl AppRef {
    /// All hosts that would be taken, instead of one of them.
    ///
    /// ```no_run
    /// use futures::StreamExt;
    /// # async fn versions(node: multinodes::Node) -> Result<(), multinodes::CallError> {
    /// let mut answers = node.app("render").all().call::<String>("version", ()).await?;
    /// while let Some(outcome) = answers.next().await {
    ///     println!("{}: {:?} after {:?}", outcome.node, outcome.result, outcome.duration);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn all(&self) -> All {
        All(self.clone())
    }

    /// The first `wanted` hosts that succeed: all are asked, [`HOSTS_AT_ONCE`] at a time, and who has not answered by then is
    /// cancelled. With 0 nobody is asked.
    pub fn quorum(&self, wanted: usize) -> Quorum {
        Quorum { app: self.clone(), wanted }
    }

    /// Hands a message to every host, and says of each whether it was accepted into the application's queue there.
    ///
    /// # Errors
    ///
    /// As [`All::call`].
    pub async fn tell_all(&self, message: impl Serialize + Send) -> Result<Vec<HostOutcome<()>>, CallError> {
        Ok(self.all().tell(message).await?.collect().await)
    }
}

impl All {
    /// Calls every host that is known when this returns, [`HOSTS_AT_ONCE`] at a time, and gives each one's outcome as it
    /// comes. Who joins later is not asked. The target's [`timeout`](AppRef::timeout) is for all of it together; no call
    /// is repeated on another host. Dropping the stream cancels what has not answered.
    ///
    /// # Errors
    ///
    /// Nobody hosts the application, none of the hosts matches, or the arguments cannot be encoded. What goes wrong with
    /// a single host is its outcome.
    pub async fn call<R: DeserializeOwned + Send + 'static>(
        &self,
        action: &str,
        arguments: impl Serialize + Send,
    ) -> Result<Outcomes<R>, CallError> {
        let arguments = Payload::arguments(&arguments).map_err(unsendable)?;
        self.call_payload(action, arguments, |app, result| {
            result.decode().map_err(|error| CallError::UnexpectedResult {
                application: app.application().to_owned(),
                reason: error.to_string(),
            })
        })
        .await
    }

    /// Like [`call`](Self::call), with arguments and results as they travel.
    ///
    /// # Errors
    ///
    /// As [`call`](Self::call).
    pub async fn call_raw(&self, action: &str, arguments: Payload) -> Result<Outcomes<Payload>, CallError> {
        self.call_payload(action, arguments, |_, result| Ok(result)).await
    }

    /// Hands a message to every host: `Ok` of one says that it has accepted it into the application's queue.
    ///
    /// # Errors
    ///
    /// As [`call`](Self::call).
    pub async fn tell(&self, message: impl Serialize + Send) -> Result<Outcomes<()>, CallError> {
        self.tell_raw(Payload::encode(&message).map_err(unsendable)?).await
    }

    /// Like [`tell`](Self::tell), with the message as it travels.
    ///
    /// # Errors
    ///
    /// As [`call`](Self::call).
    pub async fn tell_raw(&self, message: Payload) -> Result<Outcomes<()>, CallError> {
        self.outcomes(None, message, |_, _| Ok(())).await
    }

    async fn call_payload<R: Send + 'static>(
        &self,
        action: &str,
        arguments: Payload,
        read: fn(&AppRef, Payload) -> Result<R, CallError>,
    ) -> Result<Outcomes<R>, CallError> {
        self.outcomes(Some((&*names::normal(action)).into()), arguments, read).await
    }

    async fn outcomes<R: Send + 'static>(
        &self,
        action: Option<Arc<str>>,
        payload: Payload,
        read: fn(&AppRef, Payload) -> Result<R, CallError>,
    ) -> Result<Outcomes<R>, CallError> {
        let deadline = Instant::now().checked_add(self.0.time_limit());
        self.0.route().check(action.as_deref().map_or(Kind::Tell, Kind::Call))?;
        self.0.route().every_host().await?;
        let hosts = self.0.hosts();
        if hosts.is_empty() {
            return Err(self.0.nobody());
        }
        let count = hosts.len();
        let app = self.0.clone();
        let outcomes = stream::iter(hosts)
            .map(move |host| one(within(&app, deadline), host, action.clone(), payload.clone(), read))
            .buffer_unordered(HOSTS_AT_ONCE);
        Ok(Outcomes { outcomes: outcomes.boxed(), left: count })
    }
}

/// The same target with what is left of the time.
fn within(app: &AppRef, deadline: Option<Instant>) -> AppRef {
    let left = deadline.map_or(app.time_limit(), |deadline| deadline.saturating_duration_since(Instant::now()));
    app.clone().timeout(left)
}

async fn one<R>(
    app: AppRef,
    host: Arc<Host>,
    action: Option<Arc<str>>,
    payload: Payload,
    read: fn(&AppRef, Payload) -> Result<R, CallError>,
) -> HostOutcome<R> {
    let begun = Instant::now();
    let kind = action.as_deref().map_or(Kind::Tell, Kind::Call);
    let result = app.route().deliver_to(host.peer_id, kind, &payload).await;
    let result = result.and_then(|payload| read(&app, payload));
    HostOutcome { node: host.node.clone(), peer_id: host.peer_id, result, duration: begun.elapsed() }
}

/// Each host's outcome, as it comes: a stream. Dropping it cancels what has not answered.
#[must_use = "nothing is sent until it is polled"]
pub struct Outcomes<R> {
    outcomes: BoxStream<'static, HostOutcome<R>>,
    left: usize,
}

impl<R> Outcomes<R> {
    /// How many outcomes are still to come.
    #[must_use]
    pub fn left(&self) -> usize {
        self.left
    }
}

impl<R> Stream for Outcomes<R> {
    type Item = HostOutcome<R>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Option<Self::Item>> {
        let polled = self.outcomes.poll_next_unpin(cx);
        if let Poll::Ready(Some(_)) = polled {
            self.left -= 1;
        }
        polled
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl<R> fmt::Debug for Outcomes<R> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Outcomes").field("left", &self.left).finish_non_exhaustive()
    }
}

impl Quorum {
    /// Calls every host, and gives the first answers, as many as are wanted, with whose they are, in the order in which
    /// they came. The calls of the others are cancelled then; their actions may have run.
    ///
    /// # Errors
    ///
    /// There are fewer hosts than are wanted, and nobody was called; or so many have failed that the rest cannot be
    /// enough: it is said at once. See [`QuorumError`].
    pub async fn call<R: DeserializeOwned + Send + 'static>(
        &self,
        action: &str,
        arguments: impl Serialize + Send,
    ) -> Result<Vec<HostAnswer<R>>, QuorumError> {
        let mut outcomes = self.app.all().call(action, arguments).await?;
        let (wanted, hosts) = (self.wanted, outcomes.left());
        let mut answers = Vec::with_capacity(wanted.min(hosts));
        let mut failures = Vec::new();
        while answers.len() < wanted {
            let outcome = if answers.len() + outcomes.left() < wanted { None } else { outcomes.next().await };
            let Some(HostOutcome { node, peer_id, result, duration }) = outcome else {
                return Err(QuorumError::Missed { wanted, hosts, succeeded: answers.len(), failures });
            };
            match result {
                Ok(answer) => answers.push(HostAnswer { node, peer_id, answer, duration }),
                Err(error) => failures.push(HostOutcome { node, peer_id, result: Err(error), duration }),
            }
        }
        Ok(answers)
    }
}

/// Why fewer hosts than wanted have answered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QuorumError {
    /// Too few hosts, or too many of them have failed.
    #[error("{succeeded} of {hosts} hosts have answered, {wanted} were wanted{}", listed(.failures))]
    Missed {
        /// How many were to succeed.
        wanted: usize,
        /// How many there are.
        hosts: usize,
        /// How many had succeeded when it was sure that they would not be enough.
        succeeded: usize,
        /// Those that have failed. Empty if there are fewer hosts than are wanted: then nobody was called.
        failures: Vec<HostOutcome<()>>,
    },
    /// Nobody could be called.
    #[error(transparent)]
    Call(#[from] CallError),
}

impl QuorumError {
    /// Whether the action may have run on any host: on one that has answered, on one that was cancelled when it was sure that
    /// the answers would not be enough, or on one whose failure does not say that it surely did not. `false` is a promise.
    #[must_use]
    pub fn may_have_run(&self) -> bool {
        match self {
            Self::Missed { hosts, succeeded, failures, .. } => {
                let ended = succeeded + failures.len();
                let any_cancelled = ended > 0 && ended < *hosts;
                let may_have_run =
                    |failure: &HostOutcome<()>| failure.result.as_ref().is_err_and(CallError::may_have_run);
                *succeeded > 0 || any_cancelled || failures.iter().any(may_have_run)
            }
            Self::Call(error) => error.may_have_run(),
        }
    }
}

fn listed(failures: &[HostOutcome<()>]) -> String {
    let failed = failures.iter().filter_map(|failure| failure.result.as_ref().err());
    failed.map(|error| format!("; {error}")).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use serde_json::Value;
    use tokio::sync::mpsc;

    use super::*;
    use crate::{
        builder::Builder,
        core::{Command, Core, OpenFailure},
        description::{Snapshot, tests::node},
        node::Node,
    };

    /// A node that knows so many hosts of `test`, and what it would have its driver do.
    fn knows(hosts: usize) -> (Node, mpsc::Receiver<Command>) {
        let (settings, identity, _) = Builder::default().name("caller").listen("/memory/1").resolve().unwrap();
        let (core, commands) = Core::new(settings, identity.keypair.clone(), crate::permissions::Wishes::default());
        let nodes = (0..hosts).map(|number| node(&format!("n{number}"), Value::Null)).collect();
        core.snapshot.store(Arc::new(Snapshot::new(nodes)));
        core.status.send_modify(|status| (status.settled, status.synced) = (true, true));
        (Node::inner(core), commands)
    }

    #[tokio::test]
    async fn only_so_many_hosts_are_asked_at_once_and_all_of_them_in_the_end() {
        const HOSTS: usize = HOSTS_AT_ONCE + 20;
        let (node, mut commands) = knows(HOSTS);
        let outcomes = node.app("test").all().call::<()>("run", ()).await.unwrap();
        let outcomes = tokio::spawn(outcomes.collect::<Vec<_>>());
        let mut open = Vec::new();
        let mut next = async || match tokio::time::timeout(Duration::from_secs(10), commands.recv()).await {
            Ok(Some(Command::OpenLane { peer_id, respond_to })) => (peer_id, respond_to),
            _ => panic!("no lane is opened"),
        };
        for _ in 0..HOSTS_AT_ONCE {
            open.push(next().await);
        }
        let mut asked: HashSet<PeerId> = open.iter().map(|(peer_id, _)| *peer_id).collect();
        // Whatever could go on has done so when this task has had so many turns.
        for _ in 0..1000 {
            tokio::task::yield_now().await;
        }
        let early = futures::FutureExt::now_or_never(next());
        assert!(early.is_none(), "one more was asked");
        while asked.len() < HOSTS {
            let (_, respond_to) = open.remove(0);
            assert!(respond_to.send(Err(OpenFailure::Unknown)).is_ok());
            let (peer_id, respond_to) = next().await;
            asked.insert(peer_id);
            open.push((peer_id, respond_to));
        }
        drop(open);
        let outcomes = outcomes.await.unwrap();
        assert_eq!(outcomes.len(), HOSTS);
        assert!(outcomes.iter().all(|outcome| matches!(outcome.result, Err(CallError::Unreachable { .. }))));
    }
}
