//! Why a text is no predicate, and where.

use super::{MAX_PREDICATE, compile};

/// A text is no predicate: what is wrong with it, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the predicate is wrong at line {line}, column {column}: {fault}")]
pub struct PredicateError {
    fault: PredicateFault,
    text: String,
    line: usize,
    column: usize,
}

/// What is wrong with a predicate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PredicateFault {
    /// The text has too many bytes.
    #[error("it has {size} bytes, the limit is {MAX_PREDICATE}")]
    TooLong {
        /// Its size, in bytes.
        size: usize,
    },
    /// Expressions within expressions go too deep, or there are too many brackets.
    #[error("it is nested too deeply, the limit is {}", compile::MAX_DEPTH)]
    TooDeep,
    /// There are too many brackets.
    #[error("it has more than {} brackets", compile::MAX_BRACKETS)]
    TooManyBrackets,
    /// It cannot be read.
    #[error("{0}")]
    Syntax(String),
    /// There is no such variable.
    #[error("there is no variable `{name}`, {known}")]
    UnknownVariable {
        /// As it was written.
        name: String,
        /// Which there are.
        known: &'static str,
    },
    /// A variable that only the host of an application has, where nodes are asked for.
    #[error("`{name}` is known only where an application is asked for; of a node there is `node`")]
    NoApplication {
        /// As it was written.
        name: String,
    },
    /// `node` and `app` have no such field.
    #[error("`{variable}` has no `{field}`, only {fields}")]
    UnknownField {
        /// The variable.
        variable: String,
        /// As it was written.
        field: String,
        /// The fields that there are.
        fields: String,
    },
    /// There is no such function, or not with so many arguments.
    #[error("there is no function `{name}` {}", arguments(.method, .count))]
    UnknownFunction {
        /// As it was written.
        name: String,
        /// It was called on a value: `value.name(..)`.
        method: bool,
        /// With so many arguments.
        count: usize,
    },
    /// It never gives a boolean.
    #[error("this gives no boolean: a predicate is true or false")]
    NotBoolean,
    /// CEL has it, predicates have not.
    #[error("{0} cannot be used in a predicate")]
    Unsupported(&'static str),
}

impl PredicateError {
    /// An error at a character of the text, counted from 0.
    pub(super) fn at(text: &str, offset: usize, fault: PredicateFault) -> Self {
        let before: Vec<char> = text.chars().take(offset).collect();
        let line = before.iter().filter(|character| **character == '\n').count() + 1;
        let column = before.iter().rev().take_while(|character| **character != '\n').count() + 1;
        Self::on(text, line, column, fault)
    }

    /// An error at a line and a column, counted from 1.
    pub(super) fn on(text: &str, line: usize, column: usize, fault: PredicateFault) -> Self {
        Self { fault, text: text.to_owned(), line, column }
    }

    /// What is wrong.
    #[must_use]
    pub fn fault(&self) -> &PredicateFault {
        &self.fault
    }

    /// The line, counted from 1.
    #[must_use]
    pub fn line(&self) -> usize {
        self.line
    }

    /// The column in characters, counted from 1.
    #[must_use]
    pub fn column(&self) -> usize {
        self.column
    }

    /// The line of the predicate that is wrong, and below it a caret at the position. Of a long line only what is
    /// around it; control characters are blanks.
    #[must_use]
    pub fn picture(&self) -> String {
        /// So many characters of the line are shown before the position, and as many after it.
        const AROUND: usize = 60;
        let line = self.text.lines().nth(self.line - 1).unwrap_or_default();
        let begin = (self.column - 1).saturating_sub(AROUND);
        let shown: String = line
            .chars()
            .skip(begin)
            .take(2 * AROUND)
            .map(|character| if character.is_control() { ' ' } else { character })
            .collect();
        format!("{shown}\n{:>1$}", '^', self.column - begin)
    }
}

fn arguments(method: &bool, count: &usize) -> String {
    let plural = if *count == 1 { "" } else { "s" };
    let on = if *method { " that is called on a value" } else { "" };
    format!("with {count} argument{plural}{on}")
}
