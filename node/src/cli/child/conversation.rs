//! The conversation with one served process: a request at a time goes in, answers and what it asks by itself come out.

use std::{
    io,
    process::ExitStatus,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use bytes::Bytes;
use multinodes::{AppError, DEFAULT_MAX_MESSAGE};
use tokio::{
    process::{ChildStdin, ChildStdout},
    sync::watch,
    time::{Instant, sleep_until, timeout},
};

use super::{
    lines::{Lines, Next},
    outbox::Outbox,
    own::{MAX_OWN, OwnRequests, Within},
    pool::{Reply, Request},
    process::Process,
    protocol::{self, ErrorLine},
    said::{self, Heard, Said},
    slot::{Served, Started},
};
use crate::cli::{style::printable, table::shorten};

/// The longest line that a process may say: as long as the largest message.
const MAX_LINE: usize = DEFAULT_MAX_MESSAGE;

/// A process that has said nothing gets requests after so long: one that breaks while it starts takes none with it.
const QUIET_START: Duration = Duration::from_millis(500);

/// A process that is told to stop a request has so long to answer it.
const CANCEL_GRACE: Duration = Duration::from_secs(2);

/// A message that was told has no deadline; without an answer or a sign of progress for so long it is cancelled.
const TELL_LIMIT: Duration = Duration::from_secs(600);

/// A process whose pipe is closed has so long to end by itself, and then to follow SIGTERM.
const FAREWELL: Duration = Duration::from_secs(1);

/// A process that is killed ends at once, unless the system itself hangs.
const KILLED: Duration = Duration::from_secs(5);

/// A process that asks and does not read the answers is not heard until it does, from so many bytes on.
const MAX_ANSWERS: usize = 2 * DEFAULT_MAX_MESSAGE;

/// How much of a line that is not understood goes into the log, in characters.
const SHOWN: usize = 200;

/// The conversation with one process, from its start to its end.
pub(super) struct Conversation<'a> {
    served: &'a Arc<Served>,
    process: Process,
    stdin: Option<ChildStdin>,
    lines: Lines<ChildStdout>,
    /// What is still to be written.
    out: Outbox,
    /// How much of that answers what the process has asked by itself, at the most.
    answers: usize,
    current: Option<Current>,
    own: OwnRequests,
    /// When it gets requests although it has said nothing; `None` once it gets them.
    ready_at: Option<Instant>,
}

/// The request that the process works on.
struct Current {
    request: Request,
    /// Some of it was written: the process may have begun.
    sent: bool,
    cancelled: bool,
    /// What happens at that time depends on whether it is cancelled already.
    limit: Option<Instant>,
    /// What the process asks for within the request ends when this is dropped.
    scope: Option<watch::Sender<()>>,
}

/// How a process ended.
pub(super) struct Ended {
    pub(super) reason: String,
    /// This node has ended it for a reason that does not make it sick: it is started again at once.
    pub(super) at_will: bool,
}

/// Why a conversation is over.
enum Over {
    /// The process has ended by itself.
    Exited(io::Result<ExitStatus>),
    /// It cannot go on talking: it is given time to end by itself.
    Silent(String),
    /// It is killed.
    Killed { reason: String, at_will: bool },
    /// The node stops.
    Stopping,
}

impl<'a> Conversation<'a> {
    pub(super) fn new(served: &'a Arc<Served>, (process, stdin, stdout): Started) -> Self {
        Self {
            served,
            process,
            stdin: Some(stdin),
            lines: Lines::new(stdout, MAX_LINE),
            out: Outbox::default(),
            answers: 0,
            current: None,
            own: OwnRequests::new(served.clone()),
            ready_at: Some(Instant::now() + QUIET_START),
        }
    }

    /// Talks until the process ends or the node stops. No request is left without an answer.
    pub(super) async fn run(mut self, mut stopping: watch::Receiver<bool>) -> Ended {
        let over = loop {
            if let Err(over) = self.step(&mut stopping).await {
                break over;
            }
        };
        if self.ready_at.is_none() {
            self.served.pool.left();
        }
        let ended = self.end(over).await;
        self.fail(&ended);
        ended
    }

