//! What a served process says: a line of JSON for each answer and each wish of its own.
//!
//! A process works on one request at a time. So a line that cannot be read, and that can only be meant as its answer, is
//! that answer: the request fails at once, with the reason, and nobody waits for what will never come.

use multinodes::{
    AppError, Budget, Payload,
    json::{JsonError, members},
};
use serde_json::Value;

use super::unreadable;

/// What a line comes to.
#[derive(Debug)]
pub(super) enum Heard {
    /// It says something.
    Said(Said),
    /// It can only be the answer to the request under way, and cannot be read; why.
    Broken(String),
    /// It asks for something, and cannot be read: what, under which number, why.
    Unanswerable { kind: &'static str, id: String, reason: String },
    /// It means nothing; why.
    Garbage(String),
}

/// What the child says.
#[derive(Debug)]
pub(super) enum Said {
    /// The answer to a request.
    Done { id: u64, outcome: Result<Payload, ReportedError> },
    /// How far a request is.
    Progress { id: u64, value: Payload },
    /// It calls an application.
    Call(OwnCall),
    /// It tells an application something.
    Tell(OwnTell),
    /// It describes itself anew.
    Describe(OwnDescription),
}

/// A call of the child.
#[derive(Debug)]
pub(super) struct OwnCall {
    /// Any JSON, as it was written.
    pub(super) id: String,
    pub(super) app: String,
    pub(super) action: String,
    pub(super) args: Payload,
    pub(super) node: Option<String>,
    pub(super) timeout_ms: Option<u64>,
    /// The request that it is made for: it ends with it.
    pub(super) within: Option<u64>,
}

/// A message of the child.
#[derive(Debug)]
pub(super) struct OwnTell {
    /// Without one there is no answer.
    pub(super) id: Option<String>,
    pub(super) app: String,
    pub(super) message: Payload,
    pub(super) node: Option<String>,
    pub(super) timeout_ms: Option<u64>,
    pub(super) within: Option<u64>,
}

/// What the child says of itself; what is left out stays as it is.
#[derive(Debug)]
pub(super) struct OwnDescription {
    /// Without one there is no answer.
    pub(super) id: Option<String>,
    pub(super) description: Option<Value>,
    pub(super) version: Option<String>,
    pub(super) actions: Option<Vec<String>>,
    /// Those of them that may run twice without harm.
    pub(super) idempotent: Option<Vec<String>>,
}

/// An error as the child reports it.
#[derive(Debug, Default)]
pub(super) struct ReportedError {
    code: Option<String>,
    message: Option<String>,
    data: Option<Payload>,
    /// Nothing of the request was done: a promise, which an error that is only passed on cannot make.
    refused: bool,
}

/// What a description may take as values; a record holds far less.
const DESCRIPTION: Budget = Budget { values: 64 << 10, bytes: 8 << 20 };

/// What the names of a description may take, and each of its other fields.
const NAMES: Budget = Budget { values: 64 << 10, bytes: 8 << 20 };

/// Reads a line; `current` is the request that the process works on.
pub(super) fn read(line: &[u8], current: Option<u64>) -> Heard {
    let fields = match Fields::of(line) {
        Ok(fields) => fields,
        Err(error) => return unreadable::judge(line, current, &error),
    };
    if let Some(call) = fields.call {
        return asked("call", call, |fields| fields.call().map(Said::Call));
    }
    if let Some(tell) = fields.tell {
        return asked("tell", tell, |fields| fields.tell().map(Said::Tell));
    }
    if let Some(describe) = fields.describe {
        return asked("describe", describe, |fields| fields.describe().map(Said::Describe));
    }
    fields.answer(current)
}

fn asked(kind: &'static str, text: &[u8], read: impl FnOnce(&Fields<'_>) -> Result<Said, String>) -> Heard {
    let fields = match Fields::of(text) {
        Ok(fields) => fields,
        Err(error) => return Heard::Garbage(format!("`{kind}`: {error}")),
    };
    match read(&fields) {
        Ok(said) => Heard::Said(said),
        Err(reason) => match fields.id {
            Some(id) => Heard::Unanswerable { kind, id: text_of(id), reason },
            None => Heard::Garbage(format!("`{kind}`: {reason}")),
        },
    }
}

