//! JSON arguments of the command line.

use std::io::Read;

use multinodes::{
    Payload,
    json::{JsonError, JsonProblem},
};

use super::{failure::Failure, streams};

/// Reads `arguments` as JSON, the arguments of a call; `-` stands for what is on stdin, at most once.
pub(crate) fn arguments(arguments: &[String]) -> Result<Payload, Failure> {
    if arguments.iter().filter(|argument| *argument == "-").count() > 1 {
        return Err(Failure::own("`-` was given twice, but there is only one stdin"));
    }
    let stdin = if arguments.iter().any(|argument| argument == "-") { stdin()? } else { Vec::new() };
    let texts: Vec<_> = arguments.iter().map(|argument| text(argument, &stdin)).collect();
    Payload::arguments_from_json(&texts).map_err(|(place, error)| refused(place + 1, &arguments[place], &error))
}

/// Reads a message as JSON; `-` stands for what is on stdin.
pub(crate) fn message(argument: &str) -> Result<Payload, Failure> {
    let stdin = if argument == "-" { stdin()? } else { Vec::new() };
    Payload::from_json(text(argument, &stdin)).map_err(|error| refused(1, argument, &error))
}

fn text<'a>(argument: &'a str, stdin: &'a [u8]) -> &'a [u8] {
    if argument == "-" { stdin } else { argument.as_bytes() }
}

fn refused(number: usize, argument: &str, error: &JsonError) -> Failure {
    let what = match argument {
        "-" => "stdin".to_owned(),
        text => format!("argument {number} `{}`", super::table::shorten(text, SHOWN)),
    };
    match error.problem() {
        JsonProblem::Syntax(_) | JsonProblem::NotUtf8 | JsonProblem::NotFinite(_) => {
            Failure::own(format!("{what} is not JSON: {error}; {}", hint(argument)))
        }
        _ => Failure::own(format!("{what} cannot be sent as it is: {error}")),
    }
}

/// What was probably meant: a bare word is the most frequent slip.
fn hint(argument: &str) -> String {
    let word =
        !argument.is_empty() && argument.chars().all(|letter| letter.is_alphanumeric() || " _-./".contains(letter));
    let text = if word && argument != "-" { argument } else { "text" };
    format!("text needs quotes for JSON inside quotes for the shell: '\"{text}\"'")
}

/// It ran, and its result is not what JSON has.
pub(crate) fn unwritable(error: JsonError) -> Failure {
    Failure::own(format!("its result cannot be written as JSON: {error}"))
}

fn stdin() -> Result<Vec<u8>, Failure> {
    let mut text = Vec::new();
    let read = streams::stdin().and_then(|stdin| stdin.take(LIMIT + 1).read_to_end(&mut text));
    read.map_err(|error| Failure::own(format!("cannot read stdin: {error}")))?;
    if text.len() as u64 > LIMIT {
        return Err(Failure::own(format!("stdin is longer than {} MiB, the most that is read", LIMIT >> 20)));
    }
    if text.starts_with(BYTE_ORDER_MARK) {
        text.drain(..BYTE_ORDER_MARK.len());
    }
    Ok(text)
}

/// The most that is read from stdin: well above what any node accepts as one message.
const LIMIT: u64 = 64 << 20;

/// What some editors put at the beginning of a text.
pub(crate) const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// How much of a wrong argument the error shows.
const SHOWN: usize = 60;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn arguments_are_json_values() {
        let arguments = ["1", "-2.5", "\"hi\"", "[null, {\"a\": true}]"].map(str::to_owned);
        let read = super::arguments(&arguments).unwrap().to_json().unwrap();
        assert_eq!(read, json!([1, -2.5, "hi", [null, {"a": true}]]));
        assert_eq!(message("{\"a\":-0}").unwrap().json().unwrap().to_string(), "{\"a\":-0}");
    }

    #[test]
    fn the_error_names_the_argument_and_how_to_quote_it() {
        let error = arguments(&["1".to_owned(), "hi".to_owned()]).unwrap_err().to_string();
        assert!(error.contains("argument 2 `hi`") && error.contains("'\"hi\"'"), "{error}");
        let error = arguments(&["18446744073709551617".to_owned()]).unwrap_err().to_string();
        assert!(error.contains("argument 1") && error.contains("more than 64 bits"), "{error}");
    }
}