    async fn step(&mut self, stopping: &mut watch::Receiver<bool>) -> Result<(), Over> {
        let is_heard = self.answers <= MAX_ANSWERS && self.own.len() <= 2 * MAX_OWN;
        let is_ready = self.ready_at.is_none();
        let limit = self.ready_at.or(self.current.as_ref().and_then(|current| current.limit));
        tokio::select! {
            next = self.lines.next(), if is_heard => self.on_next(next),
            written = self.out.write(&mut self.stdin), if !self.out.is_empty() => self.on_written(written),
            request = self.served.pool.next(), if is_ready && self.current.is_none() => self.on_request(request),
            () = given_up(&mut self.current) => self.on_given_up(),
            Some(answer) = self.own.next() => {
                self.answers += answer.len();
                self.out.push(answer);
                Ok(())
            }
            () = sleep_until(limit.unwrap_or_else(Instant::now)), if limit.is_some() => self.on_limit(),
            status = self.process.wait() => Err(Over::Exited(status)),
            _ = stopping.wait_for(|stopping| *stopping) => Err(Over::Stopping),
        }
    }

    fn on_next(&mut self, next: io::Result<Next>) -> Result<(), Over> {
        match next {
            Ok(Next::Line(line)) => {
                self.on_ready();
                self.on_line(&line);
                Ok(())
            }
            Ok(Next::TooLong(_)) => {
                let reason = format!("it has said a line of more than {} MiB on stdout", MAX_LINE >> 20);
                Err(Over::Killed { reason, at_will: false })
            }
            Ok(Next::End) => Err(Over::Silent("it has closed its stdout".to_owned())),
            Err(error) => Err(Over::Silent(format!("its stdout cannot be read: {error}"))),
        }
    }

    fn on_written(&mut self, written: io::Result<usize>) -> Result<(), Over> {
        let written = written.map_err(|error| Over::Silent(format!("it does not read its stdin: {error}")))?;
        if let Some(current) = &mut self.current {
            current.sent = true;
        }
        self.out.written(written);
        if self.out.is_empty() {
            self.answers = 0;
        }
        Ok(())
    }

    fn on_request(&mut self, request: Option<Request>) -> Result<(), Over> {
        let request = request.ok_or(Over::Stopping)?;
        let left = request.is_call.then(|| request.context.remaining());
        self.out.push_line(&request.line, protocol::close(left));
        let limit = (!request.is_call).then(|| Instant::now() + TELL_LIMIT);
        self.current = Some(Current { request, sent: false, cancelled: false, limit, scope: None });
        Ok(())
    }

    /// Nobody waits for the answer any more, or the deadline is over.
    fn on_given_up(&mut self) -> Result<(), Over> {
        if let Some(current) = &mut self.current {
            current.cancelled = true;
            current.limit = Some(Instant::now() + CANCEL_GRACE);
            current.scope = None;
            self.out.push(protocol::cancel(current.request.id));
        }
        Ok(())
    }

    fn on_limit(&mut self) -> Result<(), Over> {
        if self.ready_at.is_some() {
            self.on_ready();
            return Ok(());
        }
        match &self.current {
            Some(current) if current.cancelled => {
                let reason = format!("a request was cancelled, and it has not answered it within {CANCEL_GRACE:?}");
                Err(Over::Killed { reason, at_will: true })
            }
            _ => self.on_given_up(),
        }
    }

    /// It gets requests from now on.
    fn on_ready(&mut self) {
        if self.ready_at.take().is_some() {
            self.served.pool.arrived();
        }
    }

    fn on_line(&mut self, line: &Bytes) {
        match self.read(line) {
            Heard::Said(said) => self.on_said(said, line),
            Heard::Broken(reason) => self.on_broken(line, &reason),
            Heard::Unanswerable { kind, id, reason } => {
                self.garbage(line, &reason);
                self.own.refuse(kind, id, ErrorLine::new("unreadable", reason));
            }
            Heard::Garbage(reason) => self.garbage(line, &reason),
        }
    }

    fn read(&self, line: &[u8]) -> Heard {
        said::read(line, self.current.as_ref().map(|current| current.request.id))
    }

    /// Its answer has come, and nobody can read it.
    fn on_broken(&mut self, line: &[u8], reason: &str) {
        self.garbage(line, reason);
        if let Some(Current { request, .. }) = self.current.take() {
            let error =
                AppError::new("unreadable_answer", format!("the answer of its process cannot be read: {reason}"));
            // Whoever has just lost interest does not get it.
            let _ = request.respond_to.send(Reply::Broken(error));
        }
    }

    fn on_said(&mut self, said: Said, line: &[u8]) {
        match said {
            Said::Done { id, outcome } => match self.current.take_if(|current| current.request.id == id) {
                Some(current) if current.cancelled => {}
                Some(Current { request, .. }) => {
                    // Whoever has just lost interest does not get it.
                    let _ = request.respond_to.send(Reply::Answered(outcome));
                }
                None => self.garbage(line, "there is no such request"),
            },
            Said::Progress { id, value } => match &mut self.current {
                Some(current) if current.request.id == id => {
                    current.request.context.progress_raw(value);
                    if !current.request.is_call && !current.cancelled {
                        current.limit = Some(Instant::now() + TELL_LIMIT);
                    }
                }
                _ => self.garbage(line, "there is no such request"),
            },
            Said::Call(call) => {
                let within = self.within(call.within);
                self.own.call(call, within);
            }
            Said::Tell(tell) => {
                let within = self.within(tell.within);
                self.own.tell(tell, within);
            }
            Said::Describe(description) => self.own.describe(description),
        }
    }

