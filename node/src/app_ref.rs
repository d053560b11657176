//! A target: which application, on which node, for how long.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{Stream, StreamExt, stream};
use multinodes_behaviour::{lane::Pulse, names, wire::Options};
use serde::{Serialize, de::DeserializeOwned};

#[cfg(feature = "cel")]
use crate::predicate::{Predicate, PredicateError};
use crate::{
    call_error::CallError,
    description::Host,
    map::{Map, Outcome},
    node::Node,
    payload::Payload,
    predicate::matching::Matching,
    route::{Kind, Route},
    selection::{self, Filter, Wanted},
    strategy::Choosing,
};

/// How long a message may take unless it is said otherwise.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// An application somewhere in the swarm: here if it is hosted here, else on a remote node.
///
/// Cheap to make and to clone. Says nothing about whether the application exists: that shows when it is used.
#[derive(Clone)]
#[must_use = "a target does nothing until it is called or told"]
pub struct AppRef {
    node: Node,
    application: String,
    on: Option<String>,
    filter: Option<Filter>,
    matching: Option<Arc<Matching>>,
    pub(crate) choosing: Choosing,
    timeout: Duration,
    options: Options,
}

impl AppRef {
    pub(crate) fn new(node: Node, application: String) -> Self {
        Self {
            node,
            application: names::into_normal(application),
            on: None,
            filter: None,
            matching: None,
            choosing: Choosing::default(),
            timeout: DEFAULT_TIMEOUT,
            options: Options::default(),
        }
    }

    /// Takes the application on this node, given by its name or its peer id.
    pub fn on(mut self, node: impl Into<String>) -> Self {
        self.on = Some(names::into_normal(node.into()));
        self
    }

    /// Takes only hosts for which `filter` is true, for example by their description. Several filters must all be true.
    pub fn filter(mut self, filter: impl Fn(&Host) -> bool + Send + Sync + 'static) -> Self {
        self.filter = Some(match self.filter.take() {
            Some(first) => Arc::new(move |host: &Host| first(host) && filter(host)),
            None => Arc::new(filter),
        });
        self
    }

    /// Takes only hosts for which a predicate is true, see [`Predicate`] for its language. It is compiled once, and what
    /// it gives is kept for each host until the host's record changes. With several, and with
    /// [`filter`](Self::filter), all must be true.
    ///
    /// ```no_run
    /// # async fn render(node: multinodes::Node) -> Result<(), Box<dyn std::error::Error>> {
    /// let gpu = node.app("render").matching("description.gpu >= 1 && node.labels.region == 'eu'")?;
    /// let picture: Vec<u8> = gpu.call("render", "a scene").await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The text is no predicate.
    #[cfg(feature = "cel")]
    pub fn matching(self, predicate: &str) -> Result<Self, PredicateError> {
        Ok(self.satisfying(&Predicate::new(predicate)?))
    }

    /// Like [`matching`](Self::matching), with a predicate that is compiled already.
    #[cfg(feature = "cel")]
    pub fn satisfying(mut self, predicate: &Predicate) -> Self {
        self.matching = Some(match &self.matching {
            Some(matching) => matching.and(predicate.clone()),
            None => Matching::new(&self.application, vec![predicate.clone()]),
        });
        self
    }

    /// How long each message may take in all: finding a host, sending, and the answer. 10 s by default. Inside a call
    /// it never takes longer than what is left of the caller's time, see [`Context::node`](crate::Context::node).
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Declares that running an action twice does no harm: then a call that was lost with its connection is repeated
    /// on another host, within its time, and one under which the application broke
    /// ([`Panicked`](CallError::Panicked)) on one other host, so that a message that breaks every host does not get to all
    /// of them. A call that [timed out](CallError::TimedOut) has used up its time and is not repeated. Not needed for
    /// actions of which their application says so, see [`Actions::idempotent`](crate::Actions::idempotent).
    pub fn idempotent(mut self) -> Self {
        self.options = self.options | Options::IDEMPOTENT;
        self
    }

    /// Runs an action and gives its result. `arguments` is a tuple, or a single value for a single argument.
    ///
    /// `Ok` means that the application ran the action and this is its answer. Dropping the future cancels the action.
    ///
    /// # Errors
    ///
    /// See [`CallError`].
    pub async fn call<R: DeserializeOwned>(
        &self,
        action: &str,
        arguments: impl Serialize + Send,
    ) -> Result<R, CallError> {
        self.route().call(action, arguments).await
    }

    /// Like [`call`](Self::call), with arguments and result as they travel.
    ///
    /// # Errors
    ///
    /// See [`CallError`].
    pub async fn call_raw(&self, action: &str, arguments: Payload) -> Result<Payload, CallError> {
        self.route().deliver(Kind::Call(&names::normal(action)), arguments).await
    }

    /// Like [`call`](Self::call), and hears how far it is: `on_progress` gets what the application says by
    /// [`Context::progress`](crate::Context::progress), the newest only if there are several at once, and an empty
    /// payload for a mere sign of life. It runs within this future.
    ///
    /// # Errors
    ///
    /// See [`CallError`].
    pub async fn call_with_progress<R: DeserializeOwned>(
        &self,
        action: &str,
        arguments: impl Serialize + Send,
        mut on_progress: impl FnMut(Payload) + Send,
    ) -> Result<R, CallError> {
        let pulse = Arc::new(Pulse::new(Instant::now()));
        let route = Route { pulse: Some(&pulse), ..self.route() };
        let mut call = std::pin::pin!(route.call(action, arguments));
        let mut heard = 0;
        loop {
            tokio::select! {
                biased;
                news = pulse.next(heard) => {
                    heard = news.count;
                    if !news.waiting {
                        on_progress(Payload::from_bytes(news.payload));
                    }
                }
                outcome = &mut call => return outcome,
            }
        }
    }