/// Every key that an object of the protocol may have, with its value as it was written; what a later version adds is
/// passed over.
#[derive(Default)]
struct Fields<'a> {
    id: Option<&'a [u8]>,
    result: Option<&'a [u8]>,
    error: Option<&'a [u8]>,
    progress: Option<&'a [u8]>,
    call: Option<&'a [u8]>,
    tell: Option<&'a [u8]>,
    describe: Option<&'a [u8]>,
    app: Option<&'a [u8]>,
    action: Option<&'a [u8]>,
    args: Option<&'a [u8]>,
    message: Option<&'a [u8]>,
    node: Option<&'a [u8]>,
    timeout_ms: Option<&'a [u8]>,
    within: Option<&'a [u8]>,
    description: Option<&'a [u8]>,
    version: Option<&'a [u8]>,
    actions: Option<&'a [u8]>,
    idempotent: Option<&'a [u8]>,
    code: Option<&'a [u8]>,
    data: Option<&'a [u8]>,
    refused: Option<&'a [u8]>,
    /// It is a request, which some print.
    caller: Option<&'a [u8]>,
    /// Keys of none of these names.
    others: usize,
}

impl<'a> Fields<'a> {
    fn of(text: &'a [u8]) -> Result<Self, JsonError> {
        let mut fields = Self::default();
        members(text, |key, value| match fields.field(key) {
            Some(field) => *field = Some(value),
            None => fields.others += 1,
        })?;
        Ok(fields)
    }

    fn field(&mut self, key: &str) -> Option<&mut Option<&'a [u8]>> {
        Some(match key {
            "id" => &mut self.id,
            "result" => &mut self.result,
            "error" => &mut self.error,
            "progress" => &mut self.progress,
            "call" => &mut self.call,
            "tell" => &mut self.tell,
            "describe" => &mut self.describe,
            "app" => &mut self.app,
            "action" => &mut self.action,
            "args" => &mut self.args,
            "message" => &mut self.message,
            "node" => &mut self.node,
            "timeout_ms" => &mut self.timeout_ms,
            "for" => &mut self.within,
            "description" => &mut self.description,
            "version" => &mut self.version,
            "actions" => &mut self.actions,
            "idempotent" => &mut self.idempotent,
            "code" => &mut self.code,
            "data" => &mut self.data,
            "refused" => &mut self.refused,
            "caller" => &mut self.caller,
            _ => return None,
        })
    }

    fn answer(&self, current: Option<u64>) -> Heard {
        let answers = self.result.is_some() || self.error.is_some();
        let nothing = || Heard::Garbage(NEITHER.to_owned());
        let Some(id) = self.id else {
            let is_meant = answers && self.others == 0 && current.is_some();
            return if is_meant { Heard::Broken("it has no `id`".to_owned()) } else { nothing() };
        };
        let Ok(number) = serde_json::from_slice::<u64>(id) else {
            let is_meant = current.is_some_and(|current| answers || is_written(id, current));
            let reason = || format!("its `id` is {}, where the whole number of the request is expected", text_of(id));
            return if is_meant && self.caller.is_none() { Heard::Broken(reason()) } else { nothing() };
        };
        let broken = |reason: String| match current {
            Some(current) if current == number => Heard::Broken(reason),
            _ => Heard::Garbage(reason),
        };
        let said = match (self.result, self.error, self.progress) {
            (Some(_), Some(_), _) => return broken("it has both a `result` and an `error`".to_owned()),
            (None, Some(error), _) => {
                ReportedError::read(error).map(|error| Said::Done { id: number, outcome: Err(error) })
            }
            (Some(result), None, _) => {
                named("result", Payload::from_json(result)).map(|result| Said::Done { id: number, outcome: Ok(result) })
            }
            (None, None, Some(progress)) => match Payload::from_json(progress) {
                Ok(value) => Ok(Said::Progress { id: number, value }),
                // How far it is does not decide what comes of it.
                Err(error) => return Heard::Garbage(format!("`progress`: {error}")),
            },
            (None, None, None) if self.caller.is_some() => return nothing(),
            (None, None, None) => Err("it has neither a `result` nor an `error`".to_owned()),
        };
        said.map_or_else(broken, Heard::Said)
    }

    fn call(&self) -> Result<OwnCall, String> {
        let args = match self.args {
            Some(args) if args.starts_with(b"[") => named("args", Payload::from_json(args))?,
            Some(_) => return Err("`args` is no list".to_owned()),
            None => named("args", Payload::from_json(b"[]"))?,
        };
        Ok(OwnCall {
            id: self.id.map(text_of).ok_or("`id` is missing")?,
            app: needed("app", self.app)?,
            action: needed("action", self.action)?,
            args,
            node: field("node", self.node)?,
            timeout_ms: field("timeout_ms", self.timeout_ms)?,
            within: field("for", self.within)?,
        })
    }

    fn tell(&self) -> Result<OwnTell, String> {
        let message = self.message.ok_or("`message` is missing")?;
        Ok(OwnTell {
            id: self.own_id(),
            app: needed("app", self.app)?,
            message: named("message", Payload::from_json(message))?,
            node: field("node", self.node)?,
            timeout_ms: field("timeout_ms", self.timeout_ms)?,
            within: field("for", self.within)?,
        })
    }

    fn describe(&self) -> Result<OwnDescription, String> {
        let description = self.description.map(|text| {
            named("description", Payload::from_json(text).and_then(|value| value.to_json_within(DESCRIPTION)))
        });
        Ok(OwnDescription {
            id: self.own_id(),
            description: description.transpose()?,
            version: field("version", self.version)?,
            actions: field("actions", self.actions)?,
            idempotent: field("idempotent", self.idempotent)?,
        })
    }

    fn own_id(&self) -> Option<String> {
        self.id.filter(|id| *id != b"null").map(text_of)
    }
}

