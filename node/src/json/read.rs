//! Reads JSON texts strictly, without making values of them.

use super::{
    MAX_DEPTH,
    error::{JsonError, JsonProblem, shown},
    keys::Keys,
    number::{self, Number},
};

/// What is done with what is read.
pub(super) trait Sink {
    fn null(&mut self) {}
    fn bool(&mut self, _: bool) {}
    fn number(&mut self, _: Number) {}
    fn text(&mut self, _: &str) {}
    /// A key, at which an object may be refused.
    fn key(&mut self, _: &str) -> bool {
        true
    }
    fn open(&mut self, _: Kind) {}
    /// After so many elements or entries.
    fn close(&mut self, _: Kind, _: usize) {}
}

/// What can hold others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    List,
    Object,
}

/// How exactly a text is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Care {
    /// Numbers must come back as they are.
    Exact,
    /// It was read before, or it does not matter.
    Rounded,
    /// It was read before, or it does not matter, and neither do its numbers.
    Passed,
}

pub(super) struct Reader<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
    care: Care,
    /// A text without its escapes.
    scratch: String,
}

/// A text that was read.
enum Span {
    /// Without escapes: it stands there.
    Plain(usize, usize),
    Scratch,
}

impl<'a> Reader<'a> {
    /// Reads a text that is itself so deep in another one.
    pub(super) fn new(text: &'a [u8], depth: usize, care: Care) -> Result<Self, JsonError> {
        let text =
            std::str::from_utf8(text).map_err(|error| JsonError::new(JsonProblem::NotUtf8, error.valid_up_to()))?;
        Ok(Self { text, at: 0, depth, care, scratch: String::new() })
    }

    /// Reads exactly one value.
    pub(super) fn all(mut self, sink: &mut impl Sink) -> Result<(), JsonError> {
        self.value(sink)?;
        self.end()
    }

    fn end(&mut self) -> Result<(), JsonError> {
        match self.next_token() {
            None => Ok(()),
            Some(_) => Err(self.wrong("trailing characters")),
        }
    }

    fn value(&mut self, sink: &mut impl Sink) -> Result<(), JsonError> {
        match self.next_token() {
            Some(b'"') => {
                let text = self.string()?;
                sink.text(self.get(&text));
            }
            Some(b'{') => return self.object(sink),
            Some(b'[') => return self.list(sink),
            Some(b'-' | b'0'..=b'9') => self.number(sink)?,
            Some(b't') => self.word("true").map(|()| sink.bool(true))?,
            Some(b'f') => self.word("false").map(|()| sink.bool(false))?,
            Some(b'n') => self.word("null").map(|()| sink.null())?,
            Some(b'N') => return Err(self.not_finite("NaN")),
            Some(b'I') => return Err(self.not_finite("Infinity")),
            Some(_) => return Err(self.wrong("a value is expected")),
            None => return Err(self.wrong("it ends where a value is expected")),
        }
        Ok(())
    }

    fn list(&mut self, sink: &mut impl Sink) -> Result<(), JsonError> {
        self.enter()?;
        sink.open(Kind::List);
        let mut count = 0;
        if self.next_token() == Some(b']') {
            self.at += 1;
        } else {
            loop {
                self.value(sink)?;
                count += 1;
                match self.next_token() {
                    Some(b',') => self.at += 1,
                    Some(b']') => {
                        self.at += 1;
                        break;
                    }
                    _ => return Err(self.wrong("`,` or `]` is expected")),
                }
            }
        }
        self.depth -= 1;
        sink.close(Kind::List, count);
        Ok(())
    }

    fn object(&mut self, sink: &mut impl Sink) -> Result<(), JsonError> {
        self.enter()?;
        sink.open(Kind::Object);
        let mut count = 0;
        if self.next_token() == Some(b'}') {
            self.at += 1;
        } else {
            loop {
                let (key, at) = self.key()?;
                if !sink.key(self.get(&key)) {
                    return Err(JsonError::new(JsonProblem::SameKey(shown(self.get(&key))), at));
                }
                self.value(sink)?;
                count += 1;
                if self.ends_object()? {
                    break;
                }
            }
        }
        self.depth -= 1;
        sink.close(Kind::Object, count);
        Ok(())
    }

    /// A key, the colon behind it, and where it stood.
    fn key(&mut self) -> Result<(Span, usize), JsonError> {
        if self.next_token() != Some(b'"') {
            return Err(self.wrong("a key in double quotes is expected"));
        }
        let at = self.at;
        let key = self.string()?;
        if self.next_token() != Some(b':') {
            return Err(self.wrong("`:` is expected"));
        }
        self.at += 1;
        Ok((key, at))
    }

    fn ends_object(&mut self) -> Result<bool, JsonError> {
        let ends = match self.next_token() {
            Some(b',') => false,
            Some(b'}') => true,
            _ => return Err(self.wrong("`,` or `}` is expected")),
        };
        self.at += 1;
        Ok(ends)
    }

    /// One list or object deeper.
    fn enter(&mut self) -> Result<(), JsonError> {
        if self.depth >= MAX_DEPTH {
            return Err(JsonError::new(JsonProblem::Depth, self.at));
        }
        self.at += 1;
        self.depth += 1;
        Ok(())
    }

