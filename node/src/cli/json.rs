//! JSON arguments of the command line.

use std::io::Read;

use serde_json::Value;

use super::failure::Failure;

/// Reads `arguments` as JSON, one value each; `-` stands for what is on stdin, at most once.
pub(crate) fn read(arguments: &[String]) -> Result<Vec<Value>, Failure> {
    if arguments.iter().filter(|argument| *argument == "-").count() > 1 {
        return Err(Failure::own("`-` was given twice, but there is only one stdin"));
    }
    arguments.iter().enumerate().map(|(index, argument)| read_one(index + 1, argument)).collect()
}

fn read_one(number: usize, argument: &str) -> Result<Value, Failure> {
    let (what, text) = match argument {
        "-" => ("stdin".to_owned(), stdin()?),
        text => (format!("argument {number} `{}`", super::table::shorten(text, SHOWN)), text.to_owned()),
    };
    serde_json::from_str(&text)
        .map_err(|error| Failure::own(format!("{what} is not JSON: {error}; {}", hint(argument))))
}

/// What was probably meant: a bare word is the most frequent slip.
fn hint(argument: &str) -> String {
    let word =
        !argument.is_empty() && argument.chars().all(|letter| letter.is_alphanumeric() || " _-./".contains(letter));
    let text = if word && argument != "-" { argument } else { "text" };
    format!("text needs quotes for JSON inside quotes for the shell: '\"{text}\"'")
}

fn stdin() -> Result<String, Failure> {
    let mut text = String::new();
    std::io::stdin()
        .lock()
        .take(LIMIT + 1)
        .read_to_string(&mut text)
        .map_err(|error| Failure::own(format!("cannot read stdin: {error}")))?;
    if text.len() as u64 > LIMIT {
        return Err(Failure::own(format!("stdin is longer than {} MiB, the most that is read", LIMIT >> 20)));
    }
    Ok(text)
}

/// The most that is read from stdin: well above what any node accepts as one message.
const LIMIT: u64 = 64 << 20;

/// How much of a wrong argument the error shows.
const SHOWN: usize = 60;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn arguments_are_json_values() {
        let arguments = ["1", "-2.5", "\"hi\"", "[null, {\"a\": true}]"].map(str::to_owned);
        assert_eq!(read(&arguments).unwrap(), [json!(1), json!(-2.5), json!("hi"), json!([null, {"a": true}])]);
    }

    #[test]
    fn the_error_names_the_argument_and_how_to_quote_it() {
        let error = read(&["1".to_owned(), "hi".to_owned()]).unwrap_err().to_string();
        assert!(error.contains("argument 2 `hi`") && error.contains("'\"hi\"'"), "{error}");
    }
}
