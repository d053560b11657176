//! Which threads work goes on: guests that answer at once are not to wait behind those that compute for long, and those
//! step back for everything else.

use std::{
    future::poll_fn,
    pin::Pin,
    task::Poll,
    time::{Duration, Instant},
};

use tokio::runtime::Handle;

use crate::code::guest::Owned;

/// One turn of a guest that computes without end takes a whole tick of the clock; whatever takes nearly as long is no
/// short work.
const LONG: Duration = Duration::from_micros(750);

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Does the work here as long as its turns are short, else on the `patient` threads until they are short again. Dropped,
/// it ends wherever it is.
pub(super) async fn at_its_pace(work: impl Future<Output = ()> + Send + 'static, patient: Handle) {
    let mut work: Work = Box::pin(work);
    loop {
        if turns(&mut work, |turn| turn < LONG).await {
            return;
        }
        let elsewhere = Owned(patient.spawn(async move {
            let is_done = turns(&mut work, |turn| turn >= LONG).await;
            (!is_done).then_some(work)
        }));
        match elsewhere.join().await.flatten() {
            Some(rest) => work = rest,
            None => return,
        }
    }
}

/// Goes on with it as long as it is to stay; whether it is done.
async fn turns(work: &mut Work, stays: impl Fn(Duration) -> bool) -> bool {
    poll_fn(|context| {
        let begun = Instant::now();
        match work.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(true),
            Poll::Pending if stays(begun.elapsed()) => Poll::Pending,
            Poll::Pending => Poll::Ready(false),
        }
    })
    .await
}
