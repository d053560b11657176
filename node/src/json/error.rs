//! What JSON does not say, and where.

use std::fmt;

use multinodes_behaviour::codec::Overspent;

/// A text that is not JSON, or a value that does not survive the way between JSON and CBOR.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JsonError {
    problem: JsonProblem,
    /// The place, from 0.
    at: usize,
}

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JsonProblem {
    /// Not JSON; what was expected.
    #[error("{0}")]
    Syntax(&'static str),
    /// Bytes that are no text.
    #[error("not UTF-8")]
    NotUtf8,
    /// Half a character.
    #[error("the lone surrogate `\\u{0:04x}`, which is no character")]
    LoneSurrogate(u16),
    /// An integer that does not fit.
    #[error("the integer `{0}`, which has more than 64 bits")]
    LargeInteger(String),
    /// A number beyond the floats.
    #[error("the number `{0}`, which is beyond what a 64-bit float can hold")]
    FloatRange(String),
    /// A number that would be rounded.
    #[error("the number `{text}`, which a 64-bit float would round to `{rounded}`")]
    Rounded {
        /// As it was written.
        text: String,
        /// What would become of it.
        rounded: String,
    },
    /// Not a number, or infinite.
    #[error("the number `{0}`, which JSON does not have")]
    NotFinite(&'static str),
    /// The same key again.
    #[error("the key `{0}`, which stands twice in one object")]
    SameKey(String),
    /// A key of CBOR that is no text.
    #[error("a key that is {0}: in JSON all keys are texts")]
    KeyNoText(&'static str),
    /// A number with a tag of its own.
    #[error("a number of more than 64 bits (tag {0}), which most readers of JSON would round")]
    TaggedNumber(u64),
    /// Too many lists or objects in each other.
    #[error("lists or objects nested deeper than {}", super::MAX_DEPTH)]
    Depth,
    /// A text of 4 GiB or more.
    #[error("more than 4 GiB of JSON")]
    TooLong,
    /// Bytes that are not CBOR.
    #[error("not CBOR: {0}")]
    Cbor(&'static str),
    /// As values it would take too much memory.
    #[error(transparent)]
    OverBudget(#[from] Overspent),
}

impl JsonError {
    pub(super) fn new(problem: JsonProblem, at: usize) -> Self {
        Self { problem, at }
    }

    /// What is wrong.
    #[must_use]
    pub fn problem(&self) -> &JsonProblem {
        &self.problem
    }

    /// Where in the text or the message, in bytes from 0.
    #[must_use]
    pub fn offset(&self) -> usize {
        self.at
    }
}

impl fmt::Display for JsonError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.problem {
            JsonProblem::OverBudget(overspent) => overspent.fmt(formatter),
            problem => write!(formatter, "{problem}, at byte {}", self.at + 1),
        }
    }
}

impl std::error::Error for JsonError {}

/// So much of a wrong text is shown, in characters.
const SHOWN: usize = 60;

/// The beginning of a text, for an error.
pub(super) fn shown(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
