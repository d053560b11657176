//! The lines between a node and a served child, one JSON object each. `examples/workers/README.md` describes them.

use std::time::Duration;

use multinodes::{
    CallError, Payload,
    json::{Exact, Json},
};
use serde::{Serialize, Serializer};
use serde_json::{json, ser::CompactFormatter};

/// A request to the child, but for its end: what is left of its time is known when it is written. `arguments` is a list.
pub(super) fn call(id: u64, action: &str, arguments: Json<'_>, caller: &str) -> Vec<u8> {
    let head = format!("{{\"id\":{id},\"action\":{},\"args\":", json!(action));
    request(head, arguments, caller)
}

/// A message to the child, but for its end.
pub(super) fn tell(id: u64, message: Json<'_>, caller: &str) -> Vec<u8> {
    request(format!("{{\"id\":{id},\"message\":"), message, caller)
}

fn request(head: String, value: Json<'_>, caller: &str) -> Vec<u8> {
    let mut line = head.into_bytes();
    value.append_to(&mut line);
    line.extend_from_slice(format!(",\"caller\":{}", json!(caller)).as_bytes());
    line
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

/// The answer to what the child has asked for: `kind` is `call`, `tell` or `describe`, `id` any JSON.
pub(super) fn answer(kind: &str, id: &str, outcome: Result<Payload, ErrorLine>) -> Vec<u8> {
    let mut line = format!("{{\"{kind}\":{id},").into_bytes();
    let outcome = match &outcome {
        Ok(result) => {
            result.json().map_err(|error| ErrorLine::new("unexpected_result", error.to_string()).possibly_run())
        }
        Err(error) => Err(error.clone()),
    };
    match outcome {
        Ok(result) => {
            line.extend_from_slice(b"\"result\":");
            result.append_to(&mut line);
        }
        Err(error) => {
            line.extend_from_slice(b"\"error\":");
            let mut serializer = serde_json::Serializer::with_formatter(&mut line, Exact(CompactFormatter));
            // Texts and what was checked: writing it to memory cannot fail.
            let _ = error.serialize(&mut serializer);
        }
    }
    line.extend_from_slice(b"}\n");
    line
}

/// An error as it is told to the child.
#[derive(Debug, Clone, Serialize)]
pub(super) struct ErrorLine {
    code: String,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "as_json")]
    data: Option<Payload>,
    /// `false` promises that nothing has happened.
    may_have_run: bool,
}

fn as_json<S: Serializer>(data: &Option<Payload>, serializer: S) -> Result<S::Ok, S::Error> {
    match data.as_ref().map(Payload::json) {
        Some(Ok(data)) => data.serialize(serializer),
        _ => serializer.serialize_unit(),
    }
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
        Self {
            code,
            message,
            data: error.raw_data().filter(|data| data.json().is_ok()).cloned(),
            may_have_run: error.may_have_run(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_one_line_each() {
        let arguments = Payload::from_json(br#"[1,"a\nb"]"#).unwrap();
        let mut line = call(7, "add\n", arguments.json().unwrap(), "12D");
        line.extend(close(Some(Duration::from_millis(9500))).bytes());
        let expected = r#"{"id":7,"action":"add\n","args":[1,"a\nb"],"caller":"12D","deadline_ms":9500}"#;
        assert_eq!(String::from_utf8(line).unwrap(), format!("{expected}\n"));
        let message = Payload::from_json(br#"{"z":1,"a":-0}"#).unwrap();
        let mut line = tell(8, message.json().unwrap(), "12D");
        line.extend(close(None).bytes());
        assert_eq!(String::from_utf8(line).unwrap(), "{\"id\":8,\"message\":{\"z\":1,\"a\":-0},\"caller\":\"12D\"}\n");
    }

    #[test]
    fn what_json_cannot_say_is_answered_with_an_error() {
        let answered =
            |result: &f64| String::from_utf8(answer("call", "\"c1\"", Ok(Payload::encode(result).unwrap()))).unwrap();
        assert_eq!(answered(&1.5), "{\"call\":\"c1\",\"result\":1.5}\n");
        assert!(answered(&f64::NAN).contains("unexpected_result"));
    }
}
