//! A future under a roof.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use super::Panics;

/// A future that gives nothing once it has panicked.
#[must_use = "a future does nothing unless it is polled"]
pub struct Sheltered<F> {
    inner: Option<F>,
    what: &'static str,
    panics: Panics,
}

impl<F> Sheltered<F> {
    pub(super) fn new(inner: F, what: &'static str, panics: Panics) -> Self {
        Self::begun(Some(inner), what, panics)
    }

    /// One that has panicked already, if there is none.
    pub(super) fn begun(inner: Option<F>, what: &'static str, panics: Panics) -> Self {
        Self { inner, what, panics }
    }
}

impl<F: Future + Unpin> Future for Sheltered<F> {
    type Output = Option<F::Output>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<F::Output>> {
        let this = self.get_mut();
        let Some(inner) = &mut this.inner else { return Poll::Ready(None) };
        if let Some(outcome) = this.panics.shelter(this.what, || Pin::new(inner).poll(context)) {
            return outcome.map(Some);
        }
        this.panics.discard(this.inner.take());
        Poll::Ready(None)
    }
}
