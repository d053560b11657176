//! The task of one application, on the threads of guests: it takes one request after the other.

use std::{
    panic::AssertUnwindSafe,
    sync::{Arc, Weak},
    time::Instant,
};

use futures::FutureExt;
use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot},
    task::yield_now,
};

use super::{
    Terms,
    live::{Request, State},
};
use crate::{
    application::Context,
    code::{
        compiler::Compiled,
        guest::{Binding, Callers},
        guest_error::GuestError,
        runtime::{Clock, Runtime, TICK},
    },
};

type Answer = oneshot::Sender<Result<Vec<u8>, GuestError>>;

/// What is to be done in its turn. Whoever wants it no longer has dropped the other end of `answer`.
pub(super) enum Job {
    Serve {
        request: Request,
        context: Option<Context>,
        /// The guests that wait for it already.
        callers: Callers,
        answer: Answer,
    },
    /// Other code takes its place, if it starts; without terms within the same.
    Replace { compiled: Compiled, configuration: Vec<u8>, terms: Option<Terms>, answer: Answer },
}

/// One application at work.
pub(super) struct Turns {
    id: u64,
    state: State,
    runtime: Weak<Runtime>,
    home: Handle,
    clock: Clock,
}

impl Turns {
    /// Goes on until the last sender of jobs is dropped.
    pub(super) fn begin(runtime: &Arc<Runtime>, id: u64, state: State, room: usize) -> mpsc::Sender<Job> {
        let (jobs, queue) = mpsc::channel(room);
        let (home, clock) = (runtime.home(), runtime.clock());
        let turns = Self { id, state, runtime: Arc::downgrade(runtime), home, clock };
        runtime.keep(turns.work(queue));
        jobs
    }

    async fn work(mut self, mut queue: mpsc::Receiver<Job>) {
        let mut begun = Instant::now();
        while let Some(job) = queue.recv().await {
            let ticking = self.clock.tick();
            // A panic may cost an instance and this answer, but not those after it.
            if AssertUnwindSafe(self.take(job)).catch_unwind().await.is_err() {
                tracing::error!("a request of a guest broke outside the guest");
            }
            drop(ticking);
            // Short requests give way to other guests, too.
            if begun.elapsed() > TICK {
                yield_now().await;
                begun = Instant::now();
            }
        }
    }

    async fn take(&mut self, job: Job) {
        match job {
            Job::Serve { request, context, callers, answer } => {
                let terms = self.state.terms();
                let binding = Binding {
                    limits: terms.allowance.shared_limits(),
                    surroundings: (terms.surround)(context.as_ref()),
                    home: self.home.clone(),
                    callers: callers.with(self.id),
                };
                // Dropped in the middle, the state is left without its instance.
                answered(answer, self.state.serve(request, binding)).await;
            }
            Job::Replace { compiled, configuration, terms, answer } => {
                answered(answer, self.replace(compiled, configuration, terms)).await;
            }
        }
    }

    async fn replace(
        &mut self,
        compiled: Compiled,
        configuration: Vec<u8>,
        terms: Option<Terms>,
    ) -> Result<Vec<u8>, GuestError> {
        let mut new = self.state.successor(compiled, configuration);
        if let Some(terms) = terms {
            if !terms.allowance.is(&self.state.terms().allowance) {
                let runtime = self.runtime.upgrade().ok_or(GuestError::Stopped)?;
                new = new.at(Arc::new((runtime.instance()?, terms.allowance.instance()?)));
            }
            new = new.within(Arc::new(terms));
        }
        let terms = new.terms();
        let binding = Binding {
            limits: terms.allowance.shared_limits(),
            surroundings: (terms.surround)(None),
            home: self.home.clone(),
            callers: Callers::default().with(self.id),
        };
        new.serve(Request::Start, binding).await?;
        self.state = new;
        Ok(Vec::new())
    }
}

/// Does the work as long as somebody waits for its outcome.
async fn answered(mut answer: Answer, work: impl Future<Output = Result<Vec<u8>, GuestError>>) {
    let outcome = tokio::select! {
        biased;
        () = answer.closed() => return,
        outcome = work => outcome,
    };
    // Nobody may wait any more.
    _ = answer.send(outcome);
}
