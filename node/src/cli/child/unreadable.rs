//! Lines that are no object of JSON: whether they were meant as an answer.

use multinodes::json::{JsonError, members};

use super::said::Heard;

/// How much of what cannot be read is shown, in characters.
const SHOWN: usize = 60;

/// What a line that cannot be read comes to, while the process works on the request `current`.
pub(super) fn judge(line: &[u8], current: Option<u64>, error: &JsonError) -> Heard {
    let garbage = || Heard::Garbage(format!("not JSON: {error}"));
    let Some(start) = line.iter().position(|byte| *byte == b'{') else { return garbage() };
    let object = &line[start..];
    if let Some(kind) = ["call", "tell", "describe"].into_iter().find(|kind| begins_with(object, kind)) {
        let id = value(object, "id").map(|id| String::from_utf8_lossy(id).into_owned());
        // What goes back has to be JSON itself.
        let id = id.filter(|id| serde_json::from_str::<serde::de::IgnoredAny>(id).is_ok());
        return match id {
            Some(id) => Heard::Unanswerable { kind, id, reason: error.to_string() },
            None => garbage(),
        };
    }
    let Some(current) = current else { return garbage() };
    let answers = value(object, "result").is_some() || value(object, "error").is_some();
    // Who prints what it was asked has not answered; and how far it is does not decide what comes of it.
    if !answers && ["caller", "progress"].into_iter().any(|key| value(object, key).is_some()) {
        return garbage();
    }
    let is_meant = match value(object, "id") {
        Some(id) => std::str::from_utf8(id).ok().and_then(|id| id.parse::<u64>().ok()).is_none_or(|id| id == current),
        None => answers && start == 0,
    };
    if !is_meant {
        return garbage();
    }
    Heard::Broken(match prefix(line) {
        Some(prefix) => format!("other output stands before it on the line: `{}`", shown(prefix)),
        None => format!("it is not JSON: {error}"),
    })
}

/// What stands before an answer that could be read without it: a print that did not end its line.
fn prefix(line: &[u8]) -> Option<&[u8]> {
    let key = place(line, "id").or_else(|| place(line, "result"))?;
    let start = line[..key].iter().rposition(|byte| *byte == b'{')?;
    (start > 0 && members(&line[start..], |_, _| {}).is_ok()).then(|| &line[..start])
}

/// The beginning of bytes that may be anything.
pub(super) fn shown(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(4 * SHOWN)]);
    let mut shown: String = text.chars().take(SHOWN).flat_map(char::escape_debug).collect();
    // Quotes are what one expects there.
    shown = shown.replace("\\\"", "\"").replace("\\'", "'");
    if text.chars().count() > SHOWN || bytes.len() > 4 * SHOWN { shown + "…" } else { shown }
}

/// Whether the first key of an object is this one.
fn begins_with(object: &[u8], key: &str) -> bool {
    place(object, key).is_some_and(|place| object[1..place].iter().all(|byte| matches!(byte, b' ' | b'"' | b'\'')))
}

/// What follows a key up to a comma, a brace or a blank, in whichever way the key is quoted.
fn value<'a>(text: &'a [u8], key: &str) -> Option<&'a [u8]> {
    let rest = &text[place(text, key)? + key.len()..];
    let rest = &rest[rest.iter().position(|byte| *byte == b':')? + 1..];
    let rest = rest.trim_ascii_start();
    let end = rest.iter().position(|byte| matches!(byte, b',' | b'}' | b']' | b' ')).unwrap_or(rest.len());
    Some(&rest[..end])
}

/// Where a key stands the first time: its name, perhaps quotes and blanks, and a colon.
fn place(text: &[u8], key: &str) -> Option<usize> {
    let is_key = |start: &usize| {
        let before = start.checked_sub(1).and_then(|before| text.get(before));
        let after = text[start + key.len()..].iter().find(|byte| !matches!(byte, b' ' | b'"' | b'\''));
        before.is_some_and(|byte| matches!(byte, b'"' | b'\'' | b' ' | b',' | b'{')) && after == Some(&b':')
    };
    let starts = text.windows(key.len()).enumerate().filter(|(_, window)| *window == key.as_bytes());
    starts.map(|(start, _)| start).find(is_key)
}
