//! The negotiations of streams under a roof: they run in the task of their connection.

use futures::{
    FutureExt,
    future::{BoxFuture, Map},
};
use libp2p::{
    Stream,
    core::upgrade::{InboundUpgrade, OutboundUpgrade, UpgradeInfo},
    swarm::handler::{InboundUpgradeSend, OutboundUpgradeSend, UpgradeInfoSend},
};

use super::{Panics, future::Sheltered};
use crate::door::Door;

/// Why the negotiation of a stream has failed.
#[derive(Debug)]
pub enum Broken<E> {
    /// For a reason of its own.
    Inner(E),
    /// It has panicked.
    Panicked,
}

type Negotiating<T, E> =
    Map<Sheltered<BoxFuture<'static, Result<T, E>>>, fn(Option<Result<T, E>>) -> Result<T, Broken<E>>>;

fn negotiating<T: 'static, E: 'static>(
    panics: &Panics,
    begin: impl FnOnce() -> BoxFuture<'static, Result<T, E>>,
) -> Negotiating<T, E> {
    const WHAT: &str = "the negotiation of a stream";
    let begun = panics.shelter(WHAT, begin);
    Sheltered::begun(begun, WHAT, panics.clone()).map(outcome as fn(_) -> _)
}

fn outcome<T, E>(outcome: Option<Result<T, E>>) -> Result<T, Broken<E>> {
    outcome.map_or(Err(Broken::Panicked), |outcome| outcome.map_err(Broken::Inner))
}

/// An inbound protocol under a roof.
pub struct Inbound<U> {
    door: Door<U>,
    panics: Panics,
}

impl<U> Inbound<U> {
    pub(super) fn new(inner: Option<U>, panics: &Panics) -> Self {
        Self { door: Door(inner), panics: panics.clone() }
    }
}

impl<U: UpgradeInfoSend> UpgradeInfo for Inbound<U> {
    type Info = U::Info;
    type InfoIter = <Door<U> as UpgradeInfo>::InfoIter;

    fn protocol_info(&self) -> Self::InfoIter {
        UpgradeInfo::protocol_info(&self.door)
    }
}

impl<U: InboundUpgradeSend> InboundUpgrade<Stream> for Inbound<U> {
    type Output = U::Output;
    type Error = Broken<U::Error>;
    type Future = Negotiating<U::Output, U::Error>;

    fn upgrade_inbound(self, stream: Stream, info: U::Info) -> Self::Future {
        negotiating(&self.panics, || InboundUpgrade::upgrade_inbound(self.door, stream, info).boxed())
    }
}

/// An outbound protocol under a roof.
pub struct Outbound<U> {
    inner: U,
    panics: Panics,
}

impl<U> Outbound<U> {
    pub(super) fn new(inner: U, panics: Panics) -> Self {
        Self { inner, panics }
    }
}

impl<U: UpgradeInfoSend> UpgradeInfo for Outbound<U> {
    type Info = U::Info;
    type InfoIter = U::InfoIter;

    fn protocol_info(&self) -> U::InfoIter {
        self.inner.protocol_info()
    }
}

impl<U: OutboundUpgradeSend> OutboundUpgrade<Stream> for Outbound<U> {
    type Output = U::Output;
    type Error = Broken<U::Error>;
    type Future = Negotiating<U::Output, U::Error>;

    fn upgrade_outbound(self, stream: Stream, info: U::Info) -> Self::Future {
        negotiating(&self.panics, || self.inner.upgrade_outbound(stream, info).boxed())
    }
}
