//! The lines between a node and a served child, one JSON object each. `examples/workers/README.md` describes them.

use std::time::Duration;

use multinodes::{AppError, CallError};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value, json};

/// A request to the child, but for its end: what is left of its time is known when it is written.
pub(super) fn call(id: u64, action: &str, arguments: &[Value], caller: &str) -> serde_json::Result<Vec<u8>> {
    #[derive(Serialize)]
    struct Call<'a> {
        id: u64,
        action: &'a str,
        args: &'a [Value],
        caller: &'a str,
    }
    open(&Call { id, action, args: arguments, caller })
}

/// A message to the child, but for its end.
pub(super) fn tell(id: u64, message: &Value, caller: &str) -> serde_json::Result<Vec<u8>> {
    #[derive(Serialize)]
    struct Tell<'a> {
        id: u64,
        message: &'a Value,
        caller: &'a str,
    }
    open(&Tell { id, message, caller })
}

/// An object without its closing brace.
fn open(object: &impl Serialize) -> serde_json::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(object)?;
    line.pop();
    Ok(line)
}

/// The end of a request.
pub(super) fn close(left: Option<Duration>) -> String {
    match left {
        Some(left) => format!(",\"deadline_ms\":{}}}\n", left.as_millis()),
        None => "}\n".to_owned(),
    }
}

/// A request is not wanted any more.
pub(super) fn cancel(id: u64) -> String {
    format!("{{\"cancel\":{id}}}\n")
}

/// The answer to what the child has asked for: `kind` is `call`, `tell` or `describe`.
pub(super) fn answer(kind: &str, id: &Value, outcome: Result<Value, ErrorLine>) -> String {
    let line = match outcome {
        Ok(result) => json!({ kind: id, "result": result }),
        Err(error) => json!({ kind: id, "error": error }),
    };
    format!("{line}\n")
}

/// An error as it is told to the child.
#[derive(Debug, Clone, Serialize)]
pub(super) struct ErrorLine {
    code: String,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Value>,
    /// `false` promises that nothing has happened.
    may_have_run: bool,
}

impl ErrorLine {
    pub(super) fn new(code: &str, message: impl Into<String>) -> Self {
        Self { code: code.to_owned(), message: message.into(), data: None, may_have_run: false }
    }

    pub(super) fn message(&self) -> &str {
        &self.message
    }

    pub(super) fn possibly_run(self) -> Self {
        Self { may_have_run: true, ..self }
    }
}

impl From<CallError> for ErrorLine {
    fn from(error: CallError) -> Self {
        let code = match &error {
            CallError::Failed { code, .. } => code.clone(),
            other => other.code().to_owned(),
        };
        let message = match &error {
            CallError::Failed { message, .. } => message.clone(),
            other => other.to_string(),
        };
        Self { code, message, data: error.data(), may_have_run: error.may_have_run() }
    }
}

/// What the child says.
#[derive(Debug, PartialEq)]
pub(super) enum Said {
    /// The answer to a request.
    Done { id: u64, outcome: Result<Value, ReportedError> },
    /// How far a request is.
    Progress { id: u64, value: Value },
    /// It calls an application.
    Call(OwnCall),
    /// It tells an application something.
    Tell(OwnTell),
    /// It describes itself anew.
    Describe(OwnDescription),
}

/// A call of the child.
#[derive(Debug, PartialEq, Deserialize)]
pub(super) struct OwnCall {
    pub(super) id: Value,
    pub(super) app: String,
    pub(super) action: String,
    #[serde(default)]
    pub(super) args: Vec<Value>,
    pub(super) node: Option<String>,
    pub(super) timeout_ms: Option<u64>,
    /// The request that it is made for: it ends with it.
    #[serde(rename = "for")]
    pub(super) within: Option<u64>,
}

/// A message of the child.
#[derive(Debug, PartialEq, Deserialize)]
pub(super) struct OwnTell {
    /// Without one there is no answer.
    pub(super) id: Option<Value>,
    pub(super) app: String,
    pub(super) message: Value,
    pub(super) node: Option<String>,
    pub(super) timeout_ms: Option<u64>,
    #[serde(rename = "for")]
    pub(super) within: Option<u64>,
}

/// What the child says of itself; what is left out stays as it is.
#[derive(Debug, PartialEq, Deserialize)]
pub(super) struct OwnDescription {
    /// Without one there is no answer.
    pub(super) id: Option<Value>,
    #[serde(default, deserialize_with = "present")]
    pub(super) description: Option<Value>,
    pub(super) version: Option<String>,
    pub(super) actions: Option<Vec<String>>,
    /// Those of them that may run twice without harm.
    pub(super) idempotent: Option<Vec<String>>,
}

