//! What `--all` does: asks every host, and prints a line of JSON for each.

use std::process::ExitCode;

use futures::StreamExt;
use multinodes::{All, CallError, HostOutcome, Outcomes, Payload};
use serde::Serialize;

use super::{
    choice::Chosen, duration::milliseconds, failure::Failure, options::Settings, output::Output, session::Session,
};

/// One line of `call --all` and `tell --all`.
#[derive(Debug, Serialize)]
struct Line {
    node: String,
    peer_id: String,
    ms: f64,
    #[serde(flatten)]
    answer: Answer,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    #[serde(serialize_with = "as_json")]
    Result(Payload),
    Accepted(bool),
    Error {
        code: &'static str,
        message: String,
        #[serde(skip_serializing_if = "Option::is_none", serialize_with = "as_json_too")]
        data: Option<Payload>,
    },
}

/// The data of an error, if JSON can say it: the error itself is what matters.
fn said(error: &CallError) -> Option<Payload> {
    error.raw_data().filter(|data| data.json().is_ok()).cloned()
}

fn as_json_too<S: serde::Serializer>(payload: &Option<Payload>, serializer: S) -> Result<S::Ok, S::Error> {
    as_json(payload.as_ref().unwrap_or(&Payload::default()), serializer)
}

fn as_json<S: serde::Serializer>(payload: &Payload, serializer: S) -> Result<S::Ok, S::Error> {
    payload.json().map_err(serde::ser::Error::custom)?.serialize(serializer)
}

/// What a host says when it has done what was asked.
pub(crate) trait Done {
    fn shown(self) -> Result<Answered, Failure>;
}

/// An answer that can be printed.
pub(crate) struct Answered(Answer);

impl Done for () {
    fn shown(self) -> Result<Answered, Failure> {
        Ok(Answered(Answer::Accepted(true)))
    }
}

impl Done for Payload {
    fn shown(self) -> Result<Answered, Failure> {
        let answer = match self.json() {
            Ok(_) => Answer::Result(self),
            Err(error) => Answer::Error {
                code: "unexpected_result",
                message: format!("the result cannot be written as JSON: {error}"),
                data: None,
            },
        };
        Ok(Answered(answer))
    }
}

/// Asks all hosts that are meant, and prints each one's outcome as it comes. The exit code is 1 if any of them has failed.
pub(crate) async fn ask<R: Done>(
    settings: Settings,
    output: Output,
    chosen: &Chosen,
    application: &str,
    ask: impl AsyncFnOnce(All) -> Result<Outcomes<R>, CallError>,
) -> Result<ExitCode, Failure> {
    output.check()?;
    let work = async |session: &Session| {
        session.settle().await;
        let all = chosen.target(&session.node, application).timeout(session.left()).all();
        let outcomes = ask(all).await.map_err(|error| Failure::call(&session.given(error), &session.hint()))?;
        print(outcomes, output).await
    };
    Session::open(settings).await?.with(work).await
}

async fn print<R: Done>(mut outcomes: Outcomes<R>, output: Output) -> Result<ExitCode, Failure> {
    let (hosts, mut failed) = (outcomes.left(), 0);
    while let Some(outcome) = outcomes.next().await {
        let line = line(outcome)?;
        failed += usize::from(matches!(line.answer, Answer::Error { .. }));
        output.line(&line)?;
    }
    match failed {
        0 => Ok(ExitCode::SUCCESS),
        failed => Err(Failure::negative(format_args!("{failed} of {hosts} hosts have failed"))),
    }
}

fn line<R: Done>(outcome: HostOutcome<R>) -> Result<Line, Failure> {
    let answer = match outcome.result {
        Ok(result) => result.shown()?.0,
        Err(error) => Answer::Error { code: error.code(), message: error.to_string(), data: said(&error) },
    };
    let ms = milliseconds(outcome.duration);
    Ok(Line { node: outcome.node, peer_id: outcome.peer_id.to_string(), ms, answer })
}
