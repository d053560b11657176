//! The task of one application, on the threads of guests: it takes one request after the other.

use std::{
    panic::AssertUnwindSafe,
    pin::pin,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use futures::{FutureExt, future::poll_immediate};
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
        runtime::{Clock, Runtime, metered, sheltered},
    },
};

/// Outcomes are told when there are so many.
const TOGETHER: usize = 16;

/// And at the latest when the first of them was begun so long ago, and the present request gives way.
const BATCH: Duration = Duration::from_micros(100);

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
        let mut outcomes = Outcomes::default();
        while let Some(first) = queue.recv().await {
            let (ticking, begun) = (self.clock.tick(), Instant::now());
            let mut next = Some(first);
            while let Some(job) = next {
                // Whatever else panics may cost an instance and this answer, but not those after it.
                if AssertUnwindSafe(self.take(job, &mut outcomes)).catch_unwind().await.is_err() {
                    tracing::error!("a request of a guest broke outside the guest");
                }
                next = if begun.elapsed() < BATCH { queue.try_recv().ok() } else { None };
            }
            outcomes.tell();
            drop(ticking);
            if !queue.is_empty() {
                // Short requests give way to other guests, too.
                yield_now().await;
            }
        }
    }

    async fn take(&mut self, job: Job, outcomes: &mut Outcomes) {
        match job {
            Job::Serve { request, context, callers, answer } => {
                let terms = self.state.terms();
                let account = terms.allowance.account();
                let binding = Binding {
                    limits: terms.allowance.shared_limits(),
                    account: account.clone(),
                    surroundings: (terms.surround)(context.as_ref()),
                    home: self.home.clone(),
                    callers: callers.with(self.id),
                };
                // Dropped in the middle, the state is left without its instance.
                outcomes.of(answer, metered(&account, sheltered(self.state.serve(request, binding)))).await;
            }
            Job::Replace { compiled, configuration, terms, answer } => {
                outcomes.of(answer, self.replace(compiled, configuration, terms)).await;
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
        let account = terms.allowance.account();
        let binding = Binding {
            limits: terms.allowance.shared_limits(),
            account: account.clone(),
            surroundings: (terms.surround)(None),
            home: self.home.clone(),
            callers: Callers::default().with(self.id),
        };
        metered(&account, sheltered(new.serve(Request::Start, binding))).await?;
        self.state = new;
        Ok(Vec::new())
    }
}

/// What has come of requests and is not told yet: to wake the node for each short one costs more than the request.
#[derive(Default)]
struct Outcomes(Vec<(Answer, Result<Vec<u8>, GuestError>)>);

impl Outcomes {
    /// Does the work as long as somebody waits for its outcome.
    async fn of(&mut self, mut answer: Answer, work: impl Future<Output = Result<Vec<u8>, GuestError>>) {
        let mut work = pin!(async move {
            let outcome = tokio::select! {
                biased;
                () = answer.closed() => return None,
                outcome = work => outcome,
            };
            Some((answer, outcome))
        });
        let answered = match poll_immediate(&mut work).await {
            Some(answered) => answered,
            None => {
                // It takes longer: others do not wait for it.
                self.tell();
                work.await
            }
        };
        self.0.extend(answered);
        if self.0.len() >= TOGETHER {
            self.tell();
        }
    }

    fn tell(&mut self) {
        for (answer, outcome) in self.0.drain(..) {
            // Nobody may wait any more.
            _ = answer.send(outcome);
        }
    }
}