/// Reads a line of the child; the error says what is wrong with it.
pub(super) fn read(line: &[u8]) -> Result<Said, String> {
    if line.trim_ascii_start().first() != Some(&b'{') {
        return Err("no JSON object".to_owned());
    }
    let line: Line = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    match line {
        Line { call: Some(call), .. } => Ok(Said::Call(call)),
        Line { tell: Some(tell), .. } => Ok(Said::Tell(tell)),
        Line { describe: Some(describe), .. } => Ok(Said::Describe(describe)),
        Line { id: Some(id), error: Some(error), .. } => Ok(Said::Done { id, outcome: Err(error) }),
        Line { id: Some(id), result: Some(result), .. } => Ok(Said::Done { id, outcome: Ok(result) }),
        Line { id: Some(id), progress: Some(value), .. } => Ok(Said::Progress { id, value }),
        _ => Err("neither `id` with `result`, `error` or `progress`, nor `call`, `tell` or `describe`".to_owned()),
    }
}

/// Every key that a line may have; what a later version adds is passed over.
#[derive(Deserialize)]
struct Line {
    id: Option<u64>,
    #[serde(default, deserialize_with = "present")]
    result: Option<Value>,
    error: Option<ReportedError>,
    #[serde(default, deserialize_with = "present")]
    progress: Option<Value>,
    call: Option<OwnCall>,
    tell: Option<OwnTell>,
    describe: Option<OwnDescription>,
}

/// An error as the child reports it.
#[derive(Debug, PartialEq, Deserialize)]
pub(super) struct ReportedError {
    code: Option<String>,
    message: Option<String>,
    #[serde(default, deserialize_with = "present")]
    data: Option<Value>,
    /// Nothing of the request was done: a promise, which an error that is only passed on cannot make.
    #[serde(default)]
    refused: bool,
}

impl ReportedError {
    /// As the caller of `action` gets it.
    pub(super) fn of(self, action: &str) -> AppError {
        let code = self.code.unwrap_or_else(|| "error".to_owned());
        let message = self.message.unwrap_or_else(|| code.clone());
        match (code.as_str(), self.data) {
            ("no_such_action", _) if self.refused => AppError::no_such_action(action),
            ("bad_arguments", _) if self.refused => AppError::bad_arguments(message),
            ("forbidden", _) if self.refused => AppError::forbidden(),
            ("busy", _) if self.refused => AppError::busy(message),
            (_, Some(data)) => AppError::new(code, message).with_data(&data),
            (_, None) => AppError::new(code, message),
        }
    }
}

/// Tells a value that is `null` from one that is missing.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(line: &str) -> Result<Said, String> {
        read(line.as_bytes())
    }

    #[test]
    fn an_answer_may_be_null() {
        assert_eq!(said(r#"{"id":7,"result":null}"#), Ok(Said::Done { id: 7, outcome: Ok(Value::Null) }));
        assert_eq!(said(r#" {"id":7,"progress":null,"later":1}"#), Ok(Said::Progress { id: 7, value: Value::Null }));
    }

    fn reported(error: &str) -> AppError {
        match said(&format!(r#"{{"id":1,"error":{error}}}"#)) {
            Ok(Said::Done { id: 1, outcome: Err(error) }) => error.of("add"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_error_has_a_code_a_message_and_data() {
        let error = reported(r#"{"code":"full","message":"no room","data":[1]}"#);
        assert_eq!(error, AppError::new("full", "no room").with_data(&json!([1])));
        assert_eq!(reported("{}"), AppError::new("error", "error"));
    }

    #[test]
    fn only_a_refusal_promises_that_nothing_was_done() {
        let refused = |code: &str| reported(&format!(r#"{{"code":"{code}","message":"x","refused":true}}"#));
        assert_eq!(refused("no_such_action"), AppError::no_such_action("add"));
        assert_eq!(refused("bad_arguments"), AppError::bad_arguments("x"));
        assert_eq!(refused("busy"), AppError::busy("x"));
        assert_eq!(refused("forbidden"), AppError::forbidden());
        assert_eq!(refused("full"), AppError::new("full", "x"));
        assert_eq!(reported(r#"{"code":"busy","message":"x"}"#), AppError::new("busy", "x"));
    }

    #[test]
    fn what_is_no_object_of_the_protocol_is_garbage() {
        for line in ["", "hello", "[7,3]", "7", r#"{"id":7}"#, r#"{"id":"7","result":1}"#, r#"{"call":{}}"#, "{"] {
            assert!(said(line).is_err(), "{line}");
        }
    }

    #[test]
    fn requests_are_one_line_each() {
        let mut line = call(7, "add\n", &[json!(1), json!("a\nb")], "12D").unwrap();
        line.extend(close(Some(Duration::from_millis(9500))).bytes());
        let expected = r#"{"id":7,"action":"add\n","args":[1,"a\nb"],"caller":"12D","deadline_ms":9500}"#;
        assert_eq!(String::from_utf8(line).unwrap(), format!("{expected}\n"));
        let mut line = tell(8, &json!({"a": 1}), "12D").unwrap();
        line.extend(close(None).bytes());
        assert_eq!(String::from_utf8(line).unwrap(), "{\"id\":8,\"message\":{\"a\":1},\"caller\":\"12D\"}\n");
    }
}