impl ReportedError {
    fn read(text: &[u8]) -> Result<Self, String> {
        if !text.starts_with(b"{") {
            let shown = unreadable::shown(text);
            return Err(format!("its `error` is {shown}, where an object with `code` and `message` is expected"));
        }
        let fields = named("error", Fields::of(text))?;
        Ok(Self {
            code: field("error.code", fields.code)?,
            message: field("error.message", fields.message)?,
            data: fields.data.map(|data| named("error.data", Payload::from_json(data))).transpose()?,
            refused: field("error.refused", fields.refused)?.unwrap_or_default(),
        })
    }

    /// As the caller of `action` gets it.
    pub(super) fn of(self, action: &str) -> AppError {
        let code = self.code.unwrap_or_else(|| "error".to_owned());
        let message = self.message.unwrap_or_else(|| code.clone());
        match (code.as_str(), self.data) {
            ("no_such_action", _) if self.refused => AppError::no_such_action(action),
            ("bad_arguments", _) if self.refused => AppError::bad_arguments(message),
            ("forbidden", _) if self.refused => AppError::forbidden(),
            ("busy", _) if self.refused => AppError::busy(message),
            (_, Some(data)) => AppError::new(code, message).with_raw_data(data),
            (_, None) => AppError::new(code, message),
        }
    }
}

const NEITHER: &str = "neither `id` with `result`, `error` or `progress`, nor `call`, `tell` or `describe`";

/// Whether a value that is no whole number is written as this one all the same: `7.0`, `"7"`.
fn is_written(id: &[u8], current: u64) -> bool {
    let text = text_of(id);
    text.trim_matches('"').parse::<f64>().is_ok_and(|id| id == current as f64)
}

fn named<T>(name: &str, read: Result<T, JsonError>) -> Result<T, String> {
    read.map_err(|error| format!("`{name}`: {error}"))
}

/// A field that may be missing; `null` is as good.
fn field<T: serde::de::DeserializeOwned>(name: &str, text: Option<&[u8]>) -> Result<Option<T>, String> {
    let Some(text) = text else { return Ok(None) };
    let value = named(name, Payload::from_json(text))?;
    value.decode_within(NAMES).map_err(|error| format!("`{name}`: {error}"))
}

fn needed<T: serde::de::DeserializeOwned>(name: &str, text: Option<&[u8]>) -> Result<T, String> {
    field(name, text)?.ok_or_else(|| format!("`{name}` is missing"))
}

