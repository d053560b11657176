//! Which one of several hosts gets a message: what users may say about it.

use std::{fmt, sync::Arc, time::Duration};

use semver::VersionReq;

use crate::{
    app_ref::AppRef,
    description::Host,
    node::Node,
    predicate::matching::Matching,
    selection::{Chooser, Filter, Versions, Wanted},
    topology::owner,
};

/// Chooses among hosts: the index of the one that is taken.
pub(crate) type Choose = Arc<dyn Fn(&[Candidate<'_>]) -> Option<usize> + Send + Sync>;

/// Which one of several hosts gets a message. See [`AppRef::strategy`] and [`Node::prefer`].
///
/// The application on the caller's own node is preferred, unless [`AppRef::remote`] is said; with a sticky key, or the
/// user's own function, it is a host like all others. A host that has just failed, or was busy, is set aside for a moment
/// (200 ms, twice as long each time it fails again, at most 2 s for busy ones and 30 s for others), unless all are.
#[derive(Clone, Default)]
#[non_exhaustive]
pub enum Strategy {
    /// Any, each with the same chance.
    Random,
    /// One after the other.
    RoundRobin,
    /// Out of two that are drawn at random the one with less to do: what this node has sent there and is not answered,
    /// and what ran there at its last sign of life, for the number of its slots. One whose slots are known to be full is
    /// taken only if all are. The default.
    #[default]
    LeastLoaded,
    /// The one whose connection answers pings the fastest: always the same one, as long as it takes what it gets. Now
    /// and then one that was never connected, to find out how far it is.
    Nearest,
    /// The one that owns a key, given by its hash, see [`sticky`](Self::sticky).
    Sticky(u64),
    /// The user's own choice, see [`custom`](Self::custom).
    Custom(Choose),
}

impl Strategy {
    /// The same key goes to the same host, whoever calls: rendezvous hashing over the peer ids. When a host is lost only
    /// its keys move, each to another of those that are left; when it is back they return.
    #[must_use]
    pub fn sticky(key: impl AsRef<[u8]>) -> Self {
        Self::Sticky(owner::hash(key.as_ref()))
    }

    /// The user's own choice: gets all hosts that may be taken, at least one, and gives the index of the one that is.
    /// With `None` nobody is.
    #[must_use]
    pub fn custom(choose: impl Fn(&[Candidate<'_>]) -> Option<usize> + Send + Sync + 'static) -> Self {
        Self::Custom(Arc::new(choose))
    }
}

impl fmt::Debug for Strategy {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Random => formatter.write_str("Random"),
            Self::RoundRobin => formatter.write_str("RoundRobin"),
            Self::LeastLoaded => formatter.write_str("LeastLoaded"),
            Self::Nearest => formatter.write_str("Nearest"),
            Self::Sticky(key) => formatter.debug_tuple("Sticky").field(key).finish(),
            Self::Custom(_) => formatter.write_str("Custom"),
        }
    }
}

/// A host that may be taken, and what this node knows about the way to it.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Candidate<'a> {
    /// The host.
    pub host: &'a Host,
    /// What this node has sent to it and what is not answered yet.
    pub in_flight: usize,
    /// The smoothed time of a round trip, if it is connected.
    pub round_trip: Option<Duration>,
    /// Whether its slots are known to be full.
    pub is_full: bool,
}

/// A text is no condition on versions.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no condition on versions such as `^1.2`: {reason}")]
pub struct VersionError {
    text: String,
    reason: String,
}

/// How a target chooses among hosts, beyond its conditions.
#[derive(Clone, Default)]
pub(crate) struct Choosing {
    chooser: Option<Arc<Chooser>>,
    remote: bool,
    pub(crate) versions: Option<Arc<Versions>>,
    /// After so long a second attempt is begun.
    pub(crate) hedge: Option<Duration>,
}

impl Choosing {
    pub(crate) fn wanted<'a>(&'a self, filter: Option<&'a Filter>, matching: Option<&'a Matching>) -> Wanted<'a> {
        let (chooser, versions) = (self.chooser.as_deref(), self.versions.as_deref());
        Wanted { filter, matching, chooser, versions, remote: self.remote }
    }

    pub(crate) fn retain(&self, hosts: &mut Vec<Arc<Host>>) {
        if self.remote {
            hosts.retain(|host| !host.local);
        }
        if let Some(versions) = &self.versions {
            hosts.retain(|host| versions.takes(host));
        }
    }
}

impl AppRef {
    /// How one of several hosts is chosen. What [`Node::prefer`] says by default, or [`Strategy::LeastLoaded`].
    ///
    /// ```no_run
    /// use multinodes::Strategy;
    /// # async fn charge(node: multinodes::Node) -> Result<(), multinodes::CallError> {
    /// // All that concerns a customer goes to one host, from whichever node.
    /// let accounts = node.app("accounts").strategy(Strategy::sticky("customer 17"));
    /// let balance: i64 = accounts.call("charge", 12).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn strategy(mut self, strategy: Strategy) -> Self {
        self.choosing.chooser = Some(Arc::new(Chooser::new(strategy)));
        self
    }

    /// Takes other nodes only, even if the application is hosted on this one.
    pub fn remote(mut self) -> Self {
        self.choosing.remote = true;
        self
    }

    /// Takes only hosts whose application has one of these versions, as in a `Cargo.toml`: `^1.2`, `>=1.4, <3`. A host
    /// whose application has no version, or one that is no [semantic version](https://semver.org), is not taken. Said
    /// again, it replaces what was said before.
    ///
    /// ```no_run
    /// # async fn draw(node: multinodes::Node) -> Result<(), Box<dyn std::error::Error>> {
    /// let picture: Vec<u8> = node.app("render").version("^1.2")?.call("draw", "a scene").await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The text is no condition on versions.
    pub fn version(self, wanted: &str) -> Result<Self, VersionError> {
        let parsed = VersionReq::parse(wanted)
            .map_err(|error| VersionError { text: wanted.chars().take(80).collect(), reason: error.to_string() })?;
        Ok(self.version_req(parsed))
    }

    /// Like [`version`](Self::version), with a condition that is read already.
    pub fn version_req(mut self, wanted: VersionReq) -> Self {
        self.choosing.versions = Some(Arc::new(Versions::new(wanted)));
        self
    }

    /// Begins a second attempt of a call on another host when the first has no answer after this time. The first answer
    /// wins, and the other attempt is cancelled. Only for calls that may run twice without harm, by
    /// [`idempotent`](Self::idempotent) or by the word of the application; others are not affected.
    ///
    /// A time that nine in ten calls do not need costs a tenth more calls, and takes the slowest ones away.
    pub fn hedge(mut self, after: Duration) -> Self {
        self.choosing.hedge = Some(after);
        self
    }
}

impl Node {
    /// How this node chooses among the hosts of an application unless its target says otherwise, see
    /// [`AppRef::strategy`].
    pub fn prefer(&self, application: impl Into<String>, strategy: Strategy) {
        self.core().selection.prefer(application.into(), strategy);
    }
}