    /// Hands a message over.
    ///
    /// `Ok` means that the node has accepted it into the application's queue, not that it was processed. It is begun in its
    /// turn unless that node is killed, or stopped with too little time: then it is
    /// [counted](crate::Counters::lost_tells) here.
    ///
    /// # Errors
    ///
    /// See [`CallError`].
    pub async fn tell(&self, message: impl Serialize + Send) -> Result<(), CallError> {
        self.route().tell(message).await
    }

    /// Like [`tell`](Self::tell), with the message as it travels.
    ///
    /// # Errors
    ///
    /// See [`CallError`].
    pub async fn tell_raw(&self, message: Payload) -> Result<(), CallError> {
        self.route().deliver(Kind::Tell, message).await.map(drop)
    }

    /// Hands a message over without waiting for a confirmation: the fastest way.
    ///
    /// `Ok` means that it is in the write queue of a connection. Whether it arrives is not known; what is dropped on
    /// the other side is counted there.
    ///
    /// # Errors
    ///
    /// See [`CallError`].
    pub async fn cast(&self, message: impl Serialize + Send) -> Result<(), CallError> {
        self.route().cast(message).await
    }

    /// Like [`cast`](Self::cast), with the message as it travels.
    ///
    /// # Errors
    ///
    /// See [`CallError`].
    pub async fn cast_raw(&self, message: Payload) -> Result<(), CallError> {
        self.route().deliver_cast(message).await
    }

    /// The hosts that would be taken, in order of their names.
    #[must_use]
    pub fn hosts(&self) -> Vec<Arc<Host>> {
        let mut hosts = self.node.hosts(&self.application);
        if let Some(on) = &self.on {
            hosts.retain(|host| host.node == *on || host.peer_id.to_base58() == *on);
        }
        if let Some(filter) = &self.filter {
            hosts.retain(|host| filter(host));
        }
        if let Some(matching) = &self.matching {
            let known = self.node.core().snapshot.load().by_application.get(&self.application).cloned();
            matching.retain(&mut hosts, known.as_ref());
        }
        self.choosing.retain(&mut hosts);
        hosts
    }

    /// Runs an action on each item of a stream, spread over all hosts of the application: gives a stream of outcomes as
    /// they are ready. An item is the arguments of the action: a tuple for several, a single value for one.
    ///
    /// Nothing begins before the stream is polled; its methods say more about how it is done. The target's own
    /// [`timeout`](Self::timeout) does not count: an item may take as long as it shows signs of life, see
    /// [`Map::lease`]. [`idempotent`](Self::idempotent) allows that what takes long near the end is begun a second time.
    ///
    /// ```no_run
    /// use futures::{StreamExt, TryStreamExt, stream};
    /// # async fn resize(node: multinodes::Node, pictures: Vec<String>) -> Result<(), multinodes::MapError> {
    /// let mut outcomes = node.app("resize").map::<u64>("run", stream::iter(pictures)).retries(3);
    /// while let Some(outcome) = outcomes.try_next().await? {
    ///     match outcome.result {
    ///         Ok(bytes) => println!("{}: {bytes} bytes from {:?}", outcome.index, outcome.node),
    ///         Err(error) => eprintln!("{}: {error} after {} attempts", outcome.index, outcome.attempts),
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn map<R: DeserializeOwned>(
        &self,
        action: impl Into<String>,
        items: impl Stream<Item: Serialize> + Send + 'static,
    ) -> Map<R> {
        let input = items.map(|item| Payload::arguments(&item));
        Map::new(self.clone(), names::into_normal(action.into()), input, Outcome::decode)
    }

    /// Like [`map`](Self::map), with arguments and results as they travel.
    pub fn map_raw(
        &self,
        action: impl Into<String>,
        items: impl Stream<Item = Payload> + Send + 'static,
    ) -> Map<Payload> {
        Map::new(self.clone(), names::into_normal(action.into()), items.map(Ok), |outcome| outcome)
    }

    /// Like [`map`](Self::map), over an iterator, which is asked for an item when a worker has room for it.
    pub fn map_iter<R: DeserializeOwned>(
        &self,
        action: impl Into<String>,
        items: impl IntoIterator<Item: Serialize, IntoIter: Send + 'static>,
    ) -> Map<R> {
        self.map(action, stream::iter(items))
    }

    pub(crate) fn node(&self) -> &Node {
        &self.node
    }

    pub(crate) fn application(&self) -> &str {
        &self.application
    }

    pub(crate) fn time_limit(&self) -> Duration {
        self.timeout
    }

    pub(crate) fn options(&self) -> Options {
        self.options
    }

    /// What is said when nobody hosts it.
    pub(crate) fn nobody(&self) -> CallError {
        let (application, node) = (self.application.clone(), self.on.clone());
        let core = self.node.core();
        if selection::is_cut_off(core, &application, node.as_deref(), self.wanted()) {
            return CallError::CutOff { application, node };
        }
        CallError::NoSuchApplication { application, node }
    }

    pub(crate) fn wanted(&self) -> Wanted<'_> {
        self.choosing.wanted(self.filter.as_ref(), self.matching.as_deref())
    }

    pub(crate) fn route(&self) -> Route<'_> {
        Route {
            node: &self.node,
            application: &self.application,
            on: self.on.as_deref(),
            wanted: self.wanted(),
            timeout: self.timeout,
            options: self.options,
            hedge: self.choosing.hedge,
            pulse: None,
        }
    }
}

impl fmt::Debug for AppRef {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("AppRef")
            .field("application", &self.application)
            .field("on", &self.on)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}
