//! Which one of several hosts gets a message: what users may say about it.

use std::{fmt, sync::Arc, time::Duration};

use multinodes_behaviour::names;
use semver::VersionReq;

use crate::{
    app_ref::AppRef,
    core::Core,
    description::Host,
    node::Node,
    predicate::matching::Matching,
    selection::{self, Chooser, Filter, Versions, Wanted},
    topology::owner,
};

/// Chooses among hosts.
pub(crate) type Choose = Arc<dyn for<'a> Fn(Candidates<'a>) -> Option<Candidate<'a>> + Send + Sync>;

/// Which one of several hosts gets a message. See [`AppRef::strategy`] and [`Node::prefer`].
///
/// The application on the caller's own node is preferred, unless [`AppRef::remote`] is said; with a sticky key, or the
/// user's own function, it is a host like all others. A host that has just failed, was busy, or let two messages in a row
/// time out, is set aside for a moment (200 ms, twice as long each time it fails again, at most 2 s for busy ones and 30 s
/// for others), unless all are.
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

    /// The user's own choice: gets the hosts that may be taken, at least one, and gives the one that is. With `None` it
    /// is asked again with those that are set aside, if there are any; else nobody is taken.
    ///
    /// It runs on every message, and nothing is prepared for it: it costs as much as it looks at.
    ///
    /// ```no_run
    /// use multinodes::Strategy;
    /// # async fn draw(node: multinodes::Node) -> Result<(), multinodes::CallError> {
    /// // The one with the most memory of those that have a slot free.
    /// let roomy = Strategy::custom(|candidates| {
    ///     let free = candidates.iter().filter(|candidate| !candidate.is_full());
    ///     free.max_by_key(|candidate| candidate.host.description["memory"].as_u64())
    /// });
    /// let picture: Vec<u8> = node.app("render").strategy(roomy).call("draw", "a scene").await?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn custom(choose: impl for<'a> Fn(Candidates<'a>) -> Option<Candidate<'a>> + Send + Sync + 'static) -> Self {
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

/// The hosts of an application, of which one is chosen: the directory's own list, of which nothing is copied.
#[derive(Clone, Copy)]
pub struct Candidates<'a> {
    core: &'a Core,
    hosts: &'a [Arc<Host>],
    fits: &'a dyn Fn(&Host) -> bool,
}

impl<'a> Candidates<'a> {
    pub(crate) fn new(core: &'a Core, hosts: &'a [Arc<Host>], fits: &'a dyn Fn(&Host) -> bool) -> Self {
        Self { core, hosts, fits }
    }

    /// All known hosts that match the target's predicates and versions, those that may not be taken just now among them.
    #[must_use]
    pub fn hosts(&self) -> &'a [Arc<Host>] {
        self.hosts
    }

    /// The host at this place of [`hosts`](Self::hosts), if it may be taken: it is not set aside, was not tried for this
    /// message already, and the target's filter takes it.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<Candidate<'a>> {
        let host = self.hosts.get(index).filter(|host| (self.fits)(host))?;
        Some(Candidate { host, index, core: self.core })
    }

    /// All that may be taken, in the order of [`hosts`](Self::hosts).
    pub fn iter(self) -> impl Iterator<Item = Candidate<'a>> {
        (0..self.hosts.len()).filter_map(move |index| self.get(index))
    }
}

impl fmt::Debug for Candidates<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_list().entries(self.iter()).finish()
    }
}

/// A host that may be taken, and what this node knows about the way to it: looked up when it is asked for.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct Candidate<'a> {
    /// The host.
    pub host: &'a Host,
    pub(crate) index: usize,
    core: &'a Core,
}

impl<'a> Candidate<'a> {
    /// One that is not out of a list.
    pub(crate) fn alone(core: &'a Core, host: &'a Host) -> Self {
        Self { host, index: 0, core }
    }

    /// How many calls and tells this node has sent to it that are not answered yet; 0 for this node itself.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        selection::work(self.core, self.host).in_flight
    }

    /// The smoothed time of a round trip, if it is connected; zero for this node itself.
    #[must_use]
    pub fn round_trip(&self) -> Option<Duration> {
        selection::round_trip(self.core, self.host)
    }

    /// Whether its slots are known to be full; never of one that does not say how many it has.
    #[must_use]
    pub fn is_full(&self) -> bool {
        selection::work(self.core, self.host).is_full()
    }
}

impl fmt::Debug for Candidate<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Candidate")
            .field("host", self.host)
            .field("in_flight", &self.in_flight())
            .field("round_trip", &self.round_trip())
            .field("is_full", &self.is_full())
            .finish()
    }
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
        self.core().selection.prefer(names::into_normal(application.into()), strategy);
    }
}