    /// The request that something the process asks for belongs to, if it names one; `Err` if there is none of that number.
    fn within(&mut self, id: Option<u64>) -> Within {
        let Some(id) = id else { return Ok(None) };
        match &mut self.current {
            Some(current) if current.request.id == id && !current.cancelled => {
                let scope = current.scope.get_or_insert_default();
                Ok(Some((current.request.context.node().clone(), scope.subscribe())))
            }
            _ => Err(id),
        }
    }

    /// Logs a line that means nothing, but not each of many.
    fn garbage(&self, line: &[u8], reason: &str) {
        let count = self.served.pool.garbage.fetch_add(1, Relaxed) + 1;
        if count.is_power_of_two() {
            let start = &line[..line.len().min(SHOWN * 4)];
            let line = shorten(&printable(&String::from_utf8_lossy(start)), SHOWN);
            let application = &self.served.name;
            tracing::warn!(target: super::LOG, %application, %line, reason, count, "not understood on stdout");
        }
    }

    /// Sees the process to its end, and takes what it still says.
    async fn end(&mut self, over: Over) -> Ended {
        self.own.stop();
        let (reason, at_will) = match over {
            Over::Exited(status) => return self.exited(status, None, false).await,
            Over::Silent(reason) => {
                // Usually it is just ending, and says better why.
                if let Some(status) = self.wait_for(FAREWELL).await {
                    return self.exited(status, None, false).await;
                }
                (reason, false)
            }
            Over::Killed { reason, at_will } => {
                self.process.kill();
                (reason, at_will)
            }
            Over::Stopping => ("the node is stopping".to_owned(), true),
        };
        self.stdin = None;
        for (limit, is_last) in [(FAREWELL, false), (FAREWELL, true), (KILLED, true)] {
            if let Some(status) = self.wait_for(limit).await {
                return self.exited(status, Some(reason), at_will).await;
            }
            if is_last { self.process.kill() } else { self.process.terminate() }
        }
        Ended { reason: format!("it cannot be killed; {reason}"), at_will }
    }

    /// Waits for the end of the process, and takes what it says meanwhile.
    async fn wait_for(&mut self, limit: Duration) -> Option<io::Result<ExitStatus>> {
        let mut silent = false;
        timeout(limit, async {
            loop {
                tokio::select! {
                    status = self.process.wait() => return status,
                    next = self.lines.next(), if !silent => silent = !self.on_last(next),
                }
            }
        })
        .await
        .ok()
    }

    /// The process has ended: what it has said before counts.
    async fn exited(&mut self, status: io::Result<ExitStatus>, reason: Option<String>, at_will: bool) -> Ended {
        let _ = timeout(FAREWELL, async {
            loop {
                let next = self.lines.next().await;
                if !self.on_last(next) {
                    return;
                }
            }
        })
        .await;
        let status = status.map_or_else(|error| error.to_string(), |status| status.to_string());
        let mut text = reason.unwrap_or(status);
        let tail = self.process.stderr.tail().await;
        if !tail.is_empty() {
            text = format!("{text}; stderr: {tail}");
        }
        Ended { reason: text, at_will }
    }

    /// Of the last words only answers count. `false` if there are no more.
    fn on_last(&mut self, next: io::Result<Next>) -> bool {
        let Ok(Next::Line(line)) = next else { return false };
        match self.read(&line) {
            Heard::Said(said @ Said::Done { .. }) => self.on_said(said, &line),
            Heard::Broken(reason) => self.on_broken(&line, &reason),
            _ => {}
        }
        true
    }

    /// Answers the request that the process has not answered.
    fn fail(&mut self, ended: &Ended) {
        if let Some(Current { request, sent, .. }) = self.current.take() {
            let crashed = || AppError::crashed(format!("lost its process: {}", ended.reason));
            let _ = request.respond_to.send(if sent { Reply::Broken(crashed()) } else { Reply::NotTaken });
        }
    }
}

/// Waits until nobody wants the answer of a request that runs.
async fn given_up(current: &mut Option<Current>) {
    match current {
        Some(current) if !current.cancelled => current.request.respond_to.closed().await,
        _ => std::future::pending().await,
    }
}
