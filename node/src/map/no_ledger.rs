//! Without the feature `journal` nothing is recorded.

use super::{
    durable::Durable,
    outcome::{MapError, Outcome},
    plan::Plan,
};
use crate::payload::Payload;

pub(super) struct Ledger;

impl Ledger {
    pub(super) fn open(_: &Plan) -> impl Future<Output = Result<Self, MapError>> + use<> {
        std::future::ready(Ok(Self))
    }

    pub(super) fn has(&self, _: u64) -> bool {
        false
    }

    pub(super) async fn find(&mut self, _: u64, _: &Payload) -> Result<Option<Outcome<Payload>>, MapError> {
        Ok(None)
    }

    pub(super) fn begin(&mut self, _: u64, _: &Payload) -> bool {
        true
    }

    pub(super) fn withdraw(&mut self, _: impl Fn(u64) -> bool) -> bool {
        false
    }

    pub(super) fn record(&mut self, outcome: Outcome<Payload>) -> Option<Outcome<Payload>> {
        Some(outcome)
    }

    pub(super) fn is_behind(&self) -> bool {
        false
    }

    pub(super) fn has_room(&self) -> bool {
        true
    }

    pub(super) async fn next(&mut self) -> Result<Vec<Durable>, MapError> {
        std::future::pending().await
    }

    pub(super) fn check_end(&self, _: u64) -> Result<(), MapError> {
        Ok(())
    }
}
