//! The inbound protocols of a handler, or none at all: of one that is not there yet, or not any more.

use std::{iter::Flatten, option};

use libp2p::{
    Stream,
    core::upgrade::{InboundUpgrade, UpgradeInfo},
    swarm::handler::{InboundUpgradeSend, UpgradeInfoSend},
};

/// The inbound protocols of the handler inside, or none.
pub struct Door<U>(pub(crate) Option<U>);

impl<U: UpgradeInfoSend> UpgradeInfo for Door<U> {
    type Info = U::Info;
    type InfoIter = Flatten<option::IntoIter<U::InfoIter>>;

    fn protocol_info(&self) -> Self::InfoIter {
        self.0.as_ref().map(UpgradeInfoSend::protocol_info).into_iter().flatten()
    }
}

impl<U: InboundUpgradeSend> InboundUpgrade<Stream> for Door<U> {
    type Output = U::Output;
    type Error = U::Error;
    type Future = U::Future;

    fn upgrade_inbound(self, stream: Stream, info: U::Info) -> U::Future {
        let upgrade = self.0.expect("a protocol is negotiated only if `protocol_info` has named it");
        upgrade.upgrade_inbound(stream, info)
    }
}