fn text_of(json: &[u8]) -> String {
    String::from_utf8_lossy(json).into_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn said(line: &str) -> Said {
        match read(line.as_bytes(), Some(7)) {
            Heard::Said(said) => said,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn an_answer_may_be_null() {
        let null = Payload::from_json(b"null").unwrap();
        let answer = said(r#"{"id":7,"result":null}"#);
        assert!(matches!(answer, Said::Done { id: 7, outcome: Ok(result) } if result == null));
        let progress = said(r#" {"id":7,"progress":null,"later":1}"#);
        assert!(matches!(progress, Said::Progress { id: 7, value } if value == null));
    }

    fn reported(error: &str) -> AppError {
        match said(&format!(r#"{{"id":1,"error":{error}}}"#)) {
            Said::Done { id: 1, outcome: Err(error) } => error.of("add"),
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
    fn a_line_that_can_only_be_the_answer_fails_it_with_the_reason() {
        let deep = format!(r#"{{"id":7,"result":{}{}}}"#, "[".repeat(130), "]".repeat(130));
        for (line, reason) in [
            (r#"{"id":7,"result":"\ud800"}"#, "lone surrogate"),
            (r#"{"id":7,"result":NaN}"#, "NaN"),
            (r#"{"id": 7, "result": [Infinity]}"#, "Infinity"),
            (r#"{"id":7,"result":1e400}"#, "1e400"),
            (r#"{"id":7,"result":18446744073709551617}"#, "more than 64 bits"),
            (r#"{"id":7,"result":{"a":1,"a":2}}"#, "the key `a`"),
            (&deep, "nested"),
            (r#"{"id":7,"error":"boom"}"#, "its `error` is \"boom\""),
            (r#"{"id":7,"error":null}"#, "its `error` is null"),
            (r#"{"id":7.0,"result":1}"#, "its `id` is 7.0"),
            (r#"{"id":"7","result":1}"#, "its `id` is \"7\""),
            (r#"{"id":null,"result":1}"#, "its `id` is null"),
            (r#"{"id":7}"#, "neither a `result` nor an `error`"),
            (r#"{"id":7,"result":1,"error":{}}"#, "both"),
            (r#"{"result":1}"#, "no `id`"),
            (r#"half a line{"id":7,"result":1}"#, "`half a line`"),
            (r#"{"id":7,"result":1} and more"#, "trailing characters"),
            (r#"{"id":7,"result":[1,2"#, "not JSON"),
            (r#"{'id': 7, 'result': None}"#, "double quotes"),
            ("{\"id\":7,\"result\":\"\u{1}\"}", "control character"),
        ] {
            match read(line.as_bytes(), Some(7)) {
                Heard::Broken(broken) => assert!(broken.contains(reason), "{line}: {broken}"),
                other => panic!("{line}: {other:?}"),
            }
            assert!(matches!(read(line.as_bytes(), None), Heard::Garbage(_)), "nobody waits: {line}");
        }
        assert!(
            matches!(read(b"{\"id\":7,\"result\":\"\xff\"}", Some(7)), Heard::Broken(reason) if reason.contains("UTF-8"))
        );
    }

    #[test]
    fn what_is_no_answer_fails_nothing() {
        for line in [
            "",
            "hello",
            "[7,3]",
            "7",
            "{",
            "\u{fffd}",
            r#"{"call":5}"#,
            r#"{"progress":1}"#,
            r#"{"id":"x"}"#,
            r#"{"id":8,"result":NaN}"#,
            r#"{"id":7,"progress":NaN}"#,
            r#"{"level":"info","message":"x"}"#,
            r#"{"level":"error","error":"x"}"#,
            "{'a': 1}",
            "x = {1: 2}",
            r#"{'id': 7, 'action': 'add', 'args': [], 'caller': '12D'}"#,
            r#"{"id":7,"action":"add","args":[],"caller":"12D"}"#,
        ] {
            let heard = read(line.as_bytes(), Some(7));
            assert!(matches!(heard, Heard::Garbage(_)), "{line}: {heard:?}");
        }
    }

    #[test]
    fn a_wish_that_cannot_be_read_is_answered() {
        for (line, reason) in [
            (r#"{"call":{"id":"c1","app":"a","action":"b","args":[1e400]}}"#, "1e400"),
            (r#"{"call":{"id":"c1","app":"a","action":"b","args":[NaN]}}"#, "NaN"),
            (r#"{"call":{"id":"c1","app":"a"}}"#, "`action` is missing"),
            (r#"{"call":{"id":"c1","app":5,"action":"b"}}"#, "`app`"),
        ] {
            match read(line.as_bytes(), Some(7)) {
                Heard::Unanswerable { kind: "call", id, reason: why } => {
                    assert_eq!(id, "\"c1\"");
                    assert!(why.contains(reason), "{line}: {why}");
                }
                other => panic!("{line}: {other:?}"),
            }
        }
        assert!(
            matches!(said(r#"{"call":{"id":1,"app":"a","action":"b"}}"#), Said::Call(OwnCall { args, .. }) if args.as_bytes() == [0x80])
        );
    }
}
