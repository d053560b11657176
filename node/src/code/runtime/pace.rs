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

#[cfg(test)]
mod tests {
    use std::thread;

    use tokio::{runtime::Builder, sync::oneshot, task::yield_now, time::timeout};

    use super::*;

    /// Where the present turn is taken.
    fn here() -> String {
        thread::current().name().unwrap_or_default().to_owned()
    }

    fn spin(time: Duration) {
        let begun = Instant::now();
        while begun.elapsed() < time {}
    }

    #[test]
    fn long_turns_are_taken_elsewhere_and_what_is_short_again_comes_back() {
        let threads =
            |name: &str| Builder::new_multi_thread().worker_threads(1).thread_name(name).enable_time().build();
        let (short, long) = (threads("short").unwrap(), threads("long").unwrap());
        let (sender, places) = oneshot::channel();
        let work = async move {
            let mut places = vec![here()];
            spin(2 * LONG);
            yield_now().await;
            places.push(here());
            spin(2 * LONG);
            yield_now().await;
            places.push(here());
            yield_now().await;
            // This turn is the first after a short one; a busy machine may have made that one long.
            while here() != "short" {
                yield_now().await;
            }
            _ = sender.send(places);
        };
        let task = short.spawn(at_its_pace(work, long.handle().clone()));
        let places = short.block_on(async { timeout(Duration::from_secs(20), places).await.unwrap().unwrap() });
        assert_eq!(places, ["short", "long", "long"]);
        short.block_on(task).unwrap();
    }

    #[test]
    fn what_is_dropped_ends_wherever_it_is() {
        let threads =
            |name: &str| Builder::new_multi_thread().worker_threads(1).thread_name(name).enable_time().build();
        let (short, long) = (threads("short").unwrap(), threads("long").unwrap());
        let (moved, is_moved) = oneshot::channel();
        let (held, ended) = oneshot::channel::<()>();
        let work = async move {
            let _held = held;
            spin(2 * LONG);
            yield_now().await;
            _ = moved.send(());
            std::future::pending::<()>().await;
        };
        let task = Owned(short.spawn(at_its_pace(work, long.handle().clone())));
        short.block_on(async {
            timeout(Duration::from_secs(20), is_moved).await.unwrap().unwrap();
            drop(task);
            timeout(Duration::from_secs(20), ended).await.unwrap().unwrap_err();
        });
    }
}