    fn number(&mut self, sink: &mut impl Sink) -> Result<(), JsonError> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        match self.peek() {
            Some(b'0') => self.at += 1,
            Some(b'1'..=b'9') => self.digits()?,
            Some(b'I') => {
                self.at = start;
                return Err(self.not_finite("-Infinity"));
            }
            _ => return Err(self.wrong("a digit is expected")),
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        if self.care == Care::Passed {
            return Ok(());
        }
        let number = number::read(&self.text[start..self.at], self.care == Care::Rounded);
        sink.number(number.map_err(|problem| JsonError::new(problem, start))?);
        Ok(())
    }

    fn digits(&mut self) -> Result<(), JsonError> {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        if self.at == start { Err(self.wrong("a digit is expected")) } else { Ok(()) }
    }

    fn word(&mut self, word: &'static str) -> Result<(), JsonError> {
        if !self.text.as_bytes()[self.at..].starts_with(word.as_bytes()) {
            return Err(self.wrong("a value is expected"));
        }
        self.at += word.len();
        Ok(())
    }

    /// The error for a word that several languages write in place of a number.
    fn not_finite(&self, word: &'static str) -> JsonError {
        if self.text.as_bytes()[self.at..].starts_with(word.as_bytes()) {
            JsonError::new(JsonProblem::NotFinite(word), self.at)
        } else {
            self.wrong("a value is expected")
        }
    }

    /// A text, from its first quote to its last.
    fn string(&mut self) -> Result<Span, JsonError> {
        self.at += 1;
        let start = self.at;
        self.skip_plain();
        if self.peek() == Some(b'"') {
            self.at += 1;
            return Ok(Span::Plain(start, self.at - 1));
        }
        self.scratch.clear();
        let mut plain = start;
        loop {
            self.scratch.push_str(&self.text[plain..self.at]);
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(Span::Scratch);
                }
                Some(b'\\') => self.escape()?,
                Some(_) => return Err(self.wrong("a control character in a text has to be escaped")),
                None => return Err(self.wrong("it ends within a text")),
            }
            plain = self.at;
            self.skip_plain();
        }
    }

    fn skip_plain(&mut self) {
        let rest = &self.text.as_bytes()[self.at..];
        let plain = rest.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..0x20));
        self.at += plain.unwrap_or(rest.len());
    }

    fn escape(&mut self) -> Result<(), JsonError> {
        let start = self.at;
        self.at += 1;
        let letter = match self.peek() {
            Some(letter @ (b'"' | b'\\' | b'/')) => char::from(letter),
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                self.at += 1;
                let letter = self.unicode(start)?;
                self.scratch.push(letter);
                return Ok(());
            }
            _ => return Err(self.wrong("an escape is expected")),
        };
        self.at += 1;
        self.scratch.push(letter);
        Ok(())
    }

    /// The character behind `\u`, which may take two of them.
    fn unicode(&mut self, start: usize) -> Result<char, JsonError> {
        let first = self.hex()?;
        if let Some(letter) = char::from_u32(u32::from(first)) {
            return Ok(letter);
        }
        let lone = JsonError::new(JsonProblem::LoneSurrogate(first), start);
        if first >= LOW_SURROGATE || !self.text.as_bytes()[self.at..].starts_with(b"\\u") {
            return Err(lone);
        }
        self.at += 2;
        let both = char::decode_utf16([first, self.hex()?]).next();
        both.and_then(Result::ok).ok_or(lone)
    }

    fn hex(&mut self) -> Result<u16, JsonError> {
        let digits =
            self.text.as_bytes().get(self.at..self.at + 4).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit));
        let digits = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        let Some(digits) = digits else { return Err(self.wrong("four hexadecimal digits are expected")) };
        self.at += 4;
        u16::from_str_radix(digits, 16).map_err(|_| self.wrong("four hexadecimal digits are expected"))
    }

    fn get(&self, text: &Span) -> &str {
        match text {
            Span::Plain(start, end) => &self.text[*start..*end],
            Span::Scratch => &self.scratch,
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// The next byte that is no blank.
    fn next_token(&mut self) -> Option<u8> {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
        self.peek()
    }

    fn wrong(&self, expected: &'static str) -> JsonError {
        JsonError::new(JsonProblem::Syntax(expected), self.at)
    }
}

/// From here on it is the second half of a pair.
const LOW_SURROGATE: u16 = 0xdc00;

/// Takes whatever comes.
struct Nothing;

impl Sink for Nothing {}

/// Reads a JSON object, and gives each of its members to `each`: the key, and the JSON text of the value as it stands
/// there. So an object can be taken apart of which some members are large.
///
/// # Errors
///
/// [`JsonError`]: it is no object of JSON, or has a key twice. Numbers are not looked at.
pub fn members<'a>(text: &'a [u8], mut each: impl FnMut(&str, &'a [u8])) -> Result<(), JsonError> {
    // The values may be as deep as they could be alone.
    let mut reader = Reader::new(text, 0, Care::Passed)?;
    let mut keys = Keys::default();
    keys.open();
    if reader.next_token() != Some(b'{') {
        return Err(reader.wrong("an object is expected"));
    }
    reader.at += 1;
    if reader.next_token() == Some(b'}') {
        reader.at += 1;
        return reader.end();
    }
    loop {
        let (key, at) = reader.key()?;
        let key = reader.get(&key).to_owned();
        if !keys.insert(&key) {
            return Err(JsonError::new(JsonProblem::SameKey(shown(&key)), at));
        }
        reader.next_token();
        let start = reader.at;
        reader.value(&mut Nothing)?;
        each(&key, &text[start..reader.at]);
        if reader.ends_object()? {
            return reader.end();
        }
    }
}
